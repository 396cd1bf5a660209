package loadgen

import (
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// flooder is what a connection needs that sends without waiting for answers.
type flooder struct {
	token  netpoll.Token
	sent   uint32 // messages
	got    uint32 // answers, which come in order
	unsent []byte // of frames that its socket has not taken yet
}

const (
	// floodBuffer is a flooding socket's send buffer, in bytes: as much as
	// waits where people click. The kernel's own would be megabytes.
	floodBuffer = 8 << 10
	// floodFrames is how many frames are written at a time.
	floodFrames = 32
	// floodersMost is how many a worker can have: their index has to fit a slot.
	floodersMost = 1<<16 - 1
)

// turns lets connections do something in turn, at a rate.
type turns struct {
	pacer
	begun, end time.Duration
	done       int
	tokens     []netpoll.Token
	next       int
}

// over reports that there are no turns to take, at now or later.
func (t *turns) over(now time.Duration) bool {
	return len(t.tokens) == 0 || t.rate == 0 || now >= t.end
}

// due is how many turns there are to take at now.
func (t *turns) due(now time.Duration) int {
	if t.over(now) {
		return 0
	}
	return t.pacer.due(now-t.begun) - t.done
}

// wait is how long it is until the next turn, -1 if there is none.
func (t *turns) wait(now time.Duration) time.Duration {
	if t.over(now) {
		return -1
	}
	return t.pacer.wait(now-t.begun, t.done)
}

func (t *turns) take() netpoll.Token {
	t.done++
	t.next = (t.next + 1) % len(t.tokens)
	return t.tokens[t.next]
}

// startFlood makes the last connections send as fast as the server takes it,
// or at a rate all together.
func (w *worker) startFlood(o *order) {
	w.floods = turns{pacer: pacer{o.rate}, begun: w.now, end: o.deadline}
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

// floodSome sends the messages that are due.
func (w *worker) floodSome() {
	for n := w.floods.due(w.now); n > 0; n-- {
		if c := w.slots.Get(w.floods.take()); c != nil && c.state == open {
			f := w.flooder(c)
			waits := len(f.unsent) > 0
			w.floodFrame(f)
			if !waits { // or else the socket tells when
				w.pour(c)
			}
		}
	}
}

// floodFrame adds a frame to those that f has not sent.
func (w *worker) floodFrame(f *flooder) {
	message{meant: w.run.elapsed(), number: f.sent, kind: kindFlood}.encode(w.payload)
	f.unsent = frame.AppendMasked(f.unsent, frame.Binary, w.mask(), w.payload)
	f.sent++
	w.tally.counts[Flooded]++
}

// pour writes what c's socket takes, and more until the flood ends.
func (w *worker) pour(c *client) {
	f := w.flooder(c)
	if len(f.unsent) == 0 && w.floods.rate == 0 && w.now < w.floods.end {
		for range floodFrames {
			w.floodFrame(f)
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

// answered takes note of an answer to a flooder.
func (w *worker) answered(c *client, m message, now time.Duration) {
	if c.flood == 0 {
		w.tally.counts[Foreign]++
		return
	}
	if w.inOrder(m.number, &w.flooder(c).got, Missed) {
		w.tally.counts[Answered]++
		record(w.tally.flood, now-m.meant)
	}
}

// abandon counts what a flooder that ends will never be answered.
func (w *worker) abandon(c *client) {
	if c.flood != 0 {
		f := w.flooder(c)
		w.tally.counts[Abandoned] += uint64(f.sent - f.got)
		f.unsent = nil
	}
}

// deafen stops reading from the last connections, hear goes on.
func (w *worker) deafen(count int) {
	for i := w.slots.High() - 1; i >= 0 && count > 0; i-- {
		if c := w.slots.At(i); c != nil && c.state == open {
			c.flags |= deaf
			w.listen(c, 0)
			count--
		}
	}
}

func (w *worker) hear() {
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil && c.is(deaf) {
			w.listen(c, netpoll.In)
		}
	}
}

func (w *worker) listen(c *client, interest netpoll.Interest) {
	if err := w.poller.Modify(int(c.FD), w.slots.Token(c), interest); err != nil {
		w.drop(c, Failed, err)
	}
}
