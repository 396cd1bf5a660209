package loadgen

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/loadgen/wire"
	"github.com/seed-134acfd0/lull/netpoll"
)

// raw is a frame with any first byte.
func raw(first byte, payload string) []byte {
	return append([]byte{first, byte(len(payload))}, payload...)
}

func TestViolationsOfTheProtocolAreCounted(t *testing.T) {
	const conns = 3
	rows := []struct {
		why   string
		data  []byte
		error string
	}{
		{"5.1 a masked frame", frame.AppendMasked(nil, frame.Text, [4]byte{1, 2, 3, 4}, []byte("hello")), "mask"},
		{"5.2 a reserved bit", raw(0xc2, "hello"), "rsv"},
		{"5.2 a reserved opcode", raw(0x83, "hello"), "op code"},
		{"5.2 a length that is not minimal", append([]byte{0x82, 126, 0, 5}, "hello"...), "minimal"},
		{"5.4 a continuation of nothing", raw(0x80, "hello"), "continuation"},
		{"5.4 a message within a message", append(raw(0x02, "he"), raw(0x82, "llo")...), "continuation"},
		{"5.5 a ping in two parts", raw(0x09, "hello"), "final"},
		{"5.5.1 a close code that may not be sent", raw(0x88, "\x03\xee"), "close code"},
		{"8.1 text that is not UTF-8", raw(0x81, "\xff"), "UTF-8"},
		{"a message of more than a megabyte", frame.AppendHeader(nil, frame.Binary, 1<<20+1), "limit"},
	}
	for _, r := range rows {
		t.Run(r.why, func(t *testing.T) {
			url := fake(t, func(p *peer) { p.open(r.data); p.rest() })
			res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: conns})
			expect(t, res, map[measure.Counter]int{measure.Connected: conns, measure.Broken: conns})
			expectError(t, res, "broken: frame: ", conns)
			for _, f := range res.Errors {
				if !strings.Contains(strings.ToLower(f.Text), strings.ToLower(r.error)) {
					t.Errorf("error %q does not contain %q", f.Text, r.error)
				}
			}
			if res.OK() {
				t.Error("the result is OK")
			}
		})
	}
}

func TestPongsHaveThePingsPayload(t *testing.T) {
	long := strings.Repeat("x", 125) // RFC 6455 section 5.5
	pings := []string{"", "hello", "\x00\xff", long}
	url := fake(t, func(p *peer) {
		var frames [][]byte
		for _, payload := range pings {
			frames = append(frames, frame.Append(nil, frame.Ping, []byte(payload)))
		}
		// One Ping is between the fragments of a message.
		frames = append(frames, raw(0x01, "he"), frame.Append(nil, frame.Ping, []byte("between")), raw(0x80, "llo"))
		p.open(frames...)
		for _, want := range append(slices.Clone(pings), "between") {
			if op, payload, ok := p.next(); op != frame.Pong || string(payload) != want || !ok {
				p.Errorf("%s %q, want a pong with %q", op, payload, want)
			}
		}
		p.rest()
	})
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 4})
	expect(t, res, map[measure.Counter]int{measure.Connected: 4, measure.Foreign: 4})
	if !res.OK() {
		t.Errorf("not OK: %v", res.Errors)
	}
}

func TestPongsNeedNoAnswer(t *testing.T) {
	url := fake(t, func(p *peer) {
		p.open(frame.Append(nil, frame.Pong, []byte("hello")))
		if got := p.rest(); len(got) > 0 {
			p.Errorf("answered with %q", got)
		}
	})
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 2})
	expect(t, res, map[measure.Counter]int{measure.Connected: 2})
}

// Messages are received whatever the pieces in which their bytes arrive.
func TestMessagesArriveInAnyPieces(t *testing.T) {
	fragments := func(payload []byte) (data []byte) {
		first := byte(frame.Binary)
		for part := range slices.Chunk(payload, 5) {
			data = append(data, raw(first, string(part))...)
			data = frame.Append(data, frame.Pong, []byte("between"))
			first = byte(frame.Continuation)
		}
		return append(data, raw(0x80, "")...)
	}
	for why, encode := range map[string]func([]byte) []byte{"whole": whole, "in fragments": fragments} {
		for _, size := range []int{wire.SizeMin, 32, 200} {
			t.Run(why, func(t *testing.T) {
				payload := make([]byte, size)
				wire.Message{Number: 0, Kind: wire.Published}.Encode(payload)
				data := encode(payload)
				// Each connection gets a different part of the data together with
				// the handshake's answer, and the rest byte by byte.
				const conns = 20
				cuts := make(chan int, conns)
				for i := range conns {
					cuts <- i * len(data) / conns
				}
				url := fake(t, func(p *peer) {
					cut := <-cuts
					p.open(data[:cut])
					for _, b := range data[cut:] {
						p.send([]byte{b})
					}
					p.rest()
				})
				res := runUntil(t, Config{URLs: []string{url}, Conns: conns, Size: size, Hold: forever}, func(s *measure.Snapshot) bool {
					return received(s) == conns
				})
				if res.Counts[measure.Received.String()] != conns || res.Open != conns || res.Counts[measure.Foreign.String()] != 0 {
					t.Errorf("%d open, counts %v, errors %v", res.Open, res.Counts, res.Errors)
				}
			})
		}
	}
}

func TestForeignMessagesAreCounted(t *testing.T) {
	other := make([]byte, 32)
	wire.Message{Kind: wire.Published}.Encode(other)
	other[31]++
	tooShort := make([]byte, 32)
	wire.Message{Kind: wire.Published}.Encode(tooShort)
	tooShort = tooShort[:31]
	foreign := [][]byte{frame.Append(nil, frame.Text, []byte("welcome")), whole(nil), whole(other), whole(tooShort)}
	url := fake(t, func(p *peer) { p.open(foreign...); p.rest() })
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 3})
	expect(t, res, map[measure.Counter]int{measure.Connected: 3, measure.Foreign: 3 * len(foreign)})
	if !res.OK() { // foreign messages are allowed: a server may send a greeting
		t.Errorf("not OK: %v", res.Errors)
	}
}

func TestAConnectionIsASmallSlot(t *testing.T) {
	if size := unsafe.Sizeof(client{}); size != 32 {
		t.Errorf("a client takes %d bytes", size)
	}
}

// reader is a worker without a thread, with one open connection that has no
// socket.
func reader(t testing.TB) (*worker, *client) {
	t.Helper()
	r := &run{slots: 4, plan: &plan.Plan{}, groups: []*group{{Group: &plan.Group{Users: 4}}}, config: Config{Workers: 1}}
	w, err := newWorker(r, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.slots.Close() })
	c := w.slots.Take(-1)
	c.state = open
	w.opens[0]++
	return w, c
}

func TestBroadcastsAreCountedByTheirNumbers(t *testing.T) {
	rows := []struct {
		numbers                    []uint32
		received, missed, repeated uint64
	}{
		{[]uint32{0, 1, 2}, 3, 0, 0},
		{[]uint32{0, 0, 1}, 2, 0, 1},
		{[]uint32{0, 1, 0, 1}, 2, 0, 2},
		{[]uint32{0, 2}, 2, 1, 0},
		{[]uint32{5}, 1, 5, 0},
		{[]uint32{1, 0, 2}, 2, 1, 1}, // out of order: one missed, and late
		{nil, 0, 0, 0},
	}
	for _, r := range rows {
		w, c := reader(t)
		var data []byte
		for _, n := range r.numbers {
			payload := make([]byte, 32)
			wire.Message{Number: n, Kind: wire.Published}.Encode(payload)
			data = append(data, whole(payload)...)
		}
		if w.parse(c, data); c.stream != 0 {
			t.Errorf("%v: the connection keeps its stream", r.numbers)
		}
		n := w.tally.counts
		if n[measure.Received] != r.received || n[measure.Missed] != r.missed || n[measure.Repeated] != r.repeated {
			t.Errorf("%v: %d received, %d missed, %d repeated; want %d, %d, %d", r.numbers,
				n[measure.Received], n[measure.Missed], n[measure.Repeated], r.received, r.missed, r.repeated)
		}
	}
}

// A connection has a stream while a message is incomplete, and gives it back then.
func TestStreamsAreGivenBack(t *testing.T) {
	w, one := reader(t)
	two := w.slots.Take(-1)
	two.state = open
	w.opens[0]++
	payload := bytes.Repeat([]byte{1}, 100)
	data := append(raw(0x02, string(payload[:50])), raw(0x80, string(payload[50:]))...)
	for cut := 1; cut < len(data); cut++ {
		for _, c := range []*client{one, two} {
			w.parse(c, data[:cut])
		}
		if w.streams.Used() != 2 {
			t.Fatalf("cut at %d: %d streams for two connections", cut, w.streams.Used())
		}
		for _, c := range []*client{one, two} {
			held := w.stream(c).Take(w.buf)
			w.parse(c, w.buf[:held+copy(w.buf[held:], data[cut:])])
			if c.stream != 0 {
				t.Fatalf("cut at %d: a connection keeps its stream", cut)
			}
		}
	}
	if got, want := w.tally.counts[measure.Foreign], uint64(2*(len(data)-1)); got != want {
		t.Errorf("%d messages, want %d", got, want)
	}
	if w.streams.Used() != 0 {
		t.Errorf("%d streams are in use", w.streams.Used())
	}
}

// A connection that ends in the middle of a message gives its stream back.
func TestAnEndedConnectionsStreamIsGivenBack(t *testing.T) {
	half := raw(0x02, "half a message")
	rows := map[string]func(*worker, *client){
		"its socket ends":            func(w *worker, c *client) { w.hangUp(c, io.EOF) },
		"the server breaks protocol": func(w *worker, c *client) { w.parse(c, raw(0x82, "another")) },
		"a pong cannot be sent":      func(w *worker, c *client) { w.parse(c, raw(0x89, "ping")) },
		"the run ends in between":    func(w *worker, c *client) { w.release(c) },
		"a violation follows":        func(w *worker, c *client) { w.parse(c, append(raw(0x00, "more"), 0xff, 0)) },
	}
	for name, end := range rows {
		t.Run(name, func(t *testing.T) {
			w, c := reader(t)
			w.parse(c, half)
			if end(w, c); c.state != gone || w.streams.Used() != 0 {
				t.Errorf("state %d, %d streams are in use", c.state, w.streams.Used())
			}
		})
	}
}

// What a connection has of a message when it ends is not the beginning of another's.
func TestNothingOfAnEndedConnectionReachesTheNext(t *testing.T) {
	w, one := reader(t)
	two := w.slots.Take(-1)
	two.state = open
	w.opens[0]++
	w.parse(one, append(raw(0x02, "half a message"), 0xff, 0)) // and a violation
	w.parse(two, raw(0x80, "the other half"))
	if n := w.tally.counts; n[measure.Broken] != 2 || n[measure.Foreign] != 0 {
		t.Errorf("%d connections broke the protocol, and %d messages came", n[measure.Broken], n[measure.Foreign])
	}
}

func TestReceivingABroadcastDoesNotAllocate(t *testing.T) {
	w, c := reader(t)
	payload := make([]byte, 32)
	data := make([]byte, 0, 64)
	n := testing.AllocsPerRun(1000, func() {
		wire.Message{Number: c.got, Kind: wire.Published}.Encode(payload)
		data = frame.Append(data[:0], frame.Binary, payload)
		w.parse(c, data)
	})
	if n != 0 || w.tally.counts[measure.Received] == 0 {
		t.Errorf("%v allocations for each of %d messages", n, w.tally.counts[measure.Received])
	}
}

// BenchmarkReceive is what a received broadcast costs beside system calls.
func BenchmarkReceive(b *testing.B) {
	w, c := reader(b)
	payload := make([]byte, 32)
	wire.Message{Kind: wire.Published}.Encode(payload)
	data := whole(payload)
	w.run.begun = time.Now()
	b.ReportAllocs()
	for b.Loop() {
		c.got = 0
		w.now = w.run.elapsed()
		w.measure(measure.Lag, w.now)
		w.parse(c, data)
	}
}

// Frames after a Close frame are not looked at.
func TestFramesAfterACloseFrameAreIgnored(t *testing.T) {
	goodbye := frame.AppendClose(nil, frame.GoingAway, "")
	for _, after := range [][]byte{raw(0xc2, "a violation"), goodbye} {
		url := fake(t, func(p *peer) { p.open(goodbye, after); p.rest() })
		res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 3})
		expect(t, res, map[measure.Counter]int{measure.Connected: 3, measure.Closed: 3})
	}
}

func TestMessagesOfAnUnknownKindAreForeign(t *testing.T) {
	payload := make([]byte, 32)
	wire.Message{Kind: 'x'}.Encode(payload)
	if m, ok := wire.Decode(payload); ok {
		t.Errorf("taken for %+v", m)
	}
	url := fake(t, func(p *peer) { p.open(whole(payload)); p.rest() })
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 3})
	expect(t, res, map[measure.Counter]int{measure.Connected: 3, measure.Foreign: 3})
}

// Each message that is counted as received is in the latency, also after a missed
// one.
func TestEveryReceivedMessageIsInTheLatency(t *testing.T) {
	w, c := reader(t)
	w.now = time.Second
	payload := make([]byte, 32)
	wire.Message{Number: 1, Kind: wire.Published}.Encode(payload)
	w.parse(c, whole(payload))
	if got := w.tally.times.Of(measure.Broadcast).TotalCount(); got != 1 || w.tally.counts[measure.Received] != 1 || w.lastRecv != w.now {
		t.Errorf("%d received, %d in the histogram", w.tally.counts[measure.Received], got)
	}
}

// Messages of another run, and echoes of another connection's message, are no good
// ones. Nor are those with another opcode, and echoes that come twice.
func TestOnlyItsOwnMessagesAreAConnections(t *testing.T) {
	own := func(m wire.Message) []byte {
		payload := make([]byte, 32)
		m.Encode(payload)
		return payload
	}
	asks := func(p *peer) []byte {
		p.open()
		_, payload, _ := p.next()
		return payload
	}
	for why, r := range map[string]struct {
		script func(*peer)
		want   map[measure.Counter]int
	}{
		"another run": {func(p *peer) {
			p.open(whole(own(wire.Message{Run: 1, Kind: wire.Published})))
			p.rest()
		}, map[measure.Counter]int{measure.Connected: 1, measure.Strayed: 1}},
		"a text": {func(p *peer) {
			p.open(frame.Append(nil, frame.Text, own(wire.Message{Kind: wire.Published})))
			p.rest()
		}, map[measure.Counter]int{measure.Connected: 1, measure.Foreign: 1}},
		"another's echo": {func(p *peer) {
			payload := asks(p)
			m, _ := wire.Decode(payload)
			m.Sender++
			p.send(whole(own(m)))
			p.send(whole(payload))
			p.rest()
		}, map[measure.Counter]int{measure.Connected: 1, measure.Asked: 1, measure.Echoes: 1, measure.Strayed: 1}},
		"an echo twice": {func(p *peer) {
			payload := asks(p)
			p.send(append(whole(payload), whole(payload)...))
			p.rest()
		}, map[measure.Counter]int{measure.Connected: 1, measure.Asked: 1, measure.Echoes: 1, measure.Repeated: 1}},
	} {
		t.Run(why, func(t *testing.T) {
			url := fake(t, r.script)
			active := min(1, r.want[measure.Asked])
			// At this pace one message is due.
			res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 1, Active: active, Pace: 0.001, Echo: 50 * time.Millisecond, Hold: 50 * time.Millisecond})
			expect(t, res, r.want)
			if good := r.want[measure.Strayed]+r.want[measure.Repeated] == 0; res.OK() != good {
				t.Errorf("OK is %v", res.OK())
			}
		})
	}
}

// An echo's latency begins when the message was meant to be sent, however late the
// generator is, and what was due and could not be sent is counted.
func TestAPacedMessageIsTimedFromWhenItWasDue(t *testing.T) {
	w, c := reader(t)
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netpoll.Close(ends[0]); netpoll.Close(ends[1]) })
	c.FD = int32(ends[0])
	w.run.begun = time.Now().Add(-time.Minute)
	w.now = w.run.elapsed()
	echo := w.run.compileMessage(&plan.Message{Answer: plan.Answer{Kind: plan.AnswerEcho}})
	w.zeros = make([]byte, sizeDefault)
	s := &stream{message: echo, window: 1, pace: pace{rate: 1000, begun: w.now - time.Second}, end: w.now + time.Hour, users: []netpoll.Token{w.slots.Token(c)}}
	w.takeTalk(c).stream = s
	w.streaming = []*stream{s}
	w.talkSome() // a thousand are due, of which one can be sent
	if asked, omitted := w.tally.counts[measure.Asked], w.tally.counts[measure.Omitted]; asked != 1 || omitted < 1000 {
		t.Errorf("%d sent, %d omitted", asked, omitted)
	}
	w.parse(c, whole(w.payload))
	if l := result.LatencyOf(w.tally.times[measure.Echo]); l.Count != 1 || l.First < 990 {
		t.Errorf("the latency is %+v, though the message was due a second ago", l)
	}
}

// What arrives while the worker is busy has waited since then, though the wait for events ends
// at once; and what the worker has slept for has not waited.
func TestLagIsHowLongDataWaited(t *testing.T) {
	const busy = 200 * time.Millisecond
	for name, row := range map[string]struct {
		slept       bool
		least, most time.Duration
	}{"busy": {false, busy, time.Hour}, "asleep": {true, 0, busy}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, c := reader(t)
			w.run.begun = time.Now().Add(-time.Hour)
			ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { netpoll.Close(ends[0]); netpoll.Close(ends[1]) })
			if w.poller, err = netpoll.NewPoller(w.waker); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.poller.Close() })
			c.FD = int32(ends[0])
			if err := w.poller.Add(ends[0], w.slots.Token(c), netpoll.In|netpoll.EdgeTriggered); err != nil {
				t.Fatal(err)
			}
			w.turn(nil, true)
			time.Sleep(busy) // the worker is busy on purpose
			arrives := func() {
				if _, err := unix.Write(ends[1], whole([]byte("a message"))); err != nil {
					t.Error(err)
				}
			}
			if row.slept {
				time.AfterFunc(busy, arrives)
			} else {
				arrives()
			}
			events, err := w.poller.Wait(testkit.Patience)
			if err != nil || len(events) != 1 || w.poller.Slept() != row.slept {
				t.Fatalf("%d events, %v; slept: %v", len(events), err, w.poller.Slept())
			}
			w.turn(events, w.poller.Slept())
			h := w.tally.times.Of(measure.Lag)
			if got := time.Duration(h.Max()) * time.Microsecond; h.TotalCount() != 1 || got < row.least*9/10 || got > row.most {
				t.Errorf("%d times, the longest %s", h.TotalCount(), got)
			}
		})
	}
}

// A user answers messages with what Config.Reply says, which may be nothing.
func TestRepliesAreSent(t *testing.T) {
	const conns = 20
	url := fake(t, func(p *peer) {
		p.open(frame.Append(nil, frame.Text, []byte("who?")), frame.Append(nil, frame.Text, []byte("hush")))
		op, payload, ok := p.next()
		if !ok || op != frame.Text || !strings.HasPrefix(string(payload), "who? user ") {
			p.Errorf("the reply is %d %q, %t", op, payload, ok)
		}
		if rest := p.rest(); len(rest) > 0 {
			p.Errorf("%q follows", rest)
		}
	})
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: conns, Reply: func(user int, dst, message []byte) []byte {
		if string(message) == "hush" {
			return dst
		}
		return fmt.Appendf(dst, "%s user %d", message, user)
	}})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns, measure.Foreign: 2 * conns})
}
