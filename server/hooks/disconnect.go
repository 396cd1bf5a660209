package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// disconnect is the end of a connection, of which its backend is not told yet.
type disconnect struct {
	connection, user string
	code             frame.Code
	cause            string
	tries            int // that have failed
}

// disconnectTries is how often a backend that is not down is told of an end.
const disconnectTries = 8

// farewell is what a backend is told of a connection that has ended, as JSON.
type farewell struct {
	Code  frame.Code `json:"code"`  // of the Close frame; 1006 without one
	Cause string     `json:"cause"` // "closed" after a complete closing handshake, "gone" without one
}

// disconnect tells the backend that a connection has ended.
func (h *Hooks) disconnect(c server.Conn, code frame.Code, cause error) {
	n := h.names.get(c.Tag())
	b := h.backends[n.backend]
	h.greets.take(c.ID())
	if isAlias(n.id) {
		h.greets.take(n.id)
		h.aliases.drop(n.id)
	}
	h.names.drop(c.Tag())
	b.leave(c.ID())
	b.tellEnd(c.ID(), disconnect{h.externalID(c, &n), escape(n.user), code, causeOf(cause), 0})
}

func causeOf(err error) string {
	switch {
	case err == nil:
		return "closed"
	case errors.Is(err, io.EOF):
		return "gone"
	}
	return strings.TrimPrefix(err.Error(), "server: ")
}

// tellEnd has the backend told of an end, after the connection's last message. While too
// many wait it waits, unless the backend is down: then nobody will be told.
func (b *backend) tellEnd(id uint64, d disconnect) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.held[id]; m != nil {
		m.last = &d
		return
	}
	for len(b.queue) >= queueMost && !b.breaker.down() && b.ctx.Err() == nil {
		b.emptier.Wait()
	}
	b.enqueue(d)
}

// enqueue adds an end to those that wait to be told, unless there are too many. It needs mu.
func (b *backend) enqueue(d disconnect) {
	if len(b.queue) >= queueMost || b.ctx.Err() != nil {
		b.counts.add(disconnectsLost)
		return
	}
	b.queue = append(b.queue, d)
	b.send()
}

// send starts goroutines that tell of ends, half as many as there are turns at most. It needs
// mu.
func (b *backend) send() {
	for b.senders < max(1, b.limit/2) && b.senders < len(b.queue) && !b.breaker.down() {
		b.senders++
		go b.sender()
	}
}

// sender tells of ends until there are no more, or the backend is down.
func (b *backend) sender() {
	for {
		d, ok := b.nextEnd()
		if !ok {
			return
		}
		body, _ := json.Marshal(farewell{d.code, d.cause}) // there is nothing in it that has no JSON
		c := &call{event: eventDisconnect, id: d.connection + "-end", connection: d.connection, user: d.user, content: "application/json", body: body}
		f, _ := b.do(c, 0, b.timeout, func(a answer) {
			if a.status < 200 || a.status > 299 {
				b.counts.add(disconnectsRefused)
				b.complain("the backend has refused a disconnect", "status", a.status)
				return
			}
			b.counts.add(disconnectsTold)
		})
		if f != fateAnswered {
			b.tellAgain(d)
		}
	}
}

// nextEnd takes the next end. It returns false when the sender has nothing more to do.
func (b *backend) nextEnd() (d disconnect, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 || b.breaker.down() || b.ctx.Err() != nil {
		b.senders--
		b.emptier.Broadcast()
		return d, false
	}
	d = b.queue[0]
	if b.queue = b.queue[1:]; len(b.queue) == 0 {
		b.queue = nil
	}
	b.emptier.Signal()
	return d, true
}

// tellAgain puts an end back that the backend was not told of, after a pause.
func (b *backend) tellAgain(d disconnect) {
	if !b.breaker.down() {
		if d.tries++; d.tries >= disconnectTries {
			b.counts.add(disconnectsLost)
			return
		}
		b.counts.add(disconnectsAgain)
		pause := min(pauseFirst<<d.tries, pauseMost)
		select {
		case <-time.After(pause/2 + time.Duration(rand.Int64N(int64(pause)))):
		case <-b.ctx.Done():
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = append(b.queue, d) // there may be one too many for each sender
}

// empty waits until the backend has been told of all ends and has taken all messages, until
// ctx ends or the backend is down. What is left then is lost, and counted.
func (b *backend) empty(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.emptier.Broadcast()
	})
	defer stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for (len(b.queue) > 0 || b.senders > 0 || len(b.held) > 0) && ctx.Err() == nil && !b.breaker.down() {
		b.emptier.Wait()
	}
	if len(b.queue) == 0 && len(b.held) == 0 {
		return nil
	}
	b.counts[disconnectsLost].Add(uint64(len(b.queue)))
	b.counts[messagesLost].Add(uint64(len(b.held)))
	for _, m := range b.held {
		if m.last != nil {
			b.counts.add(disconnectsLost)
		}
	}
	clear(b.held)
	b.queue = nil
	if err := ctx.Err(); err != nil {
		return err
	}
	return errDown
}
