package record

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

// MaxInput is the most bytes that a Handshake holds of what it was fed.
const MaxInput = 64 << 10

// protocol is the application protocol (RFC 7301) of both roles.
const protocol = "http/1.1"

var protocols = []string{protocol}

// Why a handshake fails, for errors.Is. Every other error is crypto/tls's.
var (
	ErrStopped     = errors.New("record: the handshake was stopped")
	ErrUnderWay    = errors.New("record: the handshake is under way")
	ErrFull        = errors.New("record: more input than a handshake may hold")
	ErrPlainHTTP   = errors.New("record: the peer speaks plain HTTP, not TLS")
	ErrNotTLS      = errors.New("record: the peer does not speak TLS")
	ErrVersion     = errors.New("record: the client does not speak TLS 1.3")
	ErrProtocol    = errors.New("record: the client does not speak " + protocol)
	ErrCertificate = errors.New("record: the peer's certificate is not valid")
	ErrHungUp      = errors.New("record: the peer hung up in the handshake")
	// ErrRefused: the peer sent an alert. It may not have accepted our certificate.
	ErrRefused = errors.New("record: the peer gave up")
)

// plainAnswer is what a plain HTTP client is told.
const plainAnswer = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 31\r\n\r\n" +
	"This port speaks TLS (https:).\n"

// Config is what all handshakes of a server, or of clients of one server, have
// in common. It is safe for use by several goroutines.
type Config struct {
	tls    *tls.Config
	client bool
}

// ServerConfig takes over a copy of c, with TLS 1.3 alone, and http/1.1 as the
// only protocol. Session tickets work as c says, and their keys change as they
// would in crypto/tls, as long as the Config is the same: certificates that
// change come from c.GetCertificate or c.GetConfigForClient. These are called on
// the handshake's goroutine, and see no address of the client.
func ServerConfig(c *tls.Config) *Config {
	base := c.Clone()
	restrict(base)
	choose := base.GetConfigForClient
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		t := hello.Conn.(*transport)
		t.versions, t.protocols = hello.SupportedVersions, hello.SupportedProtos
		chosen := base
		if choose != nil {
			special, err := choose(hello)
			if err != nil {
				return nil, err
			}
			if special != nil {
				chosen = special
			}
		}
		// crypto/tls takes the ticket keys from base, unless the chosen one was
		// given its own.
		return t.logged(chosen), nil
	}
	return &Config{tls: base}
}

// ClientConfig takes over a copy of c, in the same way. Clients that resume need
// c.ClientSessionCache, and c.ServerName as its key.
func ClientConfig(c *tls.Config) *Config {
	base := c.Clone()
	restrict(base)
	return &Config{tls: base, client: true}
}

func restrict(c *tls.Config) {
	c.MinVersion, c.MaxVersion = tls.VersionTLS13, 0
	c.NextProtos = protocols
	c.KeyLogWriter = nil
}

// logged is a copy of c that tells the handshake its secrets. It costs less than
// a hundredth of the handshake.
func (t *transport) logged(c *tls.Config) *tls.Config {
	c = c.Clone()
	restrict(c)
	c.KeyLogWriter = &t.log
	return c
}

// Handshake is one handshake of crypto/tls. Its methods are for one goroutine
// at a time, which brings it what a socket has received and sends what it has
// to say. It holds MaxInput of input at most, a flight of output, and what
// crypto/tls needs: some twenty kilobytes, its stack among them, until it has
// ended.
type Handshake struct {
	t       transport
	config  *Config
	started bool

	// Guarded by t.mu, written when the handshake ends.
	result Result
	err    error
}

// Result is what is known when a handshake has succeeded.
type Result struct {
	State State
	// Rest is the input behind the handshake, to be opened first.
	Rest []byte
	// Protocol is the application protocol that was agreed on, if any.
	Protocol string
	// ServerName is what the client has asked for, if anything.
	ServerName string
	Resumed    bool
	// Peer is the peer's certificate, if it was verified.
	Peer *x509.Certificate
}

// Start begins a handshake. A client's runs at once, a server's from its first
// input on.
//
// notify is called, from another goroutine, when Output has something new, or
// when there is room again after there was none. It must not block, nor call the
// Handshake. One call may still come after Stop.
func (c *Config) Start(notify func()) *Handshake {
	h := &Handshake{config: c}
	h.t.notify = notify
	h.t.change.L = &h.t.mu
	if c.client {
		h.start()
	}
	return h
}

func (h *Handshake) start() {
	h.started = true
	go h.run()
}

// Room is how many bytes Feed takes now. If that is none, notify is called when it
// is more.
func (h *Handshake) Room() int {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	room := MaxInput - len(h.t.in)
	h.t.full = h.t.full || room == 0
	return room
}

// Feed brings what the socket has received; p is copied. It takes all or, with
// ErrFull, nothing: feed it again when notify was called. Input after the end is
// a part of the Result's Rest.
func (h *Handshake) Feed(p []byte) error {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	switch {
	case h.t.stopped:
		return ErrStopped
	case len(p) > MaxInput-len(h.t.in):
		h.t.full = true
		return ErrFull
	}
	h.t.in = append(h.t.in, p...)
	if !h.started {
		h.start()
	}
	h.t.change.Signal()
	return nil
}

// FeedEOF says that the peer sends no more. The handshake ends when it has taken
// what there is, so that the peer's last alert is not lost.
func (h *Handshake) FeedEOF() {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	h.t.eof = true
	if !h.started && !h.t.stopped {
		h.start()
	}
	h.t.change.Signal()
}

// Output takes what must be sent to the peer, and reports whether the handshake
// has ended, so that there will be no more. The bytes are the caller's.
func (h *Handshake) Output() (out []byte, ended bool) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	out, h.t.out = h.t.out, nil
	return out, h.t.ended
}

// Result is what the handshake has ended with, and can be taken once. What
// Output gives is sent first, an error's alert too.
func (h *Handshake) Result() (Result, error) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	switch {
	case h.t.stopped:
		return Result{}, ErrStopped
	case !h.t.ended:
		return Result{}, ErrUnderWay
	case h.err != nil:
		return Result{}, h.err
	}
	r := h.result
	r.Rest = h.t.in
	h.wipe()
	return r, nil
}

// Stop ends the handshake, whatever it does, and erases its secrets. Its
// goroutine leaves at once, or when the callback of the tls.Config that it is in
// returns. Stop may be called at any time, again, and after the end.
func (h *Handshake) Stop() {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	h.wipe()
	h.t.change.Signal()
}

// wipe makes a Handshake that holds nothing.
func (h *Handshake) wipe() {
	h.t.stopped = true
	h.result.State.Erase()
	h.t.in, h.t.out, h.result = nil, nil, Result{}
}

// run is the handshake's goroutine.
func (h *Handshake) run() {
	var conn *tls.Conn
	if h.config.client {
		conn = tls.Client(&h.t, h.t.logged(h.config.tls))
	} else {
		conn = tls.Server(&h.t, h.config.tls)
	}
	err := conn.Handshake()
	var result Result
	if err == nil {
		result, err = h.finish(conn)
	}
	if err != nil {
		err = h.explain(err)
	}
	h.t.log, h.t.sent = keyLog{}, nil

	h.t.mu.Lock()
	if !h.config.client && errors.Is(err, ErrPlainHTTP) {
		h.t.out = append(h.t.out, plainAnswer...)
	}
	h.result, h.err, h.t.ended = result, err, true
	stopped := h.t.stopped
	if stopped {
		h.wipe()
	}
	h.t.mu.Unlock()
	if !stopped {
		h.t.notify()
	}
}

// finish takes over from crypto/tls.
func (h *Handshake) finish(conn *tls.Conn) (Result, error) {
	facts := conn.ConnectionState()
	if h.t.log.size == 0 {
		return Result{}, errKeyLog
	}
	r := Result{
		State:      newState(facts.CipherSuite, h.config.client, h.t.log.client[:h.t.log.size], h.t.log.server[:h.t.log.size]),
		Protocol:   facts.NegotiatedProtocol,
		ServerName: facts.ServerName,
		Resumed:    facts.DidResume,
	}
	if len(facts.VerifiedChains) > 0 {
		r.Peer = facts.PeerCertificates[0]
	}
	if h.config.client {
		return r, h.tickets(conn, &r.State)
	}
	h.count(&r.State)
	return r, nil
}

// count counts the records that were sent under the application key already: the
// session tickets. No other record opens with it.
func (h *Handshake) count(s *State) {
	var k keys
	var nonce [ivSize]byte
	k.derive(suites[s.suite], s.write.secret[:suites[s.suite].secretSize])
	for sent := h.t.sent; len(sent) > headerSize; {
		size := recordSize(sent)
		header, body := sent[:headerSize], sent[headerSize:size]
		sent = sent[size:]
		k.nonce(&nonce, s.write.seq)
		if _, err := k.aead.Open(body[:0], nonce[:], body, header); err == nil {
			s.write.seq++
		}
	}
}

// tickets gives crypto/tls the session tickets that have come with the
// handshake, for the session cache. Later ones are ignored.
func (h *Handshake) tickets(conn *tls.Conn, s *State) error {
	if h.config.tls.ClientSessionCache == nil {
		return nil
	}
	h.t.limited, h.t.records = true, 0
	layer := NewLayer(1)
	for record := h.t.next(); record != nil; record = h.t.next() {
		kind, content, err := layer.unprotect(0, s, record)
		if err != nil || kind != typeHandshake || !onlyTickets(content) {
			// The record is the Layer's, and counts again there.
			if err != errMAC {
				s.read.seq--
			}
			return nil
		}
		h.t.records = 1
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, noRecord{}) {
			return err
		}
	}
	return nil
}

// onlyTickets reports whether a record of handshake messages holds session
// tickets and nothing else.
func onlyTickets(content []byte) bool {
	for len(content) > 0 {
		kind, _, rest, whole := nextMessage(content)
		if kind != newSessionTicket || !whole {
			return false
		}
		content = rest
	}
	return true
}

// explain makes an error of crypto/tls one that a reader of logs understands.
func (h *Handshake) explain(err error) error {
	var header tls.RecordHeaderError
	var invalid *tls.CertificateVerificationError
	var op *net.OpError
	isHeader := errors.As(err, &header) && header.Conn != nil
	server := !h.config.client
	switch {
	case errors.Is(err, net.ErrClosed):
		return ErrStopped
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrHungUp
	case isHeader && looksLikeHTTP(header.RecordHeader):
		return ErrPlainHTTP
	case isHeader:
		return fmt.Errorf("%w: its first bytes are %q", ErrNotTLS, header.RecordHeader[:])
	case server && len(h.t.versions) > 0 && !slices.Contains(h.t.versions, tls.VersionTLS13):
		return fmt.Errorf("%w: it offers %s", ErrVersion, versionNames(h.t.versions))
	case server && len(h.t.protocols) > 0 && !slices.Contains(h.t.protocols, protocol):
		return fmt.Errorf("%w: it offers %q", ErrProtocol, h.t.protocols)
	case errors.As(err, &invalid):
		return fmt.Errorf("%w: %w", ErrCertificate, invalid.Err)
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("%w: %w", ErrRefused, op.Err)
	}
	return fmt.Errorf("record: handshake: %w", err)
}

// looksLikeHTTP reports whether a request or a response of HTTP/1 may begin so.
func looksLikeHTTP(head [headerSize]byte) bool {
	for _, b := range head[:3] {
		if b < 'A' || b > 'Z' {
			return false
		}
	}
	return true
}

func versionNames(versions []uint16) string {
	names := make([]string, 0, len(versions))
	for _, v := range versions[:min(len(versions), 8)] {
		names = append(names, tls.VersionName(v))
	}
	return strings.Join(names, ", ")
}
