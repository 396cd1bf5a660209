package server

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/deflate"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/gate"
	"github.com/seed-134acfd0/lull/server/internal/proxy"
)

// input receives. It goes this way: read → parse → handshake or frames → the
// handler, by calls.
type input struct {
	*conns
	out   *output
	calls *calls
	mail  *netpoll.Mailbox[op] // of the reactor; looked at, not opened
	door  *door
	rate  gate.RateLimit // constant

	parser    *frame.Parser
	deflated  *frame.Parser // of connections that have agreed to permessage-deflate
	inflater  deflate.Inflater
	inflated  int             // bytes that it has made in this turn
	again     []netpoll.Token // have input that was read and not handled
	throttled []netpoll.Token // have flagThrottled
	curbs     curbs           // have flagCurbed
	ping      []byte          // the payload of the last Ping of a read
	stream    frame.Stream    // of connections that have no side
}

// read reads from c once. A peer that has sent more is ready again in the next
// turn, behind the others.
func (in *input) read(c *conn) {
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
		in.mark(c, gone(err))
		return
	case c.state == stateOpen && in.gauge(c).Load().Exceeds(in.server.high):
		in.block(c)
		return
	}
	x := in.sides.of(c)
	if x != nil && (x.whole || c.speaks() && (x.ended || x.input.Rest() > frame.MaxPending)) {
		return // more is left of an earlier read than one turn may handle: resume goes on
	}
	if x != nil && x.input.Idle() && len(x.cipher) == 0 {
		x.began = in.tick // of whatever comes now
	}
	kept, size, encrypted := 0, len(in.buf), c.state == stateTLS || c.is(flagTLS)
	switch {
	case in.sides.held[accountBacklog] > in.limits.backlog:
		size = readSmall
	case x != nil && x.inbox != nil && x.inbox.Calls() > 0:
		size = min(size, readBehind)
	}
	switch {
	case x != nil && x.handshake != nil:
		if size = min(size, x.handshake.Room()); size == 0 {
			in.want(c, flagPaused, true) // until it has taken some of what it has
			return
		}
	case x != nil && encrypted:
		kept = copy(in.buf, x.cipher)
	case x != nil:
		kept = x.input.Take(in.buf)
	}
	n, err := netpoll.Read(int(c.FD), in.buf[kept:min(kept+size, len(in.buf))])
	switch {
	case err == io.EOF && c.state == stateTLS && in.feedEOF(c):
		return
	case err == io.EOF && (c.state == stateLinger || c.state == stateRejected) && in.owed(c) > 0:
		in.want(c, flagPaused, true) // it may still take the rest
		return
	case err == io.EOF && (c.state == stateOpen || c.state == stateClosing):
		in.finish(c, gone(io.EOF))
		return
	case err != nil:
		in.mark(c, gone(err))
		return
	case n > 0 && c.state == stateOpen:
		c.seen = in.tick
		c.flags &^= flagPinged
	}
	in.counts.BytesIn += uint64(n)
	data, open := in.buf[:kept+n], c.state == stateOpen
	switch {
	case c.state == stateProxy:
		in.proxyHead(c, data)
	case !encrypted:
		in.parse(c, data)
	case n == 0:
	case c.state == stateTLS:
		in.feed(c, data)
	default:
		in.openRecords(c, data)
	}
	if open {
		in.charge(c, 0, n)
	}
}

// parse handles input of c, which belongs to buf, and keeps what the next read
// needs.
func (in *input) parse(c *conn, data []byte) {
	if c.state == stateRequest {
		data = in.handshake(c, data)
	}
	if c.speaks() {
		data = in.frames(c, data)
	}
	switch c.state {
	case stateRejected, stateLinger, stateEnded: // input is thrown away
	default:
		in.keep(c, data)
	}
}

// keep stores the rest of a read, and the beginning of a message.
func (in *input) keep(c *conn, rest []byte) {
	x := in.sides.of(c)
	switch {
	case !in.stream.Idle(): // c had no side when its frames began
		x = in.sides.need(c)
		x.input, in.stream = in.stream, x.input
		x.began = in.tick
	case x == nil && len(rest) == 0:
		return
	case x == nil:
		x = in.sides.need(c)
		x.began = in.tick
	}
	x.input.Keep(rest)
	in.settleInput(c, x)
}

// admit asks whether c's address may come in, before its request is read.
func (in *input) admit(c *conn) {
	var from netip.Addr
	if in.server.admission.counts() {
		from = in.remote(c).Addr() // a system call
	}
	ticket, refused := in.server.admission.enter(from, in.began)
	if refused != nil {
		in.mark(c, fate{kind: fateReject, cause: refused})
		return
	}
	in.setTicket(c, ticket)
}

// proxyHead takes the address of c's client from its proxy's head, and goes on
// behind it.
func (in *input) proxyHead(c *conn, data []byte) {
	head, n, err := proxy.ParseHead(data)
	switch {
	case err != nil:
		in.server.admission.refuse(gate.Verdict{Reason: gate.ProxyHead})
		in.warn(c, "connection refused", "reason", err.Error())
		in.mark(c, gone(err))
		return
	case n == 0:
		in.keep(c, data)
		return
	}
	if head.Source.IsValid() {
		in.setRemote(c, head.Source)
	}
	seen := c.seen
	in.begin(c)
	c.seen = seen // HandshakeTimeout is for all of it
	if in.server.admission.asked() && !in.server.admission.named(in.remote(c).Addr()) {
		in.admit(c)
	}
	switch rest := data[n:]; {
	case c.is(flagDying):
	case c.state == stateTLS && len(rest) > 0:
		in.feed(c, rest)
	case c.state != stateTLS:
		in.parse(c, rest)
	}
}

// settleInput counts what is held of c's input. Where that exceeds its bounds, the
// connection that holds most ends.
func (in *input) settleInput(c *conn, x *side) {
	in.sides.weigh(x)
	switch held := in.sides.held[x.account]; {
	case x.idle():
		in.sides.drop(c)
	case x.account == accountRequest && held > in.limits.requests:
		in.mark(in.sides.heaviest(accountRequest, c), fate{kind: fateReject, cause: rejectFull()})
	case x.account == accountPartial && held > in.limits.partial:
		in.mark(in.sides.heaviest(accountPartial, c), fate{kind: fateClose, code: frame.TryAgainLater, cause: ErrPartial})
	}
}

// frames handles the frames in data and returns what is left.
func (in *input) frames(c *conn, data []byte) (rest []byte) {
	s, x := &in.stream, in.sides.of(c)
	if x != nil {
		s = &x.input
	}
	parser := in.parser
	if c.terms.window() != 0 {
		parser = in.deflated
	}
	pinged, more := false, true
	if x != nil && x.pinged {
		in.ping, pinged = append(in.ping[:0], x.ping...), true
		x.ping, x.pinged = nil, false
	}
	for n := 0; n < framesMax && len(data) > 0 && c.speaks() && !c.is(flagUnread); n++ {
		if c.state == stateOpen && in.full() && !parser.Ahead(s, data).Control() {
			in.throttle(c)
			break
		}
		ev, used, err := parser.Message(s, data)
		if err == nil && ev.Deflated && c.state == stateOpen {
			ev.Payload, err = in.inflate(ev)
		}
		if err != nil {
			var breach *frame.Error
			errors.As(err, &breach) // a Parser and an Inflater report nothing else
			in.finish(c, fate{kind: fateClose, code: breach.Code, cause: breach})
			data = nil
			break
		}
		if used == 0 {
			more = false
			break
		}
		data = data[used:]
		if ev.Head && !in.charge(c, 1, 0) {
			data = nil
			break
		}
		if x != nil && ev.Op != 0 && !s.Open() {
			x.began = in.tick // of whatever comes next
		}
		switch ev.Op {
		case 0, frame.Pong:
		case frame.Ping:
			// RFC 6455 section 5.5.3: of several Pings only the last need be
			// answered.
			in.ping, pinged = append(in.ping[:0], ev.Payload...), true
		case frame.Close:
			code, _ := frame.ParseClose(ev.Payload)
			in.finish(c, fate{kind: fateAnswer, code: code, chatty: len(data) > 0})
			data = nil
		default:
			in.calls.message(c, ev.Op, ev.Payload)
			if in.mustSettle(c) || ev.Deflated && in.inflated >= inflatedMax {
				n = framesMax // the rest waits for the next turn
			}
		}
	}
	left := more && len(data) > 0 && c.speaks() && !c.is(flagUnread)
	if left {
		in.later(c)
	}
	switch {
	case !pinged || c.state != stateOpen: // after our Close frame no Pong may be sent (section 5.5.1)
	case left:
		x = in.sides.need(c)
		x.ping, x.pinged = append(x.ping[:0], in.ping...), true
	default:
		in.out.sayControl(c, frame.Pong, in.ping)
	}
	return data
}

// inflate returns what a compressed message holds, until the next call.
func (in *input) inflate(ev frame.Event) (data []byte, err error) {
	data, err = in.inflater.Message(ev.Op, ev.Payload, int(in.server.options.MaxMessage))
	in.inflated += len(data)
	in.counts.BytesToInflate += uint64(len(ev.Payload))
	in.counts.BytesInflated += uint64(len(data))
	return data, err
}

// full reports whether no more messages may be taken from anybody.
func (in *input) full() bool {
	if p := in.server.pool; p != nil {
		return p.Full()
	}
	return in.server.throttle.Full()
}

// mustSettle reports whether what the handler has sent and broadcast has to go
// out before it is called again: c has published and publishers have to wait, or
// c's gauge is above the high watermark, perhaps only because its messages are
// still in the mailbox.
func (in *input) mustSettle(c *conn) bool {
	if in.server.pool != nil {
		return false
	}
	return in.gauge(c).Load().Exceeds(in.server.high) || in.mail.Called() && in.server.throttle.Crowded()
}

// changed goes on with a connection whose inbox has room, or is empty. The sweep
// may have taken its side meanwhile.
func (in *input) changed(c *conn) {
	if x := in.sides.of(c); x != nil && x.end.kind != fateNone {
		in.finish(c, x.end)
		return
	}
	in.unpause(c, flagPaused)
}

// unpause ends a reason not to read from c. What was read already is handled
// first.
func (in *input) unpause(c *conn, reason flags) {
	if !c.is(reason) {
		return
	}
	in.want(c, reason, false)
	if !c.is(flagUnread) {
		in.later(c)
	}
}

// later has resume go on with c, in this turn or the next.
func (in *input) later(c *conn) {
	token := in.slots.Token(c)
	if n := len(in.again); n == 0 || in.again[n-1] != token {
		in.again = append(in.again, token)
	}
}

// throttle stops reading from c until there is room for what it, or others, have
// published or sent to their handlers.
func (in *input) throttle(c *conn) {
	if c.is(flagThrottled | flagDying) {
		return
	}
	in.counts.Throttled++
	in.want(c, flagThrottled, true)
	in.throttled = append(in.throttled, in.slots.Token(c))
	if !in.awaitRoom() {
		_ = in.mail.Force(op{kind: opRoom}, nil) // there is room already
	}
}

// awaitRoom has opRoom posted when there is room. It returns false if there is.
func (in *input) awaitRoom() bool {
	pool := in.server.pool != nil && in.server.pool.AwaitRoom()
	return in.server.throttle.AwaitRoom() || pool
}

// unthrottle goes on with the connections that are throttled, those first that
// have waited longest. Those for which there is no room are throttled again.
func (in *input) unthrottle() {
	waiting := in.throttled
	in.throttled = nil
	for _, t := range waiting {
		if c := in.slots.Get(t); c != nil {
			in.unpause(c, flagThrottled)
		}
	}
}

// block stops reading from c until its peer has taken what it is owed, down to
// the low watermark: a peer that does not take the answers to its messages sends
// no more.
func (in *input) block(c *conn) {
	if in.gauge(c).Await(in.server.low) {
		in.counts.ReadBlocks++
		in.want(c, flagBlocked, true)
	}
}

// eased goes on with a connection whose peer has taken enough.
func (in *input) eased(c *conn) {
	if x := in.sides.of(c); x != nil && x.inbox != nil {
		x.inbox.Unpark()
	}
	in.unpause(c, flagBlocked)
}

// resume handles input of c that was read in an earlier turn, or in this one
// beyond its budget.
func (in *input) resume(c *conn) {
	x := in.sides.of(c)
	switch {
	case x == nil || c.is(flagDying):
	case x.whole:
		records := x.cipher
		x.cipher, x.whole = nil, false
		in.openRecords(c, records)
	case c.is(flagUnread) || !c.speaks():
	case c.state == stateOpen && in.gauge(c).Load().Exceeds(in.server.high):
		in.block(c)
	default:
		data := x.input.Pending()
		used := len(data) - len(in.frames(c, data))
		x.input.Skip(used)
		switch {
		case !x.ended || c.is(flagUnread):
		case used == 0:
			in.finish(c, gone(io.EOF))
		default:
			in.later(c)
		}
		in.settleInput(c, x)
	}
}

// What a server rejects for reasons of its own.
var rejectTimeout = &Reject{Status: http.StatusRequestTimeout, Reason: "the request head did not arrive in time"}

func rejectFull() *Reject { return unavailable("the server is full") }
func rejectSlow() *Reject { return unavailable("the server did not decide in time") }

// unavailable tells each to come back at another time.
func unavailable(reason string) *Reject {
	return &Reject{Status: http.StatusServiceUnavailable, Reason: reason, Header: retryAfter(5 * time.Second)}
}

// handshake answers a request once its head is there, or has a worker ask the
// handler. It returns the bytes that are left: the incomplete head, or the frames
// behind it.
func (in *input) handshake(c *conn, data []byte) (rest []byte) {
	refuse := func(cause error) {
		in.mark(c, fate{kind: fateReject, cause: cause, bare: frame.IsHEAD(data)})
	}
	n, err := frame.HeadLen(data)
	switch {
	case err != nil:
		refuse(err)
		return nil
	case n == 0:
		return data
	case in.server.httpd != nil && !frame.WantsWebSocket(data[:n]):
		in.visit(c, data)
		return nil
	case in.server.leaving.shut.Load():
		refuse(in.server.rejectLeaving())
		return nil
	// Nothing may fail once the handler has accepted, so that comes first.
	case !in.poll(c):
		return nil
	case !in.server.gate.Enter():
		refuse(rejectFull())
		return nil
	}
	in.enter(c, stateAsking)
	response, asked, err := in.calls.upgrade(c, data[:n])
	switch {
	case asked:
	case err != nil:
		refuse(err)
		return nil
	default:
		in.open(c, response, in.calls.topics)
	}
	return data[n:]
}

// open sends the response that opens a connection, and has it subscribe to topics.
func (in *input) open(c *conn, response []byte, topics []string) {
	in.enter(c, stateOpen)
	c.heard = in.out.log.End()
	in.counts.Opened++
	if c.terms.window() != 0 {
		in.counts.Compressed++
		in.server.compress.peers.Add(1)
	}
	in.out.subscribeTo(c, topics) // it may count on them when it has the response
	in.out.say(c, 0, response)
	if x := in.sides.of(c); x != nil && x.tls != nil {
		x.tls = nil
		in.sides.drop(c)
	}
	in.calls.open(c)
}

// answered goes on with a handshake as the handler has decided. Where the handler
// has accepted a connection that has gone meanwhile, it is told of the end.
func (in *input) answered(c *conn, a *answer, response []byte) {
	in.server.gate.Asked(a.head)
	in.sides.of(c).asked = false
	if c.state != stateAsking {
		in.server.admission.leave(a.ticket)
		a.client = netip.Addr{}
	}
	in.settled(c, a)
	switch {
	case c.state != stateAsking || c.is(flagDying):
		if a.reject == nil {
			in.calls.close(c, frame.Abnormal, io.EOF)
		}
	case a.reject != nil:
		in.unpause(c, flagPaused)
		in.mark(c, fate{kind: fateReject, cause: a.reject})
	default:
		in.unpause(c, flagPaused)
		in.open(c, response, a.topics)
	}
}
