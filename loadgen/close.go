package loadgen

import (
	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// hangUp ends a connection after err on its socket, and counts what that means
// in the connection's state.
func (w *worker) hangUp(c *client, err error) {
	switch c.state {
	case open:
		w.drop(c, Dropped, err)
	case closing:
		w.release(c)
	default:
		w.drop(c, refusal(err), err)
	}
}

// drop ends a connection and counts why. The end of a closing connection is not
// counted: it was counted when closing began, or the generator wanted it.
func (w *worker) drop(c *client, why Counter, err error) {
	if c.state != closing {
		w.tally.fail(w.ending(c, why), err)
	}
	w.release(c)
}

// ending is the counter for c's end. A deaf connection has its own, because
// servers are expected to close those; and so has one that should be opened again.
func (w *worker) ending(c *client, why Counter) Counter {
	switch {
	case c.is(deaf):
		return DeafEnded
	case w.returning(c):
		return RetryFailed
	}
	return why
}

// release closes c's socket and frees its slot.
func (w *worker) release(c *client) {
	w.leave(c)
	w.abandon(c)
	if c.state < open {
		w.ramp.opening--
	}
	w.forget(c)
	w.forgetTLS(c)
	if w.run.config.Floor {
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
	payload := frame.AppendClosePayload(nil, frame.NormalClosure, "")
	for n := 0; n < closeBatch && w.closing < w.slots.High(); w.closing++ {
		c := w.slots.At(w.closing)
		if c == nil {
			continue
		}
		n++
		if c.state != open || w.run.config.Floor || w.owes(c) {
			w.release(c)
			continue
		}
		c.state = closing
		w.writeFrame(c, frame.Close, payload)
	}
}
