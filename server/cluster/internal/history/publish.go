package history

import "hash/maphash"

// ownNumber is the last own number in a topic: 40 bytes.
type ownNumber struct {
	hash    uint64 // of the topic, under a random key
	number  uint64
	time    int64
	next    uint32 // in the index
	newer   uint32 // by their last use
	older   uint32
	telling bool // a tail is due
}

// ownTable is the index's view of the own numbers.
type ownTable History

func (h *ownTable) Next(i uint32) *uint32 { return &h.numbers.At(i).next }
func (h *ownTable) Hash(i uint32) uint64  { return h.numbers.At(i).hash }

// Publish numbers a message of this node, and keeps it if its topic is kept. The
// entry is to be sent to the other nodes as it is returned, all of a topic in the order
// of their numbers. If too many topics were published to, the number before it may be
// said to be higher than it was: others then ask whether they have missed
// something.
func (h *History) Publish(topic string, op uint8, data []byte, now int64) Entry {
	h.number++
	previous := h.swap(topic, h.number)
	e := Entry{
		Node: h.o.Self, Number: h.number, Previous: previous.number, Time: max(now, previous.time), PreviousTime: previous.time,
		Op: op, Data: data,
	}
	h.numbers.At(h.newest).time = e.Time
	h.Add(topic, e, now)
	switch p := h.numbers.At(h.newest); {
	case p.telling:
	case len(h.tails) == tailsMost:
		h.stats.Untold++
	default:
		p.telling = true
		h.tails = append(h.tails, tail{topic, now + tailAfter})
	}
	return e
}

// tail is a topic whose last own number is to be told.
type tail struct {
	topic string
	at    int64
}

const (
	tailsMost   = 1 << 16
	tailAfter   = 1000 // milliseconds
	tailsInStep = 256
)

// tellTails tells last numbers, so that a lost last message is found.
func (h *History) tellTails(now int64, out *Results) (more bool) {
	n := 0
	for ; n < min(len(h.tails), tailsInStep); n++ {
		t := h.tails[n]
		if t.at > now && t.at-now <= tailAfter { // clocks of the day may go back
			break
		}
		if i := h.own(t.topic); i != 0 {
			p := h.numbers.At(i)
			p.telling = false
			out.Messages = append(out.Messages, Message{Topic: t.topic, Data: encodeTail(t.topic, p.number, p.time)})
		}
	}
	if h.tails = h.tails[n:]; len(h.tails) == 0 {
		h.tails = nil
	}
	return n == tailsInStep
}

// own returns where the last own number of a topic is, 0 if it is not remembered.
func (h *History) own(topic string) uint32 {
	hash := maphash.String(h.seed, topic)
	i := h.byNumber.First(hash)
	for i != 0 && h.numbers.At(i).hash != hash {
		i = h.numbers.At(i).next
	}
	return i
}

// swap remembers an own number, and returns the one before it in the topic.
func (h *History) swap(topic string, number uint64) (previous ownNumber) {
	i := h.own(topic)
	if i != 0 {
		previous = *h.numbers.At(i)
		h.unlink(i)
	} else {
		if h.numbers.Room() == 0 {
			oldest := h.oldest
			h.forgotten = *h.numbers.At(oldest)
			h.unlink(oldest)
			h.byNumber.Remove(oldest, (*ownTable)(h))
			h.numbers.Put(oldest)
		}
		previous = h.forgotten
		i = h.numbers.Take()
		h.numbers.At(i).hash = maphash.String(h.seed, topic)
		h.byNumber.Add(i, (*ownTable)(h))
	}
	p := h.numbers.At(i)
	p.number, p.older, p.newer = number, h.newest, 0
	if h.newest != 0 {
		h.numbers.At(h.newest).newer = i
	} else {
		h.oldest = i
	}
	h.newest = i
	return previous
}

func (h *History) unlink(i uint32) {
	p := h.numbers.At(i)
	if p.newer != 0 {
		h.numbers.At(p.newer).older = p.older
	} else {
		h.newest = p.older
	}
	if p.older != 0 {
		h.numbers.At(p.older).newer = p.newer
	} else {
		h.oldest = p.newer
	}
}

// Add takes an entry that another node has published. It is to be delivered to the
// topic's members here if deliver is true; otherwise they have had it. Whoever
// calls it holds a lock until it is delivered, the same one as around Resume and
// what follows it, so that a position is never ahead of what was delivered.
// Entries of topics that are not kept are always delivered.
func (h *History) Add(topic string, e Entry, now int64) (deliver bool) {
	i := h.ring(topic)
	if i == 0 {
		return true
	}
	r := h.rings.At(i)
	h.age(i, now)
	si := h.sourceFor(i, e.Node)
	if si == 0 { // nobody knows that it was here
		h.stats.Crowded++
		r.gone = max(r.gone, e.Time)
		r.since, r.vouched = now, now
		return true
	}
	s := h.sources.At(si)
	x := uint32(0)
	if e.Number <= s.last {
		x = h.find(r, s.node, e.Number)
	}
	switch {
	case e.Number > s.last:
		if e.Previous > max(s.last, s.told) {
			h.stats.Gaps++
			h.open(i, s, e.Previous, e.PreviousTime)
		}
		h.come(i, s.node, e.Number, e.Previous)
		deliver = true
	case x != 0, e.Number <= s.gone:
		h.stats.Doubles++
		return false
	default: // late, unless it was said to be lost
		if deliver = h.come(i, s.node, e.Number, e.Previous); !deliver {
			h.stats.Doubles++
		}
	}
	h.put(r, s, e, true)
	return deliver
}

// find returns the entry with a node's number, 0 if it is not there.
func (h *History) find(r *ring, n uint16, number uint64) uint32 {
	i := r.first
	for i != 0 && (h.entries.At(i).node != n || h.entries.At(i).number != number) {
		i = h.entries.At(i).next
	}
	return i
}
