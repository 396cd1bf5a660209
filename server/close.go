package server

import (
	"errors"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/gate"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
)

// closer ends connections: those that are marked, and those that are asked to
// leave.
type closer struct {
	*conns
	out   *output
	calls *calls
	in    *input
}

// bury ends the connections that are marked. A last word that can not be sent
// marks its connection again.
func (l *closer) bury() {
	if len(l.dying) == 0 {
		return
	}
	for i := 0; i < len(l.dying); i++ {
		c, f := l.dying[i].conn, l.dying[i].fate
		if c.state == stateEnded {
			continue
		}
		c.flags &^= flagDying | flagMute
		if f.kind == fateLeave {
			l.dismiss(c, f)
			continue
		}
		if f.kind == fateReject && l.out.tls != nil && !c.is(flagTLS) {
			f = gone(f.cause) // it could not read an answer before its TLS handshake is done
		}
		open, closing := c.state == stateOpen, c.state == stateClosing
		if open && f.orderly && f.kind != fateGone {
			l.out.catchUp(c)
		}
		switch c.state {
		case stateProxy, stateTLS, stateRequest, stateAsking:
			switch f.kind {
			case fateReject:
				l.reject(c, f)
			case fateGone:
				l.counts.Aborted++
			}
		case stateOpen, stateClosing:
			l.closed(c, f)
		}
		if open && f.kind != fateGone && f.kind != fateAlert {
			l.enter(c, stateLinger)
			l.out.sayClose(c, f.code, f.reason())
		}
		// RFC 6455 section 7.1.1: the server closes the TCP connection first,
		// once both Close frames have been sent.
		failed := c.is(flagDying) && l.death(c).fate.kind == fateGone
		over := f.kind == fateAnswer && (closing || l.owed(c) == 0) && !failed && !l.chats(c, f)
		if failed || over || f.kind == fateGone || f.kind == fateVisit {
			if over {
				l.out.closeNotify(c)
			}
			l.release(c)
		} else {
			l.linger(c, f)
		}
	}
	clear(l.dying)
	l.dying = l.dying[:0]
}

// chats reports whether the peer sends on behind its Close frame. Then the socket
// may not be closed at once: closing a socket with unread input sends a reset, and
// so does input that comes later. Either may overtake our Close frame.
func (l *closer) chats(c *conn, f fate) bool {
	if x := l.sides.of(c); f.chatty || x != nil && len(x.cipher) > 0 {
		return true
	}
	n, _ := netpoll.Read(int(c.FD), l.buf)
	return n > 0
}

// reject sends an HTTP error.
func (l *closer) reject(c *conn, f fate) {
	var reject *Reject
	errors.As(f.cause, &reject) // nothing else is a fateReject's cause
	l.counts.Rejected++
	l.server.gate.Reject(reject.Status)
	l.warn(c, "handshake rejected", "status", reject.Status, "reason", reasonOf(reject))
	if f.bare {
		l.out.say(c, 0, reject.Head(l.date()))
	} else {
		l.out.say(c, 0, reject.Response(l.date()))
	}
}

// reasonOf is what the log says about a rejection.
func reasonOf(r *Reject) string {
	if cause := r.Unwrap(); cause != nil {
		return cause.Error()
	}
	return r.Reason
}

// closed counts why an open connection ends, and tells its handler.
func (l *closer) closed(c *conn, f fate) {
	l.gauge(c).Close()
	l.out.notSlow(c)
	if c.terms.window() != 0 {
		l.server.compress.peers.Add(-1)
	}
	counter := l.counts.closed(f.cause)
	*counter++
	ending := l.ending(c, f)
	if f.cause != nil && counter != &l.counts.ClosedGone {
		l.warnOf(c, ending.Remote, "connection closed", "code", uint16(f.code), "cause", f.cause.Error())
	}
	l.server.endings.add(ending)
	l.calls.close(c, f.code, f.cause)
}

// linger waits for the peer to take the last word and to end its side.
func (l *closer) linger(c *conn, f fate) {
	s := stateLinger
	if f.kind == fateReject {
		s = stateRejected
	}
	if c.state != s {
		l.enter(c, s)
	}
	// One that was rejected before anything was read of it is not polled yet. If that
	// fails, the sweep ends it.
	if !c.is(flagPolled) && l.poller.Add(int(c.FD), l.slots.Token(c), c.interest()) == nil {
		c.flags |= flagPolled
	}
	for _, reason := range []flags{flagPaused, flagThrottled, flagBlocked, flagCurbed} {
		l.want(c, reason, false)
	}
	_ = l.register(c) // if the poller has no room, CloseTimeout ends it
	if x := l.sides.of(c); x != nil {
		l.sides.forget(x)
		l.sides.drop(c)
	}
	if l.owed(c) == 0 {
		l.out.hangUp(c)
	}
}

// release closes the socket. The slot is free when the handler's last call has
// returned, so that whatever waits for handlers is bounded by the slots. The
// socket is closed last: whoever sees its end finds the place free.
func (l *closer) release(c *conn) {
	fd, end := int(c.FD), netpoll.Close
	x := l.sides.of(c)
	if owed := l.owed(c); owed > 0 {
		l.out.owing -= owed
		l.counts.BytesUndelivered += uint64(owed)
		l.out.account(c, &l.counts.Undelivered, x.box.Sent(x.box.Bytes()))
		end = netpoll.Reset // the kernel need not keep trying either
	}
	if c.is(flagTLS) {
		l.out.tls.forget(l.out.slot(c))
	}
	l.enter(c, stateEnded)
	c.FD, c.flags = -1, 0
	l.gauge(c).Close()
	if x != nil {
		l.out.notCongesting(x)
		l.in.endHandshake(x)
		x.sealed = nil
		l.sides.forget(x)
	}
	l.freeIdle(c)
	end(fd)
}

// freeIdle frees the slot, or waits until its handler's last call has returned, and
// until the answer that a call has left is read: it may accept the connection, and
// then its handler has to hear of the end.
func (l *closer) freeIdle(c *conn) {
	x := l.sides.of(c)
	if x != nil && (x.asked || x.inbox != nil && x.inbox.Want(inbox.Idle)) {
		return
	}
	l.free(c)
}

// free gives up the slot.
func (l *closer) free(c *conn) {
	l.sides.put(c)
	l.server.gate.Leave()
	l.leave(c)
	l.server.values.forget(l.handle(c).id)
	l.slots.Put(c)
}

// leave gives back what is counted of c's address, and its expiry.
func (l *closer) leave(c *conn) {
	slot := int(l.slots.Token(c).Slot)
	l.setTicket(c, gate.Ticket{})
	delete(l.remotes, uint32(slot))
	if l.server.expiring.Load() {
		*l.expiry.At(slot) = 0
	}
}

// dismiss begins the closing handshake of a connection that was asked to leave.
func (l *closer) dismiss(c *conn, f fate) {
	l.counts.Drained++
	if x := l.sides.of(c); x != nil {
		x.end = fate{}
	}
	l.startClose(c, f.code, f.reason())
}

// startClose begins the closing handshake from our side (RFC 6455 section
// 7.1.2).
func (l *closer) startClose(c *conn, code frame.Code, reason string) {
	if c.state != stateOpen || c.is(flagMute) {
		return
	}
	l.out.catchUp(c)
	l.enter(c, stateClosing)
	l.gauge(c).Close()
	l.out.sayClose(c, code, reason)
	for _, reason := range []flags{flagPaused, flagThrottled, flagBlocked, flagCurbed} {
		l.in.unpause(c, reason) // the peer's answer has to be read
	}
}
