package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// These tests are about clients that attack the server, and about what other
// clients notice of it.

// inModes runs a test with handlers on the reactor, on workers and on a single
// goroutine.
func inModes(t *testing.T, test func(*testing.T, server.Options)) {
	t.Helper()
	for _, mode := range []server.Mode{server.Inline, server.Workers, server.Serial} {
		t.Run(mode.String(), func(t *testing.T) { test(t, server.Options{Mode: mode, Tables: netpoll.Shared}) })
	}
}

// gated makes handlers wait until it is opened, and then never again.
type gated struct {
	door chan struct{}
	open func()
}

func newGated(t *testing.T) *gated {
	g := &gated{door: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.door) })
	t.Cleanup(g.open) // otherwise a failing test would hang
	return g
}

func (g *gated) wait() { <-g.door }

// served reports whether a request is answered with 101, rather than 503.
func (c *client) served() bool {
	c.t.Helper()
	c.write(request)
	head := c.head()
	if strings.HasPrefix(head, "HTTP/1.1 503 ") {
		return false
	}
	if err := frame.CheckResponse([]byte(head), frame.SampleKey); err != nil {
		c.t.Fatalf("%v: %q", err, head)
	}
	return true
}

// delivered waits until the server's socket has received everything that c has
// written.
func (c *client) delivered() {
	c.t.Helper()
	raw, err := c.SyscallConn()
	must(err)
	eventually(c.t, "all is delivered", func() (all bool) {
		must(raw.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
			all = n == 0 && err == nil
		}))
		return all
	})
}

// A connection that was reset keeps its slot while a message of it waits for the
// handler. So no more connections leave messages than may be open.
func TestMessagesOfEndedConnectionsAreBounded(t *testing.T) {
	const conns, total, size = 8, 256 << 10, 4000
	offReactors(t, func(t *testing.T, o server.Options) {
		busy := newGated(t)
		var begun, closes atomic.Int64
		o.MaxConns, o.MaxInboxTotal, o.Workers = conns, total, 1
		s := start(t, server.Handler{
			Message: func(c server.Conn, op frame.Op, data []byte) {
				begun.Add(1)
				busy.wait()
				_ = c.Send(op, data)
			},
			Close: func(server.Conn, frame.Code, error) { closes.Add(1) },
		}, o)
		opened := 0
		for range 5 * conns {
			c := s.dial()
			if !c.served() {
				continue
			}
			opened++
			c.send(frame.Binary, xs(size))
			s.counted("messages_in", opened)
			eventually(t, "the only worker is busy", func() bool { return begun.Load() > 0 }) // who goes before that is soon forgotten
			c.reset()
			s.counted("closed_gone", opened)
			if n := s.Stats().Inbox; n > total {
				t.Errorf("%d bytes wait", n)
			}
		}
		if opened != conns {
			t.Errorf("%d connections were opened, at most %d are allowed", opened, conns)
		}
		busy.open()
		eventually(t, "nothing is left", func() bool {
			now := s.Stats()
			return now.Open == 0 && now.Inbox == 0 && now.Calls == 0 && closes.Load() == int64(opened)
		})
		s.open().echoed("hello")
	})
}

// Requests that wait for a busy handler have a budget of their own, even if their
// peers have left. Requests beyond it are answered with 503 at once.
func TestRequestsOfEndedConnectionsAreBounded(t *testing.T) {
	const total, cookie, peers = 64 << 10, 1000, 60
	offReactors(t, func(t *testing.T, o server.Options) {
		busy := newGated(t)
		var accepted, closes atomic.Int64
		o.MaxInboxTotal, o.Workers = total, 1
		s := start(t, server.Handler{
			Upgrade: func(*server.Request) error { busy.wait(); accepted.Add(1); return nil },
			Close:   func(server.Conn, frame.Code, error) { closes.Add(1) },
		}, o)
		waiting := 0
		for i := range peers {
			c := s.dial()
			c.write(with("Cookie: " + xs(cookie)))
			eventually(t, "the request has waited or was refused", func() bool {
				now := s.Stats()
				return int(now.Accepted) == i+1 && int(now.Rejected)+int(now.Calls) == i+1
			})
			if n := int(s.Stats().Calls); n > waiting {
				waiting = n
				c.reset()
				s.counted("aborted", waiting)
			} else if c.head(); s.Stats().RejectedBy[http.StatusServiceUnavailable] == 0 {
				t.Fatal("refused, but not with 503")
			}
		}
		if most := total / 4 / cookie; waiting == 0 || waiting > most {
			t.Errorf("%d requests wait, of at most %d", waiting, most)
		}
		busy.open()
		eventually(t, "all were decided about, and those that were accepted have heard their end", func() bool {
			return accepted.Load() == int64(waiting) && closes.Load() == int64(waiting) && s.Stats().Open == 0
		})
		s.open().leave()
	})
}

// If incomplete messages take too much memory, the connections that hold most are
// closed, not newcomers.
func TestNewcomersDoNotPayForIncompleteMessages(t *testing.T) {
	const most, hostile, whole = 1 << 20, 40, 65_536
	inModes(t, func(t *testing.T, o server.Options) {
		o.MaxPartial = most
		s := start(t, echo, o)
		begun := message(frame.Binary, xs(whole))
		for _, held := range []int{len(begun) - 1, 9000, 1000, 100} { // the small ones fill what the large ones leave
			clients := s.openMany(hostile)
			for _, c := range clients {
				c.write(begun[:held])
			}
			for _, c := range clients {
				c.delivered()
			}
		}
		for i := range 20 {
			c := s.open()
			wire := message(frame.Text, numbered(i, 1000))
			c.write(wire[:500])
			c.delivered()
			c.write(wire[500:])
			c.expect(frame.Text, numbered(i, 1000))
		}
		eventually(t, "connections with incomplete messages were closed", func() bool {
			return count(s.Stats(), "closed_partial") >= hostile-most/whole
		})
	})
}

// Incomplete requests do not use up the memory of incomplete messages.
func TestHandshakesHaveABudgetOfTheirOwn(t *testing.T) {
	const most, requests = 256 << 10, 74
	s := start(t, echo, server.Options{MaxPartial: most})
	rejected := func(n int) func() bool {
		return func() bool { return int(s.Stats().RejectedBy[http.StatusServiceUnavailable]) >= n }
	}
	c := s.open()
	c.write(piece(binary, xs(20_000)))
	for range requests {
		s.dial().write("GET / HTTP/1.1\r\nCookie: " + xs(7000))
	}
	eventually(t, "every reactor has too many", rejected(requests/2))
	c.write(piece(0, xs(30_000)))
	for range 2 { // the first Pong may leave before the piece is kept
		c.send(frame.Ping, "still there")
		c.expect(frame.Pong, "still there")
	}
	eventually(t, "no more wait than may", rejected(requests-most/8/7000-1))
	s.open().echoed("hello")
	c.write(piece(fin, xs(10_000)))
	c.expect(frame.Binary, xs(60_000))
	s.counted("closed_partial", 0)
}

// A message has to be complete in time, even if bytes or empty fragments of it arrive
// all the time.
func TestAMessageThatTricklesIsClosed(t *testing.T) {
	t.Parallel()
	for name, trickle := range map[string][2]string{
		"bytes":           {message(frame.Binary, xs(60_000))[:8], "x"},
		"empty fragments": {piece(binary, ""), piece(0, "")},
	} {
		t.Run(name, func(t *testing.T) {
			inModes(t, func(t *testing.T, o server.Options) {
				t.Parallel()
				o.MessageTimeout = time.Second
				h := server.Handler{}
				var told <-chan ending
				h.Close, told = endings()
				s := start(t, h, o)
				c := s.open()
				ended := make(chan struct{})
				c.write(trickle[0])
				go func() {
					defer close(ended)
					for {
						if _, err := io.WriteString(c.TCPConn, trickle[1]); err != nil {
							return
						}
						time.Sleep(5 * time.Millisecond) // the client trickles: that is the attack
					}
				}()
				c.expectClose(frame.PolicyViolation)
				expectEnding(t, told, frame.PolicyViolation, server.ErrMessageTimeout)
				c.Close()
				<-ended
			})
		})
	}
}

// Of Pings that were read together only the last one is answered in a turn.
func TestAFloodOfPingsIsAnsweredByFewPongs(t *testing.T) {
	const pings, inATurn = 2000, 256
	h := newObliging()
	s := start(t, server.Handler{Message: h.message}, server.Options{})
	bystander, c := s.open(), s.open()
	release := h.hold(bystander)
	var wire strings.Builder
	for i := range pings {
		wire.WriteString(message(frame.Ping, fmt.Sprint(i)))
	}
	c.write(wire.String())
	c.delivered()
	release()
	last, pongs := -1, 0
	for last < pings-1 {
		op, payload, err := c.next()
		i := number(payload + " ")
		if op != frame.Pong || err != nil || i <= last {
			t.Fatalf("got %v %q after Pong %d, %v", op, payload, last, err)
		}
		last = i
		pongs++
	}
	if pongs > pings/inATurn+2 {
		t.Errorf("%d Pings were answered by %d Pongs", pings, pongs)
	}
	bystander.echoed("hello")
}

// A publisher that sends as fast as it can has to wait for receivers with small
// buffers. They read all the time, so they are not closed.
func TestAFastPublisherClosesNoReceiver(t *testing.T) {
	const receivers, messages, size, outbox = 30, 1500, 1000, 16 << 10
	inModes(t, func(t *testing.T, o server.Options) {
		o.MaxOutbox = outbox
		s := start(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) { must(c.Broadcast(op, data)) }}, o)
		var reading sync.WaitGroup
		for range receivers {
			c := s.dialDeaf().handshake()
			reading.Go(func() {
				for i := range messages {
					if op, payload, err := c.next(); err != nil || op != frame.Binary || number(payload) != i {
						t.Errorf("got %v %.20q, %v, want message %d", op, payload, err, i)
						return
					}
				}
			})
		}
		sender := s.open()
		var wire strings.Builder
		for i := range messages {
			wire.WriteString(message(frame.Binary, numbered(i, size)))
		}
		sender.writing(wire.String())
		for i := range messages {
			sender.expect(frame.Binary, numbered(i, size))
		}
		reading.Wait()
		s.counted("closed_outbox", 0)
	})
}

// Broadcasts on their way take no more memory than MaxBroadcast, whatever their size.
func TestBroadcastsOnTheirWayAreBounded(t *testing.T) {
	const bound, each = 1 << 20, 512
	for _, size := range []int{0, 1, 1000, 65_536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			h := newObliging()
			s := start(t, server.Handler{Message: h.message}, server.Options{MaxBroadcast: bound})
			c := s.open()
			release := h.hold(c)
			accepted := 0
			for s.Broadcast(frame.Binary, make([]byte, size)) == nil {
				accepted++
			}
			if most := bound/(each+size) + 1; accepted > most || accepted < most/2 {
				t.Errorf("%d broadcasts of %d bytes are on their way, at most %d should be", accepted, size, most)
			}
			release()
			for range accepted {
				c.expect(frame.Binary, string(make([]byte, size)))
			}
			eventually(t, "their room is given back", func() bool { return s.Stats().Broadcast == 0 })
		})
	}
}

// If all slots are taken, silent sockets are cut off to make room for others, even
// without a HandshakeTimeout.
func TestSilentSocketsMakeRoom(t *testing.T) {
	const silent = 300 // there are 256 slots besides MaxConns
	onBothTables(t, func(t *testing.T, o server.Options) {
		t.Parallel()
		o.MaxConns, o.HandshakeTimeout = 4, -1
		s := start(t, echo, o)
		for range silent {
			s.dial()
		}
		eventually(t, "every slot has been taken", func() bool { return int(s.Stats().Accepted) >= s.Stats().SocketsMax })
		for i := range 4 {
			s.open().echoed(fmt.Sprint(i))
		}
		eventually(t, "a socket was cut off, or this test shows nothing", func() bool { return count(s.Stats(), "evicted") > 0 })
	})
}

// Empty messages count too, with the size of their record.
func TestEmptyMessagesTakeRoom(t *testing.T) {
	const total, peers, messages = 32 << 10, 10, 20_000
	offReactors(t, func(t *testing.T, o server.Options) {
		busy := newGated(t)
		var handled atomic.Int64
		o.MaxInboxTotal, o.MaxInbox, o.MaxInboxMessages, o.Workers = total, 1<<20, 1<<20, 1
		s := start(t, server.Handler{Message: func(server.Conn, frame.Op, []byte) { busy.wait(); handled.Add(1) }}, o)
		wire := strings.Repeat(message(frame.Binary, ""), messages)
		for range peers {
			s.open().writing(wire)
		}
		eventually(t, "nothing is read any more", func() bool {
			now := s.Stats()
			return now.ReadPauses+now.Throttled >= peers
		})
		now := s.Stats()
		if now.Inbox == 0 || now.Inbox > total+total/2 || now.Calls > total {
			t.Errorf("%d messages wait, of %d bytes", now.Calls, now.Inbox)
		}
		busy.open()
		eventually(t, "all are handled", func() bool { return handled.Load() == peers*messages })
		eventually(t, "nothing is left", func() bool { return s.Stats().Inbox == 0 })
	})
}

// An empty message that waits costs little memory.
func TestEmptyMessagesCostLittleMemory(t *testing.T) {
	const messages, most = 50_000, 32
	offReactors(t, func(t *testing.T, o server.Options) {
		busy := newGated(t)
		o.MaxInbox, o.MaxInboxMessages = 16<<20, messages+1
		s := start(t, server.Handler{Message: func(server.Conn, frame.Op, []byte) { busy.wait() }}, o)
		c := s.open()
		wire := strings.Repeat(message(frame.Binary, ""), messages)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		c.write(wire)
		s.counted("messages_in", messages)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if cost := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / messages; cost > most {
			t.Errorf("an empty message that waits takes %d bytes", cost)
		}
		busy.open()
	})
}

// What was read from paused connections does not count as incomplete messages. So
// no paused connection is closed, even if together they hold much.
func TestPausedConnectionsAreNotCountedAsIncomplete(t *testing.T) {
	const peers, messages, size = 50, 100, 1000
	offReactors(t, func(t *testing.T, o server.Options) {
		busy := newGated(t)
		o.MaxPartial, o.MaxInboxMessages = 512<<10, 4
		s := start(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
			busy.wait()
			must(c.Send(op, data))
		}}, o)
		clients := s.openMany(peers)
		for _, c := range clients {
			var wire strings.Builder
			for i := range messages {
				wire.WriteString(message(frame.Binary, numbered(i, size)))
			}
			c.writing(wire.String())
		}
		eventually(t, "all are paused", func() bool { return count(s.Stats(), "read_pauses") >= peers })
		s.open().leave()
		busy.open()
		for _, c := range clients {
			for i := range messages {
				c.expect(frame.Binary, numbered(i, size))
			}
		}
		s.counted("closed_partial", 0)
	})
}

// A peer that reads nothing is cut off after WriteTimeout, although it sends Pings.
func TestPingsDoNotKeepAPeerThatReadsNothing(t *testing.T) {
	t.Parallel()
	inModes(t, func(t *testing.T, o server.Options) {
		t.Parallel()
		members := &crowd{}
		h := server.Handler{Open: members.open}
		var told <-chan ending
		h.Close, told = endings()
		o.WriteTimeout, o.OutboxPolicy = time.Second, server.OutboxDropNew
		s := start(t, h, o)
		c, conn := members.openDeaf(s)
		eventually(t, "its outbox is not empty", func() bool {
			_ = conn.Send(frame.Binary, make([]byte, 30_000))
			return s.Stats().Outbox > 0 || len(told) > 0
		})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				if _, err := io.WriteString(c.TCPConn, message(frame.Ping, "still there")); err != nil {
					return
				}
				time.Sleep(5 * time.Millisecond) // now and then, so that the socket does not fill up with Pings
			}
		}()
		expectEnding(t, told, frame.Abnormal, server.ErrWriteTimeout)
		<-ended
		s.counted("closed_write_timeout", 1)
	})
}

// When all outboxes together are full, the connection with the largest outbox is cut
// off.
func TestTheLargestOutboxIsCutOffFirst(t *testing.T) {
	const total, large, small, size = 400_000, 200_000, 20_000, 10_000
	onBothTables(t, func(t *testing.T, o server.Options) {
		members := &crowd{}
		o.MaxOutboxTotal, o.MaxOutbox, o.CloseTimeout = total, 2*large, time.Second
		ended := make(chan server.Conn, 100)
		s := start(t, server.Handler{
			Open:    members.open,
			Message: newObliging().message,
			Close:   func(c server.Conn, _ frame.Code, _ error) { ended <- c },
		}, o)
		bystander := s.open()
		eventually(t, "it is open", func() bool { return len(members.all()) == 1 })
		owe := func(conn server.Conn, much int) {
			for {
				if _, n := conn.Queued(); n >= much || len(ended) > 0 {
					return
				}
				must(conn.Send(frame.Binary, make([]byte, size)))
				bystander.echoed("sent") // its socket was offered it
			}
		}
		_, first := members.openDeaf(s)
		_, debtor := members.openDeaf(s)
		owe(debtor, large)
		for others := []server.Conn{first}; len(ended) == 0; {
			_, other := members.openDeaf(s)
			others = append(others, other)
			for _, c := range others { // sockets take more in the meantime
				owe(c, small)
			}
		}
		if c := <-ended; c != debtor {
			_, n := debtor.Queued()
			t.Errorf("another was cut, while one owes %d bytes", n)
		}
		if err := first.Send(frame.Binary, nil); err != nil {
			t.Errorf("one that owes little was cut too: %v", err)
		}
		bystander.echoed("hello")
		s.counted("closed_outbox", 1)
	})
}

// A call that does not return is logged with its function, and counted until it
// returns.
func TestStuckCallsAreNamed(t *testing.T) {
	t.Parallel()
	offReactors(t, func(t *testing.T, o server.Options) {
		t.Parallel()
		busy := newGated(t)
		o.Workers, o.StallAfter, o.CallTimeout = 3, 20*time.Millisecond, 100*time.Millisecond
		s := start(t, server.Handler{Message: func(server.Conn, frame.Op, []byte) { busy.wait() }}, o)
		workers := s.Options().Workers
		for range workers {
			s.open().send(frame.Text, "hello")
		}
		eventually(t, "all workers are stuck", func() bool { return s.Stats().Stuck == workers })
		eventually(t, "that is logged", func() bool {
			for _, line := range s.log.all() {
				if strings.Contains(line, "in=Handler.Message") && strings.Contains(line, "TestStuckCallsAreNamed") && strings.Contains(line, "workers_stuck=") {
					return count(s.Stats(), "calls_stuck") == 1
				}
			}
			return false
		})
		busy.open()
		eventually(t, "none is stuck", func() bool { return s.Stats().Stuck == 0 })
	})
}

// blockedLog is a slog.Handler whose writer takes nothing, like a full pipe.
type blockedLog struct {
	logbook
	*gated
	begun atomic.Bool
}

func (l *blockedLog) Handle(context.Context, slog.Record) error {
	l.begun.Store(true)
	l.wait()
	return nil
}

func (l *blockedLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *blockedLog) WithGroup(string) slog.Handler      { return l }

// A log that cannot be written delays neither connections nor the server's end.
func TestALogThatBlocksHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	inModes(t, func(t *testing.T, o server.Options) {
		t.Parallel()
		log := &blockedLog{gated: newGated(t)}
		o.Log, o.Reactors = slog.New(log), 1
		s, err := server.Listen([]string{"127.0.0.1:0"}, echo, o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		r := &running{Server: s, t: t}
		for range 500 { // more than the log has room for
			c := r.dial()
			c.write("GET / HTTP/0.9\r\n\r\n")
			c.head()
			c.Close()
		}
		if !log.begun.Load() {
			t.Error("nothing was logged")
		}
		c := r.open()
		c.echoed("hello")
		c.leave()
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("Run does not return")
		}
	})
}

// Log lines about a bad client say where it is.
func TestLogLinesNameTheirClient(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]struct{ opening, wire string }{
		"a bad request":        {"", "nonsense\r\n\r\n"},
		"a request too late":   {"", "GET"},
		"a breach":             {request, piece(fin|3, "")},
		"a message too large":  {request, message(frame.Binary, xs(2000))},
		"a message too late":   {request, piece(binary, "")},
		"a refused request":    {"", swap("GET /", "GET /refused")},
		"text that is no text": {request, message(frame.Text, "\xff")},
	} {
		t.Run(name, func(t *testing.T) {
			inModes(t, func(t *testing.T, o server.Options) {
				t.Parallel()
				o.MaxMessage, o.HandshakeTimeout, o.MessageTimeout = 1000, 500*time.Millisecond, 500*time.Millisecond
				s := start(t, server.Handler{Upgrade: func(r *server.Request) error {
					if r.Target() == "/refused" {
						return &server.Reject{Status: http.StatusForbidden}
					}
					return nil
				}}, o)
				c := s.dial()
				c.write(bad.opening + bad.wire)
				s.log.one(t, "WARN", "conn=0x", "remote="+c.LocalAddr().String())
			})
		})
	}
}

// The zero Conn behaves as one that has ended, and only the opcodes of messages can
// be sent.
func TestTheZeroConnAndInvalidOpcodes(t *testing.T) {
	var none server.Conn
	for what, err := range map[string]error{
		"Send":      none.Send(frame.Text, nil),
		"SendAs":    none.SendAs(server.Kind{ID: 1}, frame.Text, nil),
		"Broadcast": none.Broadcast(frame.Text, nil),
		"Close":     none.Close(frame.NormalClosure, ""),
	} {
		if err != server.ErrClosed {
			t.Errorf("%s of the zero Conn returned %v", what, err)
		}
	}
	if m, b := none.Queued(); m != 0 || b != 0 || none.ID() != 0 || none.Tag() != 0 || none.Value() != nil || none.Server() != nil {
		t.Error("the zero Conn has a value other than zero")
	}
	inModes(t, func(t *testing.T, o server.Options) {
		members := &crowd{}
		s := start(t, server.Handler{Open: members.open}, o)
		clients, conns := members.openMany(s, 1)
		for op := range frame.Op(255) {
			if op == frame.Text || op == frame.Binary {
				continue
			}
			for what, err := range map[string]error{
				"Send":      conns[0].Send(op, []byte("x")),
				"SendAs":    conns[0].SendAs(server.Kind{ID: 1}, op, []byte("x")),
				"Broadcast": s.Broadcast(op, []byte("x")),
				"of a Conn": conns[0].Broadcast(op, []byte("x")),
			} {
				if err == nil || err == server.ErrClosed || err == server.ErrBackpressure {
					t.Errorf("%s with opcode %d returned %v", what, op, err)
				}
			}
		}
		must(conns[0].Send(frame.Text, []byte("the first")))
		clients[0].expect(frame.Text, "the first")
	})
}

// A handler that ends its goroutine ends its connection, and the worker goes on.
func TestAHandlerThatExitsLosesNoWorker(t *testing.T) {
	offReactors(t, func(t *testing.T, o server.Options) {
		o.Workers = 2
		h := server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
			if string(data) == "exit" {
				runtime.Goexit()
			}
			must(c.Send(op, data))
		}}
		var told <-chan ending
		h.Close, told = endings()
		s := start(t, h, o)
		bystander := s.open()
		for range 3 * o.Workers {
			c := s.open()
			c.send(frame.Text, "exit")
			c.send(frame.Text, "never")
			c.expectClose(frame.InternalError)
			expectEnding(t, told, frame.InternalError, server.ErrPanic)
			bystander.echoed("hello")
		}
	})
}

// A connection for which the poller has no room is answered with an error, not with
// 101.
func TestConnectionsThatCannotBePolledAreRefused(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		o.CloseTimeout = time.Second // nobody sees who cannot be polled leave
		var full atomic.Bool
		netpoll.Fault = func(c netpoll.Call, _, size int) (int, unix.Errno) {
			if c == netpoll.CallPollAdd && full.Load() {
				return 0, unix.ENOSPC
			}
			return size, 0
		}
		t.Cleanup(func() { netpoll.Fault = nil }) // runs after the server has ended
		var upgraded atomic.Int64
		h := echo
		h.Upgrade = func(*server.Request) error { upgraded.Add(1); return nil }
		s := start(t, h, o)
		bystander := s.open()
		full.Store(true)
		c := s.dial()
		c.write(request)
		if r, _ := c.response(); r.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("answered %s", r.Status)
		}
		full.Store(false)
		bystander.echoed("hello")
		s.open().echoed("hello")
		if n := upgraded.Load(); n != 2 {
			t.Errorf("the handler was asked about %d requests", n)
		}
		if !strings.Contains(strings.Join(s.log.all(), "\n"), "do=raise fs.epoll.max_user_watches") {
			t.Errorf("log: %q", s.log.all())
		}
	})
}

// A client that sends much before it reads any answer gets all answers, in order.
func TestAClientThatReadsLateGetsEveryEcho(t *testing.T) {
	const messages, size = 512, 64 << 10
	inModes(t, func(t *testing.T, o server.Options) {
		s := start(t, echo, o)
		c := s.open()
		sent := make(chan error, 1)
		go func() {
			for i := range messages {
				if _, err := io.WriteString(c.TCPConn, message(frame.Binary, numbered(i, size))); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		eventually(t, "answers wait for their peer", func() bool { return s.Stats().Outbox > 0 })
		s.open().echoed("others are served")
		for i := range messages {
			c.expect(frame.Binary, numbered(i, size))
		}
		must(<-sent)
		c.leave()
		s.counted("messages_in", messages+1)
	})
}

// A message and a Close frame, or a violation, arrive in one segment. The message's
// answers are sent before the connection ends.
func TestTheLastMessageIsAnsweredBeforeTheEnd(t *testing.T) {
	for name, end := range map[string]struct {
		wire string
		code frame.Code
	}{
		"a Close":  {closing(frame.NormalClosure, ""), frame.NormalClosure},
		"a breach": {piece(fin|3, ""), frame.ProtocolError},
	} {
		for effect, h := range map[string]func(server.Conn, frame.Op, []byte) error{
			"an echo":     server.Conn.Send,
			"a broadcast": server.Conn.Broadcast,
		} {
			t.Run(effect+" and "+name, func(t *testing.T) {
				inModes(t, func(t *testing.T, o server.Options) {
					s := start(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) { must(h(c, op, data)) }}, o)
					for range 20 {
						c := s.open()
						c.write(message(frame.Text, "first") + message(frame.Text, "second") + end.wire)
						c.expect(frame.Text, "first")
						c.expect(frame.Text, "second")
						c.expectClose(end.code)
						c.expectEnd()
						c.Close()
					}
				})
			})
		}
	}
}

// Close is called exactly once for a connection that Upgrade has accepted, even if
// its peer left during Upgrade. The connection has its value until then.
func TestCloseIsCalledForPeersThatLeaveDuringUpgrade(t *testing.T) {
	const peers = 30
	offReactors(t, func(t *testing.T, o server.Options) {
		busy := newGated(t)
		var tags atomic.Uint64
		var mu sync.Mutex
		ends := map[uint64]int{}
		var conns []server.Conn
		o.Workers = peers / 2
		s := start(t, server.Handler{
			Upgrade: func(r *server.Request) error {
				busy.wait()
				r.Tag = tags.Add(1)
				r.Value = fmt.Sprint("value ", r.Tag)
				return nil
			},
			Close: func(c server.Conn, _ frame.Code, _ error) {
				mu.Lock()
				defer mu.Unlock()
				if v := c.Value(); v != fmt.Sprint("value ", c.Tag()) {
					t.Errorf("connection %d has the value %v at its end", c.Tag(), v)
				}
				ends[c.Tag()]++
				conns = append(conns, c)
			},
		}, o)
		for i := range peers {
			c := s.dial()
			c.write(request)
			eventually(t, "the handler is asked", func() bool { return s.Stats().Calls == int64(i+1) })
			c.reset()
			s.counted("aborted", i+1)
		}
		busy.open()
		eventually(t, "all have heard their end", func() bool { return s.Stats().Open == 0 && s.Stats().Calls == 0 })
		s.open().leave() // by now everything before it is done
		eventually(t, "its end too", func() bool { return s.Stats().Open == 0 && s.Stats().Calls == 0 })
		mu.Lock()
		defer mu.Unlock()
		if len(ends) != peers+1 || int(tags.Load()) != peers+1 {
			t.Errorf("Close was called for %d of %d connections", len(ends), tags.Load())
		}
		for tag, n := range ends {
			if n != 1 {
				t.Errorf("Close was called %d times for connection %d", n, tag)
			}
		}
		for _, c := range conns {
			if v := c.Value(); v != nil {
				t.Errorf("connection %d has the value %v after its end", c.Tag(), v)
			}
		}
	})
}

// A connection carries its value from Upgrade to Close. A connection without a value
// has nil.
func TestAConnectionCarriesAValue(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		closed := make(chan server.Conn, 2)
		s := start(t, server.Handler{
			Upgrade: func(r *server.Request) error {
				if r.Target() == "/value" {
					r.Value = []string{"mine"}
				}
				return nil
			},
			Message: func(c server.Conn, op frame.Op, _ []byte) { must(c.Send(op, fmt.Append(nil, c.Value()))) },
			Close: func(c server.Conn, _ frame.Code, _ error) {
				if v, ok := c.Value().([]string); ok && v[0] != "mine" {
					t.Errorf("the value is %v at the end", v)
				}
				closed <- c
			},
		}, o)
		for uri, want := range map[string]string{"/value": "[mine]", "/": "<nil>"} {
			c := s.dial()
			c.write(swap("GET /", "GET "+uri))
			c.accepted()
			c.send(frame.Text, "?")
			c.expect(frame.Text, want)
			c.leave()
			conn := <-closed
			eventually(t, "the value is gone", func() bool { return conn.Value() == nil })
		}
	})
}

// A handler that ends a reactor's goroutine ends the server, which says why.
func TestAHandlerThatExitsAReactorIsNoticed(t *testing.T) {
	h := server.Handler{Open: func(server.Conn) { runtime.Goexit() }}
	s, err := server.Listen([]string{"127.0.0.1:0"}, h, server.Options{Reactors: 2, Mode: server.Inline, Log: slog.New(slog.DiscardHandler)})
	must(err)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	must(err)
	defer c.Close()
	_, err = c.Write([]byte(request))
	must(err)
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "runtime.Goexit") {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(patience):
		t.Error("Run did not return although a reactor has ended")
	}
}

// A topic that cannot be is refused wherever it is named, and leaves nothing behind.
func TestTopicsThatCannotBeAreRefused(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		members := &crowd{}
		s := start(t, server.Handler{Open: members.open, Message: topical.Message}, o)
		clients, conns := members.openMany(s, 1)
		for _, name := range []string{"", xs(201), xs(1 << 20), "a\x00", "a\nb", "\x7f", "\u0085", "\xff", "\xed\xa0\x80", strings.Repeat("é", 101)} {
			for what, err := range map[string]error{
				"subscribe": conns[0].Subscribe(name), "publish": s.Publish(name, frame.Text, nil), "publish for a peer": conns[0].Publish(name, frame.Text, nil),
			} {
				if err != server.ErrTopicName {
					t.Errorf("%.10q: %s: %v", name, what, err)
				}
			}
			if err := conns[0].Unsubscribe(name); err != nil || s.Subscribers(name) != 0 {
				t.Errorf("%.10q: unsubscribe: %v, %d subscribe", name, err, s.Subscribers(name))
			}
		}
		longest := strings.Repeat("é", 100)
		clients[0].send(frame.Text, "+"+longest)
		clients[0].send(frame.Text, longest+":hello")
		clients[0].expect(frame.Text, longest+":hello")
		if now := s.Stats(); now.Topics != 1 || now.Subscriptions != 1 {
			t.Errorf("%d topics, %d subscriptions", now.Topics, now.Subscriptions)
		}
	})
}

// Clients that make topics up fill MaxTopics, and get an error beyond it. Who goes to a
// topic that is there still gets in, and there is room again when they have left.
func TestTopicsInAllAreBounded(t *testing.T) {
	const most, each, attackers = 100, 40, 4
	everywhere(t, func(t *testing.T, o server.Options) {
		o.MaxTopics, o.MaxSubscriptions = most, each
		s := start(t, topical, o)
		honest := s.open()
		honest.send(frame.Text, "+tea")
		honest.echoedIn("tea", honest)
		var greedy []*client
		for i := range attackers {
			c := s.open()
			greedy = append(greedy, c)
			for n := range each {
				c.send(frame.Text, fmt.Sprintf("+%d-%d", i, n))
			}
		}
		s.counted("subscriptions_refused", attackers*each-(most-1)) // one is the honest client's
		eventually(t, "the rest have subscribed", func() bool { return s.Stats().Subscriptions == most })
		if n := s.Stats().Topics; n != most {
			t.Errorf("%d topics", n)
		}
		late := s.open()
		late.send(frame.Text, "+one more")
		late.expect(frame.Text, server.ErrTopics.Error())
		guest := s.open()
		guest.send(frame.Text, "+tea")
		guest.echoedIn("tea", honest, guest)
		for _, c := range greedy {
			c.reset()
		}
		eventually(t, "there is room", func() bool { return s.Stats().Topics == 1 })
		guest.send(frame.Text, "+coffee")
		guest.echoedIn("coffee", guest)
	})
}

// echoedIn has c publish to a topic, and others get it.
func (c *client) echoedIn(topic string, members ...*client) {
	c.t.Helper()
	c.send(frame.Text, topic+":hello")
	for _, m := range members {
		m.expect(frame.Text, topic+":hello")
	}
}

// A connection has MaxSubscriptions, whatever it asks for, and others have theirs.
func TestSubscriptionsOfAConnectionAreBounded(t *testing.T) {
	const most, asked = 10, 500
	everywhere(t, func(t *testing.T, o server.Options) {
		o.MaxSubscriptions = most
		s := start(t, topical, o)
		greedy, honest := s.open(), s.open()
		for n := range asked {
			if greedy.send(frame.Text, fmt.Sprint("+", n)); n >= most {
				greedy.expect(frame.Text, server.ErrSubscriptions.Error())
			}
		}
		s.counted("subscriptions_refused", asked-most)
		eventually(t, "the others are there", func() bool { return s.Stats().Subscriptions == most })
		honest.send(frame.Text, "+0")
		honest.echoedIn("0", honest, greedy)
		greedy.send(frame.Text, "-0")
		eventually(t, "one is given back", func() bool { return s.Subscribers("0") == 1 })
		greedy.send(frame.Text, "+tea")
		greedy.echoedIn("tea", greedy)
	})
}

// Clients that subscribe and unsubscribe as fast as they can keep nobody from being
// served, and leave nothing behind.
func TestAFloodOfSubscriptionsHarmsNobody(t *testing.T) {
	const flooders, rounds = 3, 3000
	everywhere(t, func(t *testing.T, o server.Options) {
		var refused, asked atomic.Int64
		s := start(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
			if name, is := strings.CutPrefix(string(data), "flood "); is {
				for _, err := range []error{c.Subscribe(name), c.Subscribe("all"), c.Unsubscribe(name)} {
					switch err {
					case nil, server.ErrClosed:
					case server.ErrBackpressure, server.ErrSubscriptions: // its reactor has not got to those before
						refused.Add(1)
					default:
						t.Error(err)
					}
				}
				asked.Add(1)
				return
			}
			topical.Message(c, op, data)
		}}, o)
		bystander := s.open()
		bystander.said("+all", "+tea")
		var wire strings.Builder
		for n := range rounds {
			wire.WriteString(message(frame.Text, fmt.Sprint("flood ", n)))
		}
		var flood []*client
		for range flooders {
			c := s.open()
			c.writing(wire.String())
			flood = append(flood, c)
		}
		for asked.Load() < flooders*rounds {
			bystander.echoedIn("tea", bystander)
		}
		must(s.Publish("all", frame.Text, []byte("to all")))
		bystander.expect(frame.Text, "to all")
		for _, c := range flood {
			c.reset()
		}
		eventually(t, "the bystander is left", func() bool {
			now := s.Stats()
			return now.Topics == 2 && now.Subscriptions == 2 && now.Subscribed-now.Unsubscribed == 2
		})
		if all, most := s.Stats().Subscribed+uint64(refused.Load()), uint64(3*flooders*rounds+10); all > most {
			t.Errorf("%d subscribed or were refused, of %d", all, most)
		}
	})
}

// Who subscribes to a busy topic and does not read is closed, or lacks messages, as its
// policy says. All others get everything, in order.
func TestASlowSubscriberOfABusyTopicHarmsNobody(t *testing.T) {
	const readers, size, outbox = 3, 50_000, 128 << 10
	for policy, counter := range map[server.OutboxPolicy]string{server.OutboxClose: "closed_outbox", server.OutboxDropNew: "dropped_new", server.OutboxDropOld: "dropped_old"} {
		t.Run(policy.String(), func(t *testing.T) {
			inModes(t, func(t *testing.T, o server.Options) {
				o.MaxOutbox, o.OutboxPolicy = outbox, policy
				s := start(t, server.Handler{
					Upgrade: func(r *server.Request) error { r.Topics = []string{"busy"}; return nil },
					Message: func(c server.Conn, op frame.Op, data []byte) { must(c.Publish("busy", op, data)) },
				}, o)
				s.dialDeaf().handshake()
				clients := s.openMany(readers)
				for i, left := 0, 5; left > 0; i++ {
					clients[i%readers].send(frame.Binary, numbered(i, size))
					for _, c := range clients {
						c.expect(frame.Binary, numbered(i, size))
					}
					now := s.Stats()
					if now.Outbox > 2*outbox || now.Broadcast > 4*size || now.ClosedOutbox > 1 {
						t.Fatalf("%d bytes wait, %d are on their way, %d closed", now.Outbox, now.Broadcast, now.ClosedOutbox)
					}
					if count(now, counter) > 0 { // and a few after that
						left--
					}
				}
			})
		})
	}
}
