package cluster

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// counts are the node's counters.
type counts struct {
	published, refused, unsent                 atomic.Uint64
	sent, sentBytes                            atomic.Uint64
	received, stale, lost, unsure              atomic.Uint64
	undelivered, overruns, malformed           atomic.Uint64
	unconfirmed, unwatched, unkept, reconnects atomic.Uint64
	died                                       atomic.Uint64
	stored, marks, restored, unread            atomic.Uint64
}

// Stats are a node's figures. Those in the first group are of the moment, the others count
// since it has joined.
type Stats struct {
	Connected   bool          // the broker is there
	Away        time.Duration // how long the broker has been away; 0 while it is there
	Nodes       []string      // the names of the other living nodes, in order
	Silence     time.Duration // for which nothing was heard of that one of them which was silent for longest
	Subjects    int           // that the node follows
	Queued      int           // messages that wait for the broker
	QueuedBytes int           // that they take
	QueuedMax   int           // the most bytes that have waited for it

	Members      int  // of topics, that this node knows (Options.Present); somebody on two nodes counts twice
	OwnMembers   int  // of Members, those of this node
	MemberBytes  int  // that members take
	KeptTopics   int  // of which messages are kept (Options.History)
	Kept         int  // messages
	KeptBytes    int  // that they take
	StreamUnsure bool // the stream may lack messages, and was not told so yet (Options.Stream)
	Limits       StatsLimits

	Published   uint64 // messages by this node, on all topics
	Refused     uint64 // that were refused, because too much waited for the broker
	Unsent      uint64 // of Published, that other nodes did not get because the broker was away
	Sent        uint64 // messages to the broker, answers and tails among them
	SentBytes   uint64 // of these, without the subjects
	Received    uint64 // messages of other nodes
	Lost        uint64 // messages of other nodes that have not arrived
	Unsure      uint64 // times that more may have been lost
	Stale       uint64 // messages that came twice, or after they were lost
	Undelivered uint64 // of Received, that the server did not take for a second
	Overruns    uint64 // times that NATS' client had no room for what came
	Malformed   uint64 // messages that were not understood
	Unconfirmed uint64 // subscriptions that were not confirmed in time
	Unwatched   uint64 // topics whose members are not followed, because there are too many
	Unkept      uint64 // topics whose messages are not kept, because there are too many
	Reconnects  uint64 // times that the broker was there again
	Stored      uint64 // messages given to the stream
	StreamMarks uint64 // times that the stream was told that it may lack messages
	Restored    uint64 // messages that came from the stream
	Unread      uint64 // topics that could not be read from the stream
	Died        uint64 // other nodes that were not heard any more though the broker was there, and had not left
}

// StatsLimits are the most that figures of Stats can be. Those of members and of kept messages
// are 0 without Options.Present and Options.History.
type StatsLimits struct {
	Nodes, QueuedBytes, Members, MemberBytes, Kept, KeptBytes int
}

// Stats returns the node's figures. It never waits for the broker.
func (n *Node) Stats() Stats {
	c := &n.counts
	s := Stats{
		Published: c.published.Load(), Refused: c.refused.Load(), Unsent: c.unsent.Load(),
		Sent: c.sent.Load(), SentBytes: c.sentBytes.Load(),
		Received: c.received.Load(), Lost: c.lost.Load(), Unsure: c.unsure.Load(), Stale: c.stale.Load(),
		Undelivered: c.undelivered.Load(), Overruns: c.overruns.Load(), Malformed: c.malformed.Load(),
		Unconfirmed: c.unconfirmed.Load(), Reconnects: c.reconnects.Load(), Unwatched: c.unwatched.Load(), Unkept: c.unkept.Load(), Died: c.died.Load(),
		Stored: c.stored.Load(), StreamMarks: c.marks.Load(), Restored: c.restored.Load(), Unread: c.unread.Load(),
		Limits: StatsLimits{Nodes: nodesMax, QueuedBytes: n.options.Queue},
	}
	n.queue.mu.Lock()
	s.Queued, s.QueuedBytes, s.QueuedMax = n.queue.messages, n.queue.bytes, n.queue.highest
	n.queue.mu.Unlock()
	n.crowd.addTo(&s)
	n.past.addTo(&s)
	s.StreamUnsure = n.store.isUnsure()
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	s.Connected, s.Subjects = n.link != nil, len(n.interest.follows)
	if n.link == nil {
		s.Away = now - n.lostAt
	}
	for _, p := range n.peers.byID {
		if p.alive {
			s.Nodes = append(s.Nodes, p.name)
			s.Silence = max(s.Silence, now-p.heard)
		}
	}
	slices.Sort(s.Nodes)
	return s
}

// addTo adds how many members there are.
func (cr *crowd) addTo(s *Stats) {
	if cr.state == nil {
		return
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	now := cr.state.Stats()
	s.Members, s.OwnMembers, s.MemberBytes = now.Members, now.Own, now.Bytes
	s.Limits.Members, s.Limits.MemberBytes = now.MaxMembers, now.MaxBytes
}

// addTo adds how much is kept.
func (p *past) addTo(s *Stats) {
	if p.state == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.state.Stats()
	s.KeptTopics, s.Kept, s.KeptBytes = now.Topics, now.Entries, now.Bytes
	s.Limits.Kept, s.Limits.KeptBytes = now.MaxEntries, now.MaxBytes
}

// Ready returns nil while the node takes part in its cluster, and otherwise why it does not:
// ErrAway, ErrName or ErrLeft, with details. A node that is not ready serves its own clients
// nevertheless.
func (n *Node) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.refused != nil:
		return n.refused
	case n.link != nil:
		return nil
	case n.left:
		return ErrLeft
	case n.lost != nil:
		return fmt.Errorf("%w: messages reach the clients of this node alone: %w", ErrAway, n.lost)
	}
	return ErrAway
}
