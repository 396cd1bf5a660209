package server

import (
	"slices"

	"github.com/seed-134acfd0/lull/netpoll"
)

// outbox holds what a slow peer is owed, oldest first, frame by frame: so one
// can be taken out, and none is ever cut.
type outbox struct {
	queue []parcel
	bytes int
	owed  owed         // the messages and their bytes
	since netpoll.Tick // when it last was empty
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

// owed is what a parcel counts for: nothing if it is a control frame.
func (p *parcel) owed() owed {
	if p.whenSlow == 0 {
		return 0
	}
	return owing(1, len(p.data))
}

// add puts a parcel behind the others.
func (o *outbox) add(p parcel) {
	if p.borrowed {
		p.data, p.borrowed = slices.Clone(p.data), false
	}
	o.bytes += len(p.data)
	o.owed += p.owed()
	o.queue = append(o.queue, p)
}

// remove takes parcel i out.
func (o *outbox) remove(i int) (p parcel) {
	p = o.queue[i]
	o.bytes -= len(p.data)
	o.owed -= p.owed()
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

// sent takes out the first n bytes, and returns what they count for: a message
// counts when its last byte has gone.
func (o *outbox) sent(n int) owed {
	before := o.owed
	for n > 0 {
		first := &o.queue[0]
		if n >= len(first.data) {
			n -= len(first.data)
			o.remove(0)
			continue
		}
		o.bytes -= n
		o.owed -= first.owed()
		first.data, first.begun = first.data[n:], true
		o.owed += first.owed()
		break
	}
	return before - o.owed
}
