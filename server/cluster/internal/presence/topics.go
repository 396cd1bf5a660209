package presence

import "github.com/seed-134acfd0/lull/internal/slab"

// topic has own members, is watched, or has a tell that is due: 32 bytes.
type topic struct {
	hash    uint64
	next    uint32 // in the index
	name    uint32
	members uint32 // the first
	sources uint32 // the first
	count   uint32 // members, those with the same id counted once
	length  uint8  // of its name; 0 if the record is free
	flags   uint8
}

const (
	watched = 1 << iota
	telling // a tell is due
	asking  // and is a question
)

// source is what one node has in a topic: 32 bytes. One without members is freed.
type source struct {
	number  uint64 // of the last change that is known
	digest  uint64 // the sum of its members' digests
	next    uint32 // of the topic's sources
	members uint32
	changed uint32 // when it was, in youngUnit, if the node is this one
	node    uint16
}

// topicTable is the index's view of the topics.
type topicTable Presence

func (p *topicTable) Next(i uint32) *uint32 { return &p.topics.At(i).next }
func (p *topicTable) Hash(i uint32) uint64  { return p.topics.At(i).hash }

func (p *Presence) topicName(t *topic) string {
	var name [TopicMax]byte
	return string(p.text.Append(name[:0], t.name, 0, int(t.length)))
}

// topic returns the topic of a name, 0 if there is none.
func (p *Presence) topic(name string) uint32 {
	hash := p.hash([]byte(name))
	for i := p.byTopic.First(hash); i != 0; {
		t := p.topics.At(i)
		if t.hash == hash && int(t.length) == len(name) && p.text.HasPrefix(t.name, name) {
			return i
		}
		i = t.next
	}
	return 0
}

// topicByHash returns the topic of a hash, 0 if there is none. Keyed hashes of 64
// bits do not collide; if they did, somebody would get a snapshot that he ignores.
func (p *Presence) topicByHash(hash uint64) uint32 {
	i := p.byTopic.First(hash)
	for i != 0 && p.topics.At(i).hash != hash {
		i = p.topics.At(i).next
	}
	return i
}

// topicFor returns the topic of a name, a new one if there is none.
func (p *Presence) topicFor(name string) (uint32, error) {
	if len(name) == 0 || len(name) > TopicMax {
		return 0, ErrTopic
	}
	if t := p.topic(name); t != 0 {
		return t, nil
	}
	if p.topics.Room() == 0 {
		return 0, ErrTopics
	}
	if !p.text.Room(slab.Cost(len(name))) {
		return 0, ErrBytes
	}
	text, _ := p.text.Put([]byte(name))
	i := p.topics.Take()
	*p.topics.At(i) = topic{hash: p.hash([]byte(name)), name: text, length: uint8(len(name))}
	p.byTopic.Add(i, (*topicTable)(p))
	return i, nil
}

// source returns what a node has in a topic, 0 if nothing is known.
func (p *Presence) source(t uint32, n uint16) uint32 {
	i := p.topics.At(t).sources
	for i != 0 && p.sources.At(i).node != n {
		i = p.sources.At(i).next
	}
	return i
}

// sourceFor returns what a node has in a topic, a new one if nothing is known.
func (p *Presence) sourceFor(t uint32, n uint16) uint32 {
	if i := p.source(t, n); i != 0 {
		return i
	}
	i := p.sources.Take()
	*p.sources.At(i) = source{next: p.topics.At(t).sources, node: n}
	p.topics.At(t).sources = i
	p.nodes[n].sources++
	return i
}

// settle frees a source that has no members, and its topic if nobody needs it.
func (p *Presence) settle(t uint32, n uint16) {
	at := &p.topics.At(t).sources
	for *at != 0 {
		i := *at
		s := p.sources.At(i)
		if s.node == n && s.members == 0 {
			*at = s.next
			p.sources.Put(i)
			p.nodes[n].sources--
			break
		}
		at = &s.next
	}
	p.release(t)
}

// release frees a topic that nobody needs.
func (p *Presence) release(i uint32) {
	t := p.topics.At(i)
	if t.members != 0 || t.sources != 0 || t.flags != 0 {
		return
	}
	p.byTopic.Remove(i, (*topicTable)(p))
	p.text.Free(t.name)
	p.topics.Put(i)
}
