package loadgen

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// client is a connection's slot.
//
//	0 FD   4 Gen   8 index   12 since   16 got   20 partial   24 state
//	└───────────────────────── 28 bytes ─────────────────────────┘
type client struct {
	netpoll.Slot
	index   uint32 // among all connections of the run: its source and target
	since   uint32 // ms since the run's beginning when connect was called
	got     uint32 // broadcasts received, which come in order
	partial uint32 // index of its partial, zero for none
	state   state
}

// state is where a connection is in its life.
//
//	connect ─▶ connecting ─▶ requested ──101──▶ open ──▶ closing ─▶ gone
type state uint8

const (
	connecting state = iota // TCP's handshake
	requested               // WebSocket's
	open
	closing // our Close frame is sent
	gone
)

// order is what the coordinator wants from a worker.
type order struct {
	kind     orderKind
	from     int           // orderConnect: the first connection's number
	count    int           // orderConnect: how many; orderEcho: active connections
	rate     float64       // orderConnect: a second
	number   uint32        // orderBroadcast
	meant    time.Duration // orderBroadcast
	deadline time.Duration // orderEcho: when to send no more
	report   chan<- report // orderReport
}

type orderKind uint8

const (
	orderConnect   orderKind = iota
	orderBroadcast           // send one from some open connection
	orderEcho
	orderReport
	orderClose
	orderEnd
)

// inFlight bounds the connections that one worker is opening at a time.
const inFlight = 512

// readSize is how much one read takes.
const readSize = 64 << 10

// worker holds its share of the connections.
type worker struct {
	// constant
	run   *run
	index int
	waker *netpoll.Waker
	mail  *netpoll.Mailbox[order]

	// the worker's own
	poller   *netpoll.Poller
	slots    *netpoll.Slots[client, *client]
	parser   *frame.Parser
	partials []partial // of connections with an incomplete frame or response
	unused   []uint32  // free partials
	now      time.Duration
	ramp     ramp
	swept    time.Duration
	echoEnd  time.Duration // when to send no more
	closing  int           // the slot that closeSome comes to next, -1 before orderClose
	ended    bool
	tally    tally
	buf      []byte
	out      []byte

	// read by the coordinator
	public struct {
		counts   [tallies]atomic.Uint64
		opening  atomic.Int64
		used     atomic.Int64
		lastRecv atomic.Int64 // ns since the run began
	}
}

// ramp is the connections that are still to be opened.
type ramp struct {
	order
	begun   time.Duration
	started int // connects called
	opening int // not yet open, nor failed
}

// partial is what a connection needs only while something is incomplete.
type partial struct {
	parse frame.State
	raw   []byte
	whole []byte
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
	return &worker{
		run:     r,
		index:   index,
		waker:   waker,
		mail:    netpoll.NewMailbox[order](waker, netpoll.Limit{Letters: 1 << 10}),
		slots:   slots,
		parser:  frame.NewClientParser(1 << 20),
		closing: -1,
		tally:   tally{report: newReport()},
		buf:     make([]byte, readSize),
	}, nil
}

// loop is the worker. It returns when it is told to end.
func (w *worker) loop() error {
	var err error
	if w.poller, err = netpoll.NewPoller(w.waker); err != nil {
		return err
	}
	defer w.end()
	for !w.ended {
		events, err := w.poller.Wait(w.patience())
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

// patience is how long the next wait may last.
func (w *worker) patience() time.Duration {
	switch {
	case w.closing >= 0 && w.closing < w.slots.High():
		return 0
	case w.ramp.started < w.ramp.count && w.ramp.opening < inFlight:
		return pacer{w.ramp.rate}.wait(w.run.elapsed()-w.ramp.begun, w.ramp.started)
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
		case orderReport:
			o.report <- w.tally.take()
		case orderClose:
			w.closing = 0
		case orderEnd:
			w.ended = true
		}
	}
}

// connectSome starts the connections that are due.
func (w *worker) connectSome() {
	r := &w.ramp
	if r.started == r.count {
		return
	}
	due := min(r.count, pacer{r.rate}.due(w.now-r.begun))
	for r.started < due && r.opening < inFlight {
		w.connect(r.from + r.started)
		r.started++
	}
	if r.started < due {
		w.tally.counts[Held]++
	}
}

// connect starts one connection, from another place if its own is taken.
func (w *worker) connect(index int) {
	fd, err := -1, error(unix.EADDRINUSE)
	for inUse(err) {
		from, target := w.run.sources.Pick(index)
		if fd, err = netpoll.Connect(from, w.run.targets[target].addr); inUse(err) {
			w.tally.counts[Skipped]++
			if index = w.run.spare(); index < 0 {
				break
			}
		}
	}
	var c *client
	if err == nil {
		if c = w.slots.Take(fd); c == nil {
			netpoll.Close(fd)
			err = unix.EMFILE
		}
	}
	if err != nil {
		w.tally.fail(Failed, err)
		return
	}
	c.index = uint32(index)
	c.since = uint32(w.now / time.Millisecond)
	w.ramp.opening++
	w.request(c)
	if c.state == gone {
		return
	}
	want := netpoll.In
	if c.state == connecting {
		want = netpoll.Out
	}
	if err := w.poller.Add(int(c.FD), w.slots.Token(c), want); err != nil {
		w.drop(c, Failed, err)
	}
}

func inUse(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// request sends the opening handshake. Over loopback TCP's handshake is done
// before connect returns, elsewhere the socket tells when.
func (w *worker) request(c *client) {
	_, i := w.run.sources.Pick(int(c.index))
	target := &w.run.targets[i]
	w.out = frame.AppendRequest(w.out[:0], target.host, target.path, w.run.key(c.index))
	n, err := netpoll.Write(int(c.FD), w.out)
	switch {
	case err != nil:
		w.drop(c, refusal(err), err)
	case n == len(w.out):
		c.state = requested
	case n > 0: // a socket that takes part of its first kilobyte is broken
		w.drop(c, Failed, io.ErrShortWrite)
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
		if w.request(c); c.state == requested {
			if err := w.poller.Modify(int(c.FD), e.Token(), netpoll.In); err != nil {
				w.drop(c, Failed, err)
			}
		}
		return
	}
	held := 0
	if p := w.partial(c); p != nil {
		held = copy(w.buf, p.raw)
	}
	n, err := netpoll.Read(int(c.FD), w.buf[held:])
	if err != nil {
		w.hangUp(c, err)
		return
	}
	w.tally.counts[BytesIn] += uint64(n)
	record(w.tally.lag, w.run.elapsed()-woke)
	in := w.buf[:held+n]
	if c.state == requested {
		in = w.response(c, in)
	}
	if c.state == open || c.state == closing {
		in = w.frames(c, in)
	}
	if c.state != gone {
		w.keep(c, in)
	}
}

// response checks the server's answer and returns what follows it.
func (w *worker) response(c *client, in []byte) []byte {
	n, err := frame.HeadLen(in)
	if err == nil && n > 0 {
		err = frame.CheckResponse(in[:n], w.run.key(c.index))
	}
	switch {
	case err != nil:
		w.drop(c, Rejected, err)
		return nil
	case n == 0:
		return in
	}
	c.state = open
	w.ramp.opening--
	w.tally.counts[Connected]++
	record(w.tally.handshake, w.run.elapsed()-time.Duration(c.since)*time.Millisecond)
	return in[n:]
}

// frames handles what the server sends.
func (w *worker) frames(c *client, in []byte) []byte {
	var between frame.State
	parse, p := &between, w.partial(c)
	if p != nil {
		parse = &p.parse
	}
	for len(in) > 0 && c.state != gone {
		ev, n, err := w.parser.Next(parse, in)
		if err != nil {
			w.drop(c, Broken, err)
			return nil
		}
		if n == 0 {
			break
		}
		in = in[n:]
		switch {
		case ev.Op.Control():
			w.control(c, ev)
		case ev.Whole:
			w.receive(c, ev.Payload)
		default:
			if p == nil {
				p = w.needPartial(c)
				p.parse = between
				parse = &p.parse
			}
			if p.whole = append(p.whole, ev.Payload...); ev.Last {
				w.receive(c, p.whole)
				p.whole = p.whole[:0]
			}
		}
	}
	if c.state != gone && !parse.Idle() {
		w.needPartial(c).parse = *parse
	}
	return in
}

// receive takes note of a message.
func (w *worker) receive(c *client, payload []byte) {
	now := w.run.elapsed()
	m, ok := decode(payload, w.run.config.Size)
	switch {
	case !ok:
		w.tally.counts[Foreign]++
	case m.kind == kindBroadcast:
		switch {
		case m.number == c.got:
			c.got++
			w.tally.counts[Received]++
			record(w.tally.broadcast, now-m.meant)
			w.public.lastRecv.Store(int64(now))
		case m.number < c.got:
			w.tally.counts[Repeated]++
		default: // those between are lost, or come later and count as repeated
			w.tally.counts[Received]++
			w.tally.counts[Missed] += uint64(m.number - c.got)
			c.got = m.number + 1
		}
	case m.kind == kindEcho:
		w.tally.counts[Echoes]++
		record(w.tally.echo, now-m.meant)
		if now < w.echoEnd {
			w.send(c, message{meant: now, kind: kindEcho})
		}
	}
}

// control answers a control frame.
func (w *worker) control(c *client, ev frame.Event) {
	switch ev.Op {
	case frame.Ping:
		w.writeFrame(c, frame.Pong, ev.Payload)
	case frame.Close:
		if c.state == open {
			w.tally.counts[Closed]++
			w.writeFrame(c, frame.Close, ev.Payload)
		}
		if c.state != gone {
			c.state = closing // the server ends the TCP connection
		}
	}
}

// broadcast sends one message, from the first connection that can.
func (w *worker) broadcast(o *order) {
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil && c.state == open {
			w.send(c, message{meant: o.meant, number: o.number, kind: kindBroadcast})
			w.tally.counts[Sent]++
			return
		}
	}
}

// startEcho makes the first connections send; each answer makes them send
// again.
func (w *worker) startEcho(o *order) {
	w.echoEnd = o.deadline
	for i := 0; i < w.slots.High() && o.count > 0; i++ {
		if c := w.slots.At(i); c != nil && c.state == open {
			w.send(c, message{meant: w.run.elapsed(), kind: kindEcho})
			o.count--
		}
	}
}

func (w *worker) send(c *client, m message) {
	var payload [sizeMin]byte
	p := payload[:]
	if w.run.config.Size > sizeMin {
		p = make([]byte, w.run.config.Size)
	}
	m.encode(p)
	w.writeFrame(c, frame.Binary, p)
}

func (w *worker) writeFrame(c *client, op frame.Op, payload []byte) {
	var mask [4]byte
	if !w.run.config.Floor {
		binary.NativeEndian.PutUint32(mask[:], rand.Uint32())
	}
	w.out = frame.AppendMasked(w.out[:0], op, mask, payload)
	n, err := netpoll.Write(int(c.FD), w.out)
	switch {
	case err != nil:
		w.hangUp(c, err)
	case n < len(w.out):
		// The server does not read. A generator that queued for it would hide
		// that.
		w.drop(c, Stalled, io.ErrShortWrite)
	}
}

// hangUp ends a connection whose socket has ended.
func (w *worker) hangUp(c *client, err error) {
	switch c.state {
	case open:
		w.drop(c, Dropped, err)
	case closing:
		w.release(c)
	default:
		w.drop(c, refusal(err), err)
	}
}

// refusal tells apart how a connection can fail to open.
func refusal(err error) Counter {
	if errors.Is(err, unix.ECONNREFUSED) {
		return Refused
	}
	return Reset
}

// drop ends a connection and counts why.
func (w *worker) drop(c *client, why Counter, err error) {
	w.tally.fail(why, err)
	w.release(c)
}

func (w *worker) release(c *client) {
	if c.state < open {
		w.ramp.opening--
	}
	if c.partial != 0 {
		w.partials[c.partial-1] = partial{}
		w.unused = append(w.unused, c.partial)
	}
	if w.run.config.Floor {
		netpoll.Reset(int(c.FD))
	} else {
		netpoll.Close(int(c.FD))
	}
	c.state = gone
	w.slots.Put(c)
}

func (w *worker) partial(c *client) *partial {
	if c.partial == 0 {
		return nil
	}
	return &w.partials[c.partial-1]
}

func (w *worker) needPartial(c *client) *partial {
	if c.partial == 0 {
		if n := len(w.unused); n > 0 {
			c.partial, w.unused = w.unused[n-1], w.unused[:n-1]
		} else {
			w.partials = append(w.partials, partial{})
			c.partial = uint32(len(w.partials))
		}
	}
	return w.partial(c)
}

// keep stores what the next read of c needs.
func (w *worker) keep(c *client, raw []byte) {
	p := w.partial(c)
	if len(raw) > 0 {
		p = w.needPartial(c)
	}
	switch {
	case p == nil:
	case len(raw) == 0 && p.parse.Idle():
		w.partials[c.partial-1] = partial{}
		w.unused = append(w.unused, c.partial)
		c.partial = 0
	default:
		p.raw = append(p.raw[:0], raw...)
	}
}

// sweepEvery is how often connections that take too long are looked for.
const sweepEvery = 250 * time.Millisecond

// expire gives up the connections that do not open in time.
func (w *worker) expire() {
	if w.ramp.opening == 0 || w.now-w.swept < sweepEvery {
		return
	}
	w.swept = w.now
	for i := range w.slots.High() {
		c := w.slots.At(i)
		if c != nil && c.state < open && w.now-time.Duration(c.since)*time.Millisecond > w.run.config.ConnectTimeout {
			w.drop(c, TimedOut, errTimeout)
		}
	}
}

var errTimeout = errors.New("the handshake was not complete in time")

// closeBatch is how many connections begin to close in one turn.
const closeBatch = 256

// closeSome starts the closing handshake on the next connections.
func (w *worker) closeSome() {
	if w.closing < 0 {
		return
	}
	payload := frame.AppendClosePayload(nil, frame.NormalClosure, "")
	for n := 0; n < closeBatch && w.closing < w.slots.High(); w.closing++ {
		c := w.slots.At(w.closing)
		if c == nil {
			continue
		}
		n++
		if c.state != open || w.run.config.Floor {
			w.release(c)
			continue
		}
		if w.writeFrame(c, frame.Close, payload); c.state == open {
			c.state = closing
		}
	}
}

func (w *worker) end() {
	for i := range w.slots.High() {
		if c := w.slots.At(i); c != nil {
			w.release(c)
		}
	}
	w.publish()
	_ = w.slots.Close()
	_ = w.poller.Close()
}

// publish lets the coordinator see how far this worker is.
func (w *worker) publish() {
	w.public.opening.Store(int64(w.ramp.opening + w.ramp.count - w.ramp.started))
	w.public.used.Store(int64(w.slots.Used()))
	for i, n := range w.tally.counts {
		if p := &w.public.counts[i]; p.Load() != n {
			p.Store(n)
		}
	}
}

// keys derives a distinct, unpredictable key for each connection from one
// random seed, so that none has to be stored.
type keys struct{ block cipher.Block }

func newKeys(seed [16]byte) keys {
	block, err := aes.NewCipher(seed[:])
	if err != nil {
		panic(err) // the length of a seed is right
	}
	return keys{block}
}

func (k keys) of(index uint32) frame.Key {
	var nonce [16]byte
	binary.BigEndian.PutUint32(nonce[:], index)
	k.block.Encrypt(nonce[:], nonce[:])
	return frame.NewKey(nonce)
}
