// Package pressure says when memory is so short that nobody should be let in any more:
// before the kernel kills the process, and before it only reclaims memory and nothing
// else gets on. Those who are in stay.
package pressure

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/prometheus/procfs"

	"github.com/seed-134acfd0/lull/tuning/cgroup"
)

// Limits are when memory is short. It is no longer short when twice as much is left,
// and half as much time is lost.
type Limits struct {
	// Room is what has to be left, as a share of the machine's memory, and of a control
	// group's limit. Pages of files count as left, because they can be given back. Zero
	// is 1/20.
	Room float64
	// Stalled is how much of the time, averaged over ten seconds, all tasks may wait for
	// memory: PSI's "full" in percent. Zero is 10.
	Stalled float64
}

// Memory watches how short memory is.
type Memory struct {
	root   string // constant
	limits Limits // constant
	short  atomic.Bool
}

// Reading is what Poll has read.
type Reading struct {
	Of      string  // "machine", or the control group that leaves the smallest share
	Limit   int64   // its bytes
	Room    int64   // what is left of them
	Stalled float64 // percent of the last ten seconds; zero if the kernel does not tell
	Short   bool    // nobody should be let in
}

func (r Reading) String() string {
	return fmt.Sprintf("%d of %d MiB left (%s), %.1f %% of the time lost waiting for memory", r.Room>>20, r.Limit>>20, r.Of, r.Stalled)
}

// NewMemory makes a Memory. root is where the machine's file systems are, "/" for this
// one.
func NewMemory(root string, l Limits) (*Memory, error) {
	if !(l.Room >= 0 && l.Room < 0.5) {
		return nil, fmt.Errorf("pressure: the share of memory to be left is %v, and should be from 0 (1/20) to less than 0.5", l.Room)
	}
	if !(l.Stalled >= 0 && l.Stalled <= 100) {
		return nil, fmt.Errorf("pressure: the time lost waiting for memory is %v percent, and should be from 0 (10) to 100", l.Stalled)
	}
	if l.Room == 0 {
		l.Room = 1. / 20
	}
	if l.Stalled == 0 {
		l.Stalled = 10
	}
	return &Memory{root: root, limits: l}, nil
}

// Short reports what the last Poll found. Any goroutine may call it.
func (m *Memory) Short() bool { return m.short.Load() }

// Poll reads how short memory is. It opens some files, so it should run once a second
// or so, on one goroutine, and not on a reactor. If nothing can be read, memory is not
// short, and the error says why.
func (m *Memory) Poll() (Reading, error) {
	r, err := m.read()
	if err != nil {
		r = Reading{}
	} else {
		room, stalled := m.limits.Room, m.limits.Stalled
		if m.Short() {
			room, stalled = 2*room, stalled/2
		}
		r.Short = float64(r.Room) < room*float64(r.Limit) || r.Stalled >= stalled
	}
	m.short.Store(r.Short)
	return r, err
}

func (m *Memory) read() (Reading, error) {
	r, err := m.machine()
	group, found := cgroup.Read(m.root)
	if found && group.Limit != cgroup.Unlimited {
		g := Reading{Of: group.Tight, Limit: group.Room + group.Used, Room: group.Room}
		if err != nil || g.share() < r.share() {
			r, err = g, nil
		}
	}
	if err != nil {
		return r, fmt.Errorf("pressure: read how much memory is left: %w", err)
	}
	r.Stalled = m.stalled(group.Dir)
	return r, nil
}

func (r Reading) share() float64 { return float64(r.Room) / math.Max(1, float64(r.Limit)) }

// machine reads what is left of the machine's memory. MemAvailable would count the
// inodes and dentries of open sockets as what can be given back.
func (m *Memory) machine() (Reading, error) {
	fs, err := procfs.NewFS(filepath.Join(m.root, "proc"))
	if err != nil {
		return Reading{}, err
	}
	info, err := fs.Meminfo()
	if err != nil {
		return Reading{}, err
	}
	if info.MemTotalBytes == nil || info.MemFreeBytes == nil {
		return Reading{}, fmt.Errorf("/proc/meminfo has no MemTotal or no MemFree")
	}
	r := Reading{Of: "machine", Limit: int64(*info.MemTotalBytes), Room: int64(*info.MemFreeBytes)}
	for _, pages := range []*uint64{info.ActiveFileBytes, info.InactiveFileBytes} {
		if pages != nil {
			r.Room += int64(*pages)
		}
	}
	return r, nil
}

// stalled reads the pressure stall information of this process's group, or where groups
// have none, of the machine (Documentation/accounting/psi.rst).
func (m *Memory) stalled(group string) (percent float64) {
	files := []string{filepath.Join(m.root, "proc/pressure/memory")}
	if group != "" {
		files = append([]string{filepath.Join(group, "memory.pressure")}, files...)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if n, _ := fmt.Sscanf(line, "full avg10=%f", &percent); n == 1 {
				return percent
			}
		}
	}
	return 0
}
