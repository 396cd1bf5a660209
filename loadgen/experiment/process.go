package experiment

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server that was started as a child.
type process struct {
	cmd    *exec.Cmd
	addr   string // where it listens
	admin  string // the URL of its admin page, empty if it has none
	stderr tail
	exited chan struct{} // closed when it has ended
	end    error         // then; nil if it ended well
}

const (
	startTimeout = 10 * time.Second // for a server to listen
	stopTimeout  = 30 * time.Second // for a server to end
)

// start starts a server and waits until it prints the address on which it listens.
func start(ctx context.Context, name string, args ...string) (*process, error) {
	return startIn(ctx, nil, name, args...)
}

// startIn is start in a network namespace; nil is the caller's own.
func startIn(ctx context.Context, space *Namespace, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), exited: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, listening := make(chan error), make(chan string, 1)
	begin := p.cmd.Start
	if space != nil {
		begin = func() error { return space.Start(p.cmd) }
	}
	go p.run(begin, started, listening)
	err := <-started
	if err != nil {
		return nil, fmt.Errorf("experiment: start %s: %w", name, err)
	}
	select {
	case p.addr = <-listening:
		return p, nil
	case <-p.exited:
		if err = p.end; err == nil {
			err = errors.New("it ended without listening")
		}
	case <-time.After(startTimeout):
		err = fmt.Errorf("it did not listen within %s", startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.kill()
	return nil, fmt.Errorf("experiment: start %s: %w\n%s", name, err, p.stderr.String())
}

// startUntil starts a server that prints nothing, and waits until it is up.
func startUntil(ctx context.Context, cmd *exec.Cmd, up func() bool) (*process, error) {
	p := &process{cmd: cmd, exited: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go p.run(p.cmd.Start, started, make(chan string, 1))
	if err := <-started; err != nil {
		return nil, fmt.Errorf("experiment: start %s: %w", cmd.Path, err)
	}
	for late := time.Now().Add(startTimeout); !up(); {
		select {
		case <-p.exited:
			return nil, fmt.Errorf("experiment: %s has ended: %w\n%s", cmd.Path, p.end, p.stderr.String())
		case <-ctx.Done():
			p.kill()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(late) {
			p.kill()
			return nil, fmt.Errorf("experiment: %s does not answer\n%s", cmd.Path, p.stderr.String())
		}
	}
	return p, nil
}

// run starts the child, reads its output and waits for its end. The kernel kills
// the child if this program dies, but also if the thread that started it ends
// (prctl(2): PR_SET_PDEATHSIG). So run keeps its thread until the child has ended.
func (p *process) run(begin func() error, started chan<- error, listening chan<- string) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = begin()
	}
	started <- err
	if err != nil {
		return
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if url, ok := strings.CutPrefix(lines.Text(), "admin on "); ok {
			p.admin = url
		}
		if rest, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			addr, _, _ := strings.Cut(rest, " ")
			listening <- addr
			break
		}
	}
	_, _ = io.Copy(io.Discard, stdout)
	p.end = p.cmd.Wait()
	close(p.exited)
}

// stop ends the server and waits for it.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended
	select {
	case <-p.exited:
		if p.end != nil {
			return fmt.Errorf("experiment: the server failed: %w\n%s", p.end, p.stderr.String())
		}
		return nil
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		return fmt.Errorf("experiment: the server did not end within %s", stopTimeout)
	}
}

// kill ends the server with SIGKILL and waits for it. It does nothing to one that has ended, or
// that never started.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill() // fails if it has ended
	<-p.exited
}

// cpu is the processor time that a process has used; 0 if it has ended. The process's
// clock (clock_getcpuclockid(3)) counts nanoseconds, and /proc/PID/stat hundredths of
// a second.
func cpu(pid int) time.Duration {
	const (
		scheduled = 2       // CPUCLOCK_SCHED in the kernel's include/linux/posix-timers.h
		pidMost   = 1 << 22 // the kernel has none above (proc(5): pid_max)
	)
	var used unix.Timespec
	if pid > pidMost || unix.ClockGettime(int32(^pid<<3|scheduled), &used) != nil {
		return 0
	}
	return time.Duration(used.Nano())
}

// sockets counts the sockets in the descriptor tables of all threads of a process.
func sockets(pid int) int {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/fd/*", pid)) // fails only for a bad pattern
	seen := map[string]bool{}
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil && strings.HasPrefix(name, "socket:") {
			seen[name] = true
		}
	}
	return len(seen)
}

// tail keeps the end of what a process writes.
type tail struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

// tailMax is how many bytes are kept.
const tailMax = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b = append(t.b, p...); len(t.b) > tailMax {
		t.b = append([]byte(nil), t.b[len(t.b)-tailMax:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}

// self is the path of the running program.
func self() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("experiment: find the lull program: %w", err)
	}
	return path, nil
}
