package netpoll

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

var asProcess = testkit.AsProcess

func mustThreads(t *testing.T, tables Tables, n int, keep ...int) *Threads {
	t.Helper()
	threads, err := NewThreads(tables, n, keep...)
	if err != nil {
		t.Fatal(err)
	}
	return threads
}

// holdPrivateTable makes a private table that exists until the test's end.
func holdPrivateTable(t *testing.T) {
	t.Helper()
	release := make(chan struct{})
	if err := mustThreads(t, Private, 1).Start(func() { <-release }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(release) })
}

// onThread runs f on a thread of its own and waits for its end.
func onThread(t *testing.T, threads *Threads, f func()) {
	t.Helper()
	done := make(chan struct{})
	err := threads.Start(func() {
		defer close(done)
		f()
	})
	if err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestPrivateTablesHoldMoreThanTheLimit(t *testing.T) {
	if asProcess(t) {
		return
	}
	const (
		limit   = 512 // RLIMIT_NOFILE, of the whole process
		each    = 400 // connections of a server's thread
		servers = 4
	)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	l := mustListen(t, "127.0.0.1:0")
	stopBusy := beBusy(t)

	// Each client's thread holds the other ends of one server's connections.
	wakers := make([]*Waker, servers)
	for i := range wakers {
		var err error
		if wakers[i], err = NewWaker(); err != nil {
			t.Fatal(err)
		}
	}
	threads := mustThreads(t, Private, 2*servers, l.FD)
	var accepted atomic.Int64
	var ready, all sync.WaitGroup
	release := make(chan struct{})
	ready.Add(2 * servers)
	for _, w := range wakers {
		all.Add(2)
		err := threads.Start(func() {
			defer all.Done()
			var fds []int
			for len(fds) < each {
				fd, ok, err := Accept(l.FD)
				if err != nil {
					t.Errorf("accept connection %d: %v", len(fds), err)
					break
				}
				if ok {
					fds = append(fds, fd)
					accepted.Add(1)
					testkit.Garbage()
				} else {
					runtime.Gosched()
				}
			}
			ready.Done()
			<-release
			for _, fd := range fds {
				if n, err := Write(fd, []byte("hello")); n != 5 || err != nil {
					t.Errorf("write: %d, %v", n, err)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		err = threads.Start(func() {
			defer all.Done()
			p, err := NewPoller(w)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range each {
				fd, err := Connect(netip.AddrPort{}, l.Addr, 0)
				if err != nil {
					t.Errorf("connect %d: %v", i, err)
					break
				}
				if err := p.Add(fd, Token{uint32(fd), 1}, In); err != nil {
					t.Error(err)
				}
				testkit.Garbage()
			}
			ready.Done()
			buf := make([]byte, 16)
			for got := 0; got < each; {
				events, err := p.Wait(forever)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range events {
					fd := int(events[i].Token().Slot)
					if n, err := Read(fd, buf); string(buf[:n]) != "hello" || err != nil {
						t.Errorf("read %q, %v", buf[:n], err)
					}
					Close(fd)
					got++
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ready.Wait()
	if n := accepted.Load(); n != servers*each || n <= limit {
		t.Errorf("%d connections in %d tables under a limit of %d", n, servers, limit)
	}
	close(release)
	all.Wait()
	stopBusy()
}

// beBusy keeps the garbage collector, the runtime's network poller and child
// processes at work until stop is called.
func beBusy(t *testing.T) (stop func()) {
	t.Helper()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	ping := func() {
		conn, err := net.Dial("tcp", echo.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		buf := make([]byte, 4)
		if _, err := conn.Write([]byte("ping")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "ping" {
			t.Errorf("echo %q, %v", buf, err)
		}
	}
	child := func() {
		if out, err := exec.Command("echo", "hello").Output(); string(out) != "hello\n" || err != nil {
			t.Errorf("child: %q, %v", out, err)
		}
	}
	end := testkit.Repeat(runtime.GC, testkit.Garbage, ping, child)
	return func() {
		end()
		echo.Close()
	}
}

func TestATableHasWhatItNeedsAndNoOtherSocket(t *testing.T) {
	if asProcess(t) {
		return
	}
	kept := mustListen(t, "127.0.0.1:0")
	other := mustListen(t, "127.0.0.1:0")
	w, err := NewWaker()
	if err != nil {
		t.Fatal(err)
	}
	threads := mustThreads(t, Private, 1, kept.FD)
	onThread(t, threads, func() {
		if _, err := unix.Getsockname(kept.FD); err != nil {
			t.Errorf("the listener is not there: %v", err)
		}
		if _, err := unix.Getsockname(other.FD); err != unix.EBADF {
			t.Errorf("another socket is there: %v", err)
		}
		if _, err := unix.Write(w.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Errorf("the waker is not there: %v", err)
		}
		if unix.Gettid() == unix.Getpid() {
			t.Error("on the main thread")
		}
		for fd, name := range threads.runtime {
			if got, _ := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd)); got != name {
				t.Errorf("descriptor %d of the runtime is %q, not %q", fd, got, name)
			}
		}
	})
	if _, err := unix.Getsockname(other.FD); err != nil {
		t.Errorf("the process has lost a socket: %v", err)
	}
}

// A stream that was open when a table was copied ends when the rest of the
// process closes it, not when the thread does.
func TestATableKeepsNoStreamAlive(t *testing.T) {
	if asProcess(t) {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	holdPrivateTable(t)
	server.Close()
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client sees %v, want EOF", err)
	}
}

// The same holds for a FIFO, which has a name in a file system.
func TestATableKeepsNoFIFOAlive(t *testing.T) {
	if asProcess(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	holdPrivateTable(t)
	writer.Close()
	reader.SetReadDeadline(time.Now().Add(testkit.Patience))
	if _, err := reader.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the reader sees %v, want EOF", err)
	}
}

func TestATableKeepsNoFileLocked(t *testing.T) {
	if asProcess(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "lock")
	lock := func() (*os.File, error) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	first, err := lock()
	if err != nil {
		t.Fatal(err)
	}
	holdPrivateTable(t)
	first.Close()
	if _, err := lock(); err != nil {
		t.Errorf("lock a file whose holder has closed it: %v", err)
	}
}

// The Go runtime keeps files of its cgroup open and reads them by number.
func TestATableKeepsWhatTheKernelShows(t *testing.T) {
	if asProcess(t) {
		return
	}
	files := map[string]*os.File{}
	for _, name := range []string{"/proc/self/limits", "/sys/devices/system/cpu/online", "/dev/null"} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[name] = f
	}
	onThread(t, mustThreads(t, Private, 1), func() {
		for name, f := range files {
			if _, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestAThreadsDescriptorsEndWithIt(t *testing.T) {
	if asProcess(t) {
		return
	}
	l := mustListen(t, "127.0.0.1:0")
	conn, err := net.Dial("tcp", l.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, l.FD, In)
	onThread(t, mustThreads(t, Private, 1, l.FD), func() {
		if _, ok, err := Accept(l.FD); !ok || err != nil {
			t.Error(ok, err)
		}
	})
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the peer sees %v, want EOF", err)
	}
}

func TestSharedThreadsSeeEverything(t *testing.T) {
	l := mustListen(t, "127.0.0.1:0")
	threads := mustThreads(t, Shared, 1)
	if threads.Private() {
		t.Error("shared tables are private")
	}
	onThread(t, threads, func() {
		if _, err := unix.Getsockname(l.FD); err != nil {
			t.Error(err)
		}
		if unix.Gettid() == unix.Getpid() {
			t.Error("on the main thread")
		}
	})
}

func TestEveryThreadCanRunAtOnce(t *testing.T) {
	if asProcess(t) {
		return
	}
	before := runtime.GOMAXPROCS(0)
	for _, threads := range []int{3, 1, before + 1} {
		mustThreads(t, Shared, threads)
		if n, places := runtime.GOMAXPROCS(0), threads+before; n < places {
			t.Errorf("GOMAXPROCS is %d for %d threads and %d processors", n, threads, before)
		}
	}
	if n := Processors(); n != before {
		t.Errorf("%d processors became %d", before, n)
	}
}

func TestPrivateTablesAreAllowedHere(t *testing.T) {
	if asProcess(t) {
		return
	}
	if err := PrivateTables(); err != nil {
		t.Error(err)
	}
	if n := runtime.GOMAXPROCS(0); n != Processors() {
		t.Errorf("PrivateTables changed GOMAXPROCS from %d to %d", Processors(), n)
	}
}

// Each call of PrivateTables ends a thread, while other calls read what /proc shows
// of theirs.
func TestPrivateTablesMayBeCalledByManyAtOnce(t *testing.T) {
	if asProcess(t) {
		return
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 50 {
				if err := PrivateTables(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestPrivateTablesAreRefusedWhereUnshareIs(t *testing.T) {
	if asProcess(t) {
		return
	}
	if err := testkit.DenyUnshare(); err != nil {
		t.Fatal(err)
	}
	for range 2 * Processors() { // each on another thread
		if err := PrivateTables(); !errors.Is(err, unix.EPERM) {
			t.Errorf("private tables: %v, want EPERM", err)
		}
	}
	if err := mustThreads(t, Private, 1).Start(func() { t.Error("a thread without its table runs") }); !errors.Is(err, unix.EPERM) {
		t.Errorf("start a thread: %v, want EPERM", err)
	}
	onThread(t, mustThreads(t, Shared, 1), func() {})
}

// The runtime's descriptors, one epoll set and one eventfd, are found while other
// goroutines open and close descriptors.
func TestTheRuntimesDescriptorsAreFoundWhileOthersChange(t *testing.T) {
	if asProcess(t) {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	change := func() {
		// The eventfd's number becomes the next socket's.
		if fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC); err == nil {
			unix.Close(fd)
		}
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
		}
	}
	stop := testkit.Repeat(change, change)
	for i := range 5000 {
		threads := mustThreads(t, Private, 1)
		if len(threads.runtime) != 2 {
			t.Fatalf("round %d: the runtime has %v", i, threads.runtime)
		}
	}
	stop()
	l.Close()
}
