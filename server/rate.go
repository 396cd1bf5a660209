package server

import (
	"errors"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/gate"
)

// errRate is the cause, for Handler.Close, of an end by Options.CloseOverRate.
var errRate = errors.New("server: too many messages")

// rateLimit is how fast one connection may send.
func (o *Options) rateLimit() gate.RateLimit {
	return gate.RateLimit{
		Messages: gate.Pace{PerSecond: o.MessageRate, Burst: o.MessageBurst},
		Bytes:    gate.Pace{PerSecond: o.ByteRate, Burst: o.ByteBurst},
	}
}

// curbsMax is how many connections are read again in a turn, of those that were
// over their rate.
const curbsMax = 256

// curbs are the connections that are not read because they were over their rate,
// by when they may be read again: a wheel of ticks, so that none needs a timer. The
// one that waits longest is looked at once in each round of the wheel.
type curbs struct {
	wheel [64][]netpoll.Token // by tick
	at    netpoll.Tick        // up to which the wheel has turned
	due   []netpoll.Token
}

// add has c looked at in so many ticks, or after a round of the wheel.
func (u *curbs) add(t netpoll.Token, in netpoll.Tick) {
	in = min(max(1, in), netpoll.Tick(len(u.wheel)-1))
	place := &u.wheel[int(u.at+in)%len(u.wheel)]
	*place = append(*place, t)
}

// turn turns the wheel on to a tick.
func (u *curbs) turn(to netpoll.Tick) {
	for u.at != to {
		u.at++
		place := &u.wheel[int(u.at)%len(u.wheel)]
		u.due = append(u.due, *place...)
		*place = nil
	}
}

// charge takes note of what c has sent: frames, whatever they carry, or bytes as
// they come from the socket. If that is more than its rate, c is curbed, or it ends
// and charge returns false.
func (in *input) charge(c *conn, frames, bytes int) (ok bool) {
	if !in.rate.Limited() || c.state != stateOpen || c.is(flagDying) {
		return true
	}
	fresh := c.side == 0
	x := in.sides.need(c)
	if fresh {
		x.began = in.tick
	}
	wait := x.rate.Took(in.rate, frames, bytes, in.time)
	switch {
	case wait == 0:
		return true
	case in.server.options.CloseOverRate:
		in.finish(c, fate{kind: fateClose, code: frame.PolicyViolation, cause: errRate})
		return false
	case !c.is(flagCurbed):
		in.counts.Curbed++
		in.want(c, flagCurbed, true)
		in.curbs.add(in.slots.Token(c), netpoll.Ticks(wait))
	}
	return true
}

// uncurb reads from the connections again that may send by now.
func (in *input) uncurb() {
	in.curbs.turn(in.tick)
	n := min(curbsMax, len(in.curbs.due))
	for _, t := range in.curbs.due[:n] {
		c := in.slots.Get(t)
		if c == nil || !c.is(flagCurbed) {
			continue
		}
		if x := in.sides.of(c); x != nil {
			if wait := x.rate.Took(in.rate, 0, 0, in.time); wait > 0 {
				in.curbs.add(t, netpoll.Ticks(wait))
				continue
			}
		}
		in.unpause(c, flagCurbed)
	}
	if in.curbs.due = in.curbs.due[n:]; len(in.curbs.due) == 0 {
		in.curbs.due = nil
	}
}
