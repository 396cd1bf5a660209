package loadgen

import (
	"math"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// endings makes open connections of some groups end, at a rate.
type endings struct {
	groups groupSet
	left   int // connections still to be ended
	pace   pace
	end    time.Duration // when no more are ended
	again  bool          // each is opened again at once
	at     int           // the slot where the search for the next one goes on
}

// over reports whether no connection will be ended at now or later.
func (e *endings) over(now time.Duration) bool { return e.left == 0 || now >= e.end }

// startEndings begins a churn or a drain.
func (w *worker) startEndings(o *order) {
	w.endings = endings{groups: o.groups, left: o.count, pace: pace{rate: o.rate, begun: w.now}, end: o.end}
	if o.kind == orderChurn {
		w.endings.again, w.endings.left = true, math.MaxInt
	}
	if n := w.slots.High(); n > 0 {
		w.endings.at = w.random.IntN(n)
	}
}

// endSome ends the connections that are due. If none is open now, those that are due have
// to wait.
func (w *worker) endSome() {
	e := &w.endings
	if w.paused || e.over(w.now) {
		return
	}
	for due := min(e.left, e.pace.due(w.now), closeBatch); due > 0; due-- {
		c := w.nextToEnd()
		if c == nil {
			if !e.again && w.opening()+len(w.returns.away) == 0 {
				e.left = 0 // and none will be
			}
			return
		}
		meant := e.pace.next(w.now)
		e.left--
		if e.again {
			w.recall(c, meant, false)
		}
		w.dismiss(c)
	}
}

// dismiss ends a connection for good, unless it was recalled.
func (w *worker) dismiss(c *client) {
	c.flags |= leaving
	w.count(measure.Left, 1)
	w.sayGoodbye(c)
}

// nextToEnd is the next open connection, in the order of slots, from a random one.
func (w *worker) nextToEnd() *client {
	e := &w.endings
	for range w.slots.High() {
		if e.at >= w.slots.High() {
			e.at = 0
		}
		c := w.slots.At(e.at)
		e.at++
		if c != nil && c.state == open && e.groups.has(c.group) {
			return c
		}
	}
	return nil
}

// untilEnding is how long it is until a connection is to be ended, -1 if none will be.
func (w *worker) untilEnding(now time.Duration) time.Duration {
	if w.paused || w.endings.over(now) {
		return -1
	}
	return max(w.endings.pace.wait(now), endingsEvery)
}

// endingsEvery is the least time between two looks for connections to end, so that a
// search that finds none costs little.
const endingsEvery = time.Millisecond

// storm cuts connections off, all at once, and has them opened again at a rate.
func (w *worker) storm(o *order) {
	p := pace{rate: o.rate, begun: w.now}
	for i := 0; i < w.slots.High() && o.count > 0; i++ {
		c := w.slots.At(i)
		if c == nil || c.state != open || !o.groups.has(c.group) {
			continue
		}
		o.count--
		w.recall(c, p.next(w.now), o.rate > 0)
		c.flags |= leaving | abrupt
		w.count(measure.Left, 1)
		w.release(c)
	}
}

// sayGoodbye starts the closing handshake.
func (w *worker) sayGoodbye(c *client) {
	if w.run.config.Floor {
		w.release(c)
		return
	}
	w.close(c)
	if w.setFlag(c, unread, false); c.state != gone {
		w.writeControl(c, frame.Close, frame.AppendClosePayload(nil, frame.NormalClosure, ""))
	}
}
