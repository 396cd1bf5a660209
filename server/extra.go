package server

import (
	"github.com/seed-134acfd0/lull/frame"
)

// extra is what a connection needs only at times: while a request or message
// is incomplete, and while its peer is slow.
type extra struct {
	parse   frame.State
	raw     []byte // read and not yet parsed: an incomplete head or frame header
	message []byte // the beginning of the open message
	held    int    // the capacity of raw and message, as counted in extras.held
	out     outbox
	inbox   *inbox // what the handler has yet to hear, nil if nothing
	last    last   // what happens when it has heard all
}

// last is a peer's end that waits until the handler has heard everything
// before it.
type last struct {
	how  lastKind
	code frame.Code // lastClose
}

type lastKind uint8

const (
	lastNone lastKind = iota
	lastClose
	lastEOF
)

// extras hands them out by index, 1 the first. They belong to one reactor.
type extras struct {
	all  []*extra
	free []uint32
	held int // bytes in all extras' raw and message
}

// keptBytes is the largest buffer that stays with a free extra, and keptExtras
// how many free extras stay.
const (
	keptBytes  = 4 << 10
	keptExtras = 16
)

func (x *extras) take() uint32 {
	if n := len(x.free); n > 0 {
		i := x.free[n-1]
		x.free = x.free[:n-1]
		if x.all[i-1] == nil {
			x.all[i-1] = &extra{}
		}
		return i
	}
	x.all = append(x.all, &extra{})
	return uint32(len(x.all))
}

func (x *extras) put(i uint32) {
	e := x.all[i-1]
	x.held -= e.held
	if len(x.free) >= keptExtras {
		x.all[i-1] = nil
	} else {
		*e = extra{raw: small(e.raw), message: small(e.message)}
	}
	x.free = append(x.free, i)
	if len(x.free) == len(x.all) && len(x.all) > keptExtras {
		x.all, x.free = nil, nil
	}
}

// weigh brings held up to date after e's buffers have changed.
func (x *extras) weigh(e *extra) {
	now := cap(e.raw) + cap(e.message)
	x.held += now - e.held
	e.held = now
}

func small(b []byte) []byte {
	if cap(b) > keptBytes {
		return nil
	}
	return b[:0]
}

// extra returns c's extra, nil if it has none.
func (r *reactor) extra(c *conn) *extra {
	if c.extra == 0 {
		return nil
	}
	return r.extras.all[c.extra-1]
}

// needExtra returns c's extra and gives it one first if it has none.
func (r *reactor) needExtra(c *conn) *extra {
	if c.extra == 0 {
		c.extra = r.extras.take()
	}
	return r.extra(c)
}

// dropExtra takes c's extra away once nothing is in it.
func (r *reactor) dropExtra(c *conn) {
	if x := r.extra(c); x != nil && x.parse.Idle() && len(x.raw) == 0 && len(x.message) == 0 && x.out.bytes == 0 && x.inbox == nil {
		r.extras.put(c.extra)
		c.extra = 0
	}
}
