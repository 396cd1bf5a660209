package server

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/fanout"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
)

// How connections end. Whatever finds out that one has to, in reading, writing,
// a policy, a handler or the sweep, marks it and goes on. bury does the rest when
// nobody has the connection in hand any more: it says the last word, tells the
// handler, and closes.

// fate is what shall become of a connection.
type fate struct {
	kind  fateKind
	code  frame.Code
	cause error // nil after a closing handshake; for fateReject, the *Reject

	orderly bool // what it was sent before still goes out
}

// gone is the fate of a connection that is closed without a last word.
func gone(cause error) fate { return fate{kind: fateGone, code: frame.Abnormal, cause: cause} }

type fateKind uint8

const (
	fateNone   fateKind = iota
	fateAnswer          // the peer's Close frame is answered
	fateClose           // a Close frame of ours is the last word
	fateReject          // an HTTP error is the last word
	fateGone            // the socket is closed at once
)

// death is a connection that is marked.
type death struct {
	conn *conn
	fate fate
}

// mark decides what becomes of a connection. The first mark counts; only a
// socket that has failed meanwhile takes the last word away.
func (r *reactor) mark(c *conn, f fate) {
	if c.state == stateEnded {
		return
	}
	if !f.orderly {
		c.flags |= flagMute
	}
	if !c.is(flagDying) {
		c.flags |= flagDying
		r.dying = append(r.dying, death{c, f})
		return
	}
	if f.kind != fateGone {
		return
	}
	if d := r.death(c); d.fate.kind != fateGone {
		d.fate.kind = fateGone
		if d.fate.cause == nil {
			d.fate.code, d.fate.cause = f.code, f.cause
		}
	}
}

// death returns the mark of a dying connection.
func (r *reactor) death(c *conn) *death {
	i := len(r.dying) - 1
	for r.dying[i].conn != c {
		i--
	}
	return &r.dying[i]
}

// finish ends a connection once its handler has heard everything that came
// before, and what it sent has gone out.
func (r *reactor) finish(c *conn, f fate) {
	f.orderly = true
	if x := r.sides.of(c); c.state == stateOpen && x != nil && x.inbox != nil && x.inbox.Want(inbox.Idle) {
		x.end = f
		r.want(c, flagPaused, true)
		return
	}
	r.mark(c, f)
}

// bury ends the connections that are marked. A last word that can not be sent
// marks its connection again.
func (r *reactor) bury() {
	if len(r.dying) == 0 {
		return
	}
	for i := 0; i < len(r.dying); i++ {
		c, f := r.dying[i].conn, r.dying[i].fate
		if c.state == stateEnded {
			continue
		}
		c.flags &^= flagDying | flagMute
		open, closing := c.state == stateOpen, c.state == stateClosing
		if open && f.orderly && f.kind != fateGone {
			r.catchUp(c)
		}
		switch c.state {
		case stateRequest, stateAsking:
			if f.kind == fateReject {
				r.reject(c, f)
			} else {
				r.counts.Aborted++
			}
		case stateOpen, stateClosing:
			r.closed(c, f)
		}
		if open && f.kind != fateGone {
			r.enter(c, stateLinger)
			r.reply = frame.AppendClose(r.reply[:0], f.code, f.reason())
			r.say(c, frame.Close, r.reply)
		}
		// RFC 6455 section 7.1.1: the server closes the TCP connection first,
		// once both Close frames have been sent.
		failed := c.is(flagDying) && r.death(c).fate.kind == fateGone
		if failed || f.kind == fateGone || f.kind == fateAnswer && (closing || r.owed(c) == 0) {
			r.release(c)
		} else {
			r.linger(c, f)
		}
	}
	clear(r.dying)
	r.dying = r.dying[:0]
}

// reason is what a Close frame says to the peer.
func (f fate) reason() string {
	if f.cause == nil {
		return ""
	}
	return f.cause.Error()
}

// enter changes the state of a connection.
func (r *reactor) enter(c *conn, s state) {
	switch before := c.state; {
	case before.admitted() && !s.admitted():
		r.server.gate.Leave()
	case !before.admitted() && s == stateEnded:
		r.server.gate.Readmit() // its handler is not through with it
	}
	c.state = s
	c.seen = r.tick
}

// reject sends an HTTP error.
func (r *reactor) reject(c *conn, f fate) {
	var reject *Reject
	errors.As(f.cause, &reject) // nothing else is a fateReject's cause
	r.counts.Rejected++
	r.server.gate.Reject(reject.Status)
	reason := reject.Reason
	if cause := reject.Unwrap(); cause != nil {
		reason = cause.Error()
	}
	r.warn(c, "handshake rejected", "status", reject.Status, "reason", reason)
	r.say(c, 0, reject.Response())
}

// closed counts why an open connection ends, and tells its handler.
func (r *reactor) closed(c *conn, f fate) {
	r.gauge(c).Close()
	r.notSlow(c)
	counter := r.counts.closed(f.cause)
	*counter++
	if f.cause != nil && counter != &r.counts.ClosedGone {
		r.warn(c, "connection closed", "code", uint16(f.code), "cause", f.cause.Error())
	}
	r.server.endings.add(r.ending(c, f))
	r.tell(c, f.code, f.cause)
}

// tell calls Handler.Close. What its handler has not heard of a connection that
// has lost its peer is discarded.
func (r *reactor) tell(c *conn, code frame.Code, cause error) {
	switch h := r.server.handler.Close; {
	case r.server.pool == nil && h == nil:
	case r.server.pool == nil:
		defer r.guard(c)
		h(r.conn(c), code, cause)
	default:
		if x := r.sides.of(c); h == nil && (x == nil || x.inbox == nil) {
			return
		}
		b := r.inbox(c)
		r.counts.MessagesDiscarded += uint64(b.Discard())
		if h != nil {
			b.Owner.code, b.Owner.cause = code, cause
			r.call(b, b.Add(inbox.Close, 0, nil))
		}
	}
}

// linger waits for the peer to take the last word and to end its side.
func (r *reactor) linger(c *conn, f fate) {
	s := stateLinger
	if f.kind == fateReject {
		s = stateRejected
	}
	if c.state != s {
		r.enter(c, s)
	}
	for _, reason := range []flags{flagPaused, flagThrottled, flagBlocked} {
		r.want(c, reason, false)
	}
	if x := r.sides.of(c); x != nil {
		r.sides.forget(x)
		r.sides.drop(c)
	}
	if r.owed(c) == 0 {
		netpoll.ShutdownWrite(int(c.FD))
	}
}

// release closes the socket. The slot is free when the handler's last call has
// returned, so that whatever waits for handlers is bounded by the slots.
func (r *reactor) release(c *conn) {
	x := r.sides.of(c)
	if owed := r.owed(c); owed > 0 {
		r.owing -= owed
		r.counts.BytesUndelivered += uint64(owed)
		r.account(c, &r.counts.Undelivered, x.box.Sent(owed))
		netpoll.Reset(int(c.FD)) // the kernel need not keep trying either
	} else {
		netpoll.Close(int(c.FD))
	}
	c.FD, c.flags = -1, 0
	r.gauge(c).Close()
	r.enter(c, stateEnded)
	if x == nil {
		r.free(c)
		return
	}
	r.notCongesting(x)
	r.sides.forget(x)
	r.freeIdle(c, x)
}

// freeIdle frees the slot, or waits until its handler's last call has returned.
func (r *reactor) freeIdle(c *conn, x *side) {
	if x.inbox == nil || !x.inbox.Want(inbox.Idle) {
		r.free(c)
	}
}

// free gives up the slot.
func (r *reactor) free(c *conn) {
	r.sides.put(c)
	r.server.gate.Leave()
	r.server.values.forget(r.conn(c).id)
	r.slots.Put(c)
}

// startClose begins the closing handshake from our side (RFC 6455 section
// 7.1.2).
func (r *reactor) startClose(c *conn, code frame.Code, reason string) {
	if c.state != stateOpen || c.is(flagMute) {
		return
	}
	r.catchUp(c)
	r.enter(c, stateClosing)
	r.gauge(c).Close()
	r.reply = frame.AppendClose(r.reply[:0], code, reason)
	r.say(c, frame.Close, r.reply)
	for _, reason := range []flags{flagPaused, flagThrottled, flagBlocked} {
		r.unpause(c, reason) // the peer's answer has to be read
	}
}

// drain asks the next batch of connections to leave, and ends the reactor when
// all have.
func (r *reactor) drain() {
	if r.drained < 0 {
		return
	}
	for n := 0; n < drainBatch && r.drained < r.slots.High(); r.drained++ {
		c := r.slots.At(r.drained)
		if c == nil {
			continue
		}
		switch c.state {
		case stateOpen:
			r.startClose(c, frame.GoingAway, "the server is shutting down")
			n++
		case stateRequest, stateAsking:
			r.mark(c, fate{kind: fateReject, cause: rejectLeaving})
			n++
		}
	}
	r.bury()
	if r.slots.Used() == 0 {
		r.ended = true
	}
}

// end gives up the connections that are left.
func (r *reactor) end() {
	for i := range r.slots.High() {
		if c := r.slots.At(i); c != nil {
			r.mark(c, gone(ErrShutdown))
		}
	}
	r.ended = true
}

// close gives the reactor's resources back.
func (r *reactor) close() {
	defer r.endTurn()
	r.end() // after an error there may be connections left
	r.settle()
	r.mail.Shut()
	letters, _ := r.mail.Open()
	for i := range letters {
		switch o := &letters[i].Value; o.kind {
		case opSend:
			r.counts.MessagesAccepted++
			r.counts.Undelivered++
		case opBroadcast:
			o.message.Passed(fanout.Tally{})
		case opAnswer:
			if c := r.slots.Get(o.token); c != nil {
				r.answered(c, o.answer, nil)
			}
		}
	}
	r.handOver()
	for _, e := range r.log.Drop() {
		e.Passed(e.Tally)
	}
	for i := range r.slots.High() { // whose handlers are not through with them
		if c := r.slots.At(i); c != nil {
			r.server.gate.Leave()
		}
	}
	r.publish()
	r.slots.Close()
	_ = r.poller.Close()
}

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
		ping:      ticks(o.IdleTimeout / 2),
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
	at     int          // the slot it looked at last
	due    int          // how many slots it has to look at by now
	last   netpoll.Tick // when due was raised
	victim int          // the slot that evict looked at last
}

// look goes on with the sweep, which in each tick has its share of the slots to
// look at.
func (r *reactor) look() {
	high := r.slots.High()
	if passed := r.tick - r.sweep.last; passed > 0 {
		r.sweep.last = r.tick
		r.publish()
		r.endCongestion()
		share := high
		if passed < r.limits.lap {
			share = (high*int(passed) + int(r.limits.lap) - 1) / int(r.limits.lap)
		}
		r.sweep.due = min(r.sweep.due+share, high)
	}
	writes := 0
	for n := 0; r.sweep.due > 0 && n < sweepMax && writes < pingsMax; n++ {
		r.sweep.due--
		if r.sweep.at++; r.sweep.at >= high {
			r.sweep.at = 0
			r.publishCensus()
		}
		if c := r.slots.At(r.sweep.at); c != nil {
			if r.check(c) {
				writes++
			}
			r.census.note(r, c)
			r.bury()
		}
	}
}

// check applies the timeouts of c's state. It returns true if that took system
// calls.
func (r *reactor) check(c *conn) (busy bool) {
	l := &r.limits
	switch c.state {
	case stateRequest:
		if r.after(l.handshake, c.seen) {
			r.mark(c, fate{kind: fateReject, cause: rejectTimeout})
			return true
		}
	case stateAsking:
		if r.after(l.handshake, c.seen) {
			r.mark(c, fate{kind: fateReject, cause: rejectSlow})
			return true
		}
	case stateOpen:
		return r.checkOpen(c)
	case stateClosing, stateRejected, stateLinger:
		if r.after(l.close, c.seen) {
			r.mark(c, gone(ErrCloseTimeout))
			return true
		}
	}
	return false
}

// after reports whether a timeout, if there is one, is over since a tick.
func (r *reactor) after(timeout, since netpoll.Tick) bool {
	return timeout > 0 && r.tick-since >= timeout
}

func (r *reactor) checkOpen(c *conn) (busy bool) {
	l := &r.limits
	if x := r.sides.of(c); x != nil {
		if x.inbox != nil && !c.is(flagSlow) && x.end.kind == fateNone && x.inbox.Calls() == 0 {
			x.inbox = nil
			r.sides.drop(c)
		}
	}
	x := r.sides.of(c)
	switch {
	case x != nil && x.box.Bytes() > 0 && r.after(l.write, x.moved):
		r.mark(c, gone(ErrWriteTimeout))
		return true
	case c.is(flagUnread): // it is us who do not listen
		c.seen = r.tick
		if x != nil {
			x.began = r.tick
		}
		return false
	case x != nil && !x.input.Idle() && r.after(l.message, x.began):
		r.mark(c, fate{kind: fateClose, code: frame.PolicyViolation, cause: ErrMessageTimeout})
		return true
	case r.after(l.idle, c.seen):
		// What has arrived counts, though the reactor has not come to it.
		if r.read(c); c.seen != r.tick {
			r.mark(c, fate{kind: fateClose, code: frame.GoingAway, cause: ErrIdle})
		}
		return true
	case r.after(l.ping, c.seen) && !c.is(flagPinged):
		c.flags |= flagPinged
		r.reply = frame.Append(r.reply[:0], frame.Ping, nil)
		r.say(c, frame.Ping, r.reply)
		return true
	}
	return false
}

// evict makes room in a table that is full: connections go whose handshake, or
// whose last word, takes longest.
func (r *reactor) evict() {
	if !r.slots.Full() {
		return
	}
	const patience = netpoll.Tick(time.Second / netpoll.TickLength)
	oldest := patience - 1
	var victims []*conn
	for range min(sampleMax, r.slots.High()) {
		r.sweep.victim = (r.sweep.victim + 1) % r.slots.High()
		c := r.slots.At(r.sweep.victim)
		if c == nil || c.state != stateRequest && c.state != stateRejected && c.state != stateLinger {
			continue
		}
		age := r.tick - c.seen
		if age > oldest {
			victims, oldest = victims[:0], age
		}
		if age == oldest && len(victims) < evictMax && age >= patience {
			victims = append(victims, c)
		}
	}
	for _, c := range victims {
		r.counts.Evicted++
		r.mark(c, gone(errEvicted))
	}
	r.bury()
	r.public.used.Store(int64(r.slots.Used()))
}

// errEvicted is the cause of an end that no handler hears of.
var errEvicted = errors.New("server: the server is full")

// warn logs something about c and its peer.
func (r *reactor) warn(c *conn, msg string, args ...any) {
	r.server.journal.add(slog.LevelWarn, msg, append(args,
		"conn", fmt.Sprintf("%#x", r.conn(c).id), "remote", netpoll.RemoteAddr(int(c.FD)).String())...)
}
