package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

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
			limits{handshake: 1600, idle: 14400, ping: 7200, close: 1200, lap: 20, partial: 100}},
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
			limits{lap: 20, partial: 100}},
	}
	for _, row := range rows {
		if got := newLimits(&row.o); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
	}
}

// A lap sees every slot, and no tick sees many more than its share.
func TestASweepSeesEverySlotInALap(t *testing.T) {
	for _, high := range []int{1, 2, 3, 7, 100, 1001} {
		for _, lap := range []netpoll.Tick{1, 2, 5, 240} {
			for _, passing := range []netpoll.Tick{1, 2, 3, 7, 1000} {
				t.Run(fmt.Sprint(high, lap, passing), func(t *testing.T) {
					r := bare(t, Handler{}, Options{})
					r.limits = limits{close: 1, lap: lap}
					for range high { // which are given up when they are seen
						r.slots.Take(-1).state = stateLinger
					}
					r.sweep() // no time has passed
					if n := r.slots.Used(); n != high {
						t.Errorf("%d of %d slots are used before the first tick", n, high)
					}
					for passed := netpoll.Tick(0); passed < lap; passed += passing {
						before := r.slots.Used()
						r.tick += passing
						r.sweep()
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
		hears  string // the beginning of what the peer hears
		want   state
	}{
		{"a fresh connection", stateHead, 0, 0, l, "", stateHead},
		{"a head just in time", stateHead, 39, 0, l, "", stateHead},
		{"a late head", stateHead, 40, 0, l, "HTTP/1.1 408 ", stateLinger},
		{"a head without a limit", stateHead, 1 << 31, 0, limits{}, "", stateHead},
		{"heard of just now", stateOpen, 0, 0, l, "", stateOpen},
		{"not silent enough for a ping", stateOpen, 99, 0, l, "", stateOpen},
		{"silent", stateOpen, 100, 0, l, "\x89\x00", stateOpen},
		{"pinged already", stateOpen, 199, flagPinged, l, "", stateOpen},
		{"silent for too long", stateOpen, 200, flagPinged, l, "\x88\x2a\x03\xe9server: the peer was silent", stateLinger},
		{"silent for too long at once", stateOpen, 1000, 0, l, "\x88\x2a\x03\xe9", stateLinger},
		{"silence without a limit", stateOpen, 1 << 31, 0, limits{}, "", stateOpen},
		{"no answer yet", stateClosing, 19, 0, l, "", stateClosing},
		{"no answer", stateClosing, 20, 0, l, "", stateGone},
		{"no answer without a limit", stateClosing, 1 << 31, 0, limits{}, "", stateClosing},
		{"not gone yet", stateLinger, 19, 0, l, "", stateLinger},
		{"not gone", stateLinger, 20, 0, l, "", stateGone},
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
				r.check(c)
				if c.state != row.want {
					t.Errorf("state %d, want %d", c.state, row.want)
				}
				buf := make([]byte, 1000)
				if row.want == stateGone || row.want == stateLinger && row.hears == "" {
					return
				}
				heard := string(hears(t, peer, buf))
				if !strings.HasPrefix(heard, row.hears) || row.hears == "" && heard != "" {
					t.Errorf("the peer hears %q, want %q", heard, row.hears)
				}
				pinged := c.flags&flagPinged != 0
				if wasPinged := row.flags&flagPinged != 0 || row.hears == "\x89\x00"; pinged != wasPinged {
					t.Errorf("pinged %v, want %v", pinged, wasPinged)
				}
			})
		}
	}
}

// Any sign of life makes a peer young again.
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
				r.sweep()
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
					wire = []byte{wire[len(wire)-1]} // and the message goes on
					break
				}
			}
		})
	}
}

func TestEveryCauseHasItsCounter(t *testing.T) {
	rows := []struct {
		cause error
		want  Counter
	}{
		{nil, ClosedClean},
		{ErrIdle, ClosedIdle},
		{ErrOutbox, ClosedOutbox},
		{ErrPartial, ClosedPartial},
		{ErrQueue, ClosedQueue},
		{ErrCloseTimeout, ClosedTimeout},
		{ErrPanic, ClosedPanic},
		{ErrShutdown, ClosedShutdown},
		{frame.ErrTooBig, ClosedTooBig},
		{frame.ErrUTF8, ClosedUTF8},
		{frame.ErrCloseReason, ClosedUTF8},
		{frame.ErrCloseCode, ClosedBreach},
		{frame.ErrNotMinimal, ClosedBreach},
		{errors.New("a socket's"), ClosedGone},
	}
	for _, row := range rows {
		if got := closeCounter(row.cause); got != row.want {
			t.Errorf("%v counts as %v, want %v", row.cause, got, row.want)
		}
	}
	names := map[string]bool{}
	for _, c := range Counters() {
		names[c.String()] = true
	}
	if len(names) != int(counters) || names[""] {
		t.Errorf("%d counters have the names %v", counters, names)
	}
}
