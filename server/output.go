package server

import (
	"slices"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/fanout"
	"github.com/seed-134acfd0/lull/server/internal/outbox"
)

// Output goes this way: Conn.Send → send, or Server.Broadcast → pass → catchUp;
// then offer → the socket, and what it does not take → enqueue → c's box → flush.

// send sends a handler's messages to one connection. The letters' frames lie
// back to back in data from begin.
func (r *reactor) send(letters []netpoll.Letter[op], data []byte, begin int) {
	slot := letters[0].Value.token
	c := r.slots.Get(slot)
	frames := data[begin:letters[len(letters)-1].End]
	r.counts.MessagesAccepted += uint64(len(letters))
	if c == nil || c.state != stateOpen || c.is(flagMute) {
		r.counts.Undelivered += uint64(len(letters))
		r.gauges.At(int(slot.Slot)).Sub(outbox.SizeOf(len(letters), len(frames)), r.server.low)
		return
	}
	r.catchUp(c) // what was broadcast before may not be overtaken
	sent := r.offer(c, frames)
	if sent == len(frames) {
		r.account(c, &r.counts.MessagesOut, outbox.SizeOf(len(letters), len(frames)))
		return
	}
	for i := range letters {
		o := &letters[i].Value
		f := outbox.Frame{Data: data[begin:letters[i].End], ID: o.id, Policy: outbox.Policy(o.policy)}
		begin = letters[i].End
		r.enqueue(c, f, true, &sent)
	}
}

// say sends a control frame of ours, or a response, behind what c is owed
// already. data is copied if need be.
func (r *reactor) say(c *conn, op frame.Op, data []byte) {
	sent := r.offer(c, data)
	if sent == len(data) {
		return
	}
	x := r.needBox(c)
	r.owing -= x.box.Bytes()
	x.box.PutControl(outbox.Frame{Data: slices.Clone(data[sent:]), Begun: sent > 0, Pong: op == frame.Pong})
	r.owing += x.box.Bytes()
}

// offer gives data to c's socket, unless other data has to go first.
func (r *reactor) offer(c *conn, data []byte) (sent int) {
	if r.owed(c) > 0 {
		return 0
	}
	return r.write(c, data)
}

// write writes what the socket takes. An error marks the connection, which is
// written to no more.
func (r *reactor) write(c *conn, data []byte) (sent int) {
	if c.is(flagMute) {
		return 0
	}
	sent, err := netpoll.Write(int(c.FD), data)
	r.counts.BytesOut += uint64(sent)
	if err != nil {
		r.mark(c, gone(err))
	}
	return sent
}

// owed is how many bytes c's socket has not taken.
func (r *reactor) owed(c *conn) int {
	if x := r.sides.of(c); x != nil {
		return x.box.Bytes()
	}
	return 0
}

// needBox returns c's side, so that something can be put into its box, and waits
// for the socket.
func (r *reactor) needBox(c *conn) *side {
	x := r.sides.need(c)
	if x.box.Bytes() == 0 {
		x.since, x.moved = r.tick, r.tick
	}
	r.want(c, flagWriting, true)
	return x
}

// enqueue puts into c's box what its socket did not take of a message, where it
// took the first sent bytes of several that were sent together, of which this is
// the next. If there is no room the message's policy decides. borrowed says that
// f.Data has to be copied.
func (r *reactor) enqueue(c *conn, f outbox.Frame, borrowed bool, sent *int) outbox.Fate {
	n := min(*sent, len(f.Data))
	*sent -= n
	switch {
	case n == len(f.Data):
		r.account(c, &r.counts.MessagesOut, f.Size())
		return outbox.Sent
	case c.is(flagMute):
		r.account(c, &r.counts.Undelivered, f.Size())
		return outbox.Overflow
	}
	r.account(c, nil, outbox.SizeOf(0, n))
	f.Data, f.Begun = f.Data[n:], n > 0
	if borrowed {
		f.Data = slices.Clone(f.Data)
	}
	x := r.needBox(c)
	before := x.box.Bytes()
	put := x.box.Put(f, r.server.bound, r.owing+len(f.Data) > r.limits.owed)
	r.owing += x.box.Bytes() - before
	r.account(c, &r.counts.DroppedOld, put.Old)
	r.account(c, &r.counts.Conflated, put.Conflated)
	switch put.Fate {
	case outbox.Dropped:
		r.account(c, &r.counts.DroppedNew, f.Size())
		if x.box.Bytes() == 0 {
			r.want(c, flagWriting, false)
			r.sides.drop(c)
		}
		return put.Fate
	case outbox.Overflow:
		r.account(c, &r.counts.Undelivered, f.Size())
		r.mark(c, fate{kind: fateClose, code: frame.TryAgainLater, cause: ErrOutbox})
		return put.Fate
	}
	// The other policies have dropped something, but for frames that were begun.
	if r.owing > 2*r.limits.owed || r.owing > r.limits.owed && f.Policy == outbox.Close {
		if o := r.sides.largest(); o != nil {
			r.mark(o, gone(ErrOutbox))
		}
	}
	r.rise(c, x)
	return put.Fate
}

// account takes messages off c's gauge and counts what became of them.
func (r *reactor) account(c *conn, counter *uint64, s outbox.Size) {
	if s == 0 {
		return
	}
	if counter != nil {
		*counter += uint64(s.Messages())
	}
	if r.gauge(c).Sub(s, r.server.low) {
		r.eased(c)
	}
}

// flush goes on with what c is owed.
func (r *reactor) flush(c *conn) {
	x := r.sides.of(c)
	if x == nil {
		return
	}
	for n := 0; n < writesMax && x.box.Bytes() > 0; n++ {
		data := x.box.Next(r.buf)
		sent := r.write(c, data)
		if sent > 0 {
			x.moved = r.tick
			r.owing -= sent
			r.account(c, &r.counts.MessagesOut, x.box.Sent(sent))
		}
		if sent < len(data) {
			break
		}
	}
	r.fall(c, x)
	if x.box.Bytes() > 0 || c.is(flagDying) {
		return
	}
	r.want(c, flagWriting, false)
	if c.state == stateLinger || c.state == stateRejected {
		netpoll.ShutdownWrite(int(c.FD))
	}
	r.sides.drop(c)
}

// A peer is slow from when it is owed half of what it may be until it is owed an
// eighth. These are the watermarks.
const (
	highPart = 2
	lowPart  = 8
)

// rise tells the handler if c's box has passed the high watermark.
func (r *reactor) rise(c *conn, x *side) {
	if c.is(flagSlow) || c.state != stateOpen || !x.box.Size().Exceeds(r.server.high) {
		return
	}
	c.flags |= flagSlow
	r.counts.OutboxHigh++
	if c.policy == OutboxClose {
		x.congesting = true
		r.server.throttle.Congested(1)
		r.congested = append(r.congested, congestion{r.slots.Token(c), r.tick + congestedMax})
	}
	r.pressure(c)
}

// fall tells the handler if c's box has passed the low watermark.
func (r *reactor) fall(c *conn, x *side) {
	if c.is(flagSlow) && !x.box.Size().Exceeds(r.server.low) {
		r.notSlow(c)
		r.pressure(c)
	}
}

// notSlow ends what rise began.
func (r *reactor) notSlow(c *conn) {
	if c.is(flagSlow) {
		c.flags &^= flagSlow
		r.counts.OutboxLow++
	}
	if x := r.sides.of(c); x != nil {
		r.notCongesting(x)
	}
}

// congestion is a connection that makes publishers wait, because it would be
// closed if it had to take more.
type congestion struct {
	token netpoll.Token
	until netpoll.Tick
}

// congestedMax is how long a connection may make publishers wait before it falls
// below the low watermark. One that takes longer reads too slowly, or not at
// all, and shall hold up nobody.
const congestedMax = netpoll.Tick(4 * time.Second / netpoll.TickLength)

func (r *reactor) notCongesting(x *side) {
	if x.congesting {
		x.congesting = false
		r.server.throttle.Congested(-1)
	}
}

// endCongestion lets publishers go on where somebody made them wait for too
// long.
func (r *reactor) endCongestion() {
	for len(r.congested) > 0 && r.congested[0].until <= r.tick {
		if c := r.slots.Get(r.congested[0].token); c != nil && c.side != 0 {
			r.notCongesting(r.sides.of(c))
		}
		r.congested = r.congested[1:]
	}
}

// refused hears that Send has said ErrBackpressure. The handler will be told when
// it is worth trying again, which may be at once: perhaps only the mailbox was
// full.
func (r *reactor) refused(c *conn, policy OutboxPolicy) {
	switch {
	case c.state != stateOpen:
	case !c.is(flagSlow):
		c.flags |= flagSlow
		r.counts.OutboxHigh++
		r.pressure(c)
		r.fall(c, r.sides.need(c))
		r.sides.drop(c)
	case policy == OutboxClose:
		r.mark(c, fate{kind: fateClose, code: frame.TryAgainLater, cause: ErrOutbox})
	}
}

// pressure tells the handler whether c's peer is slow.
func (r *reactor) pressure(c *conn) {
	h := r.server.handler.Backpressure
	if h == nil || c.state != stateOpen || c.is(flagDying) {
		return
	}
	if r.server.pool != nil {
		b := r.inbox(c)
		r.call(b, b.Pressure(c.is(flagSlow)))
		return
	}
	defer r.guard(c)
	h(r.conn(c), c.is(flagSlow))
}

// pass goes on with the pass of broadcasts, for a bounded number of sends: a
// broadcast to everybody must not make anybody wait.
func (r *reactor) pass() {
	sends := 0
	for visits := 0; r.log.Busy() && sends < passSends && visits < passVisits; visits++ {
		if c := r.slots.At(r.log.Hand()); c != nil && c.state == stateOpen {
			sends += r.catchUp(c)
		}
		for _, e := range r.log.Step(r.slots.High()) {
			r.public.passTime.AddTime(r.began - e.Since)
			e.Passed(e.Tally)
		}
		r.bury()
	}
}

// catchUp sends c all broadcasts that it has not been sent, and returns how many
// system calls that took.
func (r *reactor) catchUp(c *conn) (sends int) {
	for c.heard != r.log.End() {
		entries := r.log.Lacks(c.heard)
		sent := 0
		if r.owed(c) == 0 && !c.is(flagMute) {
			piece, n := r.log.Piece(c.heard)
			entries = entries[:n]
			sent = r.write(c, piece)
			sends++
			r.counts.BroadcastSends++
			if sent == len(piece) {
				r.counts.MessagesOut += uint64(n)
				for _, e := range entries {
					e.Tally.Sent++
				}
				r.caughtUp(c, n)
				continue
			}
		}
		for _, e := range entries {
			r.gauge(c).Add(outbox.SizeOf(1, len(e.Frame)))
			policy := Kind{Policy: OutboxPolicy(e.Policy)}.over(c.policy)
			f := outbox.Frame{Data: e.Frame, ID: e.ID, Policy: outbox.Policy(policy)}
			count(&e.Tally, r.enqueue(c, f, false, &sent))
		}
		r.caughtUp(c, len(entries))
	}
	return sends
}

// caughtUp takes note that c was sent so many broadcasts, or that they wait for
// it or were dropped.
func (r *reactor) caughtUp(c *conn, n int) {
	c.heard += uint32(n)
	r.counts.MessagesAccepted += uint64(n)
	r.counts.BroadcastMessages += uint64(n)
}

func count(t *fanout.Tally, f outbox.Fate) {
	switch f {
	case outbox.Sent:
		t.Sent++
	case outbox.Queued:
		t.Queued++
	case outbox.Dropped:
		t.Dropped++
	case outbox.Overflow:
		t.Closed++
	}
}
