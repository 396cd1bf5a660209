package presence

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/seed-134acfd0/lull/server/cluster/internal/wire"
)

// want is what a node was asked for: its members in a topic.
type want struct {
	min   uint64 // an answer has to be as new as this
	sent  time.Duration
	tries int

	// the parts of the newest snapshot that have come
	asOf, number uint64
	parts        [][]byte
	missing      int

	changes [][]byte // messages that came since
	bytes   int      // staged for it
}

type wantKey struct {
	topic uint32
	node  uint16
}

// Bounds of what is asked for.
const (
	wantsMost = 4096
	triesMost = 5
	againMin  = time.Second // until it is asked for again, and then twice as long each time
	againMax  = 4 * time.Second
)

// want asks a node for what it has in a topic. message is a change that has to wait
// for it, if there is one.
func (p *Presence) want(t uint32, n uint16, message []byte, out *Results) {
	if p.full && p.source(t, n) == 0 { // it would be refused again
		p.nodes[n].unsure = true
		return
	}
	w := p.expect(t, n)
	if w == nil {
		return
	}
	w.min = p.nodes[n].seen
	if message != nil {
		p.keep(w, message)
	}
	p.sendWant(wantKey{t, n}, out)
}

// expect makes a want. If there is no room for it, the next round has to find what
// it was for.
func (p *Presence) expect(t uint32, n uint16) *want {
	if len(p.wants) >= wantsMost {
		p.nodes[n].unsure = true
		return nil
	}
	w := &want{sent: p.now}
	p.wants[wantKey{t, n}] = w
	return w
}

func (p *Presence) sendWant(key wantKey, out *Results) {
	a := ask{hash: p.topics.At(key.topic).hash}
	if s := p.source(key.topic, key.node); s != 0 {
		a.digest = p.sources.At(s).digest
	}
	out.Messages = append(out.Messages, Message{Node: p.nodes[key.node].id, Data: encodeWant(a)})
}

// stage accounts for n bytes more.
func (p *Presence) stage(w *want, n int) bool {
	if p.staged+n > p.o.MaxStaged {
		p.stats.Unstaged++
		return false
	}
	p.staged += n
	w.bytes += n
	return true
}

// keep keeps a change until the answer has come. One that is not kept is missed
// again then.
func (p *Presence) keep(w *want, message []byte) {
	if p.stage(w, len(message)+sliceSize) {
		w.changes = append(w.changes, slices.Clone(message))
	}
}

// sliceSize is what a slice takes beside its bytes.
const sliceSize = 24

func (p *Presence) drop(key wantKey) {
	if w := p.wants[key]; w != nil {
		p.staged -= w.bytes
		delete(p.wants, key)
	}
}

// again repeats questions that were not answered, and gives those up that never are.
func (p *Presence) again(out *Results) {
	if p.now-p.wantsSeen < againMin/4 {
		return
	}
	p.wantsSeen = p.now
	keys := slices.SortedFunc(maps.Keys(p.wants), func(a, b wantKey) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.node, b.node))
	})
	for _, key := range keys { // the same whenever it is run
		w := p.wants[key]
		if p.now-w.sent < min(againMin<<w.tries, againMax) {
			continue
		}
		if w.tries++; w.tries > triesMost {
			p.nodes[key.node].unsure = true
			p.drop(key)
			continue
		}
		w.sent = p.now
		p.sendWant(key, out)
	}
}

// snapshotCame takes a part of a snapshot.
func (p *Presence) snapshotCame(n uint16, m snapshot, out *Results) {
	seen := p.nodes[n].hear(m.asOf)
	t := p.followed(m.topic)
	if t == 0 {
		return
	}
	key := wantKey{t, n}
	w, s := p.wants[key], p.source(t, n)
	switch {
	case w != nil && m.asOf < w.min, w == nil && s != 0 && m.asOf < p.sources.At(s).number:
		p.stats.Doubles++
		return
	case w == nil && s == 0 && m.asOf < seen: // it may be an old one, of members who have left
		p.want(t, n, nil, out)
		return
	}
	if m.parts == 1 {
		p.replace(key, m.asOf, m.number, [][]byte{m.members}, out)
		return
	}
	if w == nil {
		if w = p.expect(t, n); w == nil {
			return
		}
		w.min = m.asOf
	}
	if w.parts == nil || w.asOf < m.asOf {
		for _, part := range w.parts {
			p.staged -= len(part)
			w.bytes -= len(part)
		}
		w.parts, w.missing, w.asOf, w.number = nil, m.parts, m.asOf, m.number
		if !p.stage(w, m.parts*sliceSize) {
			return
		}
		w.parts = make([][]byte, m.parts)
	}
	if w.asOf != m.asOf || len(w.parts) != m.parts || w.parts[m.part] != nil || !p.stage(w, len(m.members)) {
		return
	}
	w.parts[m.part] = m.members
	w.sent = p.now
	if w.missing--; w.missing == 0 {
		p.replace(key, w.asOf, w.number, w.parts, out)
	}
}

// answerCame takes the answer that a node has nobody in a topic, or nobody else
// than is known.
func (p *Presence) answerCame(n uint16, kind byte, a answer, out *Results) {
	p.nodes[n].hear(a.asOf)
	t := p.topicByHash(a.hash)
	if t == 0 || p.topics.At(t).flags&watched == 0 {
		return
	}
	key := wantKey{t, n}
	w, s := p.wants[key], p.source(t, n)
	if w != nil && a.asOf < w.min || w == nil && (s == 0 || a.asOf < p.sources.At(s).number) {
		return
	}
	switch {
	case kind == kindNone:
		p.replace(key, a.asOf, 0, nil, out)
	case w != nil && s != 0:
		p.goOn(key, a.number, out)
	}
}

// replace makes a node's members in a topic those of a snapshot, and applies the
// changes that have waited for it.
func (p *Presence) replace(key wantKey, asOf, number uint64, parts [][]byte, out *Results) {
	t, n := key.topic, key.node
	p.sourceFor(t, n)
	for id := range membersOf(parts) {
		if i := p.find(t, n, id); i != 0 {
			p.members.At(i).flags |= named
		}
	}
	for i := p.topics.At(t).members; i != 0; {
		m := p.members.At(i)
		later := m.later
		switch {
		case m.node != n:
		case m.flags&named != 0:
			m.flags &^= named
		default:
			p.remove(i, out)
		}
		i = later
	}
	for id, data := range membersOf(parts) {
		p.put(t, n, id, data, out)
	}
	if len(parts) == 0 {
		number = asOf // what changes later begins anew
	}
	p.goOn(key, number, out)
}

// membersOf iterates over the members in the parts of a snapshot.
func membersOf(parts [][]byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, part := range parts {
			d := decoder{wire.Decoder{Rest: part}}
			for len(d.Rest) > 0 {
				if !yield(d.member()) {
					return
				}
			}
		}
	}
}

// goOn takes note that what is known of a node in a topic is true as of a number,
// and applies the changes that have waited.
func (p *Presence) goOn(key wantKey, number uint64, out *Results) {
	t, n := key.topic, key.node
	s := p.sources.At(p.source(t, n))
	s.number = max(s.number, number)
	var waited []change
	if w := p.wants[key]; w != nil {
		for _, message := range w.changes {
			d := decoder{wire.Decoder{Rest: message[1:]}}
			waited = append(waited, d.change())
		}
	}
	p.drop(key)
	slices.SortStableFunc(waited, func(a, b change) int { return cmp.Compare(a.number, b.number) })
	for _, c := range waited {
		switch {
		case c.number <= number: // it is known, or came twice
		case p.wants[key] != nil: // one is missing
			p.keep(p.wants[key], c.encode())
		default:
			p.follow(t, n, c, c.encode(), 0, out)
			number = c.number
		}
	}
	p.settle(t, n)
}
