package server

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// Census is what a server's connections are like. The reactors take it in
// passing, while they look for timeouts, so it costs them nothing to ask and
// each part of it is up to a few seconds old.
type Census struct {
	Handshaking int // their request has not arrived whole, or is being decided
	Open        int
	Closing     int // the closing handshake has begun, or the last word is being sent

	Paused int // of the open, not read until their handlers have got on
	Held   int // of the open, not read until their broadcasts have been sent
	Slow   int // of the open, owed more than Handler.Slow tells

	Owed   Histogram // bytes owed to each that is owed any
	Queued Histogram // calls before each handler that has any
	// Slowest are those that are owed most, at most 100 of each reactor, the
	// most first.
	Slowest []SlowPeer
}

// SlowPeer is a connection that has not taken all that it was sent.
type SlowPeer struct {
	ID       uint64 // as Conn.ID
	Tag      uint64
	Remote   netip.AddrPort
	Messages int           // owed
	Bytes    int           // owed, beyond what its socket buffers
	For      time.Duration // since when it has been owed anything
	Kernel   int           // bytes in the socket that the peer has not acknowledged
}

// slowestKept is how many of a reactor's connections a Census names.
const slowestKept = 100

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
		sum.Held += c.Held
		sum.Slow += c.Slow
		sum.Owed.merge(&c.Owed)
		sum.Queued.merge(&c.Queued)
		sum.Slowest = append(sum.Slowest, c.Slowest...)
	}
	slices.SortFunc(sum.Slowest, moreOwed)
	return sum
}

func moreOwed(a, b SlowPeer) int { return cmp.Compare(b.Bytes, a.Bytes) }

// note counts c.
func (n *Census) note(r *reactor, c *conn) {
	switch c.state {
	case stateHead, stateAsking:
		n.Handshaking++
	case stateOpen:
		n.Open++
		if c.flags&flagPaused != 0 {
			n.Paused++
		}
		if c.flags&flagHeld != 0 {
			n.Held++
		}
		if c.flags&flagSlow != 0 {
			n.Slow++
		}
	default:
		n.Closing++
	}
	x := r.extra(c)
	if x == nil {
		return
	}
	if x.inbox != nil {
		if calls := x.inbox.calls.Load(); calls > 0 {
			n.Queued.add(uint64(calls))
		}
	}
	if x.out.bytes > 0 {
		n.Owed.add(uint64(x.out.bytes))
		n.noteSlow(r, c, &x.out)
	}
}

// noteSlow keeps c if it is among those that are owed most.
func (n *Census) noteSlow(r *reactor, c *conn, o *outbox) {
	p := SlowPeer{Bytes: o.bytes}
	i, _ := slices.BinarySearchFunc(n.Slowest, p, moreOwed)
	if i == slowestKept {
		return
	}
	p.ID, p.Tag, p.Messages = r.conn(c).id, c.tag, o.owed.messages()
	p.For = time.Duration(r.tick-o.since) * netpoll.TickLength
	n.Slowest = slices.Insert(n.Slowest, i, p)
	n.Slowest = n.Slowest[:min(len(n.Slowest), slowestKept)]
}

// publishCensus lets others see what was counted in a lap.
func (r *reactor) publishCensus() {
	n := r.census
	r.census = Census{}
	for i := range n.Slowest {
		p := &n.Slowest[i]
		c := r.slots.Get(tokenOf(p.ID))
		if c == nil {
			continue // it has left since
		}
		p.Remote = netpoll.RemoteAddr(int(c.FD))
		p.Kernel, _ = unix.IoctlGetInt(int(c.FD), unix.SIOCOUTQ)
	}
	r.public.census.Store(&n)
}

// Ending says how a connection ended.
type Ending struct {
	Time  time.Time
	ID    uint64 // as Conn.ID
	Tag   uint64
	Code  uint16 // as Handler.Close is told
	Cause string // empty after a complete closing handshake
	Owed  int    // bytes that it had not taken
}

func ending(c Conn, code frame.Code, cause error, owed int) Ending {
	e := Ending{Time: time.Now(), ID: c.id, Tag: c.tag, Code: uint16(code), Owed: owed}
	if cause != nil {
		e.Cause = cause.Error()
	}
	return e
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
