package history

import (
	"encoding/binary"
	"math"

	"github.com/seed-134acfd0/lull/server/cluster/internal/wire"
)

// The first byte of a message. A string has its length before it, as have lists;
// numbers and times are varints, nodes eight bytes, little-endian.
const (
	kindAsk     = 1 + iota // seq topic gone since most [node told from to]
	kindOffer              // seq
	kindWant               // as kindAsk
	kindEntries            // seq part parts since [node told time] [node op head data] to the end
	kindTail               // topic number time
)

// partMax is how many bytes of entries a part has at most, if it has more than one.
const (
	partMax  = 63 << 10
	partsMax = 1 << 16
)

// want says what a node has of a topic, to be sent what it has not.
type want struct {
	seq   uint64
	topic string
	gone  int64 // entries up to this time are not wanted
	since int64 // everything since then has come
	most  int   // entries that are wanted
	here  []span
}

// span are entries of a node that follow each other, and its newest number that is
// known to exist. There are none if to is zero.
type span struct{ node, told, from, to uint64 }

// head is the newest number of a node that is known to exist.
type head struct {
	node, told uint64
	time       int64
}

// part is a part of an answer.
type part struct {
	seq         uint64
	part, parts int
	since       int64
	heads       []head
	entries     []byte // validated; a part of the message
}

func (w *want) encode(kind byte) []byte {
	b := binary.AppendUvarint([]byte{kind}, w.seq)
	b = wire.AppendString(b, w.topic)
	b = binary.AppendUvarint(b, uint64(max(w.gone, 0)))
	b = binary.AppendUvarint(b, uint64(max(w.since, 0)))
	b = binary.AppendUvarint(b, uint64(w.most))
	b = binary.AppendUvarint(b, uint64(len(w.here)))
	for _, s := range w.here {
		b = binary.LittleEndian.AppendUint64(b, s.node)
		b = binary.AppendUvarint(b, s.told)
		b = binary.AppendUvarint(b, s.from)
		b = binary.AppendUvarint(b, s.to)
	}
	return b
}

func encodeOffer(seq uint64) []byte { return binary.AppendUvarint([]byte{kindOffer}, seq) }

func (p *part) encode() []byte {
	b := binary.AppendUvarint([]byte{kindEntries}, p.seq)
	b = binary.AppendUvarint(b, uint64(p.part))
	b = binary.AppendUvarint(b, uint64(p.parts))
	b = binary.AppendUvarint(b, uint64(max(p.since, 0)))
	b = binary.AppendUvarint(b, uint64(len(p.heads)))
	for _, s := range p.heads {
		b = binary.LittleEndian.AppendUint64(b, s.node)
		b = binary.AppendUvarint(b, s.told)
		b = binary.AppendUvarint(b, uint64(max(s.time, 0)))
	}
	return append(b, p.entries...)
}

func encodeTail(topic string, number uint64, time int64) []byte {
	b := binary.AppendUvarint(wire.AppendString([]byte{kindTail}, topic), number)
	return binary.AppendUvarint(b, uint64(max(time, 0)))
}

func appendEntry(b []byte, e Entry) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.Node)
	b = appendHead(append(b, e.Op), e)
	return wire.AppendString(b, e.Data)
}

// appendHead appends an entry's numbers and times, a dozen bytes as a rule.
func appendHead(b []byte, e Entry) []byte {
	b = binary.AppendUvarint(b, e.Number)
	b = binary.AppendUvarint(b, e.Number-e.Previous)
	b = binary.AppendUvarint(b, uint64(max(e.Time, 0)))
	return binary.AppendUvarint(b, uint64(max(e.Time-e.PreviousTime, 0)))
}

// decoder takes a message apart.
type decoder struct{ wire.Decoder }

// timeMost is the latest time, in the year 10889.
const timeMost = 1<<48 - 1

func (d *decoder) time() int64 {
	v := d.Number()
	if v > timeMost {
		d.Fail()
		return 0
	}
	return int64(v)
}

func (d *decoder) bytes() []byte { return d.Bytes(0, math.MaxInt) }

func (d *decoder) topic() string { return string(d.Bytes(1, TopicMax)) }

func (d *decoder) want() (w want) {
	w.seq = d.Number()
	w.topic = d.topic()
	w.gone, w.since = d.time(), d.time()
	w.most = int(min(d.Number(), math.MaxInt32))
	w.here = make([]span, d.Count(11))
	for i := range w.here {
		w.here[i] = span{d.Word(), d.Number(), d.Number(), d.Number()}
	}
	return w
}

func (d *decoder) part() (p part) {
	p.seq = d.Number()
	p.part = int(min(d.Number(), partsMax))
	p.parts = int(min(d.Number(), partsMax+1))
	p.since = d.time()
	p.heads = make([]head, d.Count(10))
	for i := range p.heads {
		p.heads[i] = head{d.Word(), d.Number(), d.time()}
		if p.heads[i].node == 0 {
			d.Fail()
		}
	}
	p.entries = d.Rest
	for len(d.Rest) > 0 {
		d.entry()
	}
	if p.part >= p.parts || p.parts > partsMax {
		d.Fail()
	}
	return p
}

func (d *decoder) head(e *Entry) {
	e.Number = d.Number()
	back := d.Number()
	e.Time = d.time()
	elapsed := d.time()
	if back == 0 || back > e.Number || elapsed > e.Time {
		d.Fail()
		return
	}
	e.Previous, e.PreviousTime = e.Number-back, e.Time-elapsed
}

func (d *decoder) entry() (e Entry) {
	e.Node = d.Word()
	e.Op = d.Byte()
	d.head(&e)
	e.Data = d.bytes()
	if e.Node == 0 {
		d.Fail()
	}
	return e
}
