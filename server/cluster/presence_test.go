package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

// present lets topics have members, and lets nodes die soon.
func present(o *Options) {
	o.Present = func(topic string) bool { return !strings.HasPrefix(topic, "plain") }
	o.Secret = "secret"
	mortal(o)
}

// shows waits until a node has members of a topic, and no others.
func (p *place) shows(t testing.TB, topic string, want ...string) {
	t.Helper()
	slices.Sort(want)
	testkit.Eventually(t, fmt.Sprintf("%s has %q", topic, want), func() bool {
		var got []string
		for _, m := range p.Members(topic) {
			got = append(got, m.ID+"="+string(m.Data))
		}
		slices.Sort(got)
		return slices.Equal(got, want) && p.MemberCount(topic) == len(want)
	})
}

func (p *place) enters(t testing.TB, conn uint64, topic, id, data string) {
	t.Helper()
	if err := p.enter(conn, topic, id, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// replay is what the changes that were told come to.
type replay struct {
	testing.TB
	mu      sync.Mutex
	members map[string]string // by topic and ID
}

func (r *replay) take(c MemberChange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := c.Topic + "/" + c.ID
	if _, there := r.members[key]; there == (c.Kind == MemberCame) {
		r.Errorf("%+v, and it was there before: %v", c, there)
	}
	r.members[key] = string(c.Data)
	if c.Kind == MemberWent {
		delete(r.members, key)
	}
}

// shows waits until the changes have come to these members.
func (r *replay) shows(want map[string]string) {
	r.Helper()
	testkit.Eventually(r, fmt.Sprintf("the changes come to %v", want), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return maps.Equal(r.members, want)
	})
}

// All nodes that follow a topic agree about who is in it.
func TestWhoIsInATopic(t *testing.T) {
	t.Parallel()
	url := newBroker(t, 0, nil).ClientURL()
	changes := &replay{TB: t, members: map[string]string{}}
	a := join(t, url, "a", present)
	b := join(t, url, "b", func(o *Options) { present(o); o.MemberChanged = changes.take })
	c := join(t, url, "c", present)
	meet(t, a, b, c)
	for _, topic := range []string{"x", "user:1"} {
		a.enters(t, 1, topic, "anna", "early")
		b.subscribe(t, topic)
		c.subscribe(t, topic)
		b.shows(t, topic, "anna=early")
		changes.shows(map[string]string{topic + "/anna": "early"})
		c.enters(t, 1, topic, "carl", "")
		b.shows(t, topic, "anna=early", "carl=")
		c.enters(t, 2, topic, "anna", "late") // with a second connection, on another node
		a.exit(1, func(membership) bool { return true })
		b.shows(t, topic, "anna=late", "carl=")
		c.enters(t, 2, topic, "anna", "later")
		b.shows(t, topic, "anna=later", "carl=")
		c.exit(1, func(membership) bool { return true })
		c.exit(2, func(m membership) bool { return m.topic == topic })
		b.shows(t, topic)
		changes.shows(map[string]string{})
	}
	if err := a.enter(1, "x", "", nil); err == nil {
		t.Error("a member has no name")
	}
	if err := a.enter(1, "x", "id", make([]byte, 1025)); err == nil {
		t.Error("a member has too much data")
	}
	if err := a.enter(1, "\n", "id", nil); err == nil {
		t.Error("a topic has no name")
	}
	if n := len(a.crowd.conns); n != 0 {
		t.Errorf("%d connections are kept", n)
	}
	without := join(t, url, "without", nil)
	if err := without.enter(1, "x", "id", nil); err != errPresence {
		t.Error(err)
	}
}

// A node that dies takes its members with it; after a partition all agree again.
func TestMembersAfterAPartition(t *testing.T) {
	t.Parallel()
	broker := newBroker(t, 0, nil)
	w := newWay(t, broker.Addr().String())
	a, b := join(t, broker.ClientURL(), "a", present), join(t, w.url(), "b", present)
	meet(t, a, b)
	a.subscribe(t, "x")
	b.subscribe(t, "x")
	a.enters(t, 1, "x", "anna", "")
	b.enters(t, 1, "x", "ben", "")
	for _, p := range []*place{a, b} {
		p.shows(t, "x", "anna=", "ben=")
	}
	w.silence(true)
	a.shows(t, "x", "anna=")
	b.shows(t, "x", "ben=")
	a.enters(t, 2, "x", "anton", "")
	a.exit(1, func(membership) bool { return true })
	b.enters(t, 2, "x", "berta", "")
	w.cut()
	for _, p := range []*place{a, b} {
		p.shows(t, "x", "anton=", "ben=", "berta=")
	}
	b.Leave()
	a.shows(t, "x", "anton=")
}
