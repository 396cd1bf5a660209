package server

import (
	"errors"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// startClose begins the closing handshake from our side (RFC 6455 section
// 7.1.2). A nil c is one that has gone already.
func (r *reactor) startClose(c *conn, code frame.Code, reason string) {
	if c == nil || c.state != stateOpen {
		return
	}
	r.catchUp(c)
	if c.state != stateOpen {
		return
	}
	c.state = stateClosing
	r.debt(c).close()
	c.seen = r.tick
	r.sayClose(c, code, reason)
	r.proceed(c, flagPaused) // the peer's answer has to be read
	r.proceed(c, flagHeld)
}

// sayClose sends a Close frame behind what c is owed.
func (r *reactor) sayClose(c *conn, code frame.Code, reason string) {
	r.reply = frame.AppendClose(r.reply[:0], code, reason)
	r.say(c, frame.Close, r.reply)
}

// peerCloses answers the peer's Close frame, or takes it for the answer to
// ours.
func (r *reactor) peerCloses(c *conn, code frame.Code) {
	if r.waits(c, last{lastClose, code}) {
		return
	}
	r.readMail() // what the handler has sent belongs before our Close frame
	if c.state != stateOpen && c.state != stateClosing {
		return
	}
	answer := c.state == stateOpen
	r.closed(c, code, nil)
	c.state = stateLinger
	if answer {
		r.sayClose(c, code, "")
	}
	// RFC 6455 section 7.1.1: the server closes the TCP connection first.
	switch {
	case c.state == stateGone: // the peer has not waited for the answer
	case r.owes(c) == 0:
		r.release(c)
	default:
		r.linger(c)
	}
}

// breach ends a connection whose peer has broken the protocol.
func (r *reactor) breach(c *conn, err error) {
	var e *frame.Error
	errors.As(err, &e) // a Parser reports nothing else
	r.fail(c, e.Code, e)
}

// fail ends an open connection for a cause of ours, with a Close frame as the
// last word unless that was sent before.
func (r *reactor) fail(c *conn, code frame.Code, cause error) {
	tell := c.state == stateOpen
	r.closed(c, code, cause)
	c.state = stateLinger
	if tell {
		r.sayClose(c, code, cause.Error())
	}
	r.linger(c)
}

// linger waits for the peer to take what it is owed and to end its side.
func (r *reactor) linger(c *conn) {
	if c.state == stateGone {
		return
	}
	c.state = stateLinger
	c.seen = r.tick
	r.await(c, flagPaused, false)
	r.await(c, flagHeld, false)
	if x := r.extra(c); x != nil {
		x.parse, x.raw, x.message = frame.State{}, nil, nil
		r.extras.weigh(x)
		r.dropExtra(c)
	}
	if r.owes(c) == 0 {
		netpoll.ShutdownWrite(int(c.FD))
	}
}

// hangUp ends a connection whose socket has ended.
func (r *reactor) hangUp(c *conn, err error) {
	r.unask(c)
	switch c.state {
	case stateGone:
		return
	case stateHead:
		r.count[Aborted]++
	case stateOpen, stateClosing:
		r.closed(c, frame.Abnormal, err)
	}
	r.release(c)
}

// closed tells the handler that an open connection has ended, and counts why.
func (r *reactor) closed(c *conn, code frame.Code, cause error) {
	r.server.open.Add(-1)
	r.debt(c).close()
	if c.flags&flagSlow != 0 {
		c.flags &^= flagSlow
		r.count[SlowEnds]++
	}
	r.count[closeCounter(cause)]++
	if closeCounter(cause) != ClosedGone && cause != nil {
		r.warn(c, "connection closed", "code", uint16(code), "cause", cause)
	}
	r.server.endings.add(ending(r.conn(c), code, cause, r.owes(c)))
	switch {
	case r.server.handler.Close == nil:
	case r.server.pool != nil:
		r.inbox(c).add(call{kind: callClose, code: code, cause: cause}, nil)
	default:
		defer r.guard(nil)
		r.server.handler.Close(r.conn(c), code, cause)
	}
	if x := r.extra(c); x != nil {
		if x.inbox != nil && x.inbox.high.CompareAndSwap(true, false) {
			r.server.pool.ends.Add(1)
		}
		x.inbox = nil // it is the workers' now
	}
}

// release closes the socket and gives up everything but the slot.
func (r *reactor) release(c *conn) {
	if owed := r.owes(c); owed > 0 {
		r.forgive(c, &r.extra(c).out)
		netpoll.Reset(int(c.FD)) // the kernel need not keep trying either
	} else {
		netpoll.Close(int(c.FD))
	}
	if c.extra != 0 {
		r.extras.put(c.extra)
		c.extra = 0
	}
	c.state = stateGone
	r.slots.Put(c)
}

// guard keeps a panic of the handler to its connection, nil for one that is
// closed already.
func (r *reactor) guard(c *conn) {
	if p := recover(); p != nil {
		r.server.panicked(p)
		if c != nil && c.state == stateOpen {
			r.fail(c, frame.InternalError, ErrPanic)
		}
	}
}

// drainBatch is how many connections are sent a Close frame in one turn.
const drainBatch = 256

// startDrain begins the server's end.
func (r *reactor) startDrain() { r.draining = 0 }

// drain asks the next batch of connections to leave, and ends the reactor when
// all have.
func (r *reactor) drain() {
	if r.draining < 0 {
		return
	}
	for n := 0; n < drainBatch && r.draining < r.slots.High(); r.draining++ {
		c := r.slots.At(r.draining)
		if c == nil {
			continue
		}
		switch c.state {
		case stateOpen:
			r.startClose(c, frame.GoingAway, "the server is shutting down")
			n++
		case stateHead, stateAsking:
			r.unask(c)
			r.refuse(c, rejectLeaving)
			n++
		}
	}
	if r.slots.Used() == 0 {
		r.ended = true
	}
}

// end gives up the connections that are left.
func (r *reactor) end() {
	for i := range r.slots.High() {
		if c := r.slots.At(i); c != nil {
			r.hangUp(c, ErrShutdown)
		}
	}
	r.ended = true
}

// close gives the reactor's resources back.
func (r *reactor) close() {
	defer r.endTurn()
	r.end() // after an error there may be connections left
	r.mail.Shut()
	letters, _ := r.mail.Open()
	for i := range letters {
		switch o := &letters[i].Value; o.kind {
		case opSend:
			r.count[MessagesTaken]++
			r.count[Undelivered]++
		case opBroadcast:
			r.server.passed(o.pub, Receipt{})
		}
	}
	for _, l := range r.log.frames {
		r.server.passed(l.pub, l.tally)
	}
	r.publish()
	r.slots.Close()
	_ = r.poller.Close()
}
