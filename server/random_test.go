package server

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/deflate"
	"github.com/seed-134acfd0/lull/internal/record"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
)

// The random test runs the turns of a real reactor, while clients over socketpairs do
// what clients do, system calls fail, and time jumps. Every byte of a message shows to
// which connection it belongs, so that the test notices a byte of another connection.

// world is a reactor, its clients, and what is known about them.
type world struct {
	t        testing.TB
	seed     uint64
	rng      *rand.Rand
	r        *reactor
	s        *Server
	now      time.Duration
	faults   float64 // probability that a system call fails
	pace     int     // how much time passes at a time, in milliseconds
	steps    int
	lives    []*life           // all that ever were
	clients  []*life           // that are connected, from the client's side
	byConn   map[Conn]*life    // that Upgrade has accepted
	sent     uint32            // broadcasts
	topics   [topicsMax]uint32 // publications to each topic
	handled  int               // messages
	inHand   []Delivery        // that are not done
	injected map[unix.Errno]int
	tls      *worldTLS // nil for plain connections
}

// life is a connection, as its client and its handler see it.
type life struct {
	tag  uint64
	fd   int // the client's socket
	conn Conn

	// client to server
	wire    []byte // written to the socket as it takes it
	open    bool   // a message is incomplete
	opcode  frame.Op
	body    []byte
	wrote   uint32 // messages
	heard   uint32 // messages that the handler was called for
	mayLose bool   // by InboxDrop

	deflates bool // it has offered permessage-deflate, and the server agreed

	// with TLS
	state  record.State
	broken bool   // it has sent a record that does not open
	sealed []byte // records that are written to the socket as it takes them
	cipher []byte // the beginning of a record

	// server to client
	input  []byte
	shaken bool
	stream frame.Stream
	direct uint32 // messages that were accepted for it
	gotten uint32 // the number of the last direct message, from 1
	cast   uint32 // the number of the last broadcast, from 1
	feeds  [topicsMax]feed

	accepted bool // by Upgrade
	inHand   bool // a message of it is not done
	opened   int
	closed   int
	high     bool
}

// feed is a topic as one connection has subscribed to it.
type feed struct {
	spans []span // the last is the present one, if it is open
	last  uint32 // the number of the last publication that came
}

// span is the publications behind from, up to to.
type span struct {
	from, to uint32
	open     bool
}

// A message has the tag of its connection, a number, a kind, and a filler that follows
// from the tag.
//
//	0    4       8      9
//	│tag │number │kind  │filler …
func spell(tag uint64, number uint32, kind byte, size int) []byte {
	b := make([]byte, max(size, 9))
	binary.BigEndian.PutUint32(b, uint32(tag))
	binary.BigEndian.PutUint32(b[4:], number)
	b[8] = kind
	for i := 9; i < len(b); i++ {
		b[i] = byte(tag)*31 + byte(number)*7 + byte(i)
	}
	return b
}

// check returns the number and kind of a message that must be tag's.
func (w *world) check(tag uint64, b []byte) (number uint32, kind byte) {
	if len(b) < 9 || uint64(binary.BigEndian.Uint32(b)) != tag {
		w.fail("connection %d got a message of another: %x", tag, b[:min(len(b), 16)])
	}
	number, kind = binary.BigEndian.Uint32(b[4:]), b[8]
	want := spell(tag, number, kind, len(b))
	for i := range b {
		if b[i] != want[i] {
			w.fail("byte %d of message %d of connection %d is %d, want %d", i, number, tag, b[i], want[i])
		}
	}
	return number, kind
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d, step %d: %s", w.seed, w.steps, fmt.Sprintf(format, args...))
}

// What a client's message makes its handler do.
const (
	kindSilent = iota
	kindEcho
	kindEchoThrice
	kindBroadcast
	kindClose
	kindPanic
	kindForward
	kindTopic
	kinds
)

// everybody is the tag of broadcasts.
const everybody = 0xffff

// topicTag is the tag of the first topic's publications. What is published to that topic
// is never dropped.
const (
	topicTag  = 0xff00
	topicsMax = 5
)

func (w *world) handler() Handler {
	return Handler{
		Upgrade: func(r *Request) error {
			var tag uint64
			if _, err := fmt.Sscanf(r.Target(), "/%d", &tag); err != nil {
				return &Reject{Status: 404, Reason: "no such path"}
			}
			switch w.rng.IntN(20) {
			case 0:
				return &Reject{Status: 403, Reason: "not you"}
			case 1:
				panic("in Upgrade")
			}
			r.Tag = tag
			r.Policy = OutboxPolicy(w.rng.IntN(5))
			if w.rng.IntN(3) == 0 {
				r.Value = tag
			}
			l := w.lives[tag]
			l.accepted = true
			// It subscribes when it opens, which is later, so the first publications may
			// not come.
			if i := w.rng.IntN(3 * topicsMax); i > 0 && i < topicsMax && w.s.options.MaxTopics > topicsMax {
				r.Topics = []string{topicName(i)}
				l.feeds[i].spans = []span{{from: w.topics[i], open: true}}
			}
			return nil
		},
		Open: func(c Conn) {
			l := w.life(c)
			if l.opened++; l.opened > 1 || l.closed > 0 {
				w.fail("connection %d was opened %d times", l.tag, l.opened)
			}
			if v := c.Value(); v != nil && v != l.tag {
				w.fail("connection %d has the value %v", l.tag, v)
			}
			l.conn = c
			if w.rng.IntN(4) == 0 {
				w.send(l)
			}
			for range w.rng.IntN(4) {
				w.topic(l)
			}
		},
		Message: func(c Conn, op frame.Op, data []byte) {
			l := w.life(c)
			number, kind := w.check(l.tag, data)
			if l.opened != 1 || l.closed > 0 || l.inHand {
				w.fail("connection %d: a message while it is not open, or before another one is done", l.tag)
			}
			if number < l.heard || number > l.heard && !l.mayLose {
				w.fail("connection %d: message %d comes after %d", l.tag, number, l.heard)
			}
			l.heard = number + 1
			w.handled++
			switch kind {
			case kindEcho:
				w.send(l)
			case kindEchoThrice:
				for range 3 {
					w.send(l)
				}
			case kindBroadcast:
				w.broadcast(&c)
			case kindClose:
				_ = c.Close(frame.NormalClosure, "as asked")
			case kindPanic:
				panic("in Message")
			case kindTopic:
				w.topic(l)
			case kindForward:
				if o := w.anyOpen(); o != nil {
					w.send(o)
				}
			}
		},
		Backpressure: func(c Conn, high bool) {
			l := w.life(c)
			if l.high == high || l.closed > 0 {
				w.fail("connection %d: Backpressure(%v) twice, or after Close", l.tag, high)
			}
			l.high = high
		},
		Close: func(c Conn, code frame.Code, cause error) {
			l := w.life(c)
			if l.closed++; l.closed > 1 || l.inHand {
				w.fail("connection %d was closed %d times, or before a message was done", l.tag, l.closed)
			}
			if c.Send(frame.Text, []byte("late")) != ErrClosed {
				w.fail("connection %d takes a message after Close", l.tag)
			}
			if w.rng.IntN(8) == 0 {
				panic("in Close")
			}
		},
	}
}

// deliver handles a message at once, and is done with it then or later.
func (w *world) deliver(h *Handler) func(Delivery) {
	return func(d Delivery) {
		h.Message(d.Conn, d.Op, d.Data)
		if w.rng.IntN(3) == 0 {
			d.Done()
			return
		}
		w.life(d.Conn).inHand = true
		w.inHand = append(w.inHand, d)
	}
}

// done is done with one of the messages that are in hand. It returns false if there is none.
func (w *world) done() bool {
	n := len(w.inHand)
	if n == 0 {
		return false
	}
	i := w.rng.IntN(n)
	d, l := w.inHand[i], w.life(w.inHand[i].Conn)
	w.check(l.tag, d.Data)
	w.inHand[i] = w.inHand[n-1]
	w.inHand = w.inHand[:n-1]
	l.inHand = false
	d.Done()
	return true
}

// life finds a connection by its tag, and checks that its handle has not changed.
func (w *world) life(c Conn) *life {
	l := w.lives[c.Tag()]
	if known, ok := w.byConn[c]; ok && known != l {
		w.fail("a handle names connection %d and %d", known.tag, l.tag)
	}
	w.byConn[c] = l
	if !l.accepted {
		w.fail("connection %d was not accepted", l.tag)
	}
	return l
}

func (w *world) anyOpen() *life {
	if len(w.clients) == 0 {
		return nil
	}
	if l := w.clients[w.rng.IntN(len(w.clients))]; l.opened == 1 && l.closed == 0 {
		return l
	}
	return nil
}

// send sends a connection its next direct message.
func (w *world) send(l *life) {
	err := l.conn.SendAs(Kind{ID: w.rng.Uint32N(3), Policy: OutboxPolicy(w.rng.IntN(5))}, frame.Binary,
		spell(l.tag, l.direct+1, 'd', w.rng.IntN(1500)))
	switch err {
	case nil:
		l.direct++
	case ErrBackpressure, ErrClosed:
	default:
		w.fail("Send: %v", err)
	}
}

func (w *world) broadcast(from *Conn) {
	data := spell(everybody, w.sent+1, 'b', w.rng.IntN(800))
	err := error(nil)
	switch {
	// On a worker Conn.Broadcast waits, and only this goroutine could end the wait.
	case from != nil && w.s.pool == nil:
		err = from.Broadcast(frame.Binary, data)
	default:
		err = w.s.BroadcastAs(Kind{Policy: OutboxPolicy(w.rng.IntN(5))}, frame.Binary, data, nil)
	}
	if err == nil {
		w.sent++
	} else if err != ErrBackpressure {
		w.fail("Broadcast: %v", err)
	}
}

func topicName(i int) string { return fmt.Sprint("topic ", i) }

// topic has a connection subscribe or unsubscribe, or publishes.
func (w *world) topic(l *life) {
	i := w.rng.IntN(topicsMax)
	name := topicName(i)
	f := &l.feeds[i]
	open := len(f.spans) > 0 && f.spans[len(f.spans)-1].open
	var err error
	switch n := w.rng.IntN(6); {
	case n < 3:
		kind := Kind{Policy: OutboxPolicy(w.rng.IntN(5))}
		if i == 0 {
			kind.Policy = OutboxClose
		}
		if err = w.s.PublishAs(kind, name, frame.Binary, spell(topicTag+uint64(i), w.topics[i]+1, 't', w.rng.IntN(300)), nil); err == nil {
			w.topics[i]++
		}
	case n < 5:
		if err = l.conn.Subscribe(name); err == nil && !open {
			f.spans = append(f.spans, span{from: w.topics[i], open: true})
		}
	default:
		if err = l.conn.Unsubscribe(name); err == nil && open {
			f.spans[len(f.spans)-1].to, f.spans[len(f.spans)-1].open = w.topics[i], false
		}
	}
	switch err {
	case nil, ErrBackpressure, ErrClosed, ErrSubscriptions, ErrTopics:
	default:
		w.fail("%v", err)
	}
}

// fed checks a publication that a connection got.
func (w *world) fed(l *life, topic int, number uint32) {
	f := &l.feeds[topic]
	i := slices.IndexFunc(f.spans, func(s span) bool { return number > s.from && (s.open || number <= s.to) })
	if i < 0 || number <= f.last {
		w.fail("connection %d is sent number %d of topic %d after %d, and subscribed to %+v", l.tag, number, topic, f.last, f.spans)
	}
	if want := max(f.last, f.spans[i].from) + 1; topic == 0 && number != want {
		w.fail("connection %d is sent number %d of a topic, want %d", l.tag, number, want)
	}
	f.last = number
}

// newWorld makes a reactor with bounds that are soon reached.
func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), byConn: map[Conn]*life{}, injected: map[unix.Errno]int{}}
	pick := func(n ...int) int { return n[w.rng.IntN(len(n))] }
	o := Options{
		Reactors: 1, Tables: netpoll.Shared, MaxConns: pick(3, 6, 12),
		Mode:       Mode(pick(int(Inline), int(Inline), int(Workers))),
		MaxMessage: int64(pick(1000, 4000)), MaxPartial: pick(2000, 1<<20),
		MaxInbox: pick(600, 16<<10), MaxInboxMessages: pick(2, 64), MaxInboxTotal: pick(8000, 1<<20),
		MaxOutbox: pick(1500, 8000), MaxOutboxMessages: pick(4, 100), MaxOutboxTotal: pick(4000, 1<<20),
		MaxBroadcast: pick(2000, 8000, 1<<20),
		MaxTopics:    pick(2, 100), MaxSubscriptions: pick(2, 100),
		InboxPolicy: InboxPolicy(w.rng.IntN(4)), OutboxPolicy: OutboxPolicy(w.rng.IntN(5)),
		HandshakeTimeout: 10 * time.Second, MessageTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		IdleTimeout: 10 * time.Second, CloseTimeout: 2 * time.Second,
		Compress: w.rng.IntN(2) == 0, CompressFrom: pick(1, 100),
		Log: slog.New(slog.DiscardHandler),
	}
	if w.rng.IntN(3) == 0 {
		o.MessageRate, o.MessageBurst = float64(pick(1, 20)), pick(1, 5, 20)
		o.ByteRate = float64(pick(0, 2000))
		o.CloseOverRate = w.rng.IntN(3) == 0
	}
	if w.rng.IntN(3) == 0 {
		w.tls = newWorldTLS(t)
		certificate, _ := testkit.Certificate()
		o.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	}
	h := w.handler()
	if o.Mode == Workers && w.rng.IntN(2) == 0 {
		h.Deliver = w.deliver(&h)
	}
	s, err := Listen([]string{"127.0.0.1:0"}, h, o)
	if err != nil {
		t.Fatal(err)
	}
	w.s, w.r = s, s.reactors[0]
	if s.pool != nil {
		o := &s.options
		s.pool = inbox.NewPool(0, inbox.Limits{Messages: o.MaxInboxMessages, Bytes: o.MaxInbox, Total: int64(o.MaxInboxTotal)}, s.hooks())
	}
	s.slots = s.options.MaxConns + pick(0, 2, 8)
	if w.r, err = newReactor(s, 0); err != nil {
		t.Fatal(err)
	}
	s.reactors[0].door.Close()
	s.reactors[0] = w.r
	w.r.now = func() time.Duration { return w.now }
	if w.r.poller, err = netpoll.NewPoller(w.r.waker); err != nil {
		t.Fatal(err)
	}
	w.faults = float64(pick(0, 0, 1, 3)) / 100
	w.pace = pick(10, 100, 1000)
	netpoll.Fault = w.fault
	return w
}

// fault decides whether a system call fails. It also checks that only the last word is
// written to a marked connection, and lets a worker make calls meanwhile.
func (w *world) fault(c netpoll.Call, fd, size int) (limit int, errno unix.Errno) {
	for i := 0; c == netpoll.CallWrite && i < w.r.slots.High(); i++ {
		if c := w.r.slots.At(i); c != nil && int(c.FD) == fd && c.is(flagMute) {
			w.fail("%d bytes are written to a connection that is marked", size)
		}
	}
	if w.rng.IntN(2) == 0 {
		w.work() // workers do not wait for a turn's end
	}
	if w.faults == 0 || w.rng.Float64() > w.faults {
		return size, 0
	}
	var failures []unix.Errno
	switch c {
	case netpoll.CallRead:
		failures = []unix.Errno{unix.EAGAIN, unix.EINTR, unix.ECONNRESET, unix.ETIMEDOUT, 0}
	case netpoll.CallWrite:
		failures = []unix.Errno{unix.EAGAIN, unix.EINTR, unix.ECONNRESET, unix.EPIPE, unix.ENOBUFS, unix.ENOMEM, 0, 0}
	case netpoll.CallPollAdd, netpoll.CallPollModify:
		failures = []unix.Errno{unix.ENOSPC, unix.ENOMEM}
	case netpoll.CallAccept:
		failures = []unix.Errno{unix.EMFILE, unix.ENFILE, unix.EINTR, unix.ECONNABORTED}
	}
	errno = failures[w.rng.IntN(len(failures))]
	w.injected[errno]++
	if errno == 0 && size > 0 { // a short read or write
		return w.rng.IntN(size) + 1, 0
	}
	return size, errno
}

// connect gives the reactor another connection.
func (w *world) connect() {
	if w.r.slots.Full() || len(w.clients) > w.s.options.MaxConns+1 {
		return
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	netpoll.SetSendBuffer(pair[0], 1) // the kernel's minimum, so that peers are soon slow
	l := &life{tag: uint64(len(w.lives)), fd: pair[1], mayLose: w.s.options.InboxPolicy == InboxDrop}
	target := fmt.Sprintf("/%d", l.tag)
	if w.rng.IntN(20) == 0 {
		target = "/nothing here"[:w.rng.IntN(8)+1]
	}
	l.wire = frame.AppendRequest(nil, "x", target, frame.SampleKey)
	if w.rng.IntN(2) == 0 {
		l.wire = append(bytes.TrimSuffix(l.wire, []byte("\r\n")), fmt.Sprintf(
			"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=%d\r\n\r\n", 8+w.rng.IntN(8))...)
		l.deflates = w.s.options.Compress
	}
	if w.tls != nil {
		l.state = w.tls.client
	}
	w.lives, w.clients = append(w.lives, l), append(w.clients, l)
	w.push(l)
	c := w.r.take(pair[0])
	if w.tls != nil {
		*w.r.out.tlsState(c) = w.tls.server
		c.flags |= flagTLS
		w.r.enter(c, stateRequest)
	}
}

// say adds something random to what a client sends.
func (w *world) say(l *life) {
	if len(l.wire) > 1<<16 {
		return
	}
	mask := [4]byte{1, byte(w.rng.Uint32()), 3, 4}
	switch n := w.rng.IntN(40); {
	case n < 4 && !l.open:
		size := w.rng.IntN(int(w.s.options.MaxMessage))
		op, data := w.compress(l, spell(l.tag, l.wrote, byte(w.rng.IntN(kinds)), size))
		l.wire = frame.AppendMasked(l.wire, op, mask, data)
		l.wrote++
	case n < 15 && !l.open:
		op, data := w.compress(l, spell(l.tag, l.wrote, byte(w.rng.IntN(kindClose)), w.rng.IntN(60)))
		l.wire = frame.AppendMasked(l.wire, op, mask, data)
		l.wrote++
	case n < 18 && !l.open:
		l.open = true
		l.opcode, l.body = w.compress(l, spell(l.tag, l.wrote, byte(w.rng.IntN(kinds)), w.rng.IntN(int(w.s.options.MaxMessage))))
	case n < 28 && l.open:
		part := w.rng.IntN(len(l.body) + 1)
		piece := frame.AppendMasked(nil, l.opcode, mask, l.body[:part])
		if l.body = l.body[part:]; len(l.body) > 0 {
			piece[0] &^= 0x80
		} else {
			l.open = false
			l.wrote++
		}
		l.opcode = frame.Continuation
		l.wire = append(l.wire, piece...)
	case n < 34:
		l.wire = frame.AppendMasked(l.wire, frame.Ping, mask, binary.BigEndian.AppendUint32(nil, uint32(l.tag)))
	case n < 36:
		l.wire = frame.AppendMasked(l.wire, frame.Pong, mask, nil)
	case n == 36:
		l.wire = frame.AppendMasked(l.wire, frame.Close, mask, frame.AppendClosePayload(nil, 4000, "bye"))
	case n == 37 && w.rng.IntN(4) == 0:
		l.wire = append(l.wire, "\xff\xff\xff\xff\xff\xff"...) // reserved bits
	case n == 38 && w.rng.IntN(4) == 0:
		op, data := w.compress(l, make([]byte, w.s.options.MaxMessage+1)) // a small bomb
		l.wire = frame.AppendMasked(l.wire, op, mask, data)
	case n == 39 && w.rng.IntN(4) == 0: // corrupt, or compressed without an agreement
		l.wire = frame.AppendMasked(l.wire, frame.Binary|frame.Deflated, mask, []byte("\xff\xff"))
	}
}

// compress compresses some messages of clients that may.
func (w *world) compress(l *life, data []byte) (frame.Op, []byte) {
	if !l.deflates || w.rng.IntN(2) == 0 {
		return frame.Binary, data
	}
	return frame.Binary | frame.Deflated, deflater.Deflate(nil, data, frame.MaxWindow)
}

// push writes a part of what a client sends.
func (w *world) push(l *life) {
	if w.tls != nil {
		w.pushSealed(l)
		return
	}
	if len(l.wire) == 0 {
		return
	}
	n, err := unix.SendmsgN(l.fd, l.wire[:1+w.rng.IntN(len(l.wire))], nil, nil, unix.MSG_NOSIGNAL)
	if err == nil {
		l.wire = l.wire[n:]
	}
}

// pull reads a part of what the server has sent to a client. It returns false at the
// stream's end.
func (w *world) pull(l *life) bool {
	buf := make([]byte, 1+w.rng.IntN(8<<10))
	n, err := unix.Read(l.fd, buf)
	switch {
	case err == unix.EAGAIN:
		return true
	case err != nil || n == 0:
		return false
	}
	if w.tls != nil {
		if buf, n = w.unseal(l, buf[:n]), 0; buf == nil {
			return true
		}
		n = len(buf)
	}
	l.input = append(l.input, buf[:n]...)
	if !l.shaken {
		head, err := frame.HeadLen(l.input)
		if err != nil {
			w.fail("the response to connection %d: %v", l.tag, err)
		}
		agreed, failed := (frame.Offer{Deflate: true}).CheckResponse(l.input[:head], frame.SampleKey)
		if head == 0 || failed != nil {
			return true // incomplete, or rejected
		}
		if agreed.Deflate != l.deflates {
			w.fail("connection %d: the server agreed to compression: %v", l.tag, agreed.Deflate)
		}
		l.shaken = true
		l.input = l.input[head:]
	}
	for len(l.input) > 0 {
		ev, n, err := clientParser.Message(&l.stream, l.input)
		if err != nil {
			w.fail("connection %d is sent %v", l.tag, err)
		}
		if n == 0 {
			return true
		}
		l.input = l.input[n:]
		if ev.Deflated {
			if !l.deflates {
				w.fail("connection %d is sent a compressed message", l.tag)
			}
			if ev.Payload, err = inflater.Message(ev.Op, ev.Payload, 1<<20); err != nil {
				w.fail("connection %d is sent what does not inflate: %v", l.tag, err)
			}
		}
		w.receive(l, ev)
	}
	return true
}

// pushSealed writes a part of what a client has said, as records, which it cuts
// anywhere.
func (w *world) pushSealed(l *life) {
	if n := len(l.wire); len(l.sealed) == 0 && n > 0 {
		n = min(1+w.rng.IntN(n), record.MaxPlain)
		l.sealed = w.tls.layer.Seal(uint32(l.tag), &l.state, nil, l.wire[:n])
		l.wire = l.wire[n:]
		if w.rng.IntN(100) == 0 {
			l.sealed[len(l.sealed)-1]++ // it does not open any more
			l.broken = true
		}
	}
	if len(l.sealed) == 0 {
		return
	}
	n, err := unix.SendmsgN(l.fd, l.sealed[:1+w.rng.IntN(len(l.sealed))], nil, nil, unix.MSG_NOSIGNAL)
	if err == nil {
		l.sealed = l.sealed[n:]
	}
}

// unseal opens what a client was sent. It returns nil while no record is whole.
func (w *world) unseal(l *life, data []byte) []byte {
	l.cipher = append(l.cipher, data...)
	plain, rest, reply, err := w.tls.layer.Open(uint32(l.tag), &l.state, l.cipher)
	if err != nil && err != record.ErrClosed && !l.broken {
		w.fail("connection %d is sent a record that does not open: %v", l.tag, err)
	}
	plain = slices.Clone(plain)
	l.cipher = slices.Clone(rest)
	l.sealed = append(l.sealed, reply...)
	return plain
}

// worldTLS is the TLS of a world: one handshake, whose keys all connections have.
type worldTLS struct {
	layer          *record.Layer
	client, server record.State
}

// newWorldTLS does a handshake in memory.
func newWorldTLS(t testing.TB) *worldTLS {
	certificate, pool := testkit.Certificate()
	news := make(chan struct{}, 1)
	notify := func() {
		select {
		case news <- struct{}{}:
		default:
		}
	}
	server := record.ServerConfig(&tls.Config{Certificates: []tls.Certificate{certificate}, SessionTicketsDisabled: true}).Start(notify)
	client := record.ClientConfig(&tls.Config{RootCAs: pool, ServerName: "localhost"}).Start(notify)
	for ended := 0; ended < 2; {
		<-news
		ended = 0
		for _, pair := range [][2]*record.Handshake{{client, server}, {server, client}} {
			out, end := pair[0].Output()
			if end {
				ended++
			}
			if len(out) > 0 {
				_ = pair[1].Feed(out)
			}
		}
	}
	a, err := client.Result()
	if err != nil {
		t.Fatal(err)
	}
	b, err := server.Result()
	if err != nil {
		t.Fatal(err)
	}
	return &worldTLS{record.NewLayer(16), a.State, b.State}
}

var (
	clientParser = func() *frame.Parser {
		p := frame.NewClientParser(1 << 20)
		p.Deflate = true
		return p
	}()
	deflater deflate.Deflater
	inflater deflate.Inflater
)

func (w *world) receive(l *life, ev frame.Event) {
	switch ev.Op {
	case frame.Pong:
		if uint64(binary.BigEndian.Uint32(ev.Payload)) != l.tag {
			w.fail("connection %d is sent another's Pong", l.tag)
		}
	case frame.Binary:
		tag := uint64(binary.BigEndian.Uint32(ev.Payload))
		if tag >= topicTag && tag < topicTag+topicsMax {
			number, _ := w.check(tag, ev.Payload)
			w.fed(l, int(tag-topicTag), number)
			return
		}
		last := &l.gotten
		if tag == everybody {
			last = &l.cast
		} else if tag != l.tag {
			w.fail("connection %d is sent a message of %d", l.tag, tag)
		}
		number, _ := w.check(tag, ev.Payload)
		if number <= *last {
			w.fail("connection %d is sent message %d after %d", l.tag, number, *last)
		}
		*last = number
	}
}

// hangUp ends a connection from the client's side.
func (w *world) hangUp(i int) {
	unix.Close(w.clients[i].fd)
	w.clients[i].fd = -1
	w.clients = append(w.clients[:i], w.clients[i+1:]...)
}

// turn takes a turn of the reactor's loop.
func (w *world) turn() {
	events, err := w.r.poller.Wait(0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.r.turn(events)
	w.r.endTurn()
	w.invariants()
}

// invariants holds after every turn.
func (w *world) invariants() {
	r := w.r
	if len(r.dying) > 0 || !r.in.stream.Idle() {
		w.fail("%d marked connections are left", len(r.dying))
	}
	owing, held, sides := 0, [accounts]int{}, 0
	curbed := map[netpoll.Token]bool{}
	for _, place := range append(r.in.curbs.wheel[:], r.in.curbs.due) {
		for _, t := range place {
			curbed[t] = true
		}
	}
	for i := range r.slots.High() {
		c := r.slots.At(i)
		if c == nil {
			continue
		}
		if c.is(flagDying | flagMute) {
			w.fail("a connection is marked and was not buried")
		}
		if c.is(flagCurbed) && !curbed[r.slots.Token(c)] {
			w.fail("a connection is over its rate and will not be read again")
		}
		x := r.sides.of(c)
		if x == nil {
			continue
		}
		sides++
		if x.conn != c {
			w.fail("a side belongs to another connection")
		}
		// Upgrade, Open, Backpressure and Close may wait there too.
		if x.inbox != nil && x.inbox.Calls() > w.s.options.MaxInboxMessages+4 {
			w.fail("%d calls wait for one handler", x.inbox.Calls())
		}
		if x.input.Rest() > frame.MaxPending && c.speaks() && !c.is(flagUnread) && !slices.Contains(r.in.again, r.slots.Token(c)) {
			w.fail("%d bytes were read and will not be handled", x.input.Rest())
		}
		owing += x.owed()
		held[x.account] += x.held
	}
	if _, n := w.s.directory.Used(); n != r.topics.Used() {
		w.fail("the directory knows %d subscriptions, and there are %d", n, r.topics.Used())
	}
	if owing != r.out.owing || held != r.sides.held || sides != r.sides.pool.Used() {
		w.fail("owing %d, held %v, sides %d; counted %d, %v, %d", r.out.owing, r.sides.held, r.sides.pool.Used(), owing, held, sides)
	}
	// A frame of which a part was sent is not dropped, so a policy alone does not keep to the limit.
	if most := 2*r.limits.owed + 1<<12; owing > most {
		w.fail("%d bytes are owed, more than %d", owing, most)
	}
}

func (w *world) step() {
	w.steps++
	switch n := w.rng.IntN(100); {
	case n < 4:
		w.connect()
	case n < 30:
		if len(w.clients) > 0 {
			w.say(w.clients[w.rng.IntN(len(w.clients))])
		}
	case n < 50:
		if len(w.clients) > 0 {
			w.push(w.clients[w.rng.IntN(len(w.clients))])
		}
	case n < 62:
		if i := len(w.clients); i > 0 {
			if i = w.rng.IntN(i); !w.pull(w.clients[i]) {
				w.hangUp(i)
			}
		}
	case n < 63:
		if i := len(w.clients); i > 0 && w.rng.IntN(6) == 0 {
			w.hangUp(w.rng.IntN(i))
		}
	case n < 64:
		if i := len(w.clients); i > 0 && w.rng.IntN(6) == 0 {
			_ = unix.Shutdown(w.clients[w.rng.IntN(i)].fd, unix.SHUT_WR)
		}
	case n < 67:
		if l := w.anyOpen(); l != nil {
			w.send(l)
		}
	case n < 69:
		if l := w.anyOpen(); l != nil && w.rng.IntN(3) > 0 {
			w.topic(l)
		} else {
			w.broadcast(nil)
		}
	case n < 70:
		if l := w.anyOpen(); l != nil && w.rng.IntN(10) == 0 {
			_ = w.s.CloseID(l.conn.ID(), 4001, "from outside")
		}
	case n == 70 && w.rng.IntN(60) == 0 && !w.r.drain.begun:
		w.s.options.DrainTime = time.Duration(w.rng.IntN(20)) * time.Second
		w.r.drain.begin()
	case n < 71:
		w.now += time.Duration(w.rng.IntN(w.pace)) * time.Millisecond
	case n < 72:
		w.r.accept(netpoll.Grant{Budget: 2}) // no connection waits, but the call may fail
		w.r.grants.granted = false
	case n < 80:
		w.work()
		if w.rng.IntN(50) == 0 {
			w.rest()
		}
	default:
		w.turn()
	}
}

// end ends all connections and checks that nothing is left.
func (w *world) end() {
	netpoll.Fault = nil
	w.rest()
	for len(w.clients) > 0 {
		w.hangUp(0)
	}
	for range 10_000 {
		for w.work() {
		}
		w.turn()
		if w.now += 300 * time.Millisecond; w.r.slots.Used() == 0 && !w.r.out.log.Busy() && !w.r.mail.Called() {
			break
		}
	}
	r, n := w.r, &w.r.counts
	if r.slots.Used() != 0 || r.sides.pool.Used() != 0 || r.out.owing != 0 || r.sides.held != [accounts]int{} {
		w.fail("%d slots, %d sides, %d bytes owed, %v held are left", r.slots.Used(), r.sides.pool.Used(), r.out.owing, r.sides.held)
	}
	if n := w.s.compress.peers.Load(); n != 0 {
		w.fail("%d peers that have agreed to compression are left", n)
	}
	if topics, subscriptions := w.s.directory.Used(); topics+subscriptions != 0 || r.topics.Busy() || n.Subscribed != n.Unsubscribed {
		w.fail("%d topics and %d subscriptions are left, of %d that ended %d", topics, subscriptions, n.Subscribed, n.Unsubscribed)
	}
	if w.s.gate.Open() != 0 || w.s.throttle.InFlight() != 0 || w.s.values.n.Load() != 0 {
		w.fail("%d open, %d bytes of broadcasts, %d values are left", w.s.gate.Open(), w.s.throttle.InFlight(), w.s.values.n.Load())
	}
	for i := range r.gauges.Len() {
		if size := r.gauges.At(i).Load(); size != 0 {
			w.fail("the gauge of slot %d is %d messages, %d bytes", i, size.Messages(), size.Bytes())
		}
	}
	if out := n.MessagesOut + n.DroppedNew + n.DroppedOld + n.Conflated + n.Undelivered; n.MessagesAccepted != out {
		w.fail("%d messages accepted, %d accounted for", n.MessagesAccepted, out)
	}
	discarded := n.MessagesDiscarded
	if p := w.s.pool; p != nil {
		stats := p.Stats()
		if stats.Bytes != 0 || stats.Calls != 0 {
			w.fail("%d bytes and %d calls wait for handlers", stats.Bytes, stats.Calls)
		}
		discarded += stats.Discarded
	}
	if n.MessagesIn != uint64(w.handled)+n.MessagesDropped+discarded {
		w.fail("%d messages came, %d were handled, %d dropped, %d discarded", n.MessagesIn, w.handled, n.MessagesDropped, discarded)
	}
	for _, l := range w.lives {
		if want := min(1, boolInt(l.accepted)); l.closed != want {
			w.fail("connection %d, accepted: %v, was closed %d times", l.tag, l.accepted, l.closed)
		}
	}
	ended := n.ClosedTLS + n.ClosedExpired + n.ClosedClean + n.ClosedGone + n.ClosedProtocol + n.ClosedUTF8 + n.ClosedTooBig + n.ClosedOutbox + n.ClosedWriteTimeout + n.ClosedPartial +
		n.ClosedMessageTimeout + n.ClosedIdle + n.ClosedInbox + n.ClosedCloseTimeout + n.ClosedPanic + n.ClosedRate + n.ClosedTopics + n.ClosedShutdown
	if ended != n.Opened {
		w.fail("%d connections were opened, %d have ended", n.Opened, ended)
	}
	r.close()
	w.s.close()
}

// work lets handlers do something, if there is anything to do.
func (w *world) work() bool {
	if w.s.pool == nil {
		return false
	}
	if w.rng.IntN(2) == 0 {
		return w.done() || w.s.pool.Step()
	}
	return w.s.pool.Step() || w.done()
}

// rest lets handlers return and mail be read, and checks that nobody is paused
// without a reason that is going to end.
func (w *world) rest() {
	if w.s.pool == nil {
		return
	}
	for range 3 { // calls cause mail, and mail calls
		for w.work() {
		}
		w.r.settle()
		w.r.calls.handOver()
	}
	if w.s.pool.Stats().Calls > 0 {
		return // handlers wait for their peers
	}
	for i := range w.r.slots.High() {
		if c := w.r.slots.At(i); c != nil && c.state == stateOpen && c.is(flagPaused) {
			w.fail("connection %d is paused, and no call is left", c.tag)
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// live runs a world for so many steps.
func live(t testing.TB, seed uint64, steps int) *world {
	w := newWorld(t, seed)
	defer func() {
		netpoll.Fault = nil
		for _, l := range w.clients {
			unix.Close(l.fd)
		}
	}()
	for range steps {
		w.step()
	}
	w.end()
	return w
}

func TestAReactorAgainstAModel(t *testing.T) {
	steps, each := 1_000_000, 5_000
	if testing.Short() || underRace {
		steps = 100_000
	}
	var sum Counts
	injected := map[unix.Errno]int{}
	before := openDescriptors(t)
	for seed := range uint64(steps / each) {
		w := live(t, seed, each)
		sum.add(&w.r.counts)
		for errno, n := range w.injected {
			injected[errno] += n
		}
	}
	// The garbage collector closes wakers.
	if after := openDescriptors(t); after > before+2*steps/each {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
	for name, n := range sum.All() {
		t.Logf("%-24s %d", name, n)
	}
	t.Logf("injected: %v", injected)
}

func openDescriptors(t testing.TB) int {
	fd, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return len(names)
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// FuzzReactor runs worlds with random seeds.
func FuzzReactor(f *testing.F) {
	for seed := range uint64(10) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { live(t, seed, 3_000) })
}
