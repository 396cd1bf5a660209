package server

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/record"
	"github.com/seed-134acfd0/lull/netpoll"
)

// With Options.TLS a connection is two secrets and two counters more: a
// record.State in a table beside the slots. crypto/tls does the handshake on a
// goroutine that has no descriptor; reactors bring it what sockets receive, and
// send what it says. After that each read is opened, and each write sealed.

// Bounds of TLS, for all reactors together.
const (
	handshakesMax = 4096 // TLS handshakes under way, each some 22 KB
	ciphersMax    = 8192 // ciphers that are set up, each some 1,300 bytes
)

// transport is the TLS of a reactor's connections.
type transport struct {
	config  *record.Config
	states  *netpoll.Table[record.State] // of connections that have flagTLS
	layer   *record.Layer
	sealed  []byte          // one write's records
	running int             // handshakes
	most    int             // of them
	waiting []netpoll.Token // connections that wait for one to end, the oldest first
}

func newTransport(s *Server) (*transport, error) {
	states, err := netpoll.NewTable[record.State](s.slots)
	if err != nil {
		return nil, err
	}
	n := s.options.Reactors
	return &transport{config: s.tls, states: states, layer: record.NewLayer(max(64, ciphersMax/n)), most: max(64, handshakesMax/n)}, nil
}

func (o *output) slot(c *conn) uint32 { return o.slots.Token(c).Slot }

// state is c's TLS state.
func (o *output) tlsState(c *conn) *record.State { return o.tls.states.At(int(o.slot(c))) }

// seal writes data as records. It returns how much of data has become records,
// each of which goes out, or waits in c's side, as it is: a record is never sealed
// twice. At most one waits.
func (o *output) seal(c *conn, data []byte) (sent int) {
	for sent < len(data) && o.owedSealed(c) == 0 && !c.is(flagMute) {
		piece := data[sent:min(len(data), sent+record.MaxPlain)]
		o.tls.sealed = o.tls.layer.Seal(o.slot(c), o.tlsState(c), o.tls.sealed[:0], piece)
		o.writeRaw(c, o.tls.sealed)
		sent += len(piece)
	}
	return sent
}

// sealedMax is how many bytes of records, beside one of data, may wait for a peer:
// answers to its key updates.
const sealedMax = 32 << 10

// writeRaw writes bytes that are not sealed any more, and keeps what the socket
// does not take.
func (o *output) writeRaw(c *conn, data []byte) {
	sent := 0
	if o.owedSealed(c) == 0 {
		sent = o.writeSocket(c, data)
	}
	if sent == len(data) || c.is(flagMute) {
		return
	}
	x := o.needBox(c)
	x.sealed = append(x.sealed, data[sent:]...)
	o.owing += len(data) - sent
	if len(x.sealed) > sealedMax {
		o.mark(c, gone(ErrOutbox))
	}
}

// owedSealed is how many bytes of records c's socket has not taken.
func (o *output) owedSealed(c *conn) int {
	if x := o.sides.of(c); x != nil {
		return len(x.sealed)
	}
	return 0
}

// flushSealed goes on with the records that wait. It returns false if some are
// left.
func (o *output) flushSealed(c *conn, x *side) bool {
	if len(x.sealed) == 0 {
		return true
	}
	sent := o.writeSocket(c, x.sealed)
	if sent > 0 {
		x.moved = o.tick
		o.owing -= sent
	}
	if x.sealed = x.sealed[sent:]; len(x.sealed) > 0 {
		return false
	}
	x.sealed = nil
	return true
}

// closeNotify says that nothing more comes, unless something still waits to go
// out. A peer whose socket does not take it will not miss it.
func (o *output) closeNotify(c *conn) {
	if c.is(flagTLS) && !c.is(flagMute) && o.owed(c) == 0 {
		o.tls.sealed = o.tls.layer.CloseNotify(o.slot(c), o.tlsState(c), o.tls.sealed[:0])
		_, _ = netpoll.Write(int(c.FD), o.tls.sealed)
	}
}

// hangUp ends our side: close_notify where there is TLS, and FIN.
func (o *output) hangUp(c *conn) {
	o.closeNotify(c)
	netpoll.ShutdownWrite(int(c.FD))
}

// forget erases the keys of a connection that has ended.
func (t *transport) forget(slot uint32) {
	t.layer.Forget(slot)
	t.states.At(int(slot)).Erase()
}

// begin is the first state of a connection behind its proxy's head.
func (in *input) begin(c *conn) {
	if in.out.tls != nil {
		in.enter(c, stateTLS)
	} else {
		in.enter(c, stateRequest)
	}
}

// feedEOF tells c's handshake, if there is one, that its peer sends no more.
func (in *input) feedEOF(c *conn) bool {
	x := in.sides.of(c)
	if x == nil || x.handshake == nil {
		return false
	}
	x.handshake.FeedEOF()
	in.want(c, flagPaused, true) // until it has ended
	return true
}

// feed brings input to c's handshake, which it begins if there is room for one
// more.
func (in *input) feed(c *conn, data []byte) {
	t := in.out.tls
	x := in.sides.need(c)
	if x.handshake == nil {
		if t.running >= t.most {
			x.cipher = append(x.cipher, data...)
			in.want(c, flagPaused, true)
			t.waiting = append(t.waiting, in.slots.Token(c))
			in.settleInput(c, x)
			return
		}
		t.running++
		token := in.slots.Token(c)
		x.began = in.tick
		x.handshake = t.config.Start(func() { _ = in.mail.Force(op{kind: opTLS, token: token}, nil) })
	}
	if err := x.handshake.Feed(data); err != nil { // read has asked for its room
		in.mark(c, gone(err))
	}
	in.settleInput(c, x)
}

// progress sends what c's handshake says, and goes on when it has ended.
func (in *input) progress(c *conn) {
	x := in.sides.of(c)
	if c.state != stateTLS || x == nil || x.handshake == nil {
		return
	}
	in.want(c, flagPaused, false) // it may have room again
	out, ended := x.handshake.Output()
	if len(out) > 0 {
		in.out.writeRaw(c, out)
	}
	if !ended || c.is(flagDying) {
		return
	}
	result, err := x.handshake.Result()
	in.endHandshake(x)
	if err != nil {
		in.counts.TLSFailed++
		in.warn(c, "TLS handshake failed", "error", err.Error())
		in.mark(c, fate{kind: fateAlert, code: frame.Abnormal, cause: err})
		return
	}
	in.counts.TLSHandshakes++
	if result.Resumed {
		in.counts.TLSResumed++
	}
	*in.out.tlsState(c) = result.State
	c.flags |= flagTLS
	x.tls = connectionState(&result)
	seen := c.seen
	in.enter(c, stateRequest)
	c.seen = seen // HandshakeTimeout is for both
	x.cipher, x.whole = result.Rest, len(result.Rest) > 0
	in.settleInput(c, x)
	if x.whole {
		in.later(c) // not now: what handlers answer has to go out before c may end
	}
}

// connectionState is what Request.TLS tells of a handshake.
func connectionState(r *record.Result) *tls.ConnectionState {
	s := &tls.ConnectionState{
		Version: tls.VersionTLS13, HandshakeComplete: true, DidResume: r.Resumed, CipherSuite: r.State.Suite(),
		NegotiatedProtocol: r.Protocol, ServerName: r.ServerName,
	}
	if r.Peer != nil {
		s.PeerCertificates = []*x509.Certificate{r.Peer}
	}
	return s
}

// endHandshake takes note that a handshake has ended, or stops it, and lets the
// next begin.
func (in *input) endHandshake(x *side) {
	if x.handshake == nil {
		return
	}
	x.handshake.Stop()
	x.handshake = nil
	t := in.out.tls
	t.running--
	for len(t.waiting) > 0 && t.running < t.most {
		c := in.slots.Get(t.waiting[0])
		t.waiting = t.waiting[1:]
		if c != nil && c.state == stateTLS && !c.is(flagDying) {
			in.want(c, flagPaused, false)
			x := in.sides.of(c)
			data := x.cipher
			x.cipher = nil
			in.feed(c, data)
		}
	}
}

// openRecords opens the records in data and handles what they carry.
func (in *input) openRecords(c *conn, data []byte) {
	if c.state != stateRequest && c.state != stateAsking && !c.speaks() {
		return // input is thrown away
	}
	t := in.out.tls
	plain, rest, reply, err := t.layer.Open(in.out.slot(c), in.out.tlsState(c), data)
	if len(rest) > 0 {
		x := in.sides.need(c)
		if x.idle() {
			x.began = in.tick
		}
		x.cipher = append(x.cipher[:0], rest...)
	} else if x := in.sides.of(c); x != nil {
		x.cipher = nil
	}
	if len(plain) > 0 {
		if x := in.sides.of(c); x != nil && x.input.Rest() > 0 {
			plain = slices.Concat(x.input.Pending(), plain)
			x.input.Skip(x.input.Rest())
		}
		in.parse(c, plain)
	} else if x := in.sides.of(c); x != nil {
		in.settleInput(c, x)
	}
	if len(reply) > 0 && !c.is(flagMute) {
		in.out.writeRaw(c, reply)
	}
	switch {
	case err == nil:
	case err == record.ErrClosed:
		in.hungUp(c)
	default:
		in.mark(c, fate{kind: fateAlert, code: frame.Abnormal, cause: err})
	}
}

// hungUp takes note that c's peer sends no more. As with FIN, what it sent before is
// handled first.
func (in *input) hungUp(c *conn) {
	switch {
	case c.is(flagDying): // it has its last word
	case c.state == stateRequest:
		in.mark(c, gone(io.EOF))
	default:
		in.sides.need(c).ended = true
		in.later(c)
	}
}

// leaveTLS gives up c's keys for a visit to net/http. It returns nil without
// TLS.
func (in *input) leaveTLS(c *conn) *visitorTLS {
	if !c.is(flagTLS) {
		return nil
	}
	v := &visitorTLS{state: *in.out.tlsState(c), layer: record.NewLayer(2)}
	if x := in.sides.of(c); x != nil {
		v.cipher = x.cipher
		x.cipher = nil
	}
	return v
}

// adoptTLS takes keys back from net/http.
func (in *input) adoptTLS(c *conn, a *adoption) {
	*in.out.tlsState(c) = *a.tls
	c.flags |= flagTLS
	if len(a.cipher) > 0 {
		x := in.sides.need(c)
		x.cipher, x.began = a.cipher, in.tick
	}
}

// visitorTLS is the TLS of a connection that net/http has. Its methods wait for
// the socket. One goroutine may read while another writes.
type visitorTLS struct {
	cipher []byte // the beginning of a record; the reader's
	given  bool   // a reactor has the connection again

	mu    sync.Mutex
	state record.State  // guarded by mu
	layer *record.Layer // guarded by mu
}

// read waits for the next data.
func (v *visitorTLS) read(socket net.Conn) (plain []byte, err error) {
	buf := make([]byte, len(v.cipher)+record.MaxRecord)
	kept := copy(buf, v.cipher)
	n, err := socket.Read(buf[kept:])
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	plain, rest, reply, err := v.layer.Open(0, &v.state, buf[:kept+n])
	v.cipher = slices.Clone(rest)
	if len(reply) > 0 {
		_, _ = socket.Write(reply)
	}
	if err == record.ErrClosed {
		err = io.EOF
	}
	return plain, err
}

func (v *visitorTLS) write(socket net.Conn, p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for n := 0; n < len(p); {
		piece := p[n:min(len(p), n+record.MaxPlain)]
		if _, err := socket.Write(v.layer.Seal(0, &v.state, nil, piece)); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return len(p), nil
}

func (v *visitorTLS) close(socket net.Conn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = socket.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = socket.Write(v.layer.CloseNotify(0, &v.state, nil))
	v.state.Erase()
}

// give returns the keys, for a reactor, and the beginning of a record.
func (v *visitorTLS) give() (*record.State, []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.given = true
	state := v.state
	v.state.Erase()
	return &state, v.cipher
}
