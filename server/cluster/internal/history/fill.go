package history

import (
	"maps"
	"slices"

	"github.com/seed-134acfd0/lull/server/cluster/internal/wire"
)

// fill is a question about a ring.
//
//	asked ──offer──► wanted ──all parts──► asked again, if they brought something
//	  │ nobody offers     │ they do not come: asked again, twice
//	  └────► done ◄───────┘
type fill struct {
	ring    uint32
	asked   int64
	from    uint64 // who was asked for entries; 0 while nobody has offered any
	tries   int
	rounds  int
	parts   int // 0 before the first has come
	missing int
	came    []bool
	since   int64
	news    bool // something came that was not here
}

// repeat is a ring that is to be asked about once more.
type repeat struct {
	ring uint32
	at   int64
}

// request is a question of another node that is to be answered.
type request struct {
	node uint64
	want want
}

// Bounds of what is asked. Times are in milliseconds.
const (
	fillsMost    = 1024 // under way
	requestsMost = 4096 // that wait for their answers
	offerWait    = 300
	partWait     = 1000 // for the next part
	repeatAfter  = 1000 // what was under way when it was asked has come by then
	triesMost    = 3
	roundsMost   = 4
	askedInStep  = 256
	agedInStep   = 1024
	tick         = 50
	silentMost   = 600_000
)

// doubt has a ring asked about.
func (h *History) doubt(i uint32) {
	r := h.rings.At(i)
	if r.flags&doubted == 0 {
		r.flags |= doubted
		h.doubts = append(h.doubts, i)
	}
}

// Lost takes note that messages to any topic may have been missed up to now.
func (h *History) Lost(now int64) {
	h.lost = now
	for seq, f := range h.fills {
		h.rings.At(f.ring).flags &^= filling
		delete(h.fills, seq)
	}
	for _, i := range h.reads {
		h.giveUpReading(i, unread)
	}
	h.lostAt = 1
}

// giveUp forgets the question about a ring.
func (h *History) giveUp(i uint32) {
	if r := h.rings.At(i); r.flags&filling == 0 {
		return
	}
	for seq, f := range h.fills {
		if f.ring == i {
			h.rings.At(i).flags &^= filling
			delete(h.fills, seq)
		}
	}
}

// Step asks, answers, and evicts what is too old. It is to be called after other
// calls, and four times a second or more often, and again while it returns true, as
// long as there is room for what it wants to send. A step sends the answer to one
// question, which is the ring of a topic at most.
func (h *History) Step(now int64, out *Results) (more bool) {
	if now-h.ticked >= tick || now < h.ticked {
		h.ticked = now
		h.sweep(now)
		h.waited(now, out)
	}
	for n := 0; h.lostAt != 0 && n < askedInStep; n++ {
		if h.lostAt >= h.rings.High() {
			h.lostAt = 0
			break
		}
		if h.rings.At(h.lostAt).length > 0 {
			h.doubt(h.lostAt)
		}
		h.lostAt++
	}
	for n := 0; len(h.doubts) > 0 && n < askedInStep && len(h.fills) < fillsMost; n++ {
		i := h.doubts[0]
		h.doubts = h.doubts[1:]
		h.begin(i, doubted, now, out)
	}
	for n := 0; len(h.repeats) > 0 && n < askedInStep && len(h.fills) < fillsMost && h.repeats[0].at <= now; n++ {
		i := h.repeats[0].ring
		h.repeats = h.repeats[1:]
		h.begin(i, doubtful, now, out)
	}
	more = h.tellTails(now, out)
	if len(h.asked) > 0 {
		q := h.asked[0]
		if h.asked = h.asked[1:]; len(h.asked) == 0 {
			h.asked = nil
		}
		h.answer(q, now, out)
	}
	out.Lost = append(out.Lost, h.losses...)
	h.losses = nil
	return more || h.lostAt != 0 || len(h.asked) > 0 || len(h.doubts) > 0 && len(h.fills) < fillsMost
}

// sweep evicts what is too old in some rings, and forgets nodes that have been silent
// for long, and of which nothing is there.
func (h *History) sweep(now int64) {
	for range agedInStep {
		if h.agedAt++; h.agedAt >= h.rings.High() {
			h.agedAt = 0
			return
		}
		r := h.rings.At(h.agedAt)
		if r.length == 0 {
			continue
		}
		h.age(h.agedAt, now)
		for at := &r.sources; *at != 0; {
			s := h.sources.At(*at)
			if s.told > s.gone || s.time > now-silentMost {
				at = &s.next
				continue
			}
			h.forget(h.agedAt, at)
		}
	}
}

// begin asks about a ring, unless it was dropped.
func (h *History) begin(i uint32, why uint8, now int64, out *Results) {
	r := h.rings.At(i)
	if r.length == 0 || r.flags&why == 0 {
		return
	}
	r.flags &^= why
	if r.flags&filling != 0 { // what is under way is asked again in the end
		if why == doubted {
			h.repeat(i, now)
		}
		return
	}
	f := &fill{ring: i}
	if why == doubted {
		h.repeat(i, now)
	}
	r.flags |= filling
	h.ask(f, now, out)
}

func (h *History) repeat(i uint32, now int64) {
	if r := h.rings.At(i); r.flags&doubtful == 0 {
		r.flags |= doubtful
		h.repeats = append(h.repeats, repeat{i, now + repeatAfter})
	}
}

// ask asks those who follow a topic what they have beyond what is here.
func (h *History) ask(f *fill, now int64, out *Results) {
	h.seq++
	h.fills[h.seq] = f
	h.stats.Asked++
	f.asked, f.from, f.parts, f.missing, f.came, f.news = now, 0, 0, 0, nil, false
	f.rounds++
	w := h.wanted(f.ring, h.seq)
	out.Messages = append(out.Messages, Message{Topic: w.topic, Data: w.encode(kindAsk)})
}

// wanted describes what is here, and so what is not.
func (h *History) wanted(i uint32, seq uint64) want {
	r := h.rings.At(i)
	w := want{topic: h.topicName(r), seq: seq, gone: r.gone, since: h.since(r), most: int(r.most)}
	spans := map[uint16]span{} // the last entries of each node that follow each other
	for i := r.first; i != 0; i = h.entries.At(i).next {
		e := h.entries.At(i)
		s, ok := spans[e.node]
		if !ok || e.previous() != s.to {
			s = span{from: e.number}
		}
		s.to = e.number
		spans[e.node] = s
	}
	for i := r.sources; i != 0; i = h.sources.At(i).next {
		src := h.sources.At(i)
		s := spans[src.node]
		s.node, s.told = h.nodes[src.node].id, max(src.last, src.told)
		w.here = append(w.here, s)
	}
	return w
}

// waited ends or repeats questions that were not answered.
func (h *History) waited(now int64, out *Results) {
	for _, seq := range slices.Sorted(maps.Keys(h.fills)) { // the same whenever it is run
		f := h.fills[seq]
		wait := int64(offerWait)
		if f.from != 0 {
			wait = partWait
		}
		if now >= f.asked && now-f.asked < wait { // clocks of the day may go back
			continue
		}
		delete(h.fills, seq)
		if f.from == 0 {
			h.done(f, now, out)
		} else if f.tries++; f.tries == triesMost {
			h.done(f, now, out)
		} else {
			h.ask(f, now, out)
		}
	}
}

func (h *History) done(f *fill, now int64, out *Results) {
	r := h.rings.At(f.ring)
	r.flags &^= filling
	if r.flags&unread != 0 {
		h.read(f.ring, now, out)
	}
	h.settle(f.ring, out)
}

// settle takes note that a question about a ring was answered.
func (h *History) settle(i uint32, out *Results) {
	r := h.rings.At(i)
	if r.flags&(filling|reading) != 0 {
		return
	}
	out.Filled = append(out.Filled, h.topicName(r))
	if r.flags&(doubted|doubtful) == 0 { // otherwise it is asked again
		h.loseAll(i)
	}
}

// Receive takes a message of another node's History, to this node or to a topic. The
// message is the caller's again when Receive returns.
func (h *History) Receive(from uint64, message []byte, now int64, out *Results) error {
	d := decoder{wire.Decoder{Rest: message}}
	switch kind := d.Byte(); kind {
	case kindAsk:
		if w := d.want(); d.End() {
			h.askCame(from, w, now, out)
		}
	case kindOffer:
		if seq := d.Number(); d.End() {
			h.offerCame(from, seq, now, out)
		}
	case kindWant:
		if w := d.want(); d.End() {
			if len(h.asked) == requestsMost {
				h.stats.Refused++
				break
			}
			h.asked = append(h.asked, request{from, w})
		}
	case kindTail:
		if topic, number, time := d.topic(), d.Number(), d.time(); d.End() {
			if i := h.ring(topic); i != 0 && from != 0 {
				h.hear(i, from, number, time)
			}
		}
	case kindEntries:
		if p := d.part(); !d.Bad {
			h.partCame(from, p, now, out)
		}
	default:
		d.Fail()
	}
	if !d.End() {
		h.stats.Malformed++
		return ErrMessage
	}
	return nil
}

// askCame offers what is here and not there.
func (h *History) askCame(from uint64, w want, now int64, out *Results) {
	i := h.ring(w.topic)
	if i == 0 {
		return
	}
	h.age(i, now)
	r := h.rings.At(i)
	if h.since(r) < w.since || h.heardMore(r, w) || len(h.lacks(r, w)) > 0 {
		out.Messages = append(out.Messages, Message{Node: from, Data: encodeOffer(w.seq)})
	}
}

// heardMore reports whether newer numbers of a node are known here than there.
func (h *History) heardMore(r *ring, w want) bool {
	for i := r.sources; i != 0; i = h.sources.At(i).next {
		src := h.sources.At(i)
		node := h.nodes[src.node].id
		if !slices.ContainsFunc(w.here, func(s span) bool { return s.node == node && s.told >= src.told }) {
			return true
		}
	}
	return false
}

// lacks returns the entries that are not where w comes from, the newest ones if
// there is no room there for all.
func (h *History) lacks(r *ring, w want) (entries []uint32) {
	for i := r.first; i != 0; i = h.entries.At(i).next {
		e := h.entries.At(i)
		node := h.nodes[e.node].id
		if e.time > w.gone && !slices.ContainsFunc(w.here, func(s span) bool { return s.node == node && s.from <= e.number && e.number <= s.to }) {
			entries = append(entries, i)
		}
	}
	return entries[max(0, len(entries)-w.most):]
}

// offerCame takes the first offer.
func (h *History) offerCame(from, seq uint64, now int64, out *Results) {
	f := h.fills[seq]
	if f == nil || f.from != 0 {
		return
	}
	f.from, f.asked = from, now
	w := h.wanted(f.ring, seq)
	out.Messages = append(out.Messages, Message{Node: from, Data: w.encode(kindWant)})
}

// answer sends what is here and not there, in parts.
func (h *History) answer(q request, now int64, out *Results) {
	p := part{seq: q.want.seq, since: now}
	var bodies [][]byte
	if i := h.ring(q.want.topic); i != 0 {
		h.age(i, now)
		r := h.rings.At(i)
		p.since = h.since(r)
		for i := r.sources; i != 0; i = h.sources.At(i).next {
			src := h.sources.At(i)
			p.heads = append(p.heads, head{h.nodes[src.node].id, src.told, src.time})
		}
		var body, data []byte
		for _, i := range h.lacks(r, q.want) {
			e := h.entry(i, data[:0])
			data = e.Data
			if len(body) > 0 && len(body)+len(data)+64 > partMax {
				bodies = append(bodies, body)
				body = nil
			}
			body = appendEntry(body, e)
		}
		if len(body) > 0 {
			bodies = append(bodies, body)
		}
	}
	if len(bodies) == 0 {
		bodies = [][]byte{nil}
	}
	p.parts = len(bodies)
	for i, body := range bodies {
		p.part, p.entries = i, body
		out.Messages = append(out.Messages, Message{Node: q.node, Data: p.encode()})
	}
}

// partCame takes entries of another node's ring.
func (h *History) partCame(from uint64, p part, now int64, out *Results) {
	f := h.fills[p.seq]
	if f == nil || f.from != from {
		return
	}
	if f.parts == 0 {
		f.parts, f.missing, f.came = p.parts, p.parts, make([]bool, p.parts)
	}
	if f.parts != p.parts || f.came[p.part] {
		return
	}
	f.came[p.part] = true
	f.missing--
	f.asked, f.since = now, max(f.since, p.since)
	r := h.rings.At(f.ring)
	for d := (decoder{wire.Decoder{Rest: p.entries}}); len(d.Rest) > 0; {
		f.news = h.merge(f.ring, d.entry(), out) || f.news
	}
	if f.missing > 0 {
		return
	}
	delete(h.fills, p.seq)
	for _, s := range p.heads {
		h.hear(f.ring, s.node, s.told, s.time)
	}
	r.since, r.vouched = min(h.since(r), f.since), now
	if f.news && f.rounds < roundsMost { // others may have more
		h.ask(f, now, out)
		return
	}
	h.done(f, now, out)
}

// merge adds an entry of another node's ring, and reports whether it was not here.
func (h *History) merge(i uint32, e Entry, out *Results) bool {
	r := h.rings.At(i)
	if e.Time <= r.gone && !r.awaits(e.Time) { // it would be the first to be evicted
		return false
	}
	si := h.sourceFor(i, e.Node)
	if si == 0 {
		h.stats.Crowded++
		return false
	}
	s := h.sources.At(si)
	if e.Number <= s.gone || h.find(r, s.node, e.Number) != 0 {
		return false
	}
	if e.Previous > max(s.last, s.told) && r.awaits(e.PreviousTime) {
		h.open(i, s, e.Previous, e.PreviousTime)
	}
	missing := h.come(i, s.node, e.Number, e.Previous)
	late := (missing || e.Number > s.last) && r.awaits(e.Time)
	h.put(r, s, e, false)
	if !late {
		h.stats.Filled++
		return true
	}
	e.Data = slices.Clone(e.Data)
	out.Late = append(out.Late, Late{h.topicName(r), e})
	h.stats.Late++
	return true
}
