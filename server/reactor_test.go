package server

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/pressure"
)

// bare returns a reactor of a server that does not run. The test runs its turns.
func bare(t testing.TB, h Handler, o Options) *reactor {
	t.Helper()
	o.Reactors = 1
	o.Mode = cmp.Or(o.Mode, Inline)
	o.Log = slog.New(slog.DiscardHandler)
	s, err := Listen([]string{"127.0.0.1:0"}, h, o)
	if err != nil {
		t.Fatal(err)
	}
	r := s.reactors[0]
	if r.poller, err = netpoll.NewPoller(r.waker); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.close()
		s.endPool()
		s.close()
	})
	return r
}

// round is one turn of the loop that does not wait.
func (r *reactor) round(t testing.TB) {
	events, err := r.poller.Wait(0)
	if err != nil {
		t.Fatal(err)
	}
	r.turn(events)
	r.endTurn()
}

// join gives r a connection in a state, and returns its peer's socket.
func (r *reactor) join(t testing.TB, s state) (c *conn, peer int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[1]) })
	c = r.slots.Take(pair[0])
	if s.admitted() {
		r.server.gate.Enter()
	}
	r.enter(c, s)
	c.terms = termsOf(r.server.options.OutboxPolicy, 0)
	c.heard = r.out.log.End()
	c.seen = r.tick
	r.poll(c)
	return c, pair[1]
}

// hears reads everything that was sent to a peer.
func hears(t testing.TB, peer int, buf []byte) []byte {
	n, err := netpoll.Read(peer, buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestAnIdleConnectionIsASlotOf32Bytes(t *testing.T) {
	if n := unsafe.Sizeof(conn{}); n != 32 {
		t.Errorf("a slot has %d bytes", n)
	}
	r := bare(t, Handler{Message: func(c Conn, op frame.Op, data []byte) { _ = c.Send(op, data) }}, Options{})
	c, peer := r.join(t, stateOpen)
	wire := frame.AppendMasked(nil, frame.Text, [4]byte{1, 2, 3, 4}, []byte("hello"))
	for i := range wire { // byte by byte, so that the connection has a side in between
		if _, err := unix.Write(peer, wire[i:i+1]); err != nil {
			t.Fatal(err)
		}
		r.round(t)
	}
	if got := hears(t, peer, make([]byte, 100)); string(got) != "\x81\x05hello" {
		t.Errorf("answered %q", got)
	}
	if c.side != 0 || r.sides.held != [accounts]int{} {
		t.Errorf("an idle connection has a side and holds %d bytes", r.sides.held)
	}
}

func TestAnAnswerDoesNotAllocate(t *testing.T) {
	r := bare(t, Handler{Message: func(c Conn, op frame.Op, data []byte) { _ = c.Send(op, data) }}, Options{})
	_, peer := r.join(t, stateOpen)
	payload := bytes.Repeat([]byte("x"), 32)
	wire := frame.AppendMasked(nil, frame.Text, [4]byte{1, 2, 3, 4}, payload)
	want := frame.Append(nil, frame.Text, payload)
	buf := make([]byte, 100)
	n := testing.AllocsPerRun(1000, func() {
		if _, err := netpoll.Write(peer, wire); err != nil {
			t.Fatal(err)
		}
		r.round(t)
		if got := hears(t, peer, buf); !bytes.Equal(got, want) {
			t.Fatalf("answered %q", got)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a message and its answer", n)
	}
}

func TestAPingDoesNotAllocate(t *testing.T) {
	r := bare(t, Handler{}, Options{})
	_, peer := r.join(t, stateOpen)
	wire := frame.AppendMasked(nil, frame.Ping, [4]byte{1, 2, 3, 4}, []byte("there?"))
	buf := make([]byte, 100)
	n := testing.AllocsPerRun(1000, func() {
		if _, err := netpoll.Write(peer, wire); err != nil {
			t.Fatal(err)
		}
		r.round(t)
		if got := hears(t, peer, buf); string(got) != "\x8a\x06there?" {
			t.Fatalf("answered %q", got)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a ping and its pong", n)
	}
}

// A broadcast allocates, but not for each connection.
func TestAPassDoesNotAllocateForAConnection(t *testing.T) {
	payload := bytes.Repeat([]byte("x"), 32)
	allocs := func(conns int) float64 {
		r := bare(t, Handler{}, Options{})
		peers := make([]int, conns)
		for i := range peers {
			_, peers[i] = r.join(t, stateOpen)
		}
		buf := make([]byte, 100)
		return testing.AllocsPerRun(100, func() {
			if err := r.server.Broadcast(frame.Text, payload); err != nil {
				t.Fatal(err)
			}
			for r.round(t); r.out.log.Busy(); {
				r.round(t)
			}
			for _, p := range peers {
				if got := hears(t, p, buf); len(got) != 2+len(payload) {
					t.Fatalf("received %q", got)
				}
			}
		})
	}
	if one, many := allocs(1), allocs(200); many > one {
		t.Errorf("%v allocations for one connection, %v for 200", one, many)
	}
}

func TestASweepDoesNotAllocate(t *testing.T) {
	r := bare(t, Handler{}, Options{})
	for range 1000 {
		c := r.slots.Take(-1)
		c.state = stateOpen
	}
	n := testing.AllocsPerRun(1000, func() {
		r.tick++
		r.look()
	})
	if n != 0 {
		t.Errorf("%v allocations for a sweep", n)
	}
	for i := range r.slots.High() {
		r.slots.Put(r.slots.At(i))
	}
}

// A reactor pauses a pass after a number of sends and does its other work.
func TestAPassTakesManyTurns(t *testing.T) {
	const conns = 3*passSends + 1
	r := bare(t, Handler{}, Options{})
	peers := make([]int, conns)
	for i := range peers {
		_, peers[i] = r.join(t, stateOpen)
	}
	if err := r.server.Broadcast(frame.Text, []byte("one")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	heard := map[string]int{}
	for turn := 1; ; turn++ {
		r.round(t)
		if turn == 2 { // joins the running pass: later connections get both at once
			if err := r.server.Broadcast(frame.Text, []byte("two")); err != nil {
				t.Fatal(err)
			}
		}
		sent := 0
		for _, p := range peers {
			if got := hears(t, p, buf); len(got) > 0 {
				heard[string(got)]++
				sent++
			}
		}
		if sent > passSends {
			t.Errorf("turn %d: %d sends", turn, sent)
		}
		if turn > 2 && !r.out.log.Busy() {
			break
		}
	}
	one, two := "\x81\x03one", "\x81\x03two"
	if heard[one] != 2*passSends || heard[two] != 2*passSends || heard[one+two] != conns-2*passSends {
		t.Errorf("received %v", heard)
	}
	if n := r.server.throttle.InFlight(); n != 0 {
		t.Errorf("%d bytes are on their way", n)
	}
}

// Neighbouring messages to one connection in the mailbox leave in one system call.
func TestNeighbouringMessagesLeaveTogether(t *testing.T) {
	r := bare(t, Handler{}, Options{})
	a, peerA := r.join(t, stateOpen)
	b, peerB := r.join(t, stateOpen)
	for _, send := range []struct {
		c    *conn
		text string
	}{{a, "1"}, {a, "2"}, {b, "3"}, {a, "4"}, {b, "5"}, {b, "6"}} {
		if err := r.handle(send.c).Send(frame.Text, []byte(send.text)); err != nil {
			t.Fatal(err)
		}
	}
	r.round(t)
	buf := make([]byte, 100)
	if got := hears(t, peerA, buf); string(got) != "\x81\x011\x81\x012\x81\x014" {
		t.Errorf("a received %q", got)
	}
	if got := hears(t, peerB, buf); string(got) != "\x81\x013\x81\x015\x81\x016" {
		t.Errorf("b received %q", got)
	}
	if n := r.counts.MessagesOut; n != 6 {
		t.Errorf("%d messages out", n)
	}
}

// A connection that lacks many broadcasts may exceed its outbox. Then a Close frame is
// sent, and nothing after it.
func TestNothingIsSentAfterACloseFrame(t *testing.T) {
	r := bare(t, Handler{}, Options{MaxOutbox: 1000})
	c, peer := r.join(t, stateOpen)
	large := make([]byte, 1<<20) // more than the socket takes
	behind := r.handle(c)
	for _, err := range []error{
		behind.Send(frame.Binary, large),
		r.server.Broadcast(frame.Binary, make([]byte, 1000)),
		behind.SendAs(Kind{Policy: OutboxDropOld}, frame.Text, []byte("behind")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var heard []byte
	buf := make([]byte, readSize)
	for owed := true; owed; {
		r.round(t)
		owed = r.owed(c) > 0
		for {
			n, err := netpoll.Read(peer, buf)
			if err == io.EOF || n == 0 && err == nil {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			heard = append(heard, buf[:n]...)
		}
	}
	last := string(frame.AppendClose(nil, frame.TryAgainLater, ErrOutbox.Error()))
	if want := len(large) + 10 + len(last); len(heard) != want || !bytes.HasSuffix(heard, []byte(last)) {
		t.Errorf("received %d bytes to the end, %q, want %d", len(heard), heard[len(heard)-len(last):], want)
	}
	if n := r.counts.Undelivered; n != 2 {
		t.Errorf("%d messages are undelivered", n)
	}
}

// Slots that are freed in a turn cannot be taken in the same turn.
func TestAFullTableAcceptsNoConnection(t *testing.T) {
	r := bare(t, Handler{}, Options{MaxConns: 1})
	for !r.slots.Full() {
		r.slots.Take(-1).state = stateEnded
	}
	for i := range r.slots.High() {
		r.slots.Put(r.slots.At(i))
	}
	peer, err := net.Dial("tcp", r.server.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	for _, want := range []int{0, 1} {
		r.accept(netpoll.Grant{Budget: 1})
		if n := r.slots.Used(); n != want || !r.grants.result.More {
			t.Errorf("%d connections, want %d; more wait: %v", n, want, r.grants.result.More)
		}
		r.slots.Reclaim()
	}
	r.grants.granted = false // there was no Acceptor
}

// A connection gives its side back after its handler's last call.
func TestAnInboxIsGivenBackAfterItsCalls(t *testing.T) {
	handled := make(chan string, 1)
	r := bare(t, Handler{Message: func(_ Conn, _ frame.Op, data []byte) { handled <- string(data) }}, Options{Mode: Workers})
	c, peer := r.join(t, stateOpen)
	for _, want := range []string{"one", "two"} {
		if _, err := netpoll.Write(peer, frame.AppendMasked(nil, frame.Text, [4]byte{}, []byte(want))); err != nil {
			t.Fatal(err)
		}
		r.round(t)
		b := r.sides.of(c).inbox
		if got := <-handled; got != want {
			t.Errorf("handled %q, want %q", got, want)
		}
		for b.Calls() > 0 { // until the call has returned
			runtime.Gosched()
		}
		r.sweep.check(c)
		if left := r.server.pool.Stats(); c.side != 0 || left.Bytes != 0 || left.Calls != 0 {
			t.Errorf("an idle connection has side %d, %+v is queued", c.side, left)
		}
	}
}

// Messages that inflate to much are handled in several turns, between which others
// have theirs. Nothing of them is lost, and the connection is as idle as before.
func TestCompressedMessagesDoNotMakeATurnLong(t *testing.T) {
	const size, messages = 60_000, 40
	handled := 0
	r := bare(t, Handler{Message: func(_ Conn, _ frame.Op, data []byte) {
		if handled++; len(data) != size {
			t.Errorf("%d bytes, want %d", len(data), size)
		}
	}}, Options{Compress: true})
	c, peer := r.join(t, stateOpen)
	c.terms = termsOf(OutboxClose, frame.MaxWindow)
	r.server.compress.peers.Add(1)
	bomb := deflater.Deflate(nil, make([]byte, size), frame.MaxWindow)
	var wire []byte
	for range messages {
		wire = frame.AppendMasked(wire, frame.Binary|frame.Deflated, [4]byte{1, 2, 3, 4}, bomb)
	}
	if _, err := unix.Write(peer, wire); err != nil {
		t.Fatal(err)
	}
	for turns := 0; handled < messages; turns++ {
		before := handled // what is left of a read may have one message more in the same turn
		if r.round(t); handled == before || (handled-before-2)*size >= inflatedMax {
			t.Fatalf("turn %d: %d messages are handled", turns, handled-before)
		}
	}
	if c.side != 0 || r.sides.held != [accounts]int{} {
		t.Errorf("an idle connection has a side and holds %d bytes", r.sides.held)
	}
}

// The sweep lets go of an inbox that has no calls. It may come between the return of
// the last call and the news of it.
func TestAPauseEndsThoughTheInboxHasGone(t *testing.T) {
	released := make(chan struct{})
	r := bare(t, Handler{Message: func(Conn, frame.Op, []byte) { <-released }}, Options{Mode: Workers, Workers: 1, MaxInboxMessages: 1})
	c, peer := r.join(t, stateOpen)
	if _, err := unix.Write(peer, frame.AppendMasked(nil, frame.Text, [4]byte{1, 2, 3, 4}, []byte("hello"))); err != nil {
		t.Fatal(err)
	}
	r.round(t)
	if !c.is(flagPaused) {
		t.Fatal("a connection with a full inbox is read")
	}
	close(released)
	for !r.mail.Called() || r.sides.of(c).inbox.Calls() > 0 {
		runtime.Gosched()
	}
	r.sweep.check(c)
	r.round(t)
	if c.is(flagPaused) {
		t.Error("a connection without calls is paused for ever")
	}
}

// What a peer sends faster than its handler works waits with the peer, but for little.
func TestLittleIsReadBehindMessagesThatWait(t *testing.T) {
	released := make(chan struct{})
	r := bare(t, Handler{Message: func(Conn, frame.Op, []byte) { <-released }}, Options{Mode: Workers, Workers: 1, MaxInboxMessages: 4})
	t.Cleanup(func() { close(released) })
	c, peer := r.join(t, stateOpen)
	send := func(messages int) {
		var wire []byte
		for range messages {
			wire = frame.AppendMasked(wire, frame.Binary, [4]byte{1, 2, 3, 4}, make([]byte, 200))
		}
		if _, err := unix.Write(peer, wire); err != nil {
			t.Fatal(err)
		}
		r.round(t)
	}
	send(2)
	if c.is(flagPaused) {
		t.Fatal("a connection is paused whose inbox has room")
	}
	send(100)
	if rest := r.sides.of(c).input.Rest(); !c.is(flagPaused) || rest > readBehind {
		t.Errorf("paused: %v, and %d bytes were read too many", c.is(flagPaused), rest)
	}
}

// Where a connection's first read decides that it is refused, the reactor sees it
// leave nevertheless.
func TestARefusedConnectionIsPolledUntilItsPeerLeaves(t *testing.T) {
	r := bare(t, Handler{}, Options{})
	c, err := net.Dial("tcp", r.server.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(bytes.Repeat([]byte("x"), frame.MaxHead+1)); err != nil {
		t.Fatal(err)
	}
	r.accept(netpoll.Grant{Budget: 1})
	r.grants.granted = false // the Acceptor has not asked
	r.round(t)
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || answer.StatusCode != http.StatusRequestURITooLong {
		t.Errorf("answered %v, %v", answer, err)
	}
	c.Close()
	r.round(t)
	if n := r.slots.Used(); n != 0 {
		t.Errorf("%d slots are used when the peer has left", n)
	}
}

// Before its TLS handshake is done a peer cannot read an HTTP error, so it is sent none.
func TestNothingPlainIsSentIntoATLSHandshake(t *testing.T) {
	certificate, _ := testkit.Certificate()
	for _, s := range []state{stateProxy, stateTLS} {
		r := bare(t, Handler{}, Options{TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}})
		r.limits.requests, r.out.tls.most = 100, 0 // request heads take too much, and no handshake may begin
		c, peer := r.join(t, s)
		if s == stateProxy {
			r.mark(c, fate{kind: fateReject, cause: rejectTimeout})
		} else if _, err := unix.Write(peer, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		r.round(t)
		buf := make([]byte, 100)
		if n, err := unix.Read(peer, buf); n != 0 || err != nil && err != unix.ECONNRESET {
			t.Errorf("state %d: the peer is sent %q, %v", s, buf[:max(0, n)], err)
		}
	}
}

// A message that is refused is not compressed before.
func TestWhatIsRefusedIsNotCompressed(t *testing.T) {
	r := bare(t, Handler{}, Options{Compress: true, CompressFrom: 1})
	c, _ := r.join(t, stateOpen)
	c.terms = termsOf(OutboxClose, frame.MaxWindow)
	conn, data := r.handle(c), bytes.Repeat([]byte("x"), 1000)
	if err := conn.Send(frame.Text, data); err != nil || r.server.compress.before.Load() != 1000 {
		t.Fatalf("%v, %d bytes were compressed", err, r.server.compress.before.Load())
	}
	r.gauge(c).Add(r.server.bound)
	if err := conn.Send(frame.Text, data); err != ErrBackpressure {
		t.Errorf("a full outbox: %v", err)
	}
	r.gauge(c).Sub(r.server.bound, 0)
	for i := 0; !r.mail.Full(); i++ {
		_ = r.mail.Force(op{kind: opRoom}, nil)
	}
	if err := conn.Send(frame.Text, data); err != ErrBackpressure {
		t.Errorf("a full mailbox: %v", err)
	}
	if n := r.server.compress.before.Load(); n != 1000 {
		t.Errorf("%d bytes were compressed", n)
	}
}

// While memory is short the Stats say so.
func TestStatsTellThatMemoryIsShort(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := bare(t, Handler{}, Options{})
	memory, err := pressure.NewMemory(root, pressure.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	r.server.admission.memory = memory
	for free, short := range map[int]bool{1: true, 900: false} {
		info := fmt.Sprintf("MemTotal: 1000 kB\nMemFree: %d kB\n", free)
		if err := os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte(info), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := memory.Poll(); err != nil || r.server.Stats().MemoryShort != short {
			t.Errorf("%d of 1000 KB are free: short %v, %v", free, !short, err)
		}
	}
}
