package loadgen

import (
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// client is a connection's slot. That of a wss:// connection has a record.State
// beside it, of 108 bytes.
//
//	0 FD   4 Gen   8 index   12 since   16 got   20 stream   24 state   25 flags   26 flood
//	└───────────────────────────── 28 bytes ───────────────────────────────┘
type client struct {
	netpoll.Slot
	index  uint32 // among all connections of the run: its source and target
	since  uint32 // when connect was called, or the message that it asks was meant to be sent, in micros
	got    uint32 // broadcasts received, which come in order
	stream uint32 // index of its stream, zero for none
	state  state
	flags  flags
	flood  uint16 // index of its flooder, zero for none
}

type flags uint8

const (
	asked   flags = 1 << iota // an echo is on its way
	deaf                      // is not read, or was not read during the broadcasts
	secured                   // its bytes are TLS records
	missing                   // was away, and has not received a broadcast since
)

func (c *client) is(f flags) bool { return c.flags&f != 0 }

// state is where a connection is in its life.
//
//	connect ─▶ connecting ──▶ requested ──101──▶ open ──▶ closing ─▶ gone
//	                 │             ▲
//	                 └▶ securing ──┘ of wss://
type state uint8

const (
	connecting state = iota // TCP's handshake
	securing                // TLS's
	requested               // WebSocket's
	open
	closing // our Close frame is sent
	gone
)

// order is what the coordinator wants from a worker.
type order struct {
	kind     orderKind
	from     int           // orderConnect: the first connection's number
	count    int           // how many connections
	rate     float64       // a second; 0 is no limit
	number   uint32        // orderBroadcast: the message's
	meant    time.Duration // orderBroadcast: when it was meant to be sent
	deadline time.Duration // orderEcho, orderFlood: when to send no more
	report   chan<- report // orderReport
	token    netpoll.Token // orderTLS: the connection
}

type orderKind uint8

const (
	orderConnect   orderKind = iota
	orderBroadcast           // send one from some open connection
	orderEcho
	orderFlood
	orderDeafen
	orderUndeafen
	orderReport
	orderTLS // a TLS handshake, not the coordinator, wants something
	orderClose
	orderEnd
)

const (
	readSize   = 64 << 10 // the most bytes that one read takes
	messageMax = 1 << 20  // bytes of a message
)

// worker holds its share of the connections.
type worker struct {
	// constant
	run   *run
	index int
	waker *netpoll.Waker
	mail  *netpoll.Mailbox[order]

	// the worker's own
	poller       *netpoll.Poller
	slots        *netpoll.Slots[client, *client]
	parser       *frame.Parser
	streams      *netpoll.Pool[frame.Stream] // for the connection that is read, and for incomplete messages and responses
	tls          *secure                     // nil if all connections are ws://
	inFlight     int                         // the most connections that are opening at a time
	*compression                             // nil without Config.Compress
	returns      *returns                    // nil without Config.Reconnect
	now          time.Duration
	ramp         ramp
	swept        time.Duration
	echoEnd      time.Duration // when active connections stop sending
	polite       rotation      // of the active connections
	floods       rotation      // of the flooding ones
	flooders     []flooder
	closing      int // the next slot for closeSome, -1 before orderClose
	ended        bool
	tally        tally
	buf          []byte // for what is read
	payload      []byte // for a message
	out          []byte // for a frame or request to be written

	// read by the coordinator
	public struct {
		counts      [tallies]atomic.Uint64
		opening     atomic.Int64 // connections still to be opened
		started     atomic.Int64 // connects called
		lastConnect atomic.Int64 // ns from the order to connect until the last connect was called
		used        atomic.Int64 // slots
		lastRecv    atomic.Int64 // ns from the run's begin until the last broadcast was received
	}
}

func newWorker(r *run, index int) (*worker, error) {
	waker, err := netpoll.NewWaker()
	if err != nil {
		return nil, err
	}
	slots, err := netpoll.NewSlots[client](r.slots)
	if err != nil {
		return nil, err
	}
	secure, err := newSecure(r)
	if err != nil {
		return nil, err
	}
	most := inFlight
	if secure != nil {
		most = inFlightTLS
	}
	parser, compress := frame.NewClientParser(messageMax), (*compression)(nil)
	if r.config.Compress {
		parser.Deflate, compress = true, &compression{}
	}
	var again *returns
	if r.config.Reconnect {
		again = &returns{bySlot: map[uint32]absence{}}
	}
	return &worker{
		returns: again, tls: secure, inFlight: most, compression: compress,
		run:     r,
		index:   index,
		waker:   waker,
		mail:    netpoll.NewMailbox[order](waker, netpoll.Limit{Letters: 1 << 10}),
		slots:   slots,
		parser:  parser,
		streams: netpoll.NewPool((*frame.Stream).Reset),
		closing: -1,
		tally:   tally{report: newReport()},
		buf:     make([]byte, readSize),
		payload: make([]byte, r.config.Size),
	}, nil
}

// loop runs the worker until an order ends it.
func (w *worker) loop() error {
	var err error
	if w.poller, err = netpoll.NewPoller(w.waker); err != nil {
		return err
	}
	defer w.end()
	for !w.ended {
		events, err := w.poller.Wait(w.timeout())
		if err != nil {
			return err
		}
		w.now = w.run.elapsed()
		woke := w.now
		for i := range events {
			w.event(&events[i], woke)
		}
		w.readMail()
		w.connectSome()
		w.askSome()
		w.floodSome()
		w.expire()
		w.closeSome()
		w.slots.Reclaim()
		w.publish()
		if len(events) > 0 {
			netpoll.Yield()
		}
	}
	return nil
}

// timeout is how long the next wait may last, -1 for ever.
func (w *worker) timeout() time.Duration {
	now := w.run.elapsed()
	wait, back := w.untilWork(now), w.untilReturn(now)
	if wait < 0 || back >= 0 && back < wait {
		return back
	}
	return wait
}

// untilWork is timeout without the connections that are away.
func (w *worker) untilWork(now time.Duration) time.Duration {
	polite, floods := w.polite.wait(now), w.floods.wait(now)
	switch {
	case polite >= 0 && floods >= 0:
		return min(polite, floods)
	case max(polite, floods) >= 0:
		return max(polite, floods)
	case w.closing >= 0 && w.closing < w.slots.High():
		return 0
	case w.ramp.started < w.ramp.count && w.ramp.opening < w.inFlight:
		return pacer{w.ramp.rate}.wait(now-w.ramp.begun, w.ramp.started)
	case w.ramp.opening > 0:
		return sweepEvery
	}
	return -1
}

func (w *worker) readMail() {
	if !w.mail.Called() {
		return
	}
	letters, _ := w.mail.Open()
	for i := range letters {
		o := &letters[i].Value
		switch o.kind {
		case orderConnect:
			w.ramp = ramp{order: *o, begun: w.now}
		case orderBroadcast:
			w.broadcast(o)
		case orderEcho:
			w.startEcho(o)
		case orderFlood:
			w.startFlood(o)
		case orderDeafen:
			w.deafen(o.count)
		case orderUndeafen:
			w.undeafen()
		case orderReport:
			w.publish() // the coordinator reads the counters after the report
			o.report <- w.tally.take()
		case orderTLS:
			w.progressTLS(o.token)
		case orderClose:
			w.closing = 0
			w.ramp.count = w.ramp.started // an interrupted ramp opens no more
		case orderEnd:
			w.ended = true
		}
	}
}

// event serves one connection that is ready.
func (w *worker) event(e *netpoll.Event, woke time.Duration) {
	c := w.slots.Get(e.Token())
	if c == nil {
		return
	}
	if c.state == connecting {
		if err := netpoll.SocketError(int(c.FD)); err != nil {
			w.drop(c, refusal(err), err)
			return
		}
		if w.target(c).tls != nil {
			w.startTLS(c)
		} else {
			w.request(c)
		}
		if c.state == securing || c.state == requested {
			if err := w.poller.Modify(int(c.FD), e.Token(), netpoll.In); err != nil {
				w.drop(c, Failed, err)
			}
		}
		return
	}
	if c.state == securing {
		w.feed(c)
		return
	}
	if e.Writable() && c.flood != 0 {
		if w.pour(c); c.state == gone || !e.Readable() {
			return
		}
	}
	w.read(c, woke)
}

// read reads from c once, and records how long c was ready before that. woke is
// when the wait ended that reported it.
func (w *worker) read(c *client, woke time.Duration) {
	held := w.stream(c).Take(w.buf)
	from := held
	if c.is(secured) {
		from += w.takePartial(c, w.buf[held:])
	}
	n, err := netpoll.Read(int(c.FD), w.buf[from:])
	if err != nil {
		w.hangUp(c, err)
		return
	}
	w.tally.counts[BytesIn] += uint64(n)
	w.tally.measure(w.tally.lag, w.run.elapsed()-woke)
	if c.is(secured) {
		w.openRecords(c, held, w.buf[held:from+n])
		return
	}
	w.parse(c, w.buf[:held+n])
}

// end releases all connections and closes the poller.
func (w *worker) end() {
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil {
			w.release(c)
		}
	}
	w.publish()
	w.slots.Close()
	_ = w.poller.Close()
}

// publish copies to public what the coordinator reads.
func (w *worker) publish() {
	w.public.opening.Store(int64(w.ramp.opening + w.ramp.count - w.ramp.started))
	w.public.started.Store(int64(w.ramp.started))
	w.public.lastConnect.Store(int64(w.ramp.lastConnect))
	w.public.used.Store(int64(w.slots.Used()))
	for i, n := range w.tally.counts {
		if p := &w.public.counts[i]; p.Load() != n {
			p.Store(n)
		}
	}
}
