package loadgen

import (
	"errors"
	"fmt"
	"io"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/netpoll"
)

// errEnded is what people are told of an io.EOF.
var errEnded = errors.New("the server ended the connection")

// hangUp ends a connection after err on its socket, and counts what that means
// in the connection's state.
func (w *worker) hangUp(c *client, err error) {
	switch c.state {
	case open:
		w.drop(c, measure.Dropped, err)
	case silent:
		w.drop(c, measure.HalfEnded, err)
	case closing:
		w.release(c)
	default:
		w.drop(c, refusal(err), err)
	}
}

// drop ends a connection and counts why. The end of a closing connection is not
// counted: it was counted when closing began, or the generator wanted it.
func (w *worker) drop(c *client, why measure.Counter, err error) {
	if err == io.EOF {
		err = errEnded
	}
	if c.state != closing {
		w.fail(w.ending(c, why), err)
		w.silence(c)
	}
	w.release(c)
}

// ending is the counter for c's end. A deaf connection has its own, because
// servers are expected to close those; and so has one that should be opened again.
func (w *worker) ending(c *client, why measure.Counter) measure.Counter {
	switch {
	case c.is(deaf):
		return measure.DeafEnded
	case c.is(returning):
		return measure.RetryFailed
	}
	return why
}

// closed answers the server's Close frame. The server then closes the TCP connection.
func (w *worker) closed(c *client, payload []byte) {
	code, reason := frame.ParseClose(payload)
	w.fail(w.ending(c, measure.Closed), fmt.Errorf("%d %s", code, reason))
	w.silence(c)
	w.told(c, payload)
	w.close(c)
	w.writeControl(c, frame.Close, payload)
}

// silence takes note that the server has ended a connection, if that was the last to
// publish.
func (w *worker) silence(c *client) {
	if w.slots.Token(c) == w.publication.from {
		w.public.silenced.Add(1)
	}
}

// close takes note that c says no more after its Close frame.
func (w *worker) close(c *client) {
	if c.state == open {
		w.opens[c.group]--
	}
	c.state, c.since = closing, micros(w.now)
	w.goodbyes++
}

// release closes c's socket and frees its slot.
func (w *worker) release(c *client) {
	w.leave(c)
	switch {
	case c.state < silent:
		w.opened(c)
	case c.state == open:
		w.opens[c.group]--
	case c.state == closing:
		w.goodbyes--
	}
	w.forgetTalk(c)
	w.forget(c)
	w.forgetTLS(c)
	if w.run.config.Floor || c.is(abrupt) {
		netpoll.Reset(int(c.FD))
	} else {
		netpoll.Close(int(c.FD))
	}
	c.state = gone
	w.slots.Put(c)
}

// closeBatch is how many connections begin to close in one turn.
const closeBatch = 256

// closeSome starts the closing handshake on the next connections.
func (w *worker) closeSome() {
	if w.closing < 0 {
		return
	}
	for n := 0; n < closeBatch && w.closing < w.slots.High(); w.closing++ {
		c := w.slots.At(w.closing)
		if c == nil {
			continue
		}
		n++
		if t := w.talks.At(c.talk); c.state != open || t != nil && len(t.unsent) > 0 {
			w.release(c)
			continue
		}
		w.sayGoodbye(c)
	}
}
