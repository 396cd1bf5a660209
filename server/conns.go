package server

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"time"

	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/gate"
	"github.com/seed-134acfd0/lull/server/internal/outbox"
	"github.com/seed-134acfd0/lull/server/internal/topics"
)

// conns are a reactor's connections, and what all parts of the reactor need to
// know about them. Its methods change what one connection is, and call nothing
// above.
type conns struct {
	server  *Server                     // constant
	index   int                         // the reactor's; constant
	slots   *netpoll.Slots[conn, *conn] // the reactor's own, but for Live
	gauges  *netpoll.Table[outbox.Gauge]
	tickets *netpoll.Table[gate.Ticket]  // of addresses that are counted; untouched without limits
	expiry  *netpoll.Table[netpoll.Tick] // zero for never; untouched if nothing expires
	topics  *topics.Subscriptions        // untouched if nobody subscribes
	limits  limits                       // constant

	clock
	poller  *netpoll.Poller
	sides   sides
	dying   []death // marked connections, for bury
	open    int     // connections in stateOpen
	leaving int     // of these, those that a drain has asked to leave
	counts  Counts
	buf     []byte // for one read of one connection, or one write

	remotes map[uint32]netip.AddrPort // of clients behind proxies, by slot; nil without any

	dated   string       // the value of a Date header
	datedAt netpoll.Tick // when it was spelled

	pollError error // why a connection could not be registered, for the Acceptor
}

// clock is the time of a reactor's turn.
type clock struct {
	now   func() time.Duration // constant
	began time.Duration        // when this turn did, by now
	time  time.Duration        // since the start, without gaps in which the process stood still
	tick  netpoll.Tick         // time in ticks
}

// gapMax is how much of the time between two turns counts. Where the process
// stood still (a stop signal, a suspended machine) no peer was silent.
const gapMax = time.Second

// advance begins a turn.
func (t *clock) advance() {
	now := t.now()
	t.time += min(now-t.began, gapMax)
	t.began = now
	t.tick = netpoll.TickAt(t.time)
}

// after reports whether a timeout, if there is one, is over since a tick.
func (t *clock) after(timeout, since netpoll.Tick) bool {
	return timeout > 0 && t.tick-since >= timeout
}

func newConns(s *Server, index int) (t conns, err error) {
	t = conns{
		server: s,
		index:  index,
		limits: newLimits(&s.options),
		clock:  clock{now: s.clock.Now},
		sides:  newSides(),
		buf:    make([]byte, s.options.readSize()),
	}
	// Reactors tick one after the other: if all swept at once, nobody else would get on.
	t.time = netpoll.TickLength * time.Duration(index) / time.Duration(s.options.Reactors)
	if t.slots, err = netpoll.NewSlots[conn](s.slots); err != nil {
		return t, err
	}
	if t.gauges, err = netpoll.NewTable[outbox.Gauge](s.slots); err != nil {
		return t, err
	}
	if t.tickets, err = netpoll.NewTable[gate.Ticket](s.slots); err != nil {
		return t, err
	}
	if t.expiry, err = netpoll.NewTable[netpoll.Tick](s.slots); err != nil {
		return t, err
	}
	t.topics, err = topics.NewSubscriptions(s.directory, index, s.slots, s.options.MaxSubscriptions)
	return t, err
}

// expire sets when c expires: at the request's time, or by Options.MaxAge.
func (t *conns) expire(c *conn, at time.Time) {
	left := time.Duration(math.MaxInt64)
	if most := t.server.options.MaxAge; most > 0 {
		left = most - rand.N(most/10+1)
	}
	if !at.IsZero() {
		t.server.expiring.Store(true)
		left = min(left, max(0, time.Until(at)))
	}
	if left < math.MaxInt64 {
		*t.expiry.At(int(t.slots.Token(c).Slot)) = t.tick + max(1, netpoll.Ticks(min(left, expiryMax)))
	}
}

// setTicket takes note of where c's address is counted, in place of where it was.
func (t *conns) setTicket(c *conn, ticket gate.Ticket) {
	if t.server.admission.limiter.Counts() {
		place := t.tickets.At(int(t.slots.Token(c).Slot))
		t.server.admission.leave(*place)
		*place = ticket
	}
}

// giveTicket gives c's ticket to whoever has its socket now.
func (t *conns) giveTicket(c *conn) (ticket gate.Ticket) {
	if t.server.admission.limiter.Counts() {
		place := t.tickets.At(int(t.slots.Token(c).Slot))
		ticket, *place = *place, gate.Ticket{}
	}
	return ticket
}

// remote is the address of c's client, the zero value if it has left already.
func (t *conns) remote(c *conn) netip.AddrPort {
	if a, ok := t.remotes[t.slots.Token(c).Slot]; ok {
		return a
	}
	return netpoll.RemoteAddr(int(c.FD))
}

// setRemote takes note of the address that a proxy has told.
func (t *conns) setRemote(c *conn, a netip.AddrPort) {
	if t.remotes == nil {
		t.remotes = map[uint32]netip.AddrPort{}
	}
	t.remotes[t.slots.Token(c).Slot] = a
}

// expiryMax is about the longest that a Tick can tell.
const expiryMax = 10 * 365 * 24 * time.Hour

func (t *conns) expired(c *conn) bool {
	at := *t.expiry.At(int(t.slots.Token(c).Slot))
	return at != 0 && t.tick >= at
}

// handle is what the handler gets for a slot.
func (t *conns) handle(c *conn) Conn {
	token := t.slots.Token(c)
	return Conn{server: t.server, id: idOf(t.index, token), tag: c.tag, terms: c.terms}
}

func (t *conns) gauge(c *conn) *outbox.Gauge { return t.gauges.At(int(t.slots.Token(c).Slot)) }

// owed is how many bytes c's socket has not taken.
func (t *conns) owed(c *conn) int {
	if x := t.sides.of(c); x != nil {
		return x.owed()
	}
	return 0
}

// date is the value of a Date header (RFC 9110 section 6.6.1), which is spelled once in
// a tick at most.
func (t *conns) date() string {
	if t.dated == "" || t.datedAt != t.tick {
		t.dated, t.datedAt = dateOf(time.Now()), t.tick
	}
	return t.dated
}

func dateOf(now time.Time) string { return now.UTC().Format(http.TimeFormat) }

// enter changes the state of a connection.
func (t *conns) enter(c *conn, s state) {
	switch before := c.state; {
	case before.admitted() && !s.admitted():
		t.server.gate.Leave()
	case !before.admitted() && s == stateEnded:
		t.server.gate.Readmit() // its handler is not through with it
	}
	if c.state == stateOpen {
		t.counts.Unsubscribed += uint64(t.topics.LeaveAll(t.slots.Token(c).Slot))
		t.open--
		if c.is(flagLeaving) {
			t.leaving--
		}
	}
	if s == stateOpen {
		t.open++
	}
	c.state = s
	c.seen = t.tick
}

// poll registers a connection with the poller, unless it is registered. If that
// fails the connection is rejected.
func (t *conns) poll(c *conn) (ok bool) {
	err := t.register(c)
	if err != nil {
		t.pollError = err // accepting pauses: it is a limit of the machine
		t.mark(c, fate{kind: fateReject, cause: rejectFull()})
	}
	return err == nil
}

func (t *conns) register(c *conn) error {
	if c.is(flagPolled) {
		return nil
	}
	err := t.poller.Add(int(c.FD), t.slots.Token(c), c.interest())
	if err == nil {
		c.flags |= flagPolled
	}
	return err
}

// want sets or clears a flag that says what c's socket is polled for.
func (t *conns) want(c *conn, flag flags, on bool) {
	if on == c.is(flag) {
		return
	}
	before := c.interest()
	c.flags ^= flag
	if !c.is(flagPolled) || c.interest() == before {
		return
	}
	if err := t.poller.Modify(int(c.FD), t.slots.Token(c), c.interest()); err != nil {
		t.mark(c, gone(err))
	}
}

// warn logs something about c and its peer.
func (t *conns) warn(c *conn, msg string, args ...any) { t.warnOf(c, t.remote(c), msg, args...) }

// warnOf is warn where the peer's address is known, or has been lost with its socket.
func (t *conns) warnOf(c *conn, remote netip.AddrPort, msg string, args ...any) {
	peer := "unknown"
	if remote.IsValid() {
		peer = remote.String()
	}
	t.server.journal.add(slog.LevelWarn, msg, append(args, "conn", fmt.Sprintf("%#x", t.handle(c).id), "remote", peer)...)
}
