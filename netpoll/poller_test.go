package netpoll

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newPoller makes a poller with its waker, closed at the test's end.
func newPoller(t *testing.T) (*Poller, *Waker) {
	t.Helper()
	w, err := NewWaker()
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPoller(w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, w
}

// socketPair returns two connected non-blocking sockets.
func socketPair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func mustAdd(t *testing.T, p *Poller, fd int, token Token, want Interest) {
	t.Helper()
	if err := p.Add(fd, token, want); err != nil {
		t.Fatal(err)
	}
}

func mustWait(t *testing.T, p *Poller, timeout time.Duration) []Event {
	t.Helper()
	events, err := p.Wait(timeout)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func mustWrite(t *testing.T, fd int, text string) {
	t.Helper()
	if n, err := Write(fd, []byte(text)); n != len(text) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
}

const forever = -1

func TestEventCarriesTheWholeToken(t *testing.T) {
	p, _ := newPoller(t)
	a, b := socketPair(t)
	token := Token{Slot: 0xdeadbeef, Gen: 0xfffffffe}
	mustAdd(t, p, a, token, In)
	mustWrite(t, b, "x")
	events := mustWait(t, p, forever)
	if len(events) != 1 || events[0].Token() != token {
		t.Fatalf("events %v, want one with %v", events, token)
	}
	if !events[0].Readable() || events[0].Writable() {
		t.Error("the event should be readable alone")
	}
}

func TestReadinessStaysUntilItIsTaken(t *testing.T) {
	p, _ := newPoller(t)
	a, b := socketPair(t)
	mustAdd(t, p, a, Token{1, 1}, In)
	mustWrite(t, b, "xy")
	buf := make([]byte, 1)
	for i := range 2 {
		if n := len(mustWait(t, p, 0)); n != 1 {
			t.Fatalf("wait %d: %d events, want 1", i, n)
		}
		if _, err := Read(a, buf); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(mustWait(t, p, 0)); n != 0 {
		t.Fatalf("%d events after everything was read", n)
	}
}

func TestModifyChangesWhatIsWaitedFor(t *testing.T) {
	p, _ := newPoller(t)
	a, _ := socketPair(t)
	mustAdd(t, p, a, Token{1, 1}, In)
	if n := len(mustWait(t, p, 0)); n != 0 {
		t.Fatal("nothing to read, but ready")
	}
	if err := p.Modify(a, Token{1, 2}, In|Out); err != nil {
		t.Fatal(err)
	}
	events := mustWait(t, p, forever)
	if len(events) != 1 || !events[0].Writable() || events[0].Readable() || events[0].Token().Gen != 2 {
		t.Fatalf("events %+v, want a writable one of generation 2", events)
	}
}

func TestHangUpIsReadable(t *testing.T) {
	p, _ := newPoller(t)
	a, b := socketPair(t)
	mustAdd(t, p, a, Token{1, 1}, Out)
	unix.Shutdown(b, unix.SHUT_RDWR)
	events := mustWait(t, p, forever)
	if len(events) != 1 || !events[0].Readable() {
		t.Fatalf("events %+v, want a readable one", events)
	}
}

func TestClosingRemovesASocket(t *testing.T) {
	p, _ := newPoller(t)
	a, b := socketPair(t)
	dup, err := unix.Dup(a)
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, p, dup, Token{1, 1}, In)
	Close(dup)
	unix.Close(a)
	_, _ = Write(b, []byte("x"))
	if n := len(mustWait(t, p, 0)); n != 0 {
		t.Fatal("a closed socket is still polled")
	}
}

func TestAddRefusesWhatCannotBePolled(t *testing.T) {
	p, _ := newPoller(t)
	if err := p.Add(-1, Token{1, 1}, In); err == nil {
		t.Error("a descriptor of -1 was added")
	}
}

func TestWakeInterruptsAWait(t *testing.T) {
	p, w := newPoller(t)
	go w.Wake()
	if n := len(mustWait(t, p, forever)); n != 0 {
		t.Fatalf("%d events for a wake, want none", n)
	}
	if !w.Called() {
		t.Error("the waker does not say that it was called")
	}
	w.Heard()
	if w.Called() {
		t.Error("called after Heard")
	}
}

func TestWakeBeforeAWaitIsNotLost(t *testing.T) {
	p, w := newPoller(t)
	for range 3 {
		w.Wake()
	}
	mustWait(t, p, forever) // would hang
	w.Heard()
	w.Wake()
	mustWait(t, p, forever)
}

func TestWakeBesideEventsIsNoEvent(t *testing.T) {
	p, w := newPoller(t)
	a, b := socketPair(t)
	mustAdd(t, p, a, Token{7, 7}, In)
	if !w.begin(asleep) {
		t.Fatal("cannot sleep")
	}
	w.Wake() // writes, because the reactor sleeps
	w.Heard()
	mustWrite(t, b, "x")
	events := mustWait(t, p, forever)
	if len(events) != 1 || events[0].Token() != (Token{7, 7}) {
		t.Fatalf("events %+v, want the socket's alone", events)
	}
}

func TestOnlyTheFirstWakeOfASleeperWrites(t *testing.T) {
	_, w := newPoller(t)
	if !w.begin(asleep) {
		t.Fatal("cannot sleep")
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				w.Wake()
			}
		})
	}
	all.Wait()
	var count [8]byte
	if n, err := unix.Read(w.fd, count[:]); n != 8 || err != nil {
		t.Fatal(n, err)
	}
	if count != [8]byte{1} {
		t.Errorf("the eventfd counts %v, want 1", count)
	}
}

func TestWaitEndsAfterItsTimeout(t *testing.T) {
	p, _ := newPoller(t)
	begun := time.Now()
	const timeout = 5 * time.Millisecond
	mustWait(t, p, timeout)
	if took := time.Since(begun); took < timeout {
		t.Errorf("waited %s, want at least %s", took, timeout)
	}
}
