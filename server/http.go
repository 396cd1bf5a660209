package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/record"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/gate"
)

// ServeHTTP makes a Server an http.Handler beside others: it upgrades the request
// and moves its socket to a reactor, where it costs as little as any other. What
// stands in front of it (a router, middleware, authentication) has had its say
// then. Run must be running.
//
// Handler.Upgrade is called on the request's goroutine, whatever Options.Mode
// says; Request.Context is the request's, with its values.
//
// It needs the request's TCP socket. Behind net/http's own TLS it cannot have
// that and answers 501: use Options.TLS, or end TLS in front of the program.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := s.serveHTTP(w, r)
	if err == nil {
		return
	}
	var reject *Reject
	errors.As(err, &reject) // serveHTTP returns nothing else
	s.reject(w, r, reject)
}

// reject answers a request of net/http with an error.
func (s *Server) reject(w http.ResponseWriter, r *http.Request, reject *Reject) {
	s.rejected.Add(1)
	s.gate.Reject(reject.Status)
	s.journal.add(slog.LevelWarn, "handshake rejected", "status", reject.Status, "reason", reasonOf(reject), "remote", r.RemoteAddr)
	for name, values := range reject.Header {
		w.Header()[name] = values
	}
	http.Error(w, reject.Reason, reject.Status)
}

var (
	rejectTLS    = &Reject{Status: http.StatusNotImplemented, Reason: "this server cannot upgrade behind the TLS of net/http"}
	rejectHijack = &Reject{Status: http.StatusNotImplemented, Reason: "the connection's socket cannot be taken over"}
)

// serveHTTP returns nil once the connection is no longer net/http's.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) error {
	switch {
	case r.TLS != nil:
		return rejectTLS
	case r.ContentLength != 0:
		return &Reject{Status: http.StatusBadRequest, Reason: "a request with a body cannot be upgraded"}
	case s.leaving.shut.Load():
		return s.rejectLeaving()
	case !s.gate.Enter():
		return rejectFull()
	}
	remote, _ := netip.ParseAddrPort(r.RemoteAddr) // zero for a unix socket
	var ticket gate.Ticket
	v, _ := r.Context().Value(visitorKey{}).(*visitor)
	if counted := v != nil && v.httpd == s.httpd; !counted && !s.admission.named(remote.Addr()) {
		var refused *Reject
		if ticket, refused = s.admission.enter(remote.Addr(), s.clock.Now()); refused != nil {
			s.gate.Leave()
			return refused
		}
	}
	a := &adoption{conn: s.stray()}
	u := frame.NewUpgrader(func(head *frame.Request) error {
		a.answer = s.decide(a.conn, head, origin{remote: remote, fd: -1, ctx: r.Context()})
		return a.reject
	})
	u.Deflate = s.options.Compress
	response, err := u.Upgrade(requestHead(r))
	if err != nil {
		s.gate.Leave()
		s.admission.leave(ticket)
		s.admission.leave(a.ticket)
		return err
	}
	if !a.client.IsValid() {
		a.ticket = ticket
	}
	a.response = slices.Clone(response)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.abandon(a, err)
		return rejectHijack
	}
	defer conn.Close()
	socket, ok := conn.(syscall.Conn)
	if !ok {
		s.abandon(a, net.ErrClosed)
		_, _ = conn.Write(rejectHijack.Response(dateOf(time.Now())))
		return nil
	}
	unread, _ := rw.Reader.Peek(rw.Reader.Buffered())
	if v, ok := conn.(*visitor); ok {
		unread = append(slices.Clone(unread), v.unread...)
		if v.httpd == s.httpd && !a.client.IsValid() {
			a.ticket = v.giveTicket()
		}
		if v.tls != nil {
			a.tls, a.cipher = v.tls.give()
		}
	}
	if err := s.adopt(socket, a, unread); err != nil {
		s.abandon(a, err)
	}
	return nil
}

// requestHead spells the head of a request of net/http again.
func requestHead(r *http.Request) []byte {
	var b bytes.Buffer // takes everything, so no write can fail
	fmt.Fprintf(&b, "%s %s HTTP/%d.%d\r\nHost: %s\r\n", r.Method, r.URL.RequestURI(), r.ProtoMajor, r.ProtoMinor, r.Host)
	_ = r.Header.Write(&b)
	b.WriteString("\r\n")
	return b.Bytes()
}

// adoption is a connection that net/http has brought and Upgrade has accepted.
type adoption struct {
	answer
	conn     Conn // a stray, until it has a slot
	response []byte

	tls    *record.State // nil without TLS
	cipher []byte        // the beginning of a record
}

// stray is a handle for a connection that has no slot. It names nothing, but may
// carry a value.
func (s *Server) stray() Conn {
	return Conn{server: s, id: uint64(s.strays.Add(1) % slotsMax)} // of generation 0, which no slot has
}

func (c Conn) stray() bool { return tokenOf(c.id).Gen == 0 }

// adopt passes a socket to the reactor that has the fewest.
func (s *Server) adopt(socket syscall.Conn, a *adoption, unread []byte) error {
	r := slices.MinFunc(s.reactors, func(a, b *reactor) int {
		return int(a.public.used.Load() - b.public.used.Load())
	})
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	r.door.mu.Lock() // sockets and their ops arrive in the same order
	defer r.door.mu.Unlock()
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = r.door.PassIn(int(fd)) }); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	return r.mail.Force(op{kind: opAdopt, adopted: a}, unread)
}

// abandon gives up a connection that Upgrade has accepted and that no reactor
// has.
func (s *Server) abandon(a *adoption, cause error) {
	s.gate.Leave()
	s.admission.leave(a.ticket)
	if h := s.handler.Close; h != nil {
		a.conn.tag = a.tag
		h(a.conn, frame.Abnormal, cause)
	}
	s.values.forget(a.conn.id)
}

// adopt opens a connection that net/http has brought.
func (r *reactor) adopt(a *adoption, unread []byte) {
	fd, err := r.door.TakeIn()
	if err == nil && r.slots.Full() {
		netpoll.Close(fd)
		err = ErrClosed
	}
	if err != nil {
		r.server.gate.Leave()
		r.server.admission.leave(a.ticket)
		r.calls.closeStray(a, err)
		return
	}
	netpoll.NoKeepAlive(fd)
	c := r.slots.Take(fd)
	r.gauge(c).Open()
	if r.settled(c, &a.answer); !a.client.IsValid() {
		r.setTicket(c, a.ticket)
	}
	r.counts.Accepted++
	c.state, c.seen = stateAsking, r.tick // it has entered already
	if !r.poll(c) {
		r.calls.closeStray(a, r.pollError)
		return
	}
	r.server.values.move(a.conn.id, r.handle(c).id)
	if a.tls != nil {
		r.in.adoptTLS(c, a)
	}
	r.in.open(c, a.response, a.topics)
	r.in.parse(c, unread)
}

// httpd serves the requests on the server's own port that are no WebSocket
// handshake. Reactors pass their sockets to it. It is the http.Server's Listener.
type httpd struct {
	server   http.Server
	addr     net.Addr
	limits   *admission
	most     int64
	visits   chan visit
	visiting atomic.Int64 // connections that were passed and are not closed
	closed   sync.Once
	ended    chan struct{} // closed by Close
}

// visit is a socket on its way to the httpd.
type visit struct {
	from   *door
	read   []byte         // what was read of it
	remote netip.AddrPort // of its client, if a proxy's head has told it
	ticket gate.Ticket
	tls    *visitorTLS
}

func newHTTPD(s *Server) *httpd {
	o := &s.options
	upgrade := func(w http.ResponseWriter, r *http.Request) {
		if frame.WantsWebSocket(requestHead(r)) { // behind other requests on its connection
			s.ServeHTTP(w, r)
			return
		}
		ticket, refused := s.admission.enterRequest(r, s.clock.Now())
		if refused != nil {
			s.reject(w, r, refused)
			return
		}
		defer s.admission.leave(ticket)
		o.HTTP.ServeHTTP(w, r)
	}
	return &httpd{
		server: http.Server{
			Handler:           http.HandlerFunc(upgrade),
			ReadHeaderTimeout: max(0, o.HandshakeTimeout),
			IdleTimeout:       httpIdle,
			ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
			ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, visitorKey{}, c) },
		},
		limits: &s.admission,
		addr:   net.TCPAddrFromAddrPort(s.listeners[0].Addr),
		most:   int64(o.MaxHTTP),
		visits: make(chan visit, o.MaxHTTP),
		ended:  make(chan struct{}),
	}
}

// httpIdle is how long an HTTP connection may wait for its next request.
const httpIdle = time.Minute

// run serves until end.
func (h *httpd) run() { _ = h.server.Serve(h) }

// end lets the requests that are being served end within grace.
func (h *httpd) end(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if h.server.Shutdown(ctx) != nil {
		_ = h.server.Close()
	}
}

// Accept takes the next socket.
func (h *httpd) Accept() (net.Conn, error) {
	for {
		select {
		case v := <-h.visits:
			c, err := v.from.takeConn()
			if err == nil {
				return &visitor{TCPConn: c, unread: v.read, remote: v.remote, ticket: v.ticket, tls: v.tls, httpd: h}, nil
			}
			h.visiting.Add(-1)
			h.limits.leave(v.ticket)
		case <-h.ended:
			return nil, net.ErrClosed
		}
	}
}

// Addr is the first address that the server listens on.
func (h *httpd) Addr() net.Addr { return h.addr }

// Close ends Accept.
func (h *httpd) Close() error {
	h.closed.Do(func() { close(h.ended) })
	return nil
}

// visitor is a connection of net/http whose first bytes were read by a reactor.
type visitor struct {
	*net.TCPConn
	unread []byte
	remote netip.AddrPort
	tls    *visitorTLS // nil without TLS
	httpd  *httpd
	left   sync.Once

	mu     sync.Mutex
	ticket gate.Ticket // guarded by mu
}

// visitorKey is the key of the visitor in its requests' contexts.
type visitorKey struct{}

// RemoteAddr is the client's address, also behind proxies that tell it in a head.
func (v *visitor) RemoteAddr() net.Addr {
	if v.remote.IsValid() {
		return net.TCPAddrFromAddrPort(v.remote)
	}
	return v.TCPConn.RemoteAddr()
}

// giveTicket gives the ticket to whoever takes the connection over, or has it given
// back.
func (v *visitor) giveTicket() (t gate.Ticket) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, v.ticket = v.ticket, gate.Ticket{}
	return t
}

func (v *visitor) Read(p []byte) (n int, err error) {
	for v.tls != nil && len(v.unread) == 0 && err == nil {
		v.unread, err = v.tls.read(v.TCPConn)
	}
	switch {
	case len(v.unread) > 0:
		n = copy(p, v.unread)
		v.unread = v.unread[n:]
		return n, nil
	case v.tls != nil:
		return 0, err
	}
	return v.TCPConn.Read(p)
}

func (v *visitor) Write(p []byte) (int, error) {
	if v.tls != nil {
		return v.tls.write(v.TCPConn, p)
	}
	return v.TCPConn.Write(p)
}

// ReadFrom writes what r has, as Write does.
func (v *visitor) ReadFrom(r io.Reader) (int64, error) {
	if v.tls != nil {
		return io.Copy(struct{ io.Writer }{v}, r)
	}
	return v.TCPConn.ReadFrom(r)
}

// WriteTo begins with what is unread, as Read does.
func (v *visitor) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{v}) }

func (v *visitor) Close() error {
	v.left.Do(func() {
		v.httpd.visiting.Add(-1)
		v.httpd.limits.leave(v.giveTicket())
		if v.tls != nil && !v.tls.given {
			v.tls.close(v.TCPConn)
		}
	})
	return v.TCPConn.Close()
}

var errHandOver = errors.New("server: the socket is not ready to be handed over")

// door is a reactor's way for sockets from and to net/http.
type door struct {
	*netpoll.Passage
	mu sync.Mutex // sockets and what belongs to them come in the same order
}

func (d *door) takeConn() (*net.TCPConn, error) {
	fd, err := d.TakeOut()
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "visitor")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, errors.ErrUnsupported
	}
	return tcp, nil
}

// visit passes c's socket to the httpd, with what was read of it, and marks c.
func (in *input) visit(c *conn, read []byte) {
	h := in.server.httpd
	if h.visiting.Add(1) > h.most {
		h.visiting.Add(-1)
		in.mark(c, fate{kind: fateReject, cause: rejectFull()})
		return
	}
	if in.owed(c) > 0 { // a part of a record, which nobody else could finish
		h.visiting.Add(-1)
		in.mark(c, gone(errHandOver))
		return
	}
	if c.is(flagPolled) {
		in.poller.Remove(int(c.FD)) // the socket stays open elsewhere
	}
	if err := in.door.PassOut(int(c.FD)); err != nil {
		h.visiting.Add(-1)
		in.mark(c, gone(err))
		return
	}
	in.counts.Visits++
	remote := in.remotes[in.slots.Token(c).Slot]
	h.visits <- visit{in.door, bytes.Clone(read), remote, in.giveTicket(c), in.leaveTLS(c)} // there is room: each visit was counted
	in.mark(c, fate{kind: fateVisit})
}
