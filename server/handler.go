package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/gate"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
)

// Handler says what a server does with its connections. A nil function is the
// default: requests are accepted, messages are ignored.
//
// The functions are called one at a time for each connection and in this order:
// Upgrade, Open, any number of Ready, Message or Deliver, and Backpressure, Close. Options.Mode
// says where, and whether they may block. A panic is logged and closes its
// connection with 1011.
type Handler struct {
	// Upgrade decides about a well-formed opening handshake. An error rejects it:
	// with the status of a *Reject, with 500 otherwise. The Request is valid
	// until Upgrade returns.
	Upgrade func(*Request) error

	// Open is called once a connection is ready for Send.
	Open func(Conn)

	// Message is called for each message: op is frame.Text (and data then valid
	// UTF-8) or frame.Binary. data is valid until Message returns.
	Message func(c Conn, op frame.Op, data []byte)

	// Deliver is called in place of Message, if it is there, by a handler that passes
	// messages on: a message is handled when Delivery.Done is called. Until then it takes no
	// worker, the connection's next message waits, and its Close frame is not answered.
	// Deliver runs on reactors too: it must not block, nor open descriptors. It needs mode
	// Workers.
	Deliver func(Delivery)

	// Ready is asked before each call of Message or Deliver whether the connection's next message
	// may be handled now. While it may not, messages wait in the connection's inbox and
	// take no worker, until Conn.Resume has it asked again. It must not block. In mode
	// Inline it is not asked. A handler that has it is taken for one that waits for others
	// more than it computes: each connection's messages wake a worker at once.
	Ready func(c Conn) bool

	// Backpressure is called with true when the peer does not take what it is
	// sent: half of MaxOutbox or MaxOutboxMessages waits for it, or Send has
	// returned ErrBackpressure. It is called with false after that, once an
	// eighth waits at most. The two alternate. Close may come in place of the
	// last.
	Backpressure func(c Conn, high bool)

	// Close is called exactly once, as the last, for each connection that
	// Upgrade has accepted, whether or not it was opened. code is the Close
	// frame's that the peer sent, or, where cause says what went wrong, the one
	// it was sent: frame.Abnormal when neither sent one. After a complete closing
	// handshake cause is nil.
	Close func(c Conn, code frame.Code, cause error)
}

// Delivery is a message that is handled when Done is called.
type Delivery struct {
	Conn Conn
	Op   frame.Op // frame.Text, and Data is valid UTF-8, or frame.Binary
	Data []byte   // valid until Done is called

	inbox *inbox.Inbox[*caller]
}

// Done says that the message is handled. It is called exactly once, on any goroutine, before
// Deliver has returned or after it. It never waits, but it may call Ready and Deliver for the
// connection's next messages.
func (d *Delivery) Done() { d.inbox.Done() }

// Reject rejects an opening handshake with an HTTP status.
type Reject = frame.Reject

// Request is an opening handshake that waits for its answer.
type Request struct {
	*frame.Request
	// Tag becomes the connection's Tag. It is the place for whatever tells
	// Handler which connection this is.
	Tag uint64
	// Value becomes the connection's Value. It costs an entry in a map, some
	// hundred bytes, where it is set.
	Value any
	// Policy is what the connection's messages are sent with unless they have
	// their own; by default Options.OutboxPolicy.
	Policy OutboxPolicy

	// Expires is when the connection is closed with 1008, because a token ends for
	// instance; never if it is zero. It is kept to a second or so.
	Expires time.Time

	// Topics are what the connection subscribes to as it opens, before anything else. With
	// a topic that cannot be, or too many, the request is rejected with 500; if there is
	// no room for more topics, with 503. Handler.Close is then told why.
	Topics []string

	id     uint64
	origin origin
}

// ID is the ID that the connection will have. It is zero where the request came by
// ServeHTTP: such a connection gets its ID when it opens.
func (r *Request) ID() uint64 { return r.id }

// RemoteAddr is the peer's address, the zero value if it has left already.
func (r *Request) RemoteAddr() netip.AddrPort {
	if r.origin.fd < 0 {
		return r.origin.remote
	}
	return netpoll.RemoteAddr(r.origin.fd)
}

// Cookie returns the value of a cookie, as http.Request.Cookie does: that of the
// first one of the name, empty if there is none.
func (r *Request) Cookie(name string) string {
	var lines []string
	for header, line := range r.Headers() {
		if strings.EqualFold(header, "Cookie") {
			lines = append(lines, line)
		}
	}
	as := http.Request{Header: http.Header{"Cookie": lines}}
	cookie, err := as.Cookie(name)
	if err != nil {
		return "" // http.ErrNoCookie
	}
	return cookie.Value
}

// Query returns the parameters of the target's query. Malformed ones are left out.
func (r *Request) Query() url.Values {
	_, query, _ := strings.Cut(r.Target(), "?")
	values, _ := url.ParseQuery(query)
	return values
}

// TLS is what the TLS handshake has agreed on, nil without Options.TLS. Of the
// client's certificates it has the first, and only if it was verified.
func (r *Request) TLS() *tls.ConnectionState { return r.origin.tls }

// Context is the request's of net/http where the request came by ServeHTTP, with
// the values that middleware has put there. Otherwise it is context.Background.
func (r *Request) Context() context.Context {
	if r.origin.ctx == nil {
		return context.Background()
	}
	return r.origin.ctx
}

// foreign reports whether a request comes from a page of a site that is not
// allowed (Options.Origins).
func (s *Server) foreign(head *frame.Request) bool {
	if !head.HasOrigin() {
		return false // it comes from no page
	}
	var origins [][]byte
	for name, value := range head.Headers() {
		if strings.EqualFold(name, "Origin") {
			origins = append(origins, []byte(value))
		}
	}
	return !s.origins.Allow([]byte(head.Header("Host")), origins...)
}

// decide calls the handler's Upgrade, on a reactor or a worker. A panic rejects
// the request.
func (s *Server) decide(c Conn, head *frame.Request, from origin) (a answer) {
	a = answer{terms: termsOf(s.options.OutboxPolicy, head.Deflate)}
	if s.foreign(head) {
		a.reject = s.admission.refuse(gate.Verdict{Reason: gate.ForeignOrigin})
		return a
	}
	if client, ok := s.admission.client(from.remote.Addr(), head); ok {
		var refused *Reject
		if a.ticket, refused = s.admission.enter(client, s.clock.Now()); refused != nil {
			a.reject = refused
			return a
		}
		a.client, from.remote = client, netip.AddrPortFrom(client, 0)
	}
	if s.handler.Upgrade == nil {
		return a
	}
	request := &Request{Request: head, origin: from}
	if !c.stray() {
		request.id = c.id
	}
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			a.reject = ErrPanic
		}
	}()
	a.reject = s.handler.Upgrade(request)
	a.tag, a.terms = request.Tag, termsOf(Kind{Policy: request.Policy}.over(a.terms.policy()), head.Deflate)
	a.expires, a.topics = request.Expires, request.Topics
	if a.reject != nil {
		return a
	}
	if request.Value != nil {
		s.values.set(c.id, request.Value)
	}
	if a.reject = s.topicsFor(a.topics); a.reject != nil {
		defer s.values.forget(c.id)
		if s.handler.Close != nil {
			c.tag = a.tag
			s.handler.Close(c, frame.Abnormal, a.reject)
		}
	}
	return a
}

// What Send, Close and Broadcast return when they do nothing.
var (
	// ErrClosed says that the connection, or the server, has ended or is closing.
	ErrClosed = errors.New("server: closed")
	// ErrBackpressure says that too much waits to be sent already.
	ErrBackpressure = errors.New("server: backpressure")
)

// Causes that Handler.Close is told, beside *frame.Error for a violation of the
// protocol and the socket's own errors (io.EOF when the peer left without a
// Close frame).
var (
	ErrIdle           = errors.New("server: the peer was silent for too long")
	ErrOutbox         = errors.New("server: the peer does not read fast enough")
	ErrWriteTimeout   = errors.New("server: the peer has read nothing for too long")
	ErrInbox          = errors.New("server: messages come faster than they are handled")
	ErrPartial        = errors.New("server: no memory left for incomplete messages")
	ErrMessageTimeout = errors.New("server: a message took too long to arrive")
	ErrCloseTimeout   = errors.New("server: the peer did not answer the Close frame")
	ErrPanic          = errors.New("server: the handler panicked")
	ErrShutdown       = errors.New("server: the server has ended")
)
