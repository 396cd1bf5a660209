package presence

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/dchest/siphash"

	"github.com/seed-134acfd0/lull/internal/slab"
	"github.com/seed-134acfd0/lull/server/cluster/internal/limit"
	"github.com/seed-134acfd0/lull/server/internal/topics"
)

// Options of a Presence. Zero values are the defaults.
type Options struct {
	Self uint64   // this node, since it was started; not zero
	Key  [16]byte // of the hashes of topics and members; the same on all nodes, and unknown to clients

	MaxMembers int // own ones and those of other nodes; 1 << 20
	MaxTopics  int // with own members, or watched; 1 << 20
	MaxBytes   int // that ids, data and names of topics take, as slab.Cost has it; 256 MiB
	MaxData    int // bytes of an own member's data, at most 32 KiB; 1024
	MaxNodes   int // other nodes; 1024
	MaxStaged  int // bytes of snapshots that are not complete, and of changes that wait for them; 64 MiB
	CheckRate  int // bytes a second of background checks; 64 KiB
}

// The longest names, in bytes.
const (
	TopicMax = topics.NameMax
	IDMax    = 255

	dataMost = 32 << 10
)

// What is refused.
var (
	ErrTopic   = fmt.Errorf("presence: a topic has 1 to %d bytes", TopicMax)
	ErrID      = fmt.Errorf("presence: a member's id has 1 to %d bytes", IDMax)
	ErrData    = errors.New("presence: too much data for a member")
	ErrTopics  = errors.New("presence: too many topics")
	ErrMembers = errors.New("presence: too many members")
	ErrBytes   = errors.New("presence: members and topics take too many bytes")
	ErrNodes   = errors.New("presence: too many nodes")
	ErrNode    = errors.New("presence: a message of a node that is not known")
	ErrMessage = errors.New("presence: a malformed message")
)

// Results are what calls append: what has happened, and what is to be sent. The
// slices in them belong to whoever passed the Results.
type Results struct {
	Events   []Event
	Messages []Message
}

// Reset forgets what was taken out.
func (r *Results) Reset() { r.Events, r.Messages = r.Events[:0], r.Messages[:0] }

// Event is something that has happened to a member. Events of a member alternate:
// Joined, any number of Changed, Left.
type Event struct {
	Kind      EventKind
	Topic, ID string
	Data      []byte // nil if it has left
}

// EventKind is what has happened.
type EventKind uint8

// Kinds of events.
const (
	Joined  EventKind = iota + 1 // its first connection in all has come
	Changed                      // it shows other data
	Left                         // its last connection in all has gone
)

// Message is to be sent to a node, or to all nodes that follow a topic if Node is
// zero. It has at most 64 KiB.
type Message struct {
	Node  uint64
	Topic string
	Data  []byte
}

// Stats are counters that only grow, and how much there is.
type Stats struct {
	Members, Own, Topics, Watched, Nodes int // now; Members counts an id once for each node
	Bytes, Staged                        int // now
	Wanting                              int // now: topics of nodes that were asked for
	MaxMembers, MaxBytes                 int // of Options

	Refused   uint64 // members and topics of other nodes for which there was no room
	Gaps      uint64 // changes that did not follow
	Doubles   uint64 // changes that came twice, or too late
	Differing uint64 // digests that differed, so that something was lost before
	Snapshots uint64 // sent
	Rounds    uint64 // of checks, ended
	Unstaged  uint64 // parts and changes for which MaxStaged had no room
	Malformed uint64
	Unknown   uint64 // messages of nodes that were not known
}

// Presence is one node's view. It is for one goroutine at a time. Times are of any
// clock that does not go backwards.
type Presence struct {
	o      Options
	k0, k1 uint64

	text     *slab.Bytes
	members  *slab.Records[member]
	byMember *slab.Index
	topics   *slab.Records[topic]
	byTopic  *slab.Index
	sources  *slab.Records[source]

	nodes  []*node // by the number that records have; nil if it is free. This node is 0
	byNode map[uint64]uint16

	now       time.Duration
	number    uint64 // of the last own change
	losses    uint64 // how often Lost was called
	own       int
	watched   int
	use       uint16 // of the last own member that was added
	tails     queue
	wants     map[wantKey]*want
	staged    int
	wantsSeen time.Duration // when they were looked at
	seq       uint64        // of the last part of a round
	checkNext time.Duration // when a background check may be sent
	answered  int           // the node that was answered last
	sweepAt   uint32        // where the sweep goes on
	sweepLeft uint32        // records that it has still to look at
	full      bool          // something of other nodes was refused
	scratch   []byte
	stats     Stats
}

// New makes an empty Presence.
func New(o Options) (*Presence, error) {
	err := cmp.Or(
		limit.Set(&o.MaxMembers, 1<<20, math.MaxInt32-1, "members"),
		limit.Set(&o.MaxTopics, 1<<20, math.MaxInt32-1, "topics"),
		limit.Set(&o.MaxBytes, 256<<20, 64<<30, "bytes"),
		limit.Set(&o.MaxData, 1<<10, dataMost, "bytes of data"),
		limit.Set(&o.MaxNodes, 1<<10, math.MaxUint16-1, "nodes"),
		limit.Set(&o.MaxStaged, 64<<20, 64<<30, "staged bytes"),
		limit.Set(&o.CheckRate, 64<<10, 1<<30, "bytes a second of checks"),
	)
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	if o.Self == 0 {
		return nil, errors.New("presence: a node is not 0")
	}
	p := &Presence{
		o:     o,
		k0:    binary.LittleEndian.Uint64(o.Key[:8]),
		k1:    binary.LittleEndian.Uint64(o.Key[8:]),
		nodes: []*node{{id: o.Self}}, byNode: map[uint64]uint16{}, wants: map[wantKey]*want{},
	}
	var errs [6]error
	p.text, errs[0] = slab.NewBytes(o.MaxBytes)
	p.members, errs[1] = slab.NewRecords[member](o.MaxMembers)
	p.byMember, errs[2] = slab.NewIndex(o.MaxMembers)
	p.topics, errs[3] = slab.NewRecords[topic](o.MaxTopics)
	p.byTopic, errs[4] = slab.NewIndex(o.MaxTopics)
	p.sources, errs[5] = slab.NewRecords[source](o.MaxMembers + 1) // each has a member, but for one that is being changed
	return p, errors.Join(errs[:]...)
}

// Count is how many members a topic has.
func (p *Presence) Count(topic string) int {
	if t := p.topic(topic); t != 0 {
		return int(p.topics.At(t).count)
	}
	return 0
}

// List iterates over the members of a topic and their data, in no order. The loop
// must not call anything else of the Presence. The data are valid until the loop
// goes on.
func (p *Presence) List(topic string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		t := p.topic(topic)
		if t == 0 {
			return
		}
		var data []byte
		for i := p.topics.At(t).members; i != 0; i = p.members.At(i).later {
			m := p.members.At(i)
			if m.flags&shown == 0 {
				continue
			}
			data = p.text.Append(data[:0], m.text, int(m.id), int(m.data))
			if !yield(p.memberID(m), data) {
				return
			}
		}
	}
}

// Stats returns what was counted.
func (p *Presence) Stats() Stats {
	s := p.stats
	s.Members, s.Own, s.Topics, s.Watched, s.Nodes = p.members.Used(), p.own, p.topics.Used(), p.watched, len(p.byNode)
	s.Bytes, s.Staged, s.Wanting = p.text.Used(), p.staged, len(p.wants)
	s.MaxMembers, s.MaxBytes = p.o.MaxMembers, p.o.MaxBytes
	return s
}

// hash is a keyed hash of b.
func (p *Presence) hash(b []byte) uint64 { return siphash.Hash(p.k0, p.k1, b) }
