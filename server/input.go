package server

import (
	"errors"
	"io"
	"net/http"
	"net/netip"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
)

// Input goes this way: read → parse → handshake or frames → message → the
// handler, or its inbox.

// read reads from c once. A peer that has sent more is ready again in the next
// turn, behind the others.
func (r *reactor) read(c *conn) {
	switch {
	case c.is(flagDying):
		return
	case c.is(flagUnread):
		// Nothing is polled for but errors: the peer has reset the connection,
		// or both sides have ended it.
		err := netpoll.SocketError(int(c.FD))
		if err == nil {
			err = io.EOF
		}
		r.mark(c, gone(err))
		return
	case c.state == stateOpen && r.gauge(c).Load().Exceeds(r.server.high):
		r.block(c)
		return
	}
	x := r.sides.of(c)
	if x != nil && c.speaks() && x.input.Rest() > frame.MaxPending {
		return // more is left of an earlier read than one turn may handle: resume goes on
	}
	kept, size := 0, len(r.buf)
	if r.sides.held[accountBacklog] > r.limits.backlog {
		size = readSmall
	}
	if x != nil {
		kept = x.input.Take(r.buf)
	}
	n, err := netpoll.Read(int(c.FD), r.buf[kept:min(kept+size, len(r.buf))])
	switch {
	case err == io.EOF && (c.state == stateOpen || c.state == stateClosing):
		r.finish(c, gone(io.EOF))
		return
	case err != nil:
		r.mark(c, gone(err))
		return
	case n > 0 && c.state == stateOpen:
		c.seen = r.tick
		c.flags &^= flagPinged
	}
	r.counts.BytesIn += uint64(n)
	r.parse(c, r.buf[:kept+n])
}

// parse handles input of c, which belongs to r.buf, and keeps what the next read
// needs.
func (r *reactor) parse(c *conn, in []byte) {
	if c.state == stateRequest {
		in = r.handshake(c, in)
	}
	if c.speaks() {
		in = r.frames(c, in)
	}
	switch c.state {
	case stateRejected, stateLinger, stateEnded: // input is thrown away
	default:
		r.keep(c, in)
	}
}

// keep stores the rest of a read, and the beginning of a message.
func (r *reactor) keep(c *conn, rest []byte) {
	x := r.sides.of(c)
	switch {
	case !r.stream.Idle(): // c had no side when its frames began
		x = r.sides.need(c)
		x.input, r.stream = r.stream, x.input
		x.began = r.tick
	case x == nil && len(rest) == 0:
		return
	case x == nil:
		x = r.sides.need(c)
		x.began = r.tick
	}
	x.input.Keep(rest)
	r.settleInput(c, x)
}

// settleInput counts what is held of c's input. Where that exceeds its bounds, the
// connection that holds most ends.
func (r *reactor) settleInput(c *conn, x *side) {
	r.sides.weigh(x)
	switch held := r.sides.held[x.account]; {
	case x.idle():
		r.sides.drop(c)
	case x.account == accountRequest && held > r.limits.requests:
		r.mark(r.sides.heaviest(accountRequest, c), fate{kind: fateReject, cause: rejectFull})
	case x.account == accountPartial && held > r.limits.partial:
		r.mark(r.sides.heaviest(accountPartial, c), fate{kind: fateClose, code: frame.TryAgainLater, cause: ErrPartial})
	}
}

// frames handles the frames in in and returns what is left.
func (r *reactor) frames(c *conn, in []byte) (rest []byte) {
	s, x := &r.stream, r.sides.of(c)
	if x != nil {
		s = &x.input
	}
	pinged, more := false, true
	if x != nil && x.pinged {
		r.ping, pinged = append(r.ping[:0], x.ping...), true
		x.ping, x.pinged = nil, false
	}
	for n := 0; n < framesMax && len(in) > 0 && c.speaks() && !c.is(flagUnread); n++ {
		if c.state == stateOpen && r.full() && !r.parser.Ahead(s, in).Control() {
			r.throttle(c)
			break
		}
		ev, used, err := r.parser.Message(s, in)
		if err != nil {
			var breach *frame.Error
			errors.As(err, &breach) // a Parser reports nothing else
			r.finish(c, fate{kind: fateClose, code: breach.Code, cause: breach})
			in = nil
			break
		}
		if used == 0 {
			more = false
			break
		}
		in = in[used:]
		if x != nil && ev.Op != 0 && !s.Open() {
			x.began = r.tick // of whatever comes next
		}
		switch ev.Op {
		case 0, frame.Pong:
		case frame.Ping:
			// RFC 6455 section 5.5.3: of several Pings only the last need be
			// answered.
			r.ping, pinged = append(r.ping[:0], ev.Payload...), true
		case frame.Close:
			code, _ := frame.ParseClose(ev.Payload)
			r.finish(c, fate{kind: fateAnswer, code: code})
			in = nil
		default:
			if r.message(c, ev.Op, ev.Payload); r.mustSettle(c) {
				n = framesMax
			}
		}
	}
	left := more && len(in) > 0 && c.speaks() && !c.is(flagUnread)
	if left {
		r.again = append(r.again, r.slots.Token(c))
	}
	switch {
	case !pinged || c.state != stateOpen: // after our Close frame no Pong may be sent (section 5.5.1)
	case left:
		x = r.sides.need(c)
		x.ping, x.pinged = append(x.ping[:0], r.ping...), true
	default:
		r.reply = frame.Append(r.reply[:0], frame.Pong, r.ping)
		r.say(c, frame.Pong, r.reply)
	}
	return in
}

// full reports whether no more messages may be taken from anybody.
func (r *reactor) full() bool {
	if p := r.server.pool; p != nil {
		return p.Full()
	}
	return r.server.throttle.Full()
}

// mustSettle reports whether what the handler has sent and broadcast has to go
// out before it is called again: c has published and publishers have to wait, or
// c's gauge is above the high watermark, perhaps only because its messages are
// still in the mailbox.
func (r *reactor) mustSettle(c *conn) bool {
	if r.server.pool != nil {
		return false
	}
	return r.gauge(c).Load().Exceeds(r.server.high) || r.mail.Called() && r.server.throttle.Crowded()
}

// message hands a message to the handler, or to its inbox. If the inbox is full
// Options.InboxPolicy says what happens.
func (r *reactor) message(c *conn, op frame.Op, data []byte) {
	if c.state != stateOpen {
		return // it crossed our Close frame
	}
	r.counts.MessagesIn++
	switch {
	case r.server.handler.Message == nil:
		return
	case r.server.pool == nil:
		defer r.guard(c)
		r.server.handler.Message(r.conn(c), op, data)
		return
	}
	b, policy := r.inbox(c), r.server.options.InboxPolicy
	if policy != InboxPause && b.Full() {
		if r.counts.MessagesDropped++; policy == InboxClose {
			r.mark(c, fate{kind: fateClose, code: frame.TryAgainLater, cause: ErrInbox})
		}
		return
	}
	r.call(b, b.Add(inbox.Message, byte(op), data))
	if policy == InboxPause && b.Full() && b.Want(inbox.Room) {
		r.counts.ReadPauses++
		r.want(c, flagPaused, true)
	}
}

// guard keeps a panic of the handler to its connection.
func (r *reactor) guard(c *conn) {
	if p := recover(); p != nil {
		r.server.panicked(p)
		r.mark(c, fate{kind: fateClose, code: frame.InternalError, cause: ErrPanic})
	}
}

// inbox returns c's inbox, and gives it one first if it has none.
func (r *reactor) inbox(c *conn) *inbox.Inbox[*caller] {
	x := r.sides.need(c)
	if x.inbox == nil {
		x.inbox = r.server.pool.NewInbox(&caller{conn: r.conn(c)})
	}
	return x.inbox
}

// call lets the pool know of an inbox, at the end of the turn's input, if hand
// is true.
func (r *reactor) call(b *inbox.Inbox[*caller], hand bool) {
	if hand {
		r.hand = append(r.hand, b)
	}
}

// handOver gives the pool all inboxes of this turn together.
func (r *reactor) handOver() {
	if len(r.hand) > 0 {
		r.server.pool.Hand(r.hand...)
		r.handed = true
		clear(r.hand)
		r.hand = r.hand[:0]
	}
}

// changed goes on with a connection whose inbox has room, or is empty.
func (r *reactor) changed(c *conn) {
	x := r.sides.of(c)
	switch {
	case x == nil:
	case c.state == stateEnded:
		r.freeIdle(c, x)
	case x.end.kind != fateNone:
		r.finish(c, x.end)
	default:
		r.unpause(c, flagPaused)
	}
}

// unpause ends a reason not to read from c. What was read already is handled
// first.
func (r *reactor) unpause(c *conn, reason flags) {
	if !c.is(reason) {
		return
	}
	r.want(c, reason, false)
	if !c.is(flagUnread) {
		r.again = append(r.again, r.slots.Token(c))
	}
}

// throttle stops reading from c until there is room for what it, or others, have
// published or sent to their handlers.
func (r *reactor) throttle(c *conn) {
	if c.is(flagThrottled | flagDying) {
		return
	}
	r.counts.Throttled++
	r.want(c, flagThrottled, true)
	r.throttled = append(r.throttled, r.slots.Token(c))
	if !r.awaitRoom() {
		_ = r.mail.Force(op{kind: opRoom}, nil) // there is room already
	}
}

// awaitRoom has opRoom posted when there is room. It returns false if there is.
func (r *reactor) awaitRoom() bool {
	pool := r.server.pool != nil && r.server.pool.AwaitRoom()
	return r.server.throttle.AwaitRoom() || pool
}

// unthrottle goes on with the connections that are throttled, those first that
// have waited longest. Those for which there is no room are throttled again.
func (r *reactor) unthrottle() {
	waiting := r.throttled
	r.throttled = nil
	for _, t := range waiting {
		if c := r.slots.Get(t); c != nil {
			r.unpause(c, flagThrottled)
		}
	}
}

// block stops reading from c until its peer has taken what it is owed, down to
// the low watermark: a peer that does not take the answers to its messages sends
// no more.
func (r *reactor) block(c *conn) {
	if r.gauge(c).Await(r.server.low) {
		r.counts.ReadBlocks++
		r.want(c, flagBlocked, true)
	}
}

// eased goes on with a connection whose peer has taken enough.
func (r *reactor) eased(c *conn) {
	if x := r.sides.of(c); x != nil && x.inbox != nil {
		x.inbox.Unpark()
	}
	r.unpause(c, flagBlocked)
}

// resume handles input that was read in earlier turns, or in this one beyond a
// connection's budget.
func (r *reactor) resume() {
	ready := r.again
	r.again = nil
	for _, t := range ready {
		c := r.slots.Get(t)
		if c == nil || c.is(flagUnread) || c.side == 0 || !c.speaks() {
			continue
		}
		if c.state == stateOpen && r.gauge(c).Load().Exceeds(r.server.high) {
			r.block(c)
		} else {
			x := r.sides.of(c)
			in := x.input.Pending()
			x.input.Skip(len(in) - len(r.frames(c, in)))
			r.settleInput(c, x)
		}
		r.settle()
	}
	if r.again == nil {
		r.again = ready[:0]
	}
}

// What a server rejects for reasons of its own.
var (
	rejectFull    = unavailable("the server is full")
	rejectLeaving = unavailable("the server is shutting down")
	rejectSlow    = unavailable("the server did not decide in time")
	rejectTimeout = &Reject{Status: http.StatusRequestTimeout, Reason: "the request head did not arrive in time"}
)

func unavailable(reason string) *Reject {
	return &Reject{Status: http.StatusServiceUnavailable, Reason: reason, Header: http.Header{"Retry-After": {"5"}}}
}

// handshake answers a request once its head is there, or has a worker ask the
// handler. It returns the bytes that are left: the incomplete head, or the frames
// behind it.
func (r *reactor) handshake(c *conn, in []byte) (rest []byte) {
	n, err := frame.HeadLen(in)
	switch {
	case err != nil:
		r.mark(c, fate{kind: fateReject, cause: err})
		return nil
	case n == 0:
		return in
	// Nothing may fail once the handler has accepted, so that comes first.
	case !r.poll(c):
		return nil
	case !r.server.gate.Enter():
		r.mark(c, fate{kind: fateReject, cause: rejectFull})
		return nil
	}
	r.enter(c, stateAsking)
	if r.server.pool != nil && r.server.handler.Upgrade != nil {
		r.ask(c, in[:n])
		return in[n:]
	}
	r.asking = c
	response, err := r.upgrader.Upgrade(in[:n])
	r.asking = nil
	if err != nil {
		r.mark(c, fate{kind: fateReject, cause: err})
		return nil
	}
	r.open(c, response)
	return in[n:]
}

// open sends the response that opens a connection.
func (r *reactor) open(c *conn, response []byte) {
	r.enter(c, stateOpen)
	c.heard = r.log.End()
	r.counts.Opened++
	r.say(c, 0, response)
	switch {
	case c.is(flagDying), r.server.handler.Open == nil:
	case r.server.pool != nil:
		b := r.inbox(c)
		r.call(b, b.Add(inbox.Open, 0, nil))
	default:
		defer r.guard(c)
		r.server.handler.Open(r.conn(c))
	}
}

// origin is what a Request knows about its peer.
type origin struct {
	remote netip.AddrPort
	fd     int // where remote is found when it is asked for, -1 where it is known
	head   int // bytes of the request head
}

// decide asks the handler about a well-formed request.
func (r *reactor) decide(head *frame.Request) error {
	c := r.asking
	a := r.server.decide(r.conn(c), head, origin{fd: int(c.FD)})
	c.tag, c.policy = a.tag, a.policy
	return a.reject
}

// answer is what a handler's Upgrade leads to, beside the response.
type answer struct {
	tag    uint64
	policy OutboxPolicy
	reject error // of the handler, or of package frame
	head   int
}

// ask has a worker ask the handler about a request.
func (r *reactor) ask(c *conn, head []byte) {
	if !r.server.gate.Ask(len(head)) {
		r.mark(c, fate{kind: fateReject, cause: rejectFull})
		return
	}
	r.want(c, flagPaused, true)
	b := r.inbox(c)
	b.Owner.request = origin{remote: netpoll.RemoteAddr(int(c.FD)), fd: -1, head: len(head)}
	r.call(b, b.Add(inbox.Upgrade, 0, head))
}

// answered goes on with a handshake as the handler has decided. Where the handler
// has accepted a connection that has gone meanwhile, it is told of the end.
func (r *reactor) answered(c *conn, a *answer, response []byte) {
	r.server.gate.Asked(a.head)
	c.tag, c.policy = a.tag, a.policy
	switch {
	case c.state != stateAsking || c.is(flagDying):
		if a.reject == nil {
			r.tell(c, frame.Abnormal, io.EOF)
		}
	case a.reject != nil:
		r.unpause(c, flagPaused)
		r.mark(c, fate{kind: fateReject, cause: a.reject})
	default:
		r.unpause(c, flagPaused)
		r.open(c, response)
	}
}
