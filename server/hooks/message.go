package hooks

import (
	"bytes"
	"math/rand/v2"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// message is one that a backend is told of.
//
//	deliver ──▶ in the line ──a turn──▶ on its way ──answered, refused or lost──▶ over
//	                 ▲                      │ not taken, or to be sent again
//	                 └────after a pause────held
//
// A held message has its body for itself, and its connection may end meanwhile.
type message struct {
	delivery server.Delivery // done when the message is over or held
	id       string
	conn     string // what its connection is called to the outside
	user     string
	body     []byte    // the delivery's, or a copy once it is held
	since    time.Time // when it began to wait for its turn

	// guarded by the backend's mu
	next   *message    // in the line
	held   bool        // the connection's next one waits until this one is over
	trying bool        // it is held, and in the line or on its way
	tries  int         // that have failed
	last   *disconnect // what comes after it, if its connection has ended
}

// ready reports whether the backend of c takes a message now.
func (h *Hooks) ready(c server.Conn) bool { return h.backends[h.names.backend(c.Tag())].ready(c) }

// deliver passes a message to its backend, which passes the answer to the client.
func (h *Hooks) deliver(d server.Delivery) {
	n := h.names.get(d.Conn.Tag())
	b := h.backends[n.backend]
	m := &message{delivery: d, id: h.number(), conn: h.externalID(d.Conn, &n), user: n.user, body: d.Data}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.post(m)
}

// Types of messages.
const (
	contentText   = "text/plain; charset=utf-8"
	contentBinary = "application/octet-stream"
)

func (m *message) content() string {
	if m.delivery.Op == frame.Binary {
		return contentBinary
	}
	return contentText
}

// post puts a message into the line. It needs mu.
func (b *backend) post(m *message) {
	m.since = time.Now()
	b.line.add(m)
	b.wake()
}

// wake has a caller gather messages, if there are any and none is about to. One at a time
// does, so that more can come meanwhile. It needs mu.
func (b *backend) wake() {
	switch {
	case b.line.len == 0 || b.gathering:
	case b.idle > 0:
		b.gathering = true
		b.idle--
		b.called.Signal()
	case b.callers < b.limit:
		b.gathering = true
		b.callers++
		go b.caller()
	}
}

// caller makes calls of messages, when it is their turn.
func (b *backend) caller() {
	for more := true; more; more = b.rest() {
		at, err := b.turn(0)
		together, f := b.gather(), fateUnsent
		switch {
		case err == nil && len(together) == 0: // it is the end
			<-b.turns
		case err == nil:
			b.turnTime.AddTime(at.Sub(together[0].since))
			f, err = b.make(b.callOf(together), at, b.timeout, func(a answer) { b.answer(together, a) })
		}
		b.settle(together, f, err)
	}
}

// gather takes the messages of a call.
func (b *backend) gather() (together []*message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	together = b.line.take(b.batch)
	b.gathering = false
	b.wake()
	return together
}

// rest waits until a caller has to gather messages again. It returns false at the end.
func (b *backend) rest() (more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.line.len > 0 && !b.gathering:
		b.gathering = true
	case b.ctx.Err() != nil:
		b.callers--
		return false
	default:
		b.idle++
		b.called.Wait()
	}
	return true
}

// callOf is the call of a message, or of a batch.
func (b *backend) callOf(together []*message) *call {
	m := together[0]
	if b.batch == 1 {
		return &call{event: eventMessage, id: m.id, connection: m.conn, user: escape(m.user), content: m.content(), body: m.body}
	}
	return &call{event: eventMessages, id: m.id, content: "application/json", body: batchOf(together)}
}

// settle counts what became of messages, and holds those that have to be sent again.
func (b *backend) settle(together []*message, f fate, err error) {
	var over []*message // for their connections
	b.mu.Lock()
	for _, m := range together {
		if !m.held {
			b.running--
			over = append(over, m)
		}
		if b.again(m, f, err) {
			b.hold(m)
		} else if m.held {
			b.release(m)
		}
	}
	b.resume()
	b.mu.Unlock()
	for _, m := range over {
		m.delivery.Done()
	}
}

// again counts what became of a message. It returns true if it has to be sent again. It
// needs mu.
func (b *backend) again(m *message, f fate, err error) bool {
	switch {
	case f == fateUnsent && b.ctx.Err() == nil:
		b.counts.add(messagesHeld)
		return true
	case f == fateUnknown && m.tries < b.retries && b.ctx.Err() == nil:
		b.counts.add(messagesAgain)
		return true
	case f != fateAnswered:
		b.counts.add(messagesLost)
		b.complain("a message is lost: nobody knows whether the backend has seen it", "connection", m.conn, "error", err)
	}
	return false
}

// hold keeps a message that has to be sent again: after a pause, or, if the backend is down,
// when it is back. Until it is over, its connection's next messages wait. It needs mu.
func (b *backend) hold(m *message) {
	if !m.held {
		m.held, m.body = true, bytes.Clone(m.body)
		b.held[m.delivery.Conn.ID()] = m
	}
	m.trying = false
	m.tries++
	if b.breaker.down() {
		return
	}
	pause := min(pauseFirst<<min(m.tries-1, 16), pauseMost)
	time.AfterFunc(pause/2+time.Duration(rand.Int64N(int64(pause))), func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sendAgain(m)
	})
}

// sendAgain has a held message wait for its turn, unless it does. It needs mu.
func (b *backend) sendAgain(m *message) {
	if !m.trying && b.held[m.delivery.Conn.ID()] == m && b.ctx.Err() == nil {
		m.trying = true
		b.post(m)
	}
}

// release ends a held message. It needs mu.
func (b *backend) release(m *message) {
	delete(b.held, m.delivery.Conn.ID())
	b.emptier.Broadcast()
	if m.last != nil {
		b.enqueue(*m.last)
	}
}
