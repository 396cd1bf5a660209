package inbox

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/server/internal/stack"
)

// worker is a goroutine that makes calls.
type worker[T any] struct {
	pool *Pool[T] // constant

	goroutine stack.ID // constant once it runs

	calling atomic.Int64 // when its call began, in nanoseconds since 1970; 0 outside one
	kind    atomic.Uint32
}

func (w *worker[T]) run() {
	defer w.leave()
	w.goroutine = stack.Self()
	for b := w.pool.take(); b != nil; b = w.pool.take() {
		w.serve(b)
	}
}

// serve makes calls of an Inbox that was in the queue.
func (w *worker[T]) serve(b *Inbox[T]) {
	w.work(b)
	w.pool.hooks.Tell(Served, b)
}

func (w *worker[T]) work(b *Inbox[T]) {
	p, begin := w.pool, time.Now()
	p.busy.Add(1)
	defer p.busy.Add(-1)
	p.WaitTime.AddTime(begin.Sub(b.since))
	p.serve(b, w, begin)
}

// call makes a call. A worker, if there is one, takes note of it, so that others see how
// long it takes.
func (w *worker[T]) call(b *Inbox[T], c Call, now time.Time) (ok bool) {
	if w == nil {
		return b.pool.hooks.Call(b, c)
	}
	w.kind.Store(uint32(c.Kind))
	w.calling.Store(now.UnixNano())
	defer w.calling.Store(0)
	return b.pool.hooks.Call(b, c)
}

// leave takes the worker out of the pool, at its end or because a call has ended its
// goroutine. Then another one takes its place.
func (w *worker[T]) leave() {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.workers, w)
	p.workers = slices.Delete(p.workers, i, i+1)
	if p.first != nil {
		p.wake(1)
	}
}

// Oldest is how long the call that began first has been running, 0 if none runs.
// Any goroutine may call it.
func (p *Pool[T]) Oldest() (age time.Duration) {
	_, age = p.oldest()
	return age
}

func (p *Pool[T]) oldest() (oldest *worker[T], age time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now().UnixNano()
	for _, w := range p.workers {
		if since := w.calling.Load(); since != 0 && time.Duration(now-since) >= age {
			oldest, age = w, time.Duration(now-since)
		}
	}
	return oldest, age
}

// Late is how many calls have been running for at least so long. Any goroutine
// may call it.
func (p *Pool[T]) Late(limit time.Duration) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now().UnixNano()
	for _, w := range p.workers {
		if since := w.calling.Load(); since != 0 && time.Duration(now-since) >= limit {
			n++
		}
	}
	return n
}

// Stuck is a call that has not returned.
type Stuck struct {
	Kind  Kind
	For   time.Duration
	Stack []byte // of its goroutine; empty if that was not found
}

// Stuck returns the call that began first. Any goroutine may call it.
func (p *Pool[T]) Stuck() (s Stuck) {
	w, age := p.oldest()
	if w == nil {
		return s
	}
	return Stuck{Kind(w.kind.Load()), age, stack.Of(w.goroutine)}
}
