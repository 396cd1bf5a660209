package netpoll

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/mailru/easygo/netpoll"
	"golang.org/x/sys/unix"
)

// A listener's first turn is small, so that a handful of connections spreads
// over the reactors; turns double while more connections wait than they took.
const (
	turnMin = 8
	turnMax = 128
)

// widthMax bounds the turns that run at once for one listener: more than there
// are processors only take turns on those.
var widthMax = runtime.NumCPU()

// A reactor whose accept fails rests this long, doubled at each further
// failure.
const (
	restMin = 10 * time.Millisecond
	restMax = time.Second
)

// Turn asks a reactor to accept up to Budget connections from a listener.
type Turn struct {
	Listener int // index among the Acceptor's listeners
	Budget   int
}

// TurnResult is a reactor's answer to its Turn.
type TurnResult struct {
	Reactor  int // index among the Acceptor's reactors
	Listener int
	More     bool  // the budget ended before the queue did
	Err      error // why accept failed: EMFILE, ENFILE, ENOBUFS, ENOMEM …
}

// Accepting is a reactor as the Acceptor sees it.
type Accepting interface {
	// Accept hands over a turn. It does not wait; the reactor answers later,
	// from its own thread, with Answer.
	Accept(Turn)
	// Load returns how many sockets the reactor has and can have.
	Load() (used, limit int)
}

// Acceptor decides who accepts, and how many. It watches listening sockets,
// one-shot, and gives turns to the reactors with the fewest sockets; a reactor
// that has not answered its turn gets no other. Who cannot accept rests, so
// that a full descriptor table is never spun upon.
//
// It has no goroutine of its own: whoever brings news, be it the watcher of the
// listeners or a reactor with its answer, gives out the turns that follow from
// it. While connections keep coming that costs no change of threads.
type Acceptor struct {
	// constant
	reactors  []Accepting
	listeners []Listener
	onRest    func(reactor int, err error)
	epoll     *netpoll.Epoll

	mu     sync.Mutex
	queues []queue        // guarded by mu
	state  []reactorState // guarded by mu
	again  *time.Timer    // calls retry; guarded by mu
	closed bool           // guarded by mu
}

// queue is what is known of a listener's queue.
type queue struct {
	waiting bool // connections wait in it, as far as we know
	armed   bool // epoll will tell when some do
	turns   int  // turns given that are not answered
	width   int  // turns that may run at once
	budget  int
}

type reactorState struct {
	busy  bool // has a turn
	rest  time.Duration
	until time.Time // rests until then
}

// NewAcceptor makes an acceptor for listeners and reactors. onRest is told
// each time a reactor begins to rest after it had been able to accept.
func NewAcceptor(listeners []Listener, reactors []Accepting, onRest func(reactor int, err error)) (*Acceptor, error) {
	epoll, err := createEpoll()
	if err != nil {
		return nil, fmt.Errorf("netpoll: watch listeners: %w", err)
	}
	a := &Acceptor{
		reactors:  reactors,
		listeners: listeners,
		onRest:    onRest,
		epoll:     epoll,
		queues:    make([]queue, len(listeners)),
		state:     make([]reactorState, len(reactors)),
	}
	for i := range a.queues {
		a.queues[i] = queue{armed: true, width: 1, budget: turnMin}
	}
	a.again = time.AfterFunc(math.MaxInt64, a.retry) // when it is reset
	return a, nil
}

// createEpoll marks the library's two descriptors close-on-exec, which it does
// not do itself, before any child process can inherit them.
func createEpoll() (*netpoll.Epoll, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	epoll, err := netpoll.EpollCreate(nil)
	if err != nil {
		return nil, err
	}
	open, err := openDescriptors()
	if err != nil {
		return nil, err
	}
	for fd, name := range open {
		if name == "anon_inode:[eventpoll]" || name == "anon_inode:[eventfd]" {
			unix.CloseOnExec(fd)
		}
	}
	return epoll, nil
}

// Start begins to accept. A reactor gets its first turn whenever it comes to
// it.
func (a *Acceptor) Start() error {
	for i, l := range a.listeners {
		err := a.epoll.Add(l.FD, oneShot, func(netpoll.EpollEvent) { a.ready(i) })
		if err != nil {
			return fmt.Errorf("netpoll: watch %s: %w", l.Addr, err)
		}
	}
	return nil
}

const oneShot = netpoll.EPOLLIN | netpoll.EPOLLONESHOT

// Close ends accepting. Turns that were given are taken nevertheless. The
// listening sockets stay open.
func (a *Acceptor) Close() error {
	a.mu.Lock()
	a.closed = true
	a.again.Stop()
	a.mu.Unlock()
	return a.epoll.Close() // which calls ready for each listener
}

// ready takes note that connections wait.
func (a *Acceptor) ready(listener int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := &a.queues[listener]
	q.armed, q.waiting = false, true
	a.dispatch(time.Now())
}

// Answer tells how a turn went. A reactor calls it once for each turn, from any
// goroutine; it never waits.
func (a *Acceptor) Answer(r TurnResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.settle(r, now)
	a.dispatch(now)
}

func (a *Acceptor) retry() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dispatch(time.Now())
}

// dispatch gives out what turns can be given. When connections wait and nobody
// can take them, it looks again soon.
func (a *Acceptor) dispatch(now time.Time) {
	if a.closed {
		return
	}
	for i := range a.queues {
		q := &a.queues[i]
		for q.waiting && q.turns < q.width {
			best := a.freest(now)
			if best < 0 {
				a.again.Reset(restMin)
				break
			}
			a.state[best].busy = true
			q.turns++
			a.reactors[best].Accept(Turn{Listener: i, Budget: q.budget})
		}
		if !q.waiting && !q.armed && q.turns == 0 {
			q.armed = true
			// It cannot fail: the listener is registered and open. A private
			// table has both descriptors by the same numbers.
			_ = a.epoll.Mod(a.listeners[i].FD, oneShot)
		}
	}
}

// freest returns the reactor with the fewest sockets among those that can take
// a turn, or -1.
func (a *Acceptor) freest(now time.Time) int {
	best, fewest := -1, 0
	for i, s := range a.state {
		used, limit := a.reactors[i].Load()
		if s.busy || used >= limit || now.Before(s.until) {
			continue
		}
		if best < 0 || used < fewest {
			best, fewest = i, used
		}
	}
	return best
}

// settle learns from an answer.
func (a *Acceptor) settle(r TurnResult, now time.Time) {
	q, s := &a.queues[r.Listener], &a.state[r.Reactor]
	s.busy = false
	q.turns--
	if r.Err != nil {
		if s.rest == 0 {
			a.onRest(r.Reactor, r.Err)
		}
		s.rest = min(max(2*s.rest, restMin), restMax)
		s.until = now.Add(s.rest)
		return
	}
	s.rest = 0
	if q.waiting = r.More; r.More {
		q.width = min(q.width+1, widthMax)
		q.budget = min(2*q.budget, turnMax)
	} else {
		q.width, q.budget = 1, turnMin
	}
}
