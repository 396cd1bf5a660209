package loadgen

import (
	"container/heap"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/frame"
)

// returns are the connections that the server has ended, and that are opened again
// (Config.Reconnect). Those that stay open cost nothing.
type returns struct {
	away   absences           // the next one first
	bySlot map[uint32]absence // connections that open again, and those that were told when to come back
}

// absence is the time that a connection is away.
type absence struct {
	index uint32        // of its connection
	tries int           // that have failed
	since time.Duration // when it ended
	until time.Duration // when it is opened again
}

// absences is a heap.
type absences []absence

func (a absences) Len() int           { return len(a) }
func (a absences) Less(i, j int) bool { return a[i].until < a[j].until }
func (a absences) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *absences) Push(x any)        { *a = append(*a, x.(absence)) }

func (a *absences) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

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

// told takes note of when the server's Close frame tells c to come back.
func (w *worker) told(c *client, payload []byte) {
	if w.returns == nil {
		return
	}
	if wait, ok := retryAfter(payload); ok {
		w.returns.bySlot[w.slot(c)] = absence{until: w.now + wait}
	}
}

// leave takes note that c has ended, and when it is to be opened again.
func (w *worker) leave(c *client) {
	r := w.returns
	if r == nil || w.closing >= 0 || w.ended {
		return
	}
	a, known := r.bySlot[w.slot(c)]
	delete(r.bySlot, w.slot(c))
	switch {
	case c.state >= open:
		a.since = w.now
	case known:
		a.tries++
	default:
		return // it has never been open, and was counted as failed
	}
	a.index = c.index
	r.add(a, w.now)
}

// add has a connection opened again.
func (r *returns) add(a absence, now time.Duration) {
	if a.until <= now {
		a.until = now + backoff(a.tries)
	}
	heap.Push(&r.away, a)
}

// reconnectSome opens the connections that are due again.
func (w *worker) reconnectSome() {
	if w.returns == nil || w.closing >= 0 {
		return
	}
	for r := w.returns; len(r.away) > 0 && r.away[0].until <= w.now && w.ramp.opening < w.inFlight; {
		a := heap.Pop(&r.away).(absence)
		w.connect(int(a.index), &a)
	}
}

// untilReturn is how long it takes until a connection is opened again, -1 if there
// is none for now.
func (w *worker) untilReturn(now time.Duration) time.Duration {
	if w.returns == nil || w.closing >= 0 || len(w.returns.away) == 0 || w.ramp.opening >= w.inFlight {
		return -1
	}
	return max(0, w.returns.away[0].until-now)
}

// returning reports whether c is being opened again.
func (w *worker) returning(c *client) bool {
	if w.returns == nil || c.state >= open {
		return false
	}
	_, again := w.returns.bySlot[w.slot(c)]
	return again
}

// returned takes note that c is open, if it is open again.
func (w *worker) returned(c *client) {
	if w.returns == nil {
		return
	}
	if a, again := w.returns.bySlot[w.slot(c)]; again {
		delete(w.returns.bySlot, w.slot(c))
		c.flags |= missing
		w.tally.counts[Returned]++
		w.tally.measure(w.tally.away, w.now-a.since)
	}
}
