//go:build linux

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

// Threads starts the threads of reactors.
type Threads struct {
	private bool
	keep    map[int]bool   // sockets that every private table needs, such as listeners
	runtime map[int]string // the Go runtime's descriptors, and what they name
}

var processors = runtime.GOMAXPROCS(0)

// Processors returns how many processors this process may use: the value of
// GOMAXPROCS before NewThreads changed it.
func Processors() int { return processors }

// NewThreads prepares for n threads that use such tables. keep are the sockets
// that each private table needs too. These sockets and all Wakers must be open
// before the call.
//
// NewThreads raises GOMAXPROCS to n more than it was at the program's start. A
// reactor needs a place in Go's scheduler while it runs, and so do all other
// goroutines. Without places for all of them, Go's monitor thread takes places
// away and gives them back, which costs a fifth of a processor. The kernel
// decides which of the threads has a processor.
func NewThreads(tables Tables, n int, keep ...int) (*Threads, error) {
	if places := n + processors; places > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(places)
	}
	if tables != Private {
		return &Threads{}, nil
	}
	return privateThreads(keep...)
}

// PrivateTables returns nil if a thread may have a descriptor table of its own,
// and otherwise the reason. It is EPERM where a container's seccomp profile
// denies unshare.
func PrivateTables() error {
	t, err := privateThreads()
	if err != nil {
		return err
	}
	return t.Start(func() {})
}

// privateThreads finds the Go runtime's own descriptors.
//
// The runtime polls its epoll set by number, on the thread that happens to
// restart the program after a garbage collection, which may be a reactor's
// thread. In a private table this number must therefore name the same set, and
// must never be reused. If the number named the reactor's own set, the runtime
// would take the set's tokens for pointers. So the runtime has to open its set
// now, before a table is copied, and each thread verifies its copy.
func privateThreads(keep ...int) (*Threads, error) {
	t := &Threads{private: true, keep: map[int]bool{}}
	for _, fd := range keep {
		t.keep[fd] = true
	}
	// The runtime's epoll set is the one that watches this pipe.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("netpoll: open a pipe: %w", err)
	}
	defer r.Close()
	defer w.Close()
	if t.runtime, err = runtimeDescriptors(r); err != nil {
		return nil, err
	}
	return t, nil
}

// runtimeDescriptors finds the epoll set in which the Go runtime watches f,
// and the eventfd that it watches there too.
func runtimeDescriptors(f *os.File) (map[int]string, error) {
	// A file below /proc/thread-self cannot be read once the thread that opened
	// it has ended. No other goroutine can run on a locked thread and end it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
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
		// The inode is compared, not the number: if a copied table kept a file
		// open, its old number is still in a set.
		watched := watchedBy(fd)
		if !slices.ContainsFunc(watched, func(w watch) bool { return w.inode == pipe.Ino }) {
			continue
		}
		// The runtime watches its eventfd for reading only, and all other
		// descriptors for writing too. Their numbers may have been reused since
		// the list was made.
		found := map[int]string{fd: name}
		for _, w := range watched {
			if w.events&unix.EPOLLOUT == 0 && open[w.fd] == "anon_inode:[eventfd]" {
				found[w.fd] = open[w.fd]
			}
		}
		return found, nil
	}
	return nil, errors.New("netpoll: the Go runtime's epoll set was not found among the open descriptors")
}

// watch is a file in an epoll set.
type watch struct {
	fd     int    // its number when it was added
	events uint32 // that the set waits for
	inode  uint64
}

// watchedBy lists the files in an epoll set, from /proc/PID/fdinfo. The list is
// empty if that cannot be read.
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

// Yield gives the calling thread's processor to another thread, if one waits for
// it. A thread that has much to do calls it between the parts. Otherwise the
// kernel would make the other threads wait for some milliseconds.
func Yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// Private reports whether the threads get tables of their own.
func (t *Threads) Private() bool { return t.private }

// Start runs f on a new goroutine that has a thread to itself, and ends the
// thread with f. It returns when the thread and its table are ready. keep are
// descriptors that this thread's table needs too, if it is private.
func (t *Threads) Start(f func(), keep ...int) error {
	ready := make(chan error)
	go onOwnThread(func() {
		err := t.enter(keep)
		ready <- err
		if err == nil {
			f()
		}
	})
	return <-ready
}

// onOwnThread runs f on a thread that no other goroutine uses and that ends
// after f, so never on the main thread. The caller's goroutine must end after it.
func onOwnThread(f func()) {
	// There is no UnlockOSThread after f: the runtime ends the thread with the
	// goroutine, and the kernel closes a private table with the thread.
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread never ends, and its table is the one that /proc/self
		// shows. While this goroutine occupies it, the next one gets another.
		begun := make(chan struct{})
		go onOwnThread(func() {
			close(begun)
			f()
		})
		<-begun
		runtime.UnlockOSThread()
		return
	}
	f()
}

// enter gives the calling thread its table.
func (t *Threads) enter(keep []int) error {
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
	for fd, name := range t.runtime {
		if open[fd] != name {
			return fmt.Errorf("netpoll: descriptor %d of the Go runtime is %q in this thread's table, not %q", fd, open[fd], name)
		}
	}
	for fd, name := range open {
		if fd > 2 && !t.keep[fd] && !slices.Contains(keep, fd) && t.runtime[fd] == "" && !staysInCopies(name) {
			_ = unix.Close(fd)
		}
	}
	return nil
}

// staysInCopies reports whether a copied table may keep a descriptor, by what it
// names. Everything else is closed in the copy, because the copy would keep it
// open after the rest of the process has closed it: a stream's reader would
// never see the end, and a file would stay locked.
func staysInCopies(name string) bool {
	switch {
	case strings.HasPrefix(name, "anon_inode:"): // wakers, and other epoll sets and eventfds
		return true
	case strings.HasPrefix(name, "/proc/"), strings.HasPrefix(name, "/sys/"): // the runtime reads its cgroup's files by number
		return true
	case strings.HasPrefix(name, "/dev/shm/"): // ordinary files
		return false
	}
	return strings.HasPrefix(name, "/dev/")
}

// openDescriptors lists the calling thread's table: the name behind each number.
func openDescriptors() (map[int]string, error) {
	runtime.LockOSThread() // the listing is of one thread
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
		if err == nil && errNumber == nil { // the descriptor of the listing itself is closed by now
			open[fd] = name
		}
	}
	return open, nil
}
