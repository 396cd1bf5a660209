package server

import (
	"slices"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/fanout"
	"github.com/seed-134acfd0/lull/server/internal/histogram"
	"github.com/seed-134acfd0/lull/server/internal/outbox"
	"github.com/seed-134acfd0/lull/server/internal/topics"
)

// output sends. It goes this way: Conn.Send → send, or Server.Broadcast → step →
// catchUp; then offer → the socket, and what it does not take → enqueue → c's box
// → flush.
type output struct {
	*conns
	tls       *transport // nil without Options.TLS
	log       fanout.Round
	owing     int          // bytes in all boxes
	reply     []byte       // a control frame of ours
	congested []congestion // the oldest first
	passTime  histogram.Atomic

	// Results, for the reactor to act upon when an event is over.
	turned []turn          // peers that became slow, or are slow no more
	eased  []netpoll.Token // peers that have taken enough to be read again
}

// turn is a change of a connection's flagSlow.
type turn struct {
	token netpoll.Token
	high  bool
}

// send sends a handler's messages to one connection. The letters' frames lie
// back to back in data from begin.
func (o *output) send(letters []netpoll.Letter[op], data []byte, begin int) {
	slot := letters[0].Value.token
	c := o.slots.Get(slot)
	frames := data[begin:letters[len(letters)-1].End]
	o.counts.MessagesAccepted += uint64(len(letters))
	if c == nil || c.state != stateOpen || c.is(flagMute) {
		o.counts.Undelivered += uint64(len(letters))
		o.gauges.At(int(slot.Slot)).Sub(outbox.SizeOf(len(letters), len(frames)), o.server.low)
		return
	}
	o.catchUp(c) // what was broadcast before may not be overtaken
	sent := o.offer(c, frames)
	if sent == len(frames) {
		o.account(c, &o.counts.MessagesOut, outbox.SizeOf(len(letters), len(frames)))
		return
	}
	for i := range letters {
		m := &letters[i].Value
		f := outbox.Frame{Data: data[begin:letters[i].End], ID: m.id, Policy: outbox.Policy(m.policy)}
		begin = letters[i].End
		o.enqueue(c, f, true, &sent)
	}
}

// say sends a control frame of ours, or a response, behind what c is owed
// already. data is copied if need be.
func (o *output) say(c *conn, op frame.Op, data []byte) {
	sent := o.offer(c, data)
	if sent == len(data) {
		return
	}
	x := o.needBox(c)
	o.owing -= x.box.Bytes()
	x.box.PutControl(outbox.Frame{Data: slices.Clone(data[sent:]), Begun: sent > 0, Pong: op == frame.Pong})
	o.owing += x.box.Bytes()
}

// sayControl is say for a control frame.
func (o *output) sayControl(c *conn, op frame.Op, payload []byte) {
	o.reply = frame.Append(o.reply[:0], op, payload)
	o.say(c, op, o.reply)
}

// sayClose is say for a Close frame.
func (o *output) sayClose(c *conn, code frame.Code, reason string) {
	o.reply = frame.AppendClose(o.reply[:0], code, reason)
	o.say(c, frame.Close, o.reply)
}

// offer gives data to c's socket, unless other data has to go first.
func (o *output) offer(c *conn, data []byte) (sent int) {
	if o.owed(c) > 0 {
		return 0
	}
	return o.write(c, data)
}

// write writes what the socket takes. An error marks the connection, which is
// written to no more.
func (o *output) write(c *conn, data []byte) (sent int) {
	switch {
	case c.is(flagMute):
		return 0
	case c.is(flagTLS):
		return o.seal(c, data)
	}
	return o.writeSocket(c, data)
}

func (o *output) writeSocket(c *conn, data []byte) (sent int) {
	sent, err := netpoll.Write(int(c.FD), data)
	o.counts.BytesOut += uint64(sent)
	if err != nil {
		o.mark(c, gone(err))
	}
	return sent
}

// needBox returns c's side, so that something can be put into its box, and waits
// for the socket.
func (o *output) needBox(c *conn) *side {
	x := o.sides.need(c)
	if x.owed() == 0 {
		x.since, x.moved = o.tick, o.tick
	}
	o.want(c, flagWriting, true)
	return x
}

// enqueue puts into c's box what its socket did not take of a message, where it
// took the first sent bytes of several that were sent together, of which this is
// the next. If there is no room the message's policy decides. borrowed says that
// f.Data has to be copied.
func (o *output) enqueue(c *conn, f outbox.Frame, borrowed bool, sent *int) outbox.Fate {
	n := min(*sent, len(f.Data))
	*sent -= n
	switch {
	case n == len(f.Data):
		o.account(c, &o.counts.MessagesOut, f.Size())
		return outbox.Sent
	case c.is(flagMute):
		o.account(c, &o.counts.Undelivered, f.Size())
		return outbox.Overflow
	}
	o.account(c, nil, outbox.SizeOf(0, n))
	f.Data, f.Begun = f.Data[n:], n > 0
	if borrowed {
		f.Data = slices.Clone(f.Data)
	}
	x := o.needBox(c)
	before := x.box.Bytes()
	put := x.box.Put(f, o.server.bound, o.owing+len(f.Data) > o.limits.owed)
	o.owing += x.box.Bytes() - before
	o.account(c, &o.counts.DroppedOld, put.Old)
	o.account(c, &o.counts.Conflated, put.Conflated)
	switch put.Fate {
	case outbox.Dropped:
		o.account(c, &o.counts.DroppedNew, f.Size())
		if x.owed() == 0 {
			o.want(c, flagWriting, false)
			o.sides.drop(c)
		}
		return put.Fate
	case outbox.Overflow:
		o.account(c, &o.counts.Undelivered, f.Size())
		o.mark(c, fate{kind: fateClose, code: frame.TryAgainLater, cause: ErrOutbox})
		return put.Fate
	}
	// The other policies have dropped something, but for frames that were begun.
	if o.owing > 2*o.limits.owed || o.owing > o.limits.owed && f.Policy == outbox.Close {
		if largest := o.sides.largest(); largest != nil {
			o.mark(largest, gone(ErrOutbox))
		}
	}
	o.rise(c, x)
	return put.Fate
}

// account takes messages off c's gauge and counts what became of them.
func (o *output) account(c *conn, counter *uint64, s outbox.Size) {
	if s == 0 {
		return
	}
	if counter != nil {
		*counter += uint64(s.Messages())
	}
	if o.gauge(c).Sub(s, o.server.low) {
		o.eased = append(o.eased, o.slots.Token(c))
	}
}

// flush goes on with what c is owed.
func (o *output) flush(c *conn) {
	x := o.sides.of(c)
	if x == nil {
		return
	}
	for n := 0; n < writesMax && o.flushSealed(c, x) && x.box.Bytes() > 0; n++ {
		data := x.box.Next(o.buf)
		sent := o.write(c, data)
		if sent > 0 {
			x.moved = o.tick
			o.owing -= sent
			o.account(c, &o.counts.MessagesOut, x.box.Sent(sent))
		}
		if sent < len(data) {
			break
		}
	}
	o.fall(c, x)
	if x.owed() > 0 || c.is(flagDying) {
		return
	}
	o.want(c, flagWriting, false)
	if c.state == stateLinger || c.state == stateRejected {
		o.hangUp(c)
	}
	o.sides.drop(c)
}

// A peer is slow from when it is owed half of what it may be until it is owed an
// eighth. These are the watermarks.
const (
	highPart = 2
	lowPart  = 8
)

// rise takes note if c's box has passed the high watermark.
func (o *output) rise(c *conn, x *side) {
	if c.is(flagSlow) || c.state != stateOpen || !x.box.Size().Exceeds(o.server.high) {
		return
	}
	c.flags |= flagSlow
	o.counts.OutboxHigh++
	if c.terms.policy() == OutboxClose {
		x.congesting = true
		o.server.throttle.Congested(1)
		o.congested = append(o.congested, congestion{o.slots.Token(c), o.tick + congestedMax})
	}
	o.turned = append(o.turned, turn{o.slots.Token(c), true})
}

// fall takes note if c's box has passed the low watermark.
func (o *output) fall(c *conn, x *side) {
	if c.is(flagSlow) && !x.box.Size().Exceeds(o.server.low) {
		o.notSlow(c)
		o.turned = append(o.turned, turn{o.slots.Token(c), false})
	}
}

// notSlow ends what rise began.
func (o *output) notSlow(c *conn) {
	if c.is(flagSlow) {
		c.flags &^= flagSlow
		o.counts.OutboxLow++
	}
	if x := o.sides.of(c); x != nil {
		o.notCongesting(x)
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

func (o *output) notCongesting(x *side) {
	if x.congesting {
		x.congesting = false
		o.server.throttle.Congested(-1)
	}
}

// endCongestion lets publishers go on where somebody made them wait for too
// long.
func (o *output) endCongestion() {
	for len(o.congested) > 0 && o.congested[0].until <= o.tick {
		if c := o.slots.Get(o.congested[0].token); c != nil && c.side != 0 {
			o.notCongesting(o.sides.of(c))
		}
		o.congested = o.congested[1:]
	}
}

// refused hears that Send has said ErrBackpressure. The handler will be told when
// it is worth trying again, which may be at once: perhaps only the mailbox was
// full.
func (o *output) refused(c *conn, policy OutboxPolicy) {
	switch {
	case c.state != stateOpen:
	case !c.is(flagSlow):
		c.flags |= flagSlow
		o.counts.OutboxHigh++
		o.turned = append(o.turned, turn{o.slots.Token(c), true})
		o.fall(c, o.sides.need(c))
		o.sides.drop(c)
	case policy == OutboxClose:
		o.mark(c, fate{kind: fateClose, code: frame.TryAgainLater, cause: ErrOutbox})
	}
}

// add adds a publication for those who subscribe to a branch, or for all.
func (o *output) add(p *fanout.Publication, branch uint32) {
	if branch == 0 {
		o.log.Add(p, o.began)
		return
	}
	o.topics.Add(branch, p, o.began)
	o.topics.Release(branch)
}

// step sends the slot under the pass's hand what it lacks, and returns how many
// system calls that took.
func (o *output) step() (sends int) {
	if c := o.slots.At(o.log.Hand()); c != nil && c.state == stateOpen {
		sends = o.sendLacking(c, &o.log.Log, &c.heard)
	}
	for _, e := range o.log.Step(o.slots.High()) {
		o.passTime.AddTime(o.began - e.Since)
		e.Passed(e.Tally)
	}
	return sends
}

// stepTopic goes on with the topic whose turn it is, and returns how many system calls
// that took.
func (o *output) stepTopic() (sends int) {
	for range topicVisits {
		lack, ok := o.topics.Next()
		if !ok {
			return sends
		}
		sends += o.serve(o.slots.At(int(lack.Slot)), lack)
	}
	o.topics.Yield()
	return sends
}

// serve sends a connection what it lacks of a topic, and returns how many system calls
// that took.
func (o *output) serve(c *conn, lack topics.Lack) (sends int) {
	sends = o.sendLacking(c, lack.Log, &lack.Heard)
	o.topics.Served(lack)
	return sends
}

// catchUp sends c all that was broadcast, or published to its topics, and that it
// has not been sent.
func (o *output) catchUp(c *conn) {
	o.sendLacking(c, &o.log.Log, &c.heard)
	if !o.topics.Busy() {
		return // as for most messages
	}
	for lack := range o.topics.Lacking(o.slots.Token(c).Slot) {
		o.serve(c, lack)
	}
}

// sendLacking sends c what it lacks of a log, up to whose end it has heard then. It
// returns how many system calls that took.
func (o *output) sendLacking(c *conn, log *fanout.Log, heard *uint32) (sends int) {
	for *heard != log.End() {
		entries := log.LacksOf(*heard, func() uint64 { return idOf(o.index, o.slots.Token(c)) })
		if len(entries) == 0 {
			*heard++ // the next one is not for c
			continue
		}
		sent := 0
		if o.owed(c) == 0 && !c.is(flagMute) {
			piece, n := entries[0].For(uint8(c.terms.window())), 1
			if *heard+uint32(len(entries)) == log.End() {
				piece, n = log.Piece(*heard, uint8(c.terms.window()))
			}
			entries = entries[:n]
			sent = o.write(c, piece)
			sends++
			o.counts.BroadcastSends++
			if sent == len(piece) {
				o.counts.MessagesOut += uint64(n)
				for _, e := range entries {
					e.Tally.Sent++
				}
				o.caughtUp(heard, n)
				continue
			}
		}
		for _, e := range entries {
			data := e.For(uint8(c.terms.window()))
			o.gauge(c).Add(outbox.SizeOf(1, len(data)))
			policy := Kind{Policy: OutboxPolicy(e.Policy)}.over(c.terms.policy())
			f := outbox.Frame{Data: data, ID: e.ID, Policy: outbox.Policy(policy)}
			count(&e.Tally, o.enqueue(c, f, false, &sent))
		}
		o.caughtUp(heard, len(entries))
	}
	return sends
}

// caughtUp takes note that a connection was sent so many broadcasts, or that they
// wait for it or were dropped.
func (o *output) caughtUp(heard *uint32, n int) {
	*heard += uint32(n)
	o.counts.MessagesAccepted += uint64(n)
	o.counts.BroadcastMessages += uint64(n)
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
