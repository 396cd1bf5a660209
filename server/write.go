package server

import (
	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// send sends a handler's messages to one connection. The letters' frames lie
// back to back in data from begin.
func (r *reactor) send(letters []netpoll.Letter[op], data []byte, begin int) {
	slot := letters[0].Value.token
	c := r.slots.Get(slot)
	// What was broadcast before may not be overtaken. It may be the last that
	// c gets.
	if c != nil && c.state == stateOpen && c.heard != r.log.end() {
		r.catchUp(c)
	}
	frames := data[begin:letters[len(letters)-1].End]
	r.count[MessagesTaken] += uint64(len(letters))
	if c == nil || c.state != stateOpen {
		r.count[Undelivered] += uint64(len(letters))
		r.debts.At(int(slot.Slot)).sub(owing(len(letters), len(frames)))
		return
	}
	sent := r.offer(c, frames)
	if sent == len(frames) {
		r.settle(c, MessagesOut, owing(len(letters), len(frames)))
		return
	}
	for i := range letters {
		o := &letters[i].Value
		p := parcel{data: data[begin:letters[i].End], borrowed: true, id: o.id, whenSlow: o.whenSlow}
		begin = letters[i].End
		r.place(c, p, &sent)
	}
}

// say sends a frame of ours, or a response, behind what c is owed already.
// data is copied if need be.
func (r *reactor) say(c *conn, op frame.Op, data []byte) {
	sent := r.offer(c, data)
	if sent == len(data) {
		return
	}
	if c.state == stateGone {
		r.count[BytesUndelivered] += uint64(len(data) - sent)
		return
	}
	o := &r.needExtra(c).out
	if i := o.pong(); i >= 0 && op == frame.Pong {
		r.owing -= len(o.remove(i).data)
	}
	r.keepFor(c, o, parcel{data: data[sent:], begun: sent > 0, borrowed: true, pong: op == frame.Pong})
}

// offer gives data to c's socket, unless other data has to go first.
func (r *reactor) offer(c *conn, data []byte) (sent int) {
	if c.state == stateGone || r.owes(c) > 0 {
		return 0
	}
	return r.write(c, data)
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

// flush goes on with what c is owed.
func (r *reactor) flush(c *conn) {
	x := r.extra(c)
	for x != nil && x.out.bytes > 0 {
		data := x.out.next(r.buf)
		sent := r.write(c, data)
		if c.state == stateGone {
			return
		}
		r.owing -= sent
		r.settle(c, MessagesOut, x.out.sent(sent))
		r.emptied(c, &x.out)
		if sent < len(data) {
			r.fall(c)
			return
		}
	}
	r.await(c, flagWriting, false)
	r.fall(c)
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
	if c.flags&flagUnread == 0 {
		want |= netpoll.In
	}
	if c.flags&flagWriting != 0 {
		want |= netpoll.Out
	}
	return want
}
