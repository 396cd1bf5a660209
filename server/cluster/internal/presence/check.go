package presence

import (
	"time"

	"github.com/seed-134acfd0/lull/server/cluster/internal/wire"
)

// round is a round of checks with one node.
//
//	idle ──begin──► part sent ──checked──► part sent … ──checked──► idle
type round struct {
	running bool
	clean   bool   // nothing has differed
	began   uint64 // the node's number when it began
	from    uint32 // the topic with which the next part begins
	upTo    uint32 // and the part that was sent ends
	seq     uint64 // of the part that waits for its answer; 0 if none does
	sent    time.Duration
	tries   int
	next    time.Duration // when the next round may begin
}

// checking is a check that is being answered.
type checking struct {
	seq       uint64   // 0 if there is none
	hashes    []uint64 // of the topics that differ and were not sent yet
	differing int
}

// Bounds of rounds.
const (
	partTopics = 3500    // in a part: 16 bytes each at most
	scanInStep = 1 << 14 // records that are looked at for a part, or for a piece of one
	roundPause = time.Second
	fullPause  = 30 * time.Second // while there is no room for what would come of it
	partAgain  = 2 * time.Second  // until a part is sent again, and then twice as long
	partTries  = 2                // after which it is not made longer any more
	asksMost   = 1 << 14          // that wait for their answers, of a node
)

// rounds sends what is due of the rounds.
func (p *Presence) rounds(out *Results) (more bool) {
	for n, nd := range p.nodes {
		if n > 0 && nd != nil && !nd.dead && nd.due(p) {
			more = p.part(uint16(n), nd, out) || more
		}
	}
	return more
}

// due reports whether a node is to be sent a part, and begins a round if one is
// due.
func (nd *node) due(p *Presence) bool {
	r := &nd.round
	if !r.running {
		switch {
		case !nd.unsure && nd.number == nd.checked || p.now < r.next:
			return false
		case p.watched == 0 || nd.members == 0 && nd.sources == 0:
			nd.checked, nd.unsure, nd.urgent = nd.number, false, 0
			return false
		}
		*r = round{running: true, clean: true, began: nd.number, from: 1}
		nd.unsure = false
	}
	if r.seq != 0 {
		if p.now-r.sent < partAgain<<min(r.tries, partTries) {
			return false
		}
		r.tries++
		r.seq = 0
	}
	return nd.urgent > 0 || p.now >= p.checkNext
}

// part sends the next part of a round, or ends it.
func (p *Presence) part(n uint16, nd *node, out *Results) (more bool) {
	r := &nd.round
	c := check{}
	i := r.from
	for ; i < min(p.topics.High(), r.from+scanInStep) && len(c.none)+len(c.having) < partTopics; i++ {
		t := p.topics.At(i)
		if t.length == 0 || t.flags&watched == 0 {
			continue
		}
		if s := p.source(i, n); s != 0 {
			c.having = append(c.having, having{t.hash, p.sources.At(s).digest})
		} else {
			c.none = append(c.none, t.hash)
		}
	}
	switch {
	case len(c.none)+len(c.having) > 0:
	case i < p.topics.High():
		r.from = i
		return true
	default:
		p.end(nd)
		return false
	}
	p.seq++
	c.seq = p.seq
	r.seq, r.sent, r.upTo = c.seq, p.now, i
	message := c.encode()
	if nd.urgent == 0 {
		p.checkNext = max(p.checkNext, p.now) + time.Duration(len(message))*time.Second/time.Duration(p.o.CheckRate)
	}
	out.Messages = append(out.Messages, Message{Node: nd.id, Data: message})
	return false
}

// end ends a round.
func (p *Presence) end(nd *node) {
	p.stats.Rounds++
	if nd.round.clean {
		nd.checked = nd.round.began
	} else {
		nd.unsure = true
	}
	if nd.urgent > 0 {
		nd.urgent--
	}
	if !nd.unsure {
		nd.urgent = 0
	}
	nd.round = round{next: p.now + roundPause}
	if p.full {
		nd.round.next = p.now + fullPause
	}
}

// checkedCame takes the answer to a part.
func (nd *node) checkedCame(seq uint64, differing bool) {
	r := &nd.round
	if r.seq == 0 || seq != r.seq {
		return
	}
	r.seq, r.tries, r.from = 0, 0, r.upTo
	r.clean = r.clean && !differing
}

// checkCame takes a part of another node's round.
func (p *Presence) checkCame(n uint16, c check) {
	a := &p.nodes[n].answer
	if c.seq == 0 || c.seq == a.seq { // it was repeated while it is being answered
		return
	}
	*a = checking{seq: c.seq}
	for _, hash := range c.none {
		if t := p.topicByHash(hash); t != 0 && p.source(t, 0) != 0 {
			a.hashes = append(a.hashes, hash)
		}
	}
	for _, h := range c.having {
		var digest uint64
		if t := p.topicByHash(h.hash); t != 0 {
			if i := p.source(t, 0); i != 0 {
				s := p.sources.At(i)
				if digest = s.digest; digest != h.digest && p.young(s) {
					a.differing++ // as long as the change is on its way
					continue
				}
			}
		}
		if digest != h.digest {
			a.hashes = append(a.hashes, h.hash)
		}
	}
	a.differing += len(a.hashes)
	p.stats.Differing += uint64(len(a.hashes))
}

// queueAsk has a question answered in one of the next steps.
func (p *Presence) queueAsk(n uint16, a ask) {
	nd := p.nodes[n]
	if len(nd.asks) >= asksMost { // it asks again
		p.stats.Unstaged++
		return
	}
	nd.asks = append(nd.asks, a)
}

// answerNext answers one question of one node, the nodes in turn.
func (p *Presence) answerNext(out *Results) (more bool) {
	for range p.nodes {
		if p.answered++; p.answered >= len(p.nodes) {
			p.answered = 1
		}
		if p.answered == len(p.nodes) {
			return false // there is no other node
		}
		nd := p.nodes[p.answered]
		if nd == nil || nd.dead {
			continue
		}
		switch c := &nd.answer; {
		case len(nd.asks) > 0:
			p.send(nd, nd.asks[0], out)
			if nd.asks = nd.asks[1:]; len(nd.asks) == 0 {
				nd.asks = nil
			}
			return true
		case len(c.hashes) > 0:
			p.send(nd, ask{hash: c.hashes[0]}, out)
			c.hashes = c.hashes[1:]
			return true
		case c.seq != 0:
			out.Messages = append(out.Messages, Message{Node: nd.id, Data: encodeChecked(c.seq, c.differing)})
			*c = checking{}
			return true
		}
	}
	return false
}

// send answers a question: with all own members of a topic, unless there are none,
// or the other has them.
func (p *Presence) send(nd *node, a ask, out *Results) {
	to := func(message []byte) {
		out.Messages = append(out.Messages, Message{Node: nd.id, Data: message})
	}
	t := p.topicByHash(a.hash)
	i := uint32(0)
	if t != 0 {
		i = p.source(t, 0)
	}
	if i == 0 {
		to(encodeAnswer(kindNone, answer{hash: a.hash, asOf: p.number}))
		return
	}
	s := p.sources.At(i)
	if a.digest == s.digest {
		to(encodeAnswer(kindSame, answer{hash: a.hash, asOf: p.number, number: s.number}))
		return
	}
	p.stats.Snapshots++
	var parts [][]byte
	part := make([]byte, 0, min(int(s.members)*64, partMax))
	for j := p.topics.At(t).members; j != 0; j = p.members.At(j).later {
		m := p.members.At(j)
		if m.node != 0 {
			continue
		}
		if len(part)+int(m.id)+int(m.data)+8 > partMax {
			parts = append(parts, part)
			part = make([]byte, 0, partMax)
		}
		part = wire.AppendString(part, p.memberID(m))
		part = wire.AppendString(part, p.memberData(m))
	}
	parts = append(parts, part)
	m := snapshot{topic: p.topicName(p.topics.At(t)), asOf: p.number, number: s.number, parts: len(parts)}
	for i, part := range parts {
		m.part, m.members = i, part
		to(m.encode())
	}
}

// Step does some of what is due: answers, questions, checks, and the removal of dead
// nodes' members. It is to be called after other calls, and four times a second or
// more often, and again while it returns true, as long as there is room for what
// it wants to send. A step sends one snapshot at most.
func (p *Presence) Step(now time.Duration, out *Results) (more bool) {
	p.now = now
	if p.full && p.members.Used() < p.o.MaxMembers/4*3 && p.text.Used() < p.o.MaxBytes/4*3 {
		p.full = false
		for _, n := range p.byNode {
			p.nodes[n].doubt()
		}
	}
	more = p.sweep(out)
	more = p.answerNext(out) || more
	more = p.tellDue(out) || more
	p.again(out)
	return p.rounds(out) || more
}
