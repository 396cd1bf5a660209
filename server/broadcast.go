package server

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server/internal/fanout"
	"github.com/seed-134acfd0/lull/server/internal/inbox"
	"github.com/seed-134acfd0/lull/server/internal/topics"
)

// OutboxPolicy says what happens to a message for which there is no room,
// because its peer does not take what it is sent: more than MaxOutbox or
// MaxOutboxMessages would wait for it, or more than MaxOutboxTotal for all. Frames
// are never cut, and control frames are never dropped.
type OutboxPolicy uint8

const (
	// OutboxClose closes the connection with 1013. Its peer gets all that was
	// accepted before, without a gap. Send returns ErrBackpressure. Where
	// MaxOutboxTotal is exceeded, the connection for which most waits is cut off.
	OutboxClose OutboxPolicy = iota + 1
	// OutboxDropNew drops the message. Send returns ErrBackpressure.
	OutboxDropNew
	// OutboxDropOld drops the oldest waiting messages that are OutboxDropOld or
	// OutboxLatest, and the message itself if that is not enough.
	OutboxDropOld
	// OutboxLatest is OutboxDropOld; and a message that has to wait replaces the
	// one of the same Kind, so that the peer gets the newest of each.
	OutboxLatest
)

var outboxPolicies = [...]string{OutboxClose: "close", OutboxDropNew: "drop-new", OutboxDropOld: "drop-old", OutboxLatest: "latest"}

func (p OutboxPolicy) String() string { return nameOf(p, outboxPolicies[:]) }

// MarshalText returns the name.
func (p OutboxPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText accepts "close", "drop-new", "drop-old" and "latest".
func (p *OutboxPolicy) UnmarshalText(text []byte) error {
	return byName(p, text, outboxPolicies[:], "an outbox policy")
}

// Kind is what a message is to a peer that does not take it at once. The zero
// Kind is what its connection's Request, or Options, says.
type Kind struct {
	// ID tells OutboxLatest messages apart: those about one thing from those
	// about another.
	ID uint32
	// Policy overrides the connection's if it is set and exists.
	Policy OutboxPolicy

	except uint64 // the connection that does not get it, 0 for none
}

// over is the policy of a message to a connection with a policy of its own.
func (k Kind) over(connections OutboxPolicy) OutboxPolicy {
	if k.Policy >= OutboxClose && k.Policy <= OutboxLatest {
		return k.Policy
	}
	return connections
}

// Receipt says what became of a broadcast, when every connection that was open
// has had its turn. Its numbers together are those connections.
type Receipt struct {
	Sent    int       // connections whose socket took it
	Queued  int       // connections whose socket will, when their peer has read more
	Dropped int       // connections for which it was dropped, by policy
	Closed  int       // connections that ended before they got it
	Last    time.Time // when the last connection had its turn
}

// Broadcast sends a message, frame.Text or frame.Binary, to every open
// connection. Text must be UTF-8. It encodes the message once, copies data and
// never waits. It returns ErrBackpressure when too much is on its way already, by
// Options.MaxBroadcast, and nothing is sent then; ErrClosed when the server has
// ended. Any goroutine may call it. What one goroutine sends and broadcasts
// arrives in that order, and broadcasts arrive in the same order everywhere.
func (s *Server) Broadcast(op frame.Op, data []byte) error {
	return s.BroadcastAs(Kind{}, op, data, nil)
}

// BroadcastAs is Broadcast for a message of a Kind. receipt, if it is not nil, is
// called once, on a goroutine of its own, unless BroadcastAs returned an error.
func (s *Server) BroadcastAs(kind Kind, op frame.Op, data []byte, receipt func(Receipt)) error {
	return s.broadcast(op, data, kind, nil, Conn{}, receipt)
}

// Broadcast is Server.Broadcast on behalf of a connection, for messages that it
// has sent: they are slowed down rather than refused. When receivers do not keep
// up, it waits on a worker until they have; on a reactor (Inline) the message is
// taken, and its connection is not read until then. It returns ErrBackpressure
// only in mode Inline, and only to a handler that broadcasts much more than it
// was sent: twice Options.MaxBroadcast.
func (c Conn) Broadcast(op frame.Op, data []byte) error { return c.publish(Kind{}, nil, op, data) }

// publish is Broadcast and Publish.
func (c Conn) publish(kind Kind, topic *string, op frame.Op, data []byte) error {
	s := c.server
	if s == nil {
		return ErrClosed
	}
	if s.pool == nil {
		return s.broadcast(op, data, kind, topic, c, nil)
	}
	wait := s.throttle.Wait
	if topic != nil {
		wait = s.throttle.WaitTopic
	}
	for {
		wait()
		if err := s.broadcast(op, data, kind, topic, c, nil); err != ErrBackpressure {
			return err
		}
	}
}

// broadcast posts a message to the reactors that have somebody to send it to: to
// all, or to those with subscribers of a topic. from is the connection that sent it,
// or zero.
func (s *Server) broadcast(opcode frame.Op, data []byte, kind Kind, topic *string, from Conn, receipt func(Receipt)) error {
	if !opcode.Data() {
		return errOpcode
	}
	to := s.everybody
	if topic != nil {
		if !topics.Valid(*topic) {
			return ErrTopicName
		}
		if to = s.directory.Hold(*topic, nil); len(to) == 0 {
			s.published.Add(1)
			if receipt != nil {
				go receipt(Receipt{Last: time.Now()})
			}
			return nil
		}
	}
	cost := fanout.Cost(maxHeader + len(data))
	deflate := s.compresses(len(data)) && s.compress.peers.Load() > 0
	if deflate {
		cost += int64(len(data)) // it is held twice
	}
	take := s.throttle.TryAdd
	if from.server != nil && s.pool == nil {
		take = s.throttle.TryAddLate // its reactor has looked whether there is room
	}
	if !take(cost) {
		s.refusals.Add(1)
		s.directory.Release(held(to)...)
		return ErrBackpressure
	}
	if topic != nil {
		s.published.Add(1)
	}
	encoded := frame.Append(make([]byte, 0, maxHeader+len(data)), opcode, data)
	var deflated []byte
	if deflate {
		deflated = s.compress.broadcast(opcode, data)
	}
	var closed error
	m := fanout.NewPublication(encoded, deflated, kind.ID, uint8(kind.Policy), len(to), func(t fanout.Tally) {
		s.throttle.Done(cost)
		if receipt != nil && closed == nil {
			go receipt(Receipt(t))
		}
	})
	m.Except = kind.except
	var ended []topics.Branch
	order := s.orders.of(topic)
	order.Lock()
	for _, b := range to {
		if s.reactors[b.Reactor()].mail.Force(op{kind: opBroadcast, message: m, id: b.ID()}, nil) != nil {
			closed = ErrClosed
			ended = append(ended, b)
		}
	}
	order.Unlock()
	s.directory.Release(held(ended)...)
	for range ended {
		m.Passed(fanout.Tally{})
	}
	if s.pool == nil && (s.throttle.Loaded() || topic == nil && s.throttle.Crowded()) {
		from.tell(opThrottle)
	}
	return closed
}

// orders keep what is published in one order, the same on all reactors: otherwise an
// answer could overtake its question on the way to a third connection.
type orders struct {
	everybody sync.Mutex
	seed      maphash.Seed   // constant
	topics    [64]sync.Mutex // by hash
}

func (o *orders) of(topic *string) *sync.Mutex {
	if topic == nil {
		return &o.everybody
	}
	return &o.topics[maphash.String(o.seed, *topic)%uint64(len(o.topics))]
}

// held are the branches that were held for a publication: none for one to everybody.
func held(to []topics.Branch) []topics.Branch {
	if len(to) > 0 && to[0].ID() == 0 {
		return nil
	}
	return to
}

// hooks are what the pool needs: how to call the handler.
func (s *Server) hooks() inbox.Hooks[*caller] {
	return inbox.Hooks[*caller]{
		Call:  s.call,
		Waits: s.handler.Ready != nil,
		Later: s.handler.Deliver != nil,
		Ready: func(b *inbox.Inbox[*caller]) bool {
			if r, token := b.Owner.conn.address(); r != nil {
				if s.handler.Deliver == nil {
					r.mail.WaitRoom()
				}
				gauge := r.gauges.At(int(token.Slot))
				if gauge.Load().Exceeds(s.high) && gauge.Await(s.low) {
					return false
				}
			}
			return s.handler.Ready == nil || s.ready(b.Owner.conn)
		},
		Tell: func(n inbox.Note, b *inbox.Inbox[*caller]) {
			switch n {
			case inbox.WishGranted:
				b.Owner.conn.tell(opChanged)
			case inbox.RoomFree:
				s.tell(opRoom)
			case inbox.Served:
				if r, _ := b.Owner.conn.address(); r != nil {
					r.mail.Rouse()
				}
			}
		},
	}
}

// ready asks Handler.Ready, on a worker or for Deliver. A panic closes the connection.
func (s *Server) ready(c Conn) (ready bool) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			c.tell(opPanic)
		}
	}()
	return s.handler.Ready(c)
}

// tell posts an op about a connection, unless it has ended.
func (c Conn) tell(kind opKind) {
	if r, token := c.address(); r != nil {
		_ = r.mail.Force(op{kind: kind, token: token}, nil) // a reactor that has ended does not need it
	}
}

// call calls the handler, on a worker or for Deliver. A panic closes the connection, and so
// does runtime.Goexit.
func (s *Server) call(b *inbox.Inbox[*caller], c inbox.Call) (ok bool) {
	h, o := &s.handler, b.Owner
	defer func() {
		if ok {
			return
		}
		cause := recover()
		if cause == nil {
			cause = "runtime.Goexit"
		}
		s.panicked(cause)
		o.conn.tell(opPanic)
	}()
	switch c.Kind {
	case inbox.Upgrade:
		s.upgrade(o, c.Data)
	case inbox.Open:
		h.Open(o.conn)
	case inbox.Message:
		if h.Deliver != nil {
			h.Deliver(Delivery{o.conn, frame.Op(c.Op), c.Data, b})
		} else {
			h.Message(o.conn, frame.Op(c.Op), c.Data)
		}
	case inbox.Backpressure:
		for high := range b.Pressures {
			h.Backpressure(o.conn, high)
		}
	case inbox.Close:
		h.Close(o.conn, o.code, o.cause)
		if o.conn.stray() {
			s.values.forget(o.conn.id)
		}
	}
	return true
}

// upgrade answers a request, on a worker.
func (s *Server) upgrade(o *caller, head []byte) {
	var a answer
	u := frame.NewUpgrader(func(fr *frame.Request) error {
		a = s.decide(o.conn, fr, o.request)
		return a.reject
	})
	u.Deflate = s.options.Compress
	response, err := u.Upgrade(head)
	a.reject, a.head = err, o.request.head
	o.conn.tag, o.conn.terms = a.tag, a.terms
	r, token := o.conn.reactor(), tokenOf(o.conn.id)
	if r.mail.Force(op{kind: opAnswer, token: token, answer: &a}, response) != nil && a.reject == nil && s.handler.Close != nil {
		s.handler.Close(o.conn, frame.Abnormal, ErrShutdown) // the reactor has ended
	}
}
