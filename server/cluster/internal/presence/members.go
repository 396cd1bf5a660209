package presence

import (
	"iter"
	"unsafe"

	"github.com/dchest/siphash"

	"github.com/seed-134acfd0/lull/internal/slab"
)

// member is an id that a node has in a topic: 32 bytes.
type member struct {
	next           uint32 // in the index
	topic          uint32 // 0 if the record is free
	text           uint32 // id and data
	later, earlier uint32 // of the topic's members
	conns          uint32 // connections, if the node is this one
	node           uint16
	data           uint16 // its length
	use            uint16 // tells an own member from an earlier one in this record
	id             uint8  // its length
	flags          uint8
}

const (
	shown = 1 << iota // of those with the same id in the topic it is the one that counts
	named             // the snapshot that is being applied names it
)

// memberTable is the index's view of the members.
type memberTable Presence

func (p *memberTable) Next(i uint32) *uint32 { return &p.members.At(i).next }

func (p *memberTable) Hash(i uint32) uint64 {
	m := p.members.At(i)
	var id [IDMax]byte
	return (*Presence)(p).memberHash(m.topic, p.text.Append(id[:0], m.text, 0, int(m.id)))
}

func (p *Presence) memberHash(t uint32, id []byte) uint64 {
	return siphash.Hash(p.k0^uint64(t), ^p.k1, id)
}

func (p *Presence) memberID(m *member) string {
	var id [IDMax]byte
	return string(p.text.Append(id[:0], m.text, 0, int(m.id)))
}

func (p *Presence) memberData(m *member) []byte {
	return p.text.Append(nil, m.text, int(m.id), int(m.data))
}

// digest is what a member adds to its source's digest.
func (p *Presence) digest(m *member) uint64 {
	p.scratch = p.text.Append(append(p.scratch[:0], m.id), m.text, 0, int(m.id)+int(m.data))
	return p.hash(p.scratch)
}

// same iterates over the members with an id in a topic, one for each node that has
// it.
func (p *Presence) same(t uint32, id string) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i := p.byMember.First(p.memberHash(t, []byte(id))); i != 0; {
			m := p.members.At(i)
			next := m.next
			if m.topic == t && int(m.id) == len(id) && p.text.HasPrefix(m.text, id) && !yield(i) {
				return
			}
			i = next
		}
	}
}

// find returns the member that a node has, 0 if it has none.
func (p *Presence) find(t uint32, n uint16, id string) uint32 {
	for i := range p.same(t, id) {
		if p.members.At(i).node == n {
			return i
		}
	}
	return 0
}

// room returns an error if there is no room for a member of a node whose text has
// so many bytes.
func (p *Presence) room(n uint16, text int) error {
	members, bytes := 1, slab.Cost(text)
	if n != 0 { // the last eighth is for own ones
		members += p.o.MaxMembers / 8
		bytes += p.o.MaxBytes / 8
	}
	switch {
	case p.members.Room() < members:
		return ErrMembers
	case !p.text.Room(bytes):
		return ErrBytes
	}
	return nil
}

// add adds a member to a topic, which it must not be in on that node.
func (p *Presence) add(t uint32, n uint16, id string, data []byte, out *Results) (uint32, error) {
	if err := p.room(n, len(id)+len(data)); err != nil {
		return 0, err
	}
	var head uint32 // those with the same id, and which of them was shown
	for j := range p.same(t, id) {
		if p.members.At(j).flags&shown != 0 {
			head = j
		}
	}
	text, _ := p.text.Put([]byte(id), data)
	i := p.members.Take()
	m, in := p.members.At(i), p.topics.At(t)
	p.use++
	*m = member{topic: t, text: text, later: in.members, node: n, data: uint16(len(data)), id: uint8(len(id)), use: p.use}
	if in.members != 0 {
		p.members.At(in.members).earlier = i
	}
	in.members = i
	p.byMember.Add(i, (*memberTable)(p))
	s := p.sources.At(p.sourceFor(t, n))
	s.members++
	s.digest += p.digest(m)
	if n == 0 {
		p.own++
	}
	switch {
	case head == 0:
		m.flags |= shown
		in.count++
		p.event(out, Joined, in, id, data)
	case p.nodes[n].id < p.nodes[p.members.At(head).node].id:
		p.show(head, i, out)
	}
	return i, nil
}

// show shows one member instead of another one of the same id.
func (p *Presence) show(old, i uint32, out *Results) {
	from, m := p.members.At(old), p.members.At(i)
	from.flags &^= shown
	m.flags |= shown
	before, data := p.memberData(from), p.memberData(m)
	if string(before) != string(data) {
		p.event(out, Changed, p.topics.At(m.topic), p.memberID(m), data)
	}
}

// set gives a member other data.
func (p *Presence) set(i uint32, data []byte, out *Results) (changed bool, err error) {
	m := p.members.At(i)
	if string(p.memberData(m)) == string(data) {
		return false, nil
	}
	id := p.memberID(m)
	if err := p.room(m.node, len(id)+len(data)); err != nil {
		return false, err
	}
	s := p.sources.At(p.source(m.topic, m.node))
	s.digest -= p.digest(m)
	p.text.Free(m.text)
	m.text, _ = p.text.Put([]byte(id), data)
	m.data = uint16(len(data))
	s.digest += p.digest(m)
	if m.flags&shown != 0 {
		p.event(out, Changed, p.topics.At(m.topic), id, data)
	}
	return true, nil
}

// remove removes a member. Its source stays, even without members, until settle.
// There are no events without Results.
func (p *Presence) remove(i uint32, out *Results) {
	m := p.members.At(i)
	t, id := p.topics.At(m.topic), p.memberID(m)
	s := p.sources.At(p.source(m.topic, m.node))
	s.digest -= p.digest(m)
	s.members--
	if m.node == 0 {
		p.own--
	}
	p.byMember.Remove(i, (*memberTable)(p))
	if m.earlier != 0 {
		p.members.At(m.earlier).later = m.later
	} else {
		t.members = m.later
	}
	if m.later != 0 {
		p.members.At(m.later).earlier = m.earlier
	}
	if m.flags&shown != 0 {
		if heir := p.lowest(m.topic, id); heir != 0 {
			p.show(i, heir, out)
		} else {
			t.count--
			p.event(out, Left, t, id, nil)
		}
	}
	p.text.Free(m.text)
	p.members.Put(i)
}

// lowest returns the member with an id whose node is the lowest.
func (p *Presence) lowest(t uint32, id string) (lowest uint32) {
	for i := range p.same(t, id) {
		if lowest == 0 || p.nodes[p.members.At(i).node].id < p.nodes[p.members.At(lowest).node].id {
			lowest = i
		}
	}
	return lowest
}

func (p *Presence) event(out *Results, kind EventKind, t *topic, id string, data []byte) {
	if out == nil {
		return
	}
	if kind != Left {
		data = append([]byte{}, data...)
	}
	out.Events = append(out.Events, Event{kind, p.topicName(t), id, data})
}

// No record is larger than the documentation says.
const (
	_ = uint(32 - unsafe.Sizeof(member{}))
	_ = uint(32 - unsafe.Sizeof(topic{}))
	_ = uint(32 - unsafe.Sizeof(source{}))
)
