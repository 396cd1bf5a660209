package server_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// publish broadcasts, and tries again while there is no room.
func publish(s *server.Server, payload string) error {
	for {
		if err := s.Broadcast(frame.Text, []byte(payload)); err != server.ErrBackpressure {
			return err
		}
		runtime.Gosched()
	}
}

func TestABroadcastReachesEverybodyOnce(t *testing.T) {
	const conns, messages = 100, 50
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, echo, o)
		clients := s.openMany(conns)
		for i := range messages {
			must(publish(s.Server, numbered(i, i*20)))
		}
		for _, c := range clients {
			for i := range messages {
				c.expect(frame.Text, numbered(i, i*20))
			}
			c.echoed("and nothing more")
		}
		s.counted("messages_out", conns*messages+conns)
	})
}

func TestABroadcastOfAPeerReachesEverybody(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
			must(c.Server().Broadcast(op, data))
		}}, o)
		clients := s.openMany(10)
		for i, speaker := range clients {
			op := frame.Text
			if i%2 == 0 {
				op = frame.Binary
			}
			speaker.send(op, fmt.Sprint(i))
			for _, c := range clients {
				c.expect(op, fmt.Sprint(i))
			}
		}
	})
}

// arrived waits until no broadcast is on its way.
func (r *running) arrived() {
	r.t.Helper()
	eventually(r.t, "all broadcasts have arrived", func() bool { return r.Stats().Broadcast == 0 })
}

func TestABroadcastWithoutConnectionsIsDoneAtOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.MaxBroadcast = 1000
		s := start(t, echo, o)
		for range 100 {
			must(publish(s.Server, xs(100)))
		}
		s.arrived()
		c := s.open()
		c.echoed("nothing was left for me")
		c.leave()
		must(publish(s.Server, "after everybody has left"))
		s.arrived()
		s.counted("messages_out", 1)
	})
}

func TestALaterConnectionGetsLaterBroadcasts(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, echo, o)
		members := s.openMany(5)
		for i := range 20 {
			must(publish(s.Server, fmt.Sprint(i)))
			for j, c := range members {
				c.expect(frame.Text, fmt.Sprint(i))
				if j == 0 {
					s.arrived()
				}
			}
			members = append(members, s.open())
		}
		for _, c := range members {
			c.echoed("and nothing more")
		}
	})
}

// Broadcasts are refused while too many are on their way to a reactor that is stuck.
// Connections of other reactors do not wait for it.
func TestBroadcastsBeyondTheBoundAreRefused(t *testing.T) {
	const size, limit, cost = 1000, 10_000, 1000 + 10 + 512
	everywhere(t, func(t *testing.T, o server.Options) {
		h := newObliging()
		members := &crowd{}
		o.MaxBroadcast = limit
		o.Mode = server.Inline // to hold a reactor
		s := start(t, server.Handler{Open: members.open, Message: h.message}, o)
		clients, names := members.openMany(s, 3*o.Reactors)
		for round := range 3 {
			release := h.hold(clients[0])
			accepted := 0
			for s.Broadcast(frame.Text, []byte(numbered(accepted, size))) == nil {
				accepted++
			}
			if err := s.Broadcast(frame.Text, []byte(numbered(accepted, size))); err != server.ErrBackpressure {
				t.Errorf("Broadcast returned %v", err)
			}
			if accepted != (limit+cost-1)/cost { // the last may exceed the limit
				t.Errorf("round %d: %d broadcasts of %d bytes are on their way", round, accepted, size)
			}
			for i, c := range clients {
				if names[i].Reactor() != names[0].Reactor() {
					expectNumbers(c, accepted, size)
				}
			}
			release()
			for i, c := range clients {
				if names[i].Reactor() == names[0].Reactor() {
					expectNumbers(c, accepted, size)
				}
			}
			s.arrived()
		}
		// A single broadcast is accepted whatever its size.
		must(s.Broadcast(frame.Text, []byte(xs(2*limit))))
		for _, c := range clients {
			c.expect(frame.Text, xs(2*limit))
		}
	})
}

func expectNumbers(c *client, n, size int) {
	c.t.Helper()
	for i := range n {
		c.expect(frame.Text, numbered(i, size))
	}
}

// A peer that does not read for a while loses nothing, and nobody waits for it. Its
// outbox copies or shares frames, depending on their size.
func TestSlowReceiversCatchUp(t *testing.T) {
	const messages = 600
	size := func(i int) int { return i % 7 * 200 }
	everywhere(t, func(t *testing.T, o server.Options) {
		members := &crowd{}
		s := start(t, server.Handler{Open: members.open}, roomy(o))
		slow := s.dialDeaf().handshake()
		quick := s.open()
		eventually(t, "both are open", func() bool { return len(members.all()) == 2 })
		to := members.all()
		for i := range messages {
			if i%5 == 4 {
				for _, m := range to {
					must(m.Send(frame.Text, []byte(numbered(i, size(i)))))
				}
			} else {
				must(publish(s.Server, numbered(i, size(i))))
			}
			quick.expect(frame.Text, numbered(i, size(i)))
		}
		s.arrived() // the rest is in the connections' outboxes
		for i := range messages {
			slow.expect(frame.Text, numbered(i, size(i)))
		}
		slow.write(closing(frame.NormalClosure, ""))
		slow.expectClose(frame.NormalClosure)
		s.counted("messages_out", 2*messages)
	})
}

func TestPeersThatLeaveDuringAPassHarmNobody(t *testing.T) {
	const conns, messages = 60, 200
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, server.Handler{}, roomy(o))
		clients := s.openMany(conns)
		var leaving sync.WaitGroup
		for i, c := range clients {
			switch i % 4 {
			case 0:
				leaving.Go(c.reset)
			case 1:
				leaving.Go(func() { c.Close() })
			case 2:
				leaving.Go(func() {
					c.write(closing(frame.NormalClosure, ""))
					c.expectCut()
				})
			}
			for j := i * messages / conns; j < (i+1)*messages/conns; j++ {
				must(publish(s.Server, numbered(j, 300)))
			}
		}
		for i := 3; i < conns; i += 4 {
			expectNumbers(clients[i], messages, 300)
		}
		leaving.Wait()
		s.arrived()
		eventually(t, "the leavers have left", func() bool { return s.Stats().Open == conns/4 })
	})
}

// publisher sends messages with two numbers: of the message, and of the broadcast.
type publisher struct {
	name, messages, broadcasts int
	rng                        *rand.Rand
}

// next sends one message, to one connection or to all. A message that is refused, or
// whose receiver has left, uses up no number.
func (p *publisher) next(s *server.Server, members *crowd) error {
	to, ok := members.any(p.rng)
	send, broadcasts := to.Send, p.broadcasts
	everybody := !ok || p.rng.IntN(2) == 0
	if everybody {
		send = s.Broadcast
		broadcasts++
	}
	pad := xs(p.rng.IntN(2) * p.rng.IntN(400))
	err := send(frame.Text, fmt.Appendf(nil, "%d %d %d %v %s", p.name, p.messages+1, broadcasts, everybody, pad))
	switch {
	case err == nil:
		p.messages, p.broadcasts = p.messages+1, broadcasts
	case err == server.ErrClosed && !everybody:
		return nil
	}
	return err
}

// listener checks that each publisher's messages come in order, and that none of its
// broadcasts is missing or comes twice.
type listener struct {
	messages, broadcasts map[int]int
	late                 bool // came after the first broadcast, so may begin anywhere
	heard                int
}

func newListener(late bool) *listener {
	return &listener{map[int]int{}, map[int]int{}, late, 0}
}

func (l *listener) hear(payload string) error {
	var name, message, broadcast int
	var everybody bool
	if n, _ := fmt.Sscanf(payload, "%d %d %d %t", &name, &message, &broadcast, &everybody); n != 4 {
		return fmt.Errorf("%q is no message", payload)
	}
	l.heard++
	if last := l.messages[name]; message <= last {
		return fmt.Errorf("publisher %d: message %d came after %d", name, message, last)
	}
	l.messages[name] = message
	last, known := l.broadcasts[name]
	want := last
	if everybody {
		want++
	}
	// A direct message also has the number of broadcasts before it.
	if broadcast != want && (known || !l.late) {
		return fmt.Errorf("publisher %d: %d broadcasts where %d should have been (%.40q)", name, broadcast, want, payload)
	}
	l.broadcasts[name] = broadcast
	return nil
}

// Publishers broadcast and send, some on goroutines of their own, one in a handler.
// The receivers are members that stay, and guests that come and go in all ways.
func TestMessagesOfEachPublisherComeInOrder(t *testing.T) {
	const (
		publishers = 4
		each       = 1500
		stayers    = 12
		visitors   = 4
	)
	everywhere(t, func(t *testing.T, o server.Options) {
		members := &crowd{}
		inside := &publisher{name: publishers, rng: rand.New(rand.NewPCG(publishers, 1))}
		s := start(t, server.Handler{
			Open:  members.open,
			Close: members.close,
			Message: func(c server.Conn, _ frame.Op, _ []byte) {
				if err := inside.next(c.Server(), members); err != server.ErrBackpressure { // a handler must not wait
					must(err)
				}
			},
		}, roomy(o))
		clients := s.openMany(stayers)

		var staying, visiting, publishing sync.WaitGroup
		var over atomic.Bool
		for _, c := range clients {
			staying.Go(func() {
				l := newListener(false)
				for {
					_, payload, err := c.next()
					if err == nil && payload == "the end" {
						if got := l.broadcasts[0]; got == 0 {
							t.Error("nothing was broadcast")
						}
						return
					}
					if err := errors.Join(err, l.hear(payload)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for v := range visitors {
			visiting.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(v), 2))
				for !over.Load() {
					if err := visit(s, rng); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for p := range publishers {
			publishing.Go(func() {
				p := &publisher{name: p, rng: rand.New(rand.NewPCG(uint64(p), 1))}
				for p.messages < each {
					switch err := p.next(s.Server, members); err {
					case nil:
					case server.ErrBackpressure:
						runtime.Gosched()
					default:
						t.Error(err)
						return
					}
				}
			})
		}
		for range each / 10 {
			clients[0].send(frame.Text, "go")
		}
		s.counted("messages_in", each/10)
		publishing.Wait()
		over.Store(true)
		visited := make(chan struct{})
		go func() {
			visiting.Wait()
			close(visited)
		}()
		for { // again, for guests that have come in the meantime
			must(publish(s.Server, "the end"))
			select {
			case <-visited:
				staying.Wait()
				return
			default:
				s.arrived()
			}
		}
	})
}

// visit opens a connection, listens for a while and leaves in some way.
func visit(s *running, rng *rand.Rand) error {
	c, err := s.guest()
	if err != nil {
		return err
	}
	defer c.Close()
	l := newListener(true)
	for stay := rng.IntN(60); l.heard < stay; {
		_, payload, err := c.next()
		if err == nil && payload == "the end" {
			return nil
		}
		if err := errors.Join(err, l.hear(payload)); err != nil {
			return err
		}
	}
	switch rng.IntN(3) {
	case 0:
		return c.SetLinger(0)
	case 1:
		return nil
	}
	if _, err := io.WriteString(c.TCPConn, closing(frame.NormalClosure, "")); err != nil {
		return err
	}
	for {
		op, payload, err := c.next()
		if op == frame.Close || err != nil {
			return err
		}
		if !strings.HasPrefix(payload, "the end") {
			if err := l.hear(payload); err != nil {
				return err
			}
		}
	}
}
