package presence

import (
	"encoding/binary"
	"time"

	"github.com/seed-134acfd0/lull/server/cluster/internal/wire"
)

// node is another node, or this one.
type node struct {
	id      uint64
	dead    bool   // its members are being removed
	seen    uint64 // the newest of its numbers in any message
	sources int    // topics in which it has members

	number, members, losses uint64 // as its last beat says

	// checks of what is known of it
	checked uint64 // its number when the last round began in which nothing differed
	unsure  bool   // something may differ, whatever the numbers say
	urgent  int    // rounds that are not paced
	round   round

	// what it has asked for
	asks   []ask
	answer checking
}

// Beat appends what the node's heartbeat has to say of presence: a few bytes.
func (p *Presence) Beat(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, p.number)
	dst = binary.AppendUvarint(dst, uint64(p.own))
	return binary.AppendUvarint(dst, p.losses)
}

// Heard takes the Beat of another node's heartbeat. The first one makes the node
// known; before that, its messages are refused.
func (p *Presence) Heard(id uint64, beat []byte, now time.Duration) error {
	p.now = now
	d := decoder{wire.Decoder{Rest: beat}}
	number, members, losses := d.Number(), d.Number(), d.Number()
	if !d.End() || id == 0 || id == p.o.Self {
		p.stats.Malformed++
		return ErrMessage
	}
	nd, err := p.meet(id)
	if err != nil {
		return err
	}
	if number < nd.number { // this beat was late
		return nil
	}
	if losses != nd.losses || nd.seen == 0 && number > 0 {
		nd.doubt()
	}
	nd.number, nd.members, nd.losses = number, members, losses
	nd.seen = max(nd.seen, number)
	return nil
}

func (p *Presence) meet(id uint64) (*node, error) {
	if n, ok := p.byNode[id]; ok {
		return p.nodes[n], nil
	}
	if len(p.byNode) == p.o.MaxNodes {
		return nil, ErrNodes
	}
	n := 1
	for n < len(p.nodes) && p.nodes[n] != nil {
		n++
	}
	if n == len(p.nodes) {
		p.nodes = append(p.nodes, nil)
	}
	p.nodes[n] = &node{id: id}
	p.byNode[id] = uint16(n)
	return p.nodes[n], nil
}

// doubt has everything that is known of a node checked at once, and once more.
func (nd *node) doubt() {
	nd.unsure, nd.urgent = true, 2
	nd.round.next = 0
}

// Forget takes note that a node is dead. Its members leave in the next steps.
func (p *Presence) Forget(id uint64) {
	n, ok := p.byNode[id]
	if !ok {
		return
	}
	delete(p.byNode, id)
	p.nodes[n].dead = true
	for key := range p.wants {
		if key.node == n {
			p.drop(key)
		}
	}
	p.sweepLeft = p.members.High()
}

// Lost takes note that this node may have missed messages, or that some of its own
// may not have been sent. Everything is checked, from both sides.
func (p *Presence) Lost() {
	p.losses++
	for _, n := range p.byNode {
		p.nodes[n].doubt()
	}
}

// sweepInStep is how many records a step looks at for members of dead nodes.
const sweepInStep = 4096

// sweep removes members of dead nodes.
func (p *Presence) sweep(out *Results) (more bool) {
	if p.sweepLeft == 0 {
		return false
	}
	for range sweepInStep {
		if p.sweepLeft == 0 {
			break
		}
		p.sweepLeft--
		if p.sweepAt++; p.sweepAt >= p.members.High() {
			p.sweepAt = 0
			continue
		}
		m := p.members.At(p.sweepAt)
		if n := m.node; m.topic != 0 && p.nodes[n].dead {
			t := m.topic
			p.remove(p.sweepAt, out)
			p.settle(t, n)
		}
	}
	if p.sweepLeft > 0 {
		return true
	}
	for n, nd := range p.nodes {
		if nd != nil && nd.dead {
			p.nodes[n] = nil
		}
	}
	return false
}
