package netpoll

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newWaker(t *testing.T) *Waker {
	t.Helper()
	w, err := NewWaker()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// writes returns how many times the eventfd was written since the last call.
func (w *Waker) writes(t *testing.T) uint64 {
	t.Helper()
	var count [8]byte
	switch _, err := unix.Read(w.fd, count[:]); err {
	case nil:
	case unix.EAGAIN:
	default:
		t.Fatal(err)
	}
	return binary.NativeEndian.Uint64(count[:])
}

func mustDoze(t *testing.T, p *Poller, timeout time.Duration) []Event {
	t.Helper()
	events, err := p.Doze(timeout)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// startDoze starts a Doze on another goroutine. It returns when the Doze has begun,
// and over is closed when it has returned.
func startDoze(t *testing.T, p *Poller, timeout time.Duration) (over chan struct{}) {
	t.Helper()
	over = make(chan struct{})
	go func() {
		defer close(over)
		if _, err := p.Doze(timeout); err != nil {
			t.Error(err)
		}
	}()
	for p.waker.state.Load() != dozing {
		runtime.Gosched()
	}
	return over
}

// The waker keeps its state in one number, the model in plain variables.
func TestWakerAgainstAModel(t *testing.T) {
	w := newWaker(t)
	rng := rand.New(rand.NewPCG(3, 4))
	wait, wasCalled, interrupted := uint32(awake), false, false
	for step := range 20_000 {
		writes := uint64(0)
		interrupt := func() {
			if !interrupted {
				interrupted, writes = true, 1
			}
		}
		switch op := rng.IntN(10); {
		case op < 3:
			w.Wake()
			wasCalled = true
			if wait == asleep {
				interrupt()
			}
		case op < 6:
			w.Rouse()
			if wait == dozing && wasCalled {
				interrupt()
			}
		case op < 8 && wait == awake:
			how := []uint32{asleep, dozing}[rng.IntN(2)]
			begun := w.begin(how)
			if begun == wasCalled {
				t.Fatalf("step %d: a wait begins: %v, called: %v", step, begun, wasCalled)
			}
			if begun {
				wait, interrupted = how, false
			}
		case op < 8:
			w.end()
			wait = awake
		case wait == awake:
			w.Heard()
			wasCalled = false
		}
		if got := w.writes(t); got != writes || w.Called() != wasCalled {
			t.Fatalf("step %d: %d writes, want %d; called: %v, want %v", step, got, writes, w.Called(), wasCalled)
		}
	}
}

func TestAWakeDoesNotInterruptADoze(t *testing.T) {
	p, w := newPoller(t)
	over := startDoze(t, p, forever)
	for range 3 {
		w.Wake()
	}
	if n := w.writes(t); n != 0 {
		t.Errorf("%d writes", n)
	}
	w.Rouse()
	<-over
	if !w.Called() {
		t.Error("Called is false after a Wake")
	}
}

func TestRouseWithoutAWakeDoesNothing(t *testing.T) {
	p, w := newPoller(t)
	w.Rouse()
	over := startDoze(t, p, forever)
	w.Rouse()
	if n := w.writes(t); n != 0 {
		t.Errorf("%d writes", n)
	}
	w.Wake()
	w.Rouse()
	<-over
}

func TestADozeEndsWithAnEventAndItsTimeout(t *testing.T) {
	p, w := newPoller(t)
	a, b := socketPair(t)
	mustAdd(t, p, a, Token{7, 7}, In)
	const timeout = 5 * time.Millisecond
	begun := time.Now()
	mustDoze(t, p, timeout)
	if took := time.Since(begun); took < timeout || w.Called() {
		t.Errorf("dozed %s, want at least %s; called: %v", took, timeout, w.Called())
	}
	over := startDoze(t, p, forever)
	mustWrite(t, b, "x")
	<-over
	if events := mustDoze(t, p, forever); len(events) != 1 || events[0].Token() != (Token{7, 7}) {
		t.Errorf("events %+v, want the socket's", events)
	}
}

func TestAWakeBeforeADozeEndsItAtOnce(t *testing.T) {
	p, w := newPoller(t)
	w.Wake()
	mustDoze(t, p, forever) // would hang
	mustDoze(t, p, forever) // Heard was not called
	w.Heard()
	over := startDoze(t, p, forever)
	w.Wake()
	w.Rouse()
	<-over
}

func TestAWakeInADozeKeepsTheNextWaitFromSleeping(t *testing.T) {
	p, w := newPoller(t)
	a, b := socketPair(t)
	mustAdd(t, p, a, Token{7, 7}, In)
	for _, next := range []func(*testing.T, *Poller, time.Duration) []Event{mustWait, mustDoze} {
		over := startDoze(t, p, forever)
		w.Wake()
		mustWrite(t, b, "x")
		<-over
		if _, err := Read(a, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		next(t, p, forever) // would hang
		if !w.Called() {
			t.Error("the waker does not say that it was called")
		}
		w.Heard()
	}
}

// Senders post in bursts and rouse the reader after each. It waits and dozes
// without end, and still no letter stays behind.
func TestNoLetterIsLostWhenAReaderDozes(t *testing.T) {
	const senders, bursts = 4, 2000
	m, p := newMailbox(t, Limit{1 << 20, 1 << 30})
	var all sync.WaitGroup
	total := 0
	for s := range senders {
		rng := rand.New(rand.NewPCG(uint64(s), 5))
		sizes := make([]int, bursts)
		for i := range sizes {
			sizes[i] = 1 + rng.IntN(5)
			total += sizes[i]
		}
		all.Go(func() {
			for _, size := range sizes {
				for i := range size {
					if err := m.Post(i, nil, nil); err != nil {
						t.Error(err)
					}
				}
				m.Rouse()
				if rng.IntN(4) == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(6, 7))
	for got := 0; got < total; {
		switch rng.IntN(3) {
		case 0:
			mustWait(t, p, forever)
		case 1:
			mustDoze(t, p, forever)
		case 2:
			mustDoze(t, p, time.Millisecond)
		}
		values, _ := read(m)
		got += len(values)
	}
	all.Wait()
}
