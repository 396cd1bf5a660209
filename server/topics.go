package server

import (
	"cmp"
	"errors"
	"iter"
	"slices"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/topics"
)

// What Subscribe and Publish return when they do nothing, beside ErrClosed and
// ErrBackpressure.
var (
	// ErrTopicName says that there can be no topic of that name.
	ErrTopicName = topics.ErrName
	// ErrTopics says that there are as many topics as Options.MaxTopics.
	ErrTopics = topics.ErrFull
	// ErrSubscriptions says that the connection has as many subscriptions as
	// Options.MaxSubscriptions, or its reactor 16,777,215.
	ErrSubscriptions = errors.New("server: the connection has as many subscriptions as Options.MaxSubscriptions allows")
)

// TopicMax is how many bytes a topic's name may have.
const TopicMax = topics.NameMax

// ValidTopic reports whether a topic can have a name: 1 to TopicMax bytes of UTF-8 without
// control characters.
func ValidTopic(name string) bool { return topics.Valid(name) }

// Subscribe has the connection get what is published to a topic, until it
// unsubscribes or ends. A topic exists while somebody subscribes to it. Who subscribes
// already goes on to. It never waits, and takes effect in the order of the goroutine's
// calls: the connection gets what the goroutine publishes from now on, and not what it
// has published before.
//
// It returns ErrClosed, ErrTopicName, ErrTopics, ErrSubscriptions, or ErrBackpressure
// when too much waits for the connection's reactor. For Options.MaxSubscriptions those
// count that are on their way, and those that the reactor has not ended yet. Any
// goroutine may call it.
func (c Conn) Subscribe(topic string) error {
	r, token := c.address()
	switch {
	case r == nil:
		return ErrClosed
	case !topics.Valid(topic):
		return ErrTopicName
	case !r.topics.Reserve(token.Slot):
		return r.server.refuseSubscription(ErrSubscriptions)
	}
	b, err := r.server.directory.Subscribe(topic, r.index)
	if err != nil {
		r.topics.Unreserve(token.Slot)
		return r.server.refuseSubscription(err)
	}
	err = r.post(op{kind: opSubscribe, token: token, id: b.ID()})
	if err != nil {
		r.topics.Unreserve(token.Slot)
		r.server.directory.Release(b)
	}
	return err
}

// topicsFor looks whether a connection can subscribe to topics.
func (s *Server) topicsFor(names []string) error {
	switch {
	case len(names) == 0:
		return nil
	case len(names) > s.options.MaxSubscriptions:
		return s.refuseSubscription(ErrSubscriptions)
	case slices.ContainsFunc(names, func(name string) bool { return !topics.Valid(name) }):
		return ErrTopicName
	case !s.directory.HasRoom(names):
		s.subscriptionsRefused.Add(1)
		return unavailable(ErrTopics.Error())
	}
	return nil
}

// refuseSubscription counts a subscription that was refused.
func (s *Server) refuseSubscription(err error) error {
	s.subscriptionsRefused.Add(1)
	return err
}

// Unsubscribe ends what Subscribe began. What was published before still arrives. It
// returns nil if the connection does not subscribe to the topic; otherwise what
// Subscribe does. Any goroutine may call it.
func (c Conn) Unsubscribe(topic string) error {
	r, token := c.address()
	if r == nil {
		return ErrClosed
	}
	b, ok := r.server.directory.Find(topic, r.index)
	if !ok {
		return nil
	}
	err := r.post(op{kind: opUnsubscribe, token: token, id: b.ID()})
	if err != nil {
		r.server.directory.Release(b)
	}
	return err
}

// Publish sends a message, frame.Text or frame.Binary, to the connections that
// subscribe to a topic. Otherwise it is Broadcast, and what it costs depends on them
// alone. All subscribers get a topic's messages in the same order. What one goroutine
// publishes to one topic, sends, subscribes and unsubscribes takes effect in that order
// at each connection. Between topics, and between them and Broadcast, there is no order.
func (s *Server) Publish(topic string, op frame.Op, data []byte) error {
	return s.PublishAs(Kind{}, topic, op, data, nil)
}

// PublishAs is Publish for a message of a Kind. receipt, if it is not nil, is called
// once, on a goroutine of its own, unless PublishAs returned an error. Its numbers
// together are the subscribers.
func (s *Server) PublishAs(kind Kind, topic string, op frame.Op, data []byte, receipt func(Receipt)) error {
	return s.broadcast(op, data, kind, &topic, Conn{}, receipt)
}

// Publish is Server.Publish on behalf of a connection, for messages that it has sent:
// they are slowed down rather than refused, as with Conn.Broadcast, while too much is on
// its way. Receivers that read slowly do not slow it down, because they would slow down
// other topics too: what becomes of them is up to OutboxPolicy.
func (c Conn) Publish(topic string, op frame.Op, data []byte) error {
	return c.publish(Kind{}, &topic, op, data)
}

// PublishExcept is Publish to all subscribers but one connection, by its ID, which need not be one.
// 0 is nobody.
func (s *Server) PublishExcept(except uint64, topic string, op frame.Op, data []byte) error {
	return s.broadcast(op, data, Kind{except: except}, &topic, Conn{}, nil)
}

// PublishToOthers is Conn.Publish to all subscribers but the connection itself.
func (c Conn) PublishToOthers(topic string, op frame.Op, data []byte) error {
	return c.publish(Kind{except: c.id}, &topic, op, data)
}

// Topics iterates over the topics that have subscribers, and their numbers, in no
// order. Topics that begin or end meanwhile may be left out. Any goroutine may call it.
func (s *Server) Topics() iter.Seq2[string, int] {
	const batch = 256
	return func(yield func(string, int) bool) {
		var list []topics.Listing
		for cursor := uint32(0); ; {
			cursor, list = s.directory.List(cursor, batch, 0, list[:0])
			for _, t := range list {
				if !yield(t.Name, t.Subscribers) {
					return
				}
			}
			if cursor == 0 {
				return
			}
		}
	}
}

// Topic is a topic and how many connections subscribe to it.
type Topic struct {
	Name        string
	Subscribers int
}

// LargestTopics returns the n topics with the most subscribers, the largest first. It looks
// at all of them, which are a million in some ten milliseconds, and nobody else waits for
// it. Any goroutine may call it.
func (s *Server) LargestTopics(n int) []Topic {
	const batch = 1024
	largest, least := make([]Topic, 0, n+1), 1
	var list []topics.Listing
	for cursor := uint32(0); n > 0; {
		cursor, list = s.directory.List(cursor, batch, least, list[:0])
		for _, t := range list {
			at, _ := slices.BinarySearchFunc(largest, t, func(l Topic, t topics.Listing) int {
				return cmp.Or(cmp.Compare(t.Subscribers, l.Subscribers), -1) // behind its equals
			})
			largest = slices.Insert(largest, at, Topic(t))
			if len(largest) > n {
				largest = largest[:n]
			}
			if len(largest) == n {
				least = largest[n-1].Subscribers + 1
			}
		}
		if cursor == 0 {
			break
		}
	}
	return largest
}

// Subscribers is how many connections subscribe to a topic. Any goroutine may call it.
func (s *Server) Subscribers(topic string) int { return s.directory.Subscribers(topic) }

// SubscribersOf iterates over the connections that subscribe to a topic, in no order. One
// that comes or leaves meanwhile may be left out or have ended. For who may call it, see
// Conns.
func (s *Server) SubscribersOf(topic string) iter.Seq[Conn] {
	return func(yield func(Conn) bool) {
		branches := s.directory.Hold(topic, nil)
		defer s.directory.Release(branches...)
		for _, b := range branches {
			if !s.reactors[b.Reactor()].subscribersOf(b.ID(), yield) {
				return
			}
		}
	}
}

// subscribersOf asks the reactor for the subscribers of a branch: for a few at once, for
// many by looking through the slots, so that nobody waits long.
func (r *reactor) subscribersOf(id uint32, yield func(Conn) bool) bool {
	const few = 4 << 10
	var batch []Conn
	next := 0
	for next >= 0 {
		batch = batch[:0]
		running := r.inspect(func(t *conns) {
			if next == 0 && t.topics.AtMost(id) <= few {
				for slot := range t.topics.Slots(id) {
					batch = append(batch, t.handle(t.slots.At(int(slot))))
				}
				next = -1
				return
			}
			next = t.gather(next, &batch)
			batch = slices.DeleteFunc(batch, func(c Conn) bool { return !t.topics.Has(tokenOf(c.id).Slot, id) })
		})
		if !running {
			return true
		}
		for _, c := range batch {
			if !yield(c) {
				return false
			}
		}
	}
	return true
}

// Topics returns the topics that the connection subscribes to, in no order. For who may
// call it, see RemoteAddr.
func (c Conn) Topics() (names []string) {
	r, token := c.address()
	if r == nil {
		return nil
	}
	r.inspect(func(t *conns) {
		if t.slots.Get(token) != nil {
			for _, b := range t.topics.Topics(token.Slot) {
				names = append(names, t.server.directory.Name(b))
			}
		}
	})
	return names
}

// post posts an op that is refused when the mailbox is full.
func (r *reactor) post(o op) error {
	switch err := r.mail.Post(o, nil, nil); err {
	case nil:
		return nil
	case netpoll.ErrShut:
		return ErrClosed
	default:
		return ErrBackpressure
	}
}

// subscribe does what Conn.Subscribe has asked for.
func (o *output) subscribe(c *conn, slot, id uint32) {
	if c == nil || c.state != stateOpen || c.is(flagDying) {
		o.topics.Unreserve(slot)
		o.topics.Release(id)
		return
	}
	if o.topics.Join(slot, id) {
		o.counts.Subscribed++
	}
}

// subscribeTo has a connection that opens subscribe to its request's topics.
func (o *output) subscribeTo(c *conn, names []string) {
	slot := o.slots.Token(c).Slot
	for _, name := range names {
		if err := o.subscribeToOne(c, slot, name); err != nil { // others have come first
			o.mark(c, fate{kind: fateClose, code: frame.TryAgainLater, cause: o.server.refuseSubscription(err), orderly: true})
			return
		}
	}
}

func (o *output) subscribeToOne(c *conn, slot uint32, name string) error {
	if !o.topics.Reserve(slot) {
		return ErrSubscriptions
	}
	b, err := o.server.directory.Subscribe(name, o.index)
	if err != nil {
		o.topics.Unreserve(slot)
		return err
	}
	o.subscribe(c, slot, b.ID())
	return nil
}

// unsubscribe does what Conn.Unsubscribe has asked for.
func (o *output) unsubscribe(c *conn, slot, id uint32) {
	if c != nil && c.state == stateOpen {
		if lack, ok := o.topics.LacksOf(slot, id); ok {
			o.serve(c, lack)
		}
		if o.topics.Leave(slot, id) {
			o.counts.Unsubscribed++
		}
	}
	o.topics.Release(id)
}
