package loadgen

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/seed-134acfd0/lull/internal/record"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/netpoll"
)

// inFlightTLS is inFlight where connections may be wss://. A TLS handshake that is
// under way has a goroutine and some 22 KB.
const inFlightTLS = 128

// secure is the TLS of a worker's connections. A connection whose handshake is
// complete has a record.State beside its slot, and nothing else.
type secure struct {
	states     *netpoll.Table[record.State]
	layer      *record.Layer
	handshakes map[uint32]*handshake // under way, by slot
	partial    map[uint32][]byte     // records of which the rest has not arrived, by slot
	sealed     []byte                // for what is written
}

// handshake is a TLS handshake that is under way.
type handshake struct {
	*record.Handshake
	begun  time.Duration
	hungUp bool // the server sends no more
}

// newSecure returns nil if no URL is wss://.
func newSecure(r *run) (*secure, error) {
	if !r.secure() {
		return nil, nil
	}
	states, err := netpoll.NewTable[record.State](r.slots)
	if err != nil {
		return nil, err
	}
	// Ciphers are kept for the connections that send again and again. All others
	// use theirs so rarely that they are derived anew.
	lively := r.talkers / r.config.Workers
	return &secure{
		states: states, layer: record.NewLayer(2*lively + 16),
		handshakes: map[uint32]*handshake{}, partial: map[uint32][]byte{},
	}, nil
}

// secure reports whether a URL is wss://.
func (r *run) secure() bool {
	return slices.ContainsFunc(r.groups, func(g *group) bool {
		return slices.ContainsFunc(g.targets, func(t target) bool { return t.tls != nil })
	})
}

// clientTLS is what the TLS handshakes with one target have in common. With
// resume they have a cache of one ticket, because all users of a target are alike.
func clientTLS(c *tls.Config, host string, resume bool) *record.Config {
	if c == nil {
		c = &tls.Config{}
	}
	c = c.Clone()
	c.ServerName = cmp.Or(c.ServerName, host)
	c.ClientSessionCache = nil
	if resume {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return record.ClientConfig(c)
}

func (w *worker) target(c *client) *target {
	g := w.group(c)
	return &g.targets[g.source(c.user, w.run.config.First)%len(g.targets)]
}

func (w *worker) slot(c *client) uint32 { return w.slots.Token(c).Slot }

// tlsState is for a connection that is secured.
func (w *worker) tlsState(c *client) *record.State { return w.tls.states.At(int(w.slot(c))) }

// startTLS begins c's TLS handshake. Its goroutine gives an order when it has
// something to send.
func (w *worker) startTLS(c *client) {
	token := w.slots.Token(c)
	h := w.target(c).tls.Start(func() { _ = w.mail.Force(order{kind: orderTLS, token: token}, nil) })
	w.tls.handshakes[token.Slot] = &handshake{Handshake: h, begun: w.run.elapsed()}
	c.state = securing
}

// feed brings what c has received to its TLS handshake.
// ended is whether the server sends no more.
func (w *worker) feed(c *client, ended bool) {
	h := w.tls.handshakes[w.slot(c)]
	n, err := netpoll.Read(int(c.FD), w.buf)
	w.count(measure.BytesIn, n)
	switch {
	case err == io.EOF: // the handshake may have to read the server's alert first
		h.hungUp = true
		h.FeedEOF()
		w.setFlag(c, unread, true)
	case err != nil:
		w.hangUp(c, err)
	case n > 0:
		if err := h.Feed(w.buf[:n]); err != nil {
			w.drop(c, measure.Rejected, err)
			return
		}
		if ended || n == len(w.buf) {
			w.feed(c, ended)
		}
	}
}

// progressTLS sends what a TLS handshake has to say, and the request when it has
// ended.
func (w *worker) progressTLS(t netpoll.Token) {
	c := w.slots.Get(t)
	if c == nil || c.state != securing {
		return
	}
	h := w.tls.handshakes[t.Slot]
	out, ended := h.Output()
	if len(out) > 0 {
		w.put(c, out)
	}
	if !ended || c.state == gone {
		return
	}
	result, err := h.Result()
	switch {
	case errors.Is(err, record.ErrHungUp), err == nil && h.hungUp:
		w.drop(c, measure.Reset, cmp.Or(err, io.EOF))
		return
	case err != nil:
		w.drop(c, measure.Rejected, err)
		return
	}
	w.measure(measure.TLS, w.run.elapsed()-h.begun)
	delete(w.tls.handshakes, t.Slot)
	*w.tlsState(c) = result.State
	c.flags |= secured
	if result.Resumed {
		w.count(measure.Resumed, 1)
	}
	if w.request(c); c.state == requested {
		w.openRecords(c, 0, result.Rest)
	}
}

// openRecords opens the records that begin in in, and handles what they carry. The first
// bytes of w.buf, held of them, come before that.
func (w *worker) openRecords(c *client, held int, in []byte) {
	slot := w.slot(c)
	plain, rest, reply, err := w.tls.layer.Open(slot, w.tlsState(c), in)
	if len(rest) > 0 && err == nil {
		w.tls.partial[slot] = bytes.Clone(rest)
	}
	if len(reply) > 0 { // before anything that is sealed after it
		w.put(c, reply)
	}
	if held > 0 {
		plain = append(w.buf[:held], plain...) // a move within buf, or nothing
	}
	if c.state != gone {
		w.parse(c, plain)
	}
	switch {
	case err == nil, c.state == gone:
	case err == record.ErrClosed:
		w.hangUp(c, io.EOF)
	case c.state < open:
		w.drop(c, measure.Rejected, err)
	default:
		w.drop(c, measure.Broken, err)
	}
}

// takePartial moves the beginning of a record to the front of buf and returns its
// length.
func (w *worker) takePartial(c *client, buf []byte) int {
	slot := w.slot(c)
	n := copy(buf, w.tls.partial[slot])
	delete(w.tls.partial, slot)
	return n
}

// seal returns data as c's socket takes it: as it is, or as records, which must be
// sent.
func (w *worker) seal(c *client, data []byte) []byte {
	if !c.is(secured) {
		return data
	}
	w.tls.sealed = w.tls.layer.Seal(w.slot(c), w.tlsState(c), w.tls.sealed[:0], data)
	return w.tls.sealed
}

// closeNotify ends the TLS of a connection on which no more is sent.
func (w *worker) closeNotify(c *client) {
	if c.state == closing && c.is(secured) {
		w.tls.sealed = w.tls.layer.CloseNotify(w.slot(c), w.tlsState(c), w.tls.sealed[:0])
		w.put(c, w.tls.sealed)
	}
}

// forgetTLS erases the keys of a connection that ends, or stops its handshake.
func (w *worker) forgetTLS(c *client) {
	if w.tls == nil {
		return
	}
	slot := w.slot(c)
	if h := w.tls.handshakes[slot]; h != nil {
		h.Stop()
		delete(w.tls.handshakes, slot)
	}
	if c.is(secured) {
		delete(w.tls.partial, slot)
		w.tls.layer.Forget(slot)
		w.tlsState(c).Erase()
	}
}
