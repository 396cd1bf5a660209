package presence

import (
	"fmt"
	"time"
)

// Member is an own member of a topic, to be given to Leave.
type Member uint64

// Join lets a connection be a member of a topic. The member's data are those that
// came last. Leave has to follow, once for each Join.
func (p *Presence) Join(topic, id string, data []byte, now time.Duration, out *Results) (Member, error) {
	p.now = now
	switch {
	case len(id) == 0 || len(id) > IDMax:
		return 0, ErrID
	case len(data) > p.o.MaxData:
		return 0, fmt.Errorf("%w: %d bytes, and it may have %d", ErrData, len(data), p.o.MaxData)
	}
	t, err := p.topicFor(topic)
	if err != nil {
		return 0, err
	}
	before := p.ownNumber(t)
	i := p.find(t, 0, id)
	changed := true
	if i != 0 {
		changed, err = p.set(i, data, out)
	} else {
		i, err = p.add(t, 0, id, data, out)
	}
	if err != nil {
		p.release(t)
		return 0, err
	}
	m := p.members.At(i)
	m.conns++
	if changed {
		p.say(t, change{previous: before, op: opSet, id: id, data: data}, out)
	}
	return Member(i)<<32 | Member(m.use), nil
}

// Leave ends what a Join began. A Member that has left already is ignored.
func (p *Presence) Leave(member Member, now time.Duration, out *Results) {
	p.now = now
	i := uint32(member >> 32)
	if i == 0 || i >= p.members.High() {
		return
	}
	m := p.members.At(i)
	if m.topic == 0 || m.node != 0 || m.use != uint16(member) {
		return
	}
	if m.conns--; m.conns > 0 {
		return
	}
	t, id := m.topic, p.memberID(m)
	before := p.ownNumber(t)
	p.remove(i, out)
	p.say(t, change{previous: before, op: opLeave, id: id}, out)
	p.settle(t, 0)
}

// ownNumber is the number of the last own change in a topic, zero if there are no
// own members.
func (p *Presence) ownNumber(t uint32) uint64 {
	if s := p.source(t, 0); s != 0 {
		return p.sources.At(s).number
	}
	return 0
}

// say tells those who follow a topic of a change of its own members, and has a
// tell follow.
func (p *Presence) say(i uint32, c change, out *Results) {
	t := p.topics.At(i)
	p.number++
	s := p.sources.At(p.source(i, 0))
	s.number, s.changed = p.number, p.age()
	c.topic, c.number = p.topicName(t), p.number
	out.Messages = append(out.Messages, Message{Topic: c.topic, Data: c.encode()})
	p.tellSoon(i, telling)
}

// youngUnit is the unit of ages, and young is how many of them a change is on its
// way at most, as a rule.
const (
	youngUnit = 250 * time.Millisecond
	young     = 8
)

func (p *Presence) age() uint32 { return uint32(p.now / youngUnit) }

// Watch begins to follow a topic: other nodes are asked for their members, and
// their changes count from now on. It is to be called when messages to the topic
// reach this node.
func (p *Presence) Watch(topic string, now time.Duration, out *Results) error {
	p.now = now
	i, err := p.topicFor(topic)
	if err != nil {
		return err
	}
	t := p.topics.At(i)
	if t.flags&watched != 0 {
		return nil
	}
	t.flags |= watched
	p.watched++
	p.tell(i, true, out)
	p.tellSoon(i, telling|asking)
	return nil
}

// Unwatch ends it. What other nodes have in the topic is forgotten, without
// events.
func (p *Presence) Unwatch(topic string) {
	i := p.topic(topic)
	if i == 0 || p.topics.At(i).flags&watched == 0 {
		return
	}
	t := p.topics.At(i)
	t.flags &^= watched | asking
	p.watched--
	for j := t.members; j != 0; {
		m := p.members.At(j)
		later := m.later
		if m.node != 0 {
			p.remove(j, nil)
		}
		j = later
	}
	t.flags |= telling // the topic stays until its sources are gone
	queued := t.flags
	for s := t.sources; s != 0; {
		next, n := p.sources.At(s).next, p.sources.At(s).node
		if n != 0 {
			p.drop(wantKey{i, n})
			p.settle(i, n)
		}
		s = next
	}
	t.flags = queued
	p.release(i)
}

// queue are topics for which a tell is due, the first one first. Each is in it
// once at most.
type queue struct {
	items []due
	begin int
}

type due struct {
	topic uint32
	at    time.Duration
}

// tellAfter is when a tell follows a change, or a question is repeated.
const tellAfter = time.Second

func (p *Presence) tellSoon(i uint32, flags uint8) {
	t := p.topics.At(i)
	if t.flags&telling == 0 {
		p.tails.items = append(p.tails.items, due{i, p.now + tellAfter})
	}
	t.flags |= flags
}

// tellsInStep is how many tells a step sends at most.
const tellsInStep = 256

// tellDue sends the tells that are due.
func (p *Presence) tellDue(out *Results) (more bool) {
	q := &p.tails
	for range tellsInStep {
		if q.begin == len(q.items) || q.items[q.begin].at > p.now {
			break
		}
		i := q.items[q.begin].topic
		q.begin++
		t := p.topics.At(i)
		ask := t.flags&asking != 0
		t.flags &^= telling | asking
		p.tell(i, ask, out)
		p.release(i)
	}
	if q.begin*2 > len(q.items) {
		q.items = append(q.items[:0], q.items[q.begin:]...)
		q.begin = 0
	}
	return q.begin < len(q.items) && q.items[q.begin].at <= p.now
}

// tell says how far this node is in a topic, and asks what others have there if it
// is to.
func (p *Presence) tell(i uint32, ask bool, out *Results) {
	t := p.topics.At(i)
	m := tell{topic: p.topicName(t), asOf: p.number, ask: ask}
	for s := t.sources; s != 0; s = p.sources.At(s).next {
		src := p.sources.At(s)
		if src.node == 0 {
			m.number, m.digest = src.number, src.digest
		} else if ask {
			m.known = append(m.known, known{p.nodes[src.node].id, src.digest})
		}
	}
	out.Messages = append(out.Messages, Message{Topic: m.topic, Data: m.encode()})
}
