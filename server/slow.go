package server

import "github.com/seed-134acfd0/lull/frame"

// WhenSlow says what happens to a message for which there is no room, because
// its peer does not take what it is sent: it would be owed more than MaxOutbox
// or MaxOutboxMessages, or all peers together more than MaxOwed. Frames are
// never cut, and control frames never dropped.
type WhenSlow uint8

const (
	// CloseSlow closes the connection with 1013. Its peer gets all that was
	// sent before, without a gap. Send returns ErrSlow.
	CloseSlow WhenSlow = iota + 1
	// DropNew drops the message. Send returns ErrSlow.
	DropNew
	// DropOld drops the oldest messages that wait and are DropOld or Latest,
	// and the message itself if that is not enough.
	DropOld
	// Latest is DropOld, and as soon as a message has to wait, the one before
	// it of the same Kind is dropped: the peer gets the newest of each.
	Latest
)

var whenSlowNames = [...]string{CloseSlow: "close", DropNew: "drop-new", DropOld: "drop-old", Latest: "latest"}

func (w WhenSlow) String() string { return whenSlowNames[w] }

// MarshalText returns the name.
func (w WhenSlow) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText accepts "close", "drop-new", "drop-old" and "latest".
func (w *WhenSlow) UnmarshalText(text []byte) error {
	return byName(w, text, whenSlowNames[:], "a message to a slow peer can be sent with")
}

// Kind is what a message is to a peer that is slow. The zero Kind is what the
// connection's Request, or Options, says; so is a WhenSlow that does not exist.
type Kind struct {
	// ID tells kinds apart that are Latest, a price of one thing from that of
	// another for instance.
	ID uint32
	// WhenSlow overrides the connection's, if it is set.
	WhenSlow WhenSlow
}

// over is what a message is sent with.
func (k Kind) over(connections WhenSlow) WhenSlow {
	if k.WhenSlow >= CloseSlow && k.WhenSlow <= Latest {
		return k.WhenSlow
	}
	return connections
}

// fate is what became of a message.
type fate uint8

const (
	fateSent fate = iota
	fateOwed
	fateDropped
	fateClosed // its connection was closed, for this message or before
)

// place finds a place for a frame, where c's socket took the first sent bytes
// of those to be sent together, of which this is the next.
func (r *reactor) place(c *conn, p parcel, sent *int) fate {
	n := min(*sent, len(p.data))
	*sent -= n
	rest := len(p.data) - n
	switch {
	case rest == 0:
		r.settle(c, MessagesOut, owing(1, n))
		return fateSent
	case c.state != stateOpen:
		r.settle(c, Undelivered, p.owed())
		return fateClosed
	}
	r.debt(c).sub(owing(0, n))
	p.data, p.begun = p.data[n:], n > 0
	return r.owe(c, p)
}

// owe leaves a message in c's outbox. If there is no room its policy decides.
func (r *reactor) owe(c *conn, p parcel) fate {
	x := r.needExtra(c)
	o := &x.out
	if p.whenSlow == Latest {
		if i := o.predecessor(p.id); i >= 0 {
			r.drop(c, o, i, Conflated)
		}
	}
	for !p.begun && !r.room(o, &p) {
		if p.whenSlow == CloseSlow {
			r.settle(c, Undelivered, p.owed())
			r.fail(c, frame.TryAgainLater, ErrOutbox)
			return fateClosed
		}
		i := -1
		if p.whenSlow != DropNew {
			i = o.oldest()
		}
		if i < 0 {
			r.settle(c, DroppedNew, p.owed())
			r.dropExtra(c)
			return fateDropped
		}
		r.drop(c, o, i, DroppedOld)
	}
	r.keepFor(c, o, p)
	if c.state != stateOpen { // its socket could not be waited for
		return fateClosed
	}
	r.rise(c, o)
	return fateOwed
}

// room reports whether p may be added. A single message passes whatever its
// size, so a bound need not be the largest message's; not so if everybody is
// owed too much together.
func (r *reactor) room(o *outbox, p *parcel) bool {
	return r.owing+len(p.data) <= r.limits.owed && (o.owed == 0 || !(o.owed + p.owed()).over(r.server.bound))
}

// keepFor adds p to c's outbox and waits for the socket.
func (r *reactor) keepFor(c *conn, o *outbox, p parcel) {
	if o.bytes == 0 {
		o.since = r.tick
		r.debt(c).slow(true)
	}
	o.add(p)
	r.owing += len(p.data)
	r.await(c, flagWriting, true)
}

// drop drops a message that c is owed.
func (r *reactor) drop(c *conn, o *outbox, i int, as Counter) {
	p := o.remove(i)
	r.owing -= len(p.data)
	r.settle(c, as, p.owed())
	r.emptied(c, o)
}

// emptied lets senders know if c is owed nothing any more.
func (r *reactor) emptied(c *conn, o *outbox) {
	if o.bytes == 0 {
		r.debt(c).slow(false)
	}
}

// forgive gives up what c is owed.
func (r *reactor) forgive(c *conn, o *outbox) {
	r.owing -= o.bytes
	r.count[BytesUndelivered] += uint64(o.bytes)
	r.settle(c, Undelivered, o.sent(o.bytes))
	r.emptied(c, o)
}

// settle takes something off c's debt and counts what became of it.
func (r *reactor) settle(c *conn, as Counter, o owed) {
	r.count[as] += uint64(o.messages())
	r.debt(c).sub(o)
}

func (r *reactor) debt(c *conn) *debt { return r.debts.At(int(r.slots.Token(c).Slot)) }

// A peer is slow from when it is owed half of what it may be until it is owed
// an eighth.
const (
	slowFrom  = 2
	slowUntil = 8
)

// part is a part of a bound.
func (o owed) part(n int) owed { return owing(o.messages()/n, o.bytes()/n) }

// rise tells the handler when c becomes slow.
func (r *reactor) rise(c *conn, o *outbox) {
	if c.flags&flagSlow == 0 && o.owed.over(r.server.bound.part(slowFrom)) {
		r.slow(c)
	}
}

// fall tells the handler when c is slow no more.
func (r *reactor) fall(c *conn) {
	var o owed
	if x := r.extra(c); x != nil {
		o = x.out.owed
	}
	if c.flags&flagSlow != 0 && !o.over(r.server.bound.part(slowUntil)) {
		c.flags &^= flagSlow
		r.count[SlowEnds]++
		r.pressed(c)
	}
}

func (r *reactor) slow(c *conn) {
	c.flags |= flagSlow
	r.count[SlowBegins]++
	r.pressed(c)
}

// refused hears that Send has said ErrSlow. The handler will be told when it
// can go on, which may be at once: perhaps only the mailbox was full.
func (r *reactor) refused(o *op) {
	r.debts.At(int(o.token.Slot)).heard()
	c := r.slots.Get(o.token)
	if c == nil || c.state != stateOpen {
		return
	}
	switch slow := c.flags&flagSlow != 0; {
	case slow && o.whenSlow == CloseSlow:
		r.fail(c, frame.TryAgainLater, ErrOutbox)
	case !slow:
		r.slow(c)
		r.fall(c)
	}
}

// pressed tells the handler that c has become slow, or is so no more.
func (r *reactor) pressed(c *conn) {
	h := &r.server.handler
	if h.Slow == nil && h.Drained == nil || c.state != stateOpen {
		return
	}
	if r.server.pool != nil {
		r.inbox(c).press()
		return
	}
	defer r.guard(c)
	h.pressure(r.conn(c), c.flags&flagSlow != 0)
}

// pressure calls Slow or Drained.
func (h *Handler) pressure(c Conn, slow bool) {
	f := h.Drained
	if slow {
		f = h.Slow
	}
	if f != nil {
		f(c)
	}
}
