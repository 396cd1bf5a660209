package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
)

func TestAMessageReachesTheMembersOnAllNodes(t *testing.T) {
	t.Parallel()
	url := newBroker(t, 0, nil).ClientURL()
	a, b, c := join(t, url, "a", nil), join(t, url, "b", nil), join(t, url, "c", nil)
	meet(t, a, b, c)
	topics := []string{"room/x", "a.b *.> % Grüße", "user:7"}
	var members []*fakeConn
	for _, p := range []*place{a, b, c} {
		members = append(members, p.subscribe(t, topics...))
	}
	stranger := b.subscribe(t, "room/y")
	var want []string
	for i := range 100 {
		for _, topic := range topics {
			b.publish(t, topic, fmt.Sprint(i))
			want = append(want, fmt.Sprint(topic, " ", i))
		}
	}
	for _, m := range members {
		m.has(t, want...)
	}
	stranger.has(t)
	for _, p := range []*place{a, b, c} {
		if s := p.Stats(); s.Lost+s.Stale+s.Malformed+s.Unconfirmed != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// Nobody gets what only others want.
func TestInterestIsFollowed(t *testing.T) {
	t.Parallel()
	broker := newBroker(t, 0, nil)
	a, b := join(t, broker.ClientURL(), "a", nil), join(t, broker.ClientURL(), "b", nil)
	meet(t, a, b)
	own := broker.NumSubscriptions() // by which the nodes hear each other
	m := b.subscribe(t, "x")
	for i := range 1000 {
		a.publish(t, fmt.Sprint("y", i), "for nobody")
	}
	a.publish(t, "x", "1")
	m.has(t, "x 1")
	if got := b.Stats().Received; got != 1 {
		t.Errorf("%d messages arrived", got)
	}
	if n := broker.NumSubscriptions(); n != own+1 {
		t.Errorf("the broker has %d subscriptions, not %d", n, own+1)
	}
	m.unsubscribe("x")
	testkit.Eventually(t, "the topic is left", func() bool { return broker.NumSubscriptions() == own })
	m = b.subscribe(t, "x")
	a.publish(t, "x", "2")
	m.has(t, "x 2")
}

func TestPersonalTopicsShareSubjects(t *testing.T) {
	t.Parallel()
	broker := newBroker(t, 0, nil)
	a := join(t, broker.ClientURL(), "a", nil)
	own := broker.NumSubscriptions()
	for i := range 100_000 {
		a.TopicChanged(fmt.Sprint("user:", i), true)
	}
	testkit.Eventually(t, "all shards are followed", func() bool { return broker.NumSubscriptions() == own+shards })
	for i := range 100_000 {
		a.TopicChanged(fmt.Sprint("user:", i), false)
	}
	testkit.Eventually(t, "all shards are left", func() bool { return broker.NumSubscriptions() == own })
}

func TestANodesClockDoesNotJump(t *testing.T) {
	t.Parallel()
	var c clock
	for _, step := range []struct{ machine, want time.Duration }{
		{0, 0}, {300, 300}, {200, 300}, {time.Second, time.Second}, {time.Minute, 2 * time.Second}, {time.Minute + 5, 2*time.Second + 5},
	} {
		if got := c.now(step.machine); got != step.want {
			t.Errorf("at %v it shows %v, not %v", step.machine, got, step.want)
		}
	}
}

// A thousand rooms with members on one of three nodes each: a message reaches one node.
func TestAMessageReachesThoseNodesAloneThatHaveMembers(t *testing.T) {
	t.Parallel()
	const rooms = 1000
	url := newBroker(t, 0, nil).ClientURL()
	places := []*place{join(t, url, "a", nil), join(t, url, "b", nil), join(t, url, "c", nil)}
	meet(t, places...)
	var members []*fakeConn
	for i, p := range places {
		var topics []string
		for room := i; room < rooms; room += len(places) {
			topics = append(topics, fmt.Sprint("room/", room))
		}
		members = append(members, p.subscribe(t, topics...))
	}
	for room := range rooms {
		places[(room+1)%len(places)].publish(t, fmt.Sprint("room/", room), "hello")
	}
	received := uint64(0)
	for i, m := range members {
		want := (rooms + len(places) - 1 - i) / len(places)
		testkit.Eventually(t, "each member has its messages", func() bool { return len(m.received()) == want })
		received += places[i].Stats().Received
	}
	if received != rooms {
		t.Errorf("%d messages were received, for %d that were published", received, rooms)
	}
}

// BenchmarkPublish publishes to a topic that all nodes follow, on one of them: messages a
// second to all others, and what they cost the broker in bytes.
func BenchmarkPublish(b *testing.B) {
	for _, nodes := range []int{1, 2, 3, 4} {
		b.Run(fmt.Sprint(nodes, "-nodes"), func(b *testing.B) {
			broker := newBroker(b, 0, nil)
			var places []*place
			for i := range nodes {
				places = append(places, join(b, broker.ClientURL(), fmt.Sprint("node-", i), nil))
			}
			meet(b, places...)
			for _, p := range places {
				p.server.forget = true
				p.subscribe(b, "room/tea")
			}
			data := make([]byte, 100)
			before, err := broker.Varz(nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			for range b.N {
				for places[0].Publish("room/tea", frame.Text, data) != nil {
					places[0].queue.wait() // until the broker keeps up
				}
			}
			for _, p := range places[1:] {
				for p.Stats().Received+p.Stats().Lost < uint64(b.N) {
					time.Sleep(time.Millisecond)
				}
			}
			b.StopTimer()
			after, err := broker.Varz(nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N*(nodes-1))/b.Elapsed().Seconds(), "received/s")
			b.ReportMetric(float64(after.InBytes-before.InBytes)/float64(b.N), "B-in/op")
			b.ReportMetric(float64(after.OutBytes-before.OutBytes)/float64(b.N), "B-out/op")
		})
	}
}
