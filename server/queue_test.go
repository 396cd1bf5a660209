package server_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// offReactors runs a test with handlers on workers and on a single goroutine.
func offReactors(t *testing.T, test func(*testing.T, server.Options)) {
	t.Helper()
	onBothTables(t, func(t *testing.T, o server.Options) {
		for _, o.Mode = range []server.Mode{server.Workers, server.Serial} {
			t.Run(o.Mode.String(), func(t *testing.T) { test(t, o) })
		}
	})
}

// While a handler blocks, its reactor pings, broadcasts and accepts.
func TestABlockingHandlerDoesNotStopItsReactor(t *testing.T) {
	offReactors(t, func(t *testing.T, o server.Options) {
		h := newObliging()
		s := start(t, server.Handler{Message: h.message}, o)
		bystander := s.open()
		c := s.open()
		release := h.hold(c)
		bystander.send(frame.Ping, "there?")
		bystander.expect(frame.Pong, "there?")
		must(s.Broadcast(frame.Text, []byte("to all")))
		for _, c := range []*client{bystander, c, s.open()} {
			if c != bystander {
				c.send(frame.Ping, "")
			}
			if op, payload, err := c.next(); err != nil || op == frame.Text && payload != "to all" {
				t.Fatalf("got %v %q, %v", op, payload, err)
			}
		}
		if n := s.Stats().Busy; n != 1 {
			t.Errorf("%d handlers are busy", n)
		}
		if o.Mode == server.Workers {
			bystander.echoed("others are handled")
		}
		release()
		if o.Mode == server.Serial {
			bystander.echoed("now others are handled")
		}
	})
}

// In mode Serial no two calls run at once, in mode Workers as many as there
// are workers, and never two of one connection.
func TestHandlersRunAtOnceOnlyAsTheModeAllows(t *testing.T) {
	const conns, each = 12, 20
	rows := []struct {
		mode            server.Mode
		workers, atOnce int
	}{
		{server.Serial, 0, 1}, {server.Workers, 1, 1}, {server.Workers, 5, 5},
	}
	for _, row := range rows {
		t.Run(fmt.Sprint(row.mode, row.workers), func(t *testing.T) {
			var now, most atomic.Int64
			var running sync.Map
			all := make(chan struct{})
			s := start(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
				if _, both := running.LoadOrStore(c.ID(), true); both {
					t.Error("two calls for one connection")
				}
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				if int(n) == row.atOnce { // no call returns before all have begun, once
					select {
					case <-all:
					default:
						close(all)
					}
				}
				<-all
				now.Add(-1)
				running.Delete(c.ID())
				must(c.Send(op, data))
			}}, server.Options{Mode: row.mode, Workers: row.workers})
			clients := s.openMany(conns)
			for _, c := range clients {
				c.write(strings.Repeat(message(frame.Text, "x"), each))
			}
			for _, c := range clients {
				for range each {
					c.expect(frame.Text, "x")
				}
			}
			if n := int(most.Load()); n != row.atOnce {
				t.Errorf("%d handlers ran at once, want %d", n, row.atOnce)
			}
		})
	}
}

// A peer that sends faster than its handler works is not read for a while. It loses
// nothing and is not closed, and the server holds a bounded part of its messages.
func TestAPeerThatIsTooFastIsPaused(t *testing.T) {
	const messages, size = 5000, 1000
	offReactors(t, func(t *testing.T, o server.Options) {
		h := newObliging()
		o.MaxOutbox = 64 << 20
		s := start(t, server.Handler{Message: h.message}, o)
		c := s.open()
		release := h.hold(c)
		var wire strings.Builder
		for i := range messages {
			wire.WriteString(message(frame.Text, numbered(i, size)))
		}
		c.writing(wire.String())
		s.counted("read_pauses", 1)
		stats := s.Stats()
		if in, limit := count(stats, "bytes_in"), uint64(3*s.Options().MaxInbox); in > limit {
			t.Errorf("%d bytes were read, more than %d", in, limit)
		}
		if limit := int64(s.Options().MaxInbox + size + 1000); stats.Inbox > limit {
			t.Errorf("%d bytes are queued, more than %d", stats.Inbox, limit)
		}
		release()
		expectNumbers(c, messages, size)
		s.counted("messages_in", messages+1)
		c.leave()
		eventually(t, "nothing is queued", func() bool { return s.Stats().Inbox == 0 })
		s.counted("closed_clean", 1)
	})
}

// What a peer sent before it closed or ended is handled and answered first.
func TestAPeersEndWaitsForItsHandler(t *testing.T) {
	const messages = 20
	rows := []struct {
		name string
		ends func(*client)
		code frame.Code
		err  error
	}{
		{"Close", func(c *client) { c.write(closing(4001, "")) }, 4001, nil},
		{"EOF", func(c *client) { must(c.CloseWrite()) }, frame.Abnormal, io.EOF},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			offReactors(t, func(t *testing.T, o server.Options) {
				h := newObliging()
				onClose, told := endings()
				s := start(t, server.Handler{Message: h.message, Close: onClose}, o)
				c := s.open()
				release := h.hold(c)
				for i := range messages {
					c.send(frame.Text, numbered(i, 10))
				}
				row.ends(c)
				// One more turn, so that the reactor has seen the end.
				s.open().write(closing(4000, ""))
				s.counted("opened", 2)
				release()
				expectNumbers(c, messages, 10)
				if row.code != frame.Abnormal {
					c.expectClose(row.code)
				}
				c.expectEnd()
				got := map[frame.Code]bool{}
				for range 2 {
					e := <-told
					got[e.code] = true
					if e.code == row.code && !errors.Is(e.cause, row.err) {
						t.Errorf("the cause is %v", e.cause)
					}
				}
				if !got[row.code] || !got[4000] {
					t.Errorf("closed with %v", got)
				}
			})
		})
	}
}

func TestAPausedPeerThatResetsIsGone(t *testing.T) {
	offReactors(t, func(t *testing.T, o server.Options) {
		h := newObliging()
		onClose, told := endings()
		s := start(t, server.Handler{Message: h.message, Close: onClose}, o)
		c := s.open()
		release := h.hold(c)
		c.write(strings.Repeat(message(frame.Text, "x"), 1000))
		s.counted("read_pauses", 1)
		c.reset()
		s.counted("closed_gone", 1)
		if len(told) > 0 {
			t.Error("Close was called while another call runs")
		}
		release()
		e := <-told
		if e.code != frame.Abnormal {
			t.Errorf("closed with %d", e.code)
		}
	})
}

func TestAFullInboxCanDropOrClose(t *testing.T) {
	const messages = 1000
	offReactors(t, func(t *testing.T, o server.Options) {
		h := newObliging()
		o.MaxInboxMessages = 10
		o.InboxPolicy = server.InboxDrop
		s := start(t, server.Handler{Message: h.message}, o)
		c := s.open()
		release := h.hold(c)
		for i := range messages {
			c.send(frame.Text, numbered(i, 10))
		}
		s.counted("messages_in", messages+1)
		s.counted("messages_dropped", messages+1-o.MaxInboxMessages)
		release()
		expectNumbers(c, o.MaxInboxMessages-1, 10) // the first ones, in order
		c.echoed("and on it goes")

		h = newObliging()
		o.InboxPolicy = server.InboxClose
		onClose, told := endings()
		s = start(t, server.Handler{Message: h.message, Close: onClose}, o)
		bystander := s.open()
		c = s.open()
		release = h.hold(c)
		c.write(strings.Repeat(message(frame.Text, "x"), 100))
		c.expectClose(frame.TryAgainLater)
		s.counted("closed_inbox", 1)
		release()
		expectEnding(t, told, frame.TryAgainLater, server.ErrInbox)
		bystander.echoed("hello")
	})
}

// When all inboxes together are full, all connections are still handled.
func TestAllInboxesTogetherAreBounded(t *testing.T) {
	const conns, messages, size = 20, 50, 1000
	offReactors(t, func(t *testing.T, o server.Options) {
		h := newObliging()
		o.MaxInboxTotal = 10_000
		s := start(t, server.Handler{Message: h.message}, o)
		clients := s.openMany(conns)
		release := h.hold(clients[0])
		for _, c := range clients[1:] {
			for i := range messages {
				c.send(frame.Text, numbered(i, size))
			}
		}
		if most := s.Stats().Inbox; most > int64(o.MaxInboxTotal+conns*size) {
			t.Errorf("%d bytes are queued", most)
		}
		release()
		for _, c := range clients[1:] {
			expectNumbers(c, messages, size)
		}
	})
}

// The calls of a flooding connection and of others alternate.
func TestAFloodingPeerDelaysOthersByFewCalls(t *testing.T) {
	var handled atomic.Int64
	s := start(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
		time.Sleep(2 * time.Millisecond) // a slow handler: longer than a worker serves one inbox
		handled.Add(1)
		must(c.Send(op, data))
	}}, server.Options{Mode: server.Serial, MaxInboxMessages: 1000})
	flood := s.open()
	flood.write(strings.Repeat(message(frame.Text, "x"), 500))
	eventually(t, "the flood is being handled", func() bool { return handled.Load() > 0 })
	polite := s.open()
	polite.echoed("hello")
	if n := handled.Load(); n > 400 {
		t.Errorf("the other connection's message was handled after %d messages of the flood", n)
	}
	flood.reset()
}

// While Upgrade blocks, its reactor goes on. What the peer sends in the meantime is
// handled afterwards.
func TestUpgradeMayBlock(t *testing.T) {
	offReactors(t, func(t *testing.T, o server.Options) {
		asked, answer := make(chan string), make(chan error)
		h := echo
		h.Upgrade = func(r *server.Request) error {
			if r.Path() != "/slow" {
				return nil
			}
			r.Tag = 7
			asked <- r.RemoteAddr().String()
			return <-answer
		}
		h.Open = func(c server.Conn) { must(c.Send(frame.Text, fmt.Append(nil, c.Tag()))) }
		s := start(t, h, o)
		slow := swap("GET /", "GET /slow")

		c := s.dial()
		c.write(slow + message(frame.Text, "glued"))
		if addr := <-asked; addr != c.LocalAddr().String() {
			t.Errorf("asked about %s, not %s", addr, c.LocalAddr())
		}
		bystander := s.dial()
		if o.Mode == server.Workers {
			bystander.handshake().expect(frame.Text, "0")
		}
		answer <- nil
		c.accepted()
		c.expect(frame.Text, "7")
		c.expect(frame.Text, "glued")

		c = s.dial()
		c.write(slow)
		<-asked
		answer <- &server.Reject{Status: http.StatusForbidden}
		if r, _ := c.response(); r.StatusCode != http.StatusForbidden {
			t.Errorf("answered %s", r.Status)
		}

		c = s.dial()
		c.write(slow)
		<-asked
		c.reset()
		s.counted("aborted", 1)
		answer <- nil
		open := int64(1)
		if o.Mode == server.Workers {
			open = 2
		}
		eventually(t, "the others are gone", func() bool { return s.Stats().Open == open })
	})
}

func TestAnUpgradeThatTakesTooLongIsRefused(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	h := echo
	h.Upgrade = func(*server.Request) error { <-release; return nil }
	s := start(t, h, server.Options{Mode: server.Workers, HandshakeTimeout: 3 * time.Second})
	c := s.dial()
	c.write(request)
	if r, _ := c.response(); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("answered %s", r.Status)
	}
	close(release)
	s.counted("rejected", 1)
	if n := s.Stats().Open; n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

// The server's end waits for handlers and sends their answers, but no longer than
// Grace.
func TestTheEndWaitsForHandlers(t *testing.T) {
	offReactors(t, func(t *testing.T, o server.Options) {
		h := newObliging()
		onClose, told := endings()
		o.Grace = patience
		s := start(t, server.Handler{Message: h.message, Close: onClose}, o)
		c := s.open()
		release := h.hold(c)
		ended := make(chan error)
		go func() { ended <- s.stop() }()
		c.expectClose(frame.GoingAway)
		c.write(closing(frame.GoingAway, ""))
		c.expectEnd()
		select {
		case <-ended:
			t.Error("Run has returned before the handler")
		default:
		}
		release()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		expectEnding(t, told, frame.GoingAway, nil)
	})
}

// If handlers do not return in time, the log says how many.
func TestTheEndLogsHandlersThatDoNotReturn(t *testing.T) {
	t.Parallel()
	h := newObliging()
	s := start(t, server.Handler{Message: h.message}, server.Options{Mode: server.Workers, Grace: -1})
	c := s.open()
	release := h.hold(c)
	c.write(strings.Repeat(message(frame.Text, "x"), 5))
	s.counted("messages_in", 6)
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	lines := s.log.all()
	if last := lines[len(lines)-1]; last != "ERROR the server ends before its handlers running=1 waiting=0" {
		t.Errorf("the last line is %q", last)
	}
	release()
}

// While a handler is not ready, messages wait without a worker, and in their order.
func TestMessagesOfWhoIsNotReadyTakeNoWorker(t *testing.T) {
	offReactors(t, func(t *testing.T, o server.Options) {
		o.Workers = 1
		var ready atomic.Bool
		refused := make(chan server.Conn, 100)
		h := echo
		h.Ready = func(c server.Conn) bool {
			if !ready.Load() && c.Tag() == 1 {
				refused <- c
				return false
			}
			return true
		}
		h.Upgrade = func(r *server.Request) error {
			r.Tag = uint64(len(r.Header("X-Wait")))
			return nil
		}
		s := start(t, h, o)
		c := s.dial()
		c.write(with("X-Wait: 1"))
		c.accepted()
		for i := range 3 * 64 { // more than the inbox holds
			c.send(frame.Text, fmt.Sprint(i))
		}
		waiting := <-refused
		s.open().echoed("others are served")
		if n := s.Stats().Busy; n != 0 {
			t.Errorf("%d workers wait", n)
		}
		waiting.Resume() // too early
		<-refused
		ready.Store(true)
		waiting.Resume()
		waiting.Resume()
		for i := range 3 * 64 {
			c.expect(frame.Text, fmt.Sprint(i))
		}
		server.Conn{}.Resume()
	})
}

// Resume may come before the worker has noticed that the handler is not ready.
func TestAnEarlyResumeIsNotForgotten(t *testing.T) {
	var asked atomic.Int64
	h := echo
	h.Ready = func(c server.Conn) bool {
		if asked.Add(1)%3 != 0 {
			c.Resume()
			return false
		}
		return true
	}
	s := start(t, h, server.Options{Mode: server.Workers})
	for _, c := range s.openMany(10) {
		for i := range 20 {
			c.echoed(fmt.Sprint(i))
		}
	}
}

func TestConnectionsThatAreNotReadyEnd(t *testing.T) {
	refused := make(chan server.Conn, 100)
	h := echo
	h.Ready = func(c server.Conn) bool { refused <- c; return false }
	ended := make(chan error, 1)
	h.Close = func(_ server.Conn, _ frame.Code, cause error) { ended <- cause }
	s := start(t, h, server.Options{Mode: server.Workers})
	c := s.open()
	c.send(frame.Text, "never handled")
	<-refused
	c.reset()
	if cause := <-ended; cause == nil {
		t.Error("it ended without a cause")
	}
	s.counted("messages_discarded", 1)
}

func TestAPanicOfReadyEndsItsConnection(t *testing.T) {
	h := echo
	h.Ready = func(server.Conn) bool { panic("not ready") }
	s := start(t, h, server.Options{Mode: server.Workers})
	c := s.open()
	c.send(frame.Text, "boom")
	c.expectClose(frame.InternalError)
}
