package loadgen

import (
	"encoding/binary"
	"io"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/wire"
	"github.com/seed-134acfd0/lull/netpoll"
)

// publish sends a message that everybody should receive.
func (w *worker) publish(c *client, m *message, number uint32, meant time.Duration) {
	w.fill(c, m, wire.Published, number, meant)
	if m.Text != nil {
		w.run.announced.add(m, w.payload, number, meant, w.values(c, number))
	}
	w.count(measure.Sent, 1)
	w.write(c, m.op)
}

// write sends w.payload as a message: compressed, if the server has agreed to that and it
// is shorter then, and in fragments, if c's group wants that.
func (w *worker) write(c *client, op frame.Op) {
	payload, g := w.payload, w.group(c)
	if g.Compress {
		op, payload = w.compression.body(op, payload)
	}
	w.out = w.out[:0]
	for g.Fragment > 0 && len(payload) > g.Fragment {
		w.out = frame.AppendFragment(w.out, op, false, w.mask(), payload[:g.Fragment])
		op, payload = frame.Continuation, payload[g.Fragment:]
	}
	w.out = frame.AppendFragment(w.out, op, true, w.mask(), payload)
	w.put(c, w.seal(c, w.out))
}

// mask is a frame's masking key.
func (w *worker) mask() (key [4]byte) {
	if !w.run.config.Floor {
		binary.NativeEndian.PutUint32(key[:], w.random.Uint32())
	}
	return key
}

// writeControl sends a control frame.
func (w *worker) writeControl(c *client, op frame.Op, payload []byte) {
	w.out = frame.AppendMasked(w.out[:0], op, w.mask(), payload)
	w.put(c, w.seal(c, w.out))
}

// put writes bytes, behind those that c's socket has not taken yet.
func (w *worker) put(c *client, wire []byte) {
	if t := w.talks.At(c.talk); t != nil && (w.corked || len(t.unsent) > 0) {
		w.queue(c, t, wire)
		return
	}
	n, err := netpoll.Write(int(c.FD), wire)
	w.count(measure.BytesOut, n)
	switch {
	case err != nil:
		w.hangUp(c, err)
	case n == len(wire):
	case c.state < open: // a socket that takes part of its first kilobytes is broken
		w.drop(c, measure.Failed, io.ErrShortWrite)
	default:
		t := w.takeTalk(c)
		if w.queue(c, t, wire[n:]); c.state != gone {
			w.setFlag(c, writing, true)
		}
	}
}

// queue keeps bytes until c's socket takes them. A server that does not read for long
// ends the connection: a longer queue would hide it.
func (w *worker) queue(c *client, t *talk, wire []byte) {
	if len(t.unsent)+len(wire) > unsentMost {
		w.drop(c, measure.Stalled, io.ErrShortWrite)
		return
	}
	t.unsent = append(t.unsent, wire...)
}

// pour writes what c has kept, and then goes on with its stream.
func (w *worker) pour(c *client) {
	t := w.talks.At(c.talk)
	if t == nil || len(t.unsent) > 0 && !w.flush(c, t) {
		return
	}
	switch {
	case c.state != open:
	case t.stream != nil:
		w.more(c, t)
	case t.scripted && t.timer == 0: // it waits for the socket alone
		w.step(c, t)
	}
}

// flush writes what c has kept. It reports whether the socket took all of it; if not, an
// event will tell when it takes more.
func (w *worker) flush(c *client, t *talk) bool {
	n, err := netpoll.Write(int(c.FD), t.unsent)
	w.count(measure.BytesOut, n)
	if err != nil {
		w.hangUp(c, err)
		return false
	}
	t.unsent = append(t.unsent[:0], t.unsent[n:]...)
	w.setFlag(c, writing, len(t.unsent) > 0)
	return len(t.unsent) == 0 && c.state != gone
}

// setFlag changes a flag on which it depends what c's socket waits for.
func (w *worker) setFlag(c *client, f flags, on bool) {
	if c.is(f) == on {
		return
	}
	c.flags ^= f
	w.watch(c)
}

// watch tells the kernel what c's socket waits for. What it is ready for already is
// reported at once.
func (w *worker) watch(c *client) {
	want := netpoll.EdgeTriggered
	if !c.is(unread) {
		want |= netpoll.In
	}
	if c.is(writing) {
		want |= netpoll.Out
	}
	if err := w.poller.Modify(int(c.FD), w.slots.Token(c), want); err != nil {
		w.drop(c, measure.Failed, err)
	}
}

// delayed is a connection for which there was no time in this turn of the loop.
type delayed struct {
	token netpoll.Token
	reads bool // it has more to read, otherwise more to send
	ended bool // it has all to read that it ever will
}

// resume has c served again in the next turn, after others.
func (w *worker) resume(c *client, reads, ended bool) {
	w.later = append(w.later, delayed{w.slots.Token(c), reads, ended})
}

// serveAgain serves the connections for which there was no time in the turn before, which began
// at a time.
func (w *worker) serveAgain(before time.Duration) {
	later := w.later
	w.later = w.served[:0]
	for _, next := range later {
		switch c := w.slots.Get(next.token); {
		case c == nil:
		case next.reads:
			w.read(c, before, next.ended)
		default:
			w.pour(c)
		}
	}
	w.served = later
}

// pingSome sends the Pings that are due: each group's hand goes over its connections once in
// Ping's time, so that they are spread evenly.
func (w *worker) pingSome() {
	for i := range w.hands {
		h := &w.hands[i]
		if w.paused || w.closing >= 0 || h.every == 0 {
			continue
		}
		from, to := h.next(w.slots.High(), w.now)
		for slot := from; slot < to; slot++ {
			if c := w.slots.At(slot); c != nil && c.state == open && int(c.group) == i {
				w.ping(c)
			}
		}
	}
}

// hand goes over all slots once in a time, evenly.
type hand struct {
	every time.Duration // 0 if it does not
	begun time.Duration // when the round began
	at    int           // the next slot
}

// next moves the hand to where it should be at now, of the first high slots, and returns those
// that it passes. Rounds that nobody looked at are left out.
func (h *hand) next(high int, now time.Duration) (from, to int) {
	late := now - h.begun
	from, to = h.at, max(h.at, min(high, int(float64(high)*float64(late)/float64(h.every))))
	h.at = to
	if late >= h.every {
		h.begun, h.at = h.begun+late/h.every*h.every, 0
	}
	return from, to
}

// pingEvery is how often some of the Pings are sent.
const pingEvery = 50 * time.Millisecond

func (w *worker) untilPing() time.Duration {
	if !w.pings || w.paused || w.closing >= 0 || w.slots.Used() == 0 {
		return -1
	}
	return pingEvery
}

// ping sends a Ping that carries the time, and this run's number.
func (w *worker) ping(c *client) {
	var payload [pingSize]byte
	binary.BigEndian.PutUint64(payload[:], uint64(w.now))
	binary.BigEndian.PutUint16(payload[8:], w.run.id)
	w.count(measure.Pinged, 1)
	w.writeControl(c, frame.Ping, payload[:])
}

const pingSize = 10

// ponged measures how long a Pong took. One that answers none of our Pings is allowed
// (RFC 6455 section 5.5.3), and nothing is measured.
func (w *worker) ponged(payload []byte) {
	if len(payload) == pingSize && binary.BigEndian.Uint16(payload[8:]) == w.run.id {
		w.count(measure.Ponged, 1)
		w.measure(measure.Pong, w.run.elapsed()-time.Duration(binary.BigEndian.Uint64(payload)))
	}
}
