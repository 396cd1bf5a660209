package loadgen

import (
	"context"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/netpoll"
)

func TestHandshakesAreChecked(t *testing.T) {
	const conns = 5
	answer := func(old, new string) func(*peer) {
		return func(p *peer) {
			good := accept(p.request())
			if !strings.Contains(good, old) {
				p.Errorf("%q is not in the good answer", old)
			}
			p.send([]byte(strings.Replace(good, old, new, 1)))
			p.rest()
		}
	}
	rows := []struct {
		why    string
		script func(*peer)
		want   measure.Counter
		error  string
	}{
		{"the good answer", answer("", ""), measure.Connected, ""},
		{"more headers than needed", answer("Upgrade:", "Server: fake\r\nDate: now\r\nUpgrade:"), measure.Connected, ""},
		{"byte by byte", func(p *peer) {
			for _, b := range []byte(accept(p.request())) {
				p.send([]byte{b})
			}
			p.rest()
		}, measure.Connected, ""},

		{"the accept value of another key", answer("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x"), measure.Rejected, "Sec-WebSocket-Accept"},
		{"no accept value", answer("Sec-WebSocket-Accept", "Sec-WebSocket-Refuse"), measure.Rejected, "Sec-WebSocket-Accept"},
		{"503", answer("101 Switching Protocols", "503 Service Unavailable"), measure.Rejected, "503 Service Unavailable"},
		{"200", answer("101 Switching Protocols", "200 OK"), measure.Rejected, "200 OK"},
		{"no HTTP", func(p *peer) { p.request(); p.send([]byte("SSH-2.0-OpenSSH\r\n\r\n")); p.rest() }, measure.Rejected, "SSH-2.0"},
		{"a header without a colon", answer("Upgrade: websocket", "Upgrade websocket"), measure.Rejected, "malformed"},
		{"a bare line feed", answer("websocket\r\n", "websocket\n"), measure.Rejected, "malformed"},
		{"an extension that was not offered", answer("Upgrade:", "Sec-WebSocket-Extensions: x\r\nUpgrade:"), measure.Rejected, "not offered"},
		{"a head without end", func(p *peer) {
			p.request()
			p.send([]byte("HTTP/1.1 101 Switching Protocols\r\n"))
			for {
				if _, err := p.Write([]byte("X-More: and more\r\n")); err != nil {
					return
				}
			}
		}, measure.Rejected, "the response's head has more than 8192 bytes"},

		{"the end in place of an answer", func(p *peer) { p.request() }, measure.Reset, errEnded.Error()},
		{"the end in the middle of it", func(p *peer) { p.send([]byte(accept(p.request())[:50])) }, measure.Reset, errEnded.Error()},
		{"a reset in place of an answer", func(p *peer) { p.request(); p.reset() }, measure.Reset, "reset"},
		{"a reset in the middle of it", func(p *peer) { p.send([]byte(accept(p.request())[:50])); p.reset() }, measure.Reset, "reset"},
	}
	for _, r := range rows {
		t.Run(r.why, func(t *testing.T) {
			res := mustRun(t, short(t), Config{URLs: []string{fake(t, r.script)}, Conns: conns, Workers: 1})
			expect(t, res, map[measure.Counter]int{r.want: conns})
			if res.OK() != (r.want == measure.Connected) {
				t.Errorf("OK is %v", res.OK())
			}
			if r.want != measure.Connected {
				expectError(t, res, r.want.String()+": ", conns)
				expectError(t, res, r.error, conns)
			} else if len(res.Errors) > 0 || res.Handshake.Count != conns {
				t.Errorf("%d handshakes, errors %v", res.Handshake.Count, res.Errors)
			}
		})
	}
}

func TestUnansweredHandshakesTimeOut(t *testing.T) {
	t.Parallel()
	silent := func(p *peer) { p.request(); _, _ = io.Copy(io.Discard, p.in) }
	halfway := func(p *peer) { p.send([]byte(accept(p.request())[:50])); _, _ = io.Copy(io.Discard, p.in) }
	for why, script := range map[string]func(*peer){"silent": silent, "half an answer": halfway} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			res := mustRun(t, short(t), Config{
				URLs: []string{fake(t, script)}, Conns: 5, Workers: 1, ConnectTimeout: 50 * time.Millisecond,
			})
			expect(t, res, map[measure.Counter]int{measure.TimedOut: 5})
			expectError(t, res, "timed_out: the handshake was not complete in time", 5)
			if res.OK() {
				t.Error("the result is OK")
			}
		})
	}
}

// ConnectTimeout ends the connections whose handshake is not complete, and leaves
// the open ones alone.
func TestOnlyIncompleteHandshakesTimeOut(t *testing.T) {
	t.Parallel()
	var accepted atomic.Int64
	url := fake(t, func(p *peer) {
		if accepted.Add(1)%2 == 0 {
			p.request()
			_, _ = io.Copy(io.Discard, p.in)
			return
		}
		p.open()
		p.rest()
	})
	// The timeout is long enough for the answered handshakes on a busy machine.
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 10, Workers: 1, ConnectTimeout: 3 * time.Second})
	expect(t, res, map[measure.Counter]int{measure.Connected: 5, measure.TimedOut: 5})
}

// While a server answers no handshake, a worker opens inFlight connections and no
// more, and the result counts that the others had to wait.
func TestAWorkerOpensOnlyInFlightConnectionsAtATime(t *testing.T) {
	const conns = inFlight + 100
	var waiting atomic.Int64
	full := make(chan struct{})
	url := fake(t, func(p *peer) {
		r := p.request()
		switch n := waiting.Add(1); {
		case n == inFlight:
			close(full)
		case n > inFlight:
			select {
			case <-full:
			default:
				p.Errorf("%d connections are opening", n)
			}
		}
		<-full
		p.send([]byte(accept(r)))
		p.rest()
	})
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: conns, Workers: 1})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns})
	if res.Counts[measure.Held.String()] == 0 || !res.OK() {
		t.Errorf("OK is %v, counts %v", res.OK(), res.Counts)
	}
}

// crowded listens with a backlog for one connection. Further connections remain
// in TCP's handshake until makeRoom is called.
func crowded(t *testing.T) (listener net.Listener, makeRoom func(), c Config) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	raw, err := listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	backlog := func(n int) {
		err := raw.Control(func(fd uintptr) {
			if err := unix.Listen(int(fd), n); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
	backlog(0)
	return listener, func() { backlog(4096) }, Config{URLs: []string{"ws://" + listener.Addr().String() + "/"}, Conns: 6, Workers: 1}
}

func TestConnectionsThatTCPKeepsWaitingOpenLater(t *testing.T) {
	t.Parallel()
	listener, makeRoom, c := crowded(t)
	var serving sync.WaitGroup
	start := sync.OnceFunc(func() {
		makeRoom()
		serving.Go(func() {
			for range c.Conns {
				conn, err := listener.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				serving.Go(func() {
					defer conn.Close()
					p := newPeer(t, conn)
					p.open()
					p.rest()
				})
			}
		})
	})
	c.Sinks = []measure.Sink{measure.Funcs{OnSnapshot: func(s *measure.Snapshot) {
		if s.Opening == c.Conns { // connect was called for all, and the backlog is full
			start()
		}
	}}}
	res := mustRun(t, short(t), c)
	serving.Wait()
	expect(t, res, map[measure.Counter]int{measure.Connected: c.Conns})
	if !res.OK() {
		t.Errorf("not OK: %v", res.Errors)
	}
}

func TestConnectionsToAClosingListenerFail(t *testing.T) {
	t.Parallel()
	listener, _, c := crowded(t)
	stop := sync.OnceFunc(func() { listener.Close() })
	c.Sinks = []measure.Sink{measure.Funcs{OnSnapshot: func(s *measure.Snapshot) {
		if s.Opening == c.Conns {
			stop() // resets those in the backlog, and refuses the next SYN of the others
		}
	}}}
	res := mustRun(t, short(t), c)
	refused, reset := res.Counts[measure.Refused.String()], res.Counts[measure.Reset.String()]
	if refused == 0 || reset == 0 || refused+reset != c.Conns || res.Open != 0 || res.OK() {
		t.Errorf("counts %v, errors %v", res.Counts, res.Errors)
	}
	expectError(t, res, "refused: connection refused", refused)
}

func TestConnectionsWithoutAListenerAreRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	res := mustRun(t, short(t), Config{URLs: []string{"ws://" + l.Addr().String() + "/"}, Conns: 3})
	expect(t, res, map[measure.Counter]int{measure.Refused: 3})
	expectError(t, res, "refused: connection refused", 3)
	if res.OK() {
		t.Error("the result is OK")
	}
}

func TestRequestsAskForWhatTheURLSays(t *testing.T) {
	const conns = 20
	requests := make(chan *http.Request, conns)
	url := fake(t, func(p *peer) {
		r := p.request()
		requests <- r
		p.send([]byte(accept(r)))
		p.rest()
	})
	res := mustRun(t, short(t), Config{URLs: []string{url + "chat?room=%C3%A4&n=1"}, Conns: conns})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns})
	keys := map[string]bool{}
	for range conns {
		r := <-requests
		if r.RequestURI != "/chat?room=%C3%A4&n=1" {
			t.Errorf("asked for %s", r.RequestURI)
		}
		keys[r.Header.Get("Sec-WebSocket-Key")] = true
	}
	if len(keys) != conns {
		t.Errorf("%d keys of %d connections", len(keys), conns)
	}
}

// The floor program answers with fixed bytes, expects masking keys of zeros and
// knows no closing handshake.
func TestTheGeneratorSpeaksTheFloorsProtocol(t *testing.T) {
	ends := make(chan error, 2)
	url := fake(t, func(p *peer) {
		if key := p.request().Header.Get("Sec-WebSocket-Key"); key != string(frame.SampleKey[:]) {
			p.Errorf("key %s", key)
		}
		p.send([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"))
		buf := make([]byte, 6+32)
		for {
			if _, err := io.ReadFull(p.in, buf); err != nil {
				ends <- err
				return
			}
			if string(buf[:6]) != "\x82\xa0\x00\x00\x00\x00" {
				p.Errorf("a frame begins with % x", buf[:6])
			}
			p.send(whole(buf[6:]))
		}
	})
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 2, Floor: true, Active: 2, Echo: 50 * time.Millisecond})
	if !res.OK() || res.Echo.Messages == 0 {
		t.Errorf("%+v", res)
	}
	for range 2 {
		if err := <-ends; !strings.Contains(err.Error(), "reset") {
			t.Errorf("a connection ended with %v, want a reset", err)
		}
	}
}

func TestPortsThatAreTakenAreSkipped(t *testing.T) {
	const conns, taken = 6, 3
	// A random address, because tests may run at the same time.
	source := netip.AddrFrom4([4]byte{127, 100, byte(rand.IntN(256)), byte(1 + rand.IntN(254))})
	sources := Sources{[]netip.Addr{source}, 1}
	for i := range taken {
		from, _ := sources.Pick(2 * i)
		l, err := net.Listen("tcp", from.String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	arrived := make(chan string, conns)
	url := fake(t, func(p *peer) {
		arrived <- p.RemoteAddr().String()
		p.open()
		p.rest()
	})
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: conns, Sources: sources.addrs, Workers: 2})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns})
	if res.Counts[measure.Skipped.String()] != taken || !res.OK() || res.Sources != 1 {
		t.Errorf("%d skipped, want %d; errors %v", res.Counts[measure.Skipped.String()], taken, res.Errors)
	}
	// The free ones of the first six combinations, and the next three.
	want := map[string]bool{}
	for _, i := range []int{1, 3, 5, 6, 7, 8} {
		from, _ := sources.Pick(i)
		want[from.String()] = true
	}
	for range conns {
		if from := <-arrived; !want[from] {
			t.Errorf("connected from %s, or twice", from)
		} else {
			delete(want, from)
		}
	}
}

// Spare ports go round, because connections that had them end.
func TestSpareSourcesGoRound(t *testing.T) {
	p := ports{users: 64_510, sources: Sources{loopback(1), 1}, spares: make([]atomic.Int64, 1)}
	for _, want := range []int{64_510, 64_511, 64_510, 64_511} {
		if got := p.spare(0); got != want {
			t.Errorf("spare %d, want %d", got, want)
		}
	}
	p.users = 64_512
	if got := p.spare(0); got != -1 {
		t.Errorf("spare %d, though there is none", got)
	}
}

func TestASourceAddressOfAnotherMachineFails(t *testing.T) {
	url := fake(t, func(*peer) { t.Error("a connection came") })
	res := mustRun(t, short(t), Config{
		URLs: []string{url}, Conns: 3, Sources: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, // RFC 5737
	})
	expect(t, res, map[measure.Counter]int{measure.Failed: 3})
	expectError(t, res, "192.0.2.1", 3)
	if res.OK() {
		t.Error("the result is OK")
	}
}

func TestConnectionsSpreadOverSeveralURLs(t *testing.T) {
	const each = 7
	arrived := make(chan string, 3*each)
	var urls []string
	for range 3 {
		urls = append(urls, fake(t, func(p *peer) {
			arrived <- "ws://" + p.LocalAddr().String() + "/"
			p.open()
			p.rest()
		}))
	}
	res := mustRun(t, short(t), Config{URLs: urls, Conns: 3 * each, Workers: 2})
	expect(t, res, map[measure.Counter]int{measure.Connected: 3 * each})
	if !slices.Equal(res.URLs, urls) {
		t.Errorf("URLs %v", res.URLs)
	}
	accepted := map[string]int{}
	for range 3 * each {
		accepted[<-arrived]++
	}
	for _, url := range urls {
		if accepted[url] != each {
			t.Errorf("%s has %d connections, want %d", url, accepted[url], each)
		}
	}
}

// Connections may start later than the rate demands, and never earlier.
func TestConnectionsStartNoFasterThanTheRate(t *testing.T) {
	const conns, rate = 21, 200
	url := fake(t, func(p *peer) { p.open(); p.rest() })
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: conns, Rate: rate, Workers: 1})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns})
	if soonest := float64(conns-1) / rate; res.Phases[0].Seconds < soonest {
		t.Errorf("%d connections in %v s, at %d a second", conns, res.Phases[0].Seconds, rate)
	}
	if res.Rate != rate || res.ConnectRate <= 0 || res.ConnectRate > rate*conns/(conns-1) {
		t.Errorf("rate %v, wanted %v", res.ConnectRate, res.Rate)
	}
}

// A slot's time wraps, and ages are still right.
func TestAHandshakesAgeSurvivesTheWrap(t *testing.T) {
	const wrap = (math.MaxUint32 + 1) * time.Microsecond
	for _, begun := range []time.Duration{0, time.Second, wrap - time.Second, wrap, 5*wrap - 1} {
		for _, age := range []time.Duration{0, time.Millisecond, 30 * time.Second, time.Hour} {
			c := client{since: micros(begun)}
			if got := since(begun+age, c.since); got < age || got > age+time.Microsecond {
				t.Errorf("begun at %s, %s later it is %s old", begun, age, got)
			}
		}
	}
}

func TestRefusedAndResetConnectionsAreCountedApart(t *testing.T) {
	for _, r := range []struct {
		err  error
		want measure.Counter
	}{
		{unix.ECONNREFUSED, measure.Refused}, {unix.ECONNRESET, measure.Reset}, {io.EOF, measure.Reset}, {unix.EPIPE, measure.Reset}, {unix.ETIMEDOUT, measure.Reset},
	} {
		if got := refusal(r.err); got != r.want {
			t.Errorf("%v is %s, want %s", r.err, got, r.want)
		}
	}
}

func TestARunWithAnEndedContextReturns(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	url := fake(t, func(p *peer) { p.open(); p.rest() })
	res, err := Run(ctx, Config{URLs: []string{url}, Conns: 10})
	if err == nil && !res.Interrupted {
		t.Errorf("%+v", res)
	}
}

// A ramp is limited by the generator if it called connect late. It is not if the
// server answered late.
func TestASlowServerIsNotTheGeneratorsLimit(t *testing.T) {
	t.Parallel()
	// The server is slow on purpose: it sleeps 200 ms before each answer, so 30
	// handshakes take 6 s instead of 0.3 s.
	var answering sync.Mutex
	url := fake(t, func(p *peer) {
		r := p.request()
		answering.Lock()
		time.Sleep(200 * time.Millisecond)
		answering.Unlock()
		p.send([]byte(accept(r)))
		p.rest()
	})
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 30, Rate: 100, Workers: 1})
	for _, text := range res.Limited {
		if !strings.Contains(text, "busy") { // the machine may be, with other tests
			t.Errorf("limited %q, with counts %v", text, res.Counts)
		}
	}
}

// The next worker starts although no handshake of the ones before is answered.
func TestUnansweredHandshakesDelayNoOtherWorker(t *testing.T) {
	const conns = 12
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	url := fake(t, func(p *peer) {
		p.request()
		if asked.Add(1) == conns {
			cancel()
		}
		_, _ = io.Copy(io.Discard, p.in)
	})
	res := mustRun(t, ctx, Config{URLs: []string{url}, Conns: conns, Workers: conns, ConnectTimeout: time.Hour})
	if !res.Interrupted || asked.Load() != conns {
		t.Errorf("%d of %d handshakes had begun", asked.Load(), conns)
	}
}

// A handshake has all its time, however late the generator began it.
func TestAHandshakesTimeBeginsWhenItBegins(t *testing.T) {
	w, c := reader(t)
	w.run.config.ConnectTimeout = 30 * time.Second
	for name, row := range map[string]struct {
		meant, begun time.Duration
		want         state
	}{
		"begun in time":    {time.Second, time.Second, gone},
		"begun a bit late": {time.Second, 31 * time.Second, requested},
		"begun very late":  {time.Second, 55 * time.Second, requested},
	} {
		t.Run(name, func(t *testing.T) {
			w.sweep, w.now = hand{}, time.Minute
			c = w.slots.Take(-1)
			c.state, c.since, c.got = requested, micros(row.meant), micros(row.begun)
			w.ramp.opening++
			w.expire()
			if c.state != row.want {
				t.Errorf("its state is %d, want %d", c.state, row.want)
			}
			w.slots.Reclaim()
		})
	}
}

// A hand passes each slot once in each round, a few at a time.
func TestAHandGoesRoundEvenly(t *testing.T) {
	const every, high, step = time.Second, 1000, 7 * time.Millisecond
	h := hand{every: every}
	passed := make([]int, high)
	for now := time.Duration(0); now < 10*every; now += step {
		from, to := h.next(high, now)
		if to-from > 2*high*int(step)/int(every) {
			t.Fatalf("it passes %d at once", to-from)
		}
		for i := from; i < to; i++ {
			passed[i]++
		}
	}
	for i, n := range passed {
		if n < 9 || n > 10 {
			t.Errorf("it has passed slot %d %d times in ten rounds", i, n)
		}
	}
	// It catches up with one round, and no more.
	if from, to := h.next(high, time.Minute); to != high || from > high {
		t.Errorf("after a long time it passes %d to %d", from, to)
	}
	if from, to := h.next(high, time.Minute+every/2); from != 0 || to != high/2 {
		t.Errorf("then it passes %d to %d", from, to)
	}
}

// However many connections a worker has, it looks at few of them in a turn, and at all in a second
// or so.
func TestASweepIsSpreadOverTurns(t *testing.T) {
	const many = 100_000
	w, _ := reader(t)
	slots, err := netpoll.NewSlots[client](many)
	if err != nil {
		t.Fatal(err)
	}
	w.slots.Close()
	w.slots, w.ramp.opening, w.run.config.ConnectTimeout = slots, many, time.Second
	for range many {
		slots.Take(-1).state = requested // and they began at 0
	}
	w.sweep.begun = 2 * time.Second
	for w.now = w.sweep.begun; w.tally.counts[measure.TimedOut] < many; w.now += w.untilSweep() {
		before := w.tally.counts[measure.TimedOut]
		w.expire()
		if n := w.tally.counts[measure.TimedOut] - before; n > 2*sweepMost {
			t.Fatalf("%d in a turn", n)
		}
		if w.now > 10*time.Second {
			t.Fatalf("%d after %s", w.tally.counts[measure.TimedOut], w.now)
		}
	}
}

// Nobody gets in, so the ramp does not go through all users.
func TestARampThatIsRefusedEndsEarly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "ws://" + l.Addr().String() + "/"
	l.Close()
	busy := fake(t, func(p *peer) { p.request(); p.send([]byte("HTTP/1.1 503 Busy\r\n\r\n")) })
	for name, row := range map[string]struct {
		url string
		as  measure.Counter
	}{"refused": {nobody, measure.Refused}, "rejected": {busy, measure.Rejected}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const conns = 10_000
			res := runPlan(t, Config{URLs: []string{row.url}, Conns: conns, Rate: 100, Workers: 2})
			if n := counted(res, row.as); n < hopelessAfter || n > conns/2 || !strings.HasPrefix(res.Early, "nobody got in: ") || res.OK() {
				t.Errorf("%d %s, early %q", n, row.as, res.Early)
			}
		})
	}
}
