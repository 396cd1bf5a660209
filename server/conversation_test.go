package server_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// largest is MaxMessage in these tests: more than the server reads at once.
const largest = 1 << 20

// line is a frame that a client receives.
type line struct {
	op      frame.Op
	payload string
}

// conversations are with a server that echoes. None has a control frame after a
// message, because the two answers may come in either order.
var conversations = []struct {
	name  string
	says  string
	hears []line
}{
	{"text", message(frame.Text, "hello"), []line{{frame.Text, "hello"}}},
	{"binary", message(frame.Binary, "\x00\xff"), []line{{frame.Binary, "\x00\xff"}}},
	{"empty text", message(frame.Text, ""), []line{{frame.Text, ""}}},
	{"empty binary", message(frame.Binary, ""), []line{{frame.Binary, ""}}},
	{"one after the other", message(frame.Text, "a") + message(frame.Binary, "b") + message(frame.Text, "c"),
		[]line{{frame.Text, "a"}, {frame.Binary, "b"}, {frame.Text, "c"}}},

	{"longest 7-bit length", message(frame.Text, xs(125)), []line{{frame.Text, xs(125)}}},
	{"shortest 16-bit length", message(frame.Text, xs(126)), []line{{frame.Text, xs(126)}}},
	{"longest 16-bit length", message(frame.Text, xs(1<<16-1)), []line{{frame.Text, xs(1<<16 - 1)}}},
	{"shortest 64-bit length", message(frame.Text, xs(1<<16)), []line{{frame.Text, xs(1 << 16)}}},
	{"largest message", message(frame.Binary, xs(largest)), []line{{frame.Binary, xs(largest)}}},
	{"largest message in fragments", fragments(frame.Binary, xs(largest), 1000), []line{{frame.Binary, xs(largest)}}},
	{"large messages back to back", strings.Repeat(message(frame.Text, xs(100_000)), 5),
		[]line{{frame.Text, xs(100_000)}, {frame.Text, xs(100_000)}, {frame.Text, xs(100_000)}, {frame.Text, xs(100_000)}, {frame.Text, xs(100_000)}}},

	{"fragments", fragments(frame.Text, "hello", 2), []line{{frame.Text, "hello"}}},
	{"empty fragments", piece(byte(frame.Text), "") + piece(0, "") + piece(0, "x") + piece(fin, ""), []line{{frame.Text, "x"}}},
	{"nothing but empty fragments", piece(byte(frame.Binary), "") + piece(fin, ""), []line{{frame.Binary, ""}}},
	{"a rune cut by fragments", fragments(frame.Text, "«κόσμε» 🌍", 1), []line{{frame.Text, "«κόσμε» 🌍"}}},
	{"pings between fragments",
		message(frame.Ping, "1") + piece(byte(frame.Text), "he") + message(frame.Ping, "2") + piece(0, "ll") + message(frame.Ping, "3") + piece(fin, "o"),
		[]line{{frame.Pong, "3"}, {frame.Text, "hello"}}},

	{"ping without a payload", message(frame.Ping, ""), []line{{frame.Pong, ""}}},
	{"ping with the longest payload", message(frame.Ping, xs(125)), []line{{frame.Pong, xs(125)}}},
	{"many pings", message(frame.Ping, "a") + message(frame.Ping, "b") + message(frame.Ping, "c"),
		[]line{{frame.Pong, "c"}}},
	{"a pong that nobody asked for", message(frame.Pong, "hello") + message(frame.Text, "a"), []line{{frame.Text, "a"}}},
}

func xs(n int) string { return strings.Repeat("x", n) }

// fragments is a message in frames of at most size bytes.
func fragments(op frame.Op, payload string, size int) string {
	var wire strings.Builder
	b := byte(op)
	for len(payload) > size {
		wire.WriteString(piece(b, payload[:size]))
		payload = payload[size:]
		b = byte(frame.Continuation)
	}
	wire.WriteString(piece(fin|b, payload))
	return wire.String()
}

// roomy lets clients send everything before they read any answer.
func roomy(o server.Options) server.Options {
	o.MaxMessage = largest
	o.MaxOutbox, o.MaxOutboxMessages = 64<<20, 1<<18
	return o
}

func TestConversations(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, echo, roomy(o))
		for _, talk := range conversations {
			c := s.open()
			c.writing(talk.says)
			for _, l := range talk.hears {
				c.expect(l.op, l.payload)
			}
			if t.Failed() {
				t.Fatal("in", talk.name)
			}
			c.leave()
		}
		s.counted("closed_clean", len(conversations))
	})
}

func TestPayloadsAreNotChanged(t *testing.T) {
	random := make([]byte, largest)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	onBothTables(t, func(t *testing.T, o server.Options) {
		c := start(t, echo, roomy(o)).open()
		for _, n := range []int{1, 4, 4095, readSize - 1, readSize, readSize + 1, 3*readSize + 7, largest} {
			c.writing(message(frame.Binary, string(random[:n])))
			c.expect(frame.Binary, string(random[:n]))
		}
	})
}

// readSize is how much the server reads at once.
const readSize = 64 << 10

func TestThousandsOfMessagesInOneWriteAreAnsweredInOrder(t *testing.T) {
	const messages = 10_000
	everywhere(t, func(t *testing.T, o server.Options) {
		c := start(t, echo, roomy(o)).open()
		var wire strings.Builder
		for i := range messages {
			wire.WriteString(message(frame.Text, fmt.Sprint(i)))
		}
		c.writing(wire.String())
		for i := range messages {
			c.expect(frame.Text, fmt.Sprint(i))
		}
	})
}

// The server receives the same messages, however the network cuts the stream.
func TestPiecesOfAnySize(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		s := start(t, echo, roomy(o))
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, 1))
			wire := request
			var messages, pongs []line
			for i := range 1 + rng.IntN(60) {
				payload := fmt.Sprint(i, strings.Repeat("é", rng.IntN(100)*rng.IntN(100)))
				switch rng.IntN(4) {
				case 0:
					payload = payload[:min(len(payload), 125)]
					wire += message(frame.Ping, payload)
					pongs = append(pongs, line{frame.Pong, payload})
				case 1:
					wire += fragments(frame.Text, payload, 1+rng.IntN(1000))
					messages = append(messages, line{frame.Text, payload})
				default:
					wire += message(frame.Binary, payload)
					messages = append(messages, line{frame.Binary, payload})
				}
			}
			c := s.dial()
			go func() {
				most := 1 + rng.IntN(5000)
				for len(wire) > 0 {
					n := min(1+rng.IntN(most), len(wire))
					if _, err := io.WriteString(c.TCPConn, wire[:n]); err != nil {
						t.Error(err)
						return
					}
					wire = wire[n:]
				}
			}()
			c.accepted()
			for len(messages)+len(pongs) > 0 {
				op, payload, err := c.next()
				want := &messages
				if op == frame.Pong {
					want = &pongs
					// Of several Pings in a read only the last is answered.
					if i := slices.Index(pongs, line{op, payload}); i > 0 {
						pongs = pongs[i:]
					}
				}
				if err != nil || len(*want) == 0 || (*want)[0] != (line{op, payload}) {
					t.Fatalf("seed %d: %v %.50q, %v with %d messages and %d pongs to come", seed, op, payload, err, len(messages), len(pongs))
				}
				*want = (*want)[1:]
			}
			c.leave()
		}
	})
}

func TestAPeerThatHasSentFINIsAnswered(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		c := start(t, echo, o).open()
		c.write(strings.Repeat(message(frame.Text, "hello"), 100))
		must(c.CloseWrite())
		for range 100 {
			c.expect(frame.Text, "hello")
		}
		c.expectEnd()
	})
}

// ending holds the arguments of a call of Handler.Close.
type ending struct {
	code  frame.Code
	cause error
}

// endings returns a Handler.Close, and a channel of its calls.
func endings() (func(server.Conn, frame.Code, error), <-chan ending) {
	told := make(chan ending, 1<<10)
	return func(_ server.Conn, code frame.Code, cause error) { told <- ending{code, cause} }, told
}

// expectEnding waits for the next connection's end.
func expectEnding(t *testing.T, told <-chan ending, code frame.Code, cause error) {
	t.Helper()
	select {
	case got := <-told:
		if got.code != code || !sameCause(got.cause, cause) {
			t.Errorf("Close was called with %d, %v, want %d, %v", got.code, got.cause, code, cause)
		}
	case <-time.After(patience):
		t.Errorf("Close was not called")
	}
}

// sameCause compares violations by their codes, because the texts are package frame's.
func sameCause(got, want error) bool {
	var breach, wanted *frame.Error
	if errors.As(want, &wanted) {
		return errors.As(got, &breach) && breach.Code == wanted.Code
	}
	return errors.Is(got, want)
}

// A peer that has closed, and sends no more, may still be reading what it is owed.
func TestAPeerThatHasEndedItsSideIsSentTheRest(t *testing.T) {
	const size = 1 << 20
	h := echo
	tell, told := endings()
	h.Close = tell
	s := start(t, h, server.Options{Mode: server.Inline, Reactors: 1, MaxMessage: size, MaxOutbox: 4 * size})
	bystander := s.open()
	c := s.dialDeaf().handshake()
	c.send(frame.Text, xs(size))
	c.write(closing(frame.NormalClosure, ""))
	must(c.CloseWrite())
	expectEnding(t, told, frame.NormalClosure, nil)
	for range 10 {
		bystander.echoed("hello") // meanwhile the reactor meets the stream's end
	}
	c.expect(frame.Text, xs(size))
	c.expectClose(frame.NormalClosure)
	c.expectEnd()
}

func TestTheClientCloses(t *testing.T) {
	rows := []struct {
		name   string
		code   frame.Code // what the server receives, and echoes if it may be sent
		reason string
	}{
		{"normally", frame.NormalClosure, ""},
		{"with a reason", frame.NormalClosure, "bye"},
		{"with the longest reason", frame.GoingAway, xs(frame.MaxCloseReason)},
		{"with a registered code", 3000, ""},
		{"with a private code", 4999, "κόσμε"},
		{"without a code", frame.NoStatus, ""},
	}
	everywhere(t, func(t *testing.T, o server.Options) {
		h := echo
		var told <-chan ending
		h.Close, told = endings()
		s := start(t, h, o)
		for _, row := range rows {
			c := s.open()
			// What comes before the Close frame is answered first, and what
			// comes after it is ignored.
			c.write(message(frame.Text, "last") + closing(row.code, row.reason))
			c.expect(frame.Text, "last")
			c.expectClose(row.code)
			c.expectEnd() // RFC 6455 section 7.1.1: the server closes TCP first
			expectEnding(t, told, row.code, nil)
			if t.Failed() {
				t.Fatal("in the row", row.name)
			}
		}
		s.counted("closed_clean", len(rows))
		if lines := s.log.all(); len(lines) > 0 {
			t.Errorf("log: %q", lines)
		}
	})
}

func TestTheServerCloses(t *testing.T) {
	long := strings.Repeat("é", 100)
	rows := []struct {
		name         string
		code         frame.Code
		reason       string
		sent         frame.Code
		sentReason   string
		answer       frame.Code // the peer's
		counter      string
		heard        frame.Code // the code in Handler.Close
		peerJustEnds error      // and its cause, for a peer that does not answer
	}{
		{"normally", 1000, "", 1000, "", 1000, "closed_clean", 1000, nil},
		{"with a reason", 4001, "enough", 4001, "enough", 4001, "closed_clean", 4001, nil},
		{"with a reason that is too long", 1008, long, 1008, long[:122], 1008, "closed_clean", 1008, nil},
		{"with a code that cannot be sent", frame.Abnormal, "never sent", frame.NoStatus, "", 1000, "closed_clean", 1000, nil},
		{"and the peer has another code", 1000, "", 1000, "", 4002, "closed_clean", 4002, nil},
		{"and the peer has no code", 1000, "", 1000, "", frame.NoStatus, "closed_clean", frame.NoStatus, nil},
		{"and the peer leaves without an answer", 1001, "", 1001, "", 0, "closed_gone", frame.Abnormal, io.EOF},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				onClose, told := endings()
				s := start(t, server.Handler{
					Message: func(c server.Conn, op frame.Op, data []byte) {
						must(c.Send(op, []byte("before")))
						must(c.Close(row.code, row.reason))
						must(c.Send(op, []byte("behind")))
					},
					Close: onClose,
				}, o)
				c := s.open()
				c.send(frame.Text, "close")
				c.expect(frame.Text, "before")
				if reason := c.expectClose(row.sent); reason != row.sentReason {
					t.Errorf("reason %q, want %q", reason, row.sentReason)
				}
				// What crosses the server's Close frame is ignored.
				c.write(message(frame.Text, "more") + message(frame.Ping, "there?"))
				s.counted("undelivered", 1)
				if len(told) > 0 {
					t.Error("Close was called before the peer's answer")
				}
				if row.answer == 0 {
					must(c.CloseWrite())
				} else {
					c.write(closing(row.answer, ""))
				}
				c.expectEnd()
				expectEnding(t, told, row.heard, row.peerJustEnds)
				s.counted(row.counter, 1)
				s.counted("messages_in", 1)
			})
		})
	}
}

func TestBothSidesCloseAtOnce(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		onClose, told := endings()
		s := start(t, server.Handler{
			Message: func(c server.Conn, _ frame.Op, _ []byte) { must(c.Close(4001, "")) },
			Close:   onClose,
		}, o)
		c := s.open()
		c.write(message(frame.Text, "close") + closing(4002, ""))
		c.expectClose(4001)
		c.expectEnd()
		expectEnding(t, told, 4002, nil)
	})
}
