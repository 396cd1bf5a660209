package history

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

func newHistory(t testing.TB, o Options) *History {
	t.Helper()
	if o.Self == 0 {
		o.Self = 1
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const start = 1_800_000_000_000

// text is what is kept of a topic.
func text(h *History, topic string, now int64) string {
	var all []string
	for e := range h.Entries(topic, now) {
		all = append(all, string(e.Data))
	}
	return strings.Join(all, " ")
}

// 600 clients lose their node while messages are published, and come to the two
// others: nothing is missed, nothing comes twice, and nobody is told that
// something did.
func TestClientsOfADeadNodeMissNothing(t *testing.T) {
	topics := []string{"a", "b", "c", "d", "e", "f"}
	for seed := range uint64(2) {
		w := newWorld(t, seed, 3)
		for range 900 {
			w.join(topics[w.rng.IntN(len(topics))])
		}
		publish := func() { w.publish(w.nodes[w.rng.IntN(3)], topics[w.rng.IntN(len(topics))]) }
		w.run(5*time.Second, publish)
		dead := w.nodes[0]
		w.start(0)
		moved := 0
		for _, c := range w.clients {
			if c.node == dead {
				w.leave(c)
				moved++
			}
		}
		w.run(10*time.Second, publish)
		w.run(5*time.Second, nil)
		w.complete("in the end")
		for _, c := range w.clients {
			if c.missing > 0 || c.node == nil {
				t.Fatalf("seed %d: a client was told that something is missing", seed)
			}
		}
		if moved < 200 || len(w.published) < 250 {
			t.Errorf("%d moved, %d were published", moved, len(w.published))
		}
	}
}

// Nodes that were apart for 20 seconds find what they have missed, and their members
// get it.
func TestWhatWasMissedInAPartitionIsFound(t *testing.T) {
	w := newWorld(t, 1, 2)
	for range 20 {
		w.join("a")
	}
	both := func() { w.publish(w.nodes[w.rng.IntN(2)], "a") }
	w.run(5*time.Second, both)
	w.apart = true
	w.run(20*time.Second, both)
	w.apart = false
	for _, p := range w.nodes {
		p.Lost(w.clock(p))
	}
	w.run(5*time.Second, both)
	w.run(5*time.Second, nil)
	for _, c := range w.clients {
		c.excused = map[key]bool{}
		for _, m := range w.published {
			if m.at < c.from {
				c.excused[m.key] = true
			}
		}
	}
	w.complete("after the partition")
	if s := w.nodes[0].Stats(); s.Late < 100 || s.Filling != 0 {
		t.Errorf("%+v", s)
	}
	for _, p := range w.nodes {
		p.consistent(t)
	}
}

// A ring is transferred once, however many nodes have it, and in order.
func TestANodeThatBeginsIsFilledByOne(t *testing.T) {
	w := newWorld(t, 1, 5)
	for _, p := range w.nodes[:4] {
		p.keeps["a"] = w.now
		if err := p.Keep("a", w.limits, w.clock(p)); err != nil {
			t.Fatal(err)
		}
	}
	for range 700 { // in several parts
		w.run(50*time.Millisecond, func() { w.publish(w.nodes[w.rng.IntN(4)], "a") })
	}
	w.run(5*time.Second, nil)
	p := w.nodes[4]
	p.keeps["a"] = w.now
	if err := p.Keep("a", w.limits, w.clock(p)); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Resume("a", w.position(w.nodes[0], "a"), w.clock(p)); err != nil || !r.Wait || !r.Missing {
		t.Errorf("before it is filled: %+v, %v", r, err)
	}
	w.run(5*time.Second, nil)
	s := p.Stats()
	if s.Entries != 700 || s.Filled != 700 || s.Late != 0 || s.Filling != 0 {
		t.Errorf("%+v", s)
	}
	p.consistent(t)
	for _, other := range w.nodes[:4] {
		r, err := p.Resume("a", w.position(other, "a"), w.clock(p))
		if err != nil || r.Missing || r.Ahead || r.Wait || len(slices.Collect(r.Entries)) != 0 {
			t.Errorf("a client of node %d: %+v, %v", other.place, r, err)
		}
	}
	if a, b := text(p.History, "a", w.now), text(w.nodes[0].History, "a", w.now); len(a) != len(b) {
		t.Errorf("%d bytes here, %d there", len(a), len(b))
	}
}

func TestRingsHaveLimits(t *testing.T) {
	h := newHistory(t, Options{MaxTopics: 2, MaxEntries: 10, MaxBytes: 2048, MaxData: 500})
	keep := func(topic string, l Limits) {
		t.Helper()
		if err := h.Keep(topic, l, start); err != nil {
			t.Fatal(err)
		}
	}
	keep("three", Limits{Entries: 3})
	for i := range 5 {
		h.Publish("three", 1, fmt.Append(nil, i), start+int64(i))
	}
	if got := text(h, "three", start); got != "2 3 4" {
		t.Errorf("the last three are %s", got)
	}
	for e := range h.Entries("three", start) {
		if e.Op != 1 || e.Node != 1 {
			t.Errorf("%s is %+v", e.Data, e)
		}
	}
	keep("three", Limits{Entries: 2, Age: time.Second})
	if got := text(h, "three", start+10); got != "3 4" {
		t.Errorf("of two %s are kept", got)
	}
	if got := text(h, "three", start+1004); got != "4" {
		t.Errorf("after a second %s is kept", got)
	}
	if got := text(h, "three", start+1005); got != "" {
		t.Errorf("after more than a second %s is kept", got)
	}
	h.Drop("three")
	keep("bytes", Limits{Entries: 10, Bytes: 64})
	for i := range 5 {
		h.Publish("bytes", 1, fmt.Append(nil, i), start+int64(i))
	}
	if got := text(h, "bytes", start); got != "3 4" {
		t.Errorf("in two cells are %s", got)
	}
	h.Publish("bytes", 1, make([]byte, 600), start)
	if s := h.Stats(); s.Crowded != 1 {
		t.Errorf("%d were too large", s.Crowded)
	}
	keep("full", Limits{Entries: 10})
	for i := range 20 {
		h.Publish("full", 1, make([]byte, 500), start+int64(i))
	}
	if s := h.Stats(); s.Bytes > 2048 || s.Entries != 2+3 || s.Crowded != 1+17 {
		t.Errorf("%+v", s)
	}
	h.consistent(t)
	if err := h.Keep("more", Limits{Entries: 1}, start); !errors.Is(err, ErrTopics) {
		t.Errorf("a topic too many: %v", err)
	}
	if err := h.Keep("", Limits{Entries: 1}, start); !errors.Is(err, ErrTopic) {
		t.Errorf("no topic: %v", err)
	}
	if err := h.Keep("full", Limits{}, start); !errors.Is(err, ErrLimits) {
		t.Errorf("no limit: %v", err)
	}
	h.Drop("full")
	h.Drop("full")
	h.Drop("bytes")
	if s := h.Stats(); s.Topics+s.Entries+s.Bytes != 0 {
		t.Errorf("left over: %+v", s)
	}
	if _, err := h.Position("full", start); !errors.Is(err, ErrUnkept) {
		t.Errorf("a position in what is not kept: %v", err)
	}
	for _, o := range []Options{{}, {Self: 1, MaxEntries: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is possible", o)
		}
	}
}

// Entries that were evicted, or were never there, are said to be missing, and others
// are not.
func TestWhatIsMissingIsSaid(t *testing.T) {
	h := newHistory(t, Options{})
	if err := h.Keep("a", Limits{Entries: 3}, start); err != nil {
		t.Fatal(err)
	}
	add := func(number, previous uint64) {
		t.Helper()
		if !h.Add("a", Entry{Node: 7, Number: number, Previous: previous, Time: start + int64(number), PreviousTime: start + int64(previous), Data: fmt.Append(nil, number)}, start+int64(number)) {
			t.Errorf("%d is not to be delivered", number)
		}
	}
	positions := map[uint64]string{}
	note := func(number uint64) {
		var err error
		if positions[number], err = h.Position("a", start+int64(number)); err != nil {
			t.Fatal(err)
		}
	}
	note(0)
	for _, n := range []uint64{1, 3, 4} {
		add(n, max(n, 2)-2+n/4) // 1, 3 after 1, 4 after 3
		note(n)
	}
	check := func(number uint64, want string) {
		t.Helper()
		r, err := h.Resume("a", positions[number], start+100)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for e := range r.Entries {
			got = append(got, string(e.Data))
		}
		if r.Missing {
			got = append(got, "…")
		}
		if strings.Join(got, " ") != want {
			t.Errorf("from %d: %v, want %s", number, got, want)
		}
	}
	check(0, "1 3 4")
	check(3, "4")
	check(4, "")
	add(9, 8) // 8 was lost
	note(9)
	check(1, "3 4 9 …")
	check(4, "9 …")
	check(9, "…")       // who was here waits for 8
	check(0, "3 4 9 …") // 1 was evicted
	add(8, 4)           // it was only late
	check(9, "8")
	check(4, "8 9")
	check(3, "4 8 9")
	check(1, "4 8 9 …")
	if h.Add("a", Entry{Node: 7, Number: 8, Previous: 4, Time: start}, start) {
		t.Error("8 came twice")
	}
	h.Lost(start + 50)
	check(4, "8 9 …")
}

func TestPositionsAreBoundedAndChecked(t *testing.T) {
	h := newHistory(t, Options{})
	if err := h.Keep("a", Limits{Entries: 1000}, start); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(200) {
		h.Add("a", Entry{Node: 1<<63 + i, Number: 1<<62 + i, Time: start + int64(i)}, start+int64(i))
	}
	token, err := h.Position("a", start+200)
	if err != nil || len(token) > PositionMax {
		t.Fatalf("a position of %d bytes, %v", len(token), err)
	}
	if r, err := h.Resume("a", token, start+201); err != nil || r.Missing || r.Ahead {
		t.Errorf("%+v, %v", r, err)
	}
	h.consistent(t)
	for _, bad := range []string{"", "!", "AA", token + "A", token[:len(token)-1], token + token, strings.Repeat("A", PositionMax+1)} {
		if _, err := h.Resume("a", bad, start); !errors.Is(err, ErrPosition) {
			t.Errorf("%.20q is a position: %v", bad, err)
		}
	}
	if _, err := h.Resume("b", token, start); !errors.Is(err, ErrUnkept) {
		t.Errorf("resumed what is not kept: %v", err)
	}
	for range 10 { // long after
		var out Results
		h.Step(start+time.Hour.Milliseconds(), &out)
	}
	if err := h.Keep("a", Limits{Entries: 1000, Age: time.Minute}, start); err != nil {
		t.Fatal(err)
	}
	for i := range int64(3) {
		var out Results
		h.Step(start+time.Hour.Milliseconds()+100*i, &out)
	}
	if token, _ = h.Position("a", start+2*time.Hour.Milliseconds()); len(token) > 40 {
		t.Errorf("a position names those who have been silent for an hour: %s", token)
	}
}

// A node remembers its last number of so many topics. What it has forgotten it does
// not guess: others are to ask.
func TestNumbersThatWereForgottenAreNotGuessed(t *testing.T) {
	h := newHistory(t, Options{MaxPublished: 2})
	var got []string
	for _, topic := range []string{"a", "b", "a", "b", "c", "c", "b", "a"} {
		e := h.Publish(topic, 1, nil, start)
		got = append(got, fmt.Sprint(topic, e.Number, "←", e.Previous))
	}
	if s := strings.Join(got, " "); s != "a1←0 b2←0 a3←1 b4←2 c5←3 c6←5 b7←4 a8←6" {
		t.Error(s)
	}
}

// Whatever bytes come from nodes and clients: nothing breaks.
func FuzzReceive(f *testing.F) {
	w := want{seq: 1, topic: "a", gone: 1, since: start, most: 3, here: []span{{7, 2, 1, 2}}}
	p := part{seq: 1, parts: 1, since: 5, heads: []head{{7, 9, start}}, entries: appendEntry(nil, Entry{Node: 7, Number: 3, Previous: 2, Time: start, Data: []byte("x")})}
	h := newHistory(f, Options{})
	if err := h.Keep("a", Limits{Entries: 2}, start); err != nil {
		f.Fatal(err)
	}
	h.Publish("a", 1, nil, start)
	token, err := h.Position("a", start)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{w.encode(kindAsk), w.encode(kindWant), encodeOffer(1), p.encode(), encodeTail("a", 9, start)} {
		f.Add(seed, seed, token)
	}
	f.Fuzz(func(t *testing.T, a, b []byte, token string) {
		h := newHistory(t, Options{MaxTopics: 3, MaxEntries: 10, MaxBytes: 1024})
		var out Results
		if err := h.Keep("a", Limits{Entries: 3}, start); err != nil {
			t.Fatal(err)
		}
		h.Publish("a", 1, []byte("data"), start)
		h.Step(start, &out)
		_ = h.Receive(2, encodeOffer(1), start, &out)
		for i, m := range [][]byte{a, b, a} {
			kept := bytes.Clone(m)
			if err := h.Receive(2, m, start+int64(i), &out); err != nil && !errors.Is(err, ErrMessage) {
				t.Fatal(err)
			}
			for j := range m {
				m[j] = 0xff // it is the caller's again
			}
			for h.Step(start+int64(i)*1000, &out) {
			}
			copy(m, kept)
			h.consistent(t)
		}
		if r, err := h.Resume("a", token, start); err == nil {
			for range r.Entries {
			}
		}
		h.Drop("a")
		if s := h.Stats(); s.Topics+s.Entries+s.Bytes != 0 {
			t.Fatalf("left over: %+v", s)
		}
	})
}

// Bytes that stay resident for an entry, in rings of ten and of one.
func BenchmarkMemory(b *testing.B) {
	const entries = 1_000_000
	for _, c := range []struct{ ring, size int }{{10, 100}, {10, 200}, {10, 1000}, {1, 100}} {
		b.Run(fmt.Sprintf("rings of %d, %d bytes", c.ring, c.size), func(b *testing.B) {
			for b.Loop() {
				before := testkit.Resident(b)
				h := newHistory(b, Options{MaxEntries: entries, MaxTopics: entries, MaxBytes: 2 << 30})
				data := bytes.Repeat([]byte("d"), c.size)
				for i := range entries / c.ring {
					topic := fmt.Sprintf("cache-room-%d", i)
					if err := h.Keep(topic, Limits{Entries: c.ring}, start); err != nil {
						b.Fatal(err)
					}
					for range c.ring {
						h.Publish(topic, 1, data, start)
					}
				}
				h.doubts = nil
				b.ReportMetric(float64(testkit.Resident(b)-before)/entries, "B/entry")
				runtime.KeepAlive(h)
			}
		})
	}
}

func BenchmarkPublish(b *testing.B) {
	h := newHistory(b, Options{})
	if err := h.Keep("a", Limits{Entries: 100}, start); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		h.Publish("a", 1, data, start)
	}
}

func BenchmarkPosition(b *testing.B) {
	h := newHistory(b, Options{})
	if err := h.Keep("a", Limits{Entries: 100}, start); err != nil {
		b.Fatal(err)
	}
	for i := range uint64(3) {
		h.Add("a", Entry{Node: 1<<63 + i, Number: 1000 + i, Time: start}, start)
	}
	b.ReportAllocs()
	for b.Loop() {
		token, err := h.Position("a", start)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(token)), "bytes")
	}
}
