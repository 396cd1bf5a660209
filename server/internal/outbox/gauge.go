package outbox

import (
	"errors"
	"sync/atomic"
)

// Size is a number of messages and their bytes.
//
//	59 … 40 messages   39 … 0 bytes
type Size uint64

// The largest Size.
const (
	MessagesMax = 1<<20 - 1
	BytesMax    = 1<<messageShift - 1

	messageShift = 40
)

// SizeOf returns the Size of so many messages with so many bytes together.
func SizeOf(messages, bytes int) Size { return Size(messages)<<messageShift + Size(bytes) }

// Messages and Bytes are the two numbers.
func (s Size) Messages() int { return int(s >> messageShift & MessagesMax) }
func (s Size) Bytes() int    { return int(s & BytesMax) }

// Exceeds reports whether s has more messages or more bytes than bound.
func (s Size) Exceeds(bound Size) bool {
	return s.Messages() > bound.Messages() || s.Bytes() > bound.Bytes()
}

// room reports whether there is room for more beside s. While at most half of the
// bound is taken there is room for a message of any size: so a sender that waits
// until then is never refused.
func (s Size) room(more, bound Size) bool {
	return !s.Exceeds(bound.Part(2)) || !(s + more).Exceeds(bound)
}

// Part is an n-th of s.
func (s Size) Part(n int) Size { return SizeOf(s.Messages()/n, s.Bytes()/n) }

// What TryAdd returns when it adds nothing.
var (
	ErrClosed = errors.New("outbox: closed")
	ErrFull   = errors.New("outbox: full")
)

// Gauge measures what one connection has still to be sent: the messages in its
// reactor's mailbox and in its Box together. Senders add and the reactor
// subtracts, so a sender learns at once that there is no room.
//
// A Gauge belongs to a slot and outlives the slot's connections: a sender may
// add to a connection that has just ended, and the reactor subtracts that when
// it finds nobody to send it to.
//
//	63 closed   62 refused   61 awaited   59 … 0 Size
type Gauge struct{ word atomic.Uint64 }

const (
	closed  = 1 << 63 // TryAdd returns ErrClosed
	refused = 1 << 62 // a sender was refused; the reactor will be told
	awaited = 1 << 61 // somebody waits until the gauge is low
	flags   = closed | refused | awaited
)

// Load returns the size. Any goroutine may call it.
func (g *Gauge) Load() Size { return Size(g.word.Load() &^ flags) }

// Try returns what TryAdd would for the smallest message, and adds nothing. Any
// goroutine may call it.
func (g *Gauge) Try(bound Size) error {
	switch w := g.word.Load(); {
	case w&closed != 0:
		return ErrClosed
	case !Size(w&^flags).room(SizeOf(1, 0), bound):
		return ErrFull
	}
	return nil
}

// TryAdd adds a message unless the sum would exceed the bound. While at most half
// of it is taken, a message is added whatever its size. Any goroutine may call it.
func (g *Gauge) TryAdd(size, bound Size) error {
	for {
		w := g.word.Load()
		switch before := Size(w &^ flags); {
		case w&closed != 0:
			return ErrClosed
		case !before.room(size, bound):
			return ErrFull
		}
		if g.word.CompareAndSwap(w, w+uint64(size)) {
			return nil
		}
	}
}

// Add adds without regard to a bound. Only the reactor may call it.
func (g *Gauge) Add(size Size) { g.word.Add(uint64(size)) }

// Sub subtracts. It returns true, once, if somebody awaited that the gauge
// falls to low and it has. Any goroutine may call it.
func (g *Gauge) Sub(size, low Size) (fallen bool) {
	w := g.word.Add(-uint64(size))
	return w&awaited != 0 && g.fallen(low)
}

// Await asks that Sub tells when the gauge falls to low. It returns false if the
// gauge is low already; then nobody will be told. Any goroutine may call it.
func (g *Gauge) Await(low Size) bool {
	g.word.Or(awaited)
	return !g.fallen(low)
}

// fallen reports, once, that somebody waits for the gauge and that it is low.
func (g *Gauge) fallen(low Size) bool {
	for {
		w := g.word.Load()
		if w&awaited == 0 || Size(w&^flags).Exceeds(low) {
			return false
		}
		if g.word.CompareAndSwap(w, w&^awaited) {
			return true
		}
	}
}

// Refuse notes that a sender was refused. It is true for the first one, which
// has to tell the reactor. Any goroutine may call it.
func (g *Gauge) Refuse() bool { return g.word.Or(refused)&refused == 0 }

// Told ends what Refuse began. Only the reactor may call it.
func (g *Gauge) Told() { g.word.And(^uint64(refused)) }

// Close makes TryAdd return ErrClosed until Open. Only the reactor may call
// either. Open does not touch a Gauge that was never used, so that its page of
// memory need not become resident.
func (g *Gauge) Close() { g.word.Or(closed) }

// Open ends what Close began.
func (g *Gauge) Open() {
	if g.word.Load()&(closed|awaited) != 0 {
		g.word.And(^uint64(closed | awaited))
	}
}
