package loadgen

import "github.com/seed-134acfd0/lull/frame"

// parse handles the bytes in that c has received, and keeps an incomplete rest.
func (w *worker) parse(c *client, in []byte) {
	if c.state == requested {
		in = w.response(c, in)
	}
	if c.state == open || c.state == closing {
		in = w.frames(c, in)
	}
	if c.state == gone {
		return
	}
	s := w.stream(c)
	if s.Keep(in); s.Idle() {
		w.forget(c)
	}
}

// frames handles messages and control frames. It returns what is left of in.
func (w *worker) frames(c *client, in []byte) []byte {
	s := w.stream(c)
	for c.state != gone {
		ev, n, err := w.parser.Message(s, in)
		if err == nil && ev.Deflated {
			ev.Payload, err = w.inflater.Message(ev.Op, ev.Payload, messageMax)
		}
		if err != nil {
			w.drop(c, Broken, err)
			return nil
		}
		switch in = in[n:]; {
		case n == 0: // more has to arrive first
			return in
		case ev.Op == 0: // a piece of a message
		case ev.Op.Control():
			w.control(c, ev)
		default:
			w.receive(c, ev.Op, ev.Payload)
		}
	}
	return nil
}

// receive counts a message and measures its latency.
func (w *worker) receive(c *client, op frame.Op, payload []byte) {
	now := w.run.elapsed()
	m, ok := decode(payload, w.run.config.Size)
	ok = ok && op == frame.Binary
	if ok && m.run == w.run.id && m.kind == kindBroadcast && c.is(missing) {
		c.flags &^= missing
		c.got = m.number
	}
	switch {
	case !ok:
		w.tally.counts[Foreign]++
	case m.run != w.run.id, m.kind != kindBroadcast && m.sender != uint16(c.index):
		w.tally.counts[Strayed]++
	case m.kind == kindFlood:
		w.answered(c, m, now)
	case m.kind == kindBroadcast && c.is(deaf):
		if w.inOrder(m.number, &c.got, DeafMissed) {
			w.tally.counts[DeafReceived]++
		}
	case m.kind == kindBroadcast:
		if w.inOrder(m.number, &c.got, Missed) {
			w.tally.counts[Received]++
			w.tally.measure(w.tally.broadcast, now-m.meant)
			w.public.lastRecv.Store(int64(now))
		}
	case !c.is(asked), micros(m.meant) != c.since:
		w.tally.counts[Repeated]++
	default:
		c.flags &^= asked
		w.tally.counts[Echoes]++
		w.tally.measure(w.tally.echo, now-m.meant)
		if now < w.echoEnd && w.polite.rate == 0 {
			w.ask(c, now)
		}
	}
}

// inOrder counts a message of a numbered series whose next number should be *got.
// Messages that were skipped count as missed. A number below *got was received
// before, or skipped before: it counts as repeated, and inOrder returns false.
func (w *worker) inOrder(number uint32, got *uint32, missed Counter) bool {
	if number < *got {
		w.tally.counts[Repeated]++
		return false
	}
	w.tally.counts[missed] += uint64(number - *got)
	*got = number + 1
	return true
}

// control answers a control frame.
func (w *worker) control(c *client, ev frame.Event) {
	switch ev.Op {
	case frame.Ping:
		w.writeFrame(c, frame.Pong, ev.Payload)
	case frame.Close:
		if c.state == open {
			w.tally.counts[w.ending(c, Closed)]++
			w.told(c, ev.Payload)
			c.state = closing // the server closes the TCP connection
			w.writeFrame(c, frame.Close, ev.Payload)
		}
		w.closeNotify(c)
	}
}

// stream returns c's stream. If c has none, it takes one from the pool.
func (w *worker) stream(c *client) *frame.Stream {
	if c.stream == 0 {
		c.stream = w.streams.Take()
	}
	return w.streams.At(c.stream)
}

// forget puts c's stream back into the pool.
func (w *worker) forget(c *client) {
	if c.stream != 0 {
		w.streams.Put(c.stream)
		c.stream = 0
	}
}
