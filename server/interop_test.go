//go:build interop

package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/selfsigned"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// The clients are independent programs: Node's ws, Python's websockets and a browser.
// Each is started once. For each talk, a row of interopTalks, it connects, does the
// talk's steps and reports what it saw. Every talk has a server of its own, and the
// calls of that server's handler are compared too.
const (
	interopNode    = "node"
	interopPython  = "python"
	interopBrowser = "browser"
)

func TestInterop(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *interopClient{
		interopNode:    interopStartNode,
		interopPython:  interopStartPython,
		interopBrowser: interopStartBrowser,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := start(t)
			// All talks begin before the first is checked, because the slowest ones
			// are silent for seconds. Those over TLS come later, lest a client is
			// too busy to answer a ping.
			for _, ways := range interopWays() {
				var runs []*interopRun
				for _, way := range ways {
					for _, talk := range interopTalks() {
						if talk.of(name, way) {
							runs = append(runs, interopBegin(t, client, way, talk))
						}
					}
				}
				for _, run := range runs {
					t.Run(run.way.name+"/"+run.talk.name, run.check)
				}
			}
		})
	}
}

// interopWay is a way to a server.
type interopWay struct {
	name   string
	scheme string
	tables netpoll.Tables
	tls    *tls.Config
}

func interopWays() [][]interopWay {
	certificate, _ := testkit.Certificate()
	return [][]interopWay{
		{{name: "shared", scheme: "ws", tables: netpoll.Shared}, {name: "private", scheme: "ws", tables: netpoll.Private}},
		{{name: "TLS", scheme: "wss", tables: netpoll.Private, tls: &tls.Config{Certificates: []tls.Certificate{certificate}}}},
	}
}

// of reports whether a client has the talk this way.
func (talk *interopTalk) of(client string, way interopWay) bool {
	return (talk.clients == nil || slices.Contains(talk.clients, client)) && (client != interopBrowser || way.tls == nil || talk.secure)
}

// interopTalk is a talk between a client and a server.
type interopTalk struct {
	name      string
	secure    bool          // a browser has it over TLS too
	clients   []string      // those that can have it, nil for all
	protocols []string      // that the client offers
	window    int           // the largest that it offers to inflate with, as a power of two, 0 for what it likes
	steps     []interopStep // that the client takes
	listen    []interopStep // that two further connections take, made before it

	options server.Options
	upgrade func(*server.Request) error           // nil accepts
	open    func(s *interopServer, c server.Conn) // nil does nothing
	message func(server.Conn, frame.Op, []byte) error

	given  []interopMessage // what Handler.Message is given
	closed interopClosed    // what Handler.Close is told; zero if it is not called
	saw    interopSaw       // what each connection's client sees

	anyClean bool // whether the client calls the end clean is left to chance
}

// interopIdle is long enough for a busy machine's client to answer a ping in
// half of it.
const interopIdle = 15 * time.Second

func interopTalks() []interopTalk {
	payloads := interopPayloads()
	crowd := interopCrowd()
	far := interopFar()
	longReason := strings.Repeat("é", 61) + "!" // 123 bytes, the most there can be
	normal := interopClosed{frame.NormalClosure, nil}
	leave := interopStep{Do: "close", Code: frame.NormalClosure}
	left := interopOutcome{Opened: true, Code: frame.NormalClosure, Clean: true}
	compressed := left
	compressed.Extensions = "permessage-deflate"
	broadcast := func(c server.Conn, op frame.Op, data []byte) error { return c.Server().Broadcast(op, data) }
	return []interopTalk{
		{
			name:    "echo",
			secure:  true,
			options: server.Options{MaxMessage: 65536, MaxOutbox: 1 << 20},
			steps:   slices.Concat(interopSend(payloads...), []interopStep{{Do: "receive", Count: len(payloads)}, leave}),
			message: interopEcho,
			given:   payloads,
			closed:  normal,
			saw:     interopSaw{interopOutcome: left, Received: payloads},
		},
		{
			name:    "pings between fragments",
			clients: []string{interopNode, interopPython},
			steps: []interopStep{
				{Do: "fragments", Op: "text", Parts: []interopBytes{"frag", "", "ments 😀"}, Ping: "between text"},
				{Do: "fragments", Op: "binary", Parts: []interopBytes{"\x00\xff", "\x80"}, Ping: "between bytes"},
				{Do: "receive", Count: 2},
				leave,
			},
			message: interopEcho,
			given:   []interopMessage{{"text", "fragments 😀"}, {"binary", "\x00\xff\x80"}},
			closed:  normal,
			saw: interopSaw{
				interopOutcome: left,
				Received:       []interopMessage{{"text", "fragments 😀"}, {"binary", "\x00\xff\x80"}},
				Pongs:          []interopBytes{"between text", "between text", "between bytes"},
			},
		},
		{
			name:    "a rune cut in fragments",
			clients: []string{interopNode}, // Python's fragments are whole strings
			steps: []interopStep{
				{Do: "fragments", Op: "text", Parts: []interopBytes{"\xf0", "\x9f\x98", "\x80"}, Ping: "cut"},
				{Do: "receive", Count: 1},
				leave,
			},
			message: interopEcho,
			given:   []interopMessage{{"text", "😀"}},
			closed:  normal,
			saw: interopSaw{
				interopOutcome: left,
				Received:       []interopMessage{{"text", "😀"}},
				Pongs:          []interopBytes{"cut", "cut"},
			},
		},
		{
			name:    "text that is not UTF-8",
			clients: []string{interopNode}, // the others' strings cannot be that
			steps:   []interopStep{{Do: "fragments", Op: "text", Parts: []interopBytes{"\xff"}}},
			closed:  interopClosed{frame.InvalidPayload, frame.ErrUTF8},
			saw: interopSaw{interopOutcome: interopOutcome{
				Opened: true, Code: frame.InvalidPayload, Reason: frame.ErrUTF8.Error(), Clean: true,
			}},
		},
		{
			name:    "the client pings",
			clients: []string{interopNode, interopPython}, // a page cannot
			steps: []interopStep{
				{Do: "ping"}, {Do: "ping", Ping: "ping"}, {Do: "ping", Ping: interopFill("\x00\xff", 125)}, leave,
			},
			closed: normal,
			saw: interopSaw{
				interopOutcome: left,
				Pongs:          []interopBytes{"", "ping", interopFill("\x00\xff", 125)},
			},
		},
		{
			// A peer that answers no ping is closed well before the message.
			name:    "the server pings",
			options: server.Options{IdleTimeout: interopIdle},
			open: func(_ *interopServer, c server.Conn) {
				time.AfterFunc(2*interopIdle, func() { _ = c.Send(frame.Text, []byte("still there")) })
			},
			steps:  []interopStep{{Do: "receive", Count: 1}, leave},
			closed: normal,
			saw:    interopSaw{interopOutcome: left, Received: []interopMessage{{"text", "still there"}}},
		},
		{
			// The second ping is sent only after the first was answered.
			name:    "the client sees pings",
			clients: []string{interopNode},
			options: server.Options{IdleTimeout: interopIdle},
			steps:   []interopStep{{Do: "pinged", Count: 2}, leave},
			closed:  normal,
			saw:     interopSaw{interopOutcome: left},
		},
		{
			// It may leave in one packet with the handshake's response.
			name:   "a greeting",
			secure: true,
			open: func(_ *interopServer, c server.Conn) {
				_ = c.Send(frame.Text, []byte("hello"))
				_ = c.Close(frame.NormalClosure, "and good-bye")
			},
			closed: normal,
			saw: interopSaw{
				interopOutcome: interopOutcome{Opened: true, Code: frame.NormalClosure, Reason: "and good-bye", Clean: true},
				Received:       []interopMessage{{"text", "hello"}},
			},
		},
		{
			name:    "broadcast",
			options: server.Options{MaxOutbox: 1 << 20},
			listen:  []interopStep{{Do: "receive", Count: len(crowd)}, leave},
			steps:   slices.Concat(interopSend(crowd...), []interopStep{{Do: "receive", Count: len(crowd)}, leave}),
			message: broadcast,
			given:   crowd,
			closed:  normal,
			saw:     interopSaw{interopOutcome: left, Received: crowd},
		},
		{
			name:    "a compressed echo",
			options: server.Options{Compress: true, MaxMessage: 65536, MaxOutbox: 1 << 20},
			steps:   slices.Concat(interopSend(payloads...), []interopStep{{Do: "receive", Count: len(payloads)}, leave}),
			message: interopEcho,
			given:   payloads,
			closed:  normal,
			saw:     interopSaw{interopOutcome: compressed, Received: payloads},
		},
		{
			name:    "a compressed broadcast",
			secure:  true,
			options: server.Options{Compress: true, MaxOutbox: 1 << 20},
			listen:  []interopStep{{Do: "receive", Count: len(crowd)}, leave},
			steps:   slices.Concat(interopSend(crowd...), []interopStep{{Do: "receive", Count: len(crowd)}, leave}),
			message: broadcast,
			given:   crowd,
			closed:  normal,
			saw:     interopSaw{interopOutcome: compressed, Received: crowd},
		},
		{
			// Their zlib fails for a reference behind the window's beginning.
			name:    "an echo compressed with a small window",
			clients: []string{interopNode, interopPython}, // pages cannot choose it
			window:  9,
			options: server.Options{Compress: true, CompressFrom: 1},
			steps:   slices.Concat(interopSend(far...), []interopStep{{Do: "receive", Count: len(far)}, leave}),
			message: interopEcho,
			given:   far,
			closed:  normal,
			saw:     interopSaw{interopOutcome: compressed, Received: far},
		},
		{
			name:    "a broadcast compressed for a small window",
			clients: []string{interopNode, interopPython},
			window:  9,
			options: server.Options{Compress: true, CompressFrom: 1},
			steps:   slices.Concat(interopSend(far...), []interopStep{{Do: "receive", Count: len(far)}, leave}),
			message: broadcast,
			given:   far,
			closed:  normal,
			saw:     interopSaw{interopOutcome: compressed, Received: far},
		},
		{
			name:   "the client closes",
			secure: true,
			steps:  []interopStep{{Do: "close", Code: 3001, Reason: "enough, " + longReason[len("enough, "):]}},
			closed: interopClosed{3001, nil},
			saw:    interopSaw{interopOutcome: interopOutcome{Opened: true, Code: 3001, Clean: true}},
		},
		{
			name:    "the client closes without a code",
			clients: []string{interopNode, interopBrowser}, // Python's always sends one
			steps:   []interopStep{{Do: "close"}},
			closed:  interopClosed{frame.NoStatus, nil},
			saw:     interopSaw{interopOutcome: interopOutcome{Opened: true, Code: frame.NoStatus, Clean: true}},
		},
		{
			name:    "the server closes",
			steps:   interopSend(interopMessage{"text", "good-bye?"}),
			message: func(c server.Conn, _ frame.Op, _ []byte) error { return c.Close(4001, longReason) },
			given:   []interopMessage{{"text", "good-bye?"}},
			closed:  interopClosed{4001, nil},
			saw:     interopSaw{interopOutcome: interopOutcome{Opened: true, Code: 4001, Reason: longReason, Clean: true}},
		},
		{
			name:      "a subprotocol",
			protocols: []string{"lull.v1", "lull.v2", "lull.v3"},
			upgrade: func(r *server.Request) error {
				if offered := r.Protocols(); !slices.Equal(offered, []string{"lull.v1", "lull.v2", "lull.v3"}) {
					return fmt.Errorf("offered were %q", offered)
				}
				r.Protocol = "lull.v2"
				return nil
			},
			steps:  []interopStep{leave},
			closed: normal,
			saw: interopSaw{interopOutcome: interopOutcome{
				Opened: true, Protocol: "lull.v2", Code: frame.NormalClosure, Clean: true,
			}},
		},
		{
			name:    "refused",
			clients: []string{interopNode, interopPython},
			upgrade: interopRefuse,
			saw:     interopSaw{interopOutcome: interopOutcome{Status: http.StatusForbidden}},
		},
		{
			name:    "refused without a status", // which pages are not told
			clients: []string{interopBrowser},
			upgrade: interopRefuse,
		},
		{
			name:    "one byte too much",
			secure:  true,
			options: server.Options{MaxMessage: 1000},
			steps:   interopSend(interopMessage{"text", interopFill("x", 1001)}),
			closed:  interopClosed{frame.MessageTooBig, frame.ErrTooBig},
			saw: interopSaw{interopOutcome: interopOutcome{
				Opened: true, Code: frame.MessageTooBig, Reason: frame.ErrTooBig.Error(), Clean: true,
			}},
		},
		{
			// The client still writes when it is told. Browsers call an end
			// unclean if they have not sent everything by then.
			name:     "far too much",
			steps:    interopSend(interopMessage{"binary", interopFill("x", 4<<20)}),
			closed:   interopClosed{frame.MessageTooBig, frame.ErrTooBig},
			anyClean: true,
			saw: interopSaw{interopOutcome: interopOutcome{
				Opened: true, Code: frame.MessageTooBig, Reason: frame.ErrTooBig.Error(), Clean: true,
			}},
		},
		{
			name:   "the server ends",
			secure: true,
			open:   func(s *interopServer, _ server.Conn) { s.stop() },
			closed: interopClosed{frame.GoingAway, nil},
			saw: interopSaw{interopOutcome: interopOutcome{
				Opened: true, Code: frame.GoingAway, Reason: "the server is shutting down", Clean: true,
			}},
		},
	}
}

// interopPayloads are messages with lengths on both sides of where the header
// changes (RFC 6455 section 5.2), and runes of all lengths, which the largest
// messages have across the ends of reads.
func interopPayloads() (messages []interopMessage) {
	for _, size := range []int{0, 125, 126, 65535, 65536} {
		messages = append(messages,
			interopMessage{"text", interopFill("text", size)},
			interopMessage{"binary", interopFill("\x00\xff\x80binary", size)})
	}
	return append(messages,
		interopMessage{"text", "\x00 é € 😀 \U0010ffff \ufeff"},
		interopMessage{"text", interopFill("😀", 65536)},
		interopMessage{"text", "a" + interopFill("😀", 65532)})
}

// interopCrowd is many messages, small and large, that tell their order.
func interopCrowd() (messages []interopMessage) {
	for i := range 100 {
		messages = append(messages, interopMessage{"text", interopFill(fmt.Sprintf("message %d, ", i), 1+i*i/2)})
	}
	return messages
}

// interopFar are messages that repeat themselves further back than a small window
// reaches, and shorter ones.
func interopFar() (messages []interopMessage) {
	var hex strings.Builder
	for i := range 400 {
		fmt.Fprintf(&hex, "%x,", i*i*i)
	}
	for _, size := range []int{1, 400, 511, 512, 513, 3000, 20_000} {
		messages = append(messages, interopMessage{"text", interopFill(hex.String(), size)})
	}
	return messages
}

// interopFill repeats a pattern up to a size.
func interopFill(pattern string, size int) interopBytes {
	return interopBytes(strings.Repeat(pattern, size/len(pattern)+1)[:size])
}

func interopSend(messages ...interopMessage) (steps []interopStep) {
	for _, m := range messages {
		steps = append(steps, interopStep{Do: "send", Op: m.Op, Data: m.Data})
	}
	return steps
}

func interopEcho(c server.Conn, op frame.Op, data []byte) error { return c.Send(op, data) }

func interopRefuse(*server.Request) error {
	return &server.Reject{Status: http.StatusForbidden, Reason: "not you"}
}

// interopRun is a talk that has begun.
type interopRun struct {
	talk   interopTalk
	way    interopWay
	client *interopClient
	server *interopServer
	saws   []<-chan interopSaw // one for each connection
}

func interopBegin(t *testing.T, client *interopClient, way interopWay, talk interopTalk) *interopRun {
	t.Helper()
	run := &interopRun{talk: talk, way: way, client: client, server: interopListen(t, client, way, talk)}
	if talk.listen != nil {
		const listeners = 2
		for range listeners {
			run.ask(talk.listen)
		}
		for range listeners {
			select {
			case <-run.server.opened:
			case <-client.ctx.Done():
				t.Fatalf("%s: %s did not connect: %v", talk.name, client.name, context.Cause(client.ctx))
			}
		}
	}
	run.ask(talk.steps)
	return run
}

func (run *interopRun) ask(steps []interopStep) {
	url := fmt.Sprintf("%s://%s/interop", run.way.scheme, run.server.Addrs()[0])
	run.saws = append(run.saws, run.client.ask(interopAsk{URL: url, Protocols: run.talk.protocols, Window: run.talk.window, Steps: steps}))
}

// check waits for the talk's end and compares what both sides saw with the talk.
func (run *interopRun) check(t *testing.T) {
	want := &run.talk.saw
	for _, saw := range run.saws {
		got, err := run.client.answer(saw)
		if err != nil {
			t.Fatalf("no report: %v\nthe server %s", err, run.server.sofar())
		}
		if run.talk.anyClean {
			got.Clean = want.Clean
		}
		got.Extensions, _, _ = strings.Cut(got.Extensions, ";") // pages see the parameters too
		if got.interopOutcome != want.interopOutcome {
			t.Errorf("the client saw %+v, not %+v", got.interopOutcome, want.interopOutcome)
		}
		interopCompare(t, "the client received", got.Received, want.Received)
		interopCompare(t, "the client saw pongs", got.Pongs, want.Pongs)
	}

	s := run.server
	s.stop()
	if err := <-s.ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	var closed []interopClosed
	if run.talk.closed != (interopClosed{}) {
		closed = slices.Repeat([]interopClosed{run.talk.closed}, len(run.saws))
	}
	interopCompare(t, "Close was told", s.closed, closed)
	interopCompare(t, "Message was given", s.given, run.talk.given)
	interopCompare(t, "faults:", s.faults, nil)
	stats := s.Stats()
	if got, want := count(stats, "messages_out"), uint64(len(run.saws)*len(want.Received)); got != want {
		t.Errorf("the server sent %d messages, not %d", got, want)
	}
	if n := count(stats, "undelivered") + count(stats, "bytes_undelivered"); n != 0 {
		t.Errorf("%d messages and bytes were not delivered", n)
	}
}

func interopCompare[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s %d: %v, not %d: %v", what, len(got), got, len(want), want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s, number %d: %v, not %v", what, i, got[i], want[i])
		}
	}
}

// interopServer is a server that records the calls of its handler.
type interopServer struct {
	*server.Server
	stop   context.CancelFunc
	opened chan struct{}
	ended  chan error

	// guarded by mu until Run has ended
	mu     sync.Mutex
	faults []string // what else went wrong, such as a request without Origin
	given  []interopMessage
	closed []interopClosed
}

// sofar tells what the server has seen and counted.
func (s *interopServer) sofar() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var counted []string
	for name, n := range s.Stats().All() {
		if n != 0 {
			counted = append(counted, fmt.Sprintf("%s %d", name, n))
		}
	}
	return fmt.Sprintf("was given %d messages, ended %v, faults %v, counted %s",
		len(s.given), s.closed, s.faults, strings.Join(counted, ", "))
}

type interopClosed struct {
	code  frame.Code
	cause error
}

func interopListen(t *testing.T, client *interopClient, way interopWay, talk interopTalk) *interopServer {
	t.Helper()
	s := &interopServer{opened: make(chan struct{}, 3), ended: make(chan error, 1)}
	handler := server.Handler{
		Upgrade: func(r *server.Request) error {
			s.inspect(r, client.origin)
			if talk.upgrade != nil {
				return talk.upgrade(r)
			}
			return nil
		},
		Open: func(c server.Conn) {
			s.opened <- struct{}{}
			if talk.open != nil {
				talk.open(s, c)
			}
		},
		Message: func(c server.Conn, op frame.Op, data []byte) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.given = append(s.given, interopMessage{op.String(), interopBytes(data)})
			if err := talk.message(c, op, data); err != nil {
				s.faults = append(s.faults, fmt.Sprintf("no answer to a message: %v", err))
			}
		},
		Close: func(_ server.Conn, code frame.Code, cause error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.closed = append(s.closed, interopClosed{code, cause})
		},
	}
	options := talk.options
	options.Tables, options.TLS = way.tables, way.tls
	options.Reactors = 2 // broadcasts pass from one to the other
	options.MaxConns = 16
	options.CloseTimeout = interopDeadline // a client on a busy machine is late with its Close frame
	if client.origin != "" {
		options.Origins = []string{client.origin}
	}
	options.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	var err error
	if s.Server, err = server.Listen([]string{"127.0.0.1:0"}, handler, options); err != nil {
		t.Fatal(err)
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.ended <- s.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-finished
	})
	return s
}

// inspect checks what all requests of a client have in common. All clients
// offer to compress messages.
func (s *interopServer) inspect(r *server.Request, origin string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := r.Header("Origin"); got != origin {
		s.faults = append(s.faults, fmt.Sprintf("Origin %q, not %q", got, origin))
	}
	if got := r.Header("Sec-WebSocket-Extensions"); !strings.Contains(got, "permessage-deflate") {
		s.faults = append(s.faults, fmt.Sprintf("extensions %q without permessage-deflate", got))
	}
	if r.Target() != "/interop" {
		s.faults = append(s.faults, fmt.Sprintf("target %q", r.Target()))
	}
}

// interopAsk is what a client is asked to do on one connection.
type interopAsk struct {
	ID        int           `json:"id"`
	URL       string        `json:"url"`
	Protocols []string      `json:"protocols,omitempty"`
	Window    int           `json:"window,omitempty"`
	Steps     []interopStep `json:"steps,omitempty"`
}

// interopStep is one thing that a client does; the next step waits until it is
// done. After the last, the client waits for the connection's end.
//
//	send       Op, Data         a message
//	fragments  Op, Parts, Ping  a message in parts, with a ping and its pong between them
//	receive    Count            wait until there are as many messages in all
//	ping       Ping             and wait for the pong
//	pinged     Count            wait until there are as many pings in all
//	close      Code, Reason     without either if they are zero
type interopStep struct {
	Do     string         `json:"do"`
	Op     string         `json:"op,omitempty"`
	Data   interopBytes   `json:"data,omitempty"`
	Parts  []interopBytes `json:"parts,omitempty"`
	Ping   interopBytes   `json:"ping,omitempty"`
	Count  int            `json:"count,omitempty"`
	Code   frame.Code     `json:"code,omitempty"`
	Reason string         `json:"reason,omitempty"`
}

// interopSaw is what a client saw on one connection.
type interopSaw struct {
	ID int `json:"id"`
	interopOutcome
	Received []interopMessage `json:"received"`
	Pongs    []interopBytes   `json:"pongs"`
}

type interopOutcome struct {
	Status     int        `json:"status"` // of a refusal
	Opened     bool       `json:"opened"`
	Protocol   string     `json:"protocol"`
	Extensions string     `json:"extensions"`
	Code       frame.Code `json:"code"` // of the close event, with the next two
	Reason     string     `json:"reason"`
	Clean      bool       `json:"clean"`
	Error      string     `json:"error"` // what went wrong in the client's program
}

type interopMessage struct {
	Op   string       `json:"op"`
	Data interopBytes `json:"data"`
}

// interopBytes are base64 in JSON, and cut short where they are printed.
type interopBytes string

func (b interopBytes) MarshalText() ([]byte, error) {
	return []byte(base64.StdEncoding.EncodeToString([]byte(b))), nil
}

func (b *interopBytes) UnmarshalText(text []byte) error {
	data, err := base64.StdEncoding.DecodeString(string(text))
	*b = interopBytes(data)
	return err
}

func (b interopBytes) String() string { return fmt.Sprintf("%d bytes %.40q", len(b), string(b)) }

// interopClient is a program that is asked for talks.
type interopClient struct {
	name   string
	origin string          // the Origin header that it sends
	ctx    context.Context // ends with the program, which may take only so long
	cancel context.CancelCauseFunc
	asks   chan interopAsk // taken by the program

	mu   sync.Mutex
	saws []chan interopSaw // by ID
}

// interopDeadline is much longer than all talks take.
const interopDeadline = 3 * time.Minute

func interopNewClient(t *testing.T, name string) *interopClient {
	late := fmt.Errorf("%s took longer than %v", name, interopDeadline)
	ctx, stop := context.WithTimeoutCause(t.Context(), interopDeadline, late)
	t.Cleanup(stop)
	ctx, cancel := context.WithCancelCause(ctx)
	return &interopClient{name: name, ctx: ctx, cancel: cancel, asks: make(chan interopAsk, 256)}
}

// ask asks for a talk. What the client saw comes through the channel.
func (c *interopClient) ask(a interopAsk) <-chan interopSaw {
	saw := make(chan interopSaw, 1)
	c.mu.Lock()
	a.ID = len(c.saws)
	c.saws = append(c.saws, saw)
	c.mu.Unlock()
	c.asks <- a
	return saw
}

// answer waits for a report.
func (c *interopClient) answer(saw <-chan interopSaw) (interopSaw, error) {
	select {
	case got := <-saw:
		return got, nil
	case <-c.ctx.Done():
	}
	select {
	case got := <-saw: // it came before the program ended
		return got, nil
	default:
		return interopSaw{}, context.Cause(c.ctx)
	}
}

// read takes in what the program reports.
func (c *interopClient) read(r io.Reader) error {
	for decoder := json.NewDecoder(r); ; {
		var saw interopSaw
		if err := decoder.Decode(&saw); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		c.mu.Lock()
		c.saws[saw.ID] <- saw
		c.mu.Unlock()
	}
}

// command prepares the program, which leads a process group so that it can be
// killed with its children. Those that have left the group, as a browser's
// crash handlers do, end by themselves when the program has.
func (c *interopClient) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// start starts the program. It ends with the test.
func (c *interopClient) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	// Wait returns when no process has the other end of this pipe any more, so also no
	// child of the program, in whatever process group.
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = interopDeadline
	if err := cmd.Start(); err != nil {
		interopMissing(t, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.cancel(fmt.Errorf("%s ended: %v", c.name, cmd.Wait()))
	}()
	t.Cleanup(func() {
		c.cancel(errors.New("the test has ended"))
		<-ended
		if t.Failed() {
			t.Logf("%s printed:\n%s", c.name, stderr.String())
		}
	})
}

func interopMissing(t *testing.T, err error) {
	t.Helper()
	t.Fatalf("a client is missing: %v; server/testdata/interop/install, run as root, installs it", err)
}

// interopFile is the path of a client's file.
func interopFile(name string) string { return filepath.Join("testdata", "interop", name) }

// interopStartNode starts Node with ws, which install has put into a folder.
func interopStartNode(t *testing.T) *interopClient {
	dir := os.Getenv("LULL_INTEROP_DIR")
	if dir == "" {
		dir = "/var/cache/lull-interop"
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "ws")); err != nil {
		interopMissing(t, err)
	}
	c := interopNewClient(t, interopNode)
	cmd := c.command("node", interopFile("client.mjs"))
	cmd.Env = append(os.Environ(), "LULL_INTEROP_DIR="+dir, "NODE_EXTRA_CA_CERTS="+interopAuthority(t))
	c.startOnPipes(t, cmd)
	return c
}

// interopStartPython starts Debian's Python, which has Debian's websockets.
func interopStartPython(t *testing.T) *interopClient {
	const python = "/usr/bin/python3"
	if output, err := exec.Command(python, "-c", "import websockets").CombinedOutput(); err != nil {
		interopMissing(t, fmt.Errorf("%w: %s", err, output))
	}
	c := interopNewClient(t, interopPython)
	cmd := c.command(python, interopFile("client.py"))
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+interopAuthority(t))
	c.startOnPipes(t, cmd)
	return c
}

// interopAuthority is a file with the certificate of the servers that speak TLS.
func interopAuthority(t *testing.T) string {
	t.Helper()
	certificate, _ := testkit.Certificate()
	path, _, err := selfsigned.Write(t.TempDir(), certificate)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// startOnPipes starts a program that is asked on its standard input and
// reports on its standard output.
func (c *interopClient) startOnPipes(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	reports, stdout := io.Pipe()
	cmd.Stdout = stdout
	context.AfterFunc(c.ctx, func() { _ = reports.Close() })
	c.start(t, cmd)
	go func() {
		for encoder := json.NewEncoder(stdin); ; {
			select {
			case a := <-c.asks:
				_ = encoder.Encode(a) // an error means that the program has ended
			case <-c.ctx.Done():
				return
			}
		}
	}()
	go func() {
		if err := c.read(reports); err != nil {
			c.cancel(fmt.Errorf("%s's report: %w", c.name, err))
		}
	}()
}

// interopStartBrowser starts a browser with a page that is asked, and reports,
// over HTTP.
func interopStartBrowser(t *testing.T) *interopClient {
	c := interopNewClient(t, interopBrowser)
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServer(http.Dir(interopFile(""))))
	mux.HandleFunc("GET /ask", func(w http.ResponseWriter, r *http.Request) {
		select {
		case a := <-c.asks:
			_ = json.NewEncoder(w).Encode(a) // an error means that the browser has ended
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /saw", func(_ http.ResponseWriter, r *http.Request) {
		if err := c.read(r.Body); err != nil {
			c.cancel(fmt.Errorf("%s's report: %w", c.name, err))
		}
	})
	site := httptest.NewServer(mux)
	profile := t.TempDir()
	t.Cleanup(site.Close)
	c.origin = site.URL
	cmd := c.command("chromium",
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--ignore-certificate-errors", // it takes authorities from a database of its own alone
		"--enable-logging=stderr", "--remote-debugging-pipe",
		"--user-data-dir="+profile, site.URL+"/page.html")
	cmd.Env = append(os.Environ(), "HOME="+profile)
	cmd.ExtraFiles = interopLifeline(t)
	c.start(t, cmd)
	return c
}

// interopLifeline returns the browser's ends of the two pipes for its debugger.
// No debugger uses them. But the browser ends when the pipes are closed, so at the latest
// with this process, even if that is killed.
func interopLifeline(t *testing.T) []*os.File {
	commands, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range []*os.File{commands, ours, answers, theirs} {
			f.Close()
		}
	})
	return []*os.File{commands, theirs}
}
