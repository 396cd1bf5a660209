package server

import (
	"errors"
	"net/netip"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// Handler says what a server does with its connections. A nil function is the
// default: requests are accepted, messages are ignored.
//
// The functions are called one at a time for each connection and in order:
// Upgrade, Open, any number of Message, Slow and Drained, Close. Options.Mode says where, and
// whether they may block. A panic closes its connection with 1011 and is
// logged.
type Handler struct {
	// Upgrade decides about a well-formed opening handshake. An error refuses
	// it: with the status of a *Reject, with 500 otherwise. The Request is
	// valid until Upgrade returns.
	Upgrade func(*Request) error

	// Open is called once a connection is ready for Send.
	Open func(Conn)

	// Message is called for each message: op is frame.Text (and data then valid
	// UTF-8) or frame.Binary. data is valid until Message returns.
	Message func(c Conn, op frame.Op, data []byte)

	// Slow is called when the peer does not take what it is sent: it is owed
	// half of MaxOutbox or MaxOutboxMessages, or Send has returned ErrSlow.
	// Drained is called after that, once the peer is owed at most an eighth.
	// The two alternate. Close may come in place of the last Drained.
	Slow, Drained func(Conn)

	// Close is called exactly once for each connection that was opened, as its
	// last. code is the Close frame's that the peer sent, or, where cause says
	// what went wrong, the one it was sent: frame.Abnormal when neither sent
	// one. After a complete closing handshake cause is nil.
	Close func(c Conn, code frame.Code, cause error)
}

// Reject refuses an opening handshake with an HTTP status.
type Reject = frame.Reject

// Request is an opening handshake that waits for its answer.
type Request struct {
	*frame.Request
	// Tag becomes the connection's Tag. It is the place for whatever tells
	// Handler whose connection this is.
	Tag uint64
	// WhenSlow is what the connection's messages are sent with unless they say;
	// by default what Options say.
	WhenSlow WhenSlow

	fd     int // -1 away from the reactor
	remote netip.AddrPort
}

func (r *Request) whenSlow(s *Server) WhenSlow {
	return Kind{WhenSlow: r.WhenSlow}.over(s.options.WhenSlow)
}

// RemoteAddr is the peer's address, the zero value if it has left already.
func (r *Request) RemoteAddr() netip.AddrPort {
	if r.fd < 0 {
		return r.remote
	}
	return netpoll.RemoteAddr(r.fd)
}

// What Send, Close and Broadcast return when they do nothing.
var (
	// ErrClosed says that the connection, or the server, is closed or closing.
	ErrClosed = errors.New("server: closed")
	// ErrSlow says that too much is on its way already.
	ErrSlow = errors.New("server: too slow")
)

// Causes that Handler.Close is told, beside *frame.Error for a breach of the
// protocol and the socket's own errors (io.EOF when the peer left without a
// Close frame).
var (
	ErrIdle         = errors.New("server: the peer was silent for too long")
	ErrOutbox       = errors.New("server: the peer does not read what it is sent")
	ErrPartial      = errors.New("server: no memory left for incomplete messages")
	ErrCloseTimeout = errors.New("server: the peer did not answer the Close frame")
	ErrPanic        = errors.New("server: the handler panicked")
	ErrQueue        = errors.New("server: messages come faster than they are handled")
	ErrShutdown     = errors.New("server: the server has ended")
)
