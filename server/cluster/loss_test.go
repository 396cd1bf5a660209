package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
)

// accounted waits until each of n messages to a topic is received or said to be lost.
func accounted(t testing.TB, p *place, m *fakeConn, topic string, n int) (got int) {
	t.Helper()
	count := func() int {
		got = 0
		for _, text := range m.received() {
			if strings.HasPrefix(text, topic+" ") {
				got++
			}
		}
		return got
	}
	testkit.Eventually(t, fmt.Sprintf("%d messages to %s are there or lost", n, topic), func() bool { return count()+int(p.lost(topic)) >= n })
	if lost := int(p.lost(topic)); count()+lost != n {
		t.Errorf("%s: %d of %d messages are there, and %d are lost", topic, got, n, lost)
	}
	return got
}

// ascending checks that the messages to a topic, which are numbers, came in order and once.
func ascending(t testing.TB, m *fakeConn, topic string) {
	t.Helper()
	last := -1
	for _, text := range m.received() {
		if number, ok := strings.CutPrefix(text, topic+" "); ok {
			var i int
			if _, err := fmt.Sscan(number, &i); err != nil || i <= last {
				t.Fatalf("%s: %q came after %d", topic, number, last)
			}
			last = i
		}
	}
}

// Two nodes publish, subscribe and unsubscribe, while the way from the broker loses, doubles
// and delays. Each message arrives once and in order, or is said to be lost.
func TestWhatIsLostIsSaid(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 2))
			broker := newBroker(t, 0, nil)
			w := newWay(t, broker.Addr().String())
			a, b := join(t, broker.ClientURL(), "a", nil), join(t, w.url(), "b", nil)
			meet(t, a, b)
			var held [][]byte // those that are late
			seen := map[string]int{}
			meddling := rand.New(rand.NewPCG(seed, 3))
			meddle := func(subject string, message []byte) [][]byte {
				if !strings.HasPrefix(subject, b.subjects.topic) && !strings.HasPrefix(subject, strings.TrimSuffix(b.subjects.shard[0], "0")) {
					return [][]byte{message}
				}
				if kind(message[bytes.IndexByte(message, '\n')+1]) == kindMessage {
					seen[subject]++
				}
				switch all := append([][]byte{message}, held...); meddling.IntN(10) {
				case 0:
					return nil
				case 1:
					return [][]byte{message, message}
				case 2:
					held = append(held, message)
					return nil
				case 3:
					held = nil
					return all
				}
				return [][]byte{message}
			}
			topics := []string{"x", "y", "z", "user:1"}
			member := map[string]*fakeConn{}
			sent := map[string]int{}
			for range 10 {
				for _, topic := range topics {
					if member[topic] == nil && random.IntN(2) == 0 {
						// Otherwise it would be told, too, of what was lost before.
						testkit.Eventually(t, "the topic is left", func() bool { return !b.follows(topic) })
						member[topic] = b.subscribe(t, topic) // certain, and so everything counts from here on
						member[topic].take()
						sent[topic] = 0
						b.forget()
					}
				}
				w.setMeddle(meddle)
				for i := range 200 {
					topic := topics[random.IntN(len(topics))]
					a.publish(t, topic, fmt.Sprint(i))
					sent[topic]++
				}
				for topic := range member {
					subject, _ := b.subjects.of(topic)
					testkit.Eventually(t, "all have come by", func() bool {
						w.mu.Lock()
						defer w.mu.Unlock()
						return seen[subject] >= sent[topic]
					})
				}
				w.mu.Lock()
				w.meddle = nil
				clear(seen)
				w.mu.Unlock()
				a.queue.setAway(false) // as if its broker was back: tails that were lost are told again
				for topic, m := range member {
					accounted(t, b, m, topic, sent[topic])
					ascending(t, m, topic)
					m.take()
					sent[topic] = 0
				}
				b.forget()
				for topic, m := range member {
					if random.IntN(4) == 0 {
						m.unsubscribe(topic)
						delete(member, topic)
					}
				}
			}
			if s := b.Stats(); s.Lost == 0 || s.Stale == 0 || s.Unsure != 0 || s.Malformed != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func (p *place) follows(topic string) bool {
	subject, _ := p.subjects.of(topic)
	p.Node.mu.Lock()
	defer p.Node.mu.Unlock()
	return p.interest.follows[subject] != nil
}

// forget forgets what was lost.
func (p *place) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.losses = nil
}

// A receiver that loses its broker is told how much it has missed, when it is back.
func TestAReceiverThatWasAway(t *testing.T) {
	t.Parallel()
	broker := newBroker(t, 0, nil)
	w := newWay(t, broker.Addr().String())
	a, b := join(t, broker.ClientURL(), "a", mortal), join(t, w.url(), "b", mortal)
	meet(t, a, b)
	m := b.subscribe(t, "x", "silent", "user:7")
	a.publish(t, "x", "0")
	m.has(t, "x 0")
	w.silence(true)
	testkit.Eventually(t, "a is alone", func() bool { return len(a.Stats().Nodes) == 0 })
	for i := range 10 {
		a.publish(t, "x", fmt.Sprint(1+i))
		a.publish(t, "silent", fmt.Sprint(i))
	}
	w.cut()
	meet(t, a, b)
	if got := accounted(t, b, m, "x", 11); got != 1 {
		t.Errorf("%d messages have arrived", got)
	}
	accounted(t, b, m, "silent", 10)
	if b.lost("user:7") != 0 {
		t.Errorf("%+v", b.losses)
	}
	a.publish(t, "x", "11")
	m.has(t, "x 0", "x 11")
}

// A publisher that loses its broker serves its own members, keeps what fits into its queue,
// and the others find what did not.
func TestAPublisherThatWasAway(t *testing.T) {
	t.Parallel()
	broker := newBroker(t, 0, nil)
	w := newWay(t, broker.Addr().String())
	a := join(t, w.url(), "a", func(o *Options) { o.MaxMessage, o.Queue = 1000, 2000 })
	b := join(t, broker.ClientURL(), "b", nil)
	meet(t, a, b)
	own, other := a.subscribe(t, "x"), b.subscribe(t, "x")
	a.publish(t, "x", "0")
	other.has(t, "x 0")
	w.cut()
	_ = w.listener.Close()
	testkit.Eventually(t, "the broker is away", func() bool { return errors.Is(a.Ready(), ErrAway) })
	n, alone := 1, 0
	for ; alone < 10; n++ {
		if err := a.Publish("x", frame.Text, fmt.Append(nil, n)); errors.Is(err, ErrAway) {
			alone++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if got := accounted(t, a, own, "x", n); got != n {
		t.Errorf("%d of %d are there", got, n)
	}
	if s := a.Stats(); s.Unsent != 10 || s.Connected || s.Queued != n-1-10 {
		t.Errorf("%+v", s)
	}
	confirmed := make(chan bool, 1)
	if err := a.Node.subscribe(own, "y", func(c bool) { confirmed <- c }); err != nil || <-confirmed {
		t.Error("a subscription is confirmed without a broker")
	}
	w.again(t)
	meet(t, a, b)
	if got := accounted(t, b, other, "x", n); got != n-10 {
		t.Errorf("%d of %d have arrived", got, n)
	}
	b.publish(t, "y", "1")
	testkit.Eventually(t, "the other topic is followed", func() bool { return slices.Contains(own.received(), "y 1") })
}

// Where the broker is slower than what is published, the publisher hears of it, and nothing
// that was accepted is lost.
func TestASlowLink(t *testing.T) {
	t.Parallel()
	broker := newBroker(t, 0, nil)
	w := newWay(t, broker.Addr().String())
	a := join(t, w.url(), "a", func(o *Options) { o.MaxMessage, o.Queue = 10_000, 20_000 })
	b := join(t, broker.ClientURL(), "b", nil)
	meet(t, a, b)
	own, other := a.subscribe(t, "x"), b.subscribe(t, "x")
	w.silence(true)
	n := 0
	for text := strings.Repeat("x", 10_000); ; n++ {
		if err := a.Publish("x", frame.Text, fmt.Append(nil, n, " ", text)); err == server.ErrBackpressure {
			break
		} else if err == ErrTooLarge {
			text = text[:9_000]
			n--
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if got := len(own.received()); got != n {
		t.Errorf("%d of %d messages are there", got, n)
	}
	if s := a.Stats(); s.Refused != 1 || s.Queued == 0 {
		t.Errorf("%+v", s)
	}
	w.silence(false)
	if got := accounted(t, b, other, "x", n); got != n {
		t.Errorf("%d of %d have arrived", got, n)
	}
	testkit.Eventually(t, "the queue is empty", func() bool { return a.Stats().Queued == 0 })
	a.queue.mu.Lock()
	defer a.queue.mu.Unlock()
	if a.queue.bytes != 0 {
		t.Errorf("%d bytes are left", a.queue.bytes)
	}
}

// Where the server of a node does not keep up, the broker waits; for long, messages are lost
// and said to be.
func TestAServerThatDoesNotKeepUp(t *testing.T) {
	t.Parallel()
	url := newBroker(t, 0, nil).ClientURL()
	a, b := join(t, url, "a", nil), join(t, url, "b", nil)
	meet(t, a, b)
	m := b.subscribe(t, "x")
	b.server.setFull(true)
	a.publish(t, "x", "0")
	a.publish(t, "x", "1")
	testkit.Eventually(t, "both are lost", func() bool { return b.lost("x") == 2 && b.Stats().Undelivered == 2 })
	b.server.setFull(false)
	a.publish(t, "x", "2")
	m.has(t, "x 2")
	b.server.setFull(true)
	a.publish(t, "x", "3")
	testkit.Eventually(t, "it is tried", func() bool {
		b.server.mu.Lock()
		defer b.server.mu.Unlock()
		return b.server.tried > deliverTries+4
	})
	b.server.setFull(false)
	m.has(t, "x 2", "x 3")
}

// A broker that restarts is found again by all, and what was lost with it is known.
func TestABrokerThatRestarts(t *testing.T) {
	t.Parallel()
	broker := newBroker(t, 0, nil)
	url, port := broker.ClientURL(), broker.Addr().(*net.TCPAddr).Port
	var places []*place
	var members []*fakeConn
	for _, name := range []string{"a", "b", "c"} {
		places = append(places, join(t, url, name, nil))
	}
	meet(t, places...)
	for _, p := range places {
		members = append(members, p.subscribe(t, "x"))
	}
	n := 0
	publish := func() {
		if err := places[0].Publish("x", frame.Text, fmt.Append(nil, n)); err != nil {
			t.Fatal(err)
		}
		n++
	}
	publish()
	broker.Shutdown()
	broker.WaitForShutdown()
	for _, p := range places {
		testkit.Eventually(t, "the broker is away", func() bool { publish(); return p.Ready() != nil })
	}
	newBroker(t, port, nil)
	for _, p := range places {
		testkit.Eventually(t, "the broker is there", func() bool { return p.Ready() == nil })
	}
	meet(t, places...)
	publish()
	for i, p := range places {
		accounted(t, p, members[i], "x", n)
		ascending(t, members[i], "x")
		if s := p.Stats(); s.Reconnects == 0 || !s.Connected || p.Ready() != nil {
			t.Errorf("%+v %v", s, p.Ready())
		}
	}
}
