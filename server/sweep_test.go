package server

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

func TestLimitsAreTicks(t *testing.T) {
	const tick = netpoll.TickLength
	rows := []struct {
		name string
		o    Options
		want limits
	}{
		{"long timeouts", Options{Reactors: 1, HandshakeTimeout: 400 * time.Second, IdleTimeout: time.Hour, CloseTimeout: 300 * time.Second, MaxPartial: 100},
			limits{handshake: 1600, idle: 14400, ping: 7200, close: 1200, lap: 20, partial: 100, requests: 12}},
		{"the shortest decides the lap", Options{Reactors: 1, HandshakeTimeout: 10 * time.Second, IdleTimeout: 10 * time.Minute, CloseTimeout: 5 * time.Second},
			limits{handshake: 40, idle: 2400, ping: 1200, close: 20, lap: 5}},
		{"even a ping", Options{Reactors: 1, HandshakeTimeout: time.Minute, IdleTimeout: 8 * time.Second, CloseTimeout: time.Minute},
			limits{handshake: 240, idle: 32, ping: 16, close: 240, lap: 4}},
		{"a lap is never shorter than a tick", Options{Reactors: 1, HandshakeTimeout: 1, IdleTimeout: 1, CloseTimeout: 1},
			limits{handshake: 1, idle: 1, ping: 0, close: 1, lap: 1}},
		{"a timeout never comes early", Options{Reactors: 1, HandshakeTimeout: tick + 1, IdleTimeout: 2*tick + 2, CloseTimeout: tick},
			limits{handshake: 2, idle: 3, ping: 2, close: 1, lap: 1}},
		{"none", Options{Reactors: 1, HandshakeTimeout: -1, IdleTimeout: -time.Hour, CloseTimeout: -1}, limits{lap: 20}},
		{"reactors share what incomplete messages may hold", Options{Reactors: 4, HandshakeTimeout: -1, IdleTimeout: -1, CloseTimeout: -1, MaxPartial: 400},
			limits{lap: 20, partial: 100, requests: 12}},
	}
	for _, row := range rows {
		if got := newLimits(&row.o); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
	}
}

// A lap of the sweep sees every slot, and no tick sees many more than its share.
func TestASweepSeesEverySlotInALap(t *testing.T) {
	for _, high := range []int{1, 2, 3, 7, 100, 1001} {
		for _, lap := range []netpoll.Tick{1, 2, 5, 240} {
			for _, passing := range []netpoll.Tick{1, 2, 3, 7, 1000} {
				t.Run(fmt.Sprint(high, lap, passing), func(t *testing.T) {
					r := bare(t, Handler{}, Options{})
					r.limits = limits{close: 1, lap: lap}
					for range high { // connections that the sweep ends when it sees them
						r.slots.Take(-1).state = stateLinger
					}
					r.look() // no time has passed
					if n := r.slots.Used(); n != high {
						t.Errorf("%d of %d slots are used before the first tick", n, high)
					}
					for passed := netpoll.Tick(0); passed < lap; passed += passing {
						before := r.slots.Used()
						r.tick += passing
						for r.look(); r.sweep.due > 0; r.look() {
							writes := before
							if before = r.slots.Used(); writes-before > pingsMax {
								t.Errorf("%d connections are closed in a turn", writes-before)
							}
						}
						share := (high*int(passing) + int(lap) - 1) / int(lap)
						if seen := before - r.slots.Used(); seen > share {
							t.Errorf("%d slots are seen in %d ticks of %d", seen, passing, lap)
						}
					}
					if n := r.slots.Used(); n != 0 {
						t.Errorf("%d of %d slots are not seen in a lap", n, high)
					}
				})
			}
		}
	}
}

func TestTimeouts(t *testing.T) {
	l := limits{handshake: 40, ping: 100, idle: 200, close: 20}
	rows := []struct {
		name   string
		state  state
		age    netpoll.Tick
		flags  flags
		limits limits
		hears  string // the beginning of what the peer receives
		want   state
	}{
		{"a fresh connection", stateRequest, 0, 0, l, "", stateRequest},
		{"a head just in time", stateRequest, 39, 0, l, "", stateRequest},
		{"a late head", stateRequest, 40, 0, l, "HTTP/1.1 408 ", stateRejected},
		{"a head without a limit", stateRequest, 1 << 31, 0, limits{}, "", stateRequest},
		{"heard of just now", stateOpen, 0, 0, l, "", stateOpen},
		{"not silent enough for a ping", stateOpen, 99, 0, l, "", stateOpen},
		{"silent", stateOpen, 100, 0, l, "\x89\x00", stateOpen},
		{"pinged already", stateOpen, 199, flagPinged, l, "", stateOpen},
		{"silent for too long", stateOpen, 200, flagPinged, l, "\x88\x2a\x03\xe9server: the peer was silent", stateLinger},
		{"silent for too long at once", stateOpen, 1000, 0, l, "\x88\x2a\x03\xe9", stateLinger},
		{"silence without a limit", stateOpen, 1 << 31, 0, limits{}, "", stateOpen},
		{"no answer yet", stateClosing, 19, 0, l, "", stateClosing},
		{"no answer", stateClosing, 20, 0, l, "", stateEnded},
		{"no answer without a limit", stateClosing, 1 << 31, 0, limits{}, "", stateClosing},
		{"not gone yet", stateLinger, 19, 0, l, "", stateLinger},
		{"not gone", stateLinger, 20, 0, l, "", stateEnded},
		{"not gone without a limit", stateLinger, 1 << 31, 0, limits{}, "", stateLinger},
	}
	for _, row := range rows {
		for _, now := range []netpoll.Tick{1 << 31, 3} { // ticks wrap
			t.Run(row.name, func(t *testing.T) {
				r := bare(t, Handler{}, Options{})
				r.limits = row.limits
				r.tick = now - row.age
				c, peer := r.join(t, row.state)
				c.flags |= row.flags
				r.tick = now
				r.sweep.check(c)
				r.settle()
				if c.state != row.want {
					t.Errorf("state %d, want %d", c.state, row.want)
				}
				buf := make([]byte, 1000)
				if row.want == stateEnded || row.want == stateLinger && row.hears == "" {
					return
				}
				heard := string(hears(t, peer, buf))
				if !strings.HasPrefix(heard, row.hears) || row.hears == "" && heard != "" {
					t.Errorf("the peer received %q, want %q", heard, row.hears)
				}
				pinged := c.flags&flagPinged != 0
				if wasPinged := row.flags&flagPinged != 0 || row.hears == "\x89\x00"; pinged != wasPinged {
					t.Errorf("pinged %v, want %v", pinged, wasPinged)
				}
			})
		}
	}
}

// Whatever a peer sends restarts its idle time.
func TestWhatAPeerSendsKeepsItOpen(t *testing.T) {
	for name, wire := range map[string][]byte{
		"a pong":              frame.AppendMasked(nil, frame.Pong, [4]byte{}, nil),
		"a message":           frame.AppendMasked(nil, frame.Text, [4]byte{}, []byte("hello")),
		"a part of a message": frame.AppendMasked(nil, frame.Text, [4]byte{}, []byte("hello"))[:8],
	} {
		t.Run(name, func(t *testing.T) {
			r := bare(t, Handler{}, Options{})
			r.limits = limits{ping: 100, idle: 200, close: 20, lap: 1, partial: 1000}
			c, peer := r.join(t, stateOpen)
			for range 10 {
				r.tick += 150
				r.look()
				if c.flags&flagPinged == 0 {
					t.Fatal("not pinged")
				}
				if _, err := netpoll.Write(peer, wire); err != nil {
					t.Fatal(err)
				}
				r.round(t)
				if c.state != stateOpen || c.flags&flagPinged != 0 || c.seen != r.tick {
					t.Fatalf("state %d, flags %d, seen %d at %d", c.state, c.flags, c.seen, r.tick)
				}
				if name == "a part of a message" {
					wire = []byte{wire[len(wire)-1]} // the message continues
					break
				}
			}
		})
	}
}

func TestEveryCauseHasItsCounter(t *testing.T) {
	var n Counts
	rows := []struct {
		cause error
		want  *uint64
	}{
		{nil, &n.ClosedClean},
		{ErrIdle, &n.ClosedIdle},
		{ErrOutbox, &n.ClosedOutbox},
		{ErrWriteTimeout, &n.ClosedWriteTimeout},
		{ErrPartial, &n.ClosedPartial},
		{ErrMessageTimeout, &n.ClosedMessageTimeout},
		{ErrInbox, &n.ClosedInbox},
		{ErrCloseTimeout, &n.ClosedCloseTimeout},
		{ErrPanic, &n.ClosedPanic},
		{ErrShutdown, &n.ClosedShutdown},
		{frame.ErrTooBig, &n.ClosedTooBig},
		{frame.ErrUTF8, &n.ClosedUTF8},
		{frame.ErrCloseReason, &n.ClosedUTF8},
		{frame.ErrCloseCode, &n.ClosedProtocol},
		{frame.ErrNotMinimal, &n.ClosedProtocol},
		{errors.New("a socket's"), &n.ClosedGone},
	}
	for _, row := range rows {
		before := *row.want
		if *n.closed(row.cause)++; *row.want != before+1 {
			t.Errorf("%v has the wrong counter", row.cause)
		}
	}
	names := map[string]bool{}
	for name := range n.All() {
		names[name] = true
	}
	if fields := reflect.TypeOf(n).NumField(); len(names) != fields || names[""] {
		t.Errorf("%d counters have the names %v", fields, names)
	}
}

// If all reactors swept in the same millisecond, everybody would wait for them at once.
func TestReactorsTickOneAfterTheOther(t *testing.T) {
	s, err := Listen([]string{"127.0.0.1:0"}, Handler{}, Options{Reactors: 5, Mode: Inline, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for i, r := range s.reactors {
		if want := time.Duration(i) * netpoll.TickLength / 5; r.time != want {
			t.Errorf("reactor %d begins %s after a tick, want %s", i, r.time, want)
		}
	}
}

// If the process was stopped or the machine suspended, at most a second of the gap
// counts as silence of the peers.
func TestAGapInTimeIsNoSilence(t *testing.T) {
	r := bare(t, Handler{}, Options{IdleTimeout: 2 * time.Second})
	var now time.Duration
	r.now = func() time.Duration { return now }
	r.round(t)
	var conns []*conn
	for range 100 {
		c, _ := r.join(t, stateOpen)
		conns = append(conns, c)
	}
	now += 5 * time.Second
	for range 100 { // several laps
		r.round(t)
	}
	for i, c := range conns {
		if c.state != stateOpen {
			t.Fatalf("connection %d is in state %d", i, c.state)
		}
	}
	for range 20 { // without gaps all time counts
		now += netpoll.TickLength
		for range 10 {
			r.round(t)
		}
	}
	for i, c := range conns {
		if c.state == stateOpen {
			t.Fatalf("connection %d is open after a real silence", i)
		}
	}
}

// Before the sweep closes a silent peer, it reads what has arrived, even if the poller
// has not reported it yet.
func TestTheSweepReadsBeforeItClosesASilentPeer(t *testing.T) {
	heard := 0
	r := bare(t, Handler{Message: func(Conn, frame.Op, []byte) { heard++ }}, Options{IdleTimeout: 2 * time.Second})
	talks, peer := r.join(t, stateOpen)
	silent, _ := r.join(t, stateOpen)
	if _, err := netpoll.Write(peer, frame.AppendMasked(nil, frame.Text, [4]byte{}, []byte("hello"))); err != nil {
		t.Fatal(err)
	}
	r.tick += r.limits.idle
	for range 10 {
		r.look()
	}
	if talks.state != stateOpen || heard != 1 {
		t.Errorf("the peer that has sent something is in state %d, and %d of its messages were handled", talks.state, heard)
	}
	if silent.state == stateOpen {
		t.Error("the silent peer's connection is open")
	}
}

// A turn writes only a few Pings, however many are due.
func TestPingsThatAreDueAtOnceTakeManyTurns(t *testing.T) {
	const conns = 500
	r := bare(t, Handler{}, Options{IdleTimeout: 2 * time.Second})
	var now time.Duration
	r.now = func() time.Duration { return now }
	r.round(t)
	for range conns {
		r.join(t, stateOpen)
	}
	now += time.Second // half of the idle time, for all at once
	pings, turns := 0, 0
	for pings < conns {
		before := r.counts.BytesOut
		now += netpoll.TickLength / 100
		r.round(t)
		n := int(r.counts.BytesOut-before) / 2
		if n > pingsMax {
			t.Fatalf("%d pings in a turn", n)
		}
		pings += n
		if turns++; turns > 100*conns {
			t.Fatalf("%d pings in %d turns", pings, turns)
		}
	}
	if turns < conns/pingsMax {
		t.Errorf("%d pings took %d turns", pings, turns)
	}
}

// A connection's rate is forgotten once it has rested, so that a silent connection
// costs nothing.
func TestARestedConnectionHasNoRate(t *testing.T) {
	r := bare(t, Handler{}, Options{MessageRate: 1, MessageBurst: 4})
	c, _ := r.join(t, stateOpen)
	r.in.charge(c, 3, 100)
	for _, row := range []struct {
		after time.Duration
		sides int
	}{{0, 1}, {2900 * time.Millisecond, 1}, {100 * time.Millisecond, 0}} {
		r.time += row.after
		r.sweep.check(c)
		if n := r.sides.pool.Used(); n != row.sides {
			t.Errorf("after %v more: %d sides, want %d", row.after, n, row.sides)
		}
	}
}

// A message has MessageTimeout from its own first byte, though its connection has had
// a side for long.
func TestAMessageBeginsWithItsFirstByte(t *testing.T) {
	r := bare(t, Handler{}, Options{})
	c, peer := r.join(t, stateOpen)
	r.sides.need(c)
	r.tick += 10 * r.limits.message
	c.seen = r.tick
	if _, err := unix.Write(peer, []byte("\x81")); err != nil {
		t.Fatal(err)
	}
	r.in.read(c)
	r.sweep.check(c)
	r.settle()
	if c.state != stateOpen {
		t.Error("the message took too long, though it has just begun")
	}
}
