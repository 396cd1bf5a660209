package loadgen

import (
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/wire"
	"github.com/seed-134acfd0/lull/netpoll"
)

// readsMost is how many full buffers a connection may fill in one turn.
const readsMost = 8

// read reads what c has, and records how long it may have been ready before that, which is since
// a time. ended is whether the server sends no more.
func (w *worker) read(c *client, ready time.Duration, ended bool) {
	for range readsMost {
		if n, full := w.readOnce(c, ready); c.state == gone || c.is(unread) || n == 0 || !full && !ended {
			return
		}
	}
	w.resume(c, true, ended)
}

// readOnce reads n bytes, and reports whether that is as many as it asked for, so that
// there may be more.
func (w *worker) readOnce(c *client, ready time.Duration) (n int, full bool) {
	if c.is(unread) {
		return 0, false
	}
	held := w.stream(c).Take(w.buf)
	from := held
	if c.is(secured) {
		from += w.takePartial(c, w.buf[held:])
	}
	room := w.buf[from:]
	if rate := w.readRate(c); rate > 0 {
		room = room[:min(len(room), sip(rate))]
	}
	n, err := netpoll.Read(int(c.FD), room)
	if err != nil {
		w.hangUp(c, err)
		return 0, false
	}
	if c.state == silent { // no request was sent, so it is no answer
		return n, n == len(room)
	}
	w.now = w.run.elapsed()
	w.count(measure.BytesIn, n)
	w.measure(measure.Lag, w.now-ready)
	if c.is(secured) {
		w.openRecords(c, held, w.buf[held:from+n])
	} else {
		w.parse(c, w.buf[:held+n])
	}
	if rate := w.readRate(c); n > 0 && c.state != gone && rate > 0 {
		w.readLater(c, n, rate)
	}
	return n, n == len(room)
}

// sipEvery is how often a connection that is read slowly is read, if its rate allows a
// byte in that time.
const sipEvery = 100 * time.Millisecond

// readRate is how many bytes c reads a second, 0 for no limit. Nobody is slow to leave.
func (w *worker) readRate(c *client) int {
	if c.state == closing {
		return 0
	}
	return w.group(c).ReadRate
}

// sip is how many bytes are read at a time, at a rate a second.
func sip(rate int) int { return max(1, rate/int(time.Second/sipEvery)) }

// readLater reads c again when the n bytes that were read have taken their time.
func (w *worker) readLater(c *client, n, rate int) {
	w.setFlag(c, unread, true)
	w.set(c, w.present(w.now)+time.Duration(n)*time.Second/time.Duration(rate), readAgain)
}

func (w *worker) readAgain(c *client) {
	if !c.is(deaf) || w.undeaf {
		w.setFlag(c, unread, false)
	}
}

// parse handles the bytes in that c has received, and keeps an incomplete rest.
func (w *worker) parse(c *client, in []byte) {
	if c.state == requested {
		in = w.response(c, in)
	}
	if c.state == open || c.state == closing {
		in = w.frames(c, in)
	}
	if c.state == gone {
		w.fresh.Reset()
		return
	}
	w.keep(c, in)
}

// frames handles messages and control frames. It returns what is left of in.
func (w *worker) frames(c *client, in []byte) []byte {
	s, parser := w.stream(c), w.parser
	if w.group(c).Compress {
		parser = w.compression.parser
	}
	for c.state != gone && len(in) > 0 {
		ev, n, err := parser.Message(s, in)
		if err == nil && ev.Deflated {
			ev.Payload, err = w.compression.inflater.Message(ev.Op, ev.Payload, messageMax)
		}
		if err != nil {
			w.drop(c, measure.Broken, err)
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

// receive counts a message and measures how long it took.
func (w *worker) receive(c *client, op frame.Op, payload []byte) {
	now := w.now
	if m, ok := wire.Decode(payload); ok && op == frame.Binary && (m.Kind != wire.Told || m.Run != w.run.id) {
		w.receiveOwn(c, m, now)
		return
	}
	if a := &w.run.announced; a.any.Load() {
		if m, ok := a.find(op, payload, c.got, c.is(missing)); ok {
			w.receivePublished(c, m.number, m.meant, now)
			return
		}
	}
	if t := w.talks.At(c.talk); t == nil || !w.hear(c, t, op, payload, now) {
		w.count(measure.Foreign, 1)
		w.reply(c, payload)
	}
}

// reply sends what Config.Reply has to say to a message.
func (w *worker) reply(c *client, message []byte) {
	reply := w.run.config.Reply
	if reply == nil || c.state != open {
		return
	}
	if w.payload = reply(int(c.user), w.payload[:0], message); len(w.payload) > 0 {
		w.write(c, frame.Text)
	}
}

// receiveOwn counts a message that some run's generator made.
func (w *worker) receiveOwn(c *client, m wire.Message, now time.Duration) {
	t := w.talks.At(c.talk)
	switch {
	case m.Run != w.run.id:
		w.count(measure.Strayed, 1)
	case m.Kind == wire.Published && w.group(c).Rooms > 0 && m.Sender != uint16(w.room(c)):
		w.count(measure.Strayed, 1)
	case m.Kind == wire.Published:
		w.receivePublished(c, m.Number, m.Meant, now)
	case m.Sender != uint16(c.user), t == nil, m.Number >= t.asked:
		w.count(measure.Strayed, 1)
	default:
		if missed, ok := w.inOrder(m.Number, &t.got, measure.Missed); ok {
			w.owe(t, -missed)
			w.answered(c, t, m.Meant, now)
		}
	}
}

// receivePublished counts a published message.
func (w *worker) receivePublished(c *client, number uint32, meant, now time.Duration) {
	if c.is(missing) {
		c.flags &^= missing
		c.got = number
	}
	received, missed := measure.Received, measure.Missed
	switch {
	case c.is(deaf):
		received, missed = measure.DeafReceived, measure.DeafMissed
	case !w.expecting.has(c.group): // a chat may send it to everybody
		w.count(measure.Overheard, 1)
		return
	}
	if _, ok := w.inOrder(number, &c.got, missed); !ok {
		return
	}
	w.count(received, 1)
	if !c.is(deaf) {
		w.measure(measure.Broadcast, now-meant)
		w.lastRecv = now
	}
}

// inOrder counts a message of a numbered series whose next number should be *got.
// Messages that were skipped count as missed. A number below *got was received
// before, or skipped before: it counts as repeated, and ok is false.
func (w *worker) inOrder(number uint32, got *uint32, counter measure.Counter) (missed int, ok bool) {
	if number < *got {
		w.count(measure.Repeated, 1)
		return 0, false
	}
	missed = int(number - *got)
	w.count(counter, missed)
	*got = number + 1
	return missed, true
}

// control answers a control frame.
func (w *worker) control(c *client, ev frame.Event) {
	switch ev.Op {
	case frame.Ping:
		if !w.group(c).Mute {
			w.writeControl(c, frame.Pong, ev.Payload)
		}
	case frame.Pong:
		w.ponged(ev.Payload)
	case frame.Close:
		if c.state == open {
			w.closed(c, ev.Payload)
		}
		if c.state != gone {
			w.closeNotify(c)
		}
	}
}

// stream returns c's stream. That of all who have nothing incomplete is the same.
func (w *worker) stream(c *client) *frame.Stream {
	if c.stream == 0 {
		return &w.fresh
	}
	return w.streams.At(c.stream)
}

// keep keeps what is incomplete at the end of a read: the rest of what was read, and the
// beginning of a message.
func (w *worker) keep(c *client, rest []byte) {
	s := w.stream(c)
	switch s.Keep(rest); {
	case s.Idle():
		w.forget(c)
	case c.stream == 0:
		c.stream = w.streams.Take()
		own := w.streams.At(c.stream)
		*own, w.fresh = w.fresh, *own
	}
}

// forget puts c's stream back into the pool.
func (w *worker) forget(c *client) {
	if c.stream != 0 {
		w.streams.Put(c.stream)
		c.stream = 0
	}
}
