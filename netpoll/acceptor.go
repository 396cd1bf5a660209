//go:build linux

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

// The first grant for a listener is small, so that a few connections are spread
// over the reactors. Grants double while connections still wait after them.
const (
	budgetMin = 8
	budgetMax = 128
)

// grantsMax is how many grants of one listener may be open at once. More than
// one per processor would only compete for the processors.
var grantsMax = runtime.NumCPU()

// A reactor whose accept fails gets no grant for this long. The time doubles
// with each further failure.
const (
	restMin = 10 * time.Millisecond
	restMax = time.Second
)

// Grant allows a reactor to accept up to Budget connections from a listener.
type Grant struct {
	Listener int // index among the Acceptor's listeners
	Budget   int
}

// Granted is a reactor's answer to a Grant.
type Granted struct {
	Reactor  int // index among the Acceptor's reactors
	Listener int
	More     bool  // the budget was used up, so more connections may wait
	Err      error // why accept failed: EMFILE, ENFILE, ENOBUFS, ENOMEM …
}

// Accepting is a reactor as the Acceptor sees it.
type Accepting interface {
	// Accept passes a grant to the reactor. It does not wait. The reactor calls
	// Answer later, from its own thread.
	Accept(Grant)
	// Load returns how many sockets the reactor has and can have.
	Load() (used, limit int)
}

// Acceptor decides which reactor accepts, and how many connections. It watches
// the listening sockets, one-shot, and gives each grant to the reactor with the
// fewest sockets. Busy listeners get grants alternately. A reactor has
// one open grant at most. A reactor that fails to accept rests for a while, so
// that a full descriptor table causes no busy loop.
//
// The Acceptor has no goroutine of its own. The goroutine that brings news, the
// watcher of the listeners or a reactor with its answer, gives out the grants
// that follow from it. While connections keep coming no thread has to wake
// another one.
type Acceptor struct {
	// constant
	reactors  []Accepting
	listeners []Listener
	onRest    func(reactor int, err error)
	epoll     *netpoll.Epoll

	mu     sync.Mutex
	queues []queue        // guarded by mu
	next   int            // the queue to look at first; guarded by mu
	state  []reactorState // guarded by mu
	again  *time.Timer    // calls retry; guarded by mu
	closed bool           // guarded by mu
}

// queue is what the Acceptor knows about a listener's queue of connections.
type queue struct {
	waiting   bool // connections wait, as far as we know
	armed     bool // epoll will report when a connection waits
	grants    int  // open grants
	grantsMax int  // how many grants may be open at once, for now
	budget    int  // of the next grant
}

// may reports whether the queue can be given another grant.
func (q *queue) may() bool { return q.waiting && q.grants < q.grantsMax }

type reactorState struct {
	busy  bool          // has an open grant
	rest  time.Duration // the last pause after a failure, 0 after a success
	until time.Time     // the end of that pause
}

// NewAcceptor makes an acceptor for listeners and reactors. It calls onRest
// each time a reactor fails to accept that could accept before.
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
		a.queues[i] = queue{armed: true, grantsMax: 1, budget: budgetMin}
	}
	a.again = time.AfterFunc(math.MaxInt64, a.retry) // runs after Reset
	return a, nil
}

// createEpoll opens the library's epoll set. The library does not mark its two
// descriptors close-on-exec, so this function does, before a child process can
// inherit them.
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

// Start begins to accept. From now on reactors are given grants.
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

// Close stops accepting: no more grants are given, and open ones stay valid. The
// listening sockets stay open.
func (a *Acceptor) Close() error {
	a.mu.Lock()
	a.closed = true
	a.again.Stop()
	a.mu.Unlock()
	return a.epoll.Close() // which calls ready for each listener
}

// ready notes that connections wait in a listener's queue.
func (a *Acceptor) ready(listener int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := &a.queues[listener]
	q.armed, q.waiting = false, true
	a.dispatch(time.Now())
}

// Answer tells what became of a grant. A reactor calls it once for each grant,
// from any goroutine. It never blocks.
func (a *Acceptor) Answer(r Granted) {
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

// dispatch gives out all grants that can be given, one queue after the other, so
// that no busy listener keeps the others waiting. If connections wait and no
// reactor can accept them, it tries again soon.
func (a *Acceptor) dispatch(now time.Time) {
	if a.closed {
		return
	}
	for i := a.nextQueue(); i >= 0; i = a.nextQueue() {
		best := a.freest(now)
		if best < 0 {
			a.again.Reset(restMin)
			break
		}
		q := &a.queues[i]
		a.state[best].busy = true
		q.grants++
		a.next = i + 1
		a.reactors[best].Accept(Grant{Listener: i, Budget: q.budget})
	}
	for i := range a.queues {
		if q := &a.queues[i]; !q.waiting && !q.armed && q.grants == 0 {
			q.armed = true
			// It cannot fail: the listener is registered and open. A private
			// table has both descriptors under the same numbers.
			_ = a.epoll.Mod(a.listeners[i].FD, oneShot)
		}
	}
}

// nextQueue returns the first queue from next on, in a circle, that can be given
// a grant, or -1.
func (a *Acceptor) nextQueue() int {
	for n := range a.queues {
		if i := (a.next + n) % len(a.queues); a.queues[i].may() {
			return i
		}
	}
	return -1
}

// freest returns the reactor with the fewest sockets among those that can be
// given a grant, or -1.
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

// settle closes a grant and updates what is known from its answer.
func (a *Acceptor) settle(r Granted, now time.Time) {
	q, s := &a.queues[r.Listener], &a.state[r.Reactor]
	s.busy = false
	q.grants--
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
		q.grantsMax = min(q.grantsMax+1, grantsMax)
		q.budget = min(2*q.budget, budgetMax)
	} else {
		q.grantsMax, q.budget = 1, budgetMin
	}
}
