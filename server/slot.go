package server

import (
	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// conn is a connection's slot: what every connection needs all the time, and
// nothing else.
//
//	 0 FD     4 Gen    8 heard  12 seen   16 tag (8)  24 side  28 flags  30 state  31 terms
//	└────────────────────────────── 32 bytes ──────────────────────────────┘
type conn struct {
	netpoll.Slot
	heard uint32       // position in the broadcast log up to which it was sent
	seen  netpoll.Tick // when the peer was last heard of, or the state began
	tag   uint64
	side  uint32 // index of its side, zero for none
	flags flags
	state state
	terms terms // what the handshake has settled
}

// state is where a connection is in its life. Only conns.enter changes it.
//
//	accept ─▶ proxy ─▶ tls ─▶ request     proxy only behind proxies, tls only with TLS
//	                             │
//	   ┌──────────────┬──────────┴────┐
//	   │ 101          ▼               ▼ an HTTP error
//	   │           asking ────────▶ rejected ──┐
//	   │              │ 101                    │
//	   ▼              ▼                        │
//	 open ◀───────────┘                        │
//	   │ └─ Conn.Close ─▶ closing              │ the peer's Close frame, EOF,
//	   │                     │                 │ an error, a timeout
//	   ▼ a last word         │                 │
//	 linger ─────────────────┼─────────────────┤
//	                         ▼                 ▼
//	                       ended ─▶ free, when the handler's last call has returned
//
// Every state but free may go straight to ended: when the socket has an error
// for instance.
//
// In asking, the handler decides about the request on a worker. In rejected and
// in linger the last word is sent: an HTTP error, or a Close frame. What waits in
// the outbox still goes out, then FIN, and input is thrown away until the peer
// ends too. Closing a socket with unread input would send a reset, which may
// overtake the last word.
type state uint8

const (
	stateProxy    state = iota // the proxy's head has not arrived whole
	stateTLS                   // the TLS handshake is under way
	stateRequest               // the request head has not arrived whole
	stateAsking                // the handler decides about the request
	stateRejected              // the request was answered with an HTTP error
	stateOpen                  // messages flow
	stateClosing               // our Close frame was sent, the peer's is awaited
	stateLinger                // our last word was said
	stateEnded                 // the socket is closed; calls of the handler have not returned
	states
)

// admitted reports whether connections in this state count against MaxConns.
func (s state) admitted() bool {
	return s == stateAsking || s == stateOpen || s == stateClosing || s == stateEnded
}

type flags uint16

const (
	flagPolled    flags = 1 << iota // registered with the poller
	flagWriting                     // waits for the socket to become writable
	flagPinged                      // was pinged, and not heard of since
	flagPaused                      // not read until its inbox has room, or is empty
	flagThrottled                   // not read until there is room for what it publishes
	flagBlocked                     // not read until its peer has taken more
	flagSlow                        // its outbox passed the high watermark, and not the low one since
	flagDying                       // marked; bury comes next
	flagMute                        // nothing is written to it any more but a last word
	flagTLS                         // its bytes are records
	flagCurbed                      // not read until its rate allows it
	flagLeaving                     // a drain has asked it to leave

	flagUnread = flagPaused | flagThrottled | flagBlocked | flagCurbed
)

// interest is what c's socket is polled for.
func (c *conn) interest() (want netpoll.Interest) {
	if c.flags&flagUnread == 0 {
		want |= netpoll.In
	}
	if c.flags&flagWriting != 0 {
		want |= netpoll.Out
	}
	return want
}

// terms are what the handshake has settled of a connection: the policy of its
// messages, unless they have their own, and the window of permessage-deflate.
type terms uint8

func termsOf(p OutboxPolicy, w frame.Window) terms { return terms(p) | terms(w)<<4 }

func (t terms) policy() OutboxPolicy { return OutboxPolicy(t & 0xf) }
func (t terms) window() frame.Window { return frame.Window(t >> 4) }

// is reports whether c has any of these flags.
func (c *conn) is(f flags) bool { return c.flags&f != 0 }

// speaks reports whether messages and Close frames of the peer are looked at.
func (c *conn) speaks() bool {
	return (c.state == stateOpen || c.state == stateClosing) && !c.is(flagDying)
}

// caller is what calls of a handler need to know about their connection.
type caller struct {
	conn    Conn   // its tag and policy are set by the call of Upgrade
	request origin // of the call of Upgrade
	code    frame.Code
	cause   error // of the call of Close, as code
}
