package presence

import (
	"encoding/binary"
	"slices"

	"github.com/seed-134acfd0/lull/server/cluster/internal/wire"
)

// The first byte of a message. A string has its length before it, as have lists;
// numbers are varints, hashes and digests eight bytes, little-endian.
const (
	kindChange   = 1 + iota // topic previous number op id data
	kindTell                // topic asOf number digest ask [node digest]
	kindWant                // hash digest
	kindSnapshot            // topic asOf number part parts [id data]
	kindSame                // hash asOf number
	kindNone                // hash asOf
	kindCheck               // seq [hash] [hash digest]
	kindChecked             // seq differing
)

const (
	opSet   = 1 + iota // the member is there, with these data
	opLeave            // it has gone
)

// messageMax is how many bytes a message has at most; partMax is where a part of a
// snapshot ends at the latest.
const (
	messageMax = 64 << 10
	partMax    = messageMax - 512
	partsMax   = 1 << 14
)

// change is one change of one member. previous is the number of the one before it
// in the topic, zero if the node had nobody there.
type change struct {
	topic            string
	previous, number uint64
	op               uint8
	id               string
	data             []byte // as long as the message that it was decoded from
}

// tell is how far a node is in a topic: the number of its last change there, its
// digest, and the number of its last change anywhere. known is what it has of
// others.
type tell struct {
	topic        string
	asOf, number uint64
	digest       uint64
	ask          bool
	known        []known
}

type known struct{ node, digest uint64 }

// snapshot is a part of a node's members in a topic.
type snapshot struct {
	topic        string
	asOf, number uint64
	part, parts  int
	members      []byte // [id data], validated
}

// answer is a kindSame or kindNone.
type answer struct{ hash, asOf, number uint64 }

// check is a part of a round.
type check struct {
	seq    uint64
	none   []uint64 // hashes of topics where nothing is known of the receiver
	having []having
}

type having struct{ hash, digest uint64 }

// ask is a kindWant: what is asked for in a topic.
type ask = having

func (c *change) encode() []byte {
	b := make([]byte, 0, 30+len(c.topic)+len(c.id)+len(c.data))
	b = wire.AppendString(append(b, kindChange), c.topic)
	b = binary.AppendUvarint(b, c.previous)
	b = binary.AppendUvarint(b, c.number)
	b = wire.AppendString(append(b, c.op), c.id)
	return wire.AppendString(b, c.data)
}

func (t *tell) encode() []byte {
	b := wire.AppendString([]byte{kindTell}, t.topic)
	b = binary.AppendUvarint(b, t.asOf)
	b = binary.AppendUvarint(b, t.number)
	b = binary.LittleEndian.AppendUint64(b, t.digest)
	if t.ask {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(t.known)))
	for _, k := range t.known {
		b = binary.LittleEndian.AppendUint64(b, k.node)
		b = binary.LittleEndian.AppendUint64(b, k.digest)
	}
	return b
}

func encodeWant(a ask) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{kindWant}, a.hash)
	return binary.LittleEndian.AppendUint64(b, a.digest)
}

func encodeAnswer(kind byte, a answer) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{kind}, a.hash)
	b = binary.AppendUvarint(b, a.asOf)
	if kind == kindSame {
		b = binary.AppendUvarint(b, a.number)
	}
	return b
}

func (s *snapshot) encode() []byte {
	b := make([]byte, 0, 50+len(s.topic)+len(s.members))
	b = wire.AppendString(append(b, kindSnapshot), s.topic)
	b = binary.AppendUvarint(b, s.asOf)
	b = binary.AppendUvarint(b, s.number)
	b = binary.AppendUvarint(b, uint64(s.part))
	b = binary.AppendUvarint(b, uint64(s.parts))
	return append(b, s.members...)
}

func (c *check) encode() []byte {
	b := binary.AppendUvarint([]byte{kindCheck}, c.seq)
	b = binary.AppendUvarint(b, uint64(len(c.none)))
	for _, hash := range c.none {
		b = binary.LittleEndian.AppendUint64(b, hash)
	}
	b = binary.AppendUvarint(b, uint64(len(c.having)))
	for _, h := range c.having {
		b = binary.LittleEndian.AppendUint64(b, h.hash)
		b = binary.LittleEndian.AppendUint64(b, h.digest)
	}
	return b
}

func encodeChecked(seq uint64, differing int) []byte {
	return binary.AppendUvarint(binary.AppendUvarint([]byte{kindChecked}, seq), uint64(differing))
}

// decoder takes a message apart.
type decoder struct{ wire.Decoder }

func (d *decoder) topic() string { return string(d.Bytes(1, TopicMax)) }

func (d *decoder) change() (c change) {
	c.topic = d.topic()
	c.previous = d.Number()
	c.number = d.Number()
	c.op = d.Byte()
	c.id = string(d.Bytes(1, IDMax))
	c.data = d.Bytes(0, dataMost)
	if c.op != opSet && c.op != opLeave || c.previous >= c.number {
		d.Fail()
	}
	return c
}

func (d *decoder) tell() (t tell) {
	t.topic = d.topic()
	t.asOf = d.Number()
	t.number = d.Number()
	t.digest = d.Word()
	t.ask = d.Byte() != 0
	t.known = make([]known, d.Count(16))
	for i := range t.known {
		t.known[i] = known{d.Word(), d.Word()}
	}
	if t.number > t.asOf {
		d.Fail()
	}
	return t
}

func (d *decoder) want() ask { return ask{d.Word(), d.Word()} }

func (d *decoder) snapshot() (s snapshot) {
	s.topic = d.topic()
	s.asOf = d.Number()
	s.number = d.Number()
	s.part = int(min(d.Number(), partsMax))
	s.parts = int(min(d.Number(), partsMax+1))
	s.members = slices.Clone(d.Rest)
	for len(d.Rest) > 0 {
		d.member()
	}
	if s.number > s.asOf || s.part >= s.parts || s.parts > partsMax {
		d.Fail()
	}
	return s
}

func (d *decoder) member() (id string, data []byte) {
	return string(d.Bytes(1, IDMax)), d.Bytes(0, dataMost)
}

func (d *decoder) answer(kind byte) (a answer) {
	a.hash = d.Word()
	a.asOf = d.Number()
	if kind == kindSame {
		a.number = d.Number()
	}
	if a.number > a.asOf {
		d.Fail()
	}
	return a
}

func (d *decoder) check() (c check) {
	c.seq = d.Number()
	c.none = make([]uint64, d.Count(8))
	for i := range c.none {
		c.none[i] = d.Word()
	}
	c.having = make([]having, d.Count(16))
	for i := range c.having {
		c.having[i] = having{d.Word(), d.Word()}
	}
	return c
}
