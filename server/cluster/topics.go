package cluster

import (
	"errors"
	"slices"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// Publish sends a message to all subscribers of a topic, on all nodes: to those of this node
// at once, as Server.Publish does, and to others by the broker. It never waits.
//
// It returns what Server.Publish returns, and ErrBackpressure of package server where the
// broker does not take messages fast enough; nothing is sent then. It returns ErrAway where
// the message has reached this node alone. The other nodes find that it is missing.
//
// What one goroutine publishes on one topic reaches each subscriber in that order.
func (n *Node) Publish(topic string, op frame.Op, data []byte) error {
	to := n.local.Load()
	if to == nil {
		return errUnbound
	}
	return n.publish(*to, topic, op, data, nil)
}

// PublishFrom is Publish on behalf of a connection, for messages that it has sent: they are
// slowed down rather than refused, as with Conn.Publish. On a worker it waits until the
// receivers of this node and the broker keep up. On a reactor (Inline) it never waits, and
// returns ErrBackpressure of package server where the broker does not keep up.
func (n *Node) PublishFrom(c server.Conn, topic string, op frame.Op, data []byte) error {
	if c.Server() == nil {
		return server.ErrClosed
	}
	var wait func()
	if c.Server().Options().Mode != server.Inline {
		wait = n.queue.wait
	}
	return n.publish(c, topic, op, data, wait)
}

// publish publishes: here by to, and to other nodes. While there is no room in the queue, it
// calls wait, unless that is nil.
func (n *Node) publish(to Publisher, topic string, op frame.Op, data []byte, wait func()) error {
	switch {
	case len(data) > n.options.MaxMessage:
		return ErrTooLarge
	case !server.ValidTopic(topic):
		return server.ErrTopicName
	}
	var at address
	at.subject, _ = n.subjects.of(topic)
	kept := n.limits(topic).Messages > 0
	if kept && n.options.Stream != nil {
		at.stored = n.subjects.kept + token(topic)
	}
	size := messageBytes(at, topic, data)
	if kept {
		size += keptBytes
	}
	room := n.queue.keep(size)
	for ; room == roomNone; room = n.queue.keep(size) {
		if wait == nil {
			n.counts.refused.Add(1)
			return server.ErrBackpressure
		}
		wait()
	}
	deliver := n.publishPlain
	if kept {
		deliver = n.publishKept
	}
	if err := deliver(to, at, topic, op, data, room); err != nil {
		if room == roomKept {
			n.queue.release(size)
		}
		return err
	}
	n.counts.published.Add(1)
	if room == roomAway {
		n.counts.unsent.Add(1)
		return ErrAway
	}
	return nil
}

// publishPlain is publish for a topic without a history.
func (n *Node) publishPlain(to Publisher, at address, topic string, op frame.Op, data []byte, room room) error {
	order := &n.order[hash(topic)%uint32(len(n.order))]
	order.Lock()
	defer order.Unlock()
	if err := to.Publish(topic, op, data); err != nil {
		return err
	}
	if n.passOn(to, topic, op, data, nowhere) != nil {
		n.past.mu.Lock()
		n.past.undelivered(n, topic, n.id)
		n.past.mu.Unlock()
	}
	if room == roomKept {
		n.queue.put(at, seal(n.id, topic, op, data), n.now())
	} else {
		n.queue.skip(at.subject, n.now())
	}
	return nil
}

// passOn tells Options.Delivered of a message that was delivered. The error is ErrBackpressure
// of package server, or nil.
func (n *Node) passOn(by Publisher, topic string, op frame.Op, data []byte, position func(topic string) string) error {
	if n.options.Delivered == nil {
		return nil
	}
	if err := n.options.Delivered(by, Delivery{topic, op, data, func() string { return position(topic) }}); errors.Is(err, server.ErrBackpressure) {
		return err
	}
	return nil // ErrClosed, or a name that nobody can have: nobody is there
}

// Subscribe subscribes a connection to a topic, as its own Subscribe does, and returns its
// error. done, if it is not nil, is called once, unless there was an error: with true as
// soon as it is certain that the connection gets all that is published on all living nodes
// from now on, and with false when that is not certain after 100 ms, because the broker or a
// node is away or slow. It is then subscribed nevertheless, and gets what arrives.
//
// It is certain when each living node has answered a question that was sent behind the
// subscription: the answer has come by all brokers between them, behind the subscription.
// done must not block; any goroutine may call it. The connection unsubscribes by its own
// Unsubscribe, or by ending.
func (n *Node) Subscribe(c server.Conn, topic string, done func(confirmed bool)) error {
	return n.subscribe(c, topic, done)
}

func (n *Node) subscribe(c conn, topic string, done func(confirmed bool)) error {
	if err := c.Subscribe(topic); err != nil {
		return err
	}
	if done == nil {
		done = func(bool) {}
	}
	confirmed, waits := n.follow(topic, done)
	if !waits {
		done(confirmed)
	}
	return nil
}

// follow has a topic's subject followed. done is called only if it waits.
func (n *Node) follow(topic string, done func(bool)) (confirmed, waits bool) {
	subject, shard := n.subjects.of(topic)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.left {
		return false, false
	}
	f := n.interest.want(subject, topic, shard, n.now()+n.stay(topic))
	switch {
	case n.link == nil:
		n.counts.unconfirmed.Add(1)
		return false, false
	case f.proved:
		return true, false
	}
	if !f.queued || len(f.waiting) == 0 {
		n.interest.queue(f, true)
		n.wake()
	}
	f.waiting = append(f.waiting, newWaiter(func(confirmed bool) {
		if !confirmed {
			n.counts.unconfirmed.Add(1)
		}
		done(confirmed)
	}, n.now(), n.options.pace.confirm))
	return false, true
}

// TopicChanged is for server.Options: it has the node follow the topics that have members
// here, and those alone, however they came.
func (n *Node) TopicChanged(topic string, live bool) {
	subject, shard := n.subjects.of(topic)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.left {
		return
	}
	until := n.now() + n.stay(topic)
	f := n.interest.follows[subject]
	if f == nil && live {
		f = n.interest.want(subject, topic, shard, until)
		n.wake()
	}
	if f != nil {
		n.interest.count(f, live, until)
		n.change(f, topic, live)
	}
	n.fade(topic, live)
}

// change has a topic attended to as soon as its subject is followed, or no more. n.mu is held.
func (n *Node) change(f *follow, topic string, live bool) {
	switch {
	case live && f.there:
		n.attend(topic)
	case live && !slices.Contains(f.comes, topic):
		f.comes = append(f.comes, topic)
	case !live && f.there:
		n.unwatch(topic)
	case !live:
		f.comes = slices.DeleteFunc(f.comes, func(t string) bool { return t == topic })
	}
}

// attend begins to follow who is in a topic and to keep its messages. Its subject is
// followed. n.mu is held.
func (n *Node) attend(topic string) {
	n.watch(topic)
	n.remember(topic)
}
