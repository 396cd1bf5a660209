package server

import (
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// limits are the timeouts in ticks, zero for none, and a reactor's share of
// what the server may hold.
type limits struct {
	handshake, idle, ping, close netpoll.Tick
	lap                          netpoll.Tick // the time in which sweep sees all slots
	partial, owed                int          // bytes
}

// lapMost is the longest that sweep takes: so old a Census can be.
const lapMost = 5 * time.Second

func newLimits(o *Options) limits {
	l := limits{
		handshake: ticks(o.HandshakeTimeout),
		idle:      ticks(o.IdleTimeout),
		ping:      ticks(o.IdleTimeout / 2),
		close:     ticks(o.CloseTimeout),
		partial:   o.MaxPartial / o.Reactors,
		owed:      o.MaxOwed / o.Reactors,
		lap:       ticks(lapMost),
	}
	// A timeout may be late by a quarter.
	for _, t := range []netpoll.Tick{l.handshake, l.ping, l.close} {
		if t > 0 {
			l.lap = min(l.lap, max(1, t/4))
		}
	}
	return l
}

func ticks(d time.Duration) netpoll.Tick {
	if d < 0 {
		return 0
	}
	return netpoll.Ticks(d)
}

// sweep looks at a share of the slots in each tick, so that it sees each once
// in a lap: no connection needs a timer of its own.
func (r *reactor) sweep() {
	passed := r.tick - r.swept
	if passed == 0 {
		return
	}
	r.swept = r.tick
	r.publish()
	high := r.slots.High()
	share := high
	if passed < r.limits.lap {
		share = (high*int(passed) + int(r.limits.lap) - 1) / int(r.limits.lap)
	}
	for range share {
		if r.sweeping++; r.sweeping >= high {
			r.sweeping = 0
			r.publishCensus()
		}
		if c := r.slots.At(r.sweeping); c != nil {
			r.check(c)
			r.census.note(r, c)
		}
	}
}

// check applies the timeout of c's state.
func (r *reactor) check(c *conn) {
	l := &r.limits
	age := r.tick - c.seen
	after := func(limit netpoll.Tick) bool { return limit > 0 && age >= limit }
	switch c.state {
	case stateHead:
		if after(l.handshake) {
			r.refuse(c, rejectTimeout)
		}
	case stateAsking:
		if after(l.handshake) {
			r.unask(c)
			r.refuse(c, rejectSlow)
		}
	case stateOpen:
		if x := r.extra(c); x != nil && x.inbox != nil && x.inbox.calls.Load() == 0 && c.flags&flagSlow == 0 {
			x.inbox = nil
			r.dropExtra(c)
		}
		if c.flags&flagUnread != 0 {
			c.seen = r.tick // it is us who do not listen
			return
		}
		switch {
		case after(l.idle):
			r.fail(c, frame.GoingAway, ErrIdle)
		case after(l.ping) && c.flags&flagPinged == 0:
			c.flags |= flagPinged
			r.reply = frame.Append(r.reply[:0], frame.Ping, nil)
			r.say(c, frame.Ping, r.reply)
		}
	case stateClosing:
		if after(l.close) {
			r.hangUp(c, ErrCloseTimeout)
		}
	case stateLinger:
		if after(l.close) {
			r.release(c)
		}
	}
}
