package loadgen

import "github.com/seed-134acfd0/lull/frame"

// partial is what a connection needs only while something is incomplete.
type partial struct {
	parse frame.State
	raw   []byte
	whole []byte
}

// frames handles what the server sends.
func (w *worker) frames(c *client, in []byte) []byte {
	var between frame.State
	parse, p := &between, w.partial(c)
	if p != nil {
		parse = &p.parse
	}
	for len(in) > 0 && c.state != gone {
		ev, n, err := w.parser.Next(parse, in)
		if err != nil {
			w.drop(c, Broken, err)
			return nil
		}
		if n == 0 {
			break
		}
		in = in[n:]
		switch {
		case ev.Op.Control():
			w.control(c, ev)
		case ev.Whole:
			w.receive(c, ev.Payload)
		default:
			if p == nil {
				p = w.needPartial(c)
				p.parse = between
				parse = &p.parse
			}
			if p.whole = append(p.whole, ev.Payload...); ev.Last {
				w.receive(c, p.whole)
				p.whole = p.whole[:0]
			}
		}
	}
	if c.state != gone && !parse.Idle() {
		w.needPartial(c).parse = *parse
	}
	return in
}

// receive takes note of a message.
func (w *worker) receive(c *client, payload []byte) {
	now := w.run.elapsed()
	m, ok := decode(payload, w.run.config.Size)
	switch {
	case !ok:
		w.tally.counts[Foreign]++
	case m.kind == kindFlood:
		w.answered(c, m, now)
	case m.kind == kindBroadcast && c.is(deaf):
		if w.inOrder(m.number, &c.got, DeafMissed) {
			w.tally.counts[DeafReceived]++
		}
	case m.kind == kindBroadcast:
		if w.inOrder(m.number, &c.got, Missed) {
			w.tally.counts[Received]++
			record(w.tally.broadcast, now-m.meant)
			w.public.lastRecv.Store(int64(now))
		}
	case !c.is(asked):
		w.tally.counts[Repeated]++
	default:
		c.flags &^= asked
		w.tally.counts[Echoes]++
		record(w.tally.echo, now-m.meant)
		if now < w.echoEnd && w.polite.rate == 0 {
			w.ask(c, now)
		}
	}
}

// inOrder takes note of a numbered message of a series of which got have come.
// Those between are lost, or come later and count as repeated: it is false for
// one of these.
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
			w.tally.counts[c.ending(Closed)]++
			c.state = closing // the server ends the TCP connection
			w.writeFrame(c, frame.Close, ev.Payload)
		}
	}
}

func (w *worker) partial(c *client) *partial {
	if c.partial == 0 {
		return nil
	}
	return &w.partials[c.partial-1]
}

func (w *worker) needPartial(c *client) *partial {
	if c.partial == 0 {
		if n := len(w.unused); n > 0 {
			c.partial, w.unused = w.unused[n-1], w.unused[:n-1]
		} else {
			w.partials = append(w.partials, partial{})
			c.partial = uint32(len(w.partials))
		}
	}
	return w.partial(c)
}

// keep stores what the next read of c needs.
func (w *worker) keep(c *client, raw []byte) {
	p := w.partial(c)
	if len(raw) > 0 {
		p = w.needPartial(c)
	}
	switch {
	case p == nil:
	case len(raw) == 0 && p.parse.Idle():
		w.partials[c.partial-1] = partial{}
		w.unused = append(w.unused, c.partial)
		c.partial = 0
	default:
		p.raw = append(p.raw[:0], raw...)
	}
}
