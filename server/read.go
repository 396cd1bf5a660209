package server

import (
	"io"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// readable reads from c once. A peer that has sent more is ready again in the
// next turn, so nobody can keep the reactor to himself.
func (r *reactor) readable(c *conn) {
	if c.flags&flagUnread != 0 {
		// Nothing else is polled for: the peer has reset, or both sides ended.
		err := netpoll.SocketError(int(c.FD))
		if err == nil {
			err = io.EOF
		}
		r.hangUp(c, err)
		return
	}
	held := 0
	if x := r.extra(c); x != nil {
		held = copy(r.buf, x.raw) // what the last read left comes first
	}
	n, err := netpoll.Read(int(c.FD), r.buf[held:])
	switch {
	case err == io.EOF && r.waits(c, last{how: lastEOF}):
		return
	case err != nil:
		r.hangUp(c, err)
		return
	case n == 0 || c.state == stateLinger:
		return
	}
	r.count[BytesIn] += uint64(n)
	in := r.buf[:held+n]
	if c.state == stateHead {
		if in = r.handshake(c, in); c.state == stateHead || c.state == stateAsking {
			r.keep(c, frame.State{}, in)
			return
		}
	}
	if c.state == stateOpen {
		c.seen = r.tick
		c.flags &^= flagPinged
	}
	r.frames(c, in)
}

// messagesPerMail is how many messages a handler gets before what it sent goes
// out, so that one that answers each never fills the mailbox.
const messagesPerMail = 512

// frames handles the frames in in, which belongs to r.buf.
func (r *reactor) frames(c *conn, in []byte) {
	var between frame.State // of a connection that has no extra
	state, x := &between, r.extra(c)
	if x != nil {
		state = &x.parse
	}
	for messages := 1; len(in) > 0 && c.flags&flagUnread == 0 && (c.state == stateOpen || c.state == stateClosing); {
		ev, n, err := r.parser.Next(state, in)
		if err != nil {
			r.breach(c, err)
			return
		}
		if n == 0 {
			break
		}
		in = in[n:]
		switch {
		case ev.Op.Control():
			r.control(c, ev)
			continue
		case ev.Whole:
			r.message(c, ev.Op, ev.Payload)
		case ev.Last:
			x.message = append(x.message, ev.Payload...)
			r.message(c, ev.Op, x.message)
			x.message = small(x.message)
		default:
			if x == nil {
				x = r.needExtra(c)
				x.parse = between
				state = &x.parse
			}
			x.message = append(x.message, ev.Payload...)
			continue
		}
		if messages++; messages%messagesPerMail == 0 || !ev.Whole || r.urgent(c) {
			r.readMail()
		}
	}
	if c.state == stateOpen || c.state == stateClosing {
		r.keep(c, *state, in)
	}
}

// urgent reports whether the handler's sends and broadcasts to c have to go out
// before it hears more: it has broadcast too much, or would soon be told
// ErrSlow though c's peer is not to blame.
func (r *reactor) urgent(c *conn) bool {
	holds, held := r.holds.Load(), r.held
	r.held = holds
	owed, _ := r.debt(c).load()
	return holds != held || owed.over(r.server.bound.part(slowFrom))
}

// keep stores what the next read of c needs. raw belongs to r.buf.
func (r *reactor) keep(c *conn, parse frame.State, raw []byte) {
	if c.extra == 0 && parse.Idle() && len(raw) == 0 {
		return
	}
	x := r.needExtra(c)
	x.parse = parse
	x.raw = append(x.raw[:0], raw...)
	r.extras.weigh(x)
	if r.extras.held > r.limits.partial {
		if r.unask(c); c.state == stateHead {
			r.refuse(c, rejectFull)
		} else {
			r.fail(c, frame.TryAgainLater, ErrPartial)
		}
		return
	}
	r.dropExtra(c)
}

// message hands a message to the handler.
func (r *reactor) message(c *conn, op frame.Op, data []byte) {
	if c.state != stateOpen {
		return // it crossed our Close frame
	}
	r.count[MessagesIn]++
	switch {
	case r.server.handler.Message == nil:
	case r.server.pool != nil:
		r.enqueue(c, op, data)
	default:
		defer r.guard(c)
		r.server.handler.Message(r.conn(c), op, data)
	}
}

// control answers a control frame.
func (r *reactor) control(c *conn, ev frame.Event) {
	switch ev.Op {
	case frame.Ping:
		// RFC 6455 section 5.5.2: unless a Close frame was received, an
		// endpoint MUST answer with a Pong. After our own Close we may not
		// send it (5.5.1).
		if c.state == stateOpen {
			r.reply = frame.Append(r.reply[:0], frame.Pong, ev.Payload)
			r.say(c, frame.Pong, r.reply)
		}
	case frame.Close:
		code, _ := frame.ParseClose(ev.Payload)
		r.peerCloses(c, code)
	}
}
