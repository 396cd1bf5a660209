package server

import (
	"cmp"
	"errors"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/gate"
)

// limits are the timeouts in ticks, zero for none, and a reactor's share of
// what the server may hold, in bytes.
type limits struct {
	handshake, message, write, idle, ping, close netpoll.Tick
	lap                                          netpoll.Tick // the time in which the sweep sees all slots

	partial, requests, backlog, owed int
}

// lapMost is the longest that the sweep takes for a lap: so old a Census can be.
const lapMost = 5 * time.Second

func newLimits(o *Options) limits {
	l := limits{
		handshake: ticks(o.HandshakeTimeout),
		message:   ticks(o.MessageTimeout),
		write:     ticks(o.WriteTimeout),
		idle:      ticks(o.IdleTimeout),
		ping:      ticks(cmp.Or(o.PingAfter, o.IdleTimeout/2)),
		close:     ticks(o.CloseTimeout),
		partial:   o.MaxPartial / o.Reactors,
		requests:  o.MaxPartial / 8 / o.Reactors,
		backlog:   o.MaxInboxTotal / o.Reactors,
		owed:      o.MaxOutboxTotal / o.Reactors,
		lap:       ticks(lapMost),
	}
	// A timeout may be late by a quarter.
	for _, t := range []netpoll.Tick{l.handshake, l.message, l.write, l.ping, l.close} {
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

// sweep is a hand that goes round the slots, so that no connection needs a timer
// of its own.
type sweep struct {
	*conns
	out *output
	in  *input

	at     int          // the slot it looked at last
	due    int          // how many slots it has to look at by now
	last   netpoll.Tick // when due was raised
	victim int          // the slot that victims looked at last
	census Census       // of this lap
}

// advance raises what is due, of which each tick has its share. It returns false
// if no tick has passed.
func (s *sweep) advance() bool {
	passed := s.tick - s.last
	if passed <= 0 {
		return false
	}
	s.last = s.tick
	high := s.slots.High()
	share := high
	if passed < s.limits.lap {
		share = (high*int(passed) + int(s.limits.lap) - 1) / int(s.limits.lap)
	}
	s.due = min(s.due+share, high)
	return true
}

// next moves the hand on. It returns the connection there, nil if the slot is
// free, and whether a lap has begun.
func (s *sweep) next() (c *conn, lap bool) {
	s.due--
	if s.at++; s.at >= s.slots.High() {
		s.at, lap = 0, true
	}
	return s.slots.At(s.at), lap
}

// check applies the timeouts of c's state. It returns true if that took system
// calls.
func (s *sweep) check(c *conn) (busy bool) {
	l := &s.limits
	switch c.state {
	case stateProxy, stateTLS:
		if s.after(l.handshake, c.seen) {
			s.mark(c, gone(errTLSTimeout))
			return true
		}
	case stateRequest:
		if s.after(l.handshake, c.seen) {
			s.mark(c, fate{kind: fateReject, cause: rejectTimeout})
			return true
		}
	case stateAsking:
		if s.after(l.handshake, c.seen) {
			s.mark(c, fate{kind: fateReject, cause: rejectSlow()})
			return true
		}
	case stateOpen:
		return s.checkOpen(c)
	case stateClosing, stateRejected, stateLinger:
		if s.after(l.close, c.seen) {
			s.mark(c, gone(ErrCloseTimeout))
			return true
		}
	}
	return false
}

func (s *sweep) checkOpen(c *conn) (busy bool) {
	l := &s.limits
	if x := s.sides.of(c); x != nil {
		if x.inbox != nil && !c.is(flagSlow) && x.end.kind == fateNone && x.inbox.Calls() == 0 {
			x.inbox = nil
			s.sides.drop(c)
		}
	}
	x := s.sides.of(c)
	if x != nil && x.rate != (gate.Rate{}) && x.rate.Rested(s.time) {
		x.rate = gate.Rate{}
		s.sides.drop(c)
		x = s.sides.of(c)
	}
	switch {
	case s.server.expiring.Load() && s.expired(c):
		s.mark(c, fate{kind: fateClose, code: frame.PolicyViolation, cause: ErrExpired})
		return true
	case x != nil && x.owed() > 0 && s.after(l.write, x.moved):
		s.mark(c, gone(ErrWriteTimeout))
		return true
	case c.is(flagUnread): // it is us who do not listen
		c.seen = s.tick
		if x != nil {
			x.began = s.tick
		}
		return false
	case x != nil && (!x.input.Idle() || len(x.cipher) > 0) && s.after(l.message, x.began):
		s.mark(c, fate{kind: fateClose, code: frame.PolicyViolation, cause: ErrMessageTimeout})
		return true
	case s.after(l.idle, c.seen):
		// What has arrived counts, though the reactor has not come to it.
		if s.in.read(c); c.seen != s.tick {
			s.mark(c, fate{kind: fateClose, code: frame.GoingAway, cause: ErrIdle})
		}
		return true
	case s.after(l.ping, c.seen) && !c.is(flagPinged):
		c.flags |= flagPinged
		s.out.sayControl(c, frame.Ping, nil)
		return true
	}
	return false
}

// victims are the connections that have to go because the table is full: those
// whose handshake, or whose last word, takes longest.
func (s *sweep) victims() (victims []*conn) {
	if !s.slots.Full() {
		return nil
	}
	const patience = netpoll.Tick(time.Second / netpoll.TickLength)
	oldest := patience
	for range min(sampleMax, s.slots.High()) {
		s.victim = (s.victim + 1) % s.slots.High()
		c := s.slots.At(s.victim)
		if c == nil || c.state > stateRequest && c.state != stateRejected && c.state != stateLinger {
			continue
		}
		age := s.tick - c.seen
		if age > oldest {
			victims, oldest = victims[:0], age
		}
		if age == oldest && len(victims) < evictMax {
			victims = append(victims, c)
		}
	}
	return victims
}

// errTLSTimeout and errEvicted are causes of ends that no handler hears of.
var errTLSTimeout = errors.New("server: the TLS handshake took too long")

// errEvicted is the cause of an end that no handler hears of.
var errEvicted = errors.New("server: the server is full")
