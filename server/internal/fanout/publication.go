package fanout

import (
	"sync"
	"time"
)

// overhead is what a publication costs beside its frame, in bytes: itself and an
// entry in each of a few Logs.
const overhead = 512

// Cost is what a frame of so many bytes takes of Throttle's bound.
func Cost(frame int) int64 { return int64(frame) + overhead }

// Publication is a frame on its way to all reactors. They share its bytes, which
// nobody changes.
type Publication struct {
	// constant
	Frame    []byte
	deflated []byte // the same for connections that have agreed to permessage-deflate, nil if there is none
	ID       uint32 // as outbox.Frame's
	Policy   uint8  // the message's own, 0 for each connection's
	Except   uint64 // the connection that does not get it, 0 for none

	mu      sync.Mutex
	pending int         // reactors that have not passed it to all of theirs; guarded by mu
	tally   Tally       // of the others; guarded by mu
	done    func(Tally) // guarded by mu
}

// Tally says what became of a publication, connection by connection.
type Tally struct {
	Sent    int       // connections whose socket took it
	Queued  int       // connections whose socket will, when their peer has read more
	Dropped int       // connections for which it was dropped, by policy
	Closed  int       // connections that ended before they got it
	Last    time.Time // when the last connection had its turn
}

// Add adds another reactor's part.
func (t *Tally) Add(part Tally) {
	t.Sent += part.Sent
	t.Queued += part.Queued
	t.Dropped += part.Dropped
	t.Closed += part.Closed
}

// NewPublication makes a publication for so many reactors. done is called once,
// by the last that passed it.
func NewPublication(frame, deflated []byte, id uint32, policy uint8, reactors int, done func(Tally)) *Publication {
	return &Publication{Frame: frame, deflated: deflated, ID: id, Policy: policy, pending: reactors, done: done}
}

// For returns the frame for a connection by the window of permessage-deflate that
// it has agreed to, as a power of two, zero for none. A frame was compressed with
// the largest window, 15: references in it go back no further than its beginning.
func (p *Publication) For(window uint8) []byte {
	if p.deflated != nil && (window == 15 || len(p.Frame) <= 1<<window && window > 0) {
		return p.deflated
	}
	return p.Frame
}

// Passed takes note that a reactor has passed it to all of its connections. Any
// goroutine may call it.
func (p *Publication) Passed(part Tally) {
	p.mu.Lock()
	p.pending--
	p.tally.Add(part)
	p.tally.Last = time.Now()
	last, tally := p.pending == 0, p.tally
	p.mu.Unlock()
	if last {
		p.done(tally)
	}
}
