package history

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"math"
	"time"

	"github.com/seed-134acfd0/lull/internal/slab"
	"github.com/seed-134acfd0/lull/server/cluster/internal/limit"
	"github.com/seed-134acfd0/lull/server/internal/topics"
)

// Options of a History. Zero values are the defaults.
type Options struct {
	Self uint64 // this node, since it was started; not zero

	MaxTopics    int           // that are kept; 1 << 20
	MaxEntries   int           // of all topics; 1 << 20
	MaxBytes     int           // that messages and topics' names take, as slab.Cost has it; 256 MiB
	MaxData      int           // of a message; larger ones are not kept; 256 KiB
	MaxPublished int           // topics of which this node remembers its last number; 1 << 20
	Slack        time.Duration // how far clocks of nodes are apart at most, and how long a message is under way; 2 s
	Store        bool          // entries are stored outside of nodes, and Results.Reads can be answered
}

// Limits of a topic's ring. Whatever is reached first counts; zero is no limit, but
// for Entries.
type Limits struct {
	Entries int           // at least 1
	Age     time.Duration // in milliseconds
	Bytes   int           // of the messages, as slab.Cost has it
}

// What is refused.
var (
	ErrTopic    = fmt.Errorf("history: a topic has 1 to %d bytes", TopicMax)
	ErrTopics   = errors.New("history: too many topics are kept")
	ErrBytes    = errors.New("history: messages and topics take too many bytes")
	ErrLimits   = errors.New("history: a ring has at least one entry")
	ErrUnkept   = errors.New("history: the topic is not kept")
	ErrPosition = errors.New("history: no position")
	ErrMessage  = errors.New("history: a malformed message")
)

// TopicMax is the longest name of a topic, in bytes.
const TopicMax = topics.NameMax

// Entry is a message to a topic. The numbers of a node grow over all its topics.
// Previous is the one before it in the topic, zero if there was none.
type Entry struct {
	Node             uint64
	Number, Previous uint64
	Time             int64 // of its node's clock, as all times here in milliseconds since 1970
	PreviousTime     int64 // of the one before it
	Op               uint8 // the caller's
	Data             []byte
}

// Results are what calls append. The slices in them belong to whoever passed the
// Results.
type Results struct {
	Messages []Message
	Late     []Late   // to be delivered to the topic's members here
	Lost     []Lost   // for the topic's members here to be told
	Filled   []string // topics of which everything is here that could be found
	Reads    []Read   // to be answered by Restore and Restored
}

// Reset forgets what was taken out.
func (r *Results) Reset() {
	r.Messages, r.Late, r.Filled = r.Messages[:0], r.Late[:0], r.Filled[:0]
	r.Lost, r.Reads = r.Lost[:0], r.Reads[:0]
}

// Late is an entry that was missed, and found at another node.
type Late struct {
	Topic string
	Entry Entry
}

// Lost says that entries of a node have not come and were not found: the one with the
// number UpTo, and perhaps others behind After.
type Lost struct {
	Topic       string
	Node        uint64
	After, UpTo uint64
}

// Message is to be sent to a node, or to all nodes that follow a topic if Node is
// zero. It has at most 64 KiB, or one entry and a kilobyte.
type Message struct {
	Node  uint64
	Topic string
	Data  []byte
}

// Stats are counters that only grow, and how much there is.
type Stats struct {
	Topics, Entries, Bytes, Filling int // now
	MaxEntries, MaxBytes            int // of Options

	Doubles   uint64 // entries that came twice
	Gaps      uint64 // entries that did not follow
	Evicted   uint64 // entries, by limits of their topics
	Crowded   uint64 // entries, because there was no room in all, or for so large a one
	Late      uint64 // entries that were missed and found
	Lost      uint64 // gaps that were said
	Filled    uint64 // entries that came from other nodes or the store and were not Late
	Asked     uint64 // questions to other nodes
	Untold    uint64 // last numbers that were not told, because too many are due
	Refused   uint64 // questions of other nodes for which there was no room
	Malformed uint64
}

// History is one node's rings. It is for one goroutine at a time.
type History struct {
	o    Options
	seed maphash.Seed

	text    *slab.Bytes
	rings   *slab.Records[ring]
	byTopic *slab.Index
	entries *slab.Records[entry]
	sources *slab.Records[source]

	nodes  []nodeUse // by the number that records have; 0 is no node
	byNode map[uint64]uint16

	// own numbers
	number    uint64
	forgotten ownNumber // the newest that was forgotten
	numbers   *slab.Records[ownNumber]
	byNumber  *slab.Index
	newest    uint32 // of numbers, by their last use
	oldest    uint32
	tails     []tail

	// what is asked of others, and by them
	lost    int64    // when Lost was last called
	lostAt  uint32   // the ring that is to be asked about next because of it; 0 if all were
	doubts  []uint32 // rings to be asked about
	repeats []repeat // and once more
	fills   map[uint64]*fill
	reads   map[uint64]uint32 // rings for which the store is read
	holes   map[holeKey][]hole
	missing int    // holes
	losses  []Lost // to be said
	seq     uint64
	asked   []request
	agedAt  uint32 // where the search for what is too old goes on
	ticked  int64  // when the last one was

	stats Stats
}

// nodeUse is a node, and how many sources it is named in.
type nodeUse struct {
	id   uint64
	uses int
}

// New makes an empty History.
func New(o Options) (*History, error) {
	err := cmp.Or(
		limit.Set(&o.MaxTopics, 1<<20, math.MaxInt32-1, "topics"),
		limit.Set(&o.MaxEntries, 1<<20, math.MaxInt32-1, "entries"),
		limit.Set(&o.MaxBytes, 256<<20, 64<<30, "bytes"),
		limit.Set(&o.MaxData, 256<<10, 1<<30, "bytes of a message"),
		limit.Set(&o.MaxPublished, 1<<20, math.MaxInt32-1, "remembered topics"),
	)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	if o.Self == 0 {
		return nil, errors.New("history: a node is not 0")
	}
	if o.Slack == 0 {
		o.Slack = 2 * time.Second
	}
	h := &History{o: o, seed: maphash.MakeSeed(), nodes: make([]nodeUse, 1), byNode: map[uint64]uint16{}, fills: map[uint64]*fill{}, reads: map[uint64]uint32{}, holes: map[holeKey][]hole{}}
	var errs [7]error
	h.text, errs[0] = slab.NewBytes(o.MaxBytes)
	h.rings, errs[1] = slab.NewRecords[ring](o.MaxTopics)
	h.byTopic, errs[2] = slab.NewIndex(o.MaxTopics)
	h.entries, errs[3] = slab.NewRecords[entry](o.MaxEntries)
	h.sources, errs[4] = slab.NewRecords[source](o.MaxEntries + o.MaxTopics)
	h.numbers, errs[5] = slab.NewRecords[ownNumber](o.MaxPublished)
	h.byNumber, errs[6] = slab.NewIndex(o.MaxPublished)
	return h, errors.Join(errs[:]...)
}

// Stats returns what was counted.
func (h *History) Stats() Stats {
	s := h.stats
	s.Topics, s.Entries, s.Bytes, s.Filling = h.rings.Used(), h.entries.Used(), h.text.Used(), len(h.fills)+len(h.doubts)+len(h.repeats)+len(h.reads)
	s.MaxEntries, s.MaxBytes = h.o.MaxEntries, h.o.MaxBytes
	return s
}

// Entries iterates over what is kept of a topic, the oldest first. The loop must not
// call anything else of the History. The data are valid until the loop goes on.
func (h *History) Entries(topic string, now int64) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		r := h.ring(topic)
		if r == 0 {
			return
		}
		h.age(r, now)
		var data []byte
		for i := h.rings.At(r).first; i != 0; i = h.entries.At(i).next {
			e := h.entry(i, data[:0])
			if data = e.Data; !yield(e) {
				return
			}
		}
	}
}
