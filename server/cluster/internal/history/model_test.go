package history

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is a cluster: nodes with a History each, clients that follow topics and
// move, and a network. What was published is kept in a plain list.
type world struct {
	t         *testing.T
	rng       *rand.Rand
	now       int64
	lives     uint64
	nodes     []*peer
	mail      []letter
	arrived   map[[2]*peer]int64 // letters of one node to another come in order
	published []publication
	clients   []*client
	limits    Limits

	apart        bool // nodes do not reach each other
	lose, double int  // in a hundred: messages of publishers are lost, and any are doubled
	delay        int64

	stores   bool // entries are stored
	unstored int  // but for so many in a hundred
	store    map[string][]stored
	reads    []question
}

// stored is an entry in the store, and since when.
type stored struct {
	Entry
	at int64
}

// question is one to the store that is answered at a time.
type question struct {
	by *peer
	Read
	at int64
}

type peer struct {
	*History
	id     uint64
	place  int
	skew   int64 // of its clock
	out    Results
	keeps  map[string]int64 // since when
	missed map[key]bool     // what was lost on the way to it
}

type letter struct {
	at       int64
	from, to *peer
	topic    string
	entry    *Entry // or a message
	data     []byte
}

type key struct{ node, number uint64 }

type publication struct {
	topic string
	key   key
	at    int64
}

// client follows a topic at a node, or is on its way to another one.
type client struct {
	topic    string
	node     *peer // nil while it is under way
	position string
	from     int64 // it should have had what was published since
	had      map[key]bool
	excused  map[key]bool // it was told that this was lost
	comes    int64        // when it comes to a node
	until    int64        // and how long it waits there for a better answer
	target   *peer
	ahead    map[key]bool // these may come again, because it was taken in ahead of a node
	resumes  int
	missing  int // how often it was told
	doubles  int // and that it was ahead
}

func newWorld(t *testing.T, seed uint64, nodes int) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 5)), now: 1_800_000_000_000, nodes: make([]*peer, nodes),
		arrived: map[[2]*peer]int64{}, limits: Limits{Entries: 1000}, delay: 50, store: map[string][]stored{},
	}
	for i := range w.nodes {
		w.start(i)
	}
	return w
}

func (w *world) start(place int) {
	w.lives++
	id := w.lives*0x9e3779b97f4a7c15 | 1
	h, err := New(Options{Self: id, MaxTopics: 100, MaxEntries: 10_000, MaxBytes: 1 << 20, MaxPublished: 100, Store: w.stores})
	if err != nil {
		w.t.Fatal(err)
	}
	w.nodes[place] = &peer{History: h, id: id, place: place, skew: w.rng.Int64N(1000) - 500, keeps: map[string]int64{}, missed: map[key]bool{}}
}

func (w *world) clock(p *peer) int64 { return w.now + p.skew }

func (w *world) post(l letter) {
	if w.apart || l.entry != nil && w.rng.IntN(100) < w.lose {
		if l.entry != nil {
			k := key{l.entry.Node, l.entry.Number}
			l.to.missed[k] = true
			for _, c := range w.clients { // as far as clocks tell it was before they came
				if c.node == l.to && c.topic == l.topic && l.to.keeps[l.topic] > w.now-1000 {
					c.excused[k] = true
				}
			}
		}
		return
	}
	for {
		pair := [2]*peer{l.from, l.to}
		l.at = max(w.arrived[pair], w.now+w.rng.Int64N(w.delay))
		w.arrived[pair] = l.at
		w.mail = append(w.mail, l)
		if w.rng.IntN(100) >= w.double {
			return
		}
	}
}

// publish publishes a message at a node.
func (w *world) publish(p *peer, topic string) {
	data := fmt.Appendf(nil, "%s of %d at %d %*d", topic, p.place, w.now, w.rng.IntN(300), 0)
	e := p.Publish(topic, 1, data, w.clock(p))
	w.published = append(w.published, publication{topic, key{e.Node, e.Number}, w.now})
	w.deliver(p, topic, e)
	if w.stores && w.rng.IntN(100) >= w.unstored {
		all := append(w.store[topic], stored{e, w.now})
		w.store[topic] = all[max(0, len(all)-w.limits.Entries):]
	}
	for _, to := range w.nodes {
		if to != p && to.keeps[topic] != 0 {
			w.post(letter{from: p, to: to, topic: topic, entry: &e})
		}
	}
}

// deliver gives an entry to the clients of a node.
func (w *world) deliver(p *peer, topic string, e Entry) {
	for _, c := range w.clients {
		if c.node == p && c.topic == topic {
			w.give(c, e)
		}
	}
	for _, c := range w.clients {
		if c.node == p && c.topic == topic {
			c.position = w.position(p, topic)
		}
	}
}

func (w *world) give(c *client, e Entry) {
	k := key{e.Node, e.Number}
	if c.had[k] && !c.ahead[k] {
		w.t.Fatalf("at %d a client at node %d has %s twice", w.now, c.target.place, e.Data)
	}
	c.had[k] = true
	delete(c.ahead, k)
}

func (w *world) position(p *peer, topic string) string {
	token, err := p.Position(topic, w.clock(p))
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// arrive lets a client resume at a node, or begin.
func (w *world) arrive(c *client) {
	p := c.target
	if w.nodes[p.place] != p { // it is gone: another one
		c.target = w.nodes[w.rng.IntN(len(w.nodes))]
		return
	}
	if p.keeps[c.topic] == 0 {
		p.keeps[c.topic] = w.now
		if err := p.Keep(c.topic, w.limits, w.clock(p)); err != nil {
			w.t.Fatal(err)
		}
		w.flush(p)
	}
	if c.position != "" {
		r, err := p.Resume(c.topic, c.position, w.clock(p))
		if err != nil {
			w.t.Fatal(err)
		}
		if r.Wait && w.now < c.until {
			return // later
		}
		if r.Missing { // it is told, and begins anew
			c.missing++
			c.from = w.now
			c.excused = map[key]bool{}
			for _, m := range w.published { // some of it may be on its way still
				if !c.had[m.key] {
					c.excused[m.key] = true
				}
			}
		}
		c.resumes++
		if r.Ahead {
			c.ahead = maps.Clone(c.had)
			c.doubles++
		}
		for e := range r.Entries {
			w.give(c, e)
		}
	}
	c.node = p
	c.position = w.position(p, c.topic)
}

// leave lets a client go to another node.
func (w *world) leave(c *client) {
	c.node = nil
	c.target = w.nodes[w.rng.IntN(len(w.nodes))]
	c.comes = w.now + w.rng.Int64N(3000)
	c.until = c.comes + 5000
}

func (w *world) flush(p *peer) {
	for _, l := range p.out.Late {
		w.deliver(p, l.Topic, l.Entry)
	}
	for _, l := range p.out.Lost { // the clients are told
		for _, m := range w.published {
			if m.topic != l.Topic || m.key.node != l.Node || m.key.number <= l.After || m.key.number > l.UpTo {
				continue
			}
			for _, c := range w.clients {
				if c.node == p && c.topic == l.Topic {
					c.excused[m.key] = true
				}
			}
		}
	}
	for _, m := range p.out.Messages {
		for _, to := range w.nodes {
			if to != p && (m.Node == to.id || m.Node == 0 && to.keeps[m.Topic] != 0) {
				w.post(letter{from: p, to: to, topic: m.Topic, data: m.Data})
			}
		}
	}
	for _, r := range p.out.Reads {
		w.reads = append(w.reads, question{p, r, w.now + w.rng.Int64N(500)})
	}
	p.out.Reset()
}

// answerReads answers questions to the store that are due.
func (w *world) answerReads() {
	w.reads = slices.DeleteFunc(w.reads, func(r question) bool {
		if r.at > w.now || w.nodes[r.by.place] != r.by {
			return r.at <= w.now
		}
		all := w.store[r.Topic]
		since := int64(0)
		if w.limits.Age > 0 {
			since = w.now - w.limits.Age.Milliseconds()
			all = slices.DeleteFunc(all, func(s stored) bool { return s.at < since })
			w.store[r.Topic] = all
		}
		if len(all) == w.limits.Entries {
			since = max(since, all[0].at)
		}
		for _, s := range all {
			r.by.Restore(r.Seq, s.Entry, &r.by.out)
		}
		r.by.Restored(r.Seq, since, w.clock(r.by), &r.by.out)
		w.flush(r.by)
		return true
	})
}

// restart replaces all nodes at once. Of a node's last messages to a topic nobody knows that were not
// stored.
func (w *world) restart() {
	last := map[string]map[uint64]uint64{}
	for topic, all := range w.store {
		last[topic] = map[uint64]uint64{}
		for _, s := range all {
			last[topic][s.Node] = max(last[topic][s.Node], s.Number)
		}
	}
	gone := slices.Clone(w.nodes)
	for place := range w.nodes {
		w.start(place)
	}
	for _, c := range w.clients {
		for _, m := range w.published {
			if slices.ContainsFunc(gone, func(p *peer) bool { return p.id == m.key.node }) && m.key.number > last[m.topic][m.key.node] && m.at >= c.from {
				c.excused[m.key] = true
			}
		}
		if c.node != nil {
			w.leave(c)
		}
	}
}

// run lets time pass, 50 ms at a time, with something done before each.
func (w *world) run(d time.Duration, do func()) {
	for end := w.now + d.Milliseconds(); w.now < end; {
		if do != nil {
			do()
		}
		w.now += 50
		slices.SortStableFunc(w.mail, func(a, b letter) int { return int(a.at - b.at) })
		for len(w.mail) > 0 && w.mail[0].at <= w.now {
			l := w.mail[0]
			w.mail = w.mail[1:]
			switch to := l.to; {
			case w.nodes[to.place] != to:
			case l.entry == nil:
				if err := to.Receive(l.from.id, l.data, w.clock(to), &to.out); err != nil {
					w.t.Fatal(err)
				}
				w.flush(to)
			case to.keeps[l.topic] != 0:
				if to.Add(l.topic, *l.entry, w.clock(to)) {
					w.deliver(to, l.topic, *l.entry)
				}
			}
		}
		w.answerReads()
		for _, p := range w.nodes {
			for more := true; more; {
				more = p.Step(w.clock(p), &p.out)
				w.flush(p)
			}
		}
		for _, c := range w.clients {
			if c.node == nil && c.comes <= w.now {
				w.arrive(c)
			}
		}
	}
}

// die replaces a node. What it said last, and was lost on the way, nobody knows of.
func (w *world) die(p *peer) {
	w.start(p.place)
	for _, m := range w.published {
		if m.key.node != p.id || m.at < w.now-1500 {
			continue
		}
		for _, to := range w.nodes {
			if to.missed[m.key] {
				for _, c := range w.clients {
					c.excused[m.key] = true
				}
			}
		}
	}
}

// report logs what a run has done, and returns how often a client was told that something is missing.
func (w *world) report(seed uint64) (missing int) {
	resumes, ahead := 0, 0
	for _, c := range w.clients {
		resumes += c.resumes
		missing += c.missing
		ahead += c.doubles
	}
	w.t.Logf("seed %d: %d published, %d resumed, %d told that something is missing, %d ahead", seed, len(w.published), resumes, missing, ahead)
	return missing
}

// complete checks that each client has had everything since it came, but for what
// it was told of.
func (w *world) complete(when string) {
	w.t.Helper()
	for i, c := range w.clients {
		for _, m := range w.published {
			if m.topic == c.topic && m.at >= c.from && !c.had[m.key] && !c.excused[m.key] {
				w.t.Fatalf("%s: client %d at node %d has not had what %x published to %s at %d; it came at %d",
					when, i, c.target.place, m.key.node, m.topic, m.at, c.from)
			}
		}
	}
}

func (w *world) join(topic string) {
	c := &client{topic: topic, had: map[key]bool{}, excused: map[key]bool{}, target: w.nodes[w.rng.IntN(len(w.nodes))]}
	w.clients = append(w.clients, c)
	for c.node == nil {
		w.arrive(c)
	}
	c.from = w.now
	for _, m := range w.published { // what is on its way may come or not
		c.excused[m.key] = true
	}
}

// consistent checks what must hold of a History at any time.
func (h *History) consistent(t *testing.T) {
	t.Helper()
	entries, sources := 0, 0
	uses := map[uint16]int{}
	for i := uint32(1); i < h.rings.High(); i++ {
		r := h.rings.At(i)
		if r.length == 0 {
			continue
		}
		count, bytes, last := uint32(0), 0, uint32(0)
		newest := map[uint16]uint64{}
		for j := r.first; j != 0; j = h.entries.At(j).next {
			e := h.entries.At(j)
			if e.number <= newest[e.node] {
				t.Fatal("entries of a node are out of order")
			}
			newest[e.node] = e.number
			count++
			bytes += (int(e.size) + 27) / 28 * 32
			last = j
		}
		named := map[uint16]bool{}
		for j := r.sources; j != 0; j = h.sources.At(j).next {
			s := h.sources.At(j)
			if newest[s.node] > s.last || s.gone > s.last {
				t.Fatal("a source does not know its last entry")
			}
			named[s.node] = true
			uses[s.node]++
			sources++
		}
		for n := range newest {
			if !named[n] {
				t.Fatal("an entry has no source")
			}
		}
		if count != r.count || bytes != int(r.bytes) || last != r.last || count > r.most || len(named) != int(r.nodes) {
			t.Fatalf("%d entries, counted %d", count, r.count)
		}
		entries += int(count)
	}
	if entries != h.entries.Used() || sources != h.sources.Used() || len(uses) != len(h.byNode) {
		t.Fatalf("%d entries and %d sources in use, counted %d and %d", h.entries.Used(), h.sources.Used(), entries, sources)
	}
}

// Clients that move, whose nodes die, and that follow topics while messages are lost,
// doubled and late: each has everything, and nothing twice, or is told.
func TestClientsMissNothingUnsaid(t *testing.T) {
	topics := []string{"a", "b", "c"}
	for seed := range uint64(10) {
		w := newWorld(t, seed, 4)
		if seed%3 == 0 {
			w.limits = Limits{Entries: 5}
		}
		if seed%3 == 1 {
			w.limits = Limits{Entries: 1000, Age: 5 * time.Second, Bytes: 50_000}
		}
		for range 12 {
			w.join(topics[w.rng.IntN(3)])
		}
		for range 3 {
			w.lose, w.double = w.rng.IntN(2)*w.rng.IntN(20), w.rng.IntN(20)
			w.delay = 1 + w.rng.Int64N(300)
			w.run(20*time.Second, func() {
				for range w.rng.IntN(4) {
					w.publish(w.nodes[w.rng.IntN(4)], topics[w.rng.IntN(3)])
				}
				c := w.clients[w.rng.IntN(len(w.clients))]
				switch w.rng.IntN(20) {
				case 0:
					if c.node != nil {
						w.leave(c)
					}
				case 1:
					if w.rng.IntN(20) == 0 {
						p := w.nodes[w.rng.IntN(4)]
						w.die(p)
						for _, c := range w.clients {
							if c.node == p {
								w.leave(c)
							}
						}
					}
				case 2: // a node leaves a topic
					p := w.nodes[w.rng.IntN(4)]
					topic := topics[w.rng.IntN(3)]
					if !slices.ContainsFunc(w.clients, func(c *client) bool { return c.topic == topic && (c.node == p || c.target == p) }) {
						p.Drop(topic)
						delete(p.keeps, topic)
					}
				case 3:
					if len(w.clients) < 30 {
						w.join(topics[w.rng.IntN(3)])
					}
				}
			})
			w.lose, w.double, w.delay = 0, 0, 20
			w.run(15*time.Second, nil)
			w.complete(fmt.Sprintf("seed %d, at %d", seed, w.now))
			for _, p := range w.nodes {
				p.consistent(t)
			}
		}
		w.report(seed)
	}
}

// All nodes are restarted at once, again and again. Whoever comes back gets what was stored, once, and is told
// if there was more.
func TestClientsMissNothingUnsaidWhenAllNodesAreRestarted(t *testing.T) {
	topics := []string{"a", "b", "c"}
	for seed := range uint64(12) {
		w := newWorld(t, seed, 3)
		w.stores = true
		switch seed % 3 {
		case 0:
			w.limits = Limits{Entries: 20}
		case 1:
			w.limits = Limits{Entries: 1000, Age: 20 * time.Second}
		}
		w.restart()
		for range 12 {
			w.join(topics[w.rng.IntN(3)])
		}
		publish := func() {
			if w.rng.IntN(4) == 0 {
				w.publish(w.nodes[w.rng.IntN(3)], topics[w.rng.IntN(3)])
			}
		}
		for range 5 {
			if seed > 5 {
				w.unstored = 5
			}
			w.run(time.Duration(10+w.rng.IntN(10))*time.Second, publish)
			w.restart()
			w.unstored = 0
			w.run(10*time.Second, publish)
			w.run(10*time.Second, nil)
			w.complete(fmt.Sprintf("seed %d, at %d", seed, w.now))
			for _, p := range w.nodes {
				p.consistent(t)
			}
		}
		missing := w.report(seed)
		if seed <= 5 && seed%3 != 0 && missing > 0 {
			t.Errorf("seed %d: %d were told that something is missing", seed, missing)
		}
	}
}
