package netpoll

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Tables says which descriptor table a reactor's thread uses.
type Tables int

const (
	// Auto leaves the choice to whoever runs the reactors.
	Auto Tables = iota
	// Shared is the ordinary way: one table for the process.
	Shared
	// Private gives each reactor's thread a table of its own, with its own
	// RLIMIT_NOFILE and fs.nr_open. A process then holds reactors × limit
	// sockets, and no thread waits for another's table. Descriptors mean
	// nothing on another thread, so nothing that opens one for others may run
	// on a reactor.
	Private
)

var tablesNames = [...]string{Auto: "auto", Shared: "shared", Private: "private"}

func (t Tables) String() string { return tablesNames[t] }

// MarshalText returns the name.
func (t Tables) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText accepts "auto", "shared" and "private".
func (t *Tables) UnmarshalText(text []byte) error {
	for i, name := range tablesNames {
		if string(text) == name {
			*t = Tables(i)
			return nil
		}
	}
	return fmt.Errorf("netpoll: descriptor tables are auto, shared or private, not %q", text)
}

// Threads starts reactors' threads.
type Threads struct {
	private bool
	keep    map[int]bool   // sockets that every private table needs, such as listeners
	own     map[int]string // the Go runtime's descriptors, and what they name
}

var processors = runtime.GOMAXPROCS(0)

// Processors is how many this process may use: GOMAXPROCS as it began with,
// whatever NewThreads has made of it.
func Processors() int { return processors }

// NewThreads prepares for n threads with such tables; Auto means Shared. keep
// are the sockets that each private table shall have too. They, and all
// Wakers, must be open by now.
//
// GOMAXPROCS is raised to n and as many again as there were: each thread needs
// a place in Go's scheduler to run, and so does everything else, or it has to
// wait for a thread's place, which Go's monitor then keeps looking for with a
// fifth of a processor. Which of them has a processor is the kernel's business.
//
// The Go runtime polls its own epoll set by number on whatever thread happens
// to start the world after a collection, a reactor's too. In a private table
// that number must therefore name the same thing, and nothing else may ever
// get it: the runtime is made to open its set here, before any table is
// copied, and each thread verifies its copy. Otherwise the number could become
// the reactor's own set, whose tokens the runtime would take for pointers.
func NewThreads(tables Tables, n int, keep ...int) (*Threads, error) {
	if places := n + processors; places > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(places)
	}
	t := &Threads{private: tables == Private, keep: map[int]bool{}}
	for _, fd := range keep {
		t.keep[fd] = true
	}
	if !t.private {
		return t, nil
	}
	// While the runtime watches a pipe, its epoll set can be told from others.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("netpoll: open a pipe: %w", err)
	}
	defer r.Close()
	defer w.Close()
	if t.own, err = runtimeDescriptors(r); err != nil {
		return nil, err
	}
	return t, nil
}

// runtimeDescriptors finds the epoll set in which the Go runtime watches f,
// and the eventfd that it watches there too.
func runtimeDescriptors(f *os.File) (map[int]string, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var pipe unix.Stat_t
	var statErr error
	if err := errors.Join(raw.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &pipe) }), statErr); err != nil {
		return nil, err
	}
	open, err := openDescriptors()
	if err != nil {
		return nil, err
	}
	for fd, name := range open {
		if name != "anon_inode:[eventpoll]" {
			continue
		}
		// By number alone another set could be taken for the runtime's: where a
		// copied table kept a file open, its old number stays in the set.
		watched := watchedBy(fd)
		if !slices.ContainsFunc(watched, func(w watch) bool { return w.inode == pipe.Ino }) {
			continue
		}
		// Everything that the runtime watches for others it watches for writing
		// too, whatever descriptors have become while we were looking.
		own := map[int]string{fd: name}
		for _, w := range watched {
			if w.events&unix.EPOLLOUT == 0 && open[w.fd] == "anon_inode:[eventfd]" {
				own[w.fd] = open[w.fd]
			}
		}
		return own, nil
	}
	return nil, errors.New("netpoll: the Go runtime's epoll set was not found among the open descriptors")
}

// watch is a file in an epoll set.
type watch struct {
	fd     int    // its number when it was put there
	events uint32 // that are waited for
	inode  uint64
}

// watchedBy lists what is in an epoll set, as /proc/PID/fdinfo shows it; nothing
// if that cannot be read.
func watchedBy(epoll int) (watched []watch) {
	info, _ := os.ReadFile(fmt.Sprintf("/proc/thread-self/fdinfo/%d", epoll))
	for line := range strings.Lines(string(info)) {
		var w watch
		var data string
		var pos int64
		if n, _ := fmt.Sscanf(line, "tfd: %d events: %x data: %s pos:%d ino:%x", &w.fd, &w.events, &data, &pos, &w.inode); n == 5 {
			watched = append(watched, w)
		}
	}
	return watched
}

// Yield lets another thread have the calling thread's processor, if one waits
// for it. A thread with much to do calls it between the parts: the kernel by
// itself would let the others wait for some milliseconds.
func Yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// Private reports whether the threads get tables of their own.
func (t *Threads) Private() bool { return t.private }

// Start runs f on a new goroutine that has a thread to itself, never the main
// one, and ends with it. It returns when the thread and its table are ready.
func (t *Threads) Start(f func()) error {
	ready := make(chan error)
	go t.run(ready, f)
	return <-ready
}

func (t *Threads) run(ready chan<- error, f func()) {
	// Never unlocked: the runtime ends the thread with the goroutine, and the
	// kernel closes a private table with the thread.
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread never ends, and its table is the one that
		// /proc/self shows. While this goroutine occupies it, another one
		// gets another thread.
		passed := make(chan error)
		go t.run(passed, f)
		err := <-passed
		runtime.UnlockOSThread()
		ready <- err
		return
	}
	err := t.enter()
	ready <- err
	if err == nil {
		f()
	}
}

// enter gives the calling thread its table.
func (t *Threads) enter() error {
	if !t.private {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return fmt.Errorf("netpoll: unshare(CLONE_FILES): %w", err)
	}
	open, err := openDescriptors()
	if err != nil {
		return err
	}
	for fd, name := range t.own {
		if open[fd] != name {
			return fmt.Errorf("netpoll: descriptor %d of the Go runtime is %q in this thread's table, not %q", fd, open[fd], name)
		}
	}
	// A copy keeps alive what the rest of the process closes: a peer would
	// wait for the end of a stream that this table still holds. Everything
	// else is harmless, and may be the runtime's.
	for fd, name := range open {
		stream := strings.HasPrefix(name, "socket:") || strings.HasPrefix(name, "pipe:")
		if stream && fd > 2 && !t.keep[fd] {
			_ = unix.Close(fd)
		}
	}
	return nil
}

// openDescriptors lists the calling thread's table: what each number names.
func openDescriptors() (map[int]string, error) {
	runtime.LockOSThread() // it could end while its table is listed
	defer runtime.UnlockOSThread()
	const dir = "/proc/thread-self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("netpoll: list descriptors: %w", err)
	}
	open := make(map[int]string, len(entries))
	for _, e := range entries {
		name, err := os.Readlink(dir + "/" + e.Name())
		fd, errNumber := strconv.Atoi(e.Name())
		if err == nil && errNumber == nil { // the listing's own is closed by now
			open[fd] = name
		}
	}
	return open, nil
}

// Reserve makes the calling thread's table large enough for n descriptors, cut
// to the soft RLIMIT_NOFILE. A table that grows while threads share it makes
// the one that needs more wait for all the others, 6–19 ms at each doubling.
func Reserve(n int) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && uint64(n) >= limit.Cur {
		n = int(limit.Cur) - 1
	}
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, n); err == nil {
		_ = unix.Close(fd)
	}
}
