package server

import (
	"context"
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server/internal/gate"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
)

// calls calls the handler: at once in mode Inline, otherwise on workers, by way
// of the connection's inbox.
type calls struct {
	*conns
	upgrader *frame.Upgrader
	asking   *conn                   // whose request the upgrader looks at
	topics   []string                // that it is to subscribe to
	hand     []*inbox.Inbox[*caller] // have calls that the pool does not know of
	handed   bool                    // inboxes were given to the pool in this turn
}

// origin is what a Request knows about its peer.
type origin struct {
	remote netip.AddrPort
	fd     int // where remote is found when it is asked for, -1 where it is known
	head   int // bytes of the request head
	tls    *tls.ConnectionState
	ctx    context.Context // of ServeHTTP's request, nil otherwise
}

// answer is what a handler's Upgrade leads to, beside the response.
type answer struct {
	tag     uint64
	terms   terms
	expires time.Time   // zero for never
	topics  []string    // to subscribe to
	client  netip.Addr  // that a proxy has told, if any
	ticket  gate.Ticket // of it
	reject  error       // of the handler, or of package frame
	head    int
}

// upgrade answers a request head. It returns asked where a worker asks the
// handler first; answered is called then.
func (k *calls) upgrade(c *conn, head []byte) (response []byte, asked bool, err error) {
	if k.server.pool != nil && k.server.handler.Upgrade != nil {
		k.ask(c, head)
		return nil, true, nil
	}
	k.asking = c
	response, err = k.upgrader.Upgrade(head)
	k.asking = nil
	return response, false, err
}

// decide asks the handler about a well-formed request, for the upgrader.
func (k *calls) decide(head *frame.Request) error {
	c := k.asking
	from := origin{fd: int(c.FD), tls: k.tlsInfo(c)}
	if k.server.admission.trust != nil {
		from.remote, from.fd = k.remote(c), -1
	}
	a := k.server.decide(k.handle(c), head, from)
	k.settled(c, &a)
	k.topics = a.topics
	return a.reject
}

// settled takes note of what the handshake has settled about c.
func (t *conns) settled(c *conn, a *answer) {
	c.tag, c.terms = a.tag, a.terms
	t.expire(c, a.expires)
	if a.client.IsValid() {
		t.setRemote(c, netip.AddrPortFrom(a.client, 0))
		t.setTicket(c, a.ticket)
	}
}

// tlsInfo is what c's TLS handshake has agreed on, nil without one.
func (k *calls) tlsInfo(c *conn) *tls.ConnectionState {
	if x := k.sides.of(c); x != nil {
		return x.tls
	}
	return nil
}

// ask has a worker ask the handler about a request.
func (k *calls) ask(c *conn, head []byte) {
	if !k.server.gate.Ask(len(head)) {
		k.mark(c, fate{kind: fateReject, cause: rejectFull()})
		return
	}
	k.want(c, flagPaused, true)
	b := k.inbox(c)
	k.sides.of(c).asked = true
	b.Owner.request = origin{remote: k.remote(c), fd: -1, head: len(head), tls: k.tlsInfo(c)}
	k.call(b, b.Add(inbox.Upgrade, 0, head))
}

// open calls Handler.Open.
func (k *calls) open(c *conn) {
	switch {
	case c.is(flagDying), k.server.handler.Open == nil:
	case k.server.pool != nil:
		b := k.inbox(c)
		k.call(b, b.Add(inbox.Open, 0, nil))
	default:
		defer k.guard(c)
		k.server.handler.Open(k.handle(c))
	}
}

// message hands a message to the handler, or to its inbox. If the inbox is full
// Options.InboxPolicy says what happens.
func (k *calls) message(c *conn, op frame.Op, data []byte) {
	if c.state != stateOpen {
		return // it crossed our Close frame
	}
	k.counts.MessagesIn++
	switch {
	case k.server.handler.Message == nil && k.server.handler.Deliver == nil:
		return
	case k.server.pool == nil:
		defer k.guard(c)
		k.server.handler.Message(k.handle(c), op, data)
		return
	}
	b, policy := k.inbox(c), k.server.options.InboxPolicy
	if policy != InboxPause && b.Full() {
		if k.counts.MessagesDropped++; policy == InboxClose {
			k.mark(c, fate{kind: fateClose, code: frame.TryAgainLater, cause: ErrInbox})
		}
		return
	}
	k.call(b, b.Add(inbox.Message, byte(op), data))
	if policy == InboxPause && b.Full() && b.Want(inbox.Room) {
		k.counts.ReadPauses++
		k.want(c, flagPaused, true)
	}
}

// backpressure calls Handler.Backpressure.
func (k *calls) backpressure(c *conn, high bool) {
	h := k.server.handler.Backpressure
	if h == nil || c.state != stateOpen || c.is(flagDying) {
		return
	}
	if k.server.pool != nil {
		b := k.inbox(c)
		k.call(b, b.Pressure(high))
		return
	}
	defer k.guard(c)
	h(k.handle(c), high)
}

// close calls Handler.Close. What its handler has not heard of a connection that
// has lost its peer is discarded.
func (k *calls) close(c *conn, code frame.Code, cause error) {
	switch h := k.server.handler.Close; {
	case k.server.pool == nil && h == nil:
	case k.server.pool == nil:
		defer k.guard(c)
		h(k.handle(c), code, cause)
	default:
		if x := k.sides.of(c); h == nil && (x == nil || x.inbox == nil) {
			return
		}
		b := k.inbox(c)
		k.counts.MessagesDiscarded += uint64(b.Discard())
		if h != nil {
			b.Owner.code, b.Owner.cause = code, cause
			k.call(b, b.Add(inbox.Close, 0, nil))
		}
	}
}

// closeStray calls Handler.Close for a connection that Upgrade has accepted and
// that has no slot.
func (k *calls) closeStray(a *adoption, cause error) {
	a.conn.tag = a.tag
	h := k.server.handler.Close
	switch {
	case h == nil:
		k.server.values.forget(a.conn.id)
	case k.server.pool == nil:
		defer func() {
			if p := recover(); p != nil {
				k.server.panicked(p)
			}
			k.server.values.forget(a.conn.id)
		}()
		h(a.conn, frame.Abnormal, cause)
	default:
		b := k.server.pool.NewInbox(&caller{conn: a.conn, code: frame.Abnormal, cause: cause})
		k.call(b, b.Add(inbox.Close, 0, nil))
	}
}

// guard keeps a panic of the handler to its connection.
func (k *calls) guard(c *conn) {
	if p := recover(); p != nil {
		k.server.panicked(p)
		k.mark(c, fate{kind: fateClose, code: frame.InternalError, cause: ErrPanic})
	}
}

// inbox returns c's inbox, and gives it one first if it has none.
func (k *calls) inbox(c *conn) *inbox.Inbox[*caller] {
	x := k.sides.need(c)
	if x.inbox == nil {
		x.inbox = k.server.pool.NewInbox(&caller{conn: k.handle(c)})
	}
	return x.inbox
}

// call lets the pool know of an inbox, at the end of the turn's input, if hand
// is true.
func (k *calls) call(b *inbox.Inbox[*caller], hand bool) {
	if hand {
		k.hand = append(k.hand, b)
	}
}

// handOver gives the pool all inboxes of this turn together.
func (k *calls) handOver() {
	if len(k.hand) > 0 {
		k.server.pool.Hand(k.hand...)
		k.handed = true
		clear(k.hand)
		k.hand = k.hand[:0]
	}
}
