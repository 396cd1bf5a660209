package loadgen

import (
	"container/heap"
	"time"

	"github.com/seed-134acfd0/lull/netpoll"
)

// timer is what has to happen to a single connection at a single time. Timers are not taken
// back. A connection that waits for answers again and again has one nevertheless, which
// finds at its time that there is more to wait (talk.armed).
type timer struct {
	at    time.Duration
	token netpoll.Token
	what  alarm
}

type alarm uint8

const (
	goOn      alarm = iota // with a talk, at its time
	readAgain              // a connection that is read slowly
)

func (t timer) due() time.Duration { return t.at }

// set adds a timer.
func (w *worker) set(c *client, at time.Duration, what alarm) {
	heap.Push(&w.timers, timer{at, w.slots.Token(c), what})
}

// arm makes t go on at a time, and not before. Of the timers that it has, it knows the two that
// come next.
func (w *worker) arm(c *client, t *talk, at time.Duration) {
	t.timer = at
	if t.armed[0] == 0 || at < t.armed[0] {
		t.armed = [2]time.Duration{at, t.armed[0]}
		w.set(c, at, goOn)
	}
}

// disarmed reports whether it is time for t to go on, when one of its timers is due.
func (w *worker) disarmed(c *client, t *talk, at time.Duration) bool {
	if at != t.armed[0] {
		return false // it was forgotten
	}
	t.armed = [2]time.Duration{t.armed[1], 0}
	if t.timer > at {
		w.arm(c, t, t.timer)
		return false
	}
	return t.timer > 0
}

// ripen does what is due.
func (w *worker) ripen() {
	for !w.paused && len(w.timers) > 0 && w.timers[0].at <= w.now {
		next := heap.Pop(&w.timers).(timer)
		c := w.slots.Get(next.token)
		if c == nil {
			continue
		}
		switch t := w.talks.At(c.talk); {
		case next.what == readAgain:
			w.readAgain(c)
		case t == nil || c.state != open || !w.disarmed(c, t, next.at):
		case t.stream != nil:
			w.lateAnswer(c, t)
		case t.unanswered > 0:
			w.unanswered(c, t)
		default:
			w.step(c, t)
		}
	}
}

// untilTimer is how long it is until the next timer, -1 if there is none.
func (w *worker) untilTimer(now time.Duration) time.Duration {
	if w.paused || len(w.timers) == 0 {
		return -1
	}
	return max(0, w.timers[0].at-now)
}
