package server

import (
	"slices"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// outbox holds what a slow peer is owed, oldest first, frame by frame: so one
// can be taken out, and none is ever cut.
type outbox struct {
	queue    []parcel
	bytes    int
	messages int
	since    netpoll.Tick // when it last was empty
}

// parcel is a frame, or what is left of one whose beginning was sent.
type parcel struct {
	data     []byte
	id       uint32   // Kind.ID
	whenSlow WhenSlow // zero: not a message
	begun    bool     // some of it was sent
	borrowed bool     // data has to be copied if it is to be kept
	pong     bool
}

func (p *parcel) message() bool { return p.whenSlow != 0 }

// add puts a parcel behind the others.
func (o *outbox) add(p parcel) {
	if p.borrowed {
		p.data, p.borrowed = slices.Clone(p.data), false
	}
	o.bytes += len(p.data)
	if p.message() {
		o.messages++
	}
	o.queue = append(o.queue, p)
}

// remove takes parcel i out.
func (o *outbox) remove(i int) (p parcel) {
	p = o.queue[i]
	o.bytes -= len(p.data)
	if p.message() {
		o.messages--
	}
	if i == 0 {
		o.queue[0] = parcel{}
		o.queue = o.queue[1:]
	} else {
		o.queue = slices.Delete(o.queue, i, i+1)
	}
	if len(o.queue) == 0 {
		o.queue = nil
	}
	return p
}

// find returns the oldest parcel that is wanted and has not been begun, -1 if
// there is none.
func (o *outbox) find(wanted func(*parcel) bool) int {
	for i := range o.queue {
		if p := &o.queue[i]; !p.begun && wanted(p) {
			return i
		}
	}
	return -1
}

// oldest finds a message that may be dropped for a newer one.
func (o *outbox) oldest() int {
	return o.find(func(p *parcel) bool { return p.whenSlow == DropOld || p.whenSlow == Latest })
}

// predecessor finds the message that one of the same kind stands in for.
func (o *outbox) predecessor(id uint32) int {
	return o.find(func(p *parcel) bool { return p.whenSlow == Latest && p.id == id })
}

// pong finds a Pong. Only the last that is owed need be sent (RFC 6455 section
// 5.5.3).
func (o *outbox) pong() int { return o.find(func(p *parcel) bool { return p.pong }) }

// next returns what to send next: a frame, or small ones together, copied to
// scratch.
func (o *outbox) next(scratch []byte) []byte {
	first := o.queue[0].data
	n := 0
	for i := range o.queue {
		data := o.queue[i].data
		if n+len(data) > len(scratch) {
			break
		}
		n += copy(scratch[n:], data)
	}
	if n <= len(first) {
		return first
	}
	return scratch[:n]
}

// sent takes out the first n bytes, and returns how many messages and how many
// of their bytes they were. A message counts when its last byte has gone.
func (o *outbox) sent(n int) (messages, bytes int) {
	for n > 0 {
		first := &o.queue[0]
		part := min(n, len(first.data))
		n -= part
		if first.message() {
			bytes += part
		}
		if part < len(first.data) {
			first.data, first.begun = first.data[part:], true
			o.bytes -= part
			break
		}
		if p := o.remove(0); p.message() {
			messages++
		}
	}
	return messages, bytes
}

// control is the parcel of a control frame, or of a response to a handshake.
func control(op frame.Op, data []byte) parcel {
	return parcel{data: data, borrowed: true, pong: op == frame.Pong}
}
