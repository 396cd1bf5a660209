package netpoll

import (
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// taker is a reactor that remembers its grants.
type taker struct {
	used, limit int
	grants      []Grant
}

func (k *taker) Accept(g Grant)   { k.grants = append(k.grants, g) }
func (k *taker) Load() (int, int) { return k.used, k.limit }

// plan is an Acceptor that was not started. A test drives it step by step.
type plan struct {
	*Acceptor
	takers []*taker
	rested []error
	now    time.Time
}

// newPlan makes a plan with one listener, in whose queue connections wait, and with
// a reactor for each number of sockets.
func newPlan(t *testing.T, used ...int) *plan { return newPlanOf(t, 1, used...) }

func newPlanOf(t *testing.T, listeners int, used ...int) *plan {
	p := &plan{now: time.Now()}
	accepting := make([]Accepting, len(used))
	for i, n := range used {
		k := &taker{used: n, limit: 1000}
		p.takers = append(p.takers, k)
		accepting[i] = k
	}
	sockets := make([]Listener, listeners)
	for i := range sockets {
		sockets[i] = mustListen(t, "127.0.0.1:0")
	}
	var err error
	p.Acceptor, err = NewAcceptor(sockets, accepting,
		func(_ int, err error) { p.rested = append(p.rested, err) })
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock() // keeps the timer's retry out
	t.Cleanup(func() {
		p.mu.Unlock()
		p.Close()
	})
	for i := range p.queues {
		p.queues[i].armed, p.queues[i].waiting = false, true
	}
	return p
}

// step gives out grants. It returns the reactors that got one, "." for none.
func (p *plan) step() string {
	before := make([]int, len(p.takers))
	for i, k := range p.takers {
		before[i] = len(k.grants)
	}
	p.dispatch(p.now)
	var got strings.Builder
	for i, k := range p.takers {
		for range len(k.grants) - before[i] {
			got.WriteByte(byte('0' + i))
		}
	}
	if got.Len() == 0 {
		return "."
	}
	return got.String()
}

func (p *plan) answer(reactor int, more bool, err error) {
	p.settle(Granted{Reactor: reactor, More: more, Err: err}, p.now)
}

func (p *plan) expect(t *testing.T, want, why string) {
	t.Helper()
	if got := p.step(); got != want {
		t.Fatalf("%s: grants to %s, want %s", why, got, want)
	}
}

func TestGrantsGoToTheFewestConnections(t *testing.T) {
	p := newPlan(t, 5, 3, 4)
	p.expect(t, "1", "first")
	p.expect(t, ".", "while it has not answered")
	p.takers[1].used = 9
	p.answer(1, true, nil)
	if grantsMax > 1 {
		p.expect(t, "02", "more wait, so two at once, the fewest first")
	}
}

func TestGrantsGrowWhileMoreWait(t *testing.T) {
	p := newPlan(t, 0)
	for _, budget := range []int{budgetMin, 2 * budgetMin, 4 * budgetMin} {
		p.expect(t, "0", "grant")
		grants := p.takers[0].grants
		if got := grants[len(grants)-1].Budget; got != budget {
			t.Errorf("budget %d, want %d", got, budget)
		}
		p.answer(0, true, nil)
	}
	p.expect(t, "0", "the last")
	p.answer(0, false, nil)
	p.expect(t, ".", "no connection waits any more")
	q := p.queues[0]
	if !q.armed || q.budget != budgetMin || q.grantsMax != 1 {
		t.Errorf("after the queue's end: %+v", q)
	}
}

func TestAFullReactorGetsNoGrant(t *testing.T) {
	p := newPlan(t, 1000, 999)
	p.expect(t, "1", "one has room")
	p.takers[1].used = 1000
	p.answer(1, true, nil)
	p.expect(t, ".", "none has room")
	if p.queues[0].armed {
		t.Error("armed although connections wait: epoll would report that again and again")
	}
	p.takers[0].used = 10
	p.expect(t, "0", "room again")
}

func TestAReactorThatCannotAcceptRestsLongerEachTime(t *testing.T) {
	p := newPlan(t, 0)
	for rest := restMin; rest < 3*restMax; rest *= 2 {
		p.expect(t, "0", "grant")
		p.answer(0, false, unix.EMFILE)
		p.now = p.now.Add(min(rest, restMax) - 1)
		p.expect(t, ".", "while it rests")
		p.now = p.now.Add(1)
	}
	if len(p.rested) != 1 || p.rested[0] != unix.EMFILE {
		t.Errorf("onRest was called with %v, want EMFILE once", p.rested)
	}
	p.expect(t, "0", "grant")
	p.answer(0, true, nil)
	p.expect(t, "0", "recovered")
	p.answer(0, false, unix.ENFILE)
	if len(p.rested) != 2 {
		t.Errorf("onRest was called with %v, want EMFILE a second time", p.rested)
	}
}

func TestBusyListenersGetGrantsAlternately(t *testing.T) {
	const listeners, grants = 3, 12
	p := newPlanOf(t, listeners, 0)
	for range grants {
		p.expect(t, "0", "grant")
		all := p.takers[0].grants
		p.settle(Granted{Listener: all[len(all)-1].Listener, More: true}, p.now)
	}
	var got [listeners]int
	for _, g := range p.takers[0].grants {
		got[g.Listener]++
	}
	if got != [listeners]int{4, 4, 4} {
		t.Errorf("the listeners got %v grants", got)
	}
}

func TestFreeReactorsAreSpreadOverBusyListeners(t *testing.T) {
	p := newPlanOf(t, 2, 0, 0)
	for i := range p.queues {
		p.queues[i].grantsMax = 2
	}
	p.expect(t, "01", "both reactors")
	if first, second := p.takers[0].grants[0], p.takers[1].grants[0]; first.Listener == second.Listener {
		t.Errorf("both accept from listener %d", first.Listener)
	}
}

func TestAnotherReactorTakesOverFromOneThatRests(t *testing.T) {
	p := newPlan(t, 0, 5)
	p.expect(t, "0", "first")
	p.answer(0, false, unix.EMFILE)
	p.expect(t, "1", "the other")
}

// socketsTaker accepts on a goroutine that it shares with others, so that none
// of them is faster.
type socketsTaker struct {
	acceptor *Acceptor
	listener []Listener
	index    int
	used     atomic.Int64
	accepted chan int
	grants   chan func()
}

func (k *socketsTaker) Load() (int, int) { return int(k.used.Load()), 1 << 20 }

func (k *socketsTaker) Accept(g Grant) { k.grants <- func() { k.take(g) } }

func (k *socketsTaker) take(g Grant) {
	r := Granted{Reactor: k.index, Listener: g.Listener, More: true}
	for range g.Budget {
		fd, ok, err := Accept(k.listener[g.Listener].FD)
		if !ok {
			r.More, r.Err = false, err
			break
		}
		k.used.Add(1)
		k.accepted <- fd
	}
	k.acceptor.Answer(r)
}

func TestEveryConnectionIsAcceptedAndSpread(t *testing.T) {
	const conns = 400
	listeners := []Listener{mustListen(t, "127.0.0.1:0"), mustListen(t, "127.0.0.1:0")}
	accepted := make(chan int, conns)
	grants := make(chan func(), 2) // one for each
	takers := []*socketsTaker{
		{listener: listeners, accepted: accepted, grants: grants},
		{listener: listeners, accepted: accepted, grants: grants, index: 1},
	}
	a, err := NewAcceptor(listeners, []Accepting{takers[0], takers[1]}, func(_ int, err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	takers[0].acceptor, takers[1].acceptor = a, a
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for take := range grants {
			take()
		}
	})
	defer func() {
		a.Close()
		close(grants)
		running.Wait()
	}()

	for i := range conns {
		running.Go(func() {
			conn, err := net.Dial("tcp", listeners[i%2].Addr.String())
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		})
	}
	for range conns {
		Close(<-accepted)
	}
	for _, k := range takers {
		if n := k.used.Load(); n < conns/2-budgetMax || n > conns/2+budgetMax {
			t.Errorf("reactor %d accepted %d of %d", k.index, n, conns)
		}
	}
}

// filling is a reactor that is full until the test gives it room.
type filling struct {
	room   atomic.Bool
	loads  chan struct{} // one for each Load while it is full
	accept chan Grant
}

func (f *filling) Accept(g Grant) { f.accept <- g }

func (f *filling) Load() (used, limit int) {
	if f.room.Load() {
		return 0, 1
	}
	select {
	case f.loads <- struct{}{}:
	default:
	}
	return 1, 1
}

func TestAFullReactorIsLookedAtAgain(t *testing.T) {
	l := mustListen(t, "127.0.0.1:0")
	f := &filling{loads: make(chan struct{}, 1), accept: make(chan Grant, 1)}
	a, err := NewAcceptor([]Listener{l}, []Accepting{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", l.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-f.loads
	f.room.Store(true)
	<-f.accept
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	// The answer comes too late for another grant.
	a.Answer(Granted{More: true})
	if len(f.accept) > 0 {
		t.Error("a grant after Close")
	}
}

func TestChildrenDoNotInheritTheListenersPoller(t *testing.T) {
	p := newPlan(t, 0)
	_ = p
	out, err := exec.Command("ls", "-l", "/proc/self/fd").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "eventpoll") || strings.Contains(line, "eventfd") || strings.Contains(line, "socket:") {
			t.Errorf("a child has %s", line)
		}
	}
}
