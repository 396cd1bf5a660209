package netpoll

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// answer is the result of one call of Fault.
type answer struct {
	limit int
	errno unix.Errno
}

// withFaults makes Fault return the script's answers to one kind of call, until the
// test's end. After the last answer no call fails. left is how many answers remain.
func withFaults(t *testing.T, call Call, script ...answer) (left func() int) {
	t.Helper()
	Fault = func(c Call, _, size int) (int, unix.Errno) {
		if c != call || len(script) == 0 {
			return size, 0
		}
		a := script[0]
		script = script[1:]
		return a.limit, a.errno
	}
	t.Cleanup(func() { Fault = nil })
	return func() int { return len(script) }
}

func TestFaultyReads(t *testing.T) {
	a, b := socketPair(t)
	mustWrite(t, b, "hello")
	left := withFaults(t, CallRead,
		answer{2, 0}, answer{0, 0}, answer{0, unix.EAGAIN}, answer{0, unix.ECONNRESET}, answer{0, unix.EINTR}, answer{8, 0})
	buf := make([]byte, 8)
	for i, want := range []struct {
		text string
		err  error
	}{{"he", nil}, {"", nil}, {"", nil}, {"", unix.ECONNRESET}, {"llo", nil}} {
		if n, err := Read(a, buf); string(buf[:n]) != want.text || err != want.err {
			t.Errorf("read %d: %q, %v, want %q, %v", i, buf[:n], err, want.text, want.err)
		}
	}
	if left() != 0 {
		t.Errorf("%d faults were not asked for", left())
	}
	unix.Shutdown(b, unix.SHUT_RDWR)
	if _, err := Read(a, buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestFaultyWrites(t *testing.T) {
	a, b := socketPair(t)
	left := withFaults(t, CallWrite,
		answer{2, 0}, answer{0, 0}, answer{0, unix.EAGAIN}, answer{0, unix.EPIPE}, answer{0, unix.EINTR}, answer{5, 0})
	for i, want := range []struct {
		n   int
		err error
	}{{2, nil}, {0, nil}, {0, nil}, {0, unix.EPIPE}, {5, nil}} {
		if n, err := Write(a, []byte("hello")); n != want.n || err != want.err {
			t.Errorf("write %d: %d, %v, want %d, %v", i, n, err, want.n, want.err)
		}
	}
	buf := make([]byte, 16)
	if n, err := Read(b, buf); string(buf[:n]) != "hehello" || err != nil || left() != 0 {
		t.Errorf("%q has arrived, %v; %d faults were not asked for", buf[:n], err, left())
	}
}

func TestFaultyAccepts(t *testing.T) {
	l, _ := knocked(t)
	withFaults(t, CallAccept, answer{0, unix.EAGAIN}, answer{0, unix.EMFILE}, answer{0, unix.ECONNABORTED})
	if _, ok, err := Accept(l.FD); ok || err != nil {
		t.Errorf("EAGAIN: %v, %v", ok, err)
	}
	if _, ok, err := Accept(l.FD); ok || err != unix.EMFILE {
		t.Errorf("EMFILE: %v, %v", ok, err)
	}
	fd, ok, err := Accept(l.FD)
	if !ok || err != nil {
		t.Fatalf("after an aborted connection: %v, %v", ok, err)
	}
	Close(fd)
}

func TestFaultyRegistrations(t *testing.T) {
	p, _ := newPoller(t)
	a, _ := socketPair(t)
	withFaults(t, CallPollAdd, answer{0, unix.ENOSPC})
	if err := p.Add(a, Token{1, 1}, Out); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Add: %v", err)
	}
	if n := len(mustWait(t, p, 0)); n != 0 {
		t.Errorf("%d events of a socket that was not added", n)
	}
	mustAdd(t, p, a, Token{1, 1}, Out)
	withFaults(t, CallPollModify, answer{0, unix.ENOMEM})
	if err := p.Modify(a, Token{1, 2}, Out); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("Modify: %v", err)
	}
	if events := mustWait(t, p, forever); len(events) != 1 || events[0].Token().Gen != 1 {
		t.Errorf("events %+v, want one with the interest of Add", events)
	}
}

// One message over a socket pair. It shows what the check of Fault costs when
// compared with a version without the check.
func BenchmarkWriteAndRead(b *testing.B) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	message, buf := make([]byte, 32), make([]byte, 64)
	for b.Loop() {
		if n, err := Write(fds[0], message); n != len(message) || err != nil {
			b.Fatal(n, err)
		}
		if n, err := Read(fds[1], buf); n != len(message) || err != nil {
			b.Fatal(n, err)
		}
	}
}

// Neither call reaches a socket, so this is the cost without the kernel's work on
// sockets.
func BenchmarkReadOfNoSocket(b *testing.B) {
	buf := make([]byte, 64)
	for b.Loop() {
		if n, _ := Read(-1, buf); n != 0 {
			b.Fatal(n)
		}
	}
}
