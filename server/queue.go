package server

import (
	"io"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// inbox returns c's inbox and gives it one first if it has none.
func (r *reactor) inbox(c *conn) *inbox {
	x := r.needExtra(c)
	if x.inbox == nil {
		x.inbox = &inbox{pool: r.server.pool, conn: r.conn(c)}
	}
	return x.inbox
}

// enqueue leaves a message to the workers. If the handler has too much before
// it, Options.WhenFull says what happens.
func (r *reactor) enqueue(c *conn, op frame.Op, data []byte) {
	b := r.inbox(c)
	full := b.pressure() != wishNone && b.calls.Load() > 0
	switch policy := r.server.options.WhenFull; {
	case full && policy == DropMessage:
		r.count[MessagesDropped]++
		return
	case full && policy == CloseConn:
		r.fail(c, frame.TryAgainLater, ErrQueue)
		return
	}
	b.add(call{kind: callMessage, op: op}, data)
	if !b.below(queueFrom) && b.high.CompareAndSwap(false, true) {
		r.count[QueueBegins]++
	}
	if w := b.pressure(); w != wishNone && r.server.options.WhenFull == Pause && b.want(w) {
		r.count[Paused]++
		r.await(c, flagPaused, true)
	}
}

// waits postpones the end of a connection until its handler has heard all that
// came before it. It is false if nothing has to be waited for.
func (r *reactor) waits(c *conn, l last) bool {
	x := r.extra(c)
	if c.state != stateOpen || x == nil || x.inbox == nil || !x.inbox.want(wishIdle) {
		return false
	}
	x.last = l
	r.await(c, flagPaused, true)
	return true
}

// resume goes on with the connections that are read again.
func (r *reactor) resume() {
	for i := 0; i < len(r.drained); i++ { // mail may bring more
		c := r.slots.Get(r.drained[i])
		if c == nil || c.flags&flagUnread != 0 {
			continue
		}
		x := r.extra(c)
		switch {
		case x == nil || c.state != stateOpen && c.state != stateClosing:
		case x.last.how == lastEOF:
			if !r.waits(c, x.last) {
				r.hangUp(c, io.EOF)
			}
		case x.last.how == lastClose:
			r.peerCloses(c, x.last.code)
		case len(x.raw) > 0:
			r.frames(c, r.buf[:copy(r.buf, x.raw)])
			r.readMail()
		}
	}
	r.drained = r.drained[:0]
}

// proceed ends a reason not to read from c. A nil c is one that has gone.
func (r *reactor) proceed(c *conn, reason flags) {
	if c != nil && c.flags&reason != 0 {
		r.await(c, reason, false)
		r.drained = append(r.drained, r.slots.Token(c))
	}
}

// ask lets a worker ask the handler about a request.
func (r *reactor) ask(c *conn, head []byte) {
	c.state = stateAsking
	c.seen = r.tick
	r.await(c, flagPaused, true)
	r.inbox(c).add(call{kind: callUpgrade, remote: netpoll.RemoteAddr(int(c.FD))}, head)
}

// answered goes on with a handshake as the handler has decided.
func (r *reactor) answered(token netpoll.Token, a *answer, response []byte) {
	c := r.slots.Get(token)
	if c == nil || c.state != stateAsking {
		return // it has ended, and was counted then
	}
	r.extra(c).inbox = nil // the next will know the tag
	c.tag, c.whenSlow = a.tag, a.whenSlow
	r.proceed(c, flagPaused)
	if a.reject != nil {
		r.unask(c)
		r.refuse(c, a.reject)
		return
	}
	c.state = stateHead
	r.opened(c, response)
}

// unask forgets that the handler was asked, for the request will be refused.
func (r *reactor) unask(c *conn) {
	if c.state == stateAsking {
		c.state = stateHead
		r.server.open.Add(-1)
	}
}
