package server_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// fates is what can become of a message that was taken.
var fates = []server.Counter{server.MessagesOut, server.DroppedNew, server.DroppedOld, server.Conflated, server.Undelivered}

// settled waits until every message that was taken has become something, and
// checks that nothing is left.
func (r *running) settled() {
	r.t.Helper()
	var taken, sum uint64
	eventually(r.t, fmt.Sprintf("%d messages are accounted for, not %d", taken, sum), func() bool {
		stats := r.Stats()
		taken, sum = stats.Count(server.MessagesTaken), 0
		for _, c := range fates {
			sum += stats.Count(c)
		}
		return taken > 0 && sum == taken && stats.Owed == 0
	})
}

// broadcastAs tries until there is room.
func broadcastAs(c server.Conn, k server.Kind, data []byte) error {
	for {
		if err := c.Server().BroadcastAs(k, frame.Binary, data, nil); err != server.ErrSlow {
			return err
		}
	}
}

func sendAs(c server.Conn, k server.Kind, data []byte) error {
	return c.SendAs(k, frame.Binary, data)
}

// openDeaf opens a connection whose peer does not read until it is told to.
func (w *crowd) openDeaf(s *running) (*client, server.Conn) {
	s.t.Helper()
	before := len(w.all())
	c := s.dialDeaf().handshake()
	eventually(s.t, "Open is called", func() bool { return len(w.all()) > before })
	return c, w.all()[before]
}

// readAll reads numbered messages until a Close frame or "the end", which is
// sent when everything before it was taken.
func (c *client) readAll(conn server.Conn, size int) (numbers []int, code frame.Code) {
	c.t.Helper()
	go func() {
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if messages, _ := conn.Owed(); messages == 0 {
				_ = conn.Send(frame.Text, []byte("the end"))
				return
			}
		}
	}()
	for {
		op, payload, err := c.next()
		switch {
		case err != nil:
			c.t.Fatalf("%v behind %d messages", err, len(numbers))
		case op == frame.Close:
			code, _ = frame.ParseClose([]byte(payload))
			return numbers, code
		case payload == "the end":
			return numbers, 0
		}
		n := number(payload)
		if payload != numbered(n, size) {
			c.t.Fatalf("got %.40q, which was never sent", payload)
		}
		numbers = append(numbers, n)
	}
}

// What a peer that does not read gets, by each policy, wherever it is said, and
// that every message is accounted for.
func TestWhatSlowPeersGet(t *testing.T) {
	const messages, size = 4000, 500
	ways := map[string]func(server.Conn, server.Kind, []byte) error{"direct": sendAs, "broadcast": broadcastAs}
	places := map[string]func(server.WhenSlow, *server.Options, *server.Handler, *server.Kind){
		"server": func(w server.WhenSlow, o *server.Options, _ *server.Handler, _ *server.Kind) { o.WhenSlow = w },
		"connection": func(w server.WhenSlow, _ *server.Options, h *server.Handler, _ *server.Kind) {
			h.Upgrade = func(r *server.Request) error { r.WhenSlow = w; return nil }
		},
		"message": func(w server.WhenSlow, _ *server.Options, _ *server.Handler, k *server.Kind) { k.WhenSlow = w },
	}
	rows := []struct {
		policy, otherwise server.WhenSlow
		as                server.Counter // how what is missing is counted
	}{
		{server.CloseSlow, server.DropNew, server.Undelivered},
		{server.DropNew, server.CloseSlow, server.DroppedNew},
		{server.DropOld, server.CloseSlow, server.DroppedOld},
		{server.Latest, server.CloseSlow, server.Conflated},
	}
	for _, row := range rows {
		for place, set := range places {
			for way, send := range ways {
				t.Run(fmt.Sprint(row.policy, " by ", place, " ", way), func(t *testing.T) {
					t.Parallel()
					everywhere(t, func(t *testing.T, o server.Options) {
						members, k := &crowd{}, server.Kind{}
						h := server.Handler{Open: members.open}
						o.WhenSlow, o.CloseTimeout = row.otherwise, patience
						set(row.policy, &o, &h, &k)
						s := start(t, h, o)
						c, conn := members.openDeaf(s)
						accepted := []int{}
						goOn := func() bool { return row.policy == server.CloseSlow && s.Stats().Count(server.ClosedOutbox) == 0 }
						for i := 0; i < messages || goOn(); i++ {
							switch err := send(conn, k, []byte(numbered(i, size))); err {
							case nil:
								accepted = append(accepted, i)
							case server.ErrSlow, server.ErrClosed:
							default:
								t.Fatal(err)
							}
						}
						s.arrived()
						numbers, code := c.readAll(conn, size)
						sent := len(numbers)
						if code == 0 {
							sent++ // the end was no number
						}
						s.counted(server.MessagesOut, sent)
						s.settled()
						if !slices.IsSorted(numbers) {
							t.Errorf("out of order: %v", numbers)
						}
						missing := int(s.Stats().Count(server.MessagesTaken)) - sent
						if n := int(s.Stats().Count(row.as)); n != missing {
							t.Errorf("%d messages are missing, %v is %d", missing, row.as, n)
						}
						switch row.policy {
						case server.CloseSlow:
							if code != frame.TryAgainLater || !slices.Equal(numbers, accepted[:len(numbers)]) {
								t.Errorf("%d of %d messages without a gap, then code %d", len(numbers), len(accepted), code)
							}
							s.counted(server.ClosedOutbox, 1)
							return
						case server.DropNew:
							if way == "broadcast" && missing == 0 {
								t.Error("nothing was dropped")
							}
						default:
							if missing == 0 || numbers[len(numbers)-1] != messages-1 {
								t.Errorf("%d are missing, the last is %d", missing, numbers[len(numbers)-1])
							}
						}
						if code != 0 {
							t.Errorf("closed with %d", code)
						}
						c.leave()
					})
				})
			}
		}
	}
}

// Senders cannot outrun a bound: what a peer that does not read is owed stays
// below it, the mailbox's part included, however many send.
func TestNobodyIsOwedMoreThanItsBound(t *testing.T) {
	const size, senders = 100, 4
	rows := map[string]server.Options{
		"bytes":    {MaxOutbox: 10_000},
		"messages": {MaxOutbox: 1 << 30, MaxOutboxMessages: 50},
	}
	for name, limits := range rows {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, o server.Options) {
				o.MaxOutbox, o.MaxOutboxMessages, o.WhenSlow = limits.MaxOutbox, limits.MaxOutboxMessages, server.DropNew
				members := &crowd{}
				s := start(t, server.Handler{Open: members.open}, o)
				_, conn := members.openDeaf(s)
				// At first only the reactor may be behind.
				eventually(t, "the peer is slow", func() bool {
					for conn.Send(frame.Binary, make([]byte, size)) == nil {
					}
					return conn.Slow()
				})
				var sending sync.WaitGroup
				for range senders {
					sending.Go(func() {
						for range 1000 {
							_ = conn.Send(frame.Binary, make([]byte, size))
							m, b := conn.Owed()
							if b > s.Options().MaxOutbox+4 || m > s.Options().MaxOutboxMessages {
								t.Errorf("%d messages and %d bytes are owed", m, b)
								return
							}
						}
					})
				}
				sending.Wait()
				if s.Stats().Count(server.SendsRefused) < senders*1000/2 {
					t.Error("hardly any was refused")
				}
			})
		})
	}
}

// All peers together are owed no more than MaxOwed.
func TestAllTogetherAreOwedABoundedPart(t *testing.T) {
	const conns, size, bound = 20, 1000, 50_000
	for _, w := range []server.WhenSlow{server.CloseSlow, server.DropNew, server.DropOld, server.Latest} {
		t.Run(w.String(), func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				members := &crowd{}
				o.WhenSlow, o.MaxOwed = w, bound
				s := start(t, server.Handler{Open: members.open}, o)
				for range conns {
					members.openDeaf(s)
				}
				for range 2000 {
					must(publish(s.Server, xs(size)))
					// A frame that was begun is never cut, so each may owe the
					// rest of one.
					if owed := s.Stats().Owed; owed > bound+conns*(size+200) {
						t.Fatalf("%d bytes are owed", owed)
					}
				}
				s.arrived()
				stats := s.Stats()
				if w == server.CloseSlow && stats.Count(server.ClosedOutbox) == 0 || w != server.CloseSlow && stats.Open != conns {
					t.Errorf("%d are open, %d were closed", stats.Open, stats.Count(server.ClosedOutbox))
				}
			})
		})
	}
}

// Of each kind that is conflated, a slow peer gets the newest; messages that
// must not be lost are not dropped for their sake.
func TestKindsAreConflatedApart(t *testing.T) {
	const kinds, rounds = 5, 300
	everywhere(t, func(t *testing.T, o server.Options) {
		members := &crowd{}
		o.MaxOutbox, o.MaxOutboxMessages = 1<<20, 1<<12
		s := start(t, server.Handler{Open: members.open}, o)
		c, conn := members.openDeaf(s)
		text := func(kind, round int) string { return fmt.Sprint(kind, " ", round, " ", xs(1000)) }
		for round := range rounds {
			must(broadcastAs(conn, server.Kind{}, []byte(fmt.Sprint("kept ", round))))
			for kind := range kinds {
				must(broadcastAs(conn, server.Kind{ID: uint32(kind), WhenSlow: server.Latest}, []byte(text(kind, round))))
			}
			s.arrived()
		}
		kept, newest := 0, map[string]string{}
		for len(newest) < kinds || slices.ContainsFunc(maps(newest), func(round string) bool { return round != fmt.Sprint(rounds-1) }) || kept < rounds {
			_, payload, err := c.next()
			if err != nil {
				t.Fatalf("%v; %d are kept, the newest are %v", err, kept, newest)
			}
			words := strings.SplitN(payload, " ", 3)
			if words[0] != "kept" {
				newest[words[0]] = words[1]
				continue
			}
			if words[1] != fmt.Sprint(kept) {
				t.Fatalf("%q came as number %d", payload, kept)
			}
			kept++
		}
		s.settled()
		if s.Stats().Count(server.Conflated) == 0 {
			t.Error("nothing was conflated")
		}
		c.leave()
	})
}

func maps(m map[string]string) (values []string) {
	for _, v := range m {
		values = append(values, v)
	}
	return values
}

// Slow and Drained alternate; after a Send that was refused there is always a
// Drained, and then there is room.
func TestAHandlerHearsWhoIsSlow(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.WhenSlow = server.DropNew
		members := &crowd{}
		var slow atomic.Int32
		turns := make(chan string, 1000)
		s := start(t, server.Handler{
			Open: members.open,
			Slow: func(server.Conn) { slow.Add(1); turns <- "slow" },
			Drained: func(c server.Conn) {
				slow.Add(-1)
				turns <- "drained"
			},
		}, o)
		c, conn := members.openDeaf(s)
		for range 5 {
			sent := 0
			for conn.Send(frame.Binary, make([]byte, 1000)) == nil {
				sent++
			}
			if got := <-turns; got != "slow" {
				t.Fatalf("heard %q first", got)
			}
			for range sent {
				c.expect(frame.Binary, string(make([]byte, 1000)))
			}
			if got := <-turns; got != "drained" {
				t.Fatalf("heard %q then", got)
			}
			if _, b := conn.Owed(); b > o.MaxOutbox/8 && slow.Load() == 0 {
				t.Errorf("%d bytes are still owed", b)
			}
		}
		c.leave()
		eventually(t, "nobody is slow", func() bool {
			stats := s.Stats()
			return stats.Open == 0 && stats.Count(server.SlowBegins) == stats.Count(server.SlowEnds)
		})
	})
}

// Even if only the reactor was too busy, a sender that was refused hears when
// it can go on.
func TestDrainedComesWhenOnlyTheReactorWasBusy(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		members, h := &crowd{}, newObliging()
		drained := make(chan server.Conn, 10)
		s := start(t, server.Handler{Open: members.open, Message: h.message, Drained: func(c server.Conn) { drained <- c }}, o)
		clients, names := members.openMany(s, 2)
		release := h.hold(clients[0])
		sent := 0
		for names[1].Send(frame.Binary, make([]byte, 1000)) == nil {
			sent++
		}
		release()
		for range sent {
			clients[1].expect(frame.Binary, string(make([]byte, 1000)))
		}
		if c := <-drained; c != names[1] {
			t.Error("another was drained")
		}
		must(names[1].Send(frame.Text, []byte("room again")))
		clients[1].expect(frame.Text, "room again")
		s.counted(server.ClosedOutbox, 0)
	})
}

// A receipt's numbers are the connections that were open, each once.
func TestReceipts(t *testing.T) {
	const readers, deaf, size = 20, 5, 2000
	rows := map[server.WhenSlow]func(server.Receipt) int{
		server.CloseSlow: func(r server.Receipt) int { return r.Closed },
		server.DropNew:   func(r server.Receipt) int { return r.Dropped },
		server.DropOld:   func(r server.Receipt) int { return r.Owed },
	}
	for w, became := range rows {
		t.Run(w.String(), func(t *testing.T) {
			everywhere(t, func(t *testing.T, o server.Options) {
				o.WhenSlow = w
				members := &crowd{}
				s := start(t, server.Handler{Open: members.open}, o)
				clients, _ := members.openMany(s, readers)
				for range deaf {
					members.openDeaf(s)
				}
				begin, full := time.Now(), 0
				for n := 0; full < 3; n++ {
					receipts := make(chan server.Receipt, 1)
					must(s.BroadcastAs(server.Kind{}, frame.Binary, []byte(numbered(n, size)), func(r server.Receipt) { receipts <- r }))
					for _, c := range clients {
						c.expect(frame.Binary, numbered(n, size))
					}
					got := <-receipts
					sum := got.Sent + got.Owed + got.Dropped + got.Closed
					if got.Sent < readers || w != server.CloseSlow && sum != readers+deaf || sum > readers+deaf {
						t.Fatalf("broadcast %d: %+v", n, got)
					}
					if got.Last.Before(begin) || got.Last.After(time.Now()) {
						t.Errorf("the last was sent to at %v", got.Last)
					}
					if w == server.CloseSlow {
						full += became(got)
					} else if became(got) == deaf {
						full++
					}
				}
			})
		})
	}
}

// Who broadcasts more than can be sent is slowed down. Nothing is lost, and
// others are served.
func TestWhoBroadcastsTooMuchIsSlowedDown(t *testing.T) {
	const messages, size, bound = 2000, 1000, 20_000
	everywhere(t, func(t *testing.T, o server.Options) {
		o.MaxPublished = bound
		s := start(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
			if op == frame.Text {
				must(c.Send(op, data))
				return
			}
			must(c.Broadcast(op, data))
			// Each that is slowed down may have one message over.
			if n := c.Server().Published(); n > bound+3*(size+10) {
				t.Errorf("%d bytes are on their way", n)
			}
		}}, o)
		clients := s.openMany(8)
		var wire strings.Builder
		for i := range messages {
			wire.WriteString(message(frame.Binary, numbered(i, size)))
		}
		clients[0].writing(wire.String())
		clients[1].writing(wire.String())
		var hearing sync.WaitGroup
		for _, c := range clients {
			hearing.Go(func() {
				next := [2]int{}
				for next[0]+next[1] < 2*messages {
					_, payload, err := c.next()
					if err != nil {
						t.Error(err)
						return
					}
					n := number(payload)
					switch n {
					case next[0]:
						next[0]++
					case next[1]:
						next[1]++
					default:
						t.Errorf("heard %d behind %v", n, next)
						return
					}
				}
			})
		}
		hearing.Wait()
		clients[2].echoed("hello")
		s.counted(server.MessagesIn, 2*messages+1)
	})
}

// What was published is in the census within seconds, and how connections
// ended is remembered.
func TestTheCensus(t *testing.T) {
	const deaf, size = 3, 30_000
	onBothTables(t, func(t *testing.T, o server.Options) {
		t.Parallel()
		members := &crowd{}
		o.MaxOutbox, o.WhenSlow, o.CloseTimeout = 1<<20, server.DropNew, time.Second
		s := start(t, server.Handler{Open: members.open}, o)
		members.openMany(s, 5)
		s.dial()
		names := map[uint64]bool{}
		for range deaf {
			_, conn := members.openDeaf(s)
			names[conn.ID()] = true
			for conn.Send(frame.Binary, make([]byte, size)) == nil {
			}
		}
		eventually(t, "the census is right", func() bool {
			n := s.Census()
			return n.Handshaking == 1 && n.Open == 5+deaf && n.Slow == deaf && n.Owed.Count() == deaf && len(n.Slowest) == deaf
		})
		n := s.Census()
		sum := 0
		for _, p := range n.Slowest {
			if !names[p.ID] || p.Messages == 0 || p.Bytes == 0 || p.Kernel == 0 || !p.Remote.IsValid() {
				t.Errorf("slow: %+v", p)
			}
			sum += p.Bytes
		}
		if n.Owed.Sum != uint64(sum) || s.Stats().Owed < int64(sum) {
			t.Errorf("%d bytes are owed, %d by name, %d now", n.Owed.Sum, sum, s.Stats().Owed)
		}
		for _, id := range []uint64{0, 1 << 22, 1<<63 | 1<<31} {
			if err := s.CloseID(id, frame.PolicyViolation, ""); err != server.ErrClosed {
				t.Errorf("closing %#x, which is nobody, returned %v", id, err)
			}
		}
		for id := range names {
			must(s.CloseID(id, frame.PolicyViolation, "enough"))
		}
		eventually(t, "they are closed", func() bool { return len(s.Endings()) == deaf })
		for _, e := range s.Endings() {
			if !names[e.ID] || e.Cause == "" || e.Owed == 0 {
				t.Errorf("ended: %+v", e)
			}
			eventually(t, "it is gone", func() bool { return s.CloseID(e.ID, frame.PolicyViolation, "") == server.ErrClosed })
		}
		eventually(t, "nobody is slow", func() bool { return s.Census().Slow == 0 && len(s.Census().Slowest) == 0 })
	})
}

// However many end, the last thousand are remembered, the latest first.
func TestTheLastEndings(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		s := start(t, server.Handler{}, o)
		for range 1100 {
			s.open().leave()
		}
		s.counted(server.ClosedClean, 1100)
		all := s.Endings()
		if len(all) != 1000 {
			t.Fatalf("%d endings", len(all))
		}
		for i, e := range all[1:] {
			if e.Time.After(all[i].Time) {
				t.Fatal("a later one came behind")
			}
		}
	})
}
