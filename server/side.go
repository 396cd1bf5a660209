package server

import (
	"crypto/tls"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/record"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/gate"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
	"github.com/seed-134acfd0/lull/server/internal/outbox"
)

// side is what a connection needs only at times: while something is incomplete,
// while its peer is slow, or while its handler has calls waiting.
type side struct {
	conn *conn // whose it is

	input   frame.Stream
	ended   bool         // the peer has said, within TLS, that input is all there is
	began   netpoll.Tick // when the incomplete message, or the request head, began
	ping    []byte       // the payload of a Ping that is answered when the rest of its read was handled
	pinged  bool         // there is one
	account account      // where held is counted
	held    int          // bytes of input's buffers, as counted

	box        outbox.Box
	since      netpoll.Tick // when the box was last empty
	moved      netpoll.Tick // when the socket last took something of it
	congesting bool         // is counted as congested

	handshake *record.Handshake    // of TLS, while it is under way
	tls       *tls.ConnectionState // what it has agreed on, until the request is answered
	cipher    []byte               // the beginning of a record
	whole     bool                 // there are whole records in cipher, for resume
	sealed    []byte               // records that the socket did not take

	rate  gate.Rate             // how fast it has sent lately; zero if that matters no more
	inbox *inbox.Inbox[*caller] // nil until the handler is called on a worker
	asked bool                  // the answer of the handler's Upgrade has not come
	end   fate                  // what happens when the inbox is empty
}

// account says why input is held.
type account uint8

const (
	accountPartial account = iota // a message is incomplete
	accountRequest                // a request head is
	accountBacklog                // it was read and must wait: the connection is paused
	accounts
)

// reset makes x ready for another connection.
func (x *side) reset() {
	input := x.input
	input.Reset()
	*x = side{input: input}
}

// idle reports whether nothing of x is needed.
func (x *side) idle() bool {
	return x.input.Idle() && x.owed() == 0 && x.inbox == nil && len(x.cipher) == 0 && x.handshake == nil && x.tls == nil &&
		!x.ended && x.rate == (gate.Rate{})
}

// owed is how many bytes the socket has not taken.
func (x *side) owed() int { return x.box.Bytes() + len(x.sealed) }

// sides are the sides of a reactor's connections, and what their input holds.
type sides struct {
	pool *netpoll.Pool[side]
	held [accounts]int // bytes of input
}

func newSides() sides { return sides{pool: netpoll.NewPool((*side).reset)} }

// of returns c's side, nil if it has none.
func (s *sides) of(c *conn) *side { return s.pool.At(c.side) }

// need returns c's side, and gives it one first if it has none.
func (s *sides) need(c *conn) *side {
	if c.side == 0 {
		c.side = s.pool.Take()
		s.of(c).conn = c
	}
	return s.of(c)
}

// drop takes c's side away if nothing of it is needed.
func (s *sides) drop(c *conn) {
	if x := s.of(c); x != nil && x.idle() {
		s.put(c)
	}
}

// put takes c's side away.
func (s *sides) put(c *conn) {
	if x := s.of(c); x != nil {
		s.held[x.account] -= x.held
		s.pool.Put(c.side)
		c.side = 0
	}
}

// weigh counts what x holds of its connection's input.
func (s *sides) weigh(x *side) {
	s.held[x.account] -= x.held
	switch {
	case x.conn.state == stateProxy, x.conn.state == stateTLS, x.conn.state == stateRequest:
		x.account = accountRequest
	case x.conn.is(flagUnread), !x.input.Open():
		x.account = accountBacklog
	default:
		x.account = accountPartial
	}
	x.held = x.input.Held() + cap(x.cipher)
	s.held[x.account] += x.held
}

// forget gives up what x holds of its connection's input, and its rate.
func (s *sides) forget(x *side) {
	x.input.Reset()
	x.cipher, x.whole, x.ended = nil, false, false
	x.rate = gate.Rate{}
	s.weigh(x)
}

// heaviest finds the connection that holds most in an account, among the next
// sides and a newcomer; of several the one that began first, and the newcomer
// last.
func (s *sides) heaviest(a account, newcomer *conn) *conn {
	worst := s.of(newcomer)
	for _, x := range s.pool.Each(sampleMax) {
		if x.account != a || x.held < worst.held || x.conn.is(flagDying) {
			continue
		}
		if x.held > worst.held || worst.conn == newcomer || x.began < worst.began {
			worst = x
		}
	}
	return worst.conn
}

// largest finds the connection with the largest outbox, among the next sides. It
// returns nil if there is none.
func (s *sides) largest() (c *conn) {
	most := 0
	for _, x := range s.pool.Each(sampleMax) {
		if bytes := x.owed(); bytes > most && !x.conn.is(flagDying) {
			c, most = x.conn, bytes
		}
	}
	return c
}
