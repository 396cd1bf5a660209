package loadgen

import (
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// flooder is the state of a connection that sends without waiting for answers.
type flooder struct {
	token  netpoll.Token
	sent   uint32 // messages
	got    uint32 // answers, which come in order
	unsent []byte // frames or records, or the rest of them, that its socket has not taken yet
}

const (
	// floodBuffer is a flooding socket's send buffer, in bytes. It is small, as
	// is what waits in the socket of a person who clicks. The kernel would let
	// it grow to megabytes.
	floodBuffer = 8 << 10
	// floodFrames is how many frames are written at a time.
	floodFrames = 32
	// floodersMost is how many flooders a worker can have: a slot has 16 bits
	// for their index.
	floodersMost = 1<<16 - 1
)

// rotation makes connections send one after the other, at a rate, until an end.
// The zero rotation makes none send.
type rotation struct {
	pacer
	begun, end time.Duration
	sent       int // messages since begun
	tokens     []netpoll.Token
	last       int // index into tokens
}

// over reports whether nothing is to be sent at now or later.
func (r *rotation) over(now time.Duration) bool {
	return len(r.tokens) == 0 || r.rate == 0 || now >= r.end
}

// due returns how many messages are to be sent at now.
func (r *rotation) due(now time.Duration) int {
	if r.over(now) {
		return 0
	}
	return r.pacer.due(now-r.begun) - r.sent
}

// wait returns how long it is until the next message is due, -1 if none will be.
func (r *rotation) wait(now time.Duration) time.Duration {
	if r.over(now) {
		return -1
	}
	return r.pacer.wait(now-r.begun, r.sent)
}

// next returns the connection that sends the next message, and when that is due.
func (r *rotation) next() (netpoll.Token, time.Duration) {
	meant := r.begun + r.pacer.at(r.sent)
	r.sent++
	r.last = (r.last + 1) % len(r.tokens)
	return r.tokens[r.last], meant
}

// startFlood makes the last connections send: at a rate, which they share, or as
// fast as the server takes it.
func (w *worker) startFlood(o *order) {
	w.floods = rotation{pacer: pacer{o.rate}, begun: w.now, end: o.deadline}
	for i := w.slots.High() - 1; i >= 0 && o.count > 0; i-- {
		c := w.slots.At(i)
		if c == nil || c.state != open {
			continue
		}
		o.count--
		t := w.slots.Token(c)
		w.flooders = append(w.flooders, flooder{token: t})
		w.floods.tokens = append(w.floods.tokens, t)
		c.flood = uint16(len(w.flooders))
		netpoll.SetSendBuffer(int(c.FD), floodBuffer)
		if o.rate == 0 {
			w.pour(c)
		}
	}
}

func (w *worker) flooder(c *client) *flooder { return &w.flooders[c.flood-1] }

// owes reports whether c is a flooder with bytes that its socket has not taken.
func (w *worker) owes(c *client) bool { return c.flood != 0 && len(w.flooder(c).unsent) > 0 }

// floodSome sends the messages that are due.
func (w *worker) floodSome() {
	for n := w.floods.due(w.now); n > 0; n-- {
		token, meant := w.floods.next()
		if c := w.slots.Get(token); c != nil && c.state == open {
			f := w.flooder(c)
			full := len(f.unsent) > 0 // an event will say when the socket takes more
			w.floodFrame(c, f, meant)
			if !full {
				w.pour(c)
			}
		}
	}
}

// floodFrame adds a frame to the unsent ones of c's flooder f, which was meant to be
// sent at a time.
func (w *worker) floodFrame(c *client, f *flooder, meant time.Duration) {
	w.message(c, kindFlood, f.sent, meant).encode(w.payload)
	op, data := w.body()
	w.out = frame.AppendMasked(w.out[:0], op, w.mask(), data)
	f.unsent = append(f.unsent, w.seal(c, w.out)...)
	f.sent++
	w.tally.counts[Flooded]++
}

// pour writes what c's socket takes of the unsent frames. In a flood without a
// rate it first makes new frames if none are left.
func (w *worker) pour(c *client) {
	f := w.flooder(c)
	if len(f.unsent) == 0 && w.floods.rate == 0 && w.now < w.floods.end {
		for range floodFrames {
			w.floodFrame(c, f, w.run.elapsed())
		}
	}
	n, err := netpoll.Write(int(c.FD), f.unsent)
	if err != nil {
		w.hangUp(c, err)
		return
	}
	f.unsent = append(f.unsent[:0], f.unsent[n:]...)
	interest := netpoll.In
	if len(f.unsent) > 0 || w.floods.rate == 0 && w.now < w.floods.end {
		interest |= netpoll.Out
	}
	if err := w.poller.Modify(int(c.FD), f.token, interest); err != nil {
		w.drop(c, Failed, err)
	}
}

// answered counts an answer to a flooder.
func (w *worker) answered(c *client, m message, now time.Duration) {
	if c.flood == 0 {
		w.tally.counts[Foreign]++
		return
	}
	if w.inOrder(m.number, &w.flooder(c).got, Missed) {
		w.tally.counts[Answered]++
		w.tally.measure(w.tally.flood, now-m.meant)
	}
}

// abandon counts the unanswered messages of a flooder that ends.
func (w *worker) abandon(c *client) {
	if c.flood != 0 {
		f := w.flooder(c)
		w.tally.counts[Abandoned] += uint64(f.sent - f.got)
		f.unsent = nil
	}
}

// deafen stops reading from the last connections.
func (w *worker) deafen(count int) {
	for i := w.slots.High() - 1; i >= 0 && count > 0; i-- {
		if c := w.slots.At(i); c != nil && c.state == open {
			c.flags |= deaf
			w.poll(c, 0)
			count--
		}
	}
}

// undeafen reads from the deaf connections again.
func (w *worker) undeafen() {
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil && c.is(deaf) {
			w.poll(c, netpoll.In)
		}
	}
}

// poll changes what c's socket waits for.
func (w *worker) poll(c *client, interest netpoll.Interest) {
	if err := w.poller.Modify(int(c.FD), w.slots.Token(c), interest); err != nil {
		w.drop(c, Failed, err)
	}
}
