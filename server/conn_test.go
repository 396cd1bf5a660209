package server_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// crowd knows the connections that are open.
type crowd struct {
	mu    sync.Mutex
	conns []server.Conn
}

func (w *crowd) open(c server.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c)
}

func (w *crowd) close(c server.Conn, _ frame.Code, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.conns {
		if w.conns[i] == c {
			w.conns[i] = w.conns[len(w.conns)-1]
			w.conns = w.conns[:len(w.conns)-1]
			return
		}
	}
}

// all returns the open connections, the oldest first if none has ended.
func (w *crowd) all() []server.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]server.Conn(nil), w.conns...)
}

// openMany opens n connections and returns both their ends. A client may know
// of its connection before the handler does.
func (w *crowd) openMany(s *running, n int) ([]*client, []server.Conn) {
	s.t.Helper()
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = s.open()
		eventually(s.t, "Open is called", func() bool { return len(w.all()) > i })
	}
	return clients, w.all()
}

// any returns a random connection; false if there is none.
func (w *crowd) any(rng *rand.Rand) (server.Conn, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.conns) == 0 {
		return server.Conn{}, false
	}
	return w.conns[rng.IntN(len(w.conns))], true
}

func TestConnsAreValuesAndNameOneConnection(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		const conns = 60
		members := &crowd{}
		known := make(chan bool, conns)
		h := echo
		h.Open = members.open
		h.Message = func(c server.Conn, op frame.Op, data []byte) {
			byConn := map[server.Conn]bool{}
			for _, m := range members.all() {
				byConn[m] = true
			}
			known <- byConn[c]
			must(c.Send(op, data))
		}
		s := start(t, h, o)
		clients, names := members.openMany(s, conns)
		for _, c := range clients {
			c.echoed("hello")
			if !<-known {
				t.Error("Message's Conn is not Open's")
			}
		}
		ids, reactors := map[uint64]bool{}, map[int]bool{}
		for i, m := range names {
			ids[m.ID()] = true
			reactors[m.Reactor()] = true
			if m.Server() != s.Server {
				t.Error("a Conn of another server")
			}
			must(m.Send(frame.Text, fmt.Append(nil, i)))
			clients[i].expect(frame.Text, fmt.Sprint(i))
		}
		if len(ids) != conns || len(reactors) != o.Reactors {
			t.Errorf("%d connections have %d IDs and %d reactors", conns, len(ids), len(reactors))
		}
	})
}

// tally is a receiver's last number of each sender.
type tally struct {
	t    *testing.T
	last map[int]int
	got  int
}

// hear checks the next message, "sender number".
func (y *tally) hear(payload string) {
	var sender, n int
	if k, _ := fmt.Sscanf(payload, "%d %d", &sender, &n); k != 2 || n <= y.last[sender] {
		y.t.Errorf("%q after number %d", payload, y.last[sender])
	}
	y.last[sender] = n
	y.got++
}

// Many goroutines send to the same connections while some of these are closed:
// each sender's messages arrive in order, and each is received or counted.
func TestManyGoroutinesSendAndClose(t *testing.T) {
	const (
		senders = 8
		each    = 2000
		conns   = 16
	)
	everywhere(t, func(t *testing.T, o server.Options) {
		members := &crowd{}
		s := start(t, server.Handler{Open: members.open, Close: members.close}, roomy(o))
		clients, names := members.openMany(s, conns)

		var receiving sync.WaitGroup
		tallies := make([]*tally, conns)
		for i, c := range clients {
			tallies[i] = &tally{t: t, last: map[int]int{}}
			receiving.Go(func() {
				for {
					op, payload, err := c.next()
					switch {
					case err != nil:
						t.Error(err)
						return
					case op == frame.Close:
						if _, err := c.Write([]byte(closing(frame.NormalClosure, ""))); err != nil {
							t.Error(err)
						}
						return
					}
					tallies[i].hear(payload)
				}
			})
		}
		var sending sync.WaitGroup
		var accepted atomic.Int64
		for sender := range senders {
			sending.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(sender), 1))
				for n := 1; n <= each; n++ {
					to := names[rng.IntN(conns)]
					err := to.Send(frame.Text, fmt.Appendf(nil, "%d %d", sender, n))
					for ; err == server.ErrBackpressure; runtime.Gosched() {
						err = to.Send(frame.Text, fmt.Appendf(nil, "%d %d", sender, n))
					}
					switch err {
					case nil:
						accepted.Add(1)
					case server.ErrClosed:
					default:
						t.Error(err)
						return
					}
					if n == each/2 { // from here on some go nowhere; several may close one
						_ = names[sender/2].Close(frame.NormalClosure, "enough")
					}
				}
			})
		}
		sending.Wait()
		for _, m := range names {
			_ = m.Close(frame.NormalClosure, "that was all")
		}
		receiving.Wait()
		s.counted("closed_clean", conns)
		received := 0
		for _, y := range tallies {
			received += y.got
		}
		s.counted("messages_out", received)
		s.counted("undelivered", int(accepted.Load())-received)
	})
}

// A handle of an ended connection does not reach the slot's next connection.
func TestStaleHandlesReachNobody(t *testing.T) {
	const rounds = 500
	everywhere(t, func(t *testing.T, o server.Options) {
		opened := make(chan server.Conn, 1)
		h := echo
		h.Open = func(c server.Conn) { opened <- c }
		o.MaxConns = 10
		s := start(t, h, o)
		for range o.Reactors { // each reactor keeps a connection, so that its slots' generations go on
			s.open()
			<-opened
		}
		var stale []server.Conn
		slots, ids := map[uint64]bool{}, map[uint64]bool{}
		for range rounds {
			c := s.open()
			conn := <-opened
			slots[conn.ID()&(1<<32-1)] = true
			ids[conn.ID()] = true
			stale = append(stale, conn)
			c.leave()
		}
		if len(ids) != rounds || len(slots) > 3*o.Reactors {
			t.Errorf("%d connections had %d IDs and %d slots", rounds, len(ids), len(slots))
		}
		var heirs []*client
		for range 5 {
			heirs = append(heirs, s.open())
			conn := <-opened
			delete(slots, conn.ID()&(1<<32-1))
		}
		for _, conn := range stale {
			if err := conn.Send(frame.Text, []byte("for somebody else")); err != server.ErrClosed {
				t.Errorf("Send returned %v", err)
			}
			if err := conn.Close(frame.PolicyViolation, "for somebody else"); err != server.ErrClosed {
				t.Errorf("Close returned %v", err)
			}
			if messages, bytes := conn.Queued(); messages+bytes != 0 {
				t.Errorf("%d messages and %d bytes wait for an ended connection", messages, bytes)
			}
		}
		for _, c := range heirs {
			c.echoed("hello") // fails if anything comes before it
		}
		s.counted("undelivered", 0)
		if len(slots) > 0 {
			t.Errorf("%d slots were not used again", len(slots))
		}
	})
}

func TestNothingIsSentAfterTheServersEnd(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		members := &crowd{}
		s := start(t, server.Handler{Open: members.open}, o)
		clients, names := members.openMany(s, 6)
		for _, c := range clients {
			c.leave()
		}
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		for _, m := range names {
			for what, err := range map[string]error{
				"Send":      m.Send(frame.Text, []byte("hello")),
				"Close":     m.Close(frame.NormalClosure, ""),
				"Broadcast": s.Broadcast(frame.Text, []byte("hello")),
			} {
				if err != server.ErrClosed {
					t.Errorf("%s returned %v", what, err)
				}
			}
		}
		if n := s.Stats().Broadcast; n != 0 {
			t.Errorf("%d bytes of broadcasts are on their way although the server has ended", n)
		}
	})
}

// Messages that Send accepts while the reactor is stuck are sent, or counted if their
// connection has ended. Messages that it refuses are neither.
func TestSendRefusesWhatTheMailboxHasNoRoomFor(t *testing.T) {
	rows := []struct {
		name   string
		size   int
		leaves bool
	}{
		{"many messages", 10, false},
		{"much in few messages", 100_000, false},
		{"many messages for a peer that leaves", 10, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				h := newObliging()
				members := &crowd{}
				s := start(t, server.Handler{Open: members.open, Message: h.message}, roomy(o))
				clients, names := members.openMany(s, 2)
				keeper, c, to := clients[0], clients[1], names[1]
				release := h.hold(keeper)
				accepted := 0
				for to.Send(frame.Binary, []byte(numbered(accepted, row.size))) == nil {
					accepted++
				}
				if err := to.Send(frame.Binary, []byte(numbered(accepted, row.size))); err != server.ErrBackpressure {
					t.Errorf("Send returned %v", err)
				}
				if accepted == 0 || accepted*row.size > 64<<20 {
					t.Errorf("%d messages of %d bytes are waiting", accepted, row.size)
				}
				if row.leaves {
					// The reactor notices the end only after it has sent.
					c.reset()
				}
				release()
				if row.leaves {
					eventually(t, "all are counted", func() bool {
						stats := s.Stats()
						return count(stats, "messages_out")+count(stats, "undelivered") == uint64(accepted)
					})
					s.counted("closed_gone", 1)
				} else {
					for i := range accepted {
						c.expect(frame.Binary, numbered(i, row.size))
					}
					must(to.Send(frame.Text, []byte("room again")))
					c.expect(frame.Text, "room again")
					s.counted("messages_out", accepted+1)
				}
				keeper.echoed("hello")
			})
		})
	}
}
