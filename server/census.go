package server

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/outbox"
)

// Census is what a server's connections are like. The reactors take it in
// passing, while they look for timeouts. So asking costs them nothing, and each
// part of it is up to a few seconds old.
type Census struct {
	Handshaking int // the request has not arrived whole, or the handler decides about it
	Open        int
	Closing     int // the closing handshake has begun, or the last word is being sent

	Paused    int // of the open, not read until their handlers or their peers have got on
	Throttled int // of the open, not read until broadcasts have been sent
	Curbed    int // of the open, not read until their rate allows it
	Slow      int // of the open, above the high watermark (Handler.Backpressure)

	Outbox Histogram // bytes in each outbox that is not empty
	Inbox  Histogram // calls in each inbox that is not empty
	// Largest are the connections with the largest outboxes, at most 100 of each
	// reactor, the largest first.
	Largest []PeerOutbox
}

// PeerOutbox is what one peer has not taken.
type PeerOutbox struct {
	ID       uint64 // as Conn.ID
	Tag      uint64
	Remote   netip.AddrPort
	Messages int           // in the outbox
	Bytes    int           // in the outbox, beyond what the socket buffers
	For      time.Duration // since the outbox was last empty
	Kernel   int           // bytes in the socket that the peer has not acknowledged
}

// largestKept is how many of a reactor's connections a Census names.
const largestKept = 100

// Census returns the sum over all reactors. Any goroutine may call it.
func (s *Server) Census() Census {
	var sum Census
	for _, r := range s.reactors {
		c := r.public.census.Load()
		if c == nil {
			continue
		}
		sum.Handshaking += c.Handshaking
		sum.Open += c.Open
		sum.Closing += c.Closing
		sum.Paused += c.Paused
		sum.Throttled += c.Throttled
		sum.Curbed += c.Curbed
		sum.Slow += c.Slow
		sum.Outbox.merge(&c.Outbox)
		sum.Inbox.merge(&c.Inbox)
		sum.Largest = append(sum.Largest, c.Largest...)
	}
	slices.SortFunc(sum.Largest, larger)
	return sum
}

func larger(a, b PeerOutbox) int { return cmp.Compare(b.Bytes, a.Bytes) }

// note counts c.
func (n *Census) note(t *conns, c *conn) {
	switch c.state {
	case stateProxy, stateTLS, stateRequest, stateAsking:
		n.Handshaking++
	case stateOpen:
		n.Open++
		switch {
		case c.is(flagThrottled):
			n.Throttled++
		case c.is(flagCurbed):
			n.Curbed++
		case c.is(flagPaused | flagBlocked):
			n.Paused++
		}
		if c.is(flagSlow) {
			n.Slow++
		}
	default:
		n.Closing++
	}
	x := t.sides.of(c)
	if x == nil {
		return
	}
	if x.inbox != nil {
		if calls := x.inbox.Calls(); calls > 0 {
			n.Inbox.add(uint64(calls))
		}
	}
	if x.box.Bytes() > 0 {
		n.Outbox.add(uint64(x.box.Bytes()))
		n.noteLarge(t, c, x, &x.box)
	}
}

// noteLarge keeps c if its outbox is among the largest.
func (n *Census) noteLarge(t *conns, c *conn, x *side, b *outbox.Box) {
	p := PeerOutbox{Bytes: b.Bytes()}
	i, _ := slices.BinarySearchFunc(n.Largest, p, larger)
	if i == largestKept {
		return
	}
	p.ID, p.Tag, p.Messages = t.handle(c).id, c.tag, b.Size().Messages()
	p.For = time.Duration(t.tick-x.since) * netpoll.TickLength
	n.Largest = slices.Insert(n.Largest, i, p)
	n.Largest = n.Largest[:min(len(n.Largest), largestKept)]
}

// publishCensus lets others see what was counted in a lap.
func (r *reactor) publishCensus() {
	n := r.sweep.census
	r.sweep.census = Census{}
	for i := range n.Largest {
		p := &n.Largest[i]
		c := r.slots.Get(tokenOf(p.ID))
		if c == nil {
			continue // it has left since
		}
		p.Remote = r.remote(c)
		p.Kernel = netpoll.Unacknowledged(int(c.FD))
	}
	r.public.census.Store(&n)
}

// Ending says how a connection ended.
type Ending struct {
	Time   time.Time
	ID     uint64 // as Conn.ID
	Tag    uint64
	Remote netip.AddrPort // the zero value if the peer has reset its socket, and behind no proxy
	Code   uint16         // as Handler.Close is told
	Cause  string         // empty after a complete closing handshake
	Outbox int            // bytes that it had not taken
}

func (t *conns) ending(c *conn, f fate) Ending {
	return Ending{Time: time.Now(), ID: t.handle(c).id, Tag: c.tag, Remote: t.remote(c), Code: uint16(f.code), Cause: f.reason(), Outbox: t.owed(c)}
}

// endingsKept is how many a server remembers.
const endingsKept = 1000

// endings remembers the last.
type endings struct {
	mu   sync.Mutex
	ring []Ending // guarded by mu
	next int      // guarded by mu
}

func (e *endings) add(one Ending) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ring) < endingsKept {
		e.ring = append(e.ring, one)
		return
	}
	e.ring[e.next] = one
	e.next = (e.next + 1) % endingsKept
}

// Endings returns how the last thousand connections ended, the latest first.
// Any goroutine may call it.
func (s *Server) Endings() []Ending {
	e := &s.endings
	e.mu.Lock()
	defer e.mu.Unlock()
	all := append(slices.Clone(e.ring[e.next:]), e.ring[:e.next]...)
	slices.Reverse(all)
	return all
}
