package loadgen

import (
	"cmp"
	"container/heap"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// returns are the connections that have ended and are opened again: those of groups that
// reconnect, and those that churn and storms have ended. Those that stay open cost
// nothing.
type returns struct {
	away   queue[absence]
	bySlot map[uint32]absence // connections that open again, and those that will when they have ended
}

// absence is the time that a connection is away.
type absence struct {
	user   uint32
	group  uint8
	tries  int           // that have failed
	since  time.Duration // when it ended
	until  time.Duration // when it is opened again
	paced  bool          // that is as a storm's rate says
	stream *stream       // that it had, and gets again; nil for none
}

func (a absence) due() time.Duration { return a.until }

// A client that was not told when to come back waits for about backoffFirst, and
// twice as long after each try that fails, up to backoffMost. It comes at a random
// time between half and one and a half of that, so that clients do not come together.
const (
	backoffFirst = time.Second
	backoffMost  = 32 * time.Second
)

func backoff(tries int) time.Duration {
	wait := min(backoffFirst<<min(tries, 10), backoffMost)
	return wait/2 + rand.N(wait)
}

// retryMost is the longest time that a server can tell.
const retryMost = 24 * time.Hour

// retryAfter is the time that a Close frame's reason tells, as in "retry=12.5s".
func retryAfter(payload []byte) (wait time.Duration, ok bool) {
	_, reason := frame.ParseClose(payload)
	text, ok := strings.CutPrefix(string(reason), "retry=")
	if !ok {
		return 0, false
	}
	wait, err := time.ParseDuration(text)
	return min(wait, retryMost), err == nil && wait >= 0
}

// pace opens those whom a storm cut off at another rate.
func (r *returns) pace(rate float64, now time.Duration) {
	slices.SortFunc(r.away, func(a, b absence) int { return cmp.Compare(a.until, b.until) }) // a heap as well
	p := pace{rate: rate, begun: now}
	for i := range r.away {
		if a := &r.away[i]; a.paced {
			a.until = p.next(now)
		}
	}
	heap.Init(&r.away)
}

// shift makes everybody come back later.
func (r *returns) shift(by time.Duration) {
	for i := range r.away {
		r.away[i].until += by
	}
}

// told takes note that c will come back, and when the server's Close frame tells it to.
func (w *worker) told(c *client, payload []byte) {
	if !w.group(c).Reconnect {
		return
	}
	a := absence{}
	if wait, ok := retryAfter(payload); ok {
		a.until = w.now + wait
	}
	w.returns.bySlot[w.slot(c)] = a
}

// recall has c, which the generator ends, opened again then: not before a time, which
// follows from a storm's rate if it is paced.
func (w *worker) recall(c *client, until time.Duration, paced bool) {
	w.returns.bySlot[w.slot(c)] = absence{until: until, paced: paced}
	w.count(measure.Recalled, 1)
}

// leave takes note that c has ended, and when it is to be opened again.
func (w *worker) leave(c *client) {
	r := &w.returns
	a, known := r.bySlot[w.slot(c)]
	delete(r.bySlot, w.slot(c))
	if w.closing >= 0 || w.ended || !w.group(c).Reconnect && !known {
		return
	}
	a.user, a.group = c.user, c.group
	if w.talking(c) {
		a.stream = w.talks.At(c.talk).stream
	}
	switch {
	case c.is(leaving) && !known: // for good
	case c.is(leaving):
		a.since = w.now
		heap.Push(&r.away, a)
	case c.state >= silent:
		a.since, a.tries = w.now, 0
		r.add(a, w.now)
	case c.is(returning):
		a.tries++
		r.add(a, w.now)
	} // otherwise it has never been open, and was counted as failed
}

// add has a connection opened again.
func (r *returns) add(a absence, now time.Duration) {
	if a.until <= now {
		a.until, a.paced = now+backoff(a.tries), false
	}
	heap.Push(&r.away, a)
}

// reconnectSome opens the connections that are due again.
func (w *worker) reconnectSome() {
	if w.closing >= 0 {
		return
	}
	for r := &w.returns; len(r.away) > 0 && r.away[0].until <= w.now && w.opening() < w.inFlight; {
		a := heap.Pop(&r.away).(absence)
		w.connect(w.run.groups[a.group], a.user, max(a.until, a.since), &a)
	}
}

// untilReturn is how long it takes until a connection is opened again, -1 if there
// is none for now.
func (w *worker) untilReturn(now time.Duration) time.Duration {
	if w.closing >= 0 || w.paused || len(w.returns.away) == 0 || w.opening() >= w.inFlight {
		return -1
	}
	return max(0, w.returns.away[0].until-now)
}

// returned takes note that c is open, if it is open again. It returns the stream that c had, or
// nil.
func (w *worker) returned(c *client) *stream {
	if !c.is(returning) {
		return nil
	}
	c.flags &^= returning
	a := w.returns.bySlot[w.slot(c)]
	delete(w.returns.bySlot, w.slot(c))
	w.count(measure.Returned, 1)
	w.measure(measure.Away, w.now-a.since)
	return a.stream
}
