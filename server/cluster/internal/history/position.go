package history

import (
	"encoding/base64"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/seed-134acfd0/lull/server/cluster/internal/wire"
)

// A position is what a client has had of a topic:
//
//	version 1 · node 8 · at · floor · [node 8 · number · [after · upTo]]
//
// in base64url. The node that gave it had delivered everything up to these numbers of these
// nodes at that time, but for the numbers behind after and up to upTo, which it was still
// asking for. Other nodes had said nothing between floor and then that had come to it. Times and
// numbers are varints, upTo is the difference to after, and the holes of a node have their number
// before them.
type position struct {
	node      uint64
	at, floor int64
	numbers   map[uint64]had
}

// had is what a client has had of a node.
type had struct {
	number uint64
	holes  []hole // in order
}

const (
	positionVersion = 1
	holesTold       = 8 // of a node; more are told as one
	positionMost    = 1 + 8 + 2*binary.MaxVarintLen64 + sourcesMost*(8+binary.MaxVarintLen64+1+holesTold*2*binary.MaxVarintLen64)
)

// PositionMax is how many bytes a position has at most. With three nodes it has
// about 70.
const PositionMax = (positionMost*8 + 5) / 6

// Position is what everybody has had who follows a topic here since a while: all that
// was published and added. It is to be given to a client that subscribes, in the
// same critical section, with each message, or when it asks.
func (h *History) Position(topic string, now int64) (string, error) {
	in := h.ring(topic)
	if in == 0 {
		return "", ErrUnkept
	}
	r := h.rings.At(in)
	b := binary.LittleEndian.AppendUint64([]byte{positionVersion}, h.o.Self)
	b = binary.AppendUvarint(b, uint64(now))
	b = binary.AppendUvarint(b, uint64(max(r.floor, r.left, 0)))
	for i := r.sources; i != 0; i = h.sources.At(i).next {
		s := h.sources.At(i)
		b = binary.LittleEndian.AppendUint64(b, h.nodes[s.node].id)
		b = binary.AppendUvarint(b, s.last)
		holes := h.holesBelow(holeKey{in, s.node}, s.last)
		b = binary.AppendUvarint(b, uint64(len(holes)))
		for _, x := range holes {
			b = binary.AppendUvarint(b, x.after)
			b = binary.AppendUvarint(b, x.upTo-x.after)
		}
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// Beginning is a position at the beginning of time: everything is owed, and more may be
// missing.
const Beginning = "AQAAAAAAAAAAAAA"

// Valid reports whether a text is a position.
func Valid(token string) bool {
	_, err := parse(token)
	return err == nil
}

func parse(token string) (p position, err error) {
	if len(token) > PositionMax {
		return p, ErrPosition
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return p, ErrPosition
	}
	d := decoder{wire.Decoder{Rest: b}}
	version := d.Byte()
	p.node = d.Word()
	p.at, p.floor = d.time(), d.time()
	p.numbers = map[uint64]had{}
	for len(d.Rest) > 0 && len(p.numbers) <= sourcesMost {
		node := d.Word()
		if _, twice := p.numbers[node]; twice {
			d.Fail()
		}
		n := had{number: d.Number()}
		upTo := uint64(0)
		for range min(d.Count(2), holesTold+1) {
			x := hole{after: d.Number()}
			x.upTo = x.after + d.Number()
			if x.after < upTo || x.upTo <= x.after || x.upTo > n.number {
				d.Fail()
			}
			upTo = x.upTo
			n.holes = append(n.holes, x)
		}
		if len(n.holes) > holesTold {
			d.Fail()
		}
		p.numbers[node] = n
	}
	if !d.End() || version != positionVersion || len(p.numbers) > sourcesMost {
		return p, ErrPosition
	}
	return p, nil
}

// Resumed is what a client missed.
type Resumed struct {
	// Entries are to be sent to it, in this order. They may be iterated over as
	// those of History.Entries.
	Entries iter.Seq[Entry]
	// Missing says that there was, or may have been, more.
	Missing bool
	// Ahead says that the client has had messages that have not come to this node.
	// If they do, it gets them again.
	Ahead bool
	// Wait says that it is better to resume again in a moment, for some seconds at
	// most: something is Missing and other nodes are being asked for it, or what the client is
	// Ahead with may be on its way.
	Wait bool
}

// Resume finds what a client has not had that has had everything up to a position.
// The caller sends it the entries and subscribes it to the topic in one critical
// section with what it does for Add.
func (h *History) Resume(topic, token string, now int64) (Resumed, error) {
	p, err := parse(token)
	if err != nil {
		return Resumed{}, err
	}
	i := h.ring(topic)
	if i == 0 {
		return Resumed{}, ErrUnkept
	}
	h.age(i, now)
	r := h.rings.At(i)
	slack := h.o.Slack.Milliseconds()
	young := now-p.at < slack
	here := p.node == h.o.Self && p.at >= r.floor+slack // it is this ring's
	if here {
		slack, young = 0, false
	}
	asking := r.flags&(doubted|doubtful|filling|unread|reading) != 0 || h.lostAt != 0 && i >= h.lostAt
	done := Resumed{Missing: p.at < h.since(r)+slack || r.left != 0 && p.at < r.left+slack}
	h.follow(r, p, &done)
	for node, n := range p.numbers {
		switch s := h.source(r, node); {
		case s != 0:
			done.Ahead = done.Ahead || h.sources.At(s).last < n.number
			node := h.sources.At(s).node
			for _, x := range n.holes {
				done.Missing = done.Missing || h.find(r, node, x.upTo) == 0
			}
			for _, x := range h.holes[holeKey{i, node}] {
				done.Ahead = done.Ahead || n.number > x.after && !n.lacks(min(n.number, x.upTo))
			}
		default: // what it said may have been before anything came here, or be on its way
			done.Ahead = done.Ahead || asking || young || p.at+slack > r.floor && !here
			done.Missing = done.Missing || len(n.holes) > 0
		}
	}
	done.Wait = (done.Missing || done.Ahead) && asking || done.Ahead && young
	if !done.Missing {
		r.owed = min(r.owed, p.at-h.o.Slack.Milliseconds())
	}
	done.Entries = func(yield func(Entry) bool) {
		for e := range h.Entries(topic, now) {
			if p.owed(e.Node, e.Number, e.Time) && !yield(e) {
				return
			}
		}
	}
	return done, nil
}

// owed reports whether a client at the position has not had an entry.
func (p *position) owed(node, number uint64, time int64) bool {
	if n, ok := p.numbers[node]; ok {
		return n.lacks(number)
	}
	return time > p.floor
}

func (n *had) lacks(number uint64) bool {
	return number > n.number || slices.ContainsFunc(n.holes, func(x hole) bool { return x.after < number && number <= x.upTo })
}

// follow finds out whether the entries that are owed follow what the client had, and
// each other, and reach to the last ones.
func (h *History) follow(r *ring, p position, done *Resumed) {
	newest := map[uint16]uint64{} // numbers of the entries so far
	for i := r.first; i != 0; i = h.entries.At(i).next {
		e := h.entries.At(i)
		before, inside := newest[e.node]
		newest[e.node] = e.number
		if !inside {
			before = h.sources.At(h.sourceOf(r, e.node)).gone
		}
		node := h.nodes[e.node].id
		n, listed := p.numbers[node]
		had := listed && !n.lacks(e.previous()) // the one before it
		if had && e.previous() > before && (inside || e.previousTime() > h.since(r)) {
			done.Ahead = true // with one that may still come
		}
		switch {
		case !p.owed(node, e.number, e.time), had, inside && e.previous() == before:
		case listed || inside || e.back != 0 && e.previousTime() > p.floor:
			done.Missing = true
		}
	}
	for i := r.sources; i != 0; i = h.sources.At(i).next {
		s := h.sources.At(i)
		n, listed := p.numbers[h.nodes[s.node].id]
		if !listed && s.time <= p.floor {
			continue
		}
		done.Missing = done.Missing || max(s.last, s.told) > max(n.number, newest[s.node])
	}
}

// since is the time since when everything has come here.
func (h *History) since(r *ring) int64 {
	if r.vouched > h.lost {
		return r.since
	}
	return max(r.since, h.lost)
}
