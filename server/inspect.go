package server

import (
	"iter"
	"net/netip"

	"github.com/seed-134acfd0/lull/server/internal/stack"
)

// RemoteAddr is the address of the connection's client: the peer's, or what a
// trusted proxy has told (Options.Trust). It is the zero value once the
// connection has ended, which it may have when Handler.Close is called.
//
// Nothing is kept for it: the connection's reactor is asked, and answers within
// its turn. Any goroutine may call it. An Inline handler is told only about
// connections of its own reactor, such as the one that it is called for.
func (c Conn) RemoteAddr() (a netip.AddrPort) {
	r, token := c.address()
	if r == nil {
		return a
	}
	r.inspect(func(t *conns) {
		if live := t.slots.Get(token); live != nil {
			a = t.remote(live)
		}
	})
	return a
}

// Conn returns the open connection of an ID, and whether there is one. Its reactor is
// asked, as by RemoteAddr. Any goroutine may call it.
func (s *Server) Conn(id uint64) (c Conn, open bool) {
	c = Conn{server: s, id: id}
	if id>>22&(reactorsMax-1) >= uint64(len(s.reactors)) {
		return Conn{}, false
	}
	r, token := c.address()
	if r == nil {
		return Conn{}, false
	}
	r.inspect(func(t *conns) {
		if live := t.slots.Get(token); live != nil && live.state == stateOpen {
			c, open = t.handle(live), true
		}
	})
	if !open {
		return Conn{}, false
	}
	return c, true
}

// connsBatch is how many connections a reactor is asked for at a time, and slots
// is how many it looks at for them.
const (
	connsBatch = 256
	slotsBatch = 4 << 10
)

// Conns iterates over the open connections, in no order. One that opens or ends
// meanwhile may be left out or have ended; all others come exactly once. The
// reactors are asked for a few at a time, so that a million of them hold nobody
// up.
//
// Any goroutine may call it but an Inline handler's: reactors do not wait for
// each other, so there it sees the connections of its own reactor alone.
func (s *Server) Conns() iter.Seq[Conn] {
	return func(yield func(Conn) bool) {
		batch := make([]Conn, 0, connsBatch)
		for _, r := range s.reactors {
			for next := 0; next >= 0; {
				batch = batch[:0]
				if !r.inspect(func(t *conns) { next = t.gather(next, &batch) }) {
					break
				}
				for _, c := range batch {
					if !yield(c) {
						return
					}
				}
			}
		}
	}
}

// gather adds a batch of the open connections from a slot on. It returns the slot at
// which the next batch begins, -1 if there is none.
func (t *conns) gather(from int, batch *[]Conn) (next int) {
	next = from
	for end := min(from+slotsBatch, t.slots.High()); next < end && len(*batch) < connsBatch; next++ {
		if c := t.slots.At(next); c != nil && c.state == stateOpen {
			*batch = append(*batch, t.handle(c))
		}
	}
	if next >= t.slots.High() {
		return -1
	}
	return next
}

// inspection is a goroutine's wish to read what only a reactor may.
type inspection struct {
	of   func(*conns)
	over chan bool // whether the reactor has called it
}

// inspect calls a function on the reactor's goroutine and waits for its end. It
// returns false if that does not happen: the reactor does not run, or the caller
// is another reactor, which must not wait.
func (r *reactor) inspect(of func(*conns)) bool {
	own, running := r.public.goroutine.Load().(stack.ID)
	if !running {
		return false
	}
	if r.server.options.Mode == Inline {
		switch self := stack.Self(); {
		case self == own:
			of(&r.conns)
			return true
		case r.server.reacts(self):
			return false
		}
	}
	wish := &inspection{of: of, over: make(chan bool, 1)}
	if r.mail.Force(op{kind: opInspect, inspection: wish}, nil) != nil {
		return false
	}
	return <-wish.over
}

// reacts reports whether a goroutine is a reactor's.
func (s *Server) reacts(id stack.ID) bool {
	for _, r := range s.reactors {
		if r.public.goroutine.Load() == id {
			return true
		}
	}
	return false
}
