package server_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// fates are the counters of what becomes of an accepted message.
var fates = []string{"messages_out", "dropped_new", "dropped_old", "conflated", "undelivered"}

// settled waits until every accepted message has been sent or counted, and checks that
// nothing is left.
func (r *running) settled() {
	r.t.Helper()
	var taken, sum uint64
	eventually(r.t, fmt.Sprintf("%d messages are accounted for, not %d", taken, sum), func() bool {
		stats := r.Stats()
		taken, sum = count(stats, "messages_accepted"), 0
		for _, c := range fates {
			sum += count(stats, c)
		}
		return taken > 0 && sum == taken && stats.Outbox == 0
	})
}

// broadcastAs tries until there is room.
func broadcastAs(c server.Conn, k server.Kind, data []byte) error {
	for {
		if err := c.Server().BroadcastAs(k, frame.Binary, data, nil); err != server.ErrBackpressure {
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
	c := s.dialDeaf()
	if s.Options().Compress {
		c.agree()
	} else {
		c.handshake()
	}
	eventually(s.t, "Open is called", func() bool { return len(w.all()) > before })
	return c, w.all()[before]
}

// readAll reads numbered messages until a Close frame, or until "the end". It sends
// that when the outbox is empty.
func (c *client) readAll(conn server.Conn, size int) (numbers []int, code frame.Code) {
	c.t.Helper()
	over := make(chan struct{})
	defer close(over)
	go func() {
		// No event says that everything was taken, so this polls.
		for {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
			}
			if messages, _ := conn.Queued(); messages == 0 && conn.Send(frame.Text, []byte("the end")) != server.ErrBackpressure {
				return
			}
		}
	}()
	for {
		must(c.SetDeadline(time.Now().Add(patience))) // not for all together: such a peer is slow
		op, payload, err := c.next()
		switch {
		case err != nil:
			c.t.Fatalf("%v after %d messages", err, len(numbers))
		case op == frame.Close:
			code, _ = frame.ParseClose([]byte(payload))
			return numbers, code
		case payload == "the end":
			return numbers, 0
		}
		n := number(payload)
		if payload != noisy(n, size) {
			c.t.Fatalf("got %.40q, which was never sent", payload)
		}
		numbers = append(numbers, n)
	}
}

// noisy is numbered, with a filler that hardly gets shorter by compression.
func noisy(i, size int) string {
	filler := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}).Read(filler)
	return (fmt.Sprintf("%d ", i) + base64.StdEncoding.EncodeToString(filler))[:size]
}

// A peer that does not read gets what the policy says, whether the policy is the
// server's, the connection's or the message's, and whether its messages are compressed
// or not. Every message is accounted for.
func TestOutboxPolicies(t *testing.T) {
	ways := []struct {
		name     string
		send     func(server.Conn, server.Kind, []byte) error
		compress bool
		messages int // at least
		size     int // of a message; with -race each takes long to compress
	}{
		{"direct", sendAs, false, 4000, 500}, {"broadcast", broadcastAs, false, 4000, 500},
		{"direct, compressed", sendAs, true, 100, 5000}, {"broadcast, compressed", broadcastAs, true, 100, 5000},
	}
	places := map[string]func(server.OutboxPolicy, *server.Options, *server.Handler, *server.Kind){
		"server": func(w server.OutboxPolicy, o *server.Options, _ *server.Handler, _ *server.Kind) { o.OutboxPolicy = w },
		"connection": func(w server.OutboxPolicy, _ *server.Options, h *server.Handler, _ *server.Kind) {
			h.Upgrade = func(r *server.Request) error { r.Policy = w; return nil }
		},
		"message": func(w server.OutboxPolicy, _ *server.Options, _ *server.Handler, k *server.Kind) { k.Policy = w },
	}
	rows := []struct {
		policy, otherwise server.OutboxPolicy
		as                string // the counter of missing messages
	}{
		{server.OutboxClose, server.OutboxDropNew, "undelivered"},
		{server.OutboxDropNew, server.OutboxClose, "dropped_new"},
		{server.OutboxDropOld, server.OutboxClose, "dropped_old"},
		{server.OutboxLatest, server.OutboxClose, "conflated"},
	}
	for _, row := range rows {
		for place, set := range places {
			for _, way := range ways {
				if way.compress && place != "message" {
					continue
				}
				broadcasts := strings.HasPrefix(way.name, "broadcast")
				t.Run(fmt.Sprint(row.policy, " by ", place, " ", way.name), func(t *testing.T) {
					t.Parallel()
					everywhere(t, func(t *testing.T, o server.Options) {
						members, k := &crowd{}, server.Kind{}
						h := server.Handler{Open: members.open}
						o.OutboxPolicy, o.Compress = row.otherwise, way.compress
						o.CloseTimeout, o.WriteTimeout = 10*patience, 10*patience // many slow peers at once
						set(row.policy, &o, &h, &k)
						s := start(t, h, o)
						c, conn := members.openDeaf(s)
						accepted := []int{}
						last := 0
						goOn := func() bool { // the socket may take much before the outbox fills
							switch row.policy {
							case server.OutboxClose:
								return count(s.Stats(), "closed_outbox") == 0
							case server.OutboxDropNew:
								return broadcasts && count(s.Stats(), row.as) == 0 // Send refuses instead
							}
							return count(s.Stats(), row.as) == 0
						}
						for i := 0; i < way.messages || goOn(); i++ {
							last = i
							switch err := way.send(conn, k, []byte(noisy(i, way.size))); err {
							case nil:
								accepted = append(accepted, i)
							case server.ErrBackpressure, server.ErrClosed:
							default:
								t.Fatal(err)
							}
						}
						s.arrived()
						numbers, code := c.readAll(conn, way.size)
						sent := len(numbers)
						if code == 0 {
							sent++ // for "the end"
						}
						s.counted("messages_out", sent)
						s.settled()
						if !slices.IsSorted(numbers) {
							t.Errorf("out of order: %v", numbers)
						}
						missing := int(count(s.Stats(), "messages_accepted")) - sent
						if n := int(count(s.Stats(), row.as)); n != missing {
							t.Errorf("%d messages are missing, %v is %d", missing, row.as, n)
						}
						switch row.policy {
						case server.OutboxClose:
							if code != frame.TryAgainLater || !slices.Equal(numbers, accepted[:len(numbers)]) {
								t.Errorf("%d of %d messages without a gap, then code %d", len(numbers), len(accepted), code)
							}
							s.counted("closed_outbox", 1)
							return
						case server.OutboxDropNew:
							if broadcasts && missing == 0 {
								t.Error("nothing was dropped")
							}
						default:
							if missing == 0 || numbers[len(numbers)-1] != last {
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

// However many goroutines send to a peer that does not read, its outbox and its part of
// the mailbox stay within MaxOutbox.
func TestAnOutboxStaysWithinItsBound(t *testing.T) {
	const size, senders = 100, 4
	rows := map[string]server.Options{
		"bytes":    {MaxOutbox: 10_000},
		"messages": {MaxOutbox: 1 << 30, MaxOutboxMessages: 50},
	}
	for name, limits := range rows {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, o server.Options) {
				o.MaxOutbox, o.MaxOutboxMessages, o.OutboxPolicy = limits.MaxOutbox, limits.MaxOutboxMessages, server.OutboxDropNew
				members := &crowd{}
				s := start(t, server.Handler{Open: members.open}, o)
				_, conn := members.openDeaf(s)
				// At first, perhaps only the reactor is late.
				eventually(t, "the peer is slow", func() bool {
					for conn.Send(frame.Binary, make([]byte, size)) == nil {
					}
					return s.Stats().Outbox > 0
				})
				var sending sync.WaitGroup
				for range senders {
					sending.Go(func() {
						for range 1000 {
							_ = conn.Send(frame.Binary, make([]byte, size))
							m, b := conn.Queued()
							if b > s.Options().MaxOutbox+4 || m > s.Options().MaxOutboxMessages {
								t.Errorf("%d messages and %d bytes are in the outbox", m, b)
								return
							}
						}
					})
				}
				sending.Wait()
				if count(s.Stats(), "sends_refused") < senders*1000/2 {
					t.Error("hardly any message was refused")
				}
			})
		})
	}
}

// All outboxes together stay within MaxOutboxTotal.
func TestAllOutboxesTogetherAreBounded(t *testing.T) {
	const conns, size, bound = 20, 1000, 50_000
	for _, w := range []server.OutboxPolicy{server.OutboxClose, server.OutboxDropNew, server.OutboxDropOld, server.OutboxLatest} {
		t.Run(w.String(), func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				members := &crowd{}
				o.OutboxPolicy, o.MaxOutboxTotal = w, bound
				s := start(t, server.Handler{Open: members.open}, o)
				for range conns {
					members.openDeaf(s)
				}
				for range 2000 {
					must(publish(s.Server, xs(size)))
					// A frame that was begun is sent to its end, so each outbox may
					// exceed its part by the rest of one.
					if owed := s.Stats().Outbox; owed > bound+conns*(size+200) {
						t.Fatalf("%d bytes are in all outboxes", owed)
					}
				}
				s.arrived()
				if w == server.OutboxClose {
					eventually(t, "somebody was cut off", func() bool { return count(s.Stats(), "closed_outbox") > 0 })
				} else if open := s.Stats().Open; open != conns {
					t.Errorf("%d are open", open)
				}
			})
		})
	}
}

// A slow peer gets the newest message of each kind that is conflated. No message that
// must not be lost is dropped for it.
func TestKindsAreConflatedSeparately(t *testing.T) {
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
				must(broadcastAs(conn, server.Kind{ID: uint32(kind), Policy: server.OutboxLatest}, []byte(text(kind, round))))
			}
			s.arrived()
		}
		kept, newest := 0, map[string]string{}
		for len(newest) < kinds || slices.ContainsFunc(valuesOf(newest), func(round string) bool { return round != fmt.Sprint(rounds-1) }) || kept < rounds {
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
		if count(s.Stats(), "conflated") == 0 {
			t.Error("nothing was conflated")
		}
		c.leave()
	})
}

func valuesOf(m map[string]string) (values []string) {
	for _, v := range m {
		values = append(values, v)
	}
	return values
}

// Calls of Backpressure alternate between true and false. After a refused Send there is
// always a call with false, and then there is room.
func TestBackpressureIsReported(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.OutboxPolicy = server.OutboxDropNew
		members := &crowd{}
		var slow atomic.Int32
		turns := make(chan string, 1000)
		s := start(t, server.Handler{
			Open: members.open,
			Backpressure: func(_ server.Conn, high bool) {
				if high {
					slow.Add(1)
					turns <- "high"
				} else {
					slow.Add(-1)
					turns <- "low"
				}
			},
		}, o)
		c, conn := members.openDeaf(s)
		for range 5 {
			sent := 0
			for conn.Send(frame.Binary, make([]byte, 1000)) == nil {
				sent++
			}
			if got := <-turns; got != "high" {
				t.Fatalf("the first call was %q, want high", got)
			}
			for range sent {
				c.expect(frame.Binary, string(make([]byte, 1000)))
			}
			if got := <-turns; got != "low" {
				t.Fatalf("the second call was %q, want low", got)
			}
			// A message may arrive before it is taken off the outbox.
			eventually(t, "little is in the outbox of a peer that is not slow", func() bool {
				_, b := conn.Queued()
				return b <= s.Options().MaxOutbox/8 || slow.Load() > 0
			})
		}
		c.leave()
		eventually(t, "nobody is slow", func() bool {
			stats := s.Stats()
			return stats.Open == 0 && count(stats, "outbox_high") == count(stats, "outbox_low")
		})
	})
}

// Backpressure is also called after a refused Send if only the reactor was busy.
func TestBackpressureEndsWhenOnlyTheReactorWasBusy(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		members, h := &crowd{}, newObliging()
		drained := make(chan server.Conn, 10)
		s := start(t, server.Handler{Open: members.open, Message: h.message, Backpressure: func(c server.Conn, high bool) {
			if !high {
				drained <- c
			}
		}}, o)
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
			t.Error("Backpressure was called for another connection")
		}
		must(names[1].Send(frame.Text, []byte("room again")))
		clients[1].expect(frame.Text, "room again")
		s.counted("closed_outbox", 0)
	})
}

// A receipt counts each connection that was open once.
func TestReceipts(t *testing.T) {
	const readers, deaf, size = 20, 5, 2000
	rows := map[server.OutboxPolicy]func(server.Receipt) int{
		server.OutboxClose:   func(r server.Receipt) int { return r.Closed },
		server.OutboxDropNew: func(r server.Receipt) int { return r.Dropped },
		server.OutboxDropOld: func(r server.Receipt) int { return r.Queued },
	}
	for w, became := range rows {
		t.Run(w.String(), func(t *testing.T) {
			everywhere(t, func(t *testing.T, o server.Options) {
				o.OutboxPolicy = w
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
					sum := got.Sent + got.Queued + got.Dropped + got.Closed
					if got.Sent < readers || w != server.OutboxClose && sum != readers+deaf || sum > readers+deaf {
						t.Fatalf("broadcast %d: %+v", n, got)
					}
					if got.Last.Before(begin) || got.Last.After(time.Now()) {
						t.Errorf("the last was sent to at %v", got.Last)
					}
					if w == server.OutboxClose {
						full += became(got)
					} else if became(got) == deaf {
						full++
					}
				}
			})
		})
	}
}

// A connection that broadcasts more than can be sent is throttled. Nothing is lost, and
// other connections are served.
func TestFastPublishersAreThrottled(t *testing.T) {
	const messages, size, bound = 2000, 1000, 20_000
	everywhere(t, func(t *testing.T, o server.Options) {
		o.MaxBroadcast = bound
		s := start(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
			if op == frame.Text {
				must(c.Send(op, data))
				return
			}
			must(c.Broadcast(op, data))
			// Each throttled connection may exceed it by one message.
			if n := c.Server().Stats().Broadcast; n > bound+3*(size+10) {
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
						t.Errorf("received %d after %v", n, next)
						return
					}
				}
			})
		}
		hearing.Wait()
		clients[2].echoed("hello")
		s.counted("messages_in", 2*messages+1)
	})
}

// The census shows outboxes within seconds, and how the last connections ended.
func TestTheCensus(t *testing.T) {
	const deaf, size = 3, 30_000
	onBothTables(t, func(t *testing.T, o server.Options) {
		t.Parallel()
		members := &crowd{}
		o.MaxOutbox, o.OutboxPolicy, o.CloseTimeout = 1<<20, server.OutboxDropNew, time.Second
		s := start(t, server.Handler{Open: members.open}, o)
		members.openMany(s, 5)
		s.dial()
		names := map[uint64]bool{}
		for i := range deaf {
			_, conn := members.openDeaf(s)
			names[conn.ID()] = true
			eventually(t, "it is slow", func() bool {
				for conn.Send(frame.Binary, make([]byte, size)) == nil {
				}
				n := s.Census()
				return n.Slow == i+1 && n.Outbox.Count() == uint64(i+1)
			})
		}
		eventually(t, "the census is right", func() bool {
			n := s.Census()
			return n.Handshaking == 1 && n.Open == 5+deaf && n.Slow == deaf && n.Outbox.Count() == deaf && len(n.Largest) == deaf
		})
		n := s.Census()
		sum := 0
		for _, p := range n.Largest {
			if !names[p.ID] || p.Messages == 0 || p.Bytes == 0 || p.Kernel == 0 || !p.Remote.IsValid() {
				t.Errorf("slow: %+v", p)
			}
			sum += p.Bytes
		}
		if n.Outbox.Sum != uint64(sum) || s.Stats().Outbox < int64(sum) {
			t.Errorf("the outboxes have %d bytes, the listed ones %d, Stats says %d", n.Outbox.Sum, sum, s.Stats().Outbox)
		}
		for _, id := range []uint64{0, 1 << 22, 1<<63 | 1<<31} {
			if err := s.CloseID(id, frame.PolicyViolation, ""); err != server.ErrClosed {
				t.Errorf("closing %#x, which is no connection, returned %v", id, err)
			}
		}
		for id := range names {
			must(s.CloseID(id, frame.PolicyViolation, "enough"))
		}
		eventually(t, "they are closed", func() bool { return len(s.Endings()) == deaf })
		for _, e := range s.Endings() {
			if !names[e.ID] || e.Cause == "" || e.Outbox == 0 {
				t.Errorf("ended: %+v", e)
			}
			eventually(t, "it is gone", func() bool { return s.CloseID(e.ID, frame.PolicyViolation, "") == server.ErrClosed })
		}
		eventually(t, "nobody is slow", func() bool { return s.Census().Slow == 0 && len(s.Census().Largest) == 0 })
	})
}

// The last thousand endings are kept, the latest first.
func TestTheLastEndings(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		s := start(t, server.Handler{}, o)
		for range 1100 {
			s.open().leave()
		}
		s.counted("closed_clean", 1100)
		all := s.Endings()
		if len(all) != 1000 {
			t.Fatalf("%d endings", len(all))
		}
		for i, e := range all[1:] {
			if e.Time.After(all[i].Time) {
				t.Fatal("the endings are not in order, the latest first")
			}
		}
	})
}
