package server

import (
	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// send sends a handler's messages, data holding their frames.
func (r *reactor) send(token netpoll.Token, data []byte, messages int) {
	c := r.slots.Get(token)
	// What was broadcast before may not be overtaken. It may be the last that
	// c gets.
	if c != nil && c.state == stateOpen && c.heard != r.log.end() {
		r.catchUp(c)
	}
	if c == nil || c.state != stateOpen {
		r.count[Undelivered] += uint64(messages)
		return
	}
	r.count[MessagesOut] += uint64(messages)
	r.writeOrOwe(c, data)
}

// writeOrOwe writes data behind what c is owed already. data is copied if need
// be. What exceeds the outbox's limit closes the connection.
func (r *reactor) writeOrOwe(c *conn, data []byte) {
	if sent, done := r.offer(c, data); !done {
		r.owe(c, func(o *outbox) { o.copy(data[sent:]) })
	}
}

// offer gives data to c's socket, unless other data has to go first. It is
// done when nothing of it is left, or nobody to send it to.
func (r *reactor) offer(c *conn, data []byte) (sent int, done bool) {
	switch {
	case c.state == stateGone:
		return 0, true
	case r.owes(c) > 0:
		return 0, false
	}
	sent = r.write(c, data)
	if c.state == stateGone {
		r.count[BytesUndelivered] += uint64(len(data) - sent)
		return sent, true
	}
	return sent, sent == len(data)
}

// write writes what the socket takes. An error ends the connection.
func (r *reactor) write(c *conn, data []byte) (sent int) {
	sent, err := netpoll.Write(int(c.FD), data)
	r.count[BytesOut] += uint64(sent)
	if err != nil {
		r.hangUp(c, err)
	}
	return sent
}

// owes is how many bytes c has not been sent yet.
func (r *reactor) owes(c *conn) int {
	if x := r.extra(c); x != nil {
		return x.out.bytes
	}
	return 0
}

// owe puts more into c's outbox and waits for the socket. A peer that is owed
// too much is closed: behind what it was promised, which is never cut, it is
// told so.
func (r *reactor) owe(c *conn, add func(*outbox)) {
	o := &r.needExtra(c).out
	before := o.bytes
	add(o)
	r.await(c, flagWriting, true)
	// A single message passes whatever its size, so the limit need not be the
	// largest message's.
	if before > 0 && o.bytes > r.server.options.MaxOutbox && c.state == stateOpen {
		r.fail(c, frame.TryAgainLater, ErrOutbox)
	}
}

// flush goes on with what c is owed.
func (r *reactor) flush(c *conn) {
	x := r.extra(c)
	for x != nil && x.out.bytes > 0 {
		data := x.out.queue[0].data
		sent := r.write(c, data)
		if c.state == stateGone {
			return
		}
		x.out.sent(sent)
		if sent < len(data) {
			return
		}
	}
	r.await(c, flagWriting, false)
	r.dropExtra(c)
	if c.state == stateLinger {
		netpoll.ShutdownWrite(int(c.FD))
	}
}

// await switches a flag that says what c's socket is polled for.
func (r *reactor) await(c *conn, flag flags, on bool) {
	if on == (c.flags&flag != 0) {
		return
	}
	c.flags ^= flag
	if c.flags&flagPolled == 0 {
		return // greet will register it with what it waits for by then
	}
	if err := r.poller.Modify(int(c.FD), r.slots.Token(c), c.interest()); err != nil {
		r.hangUp(c, err)
	}
}

// interest is what c's socket is polled for.
func (c *conn) interest() (want netpoll.Interest) {
	if c.flags&flagPaused == 0 {
		want |= netpoll.In
	}
	if c.flags&flagWriting != 0 {
		want |= netpoll.Out
	}
	return want
}
