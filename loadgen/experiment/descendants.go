package experiment

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Other programs start processes of their own, and daemons that outlive them. All of
// them are descendants of this process, if it adopts orphans.

// adoptOrphans makes orphans among this process's descendants its children
// (prctl(2): PR_SET_CHILD_SUBREAPER), until stop is called.
func adoptOrphans() (stop func(), err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("experiment: adopt orphans: %w", err)
	}
	return func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }, nil
}

// descendants are this process's descendants but for one.
func descendants(except int) (pids []int) {
	procs, err := procfs.AllProcs()
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, p := range procs {
		if stat, err := p.Stat(); err == nil { // fails if it has ended
			children[stat.PPID] = append(children[stat.PPID], p.PID)
		}
	}
	for next := []int{os.Getpid()}; len(next) > 0; next = next[1:] {
		for _, pid := range children[next[0]] {
			if pid != except {
				pids, next = append(pids, pid), append(next, pid)
			}
		}
	}
	return pids
}

// usageOf is the memory and the processor time of this process's descendants but for
// one, and how many of them run. A page that several of them share counts once.
func usageOf(except int) (r GeneratorRun, processes int) {
	for _, pid := range descendants(except) {
		r.CPU += cpu(pid).Seconds()
		proc, err := procfs.NewProc(pid)
		if err != nil {
			continue
		}
		if rollup, err := proc.ProcSMapsRollup(); err == nil && rollup.Pss > 0 { // one that has ended has no memory
			r.Bytes += int64(rollup.Pss)
			processes++
		}
	}
	return r, processes
}

func killDescendants(except int) {
	for _, pid := range descendants(except) {
		_ = unix.Kill(pid, unix.SIGKILL) // fails if it has ended
	}
}

// reapOrphans waits for the end of killed descendants but for one.
func reapOrphans(except int) {
	const tries = 500
	for range tries {
		left := descendants(except)
		if len(left) == 0 {
			return
		}
		killDescendants(except) // those that were being started
		for _, pid := range slices.Backward(left) {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // fails for what is not a child yet
		}
		time.Sleep(10 * time.Millisecond)
	}
}
