package server

import (
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// conn is a connection's slot: what every connection needs all the time, and
// nothing else.
//
//	 0 FD     4 Gen    8 heard  12 seen   16 tag (8)  24 extra  28 state, flags, whenSlow
//	└────────────────────────────── 32 bytes ──────────────────────────────┘
type conn struct {
	netpoll.Slot
	heard uint32       // position in the broadcast log up to which it was sent
	seen  netpoll.Tick // when the peer was last heard of, or the state began
	tag   uint64
	extra uint32 // index of its extra, zero for none
	state state
	flags flags

	whenSlow WhenSlow // what its messages are sent with, unless they say
}

// state is where a connection is in its life.
//
//	accept ─▶ head ──101──▶ open ──Conn.Close──▶ closing
//	            │            │ │                    │
//	            │ refused    │ └─peer's Close,──────┤ peer's Close
//	            ▼            ▼   nothing owed       ▼
//	          linger ◀── failed, owed            gone ◀── EOF, error, timeout
//
// Between head and open, a connection whose handler's Upgrade runs on a worker
// is asking; it is not read meanwhile.
//
// In linger the last word is said: what is owed still goes out, then FIN, and
// input is thrown away until the peer ends too. Closing with unread input
// would answer it with a reset, and the last word might be lost.
type state uint8

const (
	stateHead    state = iota // the request head has not arrived whole
	stateAsking               // the handler decides about the request
	stateOpen                 // messages flow
	stateClosing              // our Close frame is sent, the peer's is awaited
	stateLinger
	stateGone // the socket is closed; the slot is free when the turn ends
)

type flags uint8

const (
	flagPolled  flags = 1 << iota // registered with the poller
	flagWriting                   // waits for the socket to become writable
	flagPinged                    // has been pinged since it was last heard of
	flagPaused                    // is not read until its handler gets on
	flagHeld                      // is not read until its broadcasts have been sent
	flagSlow                      // the handler was told that it is slow

	flagUnread = flagPaused | flagHeld
)

// op is what others want from a reactor.
type op struct {
	kind     opKind
	whenSlow WhenSlow      // opSend, opRefused
	code     frame.Code    // opClose
	id       uint32        // opSend: Kind.ID
	token    netpoll.Token // of the connection, if it is about one
	turn     netpoll.Turn  // opAccept
	pub      *publication  // opBroadcast
	answer   *answer       // opAnswer
}

type opKind uint8

const (
	opSend      opKind = iota // the letter's bytes are a frame for one connection
	opRefused                 // a sender was told ErrSlow
	opClose                   // the letter's bytes are the reason
	opBroadcast               // a frame for every open connection
	opAccept                  // a turn at accepting
	opAnswer                  // what the handler says to a request; the bytes are the response
	opDrained                 // a wish has come true
	opHold                    // the connection broadcasts too much
	opRelease                 // it may go on
	opPanicked                // the handler has panicked
	opDrain                   // close all connections, then end
	opEnd                     // end now
)

// reactor serves its share of the connections on a thread of its own.
type reactor struct {
	// constant after Listen
	server *Server
	index  int
	waker  *netpoll.Waker
	mail   *netpoll.Mailbox[op]
	slots  *netpoll.Slots[conn, *conn] // but for Live the reactor's own
	debts  *netpoll.Table[debt]        // of the slots
	limits limits

	// the reactor's own, from here to the end
	poller   *netpoll.Poller
	owing    int // bytes in all outboxes
	extras   extras
	log      broadcastLog
	parser   *frame.Parser
	upgrader *frame.Upgrader
	asking   *conn // whose request upgrader looks at
	turning  bool  // has a turn at accepting, to be answered with turn
	turn     netpoll.TurnResult
	fresh    []*conn         // accepted in this turn
	drained  []netpoll.Token // connections that are read again from this turn on
	held     uint32          // holds that were seen
	began    time.Duration   // when this turn did, in the clock's time
	tick     netpoll.Tick    // the same in ticks
	swept    netpoll.Tick    // when sweep last ran
	census   Census          // of this lap
	sweeping int             // the slot that sweep comes to next
	draining int             // the slot that drain comes to next, -1 before opDrain
	ended    bool
	count    counts
	buf      []byte // what is read, for one read of one connection
	reply    []byte // a control frame of ours

	// read and written by others
	public published
	holds  atomic.Uint32 // how often opHold was posted
}

// readSize is how much one read takes. A socket that has more is ready again
// in the next turn, after the others.
const readSize = 64 << 10

// readSize is less where messages queue: what one read brings is kept while
// its connection is paused.
func (o *Options) readSize() int {
	if o.Mode == Inline {
		return readSize
	}
	return min(readSize, max(o.QueueBytes, 2*frame.MaxHead))
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
	debts, err := netpoll.NewTable[debt](s.slots)
	if err != nil {
		return nil, err
	}
	r := &reactor{
		server:   s,
		index:    index,
		waker:    waker,
		mail:     netpoll.NewMailbox[op](waker, mailLimit),
		limits:   newLimits(&s.options),
		slots:    slots,
		debts:    debts,
		parser:   frame.NewServerParser(s.options.MaxMessage),
		draining: -1,
		buf:      make([]byte, s.options.readSize()),
	}
	r.upgrader = frame.NewUpgrader(r.decide)
	return r, nil
}

// run is the reactor: the one loop that everything else hangs on. It returns
// when the reactor has been told to end and has no connection left.
func (r *reactor) run() error {
	var err error
	if r.poller, err = netpoll.NewPoller(r.waker); err != nil {
		return err
	}
	defer r.close()
	for !r.ended {
		patience := r.patience()
		r.endTurn()
		events, err := r.poller.Wait(patience)
		r.beginTurn()
		if err != nil {
			return err
		}
		for i := range events {
			r.event(&events[i])
		}
		r.readMail()
		r.greet()
		r.resume()
		r.fanOut()
		r.sweep()
		r.drain()
		r.slots.Reclaim()
		if r.log.busy() {
			netpoll.Yield()
		}
	}
	return nil
}

// beginTurn and endTurn let others see that the reactor gets on: its turn is an
// odd number while it works, an even one while it waits.
func (r *reactor) beginTurn() {
	r.public.turn.Store(r.public.turn.Load() | 1)
	r.began = r.server.clock.Now()
	r.tick = netpoll.TickAt(r.began)
}

func (r *reactor) endTurn() {
	if turn := r.public.turn.Load(); turn%2 == 1 {
		r.public.turnTime.add(microseconds(r.server.clock.Now() - r.began))
		r.public.turn.Store(turn + 1)
	}
}

// patience is how long the next wait may last: not at all while there is work
// that needs no event, until the next tick while timeouts run.
func (r *reactor) patience() time.Duration {
	switch {
	case r.log.busy() || len(r.drained) > 0 || r.draining >= 0 && r.draining < r.slots.High():
		return 0
	case r.slots.Used() > 0:
		r.publish()
		return netpoll.UntilTick(r.server.clock.Now())
	}
	r.publish()
	r.publishCensus()
	return -1
}

// event serves one connection that is ready.
func (r *reactor) event(e *netpoll.Event) {
	c := r.slots.Get(e.Token())
	if c == nil {
		return // closed earlier in this turn
	}
	if e.Writable() {
		r.flush(c)
	}
	if e.Readable() && c.state != stateGone {
		r.readable(c)
	}
	// What the handler sent goes out now, while its socket is in the cache.
	r.readMail()
}

// readMail does what others, and the handler, have asked for.
func (r *reactor) readMail() {
	if !r.mail.Called() {
		return
	}
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
	switch o.kind {
	case opRefused:
		r.refused(o)
	case opClose:
		r.startClose(r.slots.Get(o.token), o.code, string(data))
	case opBroadcast:
		r.log.add(o.pub, r.began)
	case opAccept:
		r.accept(o.turn)
	case opAnswer:
		r.answered(o.token, o.answer, data)
	case opDrained:
		r.proceed(r.slots.Get(o.token), flagPaused)
	case opHold:
		if c := r.slots.Get(o.token); c != nil && c.state == stateOpen {
			r.count[Held]++
			r.await(c, flagHeld, true)
		}
	case opRelease:
		r.proceed(r.slots.Get(o.token), flagHeld)
	case opPanicked:
		if c := r.slots.Get(o.token); c != nil && c.state == stateOpen {
			r.fail(c, frame.InternalError, ErrPanic)
		}
	case opDrain:
		r.startDrain()
	case opEnd:
		r.end()
	}
}

// conn is the handle that the handler gets for a slot.
func (r *reactor) conn(c *conn) Conn {
	t := r.slots.Token(c)
	return Conn{server: r.server, id: uint64(t.Gen)<<32 | uint64(r.index)<<22 | uint64(t.Slot), tag: c.tag, whenSlow: c.whenSlow}
}
