package cluster

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
)

// slack is how far clocks may differ.
const slack = 200 * time.Millisecond

// keeping keeps the last ten messages of rooms.
func keeping(o *Options) {
	o.pace.slack = slack
	o.History = func(topic string) Limits {
		if strings.HasPrefix(topic, "room/") {
			return Limits{Messages: 10, Age: time.Minute}
		}
		return Limits{}
	}
}

// resumes lets a new connection resume, and returns it, what it has missed, and where it is.
func (p *place) resumes(t testing.TB, topic, position string) (*fakeConn, string, Resumed) {
	t.Helper()
	c := p.server.conn()
	done := make(chan Resumed, 1)
	if err := p.Node.resume(c, topic, position, func(r Resumed) { done <- r }); err != nil {
		t.Fatal(err)
	}
	r := <-done
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	var texts []string
	for _, m := range r.Messages {
		texts = append(texts, string(m.Data))
	}
	return c, strings.Join(texts, " "), r
}

// at is the position of those who subscribe here.
func (p *place) at(t testing.TB, topic string) (position string) {
	t.Helper()
	if err := p.Position(topic, func(at string) { position = at }); err != nil {
		t.Fatal(err)
	}
	return position
}

// A client that was away gets what it has missed, from whichever node it comes to, or is
// told that it cannot.
func TestAClientThatComesBack(t *testing.T) {
	t.Parallel()
	url := newBroker(t, 0, nil).ClientURL()
	a, b := join(t, url, "a", keeping), join(t, url, "b", keeping)
	meet(t, a, b)
	const topic = "room/x"
	first, missed, r := a.resumes(t, topic, "")
	if missed != "" || r.Missing || r.Ahead || r.Position == "" {
		t.Errorf("a new client: %q %+v", missed, r)
	}
	other := a.subscribe(t, topic)
	b.publish(t, topic, "0")
	b.publish(t, topic, "1")
	first.has(t, topic+" 0", topic+" 1")
	joined := time.Now()
	testkit.Eventually(t, "the position is younger than the room, for all clocks", func() bool { return time.Since(joined) > 2*slack })
	position := a.at(t, topic)
	first.unsubscribe(topic)
	for i := 2; i < 6; i++ {
		[]*place{a, b}[i%2].publish(t, topic, fmt.Sprint(i))
	}
	testkit.Eventually(t, "all has come", func() bool { return len(other.received()) == 6 })
	if kept := a.Kept(topic); len(kept) != 6 || string(kept[5].Data) == "" || time.Since(kept[0].Time) > time.Hour {
		t.Errorf("%v", kept)
	}
	for i, p := range []*place{a, b, b} { // b has nothing at first
		back, missed, r := p.resumes(t, topic, position)
		if words := strings.Fields(missed); len(words) != 4+i || r.Missing || r.Ahead {
			t.Errorf("%d: %q %+v", i, missed, r)
		}
		p.publish(t, topic, fmt.Sprint("live-", i))
		back.has(t, fmt.Sprint(topic, " live-", i))
		back.unsubscribe(topic)
		testkit.Eventually(t, "the other node has it, too", func() bool {
			return strings.HasSuffix(other.last(), fmt.Sprint(" live-", i)) && (i == 0 || len(b.Kept(topic)) == len(a.Kept(topic)))
		})
	}
	for i := range 20 {
		a.publish(t, topic, fmt.Sprint("more-", i))
	}
	if _, missed, r := a.resumes(t, topic, position); len(strings.Fields(missed)) != 10 || !r.Missing {
		t.Errorf("%q %+v", missed, r)
	}
	for want, err := range map[error]error{
		ErrNoHistory: a.Node.resume(first, "plain", "", nil),
		ErrPosition:  a.Node.resume(first, topic, "no position", nil),
	} {
		if !errors.Is(err, want) {
			t.Errorf("%v, not %v", err, want)
		}
	}
	if err := b.Position("room/y", nil); err != ErrNoHistory {
		t.Error(err)
	}
}

// What a node misses while its broker is away it gets from others, late, and so do its
// members; what nobody has is said to be lost.
func TestMessagesThatWereMissed(t *testing.T) {
	t.Parallel()
	broker := newBroker(t, 0, nil)
	w := newWay(t, broker.Addr().String())
	a, b := join(t, broker.ClientURL(), "a", keeping), join(t, w.url(), "b", keeping)
	meet(t, a, b)
	const topic = "room/x"
	own, other := a.subscribe(t, topic), b.subscribe(t, topic)
	a.publish(t, topic, "0")
	other.has(t, topic+" 0")
	w.silence(true)
	for i := range 5 {
		a.publish(t, topic, fmt.Sprint(1+i))
	}
	b.publish(t, topic, "6")
	w.cut()
	testkit.Eventually(t, "b is back", func() bool { return b.Stats().Reconnects > 0 })
	for _, m := range []*fakeConn{own, other} {
		testkit.Eventually(t, "all has come", func() bool { return len(m.received()) == 7 })
	}
	w.silence(true)
	for i := range 20 { // more than is kept
		a.publish(t, topic, fmt.Sprint(7+i))
	}
	w.cut()
	testkit.Eventually(t, "the last ten have come, and others are lost", func() bool {
		got := other.received()
		return len(got) == 7+10 && got[len(got)-1] == topic+" 26" && b.lost(topic) > 0
	})
}

// A program can pass messages on in a form of its own: it is told each with the position
// behind it, and can let clients resume that subscribe to what it publishes.
func TestMessagesThatArePassedOn(t *testing.T) {
	t.Parallel()
	url := newBroker(t, 0, nil).ClientURL()
	var full atomic.Bool
	passing := func(o *Options) {
		keeping(o)
		o.Delivered = func(by Publisher, d Delivery) error {
			if full.Load() {
				return server.ErrBackpressure
			}
			return by.Publish("twin/"+d.Topic, d.Op, []byte(string(d.Data)+"@"+d.Position()))
		}
	}
	a, b := join(t, url, "a", passing), join(t, url, "b", passing)
	meet(t, a, b)
	const topic = "room/x"
	twins := map[*place]*fakeConn{}
	for _, p := range []*place{a, b} {
		p.subscribe(t, topic)
		twins[p] = p.server.conn()
		came := make(chan struct{})
		if err := p.Missed(topic, "", func(Resumed) {
			_ = twins[p].Subscribe("twin/" + topic)
			close(came)
		}); err != nil {
			t.Fatal(err)
		}
		<-came
	}
	joined := time.Now()
	testkit.Eventually(t, "positions are younger than the room, for all clocks", func() bool { return time.Since(joined) > 2*slack })
	for i := range 5 {
		[]*place{a, b}[i%2].publish(t, topic, fmt.Sprint(i))
	}
	for p, twin := range twins {
		testkit.Eventually(t, "all was passed on", func() bool { return len(twin.received()) == 5 })
		got := twin.received()
		for i, passed := range got {
			_, position, _ := strings.Cut(passed, "@")
			_, missed, r := p.resumes(t, topic, position)
			if len(strings.Fields(missed)) != len(got)-i-1 || r.Missing || r.Ahead {
				t.Errorf("behind %q: %q %+v", passed, missed, r)
			}
		}
	}
	if _, missed, r := a.resumes(t, topic, Beginning); len(strings.Fields(missed)) != 5 || !r.Missing {
		t.Errorf("%q %+v", missed, r)
	}
	a.publish(t, "plain", "without a history")
	full.Store(true)
	a.publish(t, topic, "5")
	a.publish(t, "plain", "6")
	for _, topic := range []string{topic, "plain"} {
		testkit.Eventually(t, "it is said that a message was not passed on", func() bool { return a.lost(topic) == 1 })
	}
	if err := a.Missed(topic, "no position", nil); err != ErrPosition {
		t.Error(err)
	}
	if !ValidPosition("") || !ValidPosition(Beginning) || ValidPosition("x") {
		t.Error("positions are not told from other texts")
	}
}

// Nodes that keep messages and nodes that do not are no cluster.
func TestNodesAgreeAboutAHistory(t *testing.T) {
	t.Parallel()
	url := newBroker(t, 0, nil).ClientURL()
	a := join(t, url, "a", keeping)
	if _, err := tryJoin(t, url, "b", cautious); !errors.Is(err, ErrHistory) {
		t.Error(err)
	}
	a.Leave()
	join(t, url, "b", nil)
	if _, err := tryJoin(t, url, "a", func(o *Options) { keeping(o); cautious(o) }); !errors.Is(err, ErrHistory) {
		t.Error(err)
	}
}
