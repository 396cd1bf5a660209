package server_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

func TestPeersThatVanish(t *testing.T) {
	half := message(frame.Text, xs(1000))[:500]
	rows := []struct {
		name  string
		says  string
		reset bool
	}{
		{"between messages", "", false},
		{"between messages, with a reset", "", true},
		{"within a header", half[:1], false},
		{"within a header, with a reset", half[:1], true},
		{"within a frame", half, false},
		{"within a frame, with a reset", half, true},
		{"between fragments", piece(text, "hel"), false},
		{"between fragments, with a reset", piece(text, "hel"), true},
	}
	everywhere(t, func(t *testing.T, o server.Options) {
		h := newObliging()
		onClose, told := endings()
		s := start(t, server.Handler{Message: h.message, Close: onClose}, o)
		bystander := s.open()
		in := len(request)
		for i, row := range rows {
			c := s.open()
			c.write(row.says)
			in += len(request) + len(row.says)
			s.counted("bytes_in", in) // a reset before the read would discard them
			if row.reset {
				c.reset()
				expectEnding(t, told, frame.Abnormal, syscall.ECONNRESET)
			} else {
				c.Close()
				expectEnding(t, told, frame.Abnormal, io.EOF)
			}
			if t.Failed() {
				t.Fatal("in the row", row.name)
			}
			s.counted("closed_gone", i+1)
		}
		bystander.echoed("hello")
		if lines := s.log.all(); len(lines) > 0 {
			t.Errorf("log: %q", lines)
		}
	})
}

// numbered is the i-th message of a series, of size bytes if there is room.
func numbered(i, size int) string {
	s := fmt.Sprintf("%d ", i)
	return s + xs(max(0, size-len(s)))
}

// number returns the i of numbered.
func number(payload string) (i int) {
	if n, _ := fmt.Sscanf(payload, "%d ", &i); n != 1 {
		return -1
	}
	return i
}

// A peer that does not read receives the first messages without a gap and is closed.
// The rest is counted.
func TestPeersThatDoNotRead(t *testing.T) {
	direct := func(c server.Conn, data []byte) error { return c.Send(frame.Binary, data) }
	everybody := func(c server.Conn, data []byte) error { return c.Server().Broadcast(frame.Binary, data) }
	rows := []struct {
		name       string
		size       int
		send       func(server.Conn, []byte) error
		broadcasts bool
	}{
		{"small messages", 100, direct, false},
		{"large messages", 10_000, direct, false},
		{"messages over the limit", 100_000, direct, false},
		{"small broadcasts", 100, everybody, true},
		{"large broadcasts", 10_000, everybody, true},
		{"broadcasts over the limit", 100_000, everybody, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				opened := make(chan server.Conn, 1)
				onClose, told := endings()
				o.CloseTimeout = patience // for the reader below
				s := start(t, server.Handler{Open: func(c server.Conn) { opened <- c }, Close: onClose}, o)
				c := s.dialDeaf().handshake()
				conn := <-opened
				accepted := 0
				for len(told) == 0 {
					switch err := row.send(conn, []byte(numbered(accepted, row.size))); err {
					case nil:
						accepted++
					case server.ErrBackpressure, server.ErrClosed:
						runtime.Gosched()
					default:
						t.Fatal(err)
					}
				}
				expectEnding(t, told, frame.TryAgainLater, server.ErrOutbox)
				s.log.one(t, "WARN connection closed", "code=1013")
				s.counted("closed_outbox", 1)

				received := 0
				for {
					op, payload, err := c.next()
					if op == frame.Close && err == nil {
						if code, _ := frame.ParseClose([]byte(payload)); code != frame.TryAgainLater {
							t.Errorf("closed with %d", code)
						}
						break
					}
					if err != nil || number(payload) != received || len(payload) != len(numbered(received, row.size)) {
						t.Fatalf("%v %.20q, %v after %d messages", op, payload, err, received)
					}
					received++
				}
				c.expectEnd()
				s.counted("messages_out", received)
				s.counted("bytes_undelivered", 0)
				if !row.broadcasts {
					s.counted("undelivered", accepted-received)
				}
			})
		})
	}
}

// Only the last waiting Pong is sent. So the server's own answers are bounded, and no
// connection is closed because of them.
func TestPingsOfAPeerThatDoesNotReadAreAnsweredOnce(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		s := start(t, echo, o)
		bystander := s.open()
		c := s.dialDeaf().handshake()
		const most = 20_000
		var pings strings.Builder
		for i := range most {
			pings.WriteString(message(frame.Ping, numbered(i, 125)))
		}
		c.write(pings.String())
		bystander.echoed("hello")
		eventually(t, "the pings are read", func() bool { return count(s.Stats(), "bytes_in") >= uint64(pings.Len()) })
		answered, last := 0, -1
		for last < most-1 {
			op, payload, err := c.next()
			if op != frame.Pong || err != nil || number(payload) <= last {
				t.Fatalf("got %v %q, %v after Pong %d", op, payload, err, last)
			}
			answered, last = answered+1, number(payload)
		}
		if answered == most {
			t.Error("every Ping was answered, so the peer was never slow")
		}
		c.echoed("hello")
		s.counted("closed_outbox", 0)
	})
}

// Bytes that were accepted and not sent are counted, whether the peer left or the
// server closed the connection.
func TestUndeliveredBytesAreCounted(t *testing.T) {
	t.Parallel()
	const size = 8 << 20 // more than sockets buffer
	rows := []struct {
		name    string
		end     func(*client, server.Conn)
		cause   error
		counter string
	}{
		{"the peer resets", func(c *client, _ server.Conn) { c.reset() }, syscall.ECONNRESET, "closed_gone"},
		{"the server gives up", func(_ *client, conn server.Conn) { must(conn.Close(frame.NormalClosure, "")) }, server.ErrCloseTimeout, "closed_close_timeout"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				t.Parallel()
				opened := make(chan server.Conn, 1)
				onClose, told := endings()
				o.CloseTimeout = 500 * time.Millisecond
				s := start(t, server.Handler{Open: func(c server.Conn) { opened <- c }, Close: onClose}, o)
				c := s.dialDeaf().handshake()
				conn := <-opened
				must(conn.Send(frame.Binary, make([]byte, size)))
				s.counted("messages_accepted", 1)
				row.end(c, conn)
				expectEnding(t, told, frame.Abnormal, row.cause)
				s.counted(row.counter, 1)
				stats := s.Stats()
				out, lost := count(stats, "bytes_out"), count(stats, "bytes_undelivered")
				if sum := out + lost; out == 0 || lost == 0 || sum < size || sum > size+1000 {
					t.Errorf("%d bytes sent and %d undelivered of %d", out, lost, size)
				}
			})
		})
	}
}

func TestASilentPeerIsPingedAndThenClosed(t *testing.T) {
	t.Parallel()
	onBothTables(t, func(t *testing.T, o server.Options) {
		t.Parallel()
		onClose, told := endings()
		o.IdleTimeout = 4 * time.Second
		s := start(t, server.Handler{Close: onClose}, o)
		c := s.open()
		c.expect(frame.Ping, "")
		c.expectClose(frame.GoingAway)
		c.expectEnd()
		expectEnding(t, told, frame.GoingAway, server.ErrIdle)
		s.counted("closed_idle", 1)
		s.log.one(t, "WARN connection closed", "code=1001")
	})
}

func TestAPeerThatAnswersPingsStays(t *testing.T) {
	t.Parallel()
	onBothTables(t, func(t *testing.T, o server.Options) {
		t.Parallel()
		o.IdleTimeout = 2 * time.Second
		s := start(t, echo, o)
		c := s.open()
		for range 4 { // four Pings take longer than the timeout
			c.expect(frame.Ping, "")
			c.send(frame.Pong, "")
		}
		c.echoed("hello")
		s.counted("closed_idle", 0)
	})
}

func TestAPeerThatDoesNotAnswerACloseFrameIsCutOff(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name string
		does func(*client)
	}{
		{"and is silent", func(*client) {}},
		{"and talks on", func(c *client) {
			go func() {
				for {
					if _, err := io.WriteString(c.TCPConn, message(frame.Text, "more")); err != nil {
						return
					}
				}
			}()
		}},
		{"and is in the midst of a message", func(c *client) { c.write(piece(text, "hel")) }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				t.Parallel()
				onClose, told := endings()
				o.CloseTimeout = 500 * time.Millisecond
				s := start(t, server.Handler{
					Open:  func(c server.Conn) { must(c.Close(4001, "")) },
					Close: onClose,
				}, o)
				c := s.open()
				row.does(c)
				c.expectClose(4001)
				c.expectCut()
				expectEnding(t, told, frame.Abnormal, server.ErrCloseTimeout)
				s.counted("closed_close_timeout", 1)
				s.log.one(t, "WARN connection closed", "cause=server: the peer did not answer")
			})
		})
	}
}

// A peer that goes on sending still receives the server's Close frame or HTTP error.
// Then the server waits for the peer's end until CloseTimeout.
func TestAPeerThatGoesOnSendingGetsTheLastWordAndIsCutOff(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		first  string // what the server refuses
		hears  func(*client)
		floods bool
	}{
		{"refused, silent", "GET / HTTP/1.1\r\n\r\n", func(c *client) { c.response() }, false},
		{"refused, flooding", "GET / HTTP/1.1\r\n\r\n", func(c *client) { c.response() }, true},
		{"breach, silent", request + "nonsense", func(c *client) { c.accepted(); c.expectClose(1002); c.expectEnd() }, false},
		{"breach, flooding", request + "nonsense", func(c *client) { c.accepted(); c.expectClose(1002); c.expectEnd() }, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				t.Parallel()
				o.CloseTimeout = 500 * time.Millisecond
				s := start(t, server.Handler{Message: newObliging().message}, o)
				bystander := s.open()
				c := s.dial()
				c.write(row.first)
				cut := make(chan struct{})
				go func() {
					defer close(cut)
					for row.floods {
						if _, err := io.WriteString(c.TCPConn, xs(10_000)); err != nil {
							return
						}
					}
				}()
				row.hears(c)
				bystander.echoed("hello")
				<-cut
				eventually(t, "the server has given its slot up", func() bool {
					used, _ := bystander.slots()
					return used == 1
				})
			})
		})
	}
}

// All incomplete messages together are bounded. The connections that hold most are
// closed, and their memory is free for others.
func TestIncompleteMessagesShareALimit(t *testing.T) {
	const (
		peers = 12
		part  = 40_000
		whole = 60_000
		limit = 256 << 10
	)
	begins := piece(binary, xs(1000)) + strings.Repeat(piece(0, xs(1000)), part/1000-1) + message(frame.Ping, "")
	ends := strings.Repeat(piece(0, xs(1000)), (whole-part)/1000-1) + piece(fin, xs(1000))
	onBothTables(t, func(t *testing.T, o server.Options) {
		h := echo
		var told <-chan ending
		h.Close, told = endings()
		o.MaxPartial = limit
		s := start(t, h, o)
		failed := 0
		for range 5 {
			all := make([]*client, peers)
			for i := range all {
				all[i] = s.open()
				all[i].write(begins)
				if op, payload, err := all[i].next(); op != frame.Pong { // the Pong shows that everything before was read
					t.Fatalf("newcomer %d got %v %q, %v", i, op, payload, err)
				}
			}
			// Those that held most, and for longest, were closed.
			var kept []*client
			for i, c := range all {
				c.write(message(frame.Ping, ""))
				op, payload, err := c.next()
				if op == frame.Pong {
					kept = append(kept, c)
					continue
				}
				code, _ := frame.ParseClose([]byte(payload))
				if op != frame.Close || code != frame.TryAgainLater || err != nil || i == peers-1 {
					t.Fatalf("peer %d got %v %q, %v", i, op, payload, err)
				}
				c.expectEnd()
				expectEnding(t, told, frame.TryAgainLater, server.ErrPartial)
				failed++
			}
			if n := len(kept); n < limit/part/2 || n > limit/part {
				t.Errorf("%d peers with %d bytes each got room under a limit of %d", n, part, limit)
			}
			for _, c := range kept {
				c.write(ends)
				c.expect(frame.Binary, xs(whole))
				c.leave()
				expectEnding(t, told, frame.NormalClosure, nil)
			}
		}
		s.counted("closed_partial", failed)
	})
}

func TestIncompleteHeadsCountToo(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		o.MaxPartial = 4 << 10
		s := start(t, echo, o)
		c := s.dial()
		c.write("GET / HTTP/1.1\r\nCookie: " + xs(5000))
		if r, _ := c.response(); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
			t.Errorf("answered %s %v", r.Status, r.Header)
		}
		s.open().echoed("hello")
	})
}
