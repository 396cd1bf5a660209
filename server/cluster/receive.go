package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster/internal/history"
	"github.com/seed-134acfd0/lull/server/cluster/internal/sequence"
)

// receive handles what comes from the broker, until ctx ends.
func (n *Node) receive(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			n.intake.close()
			return
		case m := <-n.intake.messages:
			n.intake.taken()
			n.handle(m)
		}
	}
}

func (n *Node) handle(m *nats.Msg) {
	if m.Subject == n.subjects.nodes || m.Subject == n.own {
		if h, id, ok := readHello(m.Data); !ok {
			n.counts.malformed.Add(1)
		} else if id != n.id {
			n.meet(&h, id)
		}
		return
	}
	if strings.HasPrefix(m.Subject, n.store.answers) {
		n.store.answered(m)
		return
	}
	h, rest, ok := open(m.Data)
	if !ok || h.node == n.id {
		n.malformed(ok)
		return
	}
	switch h.kind {
	case kindMessage, kindKept:
		ok = n.message(m.Subject, h, rest)
	case kindTail, kindEnd:
		n.tail(m.Subject, h)
	case kindAsk:
		ok = n.answer(h, rest)
	case kindAt:
		ok = n.answered(h, rest)
	case kindMembers:
		ok = n.members(h, rest)
	case kindHistory:
		ok = n.told(h, rest)
	default:
		ok = false
	}
	n.malformed(ok)
}

// malformed counts what is not understood.
func (n *Node) malformed(ok bool) {
	if !ok {
		n.counts.malformed.Add(1)
	}
}

// message takes a message to a topic.
func (n *Node) message(subject string, h head, rest []byte) bool {
	name, op, data, ok := message(rest)
	var entry history.Entry
	if ok && h.kind == kindKept {
		entry, ok = placed(data)
	}
	if !ok {
		return false
	}
	n.mu.Lock()
	f := n.interest.follows[subject]
	if f == nil {
		n.mu.Unlock()
		return true // it was left
	}
	fresh, gap := f.in.Message(h.node, sequence.Number(h.number), n.peers.began(h.node, f.since))
	losses := n.note(nil, f, h.node, gap)
	n.mu.Unlock()
	n.report(losses)
	topic := f.topic
	if topic != string(name) {
		topic = string(name)
	}
	if h.kind == kindKept {
		n.received(h.node, topic, op, entry) // which knows better what came before
		n.reportPast()
		return true
	}
	if !fresh {
		n.counts.stale.Add(1)
		return true
	}
	n.counts.received.Add(1)
	if !n.deliver(topic, op, data) {
		n.report([]Loss{{Node: n.nameOf(h.node), Topic: topic, Shard: -1, Messages: 1}})
	}
	return true
}

// deliver has the server deliver a message, and waits for a while if it has too much to send
// already: then the broker waits, too.
func (n *Node) deliver(topic string, op frame.Op, data []byte) bool {
	to := n.local.Load()
	if to == nil {
		return true // nobody can be there
	}
	order := &n.order[hash(topic)%uint32(len(n.order))]
	wait := time.Millisecond
	published := false
	for try := 0; ; try++ {
		order.Lock()
		var err error
		if !published {
			err = (*to).Publish(topic, op, data)
			published = !errors.Is(err, server.ErrBackpressure)
		}
		if published {
			err = n.passOn(*to, topic, op, data, nowhere)
		}
		order.Unlock()
		if !errors.Is(err, server.ErrBackpressure) {
			n.impatient = false
			return true // ErrClosed, or a name that no member can have: nobody is there
		}
		if n.impatient || try == deliverTries {
			n.impatient = true
			n.counts.undelivered.Add(1)
			return false
		}
		time.Sleep(wait)
		wait *= 2
	}
}

// tail takes the last number of a subject.
func (n *Node) tail(subject string, h head) {
	n.mu.Lock()
	var losses []Loss
	if f := n.interest.follows[subject]; f != nil {
		gap := f.in.Tail(h.node, sequence.Number(h.number), h.kind == kindEnd, n.peers.began(h.node, f.since))
		losses = n.note(nil, f, h.node, gap)
	}
	n.mu.Unlock()
	n.report(losses)
}

// answer tells a node how far this one is on the subjects that it has begun to follow.
func (n *Node) answer(h head, rest []byte) bool {
	suffixes, ok := asked(rest)
	if !ok {
		return false
	}
	for i, s := range suffixes {
		suffixes[i] = n.subjects.whole(s)
	}
	n.queue.answer(n.subjects.to+hex(h.node), h.number, suffixes)
	return true
}

// answered takes an answer.
func (n *Node) answered(h head, rest []byte) bool {
	n.mu.Lock()
	r := n.interest.rounds[h.number]
	if r == nil {
		n.mu.Unlock()
		return true // it comes too late
	}
	numbers, ok := answered(rest, len(r.follows))
	var losses []Loss
	for i, at := range numbers {
		if f := r.follows[i]; n.interest.follows[f.subject] == f {
			losses = n.note(losses, f, h.node, f.in.At(h.node, at))
		}
	}
	var waiters []*waiter
	if ok {
		waiters = n.interest.answer(r, h.node)
	}
	n.mu.Unlock()
	n.report(losses)
	n.settle(waiters)
	return ok
}

// note appends a gap to losses. n.mu is held.
func (n *Node) note(losses []Loss, f *follow, node uint64, g sequence.Gap) []Loss {
	if g == (sequence.Gap{}) || n.limits(f.topic).Messages > 0 {
		return losses // or package history finds what is lost, and perhaps the messages
	}
	return append(losses, Loss{Node: n.peers.name(node), Topic: f.topic, Shard: f.shard, Messages: g.Lost, Unsure: g.Unsure})
}

// report counts losses, and tells those that have asked for them.
func (n *Node) report(losses []Loss) {
	for _, l := range losses {
		n.counts.lost.Add(l.Messages)
		if l.Unsure {
			n.counts.unsure.Add(1)
		}
		if n.options.Lost != nil {
			n.losing.Lock()
			n.options.Lost(l)
			n.losing.Unlock()
		}
	}
}

func (n *Node) nameOf(node uint64) string {
	if node == n.id {
		return n.options.Name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.peers.name(node)
}

// meet takes another node's hello.
func (n *Node) meet(h *hello, id uint64) {
	n.mu.Lock()
	if n.joined && (h.Joining || h.Back) {
		n.queue.reply(n.subjects.node+h.ID, encode(n.hello())) // who is not answered hears the next hello
	}
	waiters, left := n.judge(h, id)
	alive := n.peers.isAlive(id)
	n.mu.Unlock()
	n.settle(waiters)
	for _, node := range left {
		n.gone(node)
	}
	if alive {
		n.malformed(n.heard(id, h.Presence))
	}
}

// judge decides what another node is, and which nodes are gone by that. n.mu is held.
func (n *Node) judge(h *hello, id uint64) (waiters []*waiter, gone []uint64) {
	log := n.options.Log
	switch {
	case h.Protocol != protocol:
		n.stranger(id, fmt.Errorf("%w: node %s has version %d, this one %d", ErrVersion, h.Name, h.Protocol, protocol), !h.Joining)
	case !slices.Equal(h.Personal, n.options.Personal):
		n.stranger(id, fmt.Errorf("%w: node %s has %q, this one %q", ErrPersonal, h.Name, h.Personal, n.options.Personal), !h.Joining)
	case h.History != (n.options.History != nil):
		n.stranger(id, fmt.Errorf("%w: node %s", ErrHistory, h.Name), !h.Joining)
	case h.Leaving:
		if n.peers.leave(id) != nil {
			log.Info("a node has left", "node", h.Name)
			return n.interest.gone(id), []uint64{id}
		}
	case h.Name == n.options.Name:
		if n.yields(h, id) {
			n.refuse(fmt.Errorf("%w: %s", ErrName, h.Name))
		}
	default:
		if forgotten, ok := n.peers.makeRoom(id); !ok {
			n.stranger(id, fmt.Errorf("%w: this one knows %d already, and node %s is one more", ErrFull, nodesMax, h.Name), !h.Joining)
			return nil, nil
		} else if forgotten != nil {
			n.interest.forget(forgotten.id)
		}
		p, came := n.peers.hear(id, h, n.now())
		if !came {
			return nil, nil
		}
		log.Info("a node is there", "node", h.Name)
		for _, old := range n.peers.namesakes(h.Name, id) {
			n.peers.leave(old)
			waiters = append(waiters, n.interest.gone(old)...)
			gone = append(gone, old)
		}
		if p.met || !p.born {
			n.interest.again() // it may have published before
			n.wake()
		}
		p.met = true
	}
	return waiters, gone
}

// stranger refuses to join a cluster with a node that this one does not understand. When the
// node has joined already, the other one will not, or is of another kind, which is said.
func (n *Node) stranger(id uint64, why error, joined bool) {
	if !n.joined && joined {
		n.refuse(why)
	} else if n.joined && joined && !n.strange[id] && len(n.strange) < nodesMax {
		n.strange[id] = true
		n.options.Log.Error("two nodes cannot work together, and exchange nothing", "error", why)
	}
}

// yields reports whether this node gives way to another one of its name: to one that has
// joined before it has, and of two that have joined, because they could not hear each other,
// to the older.
func (n *Node) yields(h *hello, id uint64) bool {
	if n.joined == h.Joining {
		return !n.joined
	}
	const alike = 2 * time.Second // ages that a late hello could have made differ
	if older := n.hello().Age - h.Age; older > alike.Milliseconds() || older < -alike.Milliseconds() {
		return older < 0
	}
	return n.id > id
}

// refuse ends the node's part in the cluster. n.mu is held.
func (n *Node) refuse(why error) {
	if n.refused == nil {
		n.refused = why
		close(n.out)
	}
	if n.link != nil {
		n.link.cut()
	}
}
