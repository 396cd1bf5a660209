package loadgen

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/netpoll"
)

const (
	readSize   = 64 << 10 // the most bytes that one read takes
	messageMax = 1 << 20  // bytes of a message
)

// worker holds its share of the connections.
type worker struct {
	// constant
	run      *run
	index    int
	waker    *netpoll.Waker
	mail     *netpoll.Mailbox[order]
	inFlight int // the most connections that are opening at a time
	pings    bool

	// the worker's own
	poller      *netpoll.Poller
	slots       *netpoll.Slots[client, *client]
	parser      *frame.Parser
	streams     *netpoll.Pool[frame.Stream] // for incomplete messages and responses
	fresh       frame.Stream                // for a connection that is read and has none of these; nothing stays in it
	talks       *netpoll.Pool[talk]         // of connections that send messages
	tls         *secure                     // nil if all connections are ws://
	compression *compression                // nil if no group compresses
	now         time.Duration               // at the last read, or when the turn began
	looked      time.Duration               // when the turn began
	spans       spans
	ramp        ramp
	returns     returns
	opens       []int // connections that are open, of each group
	busy        []int // of these, those with a stream
	orders      int64 // read
	taken       int   // connections that an order was for, ever
	reopening   int   // connections that are opened again, and neither open nor failed
	goodbyes    int   // connections that are closing
	sweep       hand  // of expire
	publication publication
	streaming   []*stream
	endings     endings
	timers      queue[timer]
	scripts     []int    // of each group, that have not ended
	expecting   groupSet // users that should receive what is published
	hands       []hand
	later       []delayed // connections that are served again in the next turn
	served      []delayed // the slice of the last turn's, for the next one
	corked      bool      // what is sent is kept, to be written together
	undeaf      bool      // deaf connections are read again
	paused      bool
	pausedAt    time.Duration // when the pause began
	owed        int           // messages of streams that should be answered
	lastRecv    time.Duration // when the last published message was received
	closing     int           // the next slot for closeSome, -1 before orderClose
	ended       bool
	tally       tally
	random      *rand.Rand
	fills       plan.Values // what templates are filled in with
	zeros       []byte      // as many as the largest message that the generator makes
	buf         []byte      // for what is read
	payload     []byte      // of a message
	nonce       [16]byte    // of a key
	out         []byte      // a frame or request to be written

	// read by the coordinator
	public struct {
		counts      [measure.Counters]atomic.Uint64
		orders      atomic.Int64                 // orders read
		opening     atomic.Int64                 // connections still to be opened for the first time, or under way
		away        atomic.Int64                 // connections that are opened again, or will be
		present     atomic.Int64                 // these, and those that are open or half-open; together, so that nobody is missed on the way
		started     atomic.Int64                 // connects called in the latest ramp
		lastConnect atomic.Int64                 // ns from the beginning of that until the last connect was called
		open        [plan.GroupsMax]atomic.Int64 // connections of each group
		busy        [plan.GroupsMax]atomic.Int64 // of these, those with a stream
		owed        atomic.Int64                 // messages of streams that should be answered
		taken       atomic.Int64                 // connections that an order was for, ever
		used        atomic.Int64                 // slots
		ending      atomic.Int64                 // connections still to be ended, or closing
		scripts     [plan.GroupsMax]atomic.Int64 // of each group, that have not ended
		silenced    atomic.Int64                 // connections that the server has ended after they had published
		lastRecv    atomic.Int64                 // ns from the run's begin until the last published message was received
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
	w := &worker{
		run:       r,
		index:     index,
		waker:     waker,
		mail:      netpoll.NewMailbox[order](waker, netpoll.Limit{Letters: 1 << 10}),
		inFlight:  inFlight,
		slots:     slots,
		parser:    frame.NewClientParser(messageMax),
		streams:   netpoll.NewPool((*frame.Stream).Reset),
		talks:     netpoll.NewPool[talk](nil),
		tls:       secure,
		returns:   returns{bySlot: map[uint32]absence{}},
		closing:   -1,
		expecting: ^groupSet(0),
		random:    rand.New(rand.NewPCG(r.random, uint64(index))),
		zeros:     make([]byte, r.largest),
		buf:       make([]byte, readSize),
	}
	if secure != nil {
		w.inFlight = inFlightTLS
	}
	w.fills = plan.Values{Random: w.random, Files: r.plan.Files}
	for i, g := range r.groups {
		w.spans = append(w.spans, r.span(index, i))
		w.opens, w.busy, w.scripts = append(w.opens, 0), append(w.busy, 0), append(w.scripts, 0)
		w.hands = append(w.hands, hand{every: g.Ping})
		w.pings = w.pings || g.Ping > 0
		if g.Compress && w.compression == nil {
			w.compression = newCompression()
		}
	}
	return w, nil
}

func (w *worker) group(c *client) *group { return w.run.groups[c.group] }

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
		w.turn(events, w.poller.Slept())
		if len(events) > 0 {
			netpoll.Yield()
		}
	}
	return nil
}

// turn does what the events and the time ask for. Where the worker slept until the events came
// they are new, otherwise they may have been there since the turn before looked.
func (w *worker) turn(events []netpoll.Event, slept bool) {
	before := w.looked
	w.now = w.run.elapsed()
	w.looked = w.now
	ready := w.now
	if !slept {
		ready = before
	}
	for i := range events {
		w.event(&events[i], ready)
	}
	w.serveAgain(before)
	w.readMail()
	w.slots.Reclaim() // whoever comes back in the turn in which it left needs its slot
	w.connectSome()
	w.publishSome()
	w.talkSome()
	w.ripen()
	w.pingSome()
	w.endSome()
	w.expire()
	w.closeSome()
	w.dropStreams()
	w.publishCounts()
}

// timeout is how long the next wait may last, -1 for ever.
func (w *worker) timeout() time.Duration {
	now := w.run.elapsed()
	if len(w.later) > 0 || w.closing >= 0 && w.closing < w.slots.High() {
		return 0
	}
	return soonest(w.untilConnect(now), w.untilSweep(), w.untilReturn(now), w.untilPublish(now), w.untilTalk(now), w.untilTimer(now), w.untilEnding(now), w.untilPing())
}

// untilConnect is how long it is until a connection is to be opened, -1 if none will be.
func (w *worker) untilConnect(now time.Duration) time.Duration {
	if w.paused || w.ramp.started == w.ramp.count || w.opening() >= w.inFlight {
		return -1
	}
	return w.ramp.pace.wait(now)
}

func (w *worker) readMail() {
	if !w.mail.Called() {
		return
	}
	letters, _ := w.mail.Open()
	for i := range letters {
		o := &letters[i].Value
		w.obey(o)
		if o.kind != orderTLS {
			w.orders++
		}
	}
	w.mail.Empty()
}

func (w *worker) obey(o *order) {
	switch o.kind {
	case orderRamp:
		w.ramp = ramp{groups: o.groups, count: o.count, pace: pace{rate: o.rate, begun: w.now}, opening: w.ramp.opening}
	case orderHalt:
		w.halt()
	case orderPublish:
		w.startPublish(o)
	case orderExpect:
		w.expect(o)
	case orderTalk:
		w.startTalk(o)
	case orderDeafen:
		w.deafen(o)
	case orderUndeafen:
		w.undeafen()
	case orderCure:
		w.cure()
	case orderChurn, orderDrain:
		w.startEndings(o)
	case orderStorm:
		w.storm(o)
	case orderRate:
		w.changeRate(o.rate)
	case orderPause:
		w.paused, w.pausedAt = true, w.now
	case orderResume:
		w.resumeAfter(o.paused)
	case orderReport:
		w.publishCounts() // the coordinator reads the counters after the report
		o.report <- w.tally.take()
	case orderTLS:
		w.progressTLS(o.token)
	case orderClose:
		w.closing = 0
		w.halt()
	case orderEnd:
		w.ended = true
	}
}

// halt makes the phase begin no more.
func (w *worker) halt() {
	w.ramp.count = w.ramp.started
	w.endings = endings{}
	w.publication.count = w.publication.done
	for _, s := range w.streaming {
		s.end = min(s.end, w.now)
	}
}

// changeRate changes the rate of what goes on.
func (w *worker) changeRate(rate float64) {
	now := w.present(w.now)
	if w.ramp.started < w.ramp.count {
		w.ramp.pace.change(rate, now)
	}
	if !w.endings.over(w.now) {
		w.endings.pace.change(rate, now)
	}
	if p := &w.publication; p.done < p.count && p.pace.rate > 0 {
		p.pace.change(rate, now)
	}
	w.returns.pace(rate, now)
	all := 0.0 // of the streams, which change in proportion
	for _, s := range w.streaming {
		all += s.pace.rate
	}
	for _, s := range w.streaming {
		if s.pace.rate > 0 {
			s.pace.change(rate*s.pace.rate/all, now)
		}
	}
}

// resumeAfter goes on after a pause, as if it had not been.
func (w *worker) resumeAfter(pause time.Duration) {
	w.paused = false
	w.ramp.pace.begun += pause
	w.publication.pace.begun += pause
	w.endings.pace.begun += pause
	w.endings.end += pause
	w.returns.shift(pause)
	for i := range w.timers {
		w.timers[i].at += pause
	}
	for i := range w.hands {
		w.hands[i].begun += pause
	}
	for _, s := range w.streaming {
		s.pace.begun += pause
		s.end += pause
	}
	for i := range w.slots.High() {
		c := w.slots.At(i)
		if c == nil || c.talk == 0 {
			continue
		}
		t := w.talks.At(c.talk)
		t.clock += pause
		for _, at := range []*time.Duration{&t.timer, &t.armed[0], &t.armed[1]} {
			if *at > 0 {
				*at += pause
			}
		}
		for i := range t.rounds {
			t.rounds[i].begun += pause
		}
		if t.stream != nil && c.state == open {
			w.more(c, t)
		}
	}
}

// present is now, or when the pause began: what begins in a pause is shifted by all of it.
func (w *worker) present(now time.Duration) time.Duration {
	if w.paused {
		return w.pausedAt
	}
	return now
}

// event serves one connection, which may have been ready since a time.
func (w *worker) event(e *netpoll.Event, ready time.Duration) {
	c := w.slots.Get(e.Token())
	if c == nil {
		return
	}
	switch c.state {
	case connecting:
		w.connected(c, e.Token())
		return
	case securing:
		w.feed(c, e.Ended())
		return
	}
	if e.Writable() {
		w.pour(c)
	}
	if e.Readable() && c.state != gone {
		w.read(c, ready, e.Ended())
	}
}

// deafen stops reading from the last connections of some groups.
func (w *worker) deafen(o *order) {
	w.undeaf = false
	for i := w.slots.High() - 1; i >= 0 && o.count > 0; i-- {
		if c := w.slots.At(i); c != nil && c.state == open && o.groups.has(c.group) {
			c.flags |= deaf
			w.setFlag(c, unread, true)
			o.count--
			w.taken++
		}
	}
}

// undeafen reads from the deaf connections again.
func (w *worker) undeafen() {
	w.undeaf = true
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil && c.is(deaf) {
			w.setFlag(c, unread, false)
		}
	}
}

// cure makes the deaf connections like others.
func (w *worker) cure() {
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil {
			c.flags &^= deaf
		}
	}
}

// end releases all connections and closes the poller.
func (w *worker) end() {
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil {
			w.release(c)
		}
	}
	w.publishCounts()
	w.slots.Close()
	_ = w.poller.Close()
}

// publishCounts copies to public what the coordinator reads.
func (w *worker) publishCounts() {
	w.public.opening.Store(int64(w.ramp.opening + w.ramp.count - w.ramp.started))
	away := len(w.returns.away) + len(w.returns.bySlot)
	w.public.away.Store(int64(away))
	counts := &w.tally.counts
	w.public.present.Store(int64(counts.Open() + int(counts[measure.HalfOpen]-counts[measure.HalfEnded]) + away))
	w.public.started.Store(int64(w.ramp.started))
	w.public.lastConnect.Store(int64(w.ramp.lastConnect))
	for g, n := range w.opens {
		w.public.open[g].Store(int64(n))
		w.public.busy[g].Store(int64(w.busy[g]))
		w.public.scripts[g].Store(int64(w.scripts[g]))
	}
	w.public.owed.Store(int64(w.owed))
	w.public.taken.Store(int64(w.taken))
	w.public.lastRecv.Store(int64(w.lastRecv))
	w.public.used.Store(int64(w.slots.Used()))
	ending := int64(w.goodbyes)
	if !w.endings.over(w.now) {
		ending += int64(w.endings.left)
	}
	w.public.ending.Store(ending)
	for i, n := range counts {
		if p := &w.public.counts[i]; p.Load() != n {
			p.Store(n)
		}
	}
	w.public.orders.Store(w.orders) // last, so that who sees it sees what the orders did
}
