package inbox

import "time"

// The course of a Message that is over Later: when Done is called, and not when its call
// returns. Until then nobody else touches its Inbox.
//
//	      a call                 it returns
//	none ───────▶ called ─────────────────────▶ open
//	 ▲              │ Done                       │ Done: it serves the Inbox
//	 │              ▼                            │
//	 ├──────────── done                          │
//	 │  it returns, and the Inbox is served on   │
//	 └───────────────────────────────────────────┘
const (
	none uint32 = iota
	called
	done
	open
)

// serve makes calls of an Inbox until none is left, it has to wait, or the quantum is over.
// w is the worker whose goroutine it is. Without one nothing may wait there: only those
// Messages are called that are over Later, and workers get the Inbox for everything else.
func (p *Pool[T]) serve(b *Inbox[T], w *worker[T], begin time.Time) {
	returned := false
	defer func() {
		if !returned { // the call has ended this goroutine
			if b.course.Swap(none) != none {
				p.running.Done()
			}
			b.broken = true
			p.again(b)
		}
	}()
	more := p.makeCalls(b, w, begin)
	returned = true
	if more {
		p.again(b)
	}
	if p.roomy() {
		p.hooks.Tell(RoomFree, nil)
	}
}

// makeCalls is serve's loop. It returns true if there may be more calls to make, and false
// if the Inbox is not this goroutine's any more.
func (p *Pool[T]) makeCalls(b *Inbox[T], w *worker[T], begin time.Time) (more bool) {
	for now := begin; now.Sub(begin) < quantum; {
		c, n, ok := b.take()
		if !ok {
			if !b.refill() {
				return false
			}
			continue
		}
		if w == nil && c.Kind != Message {
			return true
		}
		skip := b.broken && c.Kind != Close || b.gone.Load() && c.Kind == Message
		if c.Kind == Message && !skip && !p.hooks.Ready(b) {
			b.refill()
			if b.park() {
				return false
			}
			continue
		}
		b.at += n
		b.size += n
		b.over++
		switch {
		case skip && c.Kind == Message:
			p.discarded.Add(1)
		case skip:
		case p.hooks.Later && c.Kind == Message:
			b.began = now
			if !p.callLater(b, c, w) {
				return false
			}
			now = p.took(b.began)
		default:
			b.broken = !w.call(b, c, now) || b.broken
			now = p.took(now)
		}
	}
	return true
}

// again puts the Inbox into the queue if it has more calls.
func (p *Pool[T]) again(b *Inbox[T]) {
	if b.refill() {
		p.queue(b)
	}
}

// took takes note of how long a call has taken that began at a time, and returns the time.
func (p *Pool[T]) took(began time.Time) (now time.Time) {
	now = time.Now()
	p.CallTime.AddTime(now.Sub(began))
	return now
}

// callLater calls a Message that is over later. It returns true if it is over already;
// otherwise Done goes on, and perhaps has begun to.
func (p *Pool[T]) callLater(b *Inbox[T], c Call, w *worker[T]) (over bool) {
	p.running.Add(1)
	b.course.Store(called)
	ok := w.call(b, c, b.began)
	if ok && b.course.CompareAndSwap(called, open) {
		return false
	}
	p.running.Done()
	b.course.Store(none)
	b.broken = b.broken || !ok
	return true
}

// Done says that a Message is over, where those are over Later. It is called once for each
// that has not panicked, during its call or after it, on any goroutine. The Inbox's next
// Messages may be called there.
func (b *Inbox[T]) Done() {
	p := b.pool
	if b.course.CompareAndSwap(called, done) || !b.course.CompareAndSwap(open, none) {
		return
	}
	defer p.running.Done()
	p.serve(b, nil, p.took(b.began))
	p.hooks.Tell(Served, b)
}
