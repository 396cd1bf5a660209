package presence

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

func newPresence(t testing.TB, o Options) *Presence {
	t.Helper()
	o.Key = testKey
	if o.Self == 0 {
		o.Self = 1
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A user with several connections joins with the first and leaves with the last.
func TestConnectionsOfOneUserAreOneMember(t *testing.T) {
	p := newPresence(t, Options{})
	var out Results
	join := func(id, data string) Member {
		t.Helper()
		m, err := p.Join("room", id, []byte(data), 0, &out)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first, second := join("ann", "1"), join("ann", "1")
	bob := join("bob", "2")
	third := join("ann", "3")
	p.Leave(first, 0, &out)
	p.Leave(third, 0, &out)
	p.Leave(second, 0, &out)
	p.Leave(second, 0, &out) // once too often
	if p.Count("room") != 1 {
		t.Errorf("%d are in the room", p.Count("room"))
	}
	join("cat", "4") // may be where ann was
	p.Leave(first, 0, &out)
	p.Leave(bob, 0, &out)
	var events []string
	for _, e := range out.Events {
		events = append(events, fmt.Sprint(e.Kind, e.ID, string(e.Data)))
	}
	if got := strings.Join(events, " "); got != "1ann1 1bob2 2ann3 3ann 1cat4 3bob" {
		t.Errorf("events are %s", got)
	}
	if len(out.Messages) != len(out.Events) {
		t.Errorf("%d messages for %d changes", len(out.Messages), len(out.Events))
	}
	if n, topics := p.Count("room"), p.Stats().Topics; n != 1 || topics != 1 {
		t.Errorf("%d are left in the room, and there are %d topics", n, topics)
	}
}

func TestWhatIsTooMuchIsRefused(t *testing.T) {
	p := newPresence(t, Options{MaxMembers: 4, MaxTopics: 2, MaxBytes: 4096, MaxData: 100})
	var out Results
	for _, c := range []struct {
		topic, id string
		data      int
		want      error
	}{
		{"", "id", 0, ErrTopic},
		{strings.Repeat("x", TopicMax+1), "id", 0, ErrTopic},
		{"a", "", 0, ErrID},
		{"a", strings.Repeat("x", IDMax+1), 0, ErrID},
		{"a", "id", 101, ErrData},
		{"a", "id", 100, nil},
		{strings.Repeat("b", TopicMax), strings.Repeat("x", IDMax), 0, nil},
		{"c", "id", 0, ErrTopics},
		{"a", "id2", 0, nil},
		{"a", "id3", 0, nil},
		{"a", "id4", 0, ErrMembers},
		{"a", "id3", 0, nil},
	} {
		if _, err := p.Join(c.topic, c.id, make([]byte, c.data), 0, &out); !errors.Is(err, c.want) {
			t.Errorf("%d in %q of %q: %v, want %v", c.data, c.id, c.topic, err, c.want)
		}
	}
	if s := p.Stats(); s.Members != 4 || s.Own != 4 || s.Topics != 2 {
		t.Errorf("%+v", s)
	}
	full := newPresence(t, Options{MaxBytes: 256})
	if _, err := full.Join("a", "id", make([]byte, 500), 0, &out); !errors.Is(err, ErrBytes) || full.Stats().Topics != 0 {
		t.Errorf("%v, and %d topics are left", err, full.Stats().Topics)
	}
	if err := full.Watch(strings.Repeat("x", 200), 0, &out); err != nil {
		t.Error(err)
	}
	if err := full.Watch(strings.Repeat("y", 200), 0, &out); !errors.Is(err, ErrBytes) {
		t.Error(err)
	}
	for _, o := range []Options{{}, {Self: 1, MaxData: 1 << 20}, {Self: 1, MaxMembers: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is possible", o)
		}
	}
	if err := p.Heard(7, []byte{1, 2}, 0); !errors.Is(err, ErrMessage) {
		t.Errorf("half a beat: %v", err)
	}
	if err := p.Receive(7, []byte{kindWant}, 0, &out); !errors.Is(err, ErrNode) {
		t.Errorf("a stranger: %v", err)
	}
	few := newPresence(t, Options{MaxNodes: 1})
	beat := newPresence(t, Options{}).Beat(nil)
	if err := errors.Join(few.Heard(2, beat, 0), few.Heard(2, beat, 0)); err != nil {
		t.Error(err)
	}
	if err := few.Heard(3, beat, 0); !errors.Is(err, ErrNodes) {
		t.Errorf("a node too many: %v", err)
	}
}

// Members of other nodes for which there is no room are counted, and come when
// there is room. Own members have an eighth to themselves.
func TestOthersAreShownWhenThereIsRoom(t *testing.T) {
	w := newWorld(t, 1, 2)
	p, other := w.nodes[0], w.nodes[1]
	p.Presence = newPresence(t, Options{Self: p.id, MaxMembers: 80})
	p.watched["topic 0"] = true
	if err := p.Watch("topic 0", 0, &p.out); err != nil {
		t.Fatal(err)
	}
	w.run(time.Second, nil)
	for i := range 200 {
		w.join(other, conn{topic: "topic 0", id: fmt.Sprint(i)})
		if i%50 == 0 {
			w.flush(other)
			w.run(time.Second, nil)
		}
	}
	w.flush(other)
	w.run(5*time.Second, nil)
	if s := p.Stats(); s.Members != 70 || s.Refused == 0 {
		t.Errorf("there is room for 70, %d are there, %d were refused", s.Members, s.Refused)
	}
	for i := range 10 {
		w.join(p, conn{topic: "topic 0", id: fmt.Sprint("own ", i)})
	}
	refused := p.Stats()
	w.run(20*time.Second, nil)
	if s := p.Stats(); s.Refused != refused.Refused {
		t.Errorf("%d more were refused while nobody came", s.Refused-refused.Refused)
	}
	for len(other.conns) > 20 {
		other.Leave(other.conns[0].member, w.now, &other.out)
		other.conns = other.conns[1:]
	}
	w.flush(other)
	w.run(10*time.Second, nil)
	w.agree(1, "with room")
	w.consistent()
}

// A change in a topic goes to the nodes that follow it, and costs the others
// nothing. One that begins to follow asks once.
func TestOnlyThoseWhoFollowAreTold(t *testing.T) {
	w := newWorld(t, 2, 5)
	w.run(2*time.Second, nil)
	for i := range 3 {
		p := w.nodes[i]
		p.watched["topic 0"] = true
		if err := p.Watch("topic 0", w.now, &p.out); err != nil {
			t.Fatal(err)
		}
		w.flush(p)
	}
	w.run(5*time.Second, nil)
	for i := range 100 {
		w.join(w.nodes[0], conn{topic: "topic 0", id: fmt.Sprint(i)})
	}
	w.flush(w.nodes[0])
	messages := 0
	for _, l := range w.mail {
		if !l.beat {
			messages++
		}
	}
	if messages != 200 {
		t.Errorf("100 changes came to %d messages to 2 nodes", messages)
	}
	w.run(5*time.Second, nil)
	w.agree(1, "after 100 joins")
	if s := w.nodes[3].Stats(); s.Topics+s.Members != 0 {
		t.Errorf("a node that follows nothing knows %+v", s)
	}
	before := w.nodes[0].Stats().Snapshots
	p := w.nodes[3]
	p.watched["topic 0"] = true
	if err := p.Watch("topic 0", w.now, &p.out); err != nil {
		t.Fatal(err)
	}
	w.flush(p)
	w.run(5*time.Second, nil)
	w.agree(1, "after one more follows")
	if n := w.nodes[0].Stats().Snapshots - before; n != 1 {
		t.Errorf("%d snapshots were sent", n)
	}
}

// A partition of 20 seconds, in which members come and go on both sides: two seconds
// after its end the lists agree.
func TestListsAgreeSoonAfterAPartition(t *testing.T) {
	const topics = 50
	w := newWorld(t, 3, 4)
	for _, p := range w.nodes {
		for i := range topics {
			topic := fmt.Sprint("topic ", i)
			p.watched[topic] = true
			if err := p.Watch(topic, w.now, &p.out); err != nil {
				t.Fatal(err)
			}
		}
		w.flush(p)
	}
	w.run(5*time.Second, func() { w.act(topics, 100) })
	w.apart = true
	w.run(20*time.Second, func() { w.act(topics, 100) })
	w.apart = false
	w.run(2*time.Second, nil)
	w.agree(topics, "after the partition")
}

// Whatever bytes a node sends: nothing breaks, and what is known stays consistent.
func FuzzReceive(f *testing.F) {
	full := change{topic: "topic 0", number: 9, op: opSet, id: "x", data: []byte("y")}
	all := tell{topic: "topic 0", asOf: 9, number: 9, digest: 1, ask: true, known: []known{{1, 2}}}
	part := snapshot{topic: "topic 0", asOf: 9, number: 9, parts: 2, members: []byte("\x01a\x01b")}
	round := check{seq: 1, none: []uint64{1}, having: []having{{1, 2}}}
	for _, seed := range [][]byte{
		full.encode(), all.encode(), part.encode(), round.encode(), encodeChecked(1, 1), encodeWant(ask{1, 2}),
		encodeAnswer(kindSame, answer{1, 2, 2}), encodeAnswer(kindNone, answer{hash: 1, asOf: 2}),
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		p := newPresence(t, Options{MaxMembers: 20, MaxTopics: 10, MaxBytes: 4096, MaxStaged: 4096})
		w := &world{t: t, nodes: []*peer{{Presence: p}}}
		var out Results
		own, err := p.Join("topic 0", "own", []byte("data"), 0, &out)
		if err != nil {
			t.Fatal(err)
		}
		_ = p.Watch("topic 0", 0, &out)
		if p.Heard(2, []byte{1, 1, 0}, 0) != nil {
			t.Fatal("a beat is refused")
		}
		for i, m := range [][]byte{a, b, a} {
			kept := bytes.Clone(m)
			_ = p.Heard(3, m, 0)
			err := p.Receive(2, m, time.Duration(i)*time.Second, &out)
			if err != nil && !errors.Is(err, ErrMessage) {
				t.Fatal(err)
			}
			for j := range m {
				m[j] = 0xff // it is the caller's again
			}
			for p.Step(time.Duration(i)*3*time.Second, &out) {
			}
			copy(m, kept)
			w.consistent()
		}
		p.Leave(own, time.Minute, &out)
		p.Forget(2)
		p.Unwatch("topic 0")
		for p.Step(time.Hour, &out) {
		}
		w.consistent()
		if s := p.Stats(); s.Members+s.Topics+s.Staged+s.Wanting+s.Bytes != 0 {
			t.Fatalf("left over: %+v", s)
		}
	})
}

// Bytes that stay resident for a member with an id of 36 bytes and 100 of data, in
// topics of so many members.
func BenchmarkMemory(b *testing.B) {
	const members = 1_000_000
	for _, size := range []int{1, 10, 1000} {
		b.Run(fmt.Sprint("topics of ", size), func(b *testing.B) {
			for b.Loop() {
				before := testkit.Resident(b)
				p := newPresence(b, Options{MaxMembers: members, MaxTopics: members})
				var out Results
				data := bytes.Repeat([]byte("d"), 100)
				for i := range members {
					if _, err := p.Join(fmt.Sprintf("presence-room-%d", i/size), fmt.Sprintf("%036d", i), data, time.Duration(i)*time.Microsecond, &out); err != nil {
						b.Fatal(err)
					}
					out.Reset()
					p.Step(time.Duration(i)*time.Microsecond, &out)
					out.Reset()
				}
				for p.Step(time.Hour, &out) {
					out.Reset()
				}
				b.ReportMetric(float64(testkit.Resident(b)-before)/members, "B/member")
				runtime.KeepAlive(p)
			}
		})
	}
}

func BenchmarkJoinAndLeave(b *testing.B) {
	p := newPresence(b, Options{})
	var out Results
	data := bytes.Repeat([]byte("d"), 100)
	b.ReportAllocs()
	for b.Loop() {
		m, err := p.Join("presence-room", "a user's id of some length", data, 0, &out)
		if err != nil {
			b.Fatal(err)
		}
		p.Leave(m, 0, &out)
		out.Reset()
	}
}
