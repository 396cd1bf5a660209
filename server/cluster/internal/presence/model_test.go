package presence

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is a cluster: nodes with a Presence each, a network that delays, loses and
// doubles messages, and partitions. What should be true is kept in plain maps.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Duration
	lives uint64
	nodes []*peer
	mail  []letter
	apart bool // nodes with an odd place do not reach those with an even one

	lose, double int // in a hundred
	delay        time.Duration
}

// peer is a node of a world.
type peer struct {
	*Presence
	id      uint64
	place   int
	out     Results
	heard   map[uint64]time.Duration // when a beat last came
	watched map[string]bool
	conns   []conn
	shown   map[string]map[string]string // by topic and id, as the events say
}

type conn struct {
	member    Member
	topic, id string
	data      string
	joined    int // orders those of a node
}

type letter struct {
	at       time.Duration
	from, to *peer
	data     []byte
	beat     bool
}

var testKey = [16]byte{1, 2, 3}

func (w *world) start(place int) {
	w.lives++
	// The number says nothing about the order in which nodes were started.
	id := w.lives*0x9e3779b97f4a7c15 | 1
	p, err := New(Options{Self: id, Key: testKey, MaxMembers: 5000, MaxTopics: 5000, MaxBytes: 1 << 20, MaxNodes: 64, MaxStaged: 1 << 20})
	if err != nil {
		w.t.Fatal(err)
	}
	w.nodes[place] = &peer{Presence: p, id: id, place: place, heard: map[uint64]time.Duration{}, watched: map[string]bool{}, shown: map[string]map[string]string{}}
}

func newWorld(t *testing.T, seed uint64, nodes int) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 3)), nodes: make([]*peer, nodes), delay: 50 * time.Millisecond}
	for i := range w.nodes {
		w.start(i)
	}
	return w
}

func (w *world) post(from, to *peer, data []byte, beat bool) {
	if w.apart && from.place%2 != to.place%2 || w.rng.IntN(100) < w.lose {
		return
	}
	for {
		w.mail = append(w.mail, letter{w.now + time.Duration(w.rng.Int64N(int64(w.delay))), from, to, data, beat})
		if w.rng.IntN(100) >= w.double {
			return
		}
	}
}

// flush sends what a node wants to send, and checks its events.
func (w *world) flush(p *peer) {
	for _, e := range p.out.Events {
		topic := p.shown[e.Topic]
		if topic == nil {
			topic = map[string]string{}
			p.shown[e.Topic] = topic
		}
		if _, in := topic[e.ID]; in == (e.Kind == Joined) {
			w.t.Fatalf("event %d of %s in %s, who is in: %t", e.Kind, e.ID, e.Topic, in)
		}
		topic[e.ID] = string(e.Data)
		if e.Kind == Left {
			delete(topic, e.ID)
		}
	}
	for _, m := range p.out.Messages {
		if len(m.Data) > messageMax {
			w.t.Fatalf("a message has %d bytes", len(m.Data))
		}
		for _, to := range w.nodes {
			if to != p && (m.Node == to.id || m.Node == 0 && to.watched[m.Topic]) {
				w.post(p, to, m.Data, false)
			}
		}
	}
	p.out.Reset()
}

// run lets time pass, 50 ms at a time, with something done before each.
func (w *world) run(d time.Duration, do func()) {
	for end := w.now + d; w.now < end; {
		if do != nil {
			do()
		}
		w.now += 50 * time.Millisecond
		slices.SortStableFunc(w.mail, func(a, b letter) int { return int(a.at - b.at) })
		for len(w.mail) > 0 && w.mail[0].at <= w.now {
			l := w.mail[0]
			w.mail = w.mail[1:]
			to := l.to
			if w.nodes[to.place] != to {
				continue
			}
			if l.beat {
				if err := to.Heard(l.from.id, l.data, w.now); err != nil {
					w.t.Fatal(err)
				}
				to.heard[l.from.id] = w.now
			} else if err := to.Receive(l.from.id, l.data, w.now, &to.out); err != nil && err != ErrNode {
				w.t.Fatal(err)
			}
			w.flush(to)
		}
		for _, p := range w.nodes {
			for more := true; more; {
				more = p.Step(w.now, &p.out)
				w.flush(p)
			}
			if w.now%time.Second == 0 {
				for _, to := range w.nodes {
					if to != p {
						w.post(p, to, p.Beat(nil), true)
					}
				}
				for id, at := range p.heard {
					if w.now-at > 5*time.Second {
						p.Forget(id)
						delete(p.heard, id)
					}
				}
			}
		}
	}
}

var joins int

// act does something random at a random node.
func (w *world) act(topics, ids int) {
	p := w.nodes[w.rng.IntN(len(w.nodes))]
	topic := fmt.Sprint("topic ", w.rng.IntN(topics))
	switch n := w.rng.IntN(100); {
	case n < 45:
		c := conn{topic: topic, id: fmt.Sprint("id ", w.rng.IntN(ids)), data: fmt.Sprint("data", w.rng.IntN(3))}
		if w.rng.IntN(200) == 0 { // so that a snapshot has several parts
			for i := range 80 {
				big := conn{topic: topic, id: fmt.Sprint("big ", i), data: fmt.Sprintf("%1000d", w.rng.IntN(9))}
				w.join(p, big)
			}
		}
		w.join(p, c)
	case n < 85 && len(p.conns) > 0:
		i := w.rng.IntN(len(p.conns))
		p.Leave(p.conns[i].member, w.now, &p.out)
		p.conns = slices.Delete(p.conns, i, i+1)
	case n < 93 && !p.watched[topic]:
		p.watched[topic] = true
		if err := p.Watch(topic, w.now, &p.out); err != nil {
			w.t.Fatal(err)
		}
	case n < 96 && p.watched[topic]:
		delete(p.watched, topic)
		p.Unwatch(topic)
		p.shown[topic] = maps.Collect(listed(p.Presence, topic))
	}
	w.flush(p)
}

func (w *world) join(p *peer, c conn) {
	var err error
	if c.member, err = p.Join(c.topic, c.id, []byte(c.data), w.now, &p.out); err != nil {
		w.t.Fatal(err)
	}
	joins++
	c.joined = joins
	p.conns = append(p.conns, c)
}

func listed(p *Presence, topic string) func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for id, data := range p.List(topic) {
			if !yield(id, string(data)) {
				return
			}
		}
	}
}

// truth is who is in a topic: of each id, what its newest connection at the lowest
// node brought.
func (w *world) truth(topic string, nodes ...*peer) map[string]string {
	members := map[string]string{}
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b *peer) int {
		if a.id > b.id {
			return -1
		}
		return 1
	})
	for _, p := range nodes {
		conns := slices.SortedFunc(slices.Values(p.conns), func(a, b conn) int { return a.joined - b.joined })
		for _, c := range conns {
			if c.topic == topic {
				members[c.id] = c.data
			}
		}
		// What a connection brought stays when it leaves, as long as another one
		// of the node has the id: the node itself knows.
		for id := range members {
			if i := p.find(p.topic(topic), 0, id); p.topic(topic) != 0 && i != 0 {
				members[id] = string(p.memberData(p.members.At(i)))
			}
		}
	}
	return members
}

// agree checks that every node knows the truth.
func (w *world) agree(topics int, when string) {
	w.t.Helper()
	for _, p := range w.nodes {
		for i := range topics {
			topic := fmt.Sprint("topic ", i)
			nodes := []*peer{p}
			if p.watched[topic] {
				nodes = w.nodes
			}
			want := w.truth(topic, nodes...)
			got := maps.Collect(listed(p.Presence, topic))
			if !maps.Equal(got, want) {
				w.t.Fatalf("%s: node %d has %d members of %s, want %d\n%v\n%v", when, p.place, len(got), topic, len(want), got, want)
			}
			if p.Count(topic) != len(want) {
				w.t.Fatalf("%s: count of %s is %d, want %d", when, topic, p.Count(topic), len(want))
			}
			if shown := p.shown[topic]; len(shown)+len(want) > 0 && !maps.Equal(shown, want) {
				w.t.Fatalf("%s: events came to %d members of %s, want %d", when, len(shown), topic, len(want))
			}
		}
	}
}

// Whatever is lost, doubled or late, whoever dies or is cut off: ten seconds after the
// end of it all nodes agree with the truth, and the events that each one told
// come to the same. While nothing happens, nothing is sent but beats and checks
// that end.
func TestNodesAgreeAfterEverything(t *testing.T) {
	const topics, ids = 6, 12
	for seed := range uint64(6) {
		w := newWorld(t, seed, 4)
		for range 4 {
			w.lose, w.double = w.rng.IntN(40), w.rng.IntN(20)
			w.delay = time.Duration(1+w.rng.Int64N(1000)) * time.Millisecond
			w.run(20*time.Second, func() {
				for range w.rng.IntN(6) {
					w.act(topics, ids)
				}
				switch w.rng.IntN(200) {
				case 0:
					w.start(w.rng.IntN(len(w.nodes)))
				case 1:
					w.apart = !w.apart
				case 2:
					w.nodes[w.rng.IntN(len(w.nodes))].Lost()
				}
			})
			w.lose, w.double, w.apart, w.delay = 0, 0, false, 20*time.Millisecond
			w.run(10*time.Second, nil)
			w.agree(topics, fmt.Sprintf("seed %d, at %v", seed, w.now))
			w.consistent()
		}
		w.run(20*time.Second, nil)
		before := make([]Stats, len(w.nodes))
		for i, p := range w.nodes {
			before[i] = p.Stats()
		}
		w.run(30*time.Second, nil)
		for i, p := range w.nodes {
			if s := p.Stats(); s != before[i] {
				t.Errorf("seed %d: node %d went on:\n%+v\n%+v", seed, i, before[i], s)
			}
		}
	}
}

// consistent checks what must hold of a Presence at any time.
func (w *world) consistent() {
	w.t.Helper()
	for _, p := range w.nodes {
		sources, members, own := 0, 0, 0
		for i := uint32(1); i < p.topics.High(); i++ {
			t := p.topics.At(i)
			if t.length == 0 {
				continue
			}
			perNode := map[uint16]uint32{}
			digests := map[uint16]uint64{}
			for j := t.members; j != 0; j = p.members.At(j).later {
				m := p.members.At(j)
				perNode[m.node]++
				digests[m.node] += p.digest(m)
				members++
				if m.node == 0 {
					own++
				}
				if m.flags&named != 0 {
					w.t.Fatal("a mark of a snapshot was left")
				}
			}
			for j := t.sources; j != 0; j = p.sources.At(j).next {
				s := p.sources.At(j)
				sources++
				if s.members == 0 || s.members != perNode[s.node] || s.digest != digests[s.node] {
					w.t.Fatalf("a source has %d members, counted %d", s.members, perNode[s.node])
				}
			}
			if len(perNode) > 0 && t.sources == 0 {
				w.t.Fatal("members without a source")
			}
		}
		if sources != p.sources.Used() || members != p.members.Used() || own != p.own {
			w.t.Fatalf("%d sources and %d members, %d and %d in use", sources, members, p.sources.Used(), p.members.Used())
		}
		staged := 0
		for _, q := range p.wants {
			staged += q.bytes
		}
		if staged != p.staged {
			w.t.Fatalf("%d bytes staged, counted %d", staged, p.staged)
		}
	}
}
