package server

import (
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/fanout"
	"github.com/seed-134acfd0/lull/server/internal/histogram"
	"github.com/seed-134acfd0/lull/server/internal/stack"
)

// op is what others want from a reactor.
type op struct {
	kind       opKind
	policy     OutboxPolicy        // opSend, opRefused
	code       frame.Code          // opClose
	id         uint32              // opSend: Kind.ID; opBroadcast, opSubscribe, opUnsubscribe: the topic's branch
	token      netpoll.Token       // of the connection, if it is about one
	grant      netpoll.Grant       // opAccept
	message    *fanout.Publication // opBroadcast
	answer     *answer             // opAnswer
	adopted    *adoption           // opAdopt
	inspection *inspection         // opInspect
}

type opKind uint8

const (
	opSend        opKind = iota // the letter's bytes are a frame for one connection
	opRefused                   // a sender was told ErrBackpressure
	opClose                     // the letter's bytes are the reason
	opBroadcast                 // a frame for every open connection, or for those that subscribe to a topic
	opSubscribe                 // to a topic
	opUnsubscribe               // from a topic
	opAccept                    // a grant to accept
	opAdopt                     // a socket waits at the door; the bytes are what was read of it
	opTLS                       // a TLS handshake has got on
	opAnswer                    // what the handler says to a request; the bytes are the response
	opChanged                   // what the reactor wants of an inbox is true
	opThrottle                  // its Inline handler publishes more than gets on
	opEased                     // the peer has taken enough, or its handler is ready
	opRoom                      // throttled connections may go on
	opInspect                   // another goroutine waits to read something
	opPanic                     // the handler has panicked
	opDrain                     // ask the connections to leave, over Options.DrainTime
	opHurry                     // ask all that are left, then end
	opEnd                       // end now
)

// reactor serves its share of the connections on a thread of its own. It is the
// loop, and wires the parts, each of which calls only those above it here:
//
//	conns   what connections are: slots, states, marks, what is polled for
//	output  what they are sent
//	calls   the handler
//	input   what they have sent
//	closer  their end
//	sweep   their timeouts
//	drain   asking them to leave, at the server's end
//
// Its methods, and theirs, are called by its own goroutine alone, but for Accept
// and Load.
type reactor struct {
	conns
	out    output
	calls  calls
	in     input
	closer closer
	sweep  sweep
	drain  drain

	waker *netpoll.Waker
	mail  *netpoll.Mailbox[op]
	door  door

	fresh  []netpoll.Token // accepted in this turn
	grants grants
	ended  bool

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
	readSize    = 64 << 10  // bytes of one read, where messages do not queue
	inflatedMax = 256 << 10 // bytes that messages inflate to; then each connection may have one more inflated
	readBehind  = 4 << 10   // bytes of one read, while the handler has not done with earlier messages: the rest waits with the peer
	readSmall   = 512       // bytes of one read, when too much waits already
	framesMax   = 64        // frames of one connection
	writesMax   = 16        // writes of what one connection's box holds
	passSends   = 32        // sends of a broadcast's pass, about a quarter of a millisecond
	passVisits  = 4 << 10   // slots of a pass, many of which may have nothing to be sent
	topicVisits = 8         // subscribers of one topic, before the next topic has its turn
	sampleMax   = 256       // sides or slots that are looked through for the worst
	drainBatch  = 32        // connections that are asked to leave, and read first
	evictMax    = 16        // connections that are evicted from a full table
	sweepMax    = 4 << 10   // slots that the sweep looks at
	pingsMax    = 32        // of these, that take system calls
)

// readSize is less where messages queue: what one read brings is kept while its
// connection is paused.
func (o *Options) readSize() int {
	if o.Mode == Inline || o.TLS != nil {
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
	t, err := newConns(s, index)
	if err != nil {
		return nil, err
	}
	passage, err := netpoll.NewPassage()
	if err != nil {
		return nil, err
	}
	r := &reactor{conns: t, waker: waker, mail: netpoll.NewMailbox[op](waker, mailLimit), door: door{Passage: passage}}
	r.out = output{conns: &r.conns}
	if s.tls != nil {
		if r.out.tls, err = newTransport(s); err != nil {
			return nil, err
		}
	}
	r.calls = calls{conns: &r.conns}
	r.calls.upgrader = frame.NewUpgrader(r.calls.decide)
	r.calls.upgrader.Deflate = s.options.Compress
	r.in = input{conns: &r.conns, out: &r.out, calls: &r.calls, mail: r.mail, door: &r.door, rate: s.options.rateLimit(), parser: frame.NewServerParser(s.options.MaxMessage)}
	r.in.deflated = frame.NewServerParser(s.options.MaxMessage)
	r.in.deflated.Deflate = true
	r.closer = closer{&r.conns, &r.out, &r.calls, &r.in}
	r.sweep = sweep{conns: &r.conns, out: &r.out, in: &r.in}
	r.drain = drain{conns: &r.conns, in: &r.in, closer: &r.closer}
	return r, nil
}

// run is the reactor: the one loop that everything else hangs on. It returns
// when the reactor was told to end and has no connection left.
func (r *reactor) run() (err error) {
	if r.poller, err = netpoll.NewPoller(r.waker); err != nil {
		return err
	}
	r.public.goroutine.Store(stack.Self())
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
	r.in.inflated = 0
	for i := range events {
		r.event(&events[i])
		r.settle() // what a handler sent goes out while its socket is in the cache
	}
	r.settle()
	r.greet()
	r.in.uncurb()
	r.resume()
	r.calls.handOver()
	r.pass()
	r.look()
	r.dismiss()
	r.evict()
	r.calls.handOver()
	r.topics.Settle()
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

// bury tells handlers of backpressure, goes on with peers that have taken enough,
// and ends the connections that are marked.
func (r *reactor) bury() {
	for _, t := range r.out.turned {
		if c := r.slots.Get(t.token); c != nil {
			r.calls.backpressure(c, t.high)
		}
	}
	r.out.turned = r.out.turned[:0]
	for _, t := range r.out.eased {
		if c := r.slots.Get(t); c != nil {
			r.in.eased(c)
		}
	}
	r.out.eased = r.out.eased[:0]
	r.closer.bury()
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
	case r.server.pool != nil && (r.server.pool.Nudge() || r.calls.handed):
		r.calls.handed = false
		return r.poller.Doze(doze)
	}
	r.publish()
	return r.poller.Wait(netpoll.TickLength - r.time%netpoll.TickLength)
}

// busy reports whether there is work that needs no event.
func (r *reactor) busy() bool {
	return r.grants.granted || len(r.fresh) > 0 || r.out.log.Busy() || r.topics.Busy() || r.topics.Owing() || len(r.in.again) > 0 || len(r.in.curbs.due) > 0 || r.sweep.due > 0 || r.drain.busy()
}

// beginTurn and endTurn let others see that the reactor gets on: its turn is an
// odd number while it works, an even one while it waits.
func (r *reactor) beginTurn() {
	r.public.turn.Store(r.public.turn.Load() | 1)
	r.clock.advance()
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
		r.out.flush(c)
	}
	if e.Readable() {
		r.in.read(c)
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
			r.out.send(letters[first:i+1], data, begin)
		}
		begin = letters[i].End
	}
	r.mail.Empty()
}

func (r *reactor) do(o *op, data []byte) {
	c := r.slots.Get(o.token) // nil if it has gone, or the op is about none
	switch o.kind {
	case opAccept:
		r.accept(o.grant)
	case opAdopt:
		r.adopt(o.adopted, data)
	case opBroadcast:
		r.out.add(o.message, o.id)
	case opRoom:
		r.in.unthrottle()
	case opSubscribe:
		r.out.subscribe(c, o.token.Slot, o.id)
	case opUnsubscribe:
		r.out.unsubscribe(c, o.token.Slot, o.id)
	case opInspect:
		o.inspection.of(&r.conns)
		o.inspection.over <- true
	case opDrain:
		r.drain.begin()
	case opHurry:
		r.drain.hurry()
	case opEnd:
		r.end()
	case opRefused:
		r.gauges.At(int(o.token.Slot)).Told()
		if c != nil {
			r.out.refused(c, o.policy)
		}
	default:
		if c != nil {
			r.doFor(c, o, data)
		}
	}
}

// doFor does what is asked for one connection.
func (r *reactor) doFor(c *conn, o *op, data []byte) {
	switch o.kind {
	case opClose:
		r.closer.startClose(c, o.code, string(data))
	case opTLS:
		r.in.progress(c)
	case opAnswer:
		r.in.answered(c, o.answer, data)
		if c.state == stateEnded {
			r.closer.freeIdle(c)
		}
	case opChanged:
		if c.state == stateEnded {
			r.closer.freeIdle(c)
		} else {
			r.in.changed(c)
		}
	case opThrottle:
		r.in.throttle(c)
	case opEased:
		r.in.eased(c)
	case opPanic:
		r.mark(c, fate{kind: fateClose, code: frame.InternalError, cause: ErrPanic})
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
		r.take(fd)
	}
	r.public.used.Store(int64(r.slots.Used())) // before anybody is answered
}

// take makes a connection of an accepted socket. There must be a free slot.
func (r *reactor) take(fd int) *conn {
	c := r.slots.Take(fd)
	r.gauge(c).Open()
	proxied := r.server.admission.trust != nil && r.server.admission.proxied(netpoll.RemoteAddr(fd).Addr())
	if proxied && r.server.admission.heads {
		r.enter(c, stateProxy)
	} else {
		r.in.begin(c)
	}
	r.fresh = append(r.fresh, r.slots.Token(c))
	r.counts.Accepted++
	if r.server.admission.asked() && !proxied {
		r.in.admit(c)
	}
	return c
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
		r.in.read(c)
		if !c.is(flagDying) {
			r.poll(c)
		}
		r.settle()
	}
	r.fresh = r.fresh[:0]
	if r.grants.granted {
		r.grants.granted = false
		if r.pollError != nil {
			r.grants.result.Err = r.pollError
		}
		r.server.acceptor.Answer(r.grants.result)
	}
	r.pollError = nil
}

// resume goes on with connections of which more was read than was handled.
func (r *reactor) resume() {
	ready := r.in.again
	r.in.again = nil
	for _, t := range ready {
		if c := r.slots.Get(t); c != nil {
			r.in.resume(c)
			r.settle()
		}
	}
	if r.in.again == nil {
		r.in.again = ready[:0]
	}
}

// pass goes on with the pass of broadcasts and with the topics, for a bounded number
// of sends each: a broadcast to everybody must not make anybody wait.
func (r *reactor) pass() {
	sends := 0
	for visits := 0; r.out.log.Busy() && sends < passSends && visits < passVisits; visits++ {
		sends += r.out.step()
		r.bury()
	}
	sends = 0
	for visits := 0; r.topics.Busy() && sends < passSends && visits < passVisits; visits += topicVisits {
		sends += r.out.stepTopic()
		r.bury()
	}
}

// look goes on with the sweep.
func (r *reactor) look() {
	if r.sweep.advance() {
		r.publish()
		r.out.endCongestion()
	}
	calls := 0
	for n := 0; r.sweep.due > 0 && n < sweepMax && calls < pingsMax; n++ {
		c, lap := r.sweep.next()
		if lap {
			r.publishCensus()
		}
		if c == nil {
			continue
		}
		if r.sweep.check(c) {
			calls++
		}
		r.sweep.census.note(&r.conns, c)
		r.bury()
	}
}

// evict makes room in a table that is full.
func (r *reactor) evict() {
	victims := r.sweep.victims()
	if len(victims) == 0 {
		return
	}
	for _, c := range victims {
		r.counts.Evicted++
		r.mark(c, gone(errEvicted))
	}
	r.bury()
	r.public.used.Store(int64(r.slots.Used()))
}

// dismiss goes on with the drain, and ends the reactor when all have left.
func (r *reactor) dismiss() {
	r.drain.advance()
	asked := 0
	for n := 0; n < sweepMax && asked < drainBatch && r.drain.busy(); n++ {
		if r.drain.next() {
			asked++
			r.settle()
		}
	}
	if r.drain.last && r.slots.Used() == 0 {
		r.ended = true
	}
}

// end gives up the connections that are left.
func (r *reactor) end() {
	for i := range r.slots.High() {
		if c := r.slots.At(i); c != nil {
			r.mark(c, gone(ErrShutdown))
		}
	}
	r.ended = true
}

// close gives the reactor's resources back.
func (r *reactor) close() {
	defer r.endTurn()
	r.end() // after an error there may be connections left
	r.settle()
	r.mail.Shut()
	letters, _ := r.mail.Open()
	for i := range letters {
		switch o := &letters[i].Value; o.kind {
		case opSend:
			r.counts.MessagesAccepted++
			r.counts.Undelivered++
		case opBroadcast:
			o.message.Passed(fanout.Tally{})
		case opAnswer:
			if c := r.slots.Get(o.token); c != nil {
				r.in.answered(c, o.answer, nil)
			}
		case opInspect:
			o.inspection.over <- false
		case opAdopt:
			r.server.gate.Leave()
			r.server.admission.leave(o.adopted.ticket)
			r.calls.closeStray(o.adopted, ErrShutdown)
		}
	}
	r.calls.handOver()
	for _, e := range r.out.log.Drop() {
		e.Passed(e.Tally)
	}
	r.topics.Drop()
	for i := range r.slots.High() { // whose handlers are not through with them
		if c := r.slots.At(i); c != nil {
			r.server.gate.Leave()
		}
	}
	r.publish()
	r.slots.Close()
	_ = r.poller.Close()
}

// public is the part of a reactor that others read.
type public struct {
	used atomic.Int64  // slots
	turn atomic.Uint64 // odd while a turn is taken

	goroutine atomic.Value // its stack.ID

	turnTime histogram.Atomic
	census   atomic.Pointer[Census]
	stats    sharedStats
}
