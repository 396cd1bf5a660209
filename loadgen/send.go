package loadgen

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// broadcast sends one message, from the first open connection.
func (w *worker) broadcast(o *order) {
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil && c.state == open {
			w.send(c, w.message(c, kindBroadcast, o.number, o.meant))
			w.tally.counts[Sent]++
			return
		}
	}
}

// startEcho makes the first connections send. Without a rate, each of them sends
// at once, and again after each answer; with one, the rotation says when.
func (w *worker) startEcho(o *order) {
	w.echoEnd = o.deadline
	w.polite = rotation{pacer: pacer{o.rate}, begun: w.now, end: o.deadline}
	for i := 0; i < w.slots.High() && o.count > 0; i++ {
		if c := w.slots.At(i); c != nil && c.state == open {
			if o.count--; o.rate == 0 {
				w.ask(c, w.run.elapsed())
			} else {
				w.polite.tokens = append(w.polite.tokens, w.slots.Token(c))
			}
		}
	}
}

// askSome sends the messages that are due. The message of a connection that still
// waits for an answer is omitted, and counted.
func (w *worker) askSome() {
	for n := w.polite.due(w.now); n > 0; n-- {
		token, meant := w.polite.next()
		switch c := w.slots.Get(token); {
		case c == nil || c.state != open:
		case c.is(asked):
			w.tally.counts[Omitted]++
		default:
			w.ask(c, meant)
		}
	}
}

// ask sends a message that the server should echo, and that was meant to be sent at
// a time.
func (w *worker) ask(c *client, meant time.Duration) {
	c.flags |= asked
	c.since = micros(meant)
	w.tally.counts[Asked]++
	w.send(c, w.message(c, kindEcho, 0, meant))
}

func (w *worker) message(c *client, k kind, number uint32, meant time.Duration) message {
	return message{meant: meant, number: number, run: w.run.id, sender: uint16(c.index), kind: k}
}

func (w *worker) send(c *client, m message) {
	m.encode(w.payload)
	op, data := w.body()
	w.writeFrame(c, op, data)
}

// mask is a frame's masking key.
func (w *worker) mask() (key [4]byte) {
	if !w.run.config.Floor {
		binary.NativeEndian.PutUint32(key[:], rand.Uint32())
	}
	return key
}

func (w *worker) writeFrame(c *client, op frame.Op, payload []byte) {
	w.out = frame.AppendMasked(w.out[:0], op, w.mask(), payload)
	w.put(c, w.seal(c, w.out))
}

// put writes bytes, behind those of a flooder that its socket has not taken yet.
func (w *worker) put(c *client, wire []byte) {
	if w.owes(c) {
		f := w.flooder(c)
		f.unsent = append(f.unsent, wire...)
		return
	}
	n, err := netpoll.Write(int(c.FD), wire)
	switch {
	case err != nil:
		w.hangUp(c, err)
	case n < len(wire) && c.state < open: // a socket that takes part of its first kilobytes is broken
		w.drop(c, Failed, io.ErrShortWrite)
	case n < len(wire):
		// The server does not read. If the generator had a queue, that would stay
		// hidden.
		w.drop(c, Stalled, io.ErrShortWrite)
	}
}
