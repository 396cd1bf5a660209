package inbox

import (
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
	w.goroutine = stack.Self()
	for b := w.pool.take(); b != nil; b = w.pool.take() {
		w.serve(b)
	}
}

// serve makes calls of an Inbox until it is empty or the quantum is over.
func (w *worker[T]) serve(b *Inbox[T]) {
	p := w.pool
	p.busy.Add(1)
	begin := time.Now()
	p.WaitTime.AddTime(begin.Sub(b.since))
	calls, size := 0, 0 // that have returned, or were left out
	returned := false
	defer func() {
		if !returned { // the call has ended this goroutine
			b.broken = true
			p.busy.Add(-1)
			w.again(b, calls+1, size)
			w.replace()
		}
	}()
	before, parked := begin, false
	for before.Sub(begin) < quantum {
		c, n, ok := b.take()
		if !ok {
			more := b.refill(calls, size)
			calls, size = 0, 0
			if more {
				continue
			}
			parked = true // it is not listed any more
			break
		}
		skip := b.broken && c.Kind != Close || b.gone.Load() && c.Kind == Message
		if c.Kind == Message && !skip && !p.hooks.Ready(b) {
			b.refill(calls, size)
			calls, size = 0, 0
			if b.park() {
				parked = true
				break
			}
			continue
		}
		b.at += n
		size += n
		if skip {
			if calls++; c.Kind == Message {
				p.discarded.Add(1)
			}
			continue
		}
		w.kind.Store(uint32(c.Kind))
		w.calling.Store(before.UnixNano())
		b.broken = !p.hooks.Call(b, c) || b.broken
		w.calling.Store(0)
		calls++
		now := time.Now()
		p.CallTime.AddTime(now.Sub(before))
		before = now
	}
	returned = true
	p.busy.Add(-1)
	if !parked {
		w.again(b, calls, size)
	}
	p.hooks.Tell(Served, b)
	if p.roomy() {
		p.hooks.Tell(RoomFree, nil)
	}
}

// again puts the Inbox back into the queue if it has more calls.
func (w *worker[T]) again(b *Inbox[T], calls, size int) {
	if b.refill(calls, size) {
		w.pool.Hand(b)
	}
}

// replace starts another worker in place of this one, which ends.
func (w *worker[T]) replace() {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.workers {
		if p.workers[i] == w {
			p.workers[i] = p.workers[len(p.workers)-1]
			p.workers = p.workers[:len(p.workers)-1]
			break
		}
	}
	p.start()
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
