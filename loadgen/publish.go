package loadgen

import (
	"context"
	"slices"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/netpoll"
)

// publish sends messages that all users of some groups should receive, and waits for the
// last receiver: of each burst, or of all if there is a rate. At the end the deaf
// connections read again.
func (r *run) publish(ctx context.Context, p *phase) error {
	before := r.taken() - r.sum(measure.DeafEnded)
	r.shareOut(order{kind: orderDeafen, groups: p.groups}, p.Deaf, 0)
	r.rate = p.Rate
	if err := r.await(ctx, func(time.Duration) bool { return r.read() }); err != nil {
		return err
	}
	deaf := r.taken() - before
	size := max(1, p.Burst)
	if p.Rate > 0 || p.Listen {
		size = p.Count
	}
	if p.For > 0 {
		r.until = r.elapsed() + p.For
	}
	r.collect()
	r.builder.Part() // what was timed before is no burst's
	for left := p.Count; left > 0 && r.early == "" && r.reading(p, deaf) > 0 && !r.late(p); left -= size {
		if err := r.burst(ctx, p, min(size, left), deaf); err != nil {
			return err
		}
	}
	if p.Deaf == 0 {
		return r.wait(ctx, settle)
	}
	return r.undeafen(ctx)
}

// expect prepares users for published messages. It comes before the barrier, because the machine
// that publishes may begin as soon as it is passed.
func (r *run) expect(ctx context.Context, p *phase) error {
	if p.Kind != plan.Publish {
		return nil
	}
	r.received = r.sum(measure.Received)
	r.tellAll(order{kind: orderExpect, groups: p.groups, number: r.number})
	return r.await(ctx, func(time.Duration) bool { return r.read() })
}

// late reports whether the time of a phase that has one is over.
func (r *run) late(p *phase) bool { return p.For > 0 && r.elapsed() >= r.until }

// reading is how many connections are open that should receive what p publishes, without
// the deaf ones: deaf is how many these were, and those that had ended in phases before.
func (r *run) reading(p *phase, deaf int) int {
	return r.openIn(p.groups) - max(0, deaf-r.sum(measure.DeafEnded))
}

// burst publishes some messages, from one connection, and waits for the last receiver.
func (r *run) burst(ctx context.Context, p *phase, size, deaf int) error {
	readers, before, sent, meant := r.reading(p, deaf), r.sum(measure.Received), r.sum(measure.Sent), r.elapsed()
	if p.Listen {
		before = r.received // another machine may have begun earlier
	} else {
		r.rates = make([]float64, len(r.workers))
		for _, w := range r.publishers(p) {
			r.rates[w.index] = 1
			r.tell(w, order{kind: orderPublish, groups: p.groups, message: p.message, count: size, rate: r.rate, number: r.number, meant: meant})
		}
	}
	r.number += uint32(size)
	r.bursts++
	received := func() int { return r.sum(measure.Received) - before }
	silenced := r.silenced()
	refused := func() bool { return received() == 0 && r.silenced() > silenced }
	orphaned := func() bool { // and what was on its way has come
		return p.Listen && r.config.Control.orphaned(r.snap.PhaseIndex) && r.elapsed()-r.changed > settle
	}
	patience, expected := r.patience(r.rate), readers*size
	err := r.progress(ctx, patience, received, func() bool {
		return received() >= expected || r.late(p) || refused() || orphaned()
	})
	if err == nil && refused() {
		r.early = "the server ends connections that publish"
	}
	if err == nil && r.late(p) && !p.Listen {
		if err = r.halt(ctx); err == nil {
			size = r.sum(measure.Sent) - sent
			expected = readers * size
			err = r.progress(ctx, r.config.Patience, received, func() bool { return received() >= expected || refused() })
		}
	}
	r.collect()
	r.builder.Burst(result.Burst{Messages: size, Expected: expected, Received: received(), Took: r.lastReceived() - meant})
	return err
}

// silenced is how many connections the server has ended after they had published.
func (r *run) silenced() (n int) {
	for _, w := range r.workers {
		n += int(w.public.silenced.Load())
	}
	return n
}

// lastReceived is when the last published message was received.
func (r *run) lastReceived() (last time.Duration) {
	for _, w := range r.workers {
		last = max(last, time.Duration(w.public.lastRecv.Load()))
	}
	return last
}

// publishers are the workers that publish the next burst: one, or, in rooms, all of them,
// each in those of which it has a connection before the others.
func (r *run) publishers(p *phase) []*worker {
	if r.inRooms(p.groups) {
		return r.workers
	}
	return []*worker{r.publisher(p)}
}

// inRooms reports whether users of some groups are in rooms.
func (r *run) inRooms(groups groupSet) bool {
	return slices.ContainsFunc(r.groups, func(g *group) bool { return groups.has(g.index) && g.Rooms > 0 })
}

// publisher chooses the worker that publishes the next burst: one after the other, among
// those with connections.
func (r *run) publisher(p *phase) *worker {
	for i := range r.workers {
		w := r.workers[(r.bursts+i)%len(r.workers)]
		if w.openIn(p.groups) > 0 {
			return w
		}
	}
	return r.workers[0]
}

// undeafen has the deaf connections read what waits for them.
func (r *run) undeafen(ctx context.Context) error {
	// The server may still be sending to them.
	if err := r.wait(ctx, deafPatience); err != nil {
		return err
	}
	r.tellAll(order{kind: orderUndeafen})
	received := func() int { return r.sum(measure.DeafReceived, measure.DeafEnded) }
	if err := r.progress(ctx, deafPatience, received, func() bool { return false }); err != nil {
		return err
	}
	r.tellAll(order{kind: orderCure})
	return nil
}

// deafPatience is how long connections stay deaf after the last message. When
// they have then received nothing for this long, they have received everything.
const deafPatience = 2 * time.Second

// publication is messages that a worker publishes.
type publication struct {
	order
	pace pace
	done int
	from netpoll.Token // the connection that has published last

	rooms    bool
	speakers []netpoll.Token // in rooms: those that publish each message, one in each
}

// startPublish begins to publish.
func (w *worker) startPublish(o *order) {
	w.publication = publication{order: *o, pace: pace{rate: o.rate, begun: o.meant}, rooms: w.run.inRooms(o.groups)}
	if w.publication.rooms {
		w.publication.speakers = w.speakers(o)
	}
	w.publishSome()
}

// publishSome publishes what is due, from the first open connection.
func (w *worker) publishSome() {
	p := &w.publication
	if w.paused || p.done == p.count {
		return
	}
	for due := min(p.count-p.done, p.pace.due(w.now)); due > 0; due-- {
		if !p.rooms {
			c := w.firstReading(p.groups)
			if c == nil {
				return
			}
			p.from = w.slots.Token(c)
			w.publish(c, p.message, p.number+uint32(p.done), p.pace.next(p.meant))
			p.done++
			continue
		}
		meant := p.pace.next(p.meant)
		for _, p.from = range p.speakers {
			if c := w.slots.Get(p.from); c != nil && c.state == open {
				w.publish(c, p.message, p.number+uint32(p.done), meant)
			}
		}
		p.done++
	}
}

// speakers are connections that publish in their rooms, in each the first of any worker that
// reads.
func (w *worker) speakers(o *order) (all []netpoll.Token) {
	for i := range w.slots.High() {
		c := w.slots.At(i)
		if c == nil || c.state != open || !o.groups.has(c.group) || c.is(deaf) {
			continue
		}
		spoken := &w.group(c).spoken[w.room(c)]
		if n := spoken.Load(); n <= o.number && spoken.CompareAndSwap(n, o.number+1) {
			all = append(all, w.slots.Token(c))
		}
	}
	return all
}

// room is the number of c's room, 0 if it is in none.
func (w *worker) room(c *client) int {
	g := w.group(c)
	return (int(c.user) - w.run.config.First - g.first) % max(1, g.Rooms)
}

// untilPublish is how long it is until a message is due, -1 if none will be.
func (w *worker) untilPublish(now time.Duration) time.Duration {
	if p := &w.publication; !w.paused && p.done < p.count && w.slots.Used() > 0 {
		return p.pace.wait(now)
	}
	return -1
}

// firstReading is the first open connection of some groups that is not deaf.
func (w *worker) firstReading(groups groupSet) *client {
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil && c.state == open && groups.has(c.group) && !c.is(deaf) {
			return c
		}
	}
	return nil
}

// expect makes open connections take the published message with a number for the first
// that they should receive.
func (w *worker) expect(o *order) {
	w.expecting = o.groups
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil && c.state == open && !c.is(deaf) {
			c.got = max(c.got, o.number)
			c.flags &^= missing
		}
	}
}
