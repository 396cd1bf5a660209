package server_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// A connection that sends faster than its rate is not read for a while. It comes no
// faster than the rate allows, and loses nothing; others do not notice.
func TestAConnectionOverItsRateIsCurbed(t *testing.T) {
	const messages, burst, rate = 30, 10, 40
	for _, o := range []server.Options{{Mode: server.Inline}, {Mode: server.Workers}, {Mode: server.Serial}} {
		for _, encrypted := range []bool{false, true} {
			t.Run(fmt.Sprint(o.Mode, encrypted), func(t *testing.T) {
				t.Parallel()
				o := o
				o.MessageRate, o.MessageBurst = rate, burst
				var wire, want strings.Builder
				wire.WriteString(request)
				for i := range messages {
					wire.WriteString(message(frame.Text, numbered(i, 100)))
					want.Write(frame.Append(nil, frame.Text, []byte(numbered(i, 100))))
				}
				var c io.ReadWriter
				var s *running
				if encrypted {
					config := secure(&o)
					s = start(t, echo, o)
					c = s.wss(config)
				} else {
					s = start(t, echo, o)
					c = s.dial()
				}
				begin := time.Now()
				if _, err := io.WriteString(c, wire.String()); err != nil {
					t.Fatal(err)
				}
				readHead(t, c)
				readFull(t, c, []byte(want.String()))
				if took, least := time.Since(begin), time.Second*(messages-burst-1)/rate; took < least {
					t.Errorf("it took %v, less than %v", took, least)
				}
				eventually(t, "it was curbed", func() bool { return s.Stats().Curbed > 0 })
				s.counted("closed_rate", 0)
			})
		}
	}
}

// Whatever a peer can send counts: messages, fragments, also empty ones, Pings, Pongs
// and bytes.
func TestAConnectionOverItsRateCanBeClosed(t *testing.T) {
	few := func(o *server.Options) { o.MessageRate, o.MessageBurst = 0.001, 4 }
	bytes := func(o *server.Options) { o.ByteRate, o.ByteBurst = 0.001, 1000 }
	for name, row := range map[string]struct {
		limit        func(*server.Options)
		within, over string
	}{
		"messages":        {few, strings.Repeat(message(frame.Text, "x"), 4), message(frame.Text, "x")},
		"pings":           {few, strings.Repeat(message(frame.Ping, "x"), 4), message(frame.Ping, "x")},
		"pongs":           {few, strings.Repeat(message(frame.Pong, ""), 4), message(frame.Pong, "")},
		"fragments":       {few, fragments(frame.Text, xs(40), 10), message(frame.Text, "x")},
		"empty fragments": {few, piece(1, "") + strings.Repeat(piece(0, ""), 3), piece(0, "")},
		"bytes":           {bytes, message(frame.Text, xs(900)), message(frame.Text, xs(100))},
		"a large message": {bytes, message(frame.Text, xs(900)), piece(1, xs(100))},
	} {
		for _, mode := range []server.Mode{server.Inline, server.Workers} {
			t.Run(fmt.Sprint(name, mode), func(t *testing.T) {
				o := server.Options{Mode: mode, CloseOverRate: true}
				row.limit(&o)
				closed, told := endings()
				h := echo
				h.Close = closed
				s := start(t, h, o)
				c, other := s.open(), s.open()
				c.write(row.within)
				c.write(row.over)
				for {
					op, payload, err := c.next()
					if err != nil {
						t.Fatal(err)
					}
					if op != frame.Close {
						continue
					}
					code, reason := frame.ParseClose([]byte(payload))
					if code != frame.PolicyViolation || !strings.Contains(string(reason), "too many messages") {
						t.Errorf("closed with %d %q", code, reason)
					}
					break
				}
				expectEnding(t, told, frame.PolicyViolation, server.ErrOverRate)
				s.counted("closed_rate", 1)
				other.echoed("x")
			})
		}
	}
}

// What comes before a peer goes over its rate is answered before it is closed.
func TestWhatIsWithinTheRateIsAnswered(t *testing.T) {
	offReactors(t, func(t *testing.T, o server.Options) {
		o.MessageRate, o.MessageBurst, o.CloseOverRate = 0.001, 3, true
		s := start(t, echo, o)
		c := s.open()
		c.write(strings.Repeat(message(frame.Text, "x"), 10))
		for range 3 {
			c.expect(frame.Text, "x")
		}
		c.expectClose(frame.PolicyViolation)
	})
}

// A peer that is curbed for an hour may leave at once, and the server may end.
func TestACurbedConnectionEnds(t *testing.T) {
	o := server.Options{MessageRate: 0.001, MessageBurst: 1, Grace: patience}
	s := start(t, echo, o)
	gone, closed, left := s.open(), s.open(), s.open()
	for i, c := range []*client{gone, closed, left} {
		c.write(strings.Repeat(message(frame.Text, "x"), 3))
		c.expect(frame.Text, "x")
		c.expect(frame.Text, "x")
		s.counted("curbed", i+1)
	}
	must(gone.SetLinger(0))
	must(gone.Close())
	s.counted("closed_gone", 1)
	for _, c := range s.Endings() {
		t.Log(c)
	}
	go func() { must(s.stop()) }()
	for _, c := range []*client{closed, left} {
		c.expectClose(frame.GoingAway)
		c.write(closing(frame.GoingAway, ""))
	}
}
