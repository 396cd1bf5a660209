package topics

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/server/internal/fanout"
)

// world drives a Directory and the Subscriptions of some reactors as a server does, with
// a mailbox for each reactor, and holds them against maps.
type world struct {
	t         *testing.T
	rng       *rand.Rand
	directory *Directory
	reactors  []*reactor
	pending   map[*fanout.Publication]bool // not done
	live      map[string]bool              // as told
}

type reactor struct {
	index int
	subs  *Subscriptions
	mail  []func()
	conns []*conn // by slot
}

type conn struct {
	reactor *reactor
	slot    uint32
	gone    bool
	topics  map[string]*feed // what it subscribes to
}

// feed is what a subscriber should be sent of a topic, and what it was.
type feed struct{ got, want []*fanout.Publication }

const mostTopics, mostSubscriptions, slots = 30, 5, 12

func newWorld(t *testing.T, seed uint64, told bool) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 3)), pending: map[*fanout.Publication]bool{}, live: map[string]bool{}}
	var err error
	if w.directory, err = NewDirectory(mostTopics, 2, told); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		subs, err := NewSubscriptions(w.directory, i, slots, mostSubscriptions)
		if err != nil {
			t.Fatal(err)
		}
		w.reactors = append(w.reactors, &reactor{index: i, subs: subs, conns: make([]*conn, slots)})
	}
	return w
}

// name is one of a few names more than there may be topics, of all lengths.
func (w *world) name() string {
	i := w.rng.IntN(mostTopics + 10)
	return strings.Repeat(string(rune('a'+i%26)), 1+i*5%NameMax) + fmt.Sprint(i/26)
}

// subscribe does what a call of Conn.Subscribe and then the reactor do.
func (w *world) subscribe(r *reactor, c *conn, name string) {
	if !r.subs.Reserve(c.slot) {
		if !c.gone && len(r.mail) == 0 && len(c.topics) < mostSubscriptions {
			w.t.Fatalf("a connection with %d subscriptions can have no more", len(c.topics))
		}
		return
	}
	b, err := w.directory.Subscribe(name, r.index)
	if err != nil {
		if n, _ := w.directory.Used(); n < mostTopics {
			w.t.Fatalf("no room for a topic among %d", n)
		}
		r.subs.Unreserve(c.slot)
		return
	}
	if got := w.directory.Name(b); got != name {
		w.t.Fatalf("the branch of %q is one of %q", name, got)
	}
	r.mail = append(r.mail, func() {
		if c.gone {
			r.subs.Unreserve(c.slot)
			r.subs.Release(b.ID())
			return
		}
		joined := r.subs.Join(c.slot, b.ID())
		if joined != (c.topics[name] == nil) {
			w.t.Fatal("joined:", joined)
		}
		if joined {
			c.topics[name] = &feed{}
		}
	})
}

func (w *world) unsubscribe(r *reactor, c *conn, name string) {
	b, ok := w.directory.Find(name, r.index)
	if !ok {
		if len(r.mail) == 0 && c.topics[name] != nil {
			w.t.Fatal("a topic is not found that has a subscriber")
		}
		return
	}
	r.mail = append(r.mail, func() {
		defer r.subs.Release(b.ID())
		if c.gone {
			return
		}
		if lack, ok := r.subs.LacksOf(c.slot, b.ID()); ok {
			w.serve(r, lack)
		}
		if r.subs.Leave(c.slot, b.ID()) != (c.topics[name] != nil) {
			w.t.Fatal("who has left had not come")
		}
		w.complete(c, name)
		delete(c.topics, name)
	})
}

func (w *world) publish(name string) {
	branches := w.directory.Hold(name, nil)
	if len(branches) == 0 {
		return
	}
	var p *fanout.Publication
	subscribers := 0
	p = fanout.NewPublication(nil, nil, 0, 0, len(branches), func(t fanout.Tally) {
		if !w.pending[p] || t.Sent+t.Closed != subscribers {
			w.t.Fatalf("a publication to %d subscribers is done: %+v", subscribers, t)
		}
		delete(w.pending, p)
	})
	w.pending[p] = true
	for _, b := range branches {
		r := w.reactors[b.Reactor()]
		r.mail = append(r.mail, func() {
			for _, c := range r.conns {
				if c != nil && c.topics[name] != nil {
					c.topics[name].want = append(c.topics[name].want, p)
					subscribers++
				}
			}
			r.subs.Add(b.ID(), p, 0)
			r.subs.Release(b.ID())
		})
	}
}

// serve sends what a connection lacks of a topic.
func (w *world) serve(r *reactor, lack Lack) {
	c := r.conns[lack.Slot]
	name := w.directory.Name(NewBranch(r.index, r.subs.rows.At(lack.row).branch.Uint32()))
	f := c.topics[name]
	for _, e := range lack.Log.Lacks(lack.Heard) {
		f.got = append(f.got, e.Publication)
		e.Tally.Sent++
	}
	lack.Heard = lack.Log.End()
	r.subs.Served(lack)
	w.complete(c, name)
}

// complete demands that a subscriber has got everything.
func (w *world) complete(c *conn, name string) {
	if f := c.topics[name]; f != nil && !slices.Equal(f.got, f.want) {
		w.t.Fatalf("a subscriber of %q got %d publications, want %d", name, len(f.got), len(f.want))
	}
}

func (w *world) check() {
	n := 0
	for _, r := range w.reactors {
		for _, c := range r.conns {
			if c != nil {
				n += len(c.topics)
				if got := r.subs.Topics(c.slot); len(got) != len(c.topics) {
					w.t.Fatalf("a connection has %d subscriptions, want %d", len(got), len(c.topics))
				}
			}
		}
	}
	if _, subs := w.directory.Used(); subs != n {
		w.t.Fatalf("there are %d subscriptions, want %d", subs, n)
	}
}

// counts are the subscribers of all topics, by the model.
func (w *world) counts() map[string]int {
	counts := map[string]int{}
	for _, r := range w.reactors {
		for _, c := range r.conns {
			if c != nil {
				for name := range c.topics {
					counts[name]++
				}
			}
		}
	}
	return counts
}

// Every subscriber is sent what is published between its Subscribe and its Unsubscribe,
// once and in order, whatever happens in between; every publication is done once; and no
// topic or subscription is left over.
func TestTopicsAgainstAModel(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, seed, seed%2 == 0)
		busy := func(r *reactor) {
			if lack, ok := r.subs.Next(); ok {
				w.serve(r, lack)
				if w.rng.IntN(3) == 0 {
					r.subs.Yield()
				}
			}
		}
		for range 20_000 {
			r := w.reactors[w.rng.IntN(2)]
			slot := w.rng.IntN(slots)
			c := r.conns[slot]
			switch n := w.rng.IntN(100); {
			case c == nil:
				r.conns[slot] = &conn{reactor: r, slot: uint32(slot), topics: map[string]*feed{}}
			case n < 20:
				w.subscribe(r, c, w.name())
			case n < 30:
				w.unsubscribe(r, c, w.name())
			case n < 35:
				names := slices.Collect(maps.Keys(c.topics))
				slices.Sort(names)
				if len(names) > 0 {
					w.unsubscribe(r, c, names[w.rng.IntN(len(names))])
				}
			case n < 55:
				w.publish(w.name())
			case n < 57: // it ends, and others have its slot
				if left := r.subs.LeaveAll(c.slot); left != len(c.topics) {
					t.Fatalf("%d subscriptions ended with a connection, want %d", left, len(c.topics))
				}
				c.gone, c.topics, r.conns[slot] = true, nil, nil
			case n < 60: // it is sent something else, so it has to catch up first
				for lack := range r.subs.Lacking(c.slot) {
					w.serve(r, lack)
				}
				for name := range c.topics {
					w.complete(c, name)
				}
			case n < 85:
				if len(r.mail) > 0 {
					do := r.mail[0]
					r.mail = r.mail[1:]
					do()
				}
			case n < 87:
				w.tell()
			case n < 90:
				r.subs.Settle()
			default:
				busy(r)
			}
			w.check()
		}
		for _, r := range w.reactors {
			for _, do := range r.mail {
				do()
			}
			r.mail = nil
			for r.subs.Busy() {
				busy(r)
			}
			r.subs.Settle()
		}
		w.check()
		if len(w.pending) != 0 {
			t.Fatalf("%d publications are not done", len(w.pending))
		}
		want := w.counts()
		for cursor, list, more := uint32(0), []Listing(nil), true; more; more = cursor != 0 {
			cursor, list = w.directory.List(cursor, 7, 0, list[:0])
			for _, l := range list {
				if want[l.Name] != l.Subscribers || w.directory.Subscribers(l.Name) != l.Subscribers {
					t.Errorf("%q has %d subscribers, want %d", l.Name, l.Subscribers, want[l.Name])
				}
				delete(want, l.Name)
			}
		}
		if len(want) > 0 {
			t.Errorf("not listed: %v", want)
		}
		w.tell()
		if w.directory.told && !maps.Equal(w.live, maps.Collect(live(w.counts()))) {
			t.Errorf("told of %v, want %v", w.live, w.counts())
		}
		for _, r := range w.reactors {
			for _, c := range r.conns {
				if c != nil {
					r.subs.LeaveAll(c.slot)
				}
			}
			r.subs.Settle()
		}
		w.tell()
		if n, subs := w.directory.Used(); n+subs+w.directory.names.Used()+len(w.live) != 0 {
			t.Errorf("%d topics, %d subscriptions, %d pieces and %d told are left", n, subs, w.directory.names.Used(), len(w.live))
		}
		for _, r := range w.reactors {
			if w.directory.branches[r.index].Used()+r.subs.Used() != 0 {
				t.Error("branches or rows are left")
			}
			for slot := range slots {
				if n := r.subs.reserved.Load(); n != 0 {
					t.Errorf("%d subscriptions are reserved, and there are none", n)
				}
				if n := r.subs.anchors.At(slot).count.Load(); n != 0 {
					t.Errorf("%d subscriptions of a slot are counted, and there are none", n)
				}
			}
		}
	}
}

func (w *world) tell() {
	for {
		name, live, ok := w.directory.nextChange()
		if !ok {
			return
		}
		if live == w.live[name] {
			w.t.Fatalf("told twice that %q is live: %v", name, live)
		}
		if live {
			w.live[name] = true
		} else {
			delete(w.live, name)
		}
	}
}

func live(counts map[string]int) func(func(string, bool) bool) {
	return func(yield func(string, bool) bool) {
		for name := range counts {
			if !yield(name, true) {
				return
			}
		}
	}
}

// Many topics are found by name, and the limit holds.
func TestTheDirectoryGrows(t *testing.T) {
	const n = 100_000
	d, err := NewDirectory(n, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := d.Subscribe(fmt.Sprint("device:", i), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Subscribe("one more", 0); err != ErrFull {
		t.Error("the limit does not hold:", err)
	}
	for i := range n {
		b, ok := d.Find(fmt.Sprint("device:", i), 0)
		if !ok || d.Name(b) != fmt.Sprint("device:", i) {
			t.Fatal("a topic is lost")
		}
		d.Release(b, b)
	}
	if used, _ := d.Used(); used != 0 {
		t.Errorf("%d topics are left", used)
	}
}

func TestNamesOfTopics(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "user:1": true, "räume/12": true, strings.Repeat("x", 200): true, "with space": true,
		"": false, strings.Repeat("x", 201): false, "a\nb": false, "\x00": false, "\xff": false, "\u0085": false, "a\x7f": false,
	} {
		if Valid(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func BenchmarkPublishToTen(b *testing.B) {
	d, _ := NewDirectory(1000, 1, false)
	s, _ := NewSubscriptions(d, 0, 16, 10)
	for slot := range uint32(10) {
		s.Reserve(slot)
		at, _ := d.Subscribe("room", 0)
		_ = s.Join(slot, at.ID())
	}
	p := fanout.NewPublication([]byte("x"), nil, 0, 0, 1<<31, nil)
	for b.Loop() {
		for _, at := range d.Hold("room", nil) {
			s.Add(at.ID(), p, 0)
			s.Release(at.ID())
		}
		for {
			lack, ok := s.Next()
			if !ok {
				break
			}
			lack.Heard = lack.Log.End()
			s.Served(lack)
		}
	}
}
