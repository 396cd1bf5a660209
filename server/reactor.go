package server

import (
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/fanout"
	"github.com/seed-134acfd0/lull/server/internal/histogram"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
	"github.com/seed-134acfd0/lull/server/internal/outbox"
	"github.com/seed-134acfd0/lull/server/internal/stack"
)

// op is what others want from a reactor.
type op struct {
	kind    opKind
	policy  OutboxPolicy        // opSend, opRefused
	code    frame.Code          // opClose
	id      uint32              // opSend: Kind.ID
	token   netpoll.Token       // of the connection, if it is about one
	grant   netpoll.Grant       // opAccept
	message *fanout.Publication // opBroadcast
	answer  *answer             // opAnswer
}

type opKind uint8

const (
	opSend      opKind = iota // the letter's bytes are a frame for one connection
	opRefused                 // a sender was told ErrBackpressure
	opClose                   // the letter's bytes are the reason
	opBroadcast               // a frame for every open connection
	opAccept                  // a grant to accept
	opAnswer                  // what the handler says to a request; the bytes are the response
	opChanged                 // what the reactor wants of an inbox is true
	opEased                   // the peer has taken enough
	opRoom                    // throttled connections may go on
	opPanic                   // the handler has panicked
	opDrain                   // close all connections, then end
	opEnd                     // end now
)

// reactor serves its share of the connections on a thread of its own. Its
// methods are called by its own goroutine alone, but for Accept and Load.
type reactor struct {
	// constant after Listen
	server *Server
	index  int
	waker  *netpoll.Waker
	mail   *netpoll.Mailbox[op]
	slots  *netpoll.Slots[conn, *conn] // the reactor's own, but for Live
	gauges *netpoll.Table[outbox.Gauge]
	limits limits
	now    func() time.Duration // the clock

	// the reactor's own, from here to the end
	poller    *netpoll.Poller
	sides     sides
	log       fanout.Log
	parser    *frame.Parser
	upgrader  *frame.Upgrader
	asking    *conn                   // whose request the upgrader looks at
	dying     []death                 // marked connections, for bury
	fresh     []netpoll.Token         // accepted in this turn
	again     []netpoll.Token         // have input that was read and not handled
	throttled []netpoll.Token         // have flagThrottled
	congested []congestion            // the oldest first
	hand      []*inbox.Inbox[*caller] // have calls that the pool does not know of

	grants  grants
	time    time.Duration // since the start, without gaps in which the process stood still
	began   time.Duration // when this turn did, by the clock
	tick    netpoll.Tick  // time in ticks
	census  Census        // of this lap of the sweep
	sweep   sweep
	drained int  // the slot that drain comes to next, -1 before opDrain
	handed  bool // inboxes were given to the pool in this turn
	ended   bool

	counts Counts
	owing  int          // bytes in all boxes
	buf    []byte       // what is read, for one read of one connection
	reply  []byte       // a control frame of ours
	ping   []byte       // the payload of the last Ping of a read
	stream frame.Stream // of connections that have no side

	public public // what others read
}

// grants is the reactor's part of accepting.
type grants struct {
	granted bool            // a grant was taken, and is to be answered with result
	result  netpoll.Granted // of the grant
}

// Bounds of the work for one connection, or of one kind of work, in a turn.
// What is beyond waits for the next turn, behind everybody else's.
const (
	readSize   = 64 << 10 // bytes of one read, where messages do not queue
	readSmall  = 512      // bytes of one read, when too much waits already
	framesMax  = 64       // frames of one connection
	writesMax  = 16       // writes of what one connection's box holds
	passSends  = 32       // sends of a broadcast's pass, about a quarter of a millisecond
	passVisits = 4 << 10  // slots of a pass, many of which may have nothing to be sent
	sampleMax  = 256      // sides or slots that are looked through for the worst
	drainBatch = 256      // connections that are closed at the server's end
	evictMax   = 16       // connections that are evicted from a full table
	sweepMax   = 4 << 10  // slots that the sweep looks at
	pingsMax   = 32       // of these, that are written to
)

// readSize is less where messages queue: what one read brings is kept while its
// connection is paused.
func (o *Options) readSize() int {
	if o.Mode == Inline {
		return readSize
	}
	return min(readSize, max(o.MaxInbox, 2*frame.MaxHead))
}

// mailLimit bounds what others want from a reactor at a time.
var mailLimit = netpoll.Limit{Letters: 16 << 10, Bytes: 4 << 20}

func newReactor(s *Server, index int) (*reactor, error) {
	waker, err := netpoll.NewWaker()
	if err != nil {
		return nil, err
	}
	slots, err := netpoll.NewSlots[conn](s.slots)
	if err != nil {
		return nil, err
	}
	gauges, err := netpoll.NewTable[outbox.Gauge](s.slots)
	if err != nil {
		return nil, err
	}
	r := &reactor{
		server:  s,
		index:   index,
		waker:   waker,
		mail:    netpoll.NewMailbox[op](waker, mailLimit),
		slots:   slots,
		gauges:  gauges,
		limits:  newLimits(&s.options),
		now:     s.clock.Now,
		sides:   newSides(),
		parser:  frame.NewServerParser(s.options.MaxMessage),
		drained: -1,
		buf:     make([]byte, s.options.readSize()),
	}
	r.upgrader = frame.NewUpgrader(r.decide)
	return r, nil
}

// run is the reactor: the one loop that everything else hangs on. It returns
// when the reactor was told to end and has no connection left.
func (r *reactor) run() (err error) {
	r.public.goroutine.Store(stack.Self())
	if r.poller, err = netpoll.NewPoller(r.waker); err != nil {
		return err
	}
	defer r.close()
	for !r.ended {
		events, err := r.wait()
		if err != nil {
			return err
		}
		r.turn(events)
	}
	return nil
}

// turn is one turn of the loop. What any part of it marks is buried before the
// next part begins.
func (r *reactor) turn(events []netpoll.Event) {
	r.beginTurn()
	for i := range events {
		r.event(&events[i])
		r.settle() // what a handler sent goes out while its socket is in the cache
	}
	r.settle()
	r.greet()
	r.resume()
	r.handOver()
	r.pass()
	r.look()
	r.drain()
	r.evict()
	r.slots.Reclaim()
}

// settle does what others, and handlers on this reactor, have asked for, and
// then buries who is marked. So what a message caused goes out before its
// connection ends.
func (r *reactor) settle() {
	if r.mail.Called() {
		r.readMail()
	}
	r.bury()
}

// wait waits for events. While workers have calls to make it dozes: answers do
// not wake it one by one, the worker does when it has made its calls.
func (r *reactor) wait() ([]netpoll.Event, error) {
	const doze = time.Millisecond
	r.endTurn()
	switch {
	case r.busy():
		netpoll.Yield()
		return r.poller.Wait(0)
	case r.slots.Used() == 0:
		r.publish()
		r.publishCensus()
		return r.poller.Wait(-1)
	case r.server.pool != nil && (r.server.pool.Nudge() || r.handed):
		r.handed = false
		return r.poller.Doze(doze)
	}
	r.publish()
	return r.poller.Wait(netpoll.TickLength - r.time%netpoll.TickLength)
}

// busy reports whether there is work that needs no event.
func (r *reactor) busy() bool {
	return r.grants.granted || len(r.fresh) > 0 || r.log.Busy() || len(r.again) > 0 || r.sweep.due > 0 || r.drained >= 0 && r.drained < r.slots.High()
}

// gapMax is how much of the time between two turns counts. Where the process
// stood still (a stop signal, a suspended machine) no peer was silent.
const gapMax = time.Second

// beginTurn and endTurn let others see that the reactor gets on: its turn is an
// odd number while it works, an even one while it waits.
func (r *reactor) beginTurn() {
	r.public.turn.Store(r.public.turn.Load() | 1)
	now := r.now()
	r.time += min(now-r.began, gapMax)
	r.began = now
	r.tick = netpoll.TickAt(r.time)
}

func (r *reactor) endTurn() {
	if turn := r.public.turn.Load(); turn%2 == 1 {
		r.public.turnTime.AddTime(r.now() - r.began)
		r.public.turn.Store(turn + 1)
	}
}

// event serves one connection that is ready.
func (r *reactor) event(e *netpoll.Event) {
	c := r.slots.Get(e.Token())
	if c == nil {
		return // it was closed earlier in this turn
	}
	if e.Writable() {
		r.flush(c)
	}
	if e.Readable() {
		r.read(c)
	}
}

func (r *reactor) readMail() {
	letters, data := r.mail.Open()
	begin := 0
	for i := 0; i < len(letters); i++ {
		o, first := &letters[i].Value, i
		if o.kind != opSend {
			r.do(o, data[begin:letters[i].End])
		} else {
			// Neighbouring messages to one connection lie back to back, so they
			// leave in one system call.
			for i+1 < len(letters) && letters[i+1].Value.kind == opSend && letters[i+1].Value.token == o.token {
				i++
			}
			r.send(letters[first:i+1], data, begin)
		}
		begin = letters[i].End
	}
}

func (r *reactor) do(o *op, data []byte) {
	c := r.slots.Get(o.token) // nil if it has gone, or the op is about none
	switch o.kind {
	case opAccept:
		r.accept(o.grant)
	case opBroadcast:
		r.log.Add(o.message, r.began)
		if c != nil && r.server.throttle.Crowded() {
			r.throttle(c)
		}
	case opRoom:
		r.unthrottle()
	case opDrain:
		r.drained = 0
	case opEnd:
		r.end()
	case opRefused:
		r.gauges.At(int(o.token.Slot)).Told()
		if c != nil {
			r.refused(c, o.policy)
		}
	default:
		if c == nil {
			return
		}
		switch o.kind {
		case opClose:
			r.startClose(c, o.code, string(data))
		case opAnswer:
			r.answered(c, o.answer, data)
		case opChanged:
			r.changed(c)
		case opEased:
			r.eased(c)
		case opPanic:
			r.mark(c, fate{kind: fateClose, code: frame.InternalError, cause: ErrPanic})
		}
	}
}

// Accept hands a grant to this reactor. The Acceptor calls it, from any
// goroutine.
func (r *reactor) Accept(g netpoll.Grant) { _ = r.mail.Force(op{kind: opAccept, grant: g}, nil) }

// Load is how many connections this reactor has and can have. The Acceptor calls
// it, from any goroutine.
func (r *reactor) Load() (used, limit int) { return int(r.public.used.Load()), r.server.slots }

// accept uses a grant: it accepts on this thread, into this thread's table.
func (r *reactor) accept(g netpoll.Grant) {
	r.grants = grants{true, netpoll.Granted{Reactor: r.index, Listener: g.Listener, More: true}}
	listener := r.server.listeners[g.Listener].FD
	for n := 0; n < g.Budget && !r.slots.Full(); n++ {
		fd, ok, err := netpoll.Accept(listener)
		if !ok {
			r.grants.result.More, r.grants.result.Err = err != nil, err
			break
		}
		r.adopt(fd)
	}
	r.public.used.Store(int64(r.slots.Used())) // before anybody is answered
}

// adopt makes a connection of an accepted socket. There must be a free slot.
func (r *reactor) adopt(fd int) {
	c := r.slots.Take(fd)
	r.gauge(c).Open()
	r.enter(c, stateRequest)
	r.fresh = append(r.fresh, r.slots.Token(c))
	r.counts.Accepted++
}

// greet reads from the connections that were accepted in this turn, and answers
// the Acceptor. Most have sent their request by now, and are answered before the
// poller would have told of them.
func (r *reactor) greet() {
	for i := 0; i < len(r.fresh); i++ { // settle may bring more
		c := r.slots.Get(r.fresh[i])
		if c == nil {
			continue
		}
		r.read(c)
		if !c.is(flagDying) {
			r.poll(c)
		}
		r.settle()
	}
	r.fresh = r.fresh[:0]
	if r.grants.granted {
		r.grants.granted = false
		r.server.acceptor.Answer(r.grants.result)
	}
}

// poll registers a connection with the poller, unless it is registered. If that
// fails the connection is rejected.
func (r *reactor) poll(c *conn) (ok bool) {
	if c.is(flagPolled) {
		return true
	}
	if err := r.poller.Add(int(c.FD), r.slots.Token(c), c.interest()); err != nil {
		r.grants.result.Err = err // accepting pauses: it is a limit of the machine
		r.mark(c, fate{kind: fateReject, cause: rejectFull})
		return false
	}
	c.flags |= flagPolled
	return true
}

// want sets or clears a flag that says what c's socket is polled for.
func (r *reactor) want(c *conn, flag flags, on bool) {
	if on == c.is(flag) {
		return
	}
	before := c.interest()
	c.flags ^= flag
	if !c.is(flagPolled) || c.interest() == before {
		return
	}
	if err := r.poller.Modify(int(c.FD), r.slots.Token(c), c.interest()); err != nil {
		r.mark(c, gone(err))
	}
}

// conn is the handle that the handler gets for a slot.
func (r *reactor) conn(c *conn) Conn {
	t := r.slots.Token(c)
	return Conn{server: r.server, id: idOf(r.index, t), tag: c.tag, policy: c.policy}
}

func (r *reactor) gauge(c *conn) *outbox.Gauge { return r.gauges.At(int(r.slots.Token(c).Slot)) }

// public is the part of a reactor that others read.
type public struct {
	used atomic.Int64  // slots
	turn atomic.Uint64 // odd while a turn is taken

	goroutine atomic.Value // its stack.ID

	turnTime, passTime histogram.Atomic
	census             atomic.Pointer[Census]
	stats              sharedStats
}
