package inbox

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// recorder is the owner of an Inbox in tests. It records its calls.
type recorder struct {
	calls   []string
	changed int
	ready   bool
	panics  bool
}

// stepped makes a Pool without workers. The test makes its calls with Step.
func stepped(l Limits) *Pool[*recorder] { return NewPool(0, l, recording) }

// later makes such a Pool whose Messages are over when the test says so.
func later(l Limits) *Pool[*recorder] {
	hooks := recording
	hooks.Later = true
	return NewPool(0, l, hooks)
}

var recording = Hooks[*recorder]{
	Call: func(b *Inbox[*recorder], c Call) bool {
		r := b.Owner
		text := c.Kind.String()
		if c.Kind == Message {
			text = string(c.Data)
		}
		r.calls = append(r.calls, text)
		if c.Kind == Backpressure {
			for high := range b.Pressures {
				r.calls = append(r.calls, fmt.Sprint(high))
			}
		}
		return !r.panics
	},
	Ready: func(b *Inbox[*recorder]) bool { return b.Owner.ready },
	Tell: func(n Note, b *Inbox[*recorder]) {
		if n == WishGranted {
			b.Owner.changed++
		}
	},
}

var wide = Limits{Messages: 100, Bytes: 1 << 20, Total: 1 << 30}

func (b *Inbox[T]) message(text string) {
	if b.Add(Message, 1, []byte(text)) {
		b.pool.Hand(b)
	}
}

func expectCalls(t *testing.T, r *recorder, want string) {
	t.Helper()
	if got := strings.Join(r.calls, " "); got != want {
		t.Errorf("calls %q, want %q", got, want)
	}
}

func (p *Pool[T]) all() {
	for p.Step() {
	}
}

// Each connection's calls are made once and in order, however they are added and made, and
// whether they are over when they return or later. In the end all counts are zero.
func TestCallsAreMadeOnceAndInOrder(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p, done := stepped(wide), func(*Inbox[*recorder]) bool { return false }
		if seed%2 == 0 {
			p, done = later(wide), func(b *Inbox[*recorder]) bool {
				open := b.course.Load() == open
				if open {
					b.Done()
				}
				return open
			}
		}
		boxes := make([]*Inbox[*recorder], 5)
		want := make([]string, len(boxes))
		for i := range boxes {
			boxes[i] = p.NewInbox(&recorder{ready: true})
		}
		for n := range 2000 {
			i := rng.IntN(len(boxes))
			b := boxes[i]
			switch rng.IntN(6) {
			case 0, 1, 2:
				text := fmt.Sprint("m", n, strings.Repeat("x", rng.IntN(200)))
				b.message(text)
				want[i] += " " + text
			case 3:
				b.Owner.ready = !b.Owner.ready
				b.Unpark()
			case 4:
				done(b)
			default:
				p.Step()
			}
		}
		for i, b := range boxes {
			b.Owner.ready = true
			b.Unpark()
			for p.Step() || done(b) {
			}
			expectCalls(t, b.Owner, strings.TrimSpace(want[i]))
		}
		if s := p.Stats(); s.Calls != 0 || s.Bytes != 0 || s.Waiting != 0 || s.Highs != s.Lows {
			t.Errorf("seed %d: %+v is left", seed, s)
		}
	}
}

func TestARecordsSizeCountsToo(t *testing.T) {
	p := stepped(wide)
	b := p.NewInbox(&recorder{ready: true})
	for range 10 {
		b.message("")
	}
	if n := p.Stats().Bytes; n != 10*recordHead+overhead {
		t.Errorf("ten empty messages count as %d bytes", n)
	}
}

func TestAWishComesTrueOnce(t *testing.T) {
	p := stepped(Limits{Messages: 4, Bytes: 1 << 20, Total: 1 << 30})
	b := p.NewInbox(&recorder{})
	if b.Full() || b.Want(Room) || b.Want(Idle) {
		t.Error("an empty inbox is full, or has to be waited for")
	}
	for n := range 4 {
		b.message(fmt.Sprint(n))
	}
	if !b.Full() || !b.Want(Room) {
		t.Error("four of four messages are not full")
	}
	p.Step() // no inbox is ready
	if b.Owner.changed != 0 {
		t.Error("a wish came true without a call")
	}
	b.Owner.ready = true
	b.Unpark()
	p.all()
	if b.Owner.changed != 1 || b.Calls() != 0 {
		t.Errorf("it came true %d times, %d calls are left", b.Owner.changed, b.Calls())
	}
}

// The fuller all inboxes are, the less one of them may take, so that a new connection
// has room.
func TestAnInboxMayHaveAPartOfWhatIsLeft(t *testing.T) {
	const total = 100_000
	p := stepped(Limits{Messages: 1 << 20, Bytes: 1 << 20, Total: total})
	for range 20 {
		greedy := p.NewInbox(&recorder{})
		for !greedy.Full() {
			greedy.message(strings.Repeat("x", 100))
		}
	}
	if left := p.free(); left < total/16 || p.Stats().Bytes > total+100+recordHead+overhead {
		t.Errorf("%d bytes are left, %d wait", left, p.Stats().Bytes)
	}
	if b := p.NewInbox(&recorder{}); b.Full() {
		t.Error("a newcomer may not have one message")
	}
}

func TestMessagesOfEndedConnectionsAreDiscardedAndCloseIsCalled(t *testing.T) {
	p := stepped(wide)
	b := p.NewInbox(&recorder{})
	b.message("1")
	p.Step() // takes the inbox, and parks it
	b.message("2")
	b.message("3")
	if n := b.Discard(); n != 2 {
		t.Errorf("%d messages were discarded at once, want 2", n)
	}
	if b.Add(Close, 0, nil) {
		p.Hand(b)
	}
	p.all()
	expectCalls(t, b.Owner, "Close")
	if s := p.Stats(); s.Discarded != 1 || s.Calls != 0 || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAfterAPanicOnlyCloseIsCalled(t *testing.T) {
	p := stepped(wide)
	b := p.NewInbox(&recorder{ready: true, panics: true})
	b.message("1")
	b.message("2")
	p.all()
	b.Add(Close, 0, nil)
	p.Hand(b)
	p.all()
	expectCalls(t, b.Owner, "1 Close")
}

// Backpressure that changes several times before the handler is called leads to one call.
func TestBackpressureIsReportedOnce(t *testing.T) {
	p := stepped(wide)
	b := p.NewInbox(&recorder{ready: true})
	press := func(levels ...bool) {
		for _, high := range levels {
			if b.Pressure(high) {
				p.Hand(b)
			}
		}
		p.all()
	}
	press(true, false, true, false)
	press(true)
	press(false, true)
	press(false)
	expectCalls(t, b.Owner, "Backpressure true false Backpressure true Backpressure Backpressure false")
}

// While Messages are over later, whoever hands their Inbox over calls them, and whoever is done
// with one calls the next.
func TestMessagesThatAreOverLaterTakeNoWorker(t *testing.T) {
	p := later(wide)
	b := p.NewInbox(&recorder{ready: true})
	b.message("1")
	b.message("2")
	expectCalls(t, b.Owner, "1")
	if b.Calls() != 2 || p.Stats().Waiting != 0 || !b.Want(Idle) {
		t.Errorf("%d calls, %+v", b.Calls(), p.Stats())
	}
	b.Done()
	expectCalls(t, b.Owner, "1 2")
	b.Add(Close, 0, nil)
	b.Done()
	if expectCalls(t, b.Owner, "1 2"); p.Stats().Waiting != 1 {
		t.Error("the last call waits for no worker")
	}
	p.all()
	expectCalls(t, b.Owner, "1 2 Close")
	if s := p.Stats(); s.Calls != 0 || s.Bytes != 0 || b.Owner.changed != 1 {
		t.Errorf("%+v, %d wishes came true", s, b.Owner.changed)
	}
	b.Done() // one call too many
	if !p.End(30 * time.Second) {
		t.Error("a message is not over")
	}
}

func TestTheEndWaitsForMessagesThatAreOverLater(t *testing.T) {
	p := later(wide)
	b := p.NewInbox(&recorder{ready: true})
	b.message("1")
	if p.End(time.Millisecond) {
		t.Error("a message that is not over is forgotten")
	}
	b.Done()
	if !p.End(30 * time.Second) {
		t.Error("a message is not over")
	}
}

// gate makes calls wait for the test.
type gate struct {
	entered, leave chan struct{}
}

func working(workers int, call func(*Inbox[*gate]) bool) *Pool[*gate] {
	return NewPool(workers, wide, Hooks[*gate]{
		Call:  func(b *Inbox[*gate], _ Call) bool { return call(b) },
		Ready: func(*Inbox[*gate]) bool { return true },
		Tell:  func(Note, *Inbox[*gate]) {},
	})
}

// nudged nudges the pool until something has happened.
func nudged[T any](t *testing.T, p *Pool[T], what string, happened <-chan struct{}) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; p.Nudge() {
		select {
		case <-happened:
			return
		case <-time.After(time.Millisecond):
			if time.Now().After(deadline) {
				t.Fatal("waited in vain until", what)
			}
		}
	}
}

// A call that blocks does not keep other connections from being served.
func TestMoreWorkersAreWokenWhenSomeBlock(t *testing.T) {
	const most = 4
	g := &gate{make(chan struct{}, most), make(chan struct{})}
	p := working(most, func(b *Inbox[*gate]) bool {
		b.Owner.entered <- struct{}{}
		<-b.Owner.leave
		return true
	})
	for range most + 1 {
		p.NewInbox(g).message("x")
	}
	for i := range most {
		nudged(t, p, fmt.Sprint(i+1, " calls run"), g.entered)
	}
	if s := p.Stats(); s.Busy != most || s.Waiting != 1 || p.Late(0) != most {
		t.Errorf("%+v, %d calls run", s, p.Late(0))
	}
	if stuck := p.Stuck(); stuck.Kind != Message || !strings.Contains(string(stuck.Stack), "TestMoreWorkers") {
		t.Errorf("the oldest call is %v, in %s", stuck.Kind, stuck.Stack)
	}
	close(g.leave)
	if !p.End(30 * time.Second) {
		t.Error("the workers do not end")
	}
}

// A handler that ends its goroutine with Goexit does not end its worker.
func TestGoexitEndsNoWorker(t *testing.T) {
	g := &gate{entered: make(chan struct{}, 100)}
	p := working(1, func(b *Inbox[*gate]) bool {
		b.Owner.entered <- struct{}{}
		runtime.Goexit()
		return true
	})
	for i := range 5 {
		p.NewInbox(g).message("x")
		nudged(t, p, fmt.Sprint("call ", i), g.entered)
	}
	if !p.End(30 * time.Second) {
		t.Error("the workers do not end")
	}
	if s := p.Stats(); s.Calls != 0 || s.Busy != 0 {
		t.Errorf("%+v", s)
	}
}

// While reactors add calls and workers make them, no call is lost or made twice.
func TestCallsAreAddedAndMadeAtTheSameTime(t *testing.T) {
	for _, later := range []bool{false, true} {
		addAndMake(t, later)
	}
}

func addAndMake(t *testing.T, later bool) {
	const reactors, each, calls = 3, 20, 300
	var made atomic.Int64
	p := NewPool(4, Limits{Messages: 8, Bytes: 1 << 16, Total: 1 << 30}, Hooks[*atomic.Int32]{
		Later: later,
		Call: func(b *Inbox[*atomic.Int32], _ Call) bool {
			if b.Owner.Add(1) != 1 {
				t.Error("two calls of one connection")
			}
			over := func() {
				b.Owner.Add(-1)
				if later {
					b.Done()
				}
			}
			if n := made.Add(1); later && n%3 > 0 {
				go over()
			} else {
				over()
			}
			return true
		},
		Ready: func(*Inbox[*atomic.Int32]) bool { return true },
		Tell:  func(Note, *Inbox[*atomic.Int32]) {},
	})
	var adding sync.WaitGroup
	for range reactors {
		adding.Go(func() {
			boxes := make([]*Inbox[*atomic.Int32], each)
			for i := range boxes {
				boxes[i] = p.NewInbox(&atomic.Int32{})
			}
			for range calls {
				var hand []*Inbox[*atomic.Int32]
				for _, b := range boxes {
					if b.Add(Message, 0, []byte("hello")) {
						hand = append(hand, b)
					}
				}
				p.Hand(hand...)
				p.Nudge()
			}
		})
	}
	adding.Wait()
	if !p.End(30 * time.Second) {
		t.Fatal("the workers do not end")
	}
	if s := p.Stats(); made.Load() != reactors*each*calls || s.Calls != 0 || s.Bytes != 0 {
		t.Errorf("%d calls were made, %+v is left", made.Load(), s)
	}
}
