package cluster

import (
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/server/cluster/internal/sequence"
)

// follow is a subject that the node follows.
type follow struct {
	subject string
	topic   string // empty for a shard
	shard   int    // or -1

	members int           // live topics: one, or a shard's
	leaveAt time.Duration // when it is left, while members is 0
	since   time.Duration // when it was followed first; 0 is not yet
	queued  bool          // it is to be asked about
	proved  bool          // all living nodes have said how far they are
	waiting []*waiter     // for that
	in      sequence.In
	there   bool     // it has been subscribed to
	comes   []string // topics that are to be attended to then

	link *link // that sub belongs to; of the goroutine that asks
	sub  *nats.Subscription
}

// waiter is somebody who waits for a subscription to be true everywhere. Its timer says that
// it is not, unless it is stopped.
type waiter struct {
	done  func(confirmed bool)
	timer *time.Timer
	until time.Duration // when the timer has said so
}

func newWaiter(done func(bool), now, patience time.Duration) *waiter {
	return &waiter{done, time.AfterFunc(patience, func() { done(false) }), now + patience}
}

// tell tells whether the subscription is confirmed, if the timer has not.
func (w *waiter) tell(confirmed bool) {
	if w.timer.Stop() {
		w.done(confirmed)
	}
}

// round is a question to all living nodes about some subjects.
type round struct {
	number  uint64
	link    *link
	follows []*follow
	missing map[uint64]bool // nodes that have not answered
	asked   time.Duration
	urgent  bool
}

// interest is what the node follows, and what it has asked. It reads no clock and no
// network.
type interest struct {
	follows map[string]*follow // by subject
	leaving map[string]*follow // those without members
	left    []*follow          // that the broker is still to be told about
	urgent  []*follow          // to be asked about: those that somebody waits for
	later   []*follow          // and others
	rounds  map[uint64]*round
	number  uint64
}

func newInterest() *interest {
	return &interest{follows: map[string]*follow{}, leaving: map[string]*follow{}, rounds: map[uint64]*round{}}
}

// want returns a subject's follow, and makes one that is left at leaveAt if nobody comes.
func (in *interest) want(subject, topic string, shard int, leaveAt time.Duration) *follow {
	f := in.follows[subject]
	if f == nil {
		if shard >= 0 {
			topic = ""
		}
		f = &follow{subject: subject, topic: topic, shard: shard}
		in.follows[subject] = f
		in.leaving[subject] = f
		in.queue(f, true)
	}
	f.leaveAt = max(f.leaveAt, leaveAt)
	return f
}

// queue has a question asked about f.
func (in *interest) queue(f *follow, urgent bool) {
	f.proved = false
	switch {
	case urgent:
		in.urgent = append(in.urgent, f) // perhaps once more
	case !f.queued:
		in.later = append(in.later, f)
	}
	f.queued = true
}

// count notes that a topic has members now, or has none any more.
func (in *interest) count(f *follow, live bool, leaveAt time.Duration) {
	switch {
	case f.shard < 0 && live:
		f.members = 1
	case f.shard < 0:
		f.members = 0
	case live:
		f.members++
	default:
		f.members = max(0, f.members-1)
	}
	if f.members > 0 {
		delete(in.leaving, f.subject)
	} else {
		f.leaveAt = max(f.leaveAt, leaveAt)
		in.leaving[f.subject] = f
	}
}

// leave leaves what had no members for long enough.
func (in *interest) leave(now time.Duration) {
	for subject, f := range in.leaving {
		if now >= f.leaveAt && len(f.waiting) == 0 {
			delete(in.leaving, subject)
			delete(in.follows, subject)
			in.left = append(in.left, f)
		}
	}
}

// again has questions asked about everything.
func (in *interest) again() {
	for _, f := range in.follows {
		in.queue(f, false)
	}
}

// roundPatience is how long a round that not all have answered holds up others.
const roundPatience = time.Second

// next is the next round, nil if there is none to be asked now: about those that somebody
// waits for first, and about others one at a time. living returns the nodes that have to
// answer it.
func (in *interest) next(l *link, living func() map[uint64]bool, now time.Duration) *round {
	open, later := 0, 0
	for _, r := range in.rounds {
		if now-r.asked < roundPatience {
			open++
			if !r.urgent {
				later++
			}
		}
	}
	if open >= roundsMax {
		return nil
	}
	r := &round{link: l, asked: now, urgent: true}
	if r.follows = in.take(&in.urgent, now); len(r.follows) == 0 {
		if later > 0 {
			return nil
		}
		r.urgent = false
		if r.follows = in.take(&in.later, now); len(r.follows) == 0 {
			return nil
		}
	}
	in.number++
	r.number, r.missing = in.number, living()
	in.rounds[r.number] = r
	return r
}

// take takes as many as one question may be about.
func (in *interest) take(from *[]*follow, now time.Duration) (follows []*follow) {
	list := *from
	for bytes := 0; len(list) > 0 && len(follows) < askMax && bytes < askBytes; list = list[1:] {
		f := list[0]
		if !f.queued || in.follows[f.subject] != f {
			continue // it was asked about, or left
		}
		f.queued = false
		bytes += len(f.subject)
		follows = append(follows, f)
		if f.since == 0 {
			f.since = now
		}
	}
	if len(list) == 0 {
		list = nil
	}
	*from = list
	return follows
}

// answer notes that a node has answered a round, or is gone, and returns those that have
// waited for this, if it was the last one.
func (in *interest) answer(r *round, node uint64) []*waiter {
	delete(r.missing, node)
	if len(r.missing) > 0 {
		return nil
	}
	return in.prove(r)
}

// prove ends a round that all nodes have answered.
func (in *interest) prove(r *round) (waiters []*waiter) {
	if in.rounds[r.number] != r {
		return nil
	}
	delete(in.rounds, r.number)
	for _, f := range r.follows {
		if f.queued || in.follows[f.subject] != f {
			continue // it is asked about again
		}
		f.proved = true
		waiters = append(waiters, f.waiting...)
		f.waiting = nil
	}
	return waiters
}

// gone notes that a node is dead: nobody waits for its answers.
func (in *interest) gone(node uint64) (waiters []*waiter) {
	for _, r := range in.rounds {
		if r.missing[node] {
			waiters = append(waiters, in.answer(r, node)...)
		}
	}
	return waiters
}

// forget forgets a node that was silent for long.
func (in *interest) forget(node uint64) {
	for _, f := range in.follows {
		f.in.Forget(node)
	}
}

// drop forgets all rounds, because the link has ended, and returns those that have waited.
func (in *interest) drop() (waiters []*waiter) {
	clear(in.rounds)
	in.left = nil
	for _, f := range in.follows {
		waiters = append(waiters, f.waiting...)
		f.waiting = nil
		in.queue(f, false)
	}
	return waiters
}

// tidy forgets rounds that will not be answered any more, and those that have waited for
// them and were told that they wait in vain.
func (in *interest) tidy(now time.Duration) {
	for number, r := range in.rounds {
		if now-r.asked < roundPatience {
			continue
		}
		for _, f := range r.follows {
			f.waiting = slices.DeleteFunc(f.waiting, func(w *waiter) bool { return now >= w.until })
		}
		if now-r.asked > 10*roundPatience {
			delete(in.rounds, number)
		}
	}
}
