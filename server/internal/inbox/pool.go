package inbox

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/server/internal/histogram"
)

// Hooks are what a Pool needs from its owner. They run on workers, but for Later,
// never two at a time for one Inbox.
type Hooks[T any] struct {
	// Call makes a call and recovers from its panic: then it returns false, and
	// nothing but Close is called any more. It is so too if the call ends its
	// goroutine (runtime.Goexit).
	Call func(*Inbox[T], Call) (ok bool)
	// Ready reports whether the next message may be handled. If not, the Inbox
	// waits for Unpark.
	Ready func(*Inbox[T]) bool
	// Tell is told a Note. The Inbox of RoomFree is nil.
	Tell func(Note, *Inbox[T])
	// Waits says that calls wait for something, such as another server, and leave the
	// processor to others: then each Inbox wakes a worker at once, if there is one.
	Waits bool
	// Later says that a Message is over when Inbox.Done is called, and not when Call
	// returns. Call and Ready do not wait then, and are called for a Message on the
	// goroutine of whoever calls Hand, Unpark or Done, or on a worker.
	Later bool
}

// Note is what a Pool tells its owner.
type Note uint8

// The notes.
const (
	WishGranted Note = iota // what the reactor wants of an Inbox is true
	RoomFree                // AwaitRoom's wait is over
	Served                  // no more calls of an Inbox are made for now
)

// quantum is how long an Inbox is served. A handler that takes longer is called
// once.
const quantum = time.Millisecond

// patience is how long an Inbox waits in the queue before another worker is
// woken. Handlers that take less need no more workers than are awake.
const patience = 500 * time.Microsecond

// Pool makes the calls of all Inboxes on at most so many workers, which are
// started as they are needed and stay.
type Pool[T any] struct {
	// constant
	hooks  Hooks[T]
	limits Limits
	most   int // workers

	mu          sync.Mutex
	work        sync.Cond      // something is in the queue, or it is the end
	first, last *Inbox[T]      // the queue; guarded by mu
	workers     []*worker[T]   // guarded by mu
	idle        int            // workers that wait for work, and were not signalled; guarded by mu
	ended       bool           // guarded by mu
	running     sync.WaitGroup // workers, and Messages that are over later

	awaited   atomic.Bool  // AwaitRoom waits
	calls     atomic.Int64 // in all Inboxes
	bytes     atomic.Int64 // in all Inboxes
	waiting   atomic.Int64 // Inboxes in the queue
	busy      atomic.Int64 // workers with an Inbox
	highs     atomic.Uint64
	lows      atomic.Uint64
	discarded atomic.Uint64

	// WaitTime is how long Inboxes waited in the queue, CallTime what calls took.
	WaitTime, CallTime histogram.Atomic
}

// NewPool makes a Pool of at most so many workers.
func NewPool[T any](workers int, limits Limits, hooks Hooks[T]) *Pool[T] {
	p := &Pool[T]{hooks: hooks, limits: limits, most: workers}
	p.work.L = &p.mu
	return p
}

// Hand has the calls of Inboxes made. A reactor gathers those of a whole turn, so
// that they cost one lock and wake one worker. Any goroutine may call it.
func (p *Pool[T]) Hand(list ...*Inbox[T]) {
	if len(list) == 0 {
		return
	}
	if !p.hooks.Later {
		p.queue(list...)
		return
	}
	begin := time.Now()
	for _, b := range list {
		p.serve(b, nil, begin)
	}
}

// queue puts Inboxes into the queue.
func (p *Pool[T]) queue(list ...*Inbox[T]) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range list {
		b.since = now
		if p.last == nil {
			p.first = b
		} else {
			p.last.next = b
		}
		p.last = b
	}
	p.waiting.Add(int64(len(list)))
	switch {
	case p.hooks.Waits:
		p.wake(len(list))
	case p.awake() == 0:
		p.wake(1)
	}
}

// awake is how many workers are not idle. It needs mu.
func (p *Pool[T]) awake() int { return len(p.workers) - p.idle }

// wake lets up to n more workers run. It needs mu.
func (p *Pool[T]) wake(n int) {
	for ; n > 0 && p.idle > 0; n-- {
		p.idle--
		p.work.Signal()
	}
	for ; n > 0 && len(p.workers) < p.most; n-- {
		p.start()
	}
}

func (p *Pool[T]) start() {
	w := &worker[T]{pool: p}
	p.workers = append(p.workers, w)
	p.running.Go(w.run)
}

// Nudge wakes more workers if Inboxes wait for too long, because the workers
// that are awake do not get on. It returns true while that may be needed again:
// somebody has to call it then after about a millisecond. Any goroutine may call
// it.
func (p *Pool[T]) Nudge() (again bool) {
	if p.waiting.Load() == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	more := p.idle > 0 || len(p.workers) < p.most
	if p.first != nil && more && time.Since(p.first.since) >= patience {
		p.wake(min(int(p.waiting.Load()), max(1, p.awake())))
	}
	return more
}

// take waits for an Inbox. It returns nil at the end, when none is left.
func (p *Pool[T]) take() *Inbox[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.first == nil && !p.ended {
		p.idle++
		p.work.Wait()
	}
	b := p.first
	if b == nil {
		return nil
	}
	if p.first = b.next; p.first == nil {
		p.last = nil
	}
	b.next = nil
	p.waiting.Add(-1)
	return b
}

// Step makes calls of the first Inbox in the queue, if there is one, on the
// calling goroutine, as a worker does. With a Pool of no workers it lets tests
// choose when calls are made.
func (p *Pool[T]) Step() bool {
	p.mu.Lock()
	b := p.first
	p.mu.Unlock()
	if b == nil {
		return false
	}
	w := &worker[T]{pool: p}
	w.serve(p.take())
	return true
}

// free is how many bytes all Inboxes together may still take.
func (p *Pool[T]) free() int64 { return max(0, p.limits.Total-p.bytes.Load()) }

// Full reports whether all Inboxes together hold as much as they may. Any
// goroutine may call it.
func (p *Pool[T]) Full() bool { return p.free() == 0 }

// AwaitRoom has RoomFree told when a quarter of the total is free. It
// returns false if it is; then it will not be told.
func (p *Pool[T]) AwaitRoom() bool {
	p.awaited.Store(true)
	return !p.roomy()
}

// roomy reports, once, that AwaitRoom's wait is over.
func (p *Pool[T]) roomy() bool {
	return p.awaited.Load() && p.free() >= p.limits.Total/4 && p.awaited.CompareAndSwap(true, false)
}

// End lets the workers finish what they have been given, and those Messages end
// that are over later, and reports whether all did in time. Nothing may be handed
// after it.
func (p *Pool[T]) End(timeout time.Duration) bool {
	p.mu.Lock()
	p.ended = true
	p.idle = 0
	p.mu.Unlock()
	p.work.Broadcast()
	done := make(chan struct{})
	go func() {
		p.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(timeout):
		return false
	}
}

// Stats is what a Pool has now, and has counted.
type Stats struct {
	Calls     int64  // that have not returned
	Bytes     int64  // of their records
	Waiting   int    // Inboxes in the queue
	Busy      int    // workers with an Inbox
	Highs     uint64 // times that an Inbox became half full
	Lows      uint64 // times that it was at most an eighth full again
	Discarded uint64 // messages that workers left out because their connection was gone
}

// Stats returns them. Any goroutine may call it.
func (p *Pool[T]) Stats() Stats {
	return Stats{p.calls.Load(), p.bytes.Load(), int(p.waiting.Load()), int(p.busy.Load()),
		p.highs.Load(), p.lows.Load(), p.discarded.Load()}
}
