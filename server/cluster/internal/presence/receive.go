package presence

import (
	"time"

	"github.com/seed-134acfd0/lull/server/cluster/internal/wire"
)

// Receive takes a message that another node has sent, to this node or to a topic.
// The message is the caller's again when Receive returns.
func (p *Presence) Receive(from uint64, message []byte, now time.Duration, out *Results) error {
	p.now = now
	n, ok := p.byNode[from]
	if !ok {
		p.stats.Unknown++
		return ErrNode
	}
	d := decoder{wire.Decoder{Rest: message}}
	switch kind := d.Byte(); kind {
	case kindChange:
		if c := d.change(); d.End() {
			p.changed(n, c, message, out)
		}
	case kindTell:
		if t := d.tell(); d.End() {
			p.told(n, t, out)
		}
	case kindWant:
		if a := d.want(); d.End() {
			p.queueAsk(n, a)
		}
	case kindSnapshot:
		if s := d.snapshot(); d.End() {
			p.snapshotCame(n, s, out)
		}
	case kindSame, kindNone:
		if a := d.answer(kind); d.End() {
			p.answerCame(n, kind, a, out)
		}
	case kindCheck:
		if c := d.check(); d.End() {
			p.checkCame(n, c)
		}
	case kindChecked:
		if seq, differing := d.Number(), d.Number(); d.End() {
			p.nodes[n].checkedCame(seq, differing > 0)
		}
	default:
		d.Fail()
	}
	if !d.End() {
		p.stats.Malformed++
		return ErrMessage
	}
	return nil
}

// followed returns a topic that is watched, 0 if it is not.
func (p *Presence) followed(topic string) uint32 {
	if t := p.topic(topic); t != 0 && p.topics.At(t).flags&watched != 0 {
		return t
	}
	return 0
}

// hear takes note of a node's number, and returns the newest one before.
func (nd *node) hear(number uint64) (before uint64) {
	before = nd.seen
	nd.seen = max(before, number)
	return before
}

// changed takes a change. message is what it was decoded from.
func (p *Presence) changed(n uint16, c change, message []byte, out *Results) {
	seen := p.nodes[n].hear(c.number)
	t := p.followed(c.topic)
	if t == 0 {
		return
	}
	if w := p.wants[wantKey{t, n}]; w != nil {
		p.keep(w, message)
		return
	}
	p.follow(t, n, c, message, seen, out)
}

// follow applies a change if it follows what is known, or if it begins anew and is
// newer than anything that was seen of its node before.
func (p *Presence) follow(t uint32, n uint16, c change, message []byte, seen uint64, out *Results) {
	s := p.source(t, n)
	switch {
	case s != 0 && c.number <= p.sources.At(s).number:
		p.stats.Doubles++
	case s != 0 && c.previous == 0:
		for i := p.topics.At(t).members; i != 0; {
			m := p.members.At(i)
			later := m.later
			if m.node == n && p.memberID(m) != c.id {
				p.remove(i, out)
			}
			i = later
		}
		p.apply(t, n, c, out)
	case s != 0 && c.previous == p.sources.At(s).number, s == 0 && c.previous == 0 && c.number > seen:
		p.apply(t, n, c, out)
	default:
		if c.number > seen {
			p.stats.Gaps++
		} else {
			p.stats.Doubles++
		}
		p.want(t, n, message, out)
	}
}

// apply does what a change says.
func (p *Presence) apply(t uint32, n uint16, c change, out *Results) {
	if c.op == opSet {
		p.put(t, n, c.id, c.data, out)
	} else if i := p.find(t, n, c.id); i != 0 {
		p.remove(i, out)
	}
	if s := p.source(t, n); s != 0 {
		p.sources.At(s).number = c.number
	}
	p.settle(t, n)
}

// put makes another node's member what it should be, if there is room.
func (p *Presence) put(t uint32, n uint16, id string, data []byte, out *Results) {
	var err error
	if i := p.find(t, n, id); i != 0 {
		_, err = p.set(i, data, out)
	} else {
		_, err = p.add(t, n, id, data, out)
	}
	if err != nil {
		p.stats.Refused++
		p.full, p.nodes[n].unsure = true, true
	}
}

// told takes a tell.
func (p *Presence) told(n uint16, m tell, out *Results) {
	p.nodes[n].hear(m.asOf)
	t := p.topic(m.topic)
	if t == 0 {
		return
	}
	if m.ask {
		p.asked(n, t, m.known)
	}
	if p.topics.At(t).flags&watched == 0 || p.wants[wantKey{t, n}] != nil {
		return
	}
	var digest uint64
	if i := p.source(t, n); i != 0 {
		s := p.sources.At(i)
		if m.asOf < s.number {
			return
		}
		if digest = s.digest; digest == m.digest {
			s.number = max(s.number, m.number)
		}
	}
	if digest != m.digest {
		p.stats.Differing++
		p.want(t, n, nil, out)
	}
}

// asked has a node that begins to follow a topic sent what is here, unless that is
// what it knows, or what is on its way to it.
func (p *Presence) asked(n uint16, t uint32, all []known) {
	i := p.source(t, 0)
	if i == 0 {
		return
	}
	s := p.sources.At(i)
	for _, k := range all {
		if k.node == p.o.Self && (k.digest == s.digest || p.young(s)) {
			return
		}
	}
	p.queueAsk(n, ask{hash: p.topics.At(t).hash})
}

// young reports whether an own change may still be on its way.
func (p *Presence) young(s *source) bool { return p.age()-s.changed < young }
