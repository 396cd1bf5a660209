package history

import (
	"hash/maphash"
	"math"
	"time"
	"unsafe"

	"github.com/seed-134acfd0/lull/internal/slab"
)

// ring is what is kept of a topic: 104 bytes.
type ring struct {
	hash    uint64
	since   int64 // everything since then came here, or is known not to have; true as of vouched
	vouched int64
	gone    int64 // the time of the newest entry that was evicted
	floor   int64 // Slack before it was first kept
	owed    int64 // members here have had what is newer, or are told
	left    int64 // the newest time of a source that was forgotten

	next    uint32 // in the index
	name    uint32
	first   uint32 // entry, the oldest
	last    uint32
	sources uint32
	count   uint32 // entries
	bytes   uint32 // of their texts
	most    uint32 // Limits
	age     uint32 // in seconds, rounded up
	room    uint32 // bytes
	length  uint8  // of its name; 0 if the record is free
	nodes   uint8  // sources
	flags   uint8
}

const (
	doubted  = 1 << iota // a question is due
	doubtful             // and another one, a second after the first
	filling              // one was asked
	unread               // the store is to be read when others were asked
	reading              // it is being read
)

// owes reports whether members here are told of an entry that is lost.
func (r *ring) owes(time int64) bool { return time > r.owed }

// awaits reports whether members here get an entry that is found.
func (r *ring) awaits(time int64) bool { return time > min(r.floor, r.owed) }

// entry is a message in a ring: 40 bytes.
type entry struct {
	number  uint64
	time    int64
	back    uint32 // from its number to the one before it; 0 if there was none
	elapsed uint32 // and from its time
	next    uint32
	text    uint32
	size    uint32
	node    uint16
	op      uint8
}

// previous is the number of the one before it, or if that is too far away, a higher
// one.
func (e *entry) previous() uint64 {
	if e.back == 0 {
		return 0
	}
	return e.number - uint64(e.back)
}

// previousTime is the time of the one before it, or if that is too long ago, a later
// one.
func (e *entry) previousTime() int64 { return e.time - int64(e.elapsed) }

// source is what is known of a node that has published to a topic: 40 bytes.
type source struct {
	last uint64 // the newest number that came
	told uint64 // the newest that is known to exist
	gone uint64 // the newest that came, or was lost, and is not here any more
	time int64  // of last
	next uint32 // of the topic's sources
	node uint16
}

// sourcesMost is how many nodes a position can name.
const sourcesMost = 64

// ringTable is the index's view of the rings.
type ringTable History

func (h *ringTable) Next(i uint32) *uint32 { return &h.rings.At(i).next }
func (h *ringTable) Hash(i uint32) uint64  { return h.rings.At(i).hash }

// ring returns the ring of a topic, 0 if it is not kept.
func (h *History) ring(topic string) uint32 {
	hash := maphash.String(h.seed, topic)
	for i := h.byTopic.First(hash); i != 0; {
		r := h.rings.At(i)
		if r.hash == hash && int(r.length) == len(topic) && h.text.HasPrefix(r.name, topic) {
			return i
		}
		i = r.next
	}
	return 0
}

func (h *History) topicName(r *ring) string {
	var name [TopicMax]byte
	return string(h.text.Append(name[:0], r.name, 0, int(r.length)))
}

// Keep begins to keep a topic, or changes its limits. It is to be called when
// messages to the topic reach this node: then other nodes are asked for what came
// before, and Results.Filled says when that is here.
func (h *History) Keep(topic string, limits Limits, now int64) error {
	if len(topic) == 0 || len(topic) > TopicMax {
		return ErrTopic
	}
	if limits.Entries < 1 {
		return ErrLimits
	}
	i := h.ring(topic)
	if i == 0 {
		if h.rings.Room() == 0 {
			return ErrTopics
		}
		if !h.text.Room(slab.Cost(len(topic))) {
			return ErrBytes
		}
		name, _ := h.text.Put([]byte(topic))
		i = h.rings.Take()
		*h.rings.At(i) = ring{
			hash: maphash.String(h.seed, topic), name: name, length: uint8(len(topic)),
			since: now, vouched: now, floor: now - h.o.Slack.Milliseconds(), owed: now,
		}
		if h.o.Store {
			h.rings.At(i).flags = unread
		}
		h.byTopic.Add(i, (*ringTable)(h))
		if own := h.own(topic); own != 0 { // there were messages while it was not kept
			h.hear(i, h.o.Self, h.numbers.At(own).number, h.numbers.At(own).time)
		}
		h.doubt(i)
	}
	r := h.rings.At(i)
	r.most = uint32(min(limits.Entries, h.o.MaxEntries))
	r.age = uint32((limits.Age + time.Second - 1) / time.Second)
	r.room = uint32(min(limits.Bytes, h.o.MaxBytes))
	h.trim(r)
	return nil
}

// Drop ends it, and forgets what was kept.
func (h *History) Drop(topic string) {
	i := h.ring(topic)
	if i == 0 {
		return
	}
	r := h.rings.At(i)
	for r.first != 0 {
		h.cut(r)
	}
	for r.sources != 0 {
		h.forget(i, &r.sources)
	}
	h.giveUp(i)
	h.giveUpReading(i, 0)
	h.byTopic.Remove(i, (*ringTable)(h))
	h.text.Free(r.name)
	h.rings.Put(i)
}

// source returns what is known of a node in a ring, 0 if nothing is.
func (h *History) source(r *ring, node uint64) uint32 {
	n, ok := h.byNode[node]
	if !ok {
		return 0
	}
	return h.sourceOf(r, n)
}

func (h *History) sourceOf(r *ring, n uint16) uint32 {
	i := r.sources
	for i != 0 && h.sources.At(i).node != n {
		i = h.sources.At(i).next
	}
	return i
}

// sourceFor returns what is known of a node in a ring, a new one if nothing is. Of
// too many nodes that one is forgotten that has been silent for longest, with
// whatever is kept of it. 0 means that there is no room.
func (h *History) sourceFor(in uint32, node uint64) uint32 {
	r := h.rings.At(in)
	if i := h.source(r, node); i != 0 {
		return i
	}
	if r.nodes == sourcesMost {
		h.forgetSource(in)
	}
	n, ok := h.byNode[node]
	if !ok {
		n = 1
		for int(n) < len(h.nodes) && h.nodes[n].uses > 0 {
			n++
		}
		if int(n) == nodesMost {
			return 0
		}
		if int(n) == len(h.nodes) {
			h.nodes = append(h.nodes, nodeUse{})
		}
		h.nodes[n].id = node
		h.byNode[node] = n
	}
	i := h.sources.Take()
	if i == 0 {
		if h.nodes[n].uses == 0 {
			delete(h.byNode, node)
		}
		return 0
	}
	h.nodes[n].uses++
	*h.sources.At(i) = source{next: r.sources, node: n}
	r.sources = i
	r.nodes++
	return i
}

// nodesMost is how many nodes all rings together know, dead ones included.
const nodesMost = 1 << 14

func (h *History) freeSource(i uint32) {
	u := &h.nodes[h.sources.At(i).node]
	if u.uses--; u.uses == 0 {
		delete(h.byNode, u.id)
	}
	h.sources.Put(i)
}

// forgetSource forgets the node that has been silent for longest, with all entries up to
// its last one.
func (h *History) forgetSource(in uint32) {
	r := h.rings.At(in)
	oldest := &r.sources
	for at := &r.sources; *at != 0; at = &h.sources.At(*at).next {
		if h.sources.At(*at).time < h.sources.At(*oldest).time {
			oldest = at
		}
	}
	n := h.sources.At(*oldest).node
	for has := h.has(r, n); has; has = h.has(r, n) {
		h.cut(r)
	}
	h.forget(in, oldest)
}

// forget forgets a node of which there are no entries. Positions do not name it any
// more. Whoever was given one later than its last time has had everything of it.
func (h *History) forget(in uint32, at *uint32) {
	i, r := *at, h.rings.At(in)
	s := h.sources.At(i)
	h.closeHoles(holeKey{in, s.node})
	r.left = max(r.left, s.time)
	*at = s.next
	r.nodes--
	h.freeSource(i)
}

// hear takes note of a number that a node has used at a time, and has what is missing asked for.
func (h *History) hear(i uint32, node, number uint64, time int64) {
	si := h.sourceFor(i, node)
	if si == 0 {
		return
	}
	if s := h.sources.At(si); number > s.told {
		h.open(i, s, number, time)
		s.told, s.time = number, max(s.time, time)
	}
}

// has reports whether there are entries of a node in a ring.
func (h *History) has(r *ring, n uint16) bool {
	for i := r.first; i != 0; i = h.entries.At(i).next {
		if h.entries.At(i).node == n {
			return true
		}
	}
	return false
}

// entry returns an entry with its data, which are appended to data.
func (h *History) entry(i uint32, data []byte) Entry {
	e := h.entries.At(i)
	return Entry{
		Node: h.nodes[e.node].id, Number: e.number, Previous: e.previous(), Time: e.time, PreviousTime: e.previousTime(), Op: e.op,
		Data: h.text.Append(data, e.text, 0, int(e.size)),
	}
}

// put puts an entry at the end, if live is true and its node has said nothing newer, and
// otherwise where it belongs: behind those of its node with lower numbers, before those
// with higher ones, and by its time. It makes room by evicting the oldest ones, and may evict the entry itself.
func (h *History) put(r *ring, s *source, e Entry, live bool) {
	fresh := e.Number > s.last
	if fresh {
		s.last, s.told, s.time = e.Number, max(s.told, e.Number), max(s.time, e.Time)
	}
	text := slab.Cost(len(e.Data))
	for r.first != 0 && (!h.text.Room(text) || h.entries.Room() == 0) {
		h.cut(r)
		h.stats.Crowded++
	}
	if len(e.Data) > h.o.MaxData || !h.text.Room(text) || h.entries.Room() == 0 {
		h.stats.Crowded++
		h.miss(r, s, e.Number, e.Time)
		return
	}
	i := h.entries.Take()
	at, _ := h.text.Put(e.Data)
	*h.entries.At(i) = entry{
		number: e.Number, time: e.Time, elapsed: uint32(min(max(e.Time-e.PreviousTime, 0), math.MaxUint32)),
		text: at, size: uint32(len(e.Data)), node: s.node, op: e.Op,
	}
	if e.Previous != 0 {
		h.entries.At(i).back = uint32(min(e.Number-e.Previous, math.MaxUint32))
	}
	after := r.last
	if !fresh || !live {
		after = h.place(r, s.node, e)
	}
	link := &r.first
	if after != 0 {
		link = &h.entries.At(after).next
	}
	h.entries.At(i).next = *link
	*link = i
	if after == r.last {
		r.last = i
	}
	r.count++
	r.bytes += uint32(text)
	h.trim(r)
}

// place returns the entry behind which e belongs, 0 if it is to be the first.
func (h *History) place(r *ring, n uint16, e Entry) (after uint32) {
	for i := r.first; i != 0; i = h.entries.At(i).next {
		if x := h.entries.At(i); x.node == n && x.number < e.Number {
			after = i
		}
	}
	i := r.first
	if after != 0 {
		i = h.entries.At(after).next
	}
	for i != 0 {
		x := h.entries.At(i)
		if x.node == n || x.time > e.Time {
			break
		}
		after, i = i, x.next
	}
	return after
}

// trim evicts what is over a ring's limits.
func (h *History) trim(r *ring) {
	for r.count > r.most || r.room > 0 && r.bytes > r.room {
		h.cut(r)
		h.stats.Evicted++
	}
}

// age evicts what is too old.
func (h *History) age(i uint32, now int64) {
	r := h.rings.At(i)
	for r.age > 0 && r.first != 0 && h.entries.At(r.first).time < now-int64(r.age)*1000 {
		h.cut(r)
		h.stats.Evicted++
	}
}

// cut evicts the oldest entry.
func (h *History) cut(r *ring) {
	i := r.first
	e := h.entries.At(i)
	if r.first = e.next; r.first == 0 {
		r.last = 0
	}
	r.count--
	r.bytes -= uint32(slab.Cost(int(e.size)))
	for s := r.sources; s != 0; s = h.sources.At(s).next {
		if src := h.sources.At(s); src.node == e.node {
			h.miss(r, src, e.number, e.time)
		}
	}
	h.text.Free(e.text)
	h.entries.Put(i)
}

// miss takes note that an entry is not there any more, or never was.
func (h *History) miss(r *ring, s *source, number uint64, time int64) {
	s.gone = max(s.gone, number)
	r.gone = max(r.gone, time)
}

// No record is larger than the documentation says.
const (
	_ = uint(40 - unsafe.Sizeof(entry{}))
	_ = uint(104 - unsafe.Sizeof(ring{}))
	_ = uint(40 - unsafe.Sizeof(source{}))
	_ = uint(40 - unsafe.Sizeof(ownNumber{}))
)
