package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	broker "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-134acfd0/lull/internal/natsd"
	"github.com/seed-134acfd0/lull/internal/testkit"
)

// newStore starts a NATS server with JetStream.
func newStore(t testing.TB, port int, dir string) *broker.Server {
	t.Helper()
	return newBroker(t, port, func(o *broker.Options) { o.JetStream, o.StoreDir = true, dir })
}

// storing keeps the last thirty messages of rooms and of users, in a stream, too.
func storing(o *Options) {
	keeping(o)
	o.History = func(topic string) Limits {
		if strings.HasPrefix(topic, "room/") || strings.HasPrefix(topic, "user:") {
			return Limits{Messages: 30, Age: time.Minute}
		}
		return Limits{}
	}
	o.Stream = &Stream{Messages: 30, Age: time.Minute}
}

// streams is JetStream as somebody else sees it.
func streams(t *testing.T, b *broker.Server) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(outsider(t, b.ClientURL()))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// stored is how many messages of a topic are in a stream.
func stored(t testing.TB, js jetstream.JetStream, topic string) uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), "lull_lull_1")
	if err != nil {
		t.Fatal(err)
	}
	subject := newSubjects("lull", nil).kept + token(topic)
	i, err := s.Info(t.Context(), jetstream.WithSubjectFilter(subject))
	if err != nil {
		t.Fatal(err)
	}
	return i.State.Subjects[subject]
}

// older waits until what happens is later than what has happened, by all clocks.
func older(t testing.TB) {
	t.Helper()
	since := time.Now()
	testkit.Eventually(t, "all clocks have gone on", func() bool { return time.Since(since) > 2*slack })
}

// apart tells even numbers from odd ones.
func apart(numbers string) (even, odd string) {
	var texts [2][]string
	for _, n := range strings.Fields(numbers) {
		i := (n[len(n)-1] - '0') % 2
		texts[i] = append(texts[i], n)
	}
	return strings.Join(texts[0], " "), strings.Join(texts[1], " ")
}

// All nodes are restarted. A client that comes back to whichever gets what it has missed, once.
func TestMessagesSurviveARestartOfAllNodes(t *testing.T) {
	t.Parallel()
	b := newStore(t, 0, t.TempDir())
	js := streams(t, b)
	topics := []string{"room/x", "room/a.b *.> % Grüße", "user:7"}
	one, two := join(t, b.ClientURL(), "one", storing), join(t, b.ClientURL(), "two", storing)
	meet(t, one, two)
	older(t)
	members := map[string]*fakeConn{}
	for _, topic := range topics {
		members[topic], _, _ = one.resumes(t, topic, "")
		two.subscribe(t, topic)
		for i := range 4 {
			[]*place{one, two}[i%2].publish(t, topic, fmt.Sprint(i))
		}
	}
	one.publish(t, "plain", "not for the stream")
	positions := map[string]string{}
	for topic, m := range members {
		testkit.Eventually(t, "all has come", func() bool { return len(m.received()) == 4 })
		positions[topic] = one.at(t, topic)
		m.unsubscribe(topic)
		for i := 4; i < 8; i++ {
			[]*place{one, two}[i%2].publish(t, topic, fmt.Sprint(i))
		}
	}
	one.Leave()
	two.Leave()
	for _, topic := range topics {
		testkit.Eventually(t, "all is stored", func() bool { return stored(t, js, topic) == 8 })
	}
	if n := stored(t, js, "plain"); n != 0 {
		t.Errorf("%d messages of a topic without a history are stored", n)
	}
	for range 2 { // and once more
		one, two = join(t, b.ClientURL(), "one", storing), join(t, b.ClientURL(), "two", storing)
		meet(t, one, two)
		for _, topic := range topics {
			for _, p := range []*place{one, two} {
				c, missed, r := p.resumes(t, topic, positions[topic])
				even, odd := apart(missed)
				if even != "4 6" || odd != "5 7" || r.Missing || r.Ahead {
					t.Errorf("%s at %s: %q %+v", topic, p.options.Name, missed, r)
				}
				p.publish(t, topic, "live")
				c.has(t, topic+" live")
				c.unsubscribe(topic)
				positions[topic] = p.at(t, topic)
				for i := 4; i < 8; i++ {
					p.publish(t, topic, fmt.Sprint(i))
				}
			}
		}
		if s := one.Stats(); s.Restored == 0 || s.Unread+s.Malformed != 0 || s.StreamUnsure {
			t.Errorf("%+v", s)
		}
		one.Leave()
		two.Leave()
	}
}

// What the stream has no room for is said to be missing, topic by topic, and what is in several
// answers is put together.
func TestTheStreamIsBounded(t *testing.T) {
	t.Parallel()
	b := newStore(t, 0, t.TempDir())
	big := func(o *Options) {
		storing(o)
		o.History = func(string) Limits { return Limits{Messages: 700, Age: time.Minute} }
		o.Stream.Messages = 700
	}
	a := join(t, b.ClientURL(), "a", big)
	older(t)
	positions := map[string]string{}
	for topic, n := range map[string]int{"few": 2, "many": 600, "more": 800} {
		c, _, _ := a.resumes(t, topic, "")
		positions[topic] = a.at(t, topic)
		c.unsubscribe(topic)
		for i := range n {
			a.publish(t, topic, fmt.Sprintf("%d-%0*d", i, i, 0)) // some 200 KiB
		}
	}
	a.Leave()
	a = join(t, b.ClientURL(), "a", big)
	for topic, want := range map[string]struct {
		first, last string
		missing     bool
	}{"few": {"0-0", "1-0", false}, "many": {"0-0", "599-", false}, "more": {"100-", "799-", true}} {
		_, missed, r := a.resumes(t, topic, positions[topic])
		texts := strings.Fields(missed)
		if len(texts) == 0 || !strings.HasPrefix(texts[0], want.first) || !strings.HasPrefix(texts[len(texts)-1], want.last) || r.Missing != want.missing || r.Ahead {
			t.Errorf("%s: %d messages, %.10q…, missing %t, ahead %t", topic, len(texts), missed, r.Missing, r.Ahead)
		}
	}
}

// A node that has the topic is asked first.
func TestOtherNodesArePreferredToTheStream(t *testing.T) {
	t.Parallel()
	b := newStore(t, 0, t.TempDir())
	stays, leaves := join(t, b.ClientURL(), "stays", storing), join(t, b.ClientURL(), "leaves", storing)
	meet(t, stays, leaves)
	const topic = "room/x"
	m := stays.subscribe(t, topic)
	c, _, _ := leaves.resumes(t, topic, "")
	older(t)
	stays.publish(t, topic, "0")
	c.has(t, topic+" 0")
	position := leaves.at(t, topic)
	leaves.Leave()
	for i := range 5 {
		stays.publish(t, topic, fmt.Sprint(1+i))
	}
	comes := join(t, b.ClientURL(), "comes", storing)
	meet(t, stays, comes)
	if _, missed, r := comes.resumes(t, topic, position); missed != "1 2 3 4 5" || r.Missing || r.Ahead {
		t.Errorf("%q %+v", missed, r)
	}
	if s := comes.Stats(); s.Restored+s.Unread != 0 {
		t.Errorf("%+v", s)
	}
	m.has(t, topic+" 0", topic+" 1", topic+" 2", topic+" 3", topic+" 4", topic+" 5")
}

// While the stream is gone messages are delivered and not stored. That is found out, and who was
// away then is told that something may be missing.
func TestAStreamThatIsGone(t *testing.T) {
	t.Parallel()
	b := newStore(t, 0, t.TempDir())
	js := streams(t, b)
	a := join(t, b.ClientURL(), "a", storing)
	const topic = "room/x"
	c, _, _ := a.resumes(t, topic, "")
	older(t)
	a.publish(t, topic, "0")
	before := a.at(t, topic)
	if err := js.DeleteStream(t.Context(), "lull_lull_1"); err != nil {
		t.Fatal(err)
	}
	sent := 1
	testkit.Eventually(t, "it is noticed, and there is a stream again", func() bool {
		a.publish(t, topic, fmt.Sprint(sent))
		sent++
		return a.Stats().StreamMarks > 0
	})
	testkit.Eventually(t, "all have it", func() bool { return len(c.received()) == sent })
	older(t)
	after := a.at(t, topic)
	a.publish(t, topic, "last")
	a.Leave()
	a = join(t, b.ClientURL(), "a", storing)
	if _, missed, r := a.resumes(t, topic, after); missed != "last" || r.Missing || r.Ahead {
		t.Errorf("%q %+v", missed, r)
	}
	if _, missed, r := a.resumes(t, topic, before); !strings.HasSuffix(missed, "last") || !r.Missing {
		t.Errorf("%q %+v", missed, r)
	}
}

// A broker that was away marks the stream; and so does a node that knows one without a stream.
func TestWhatMayNotBeStoredIsMarked(t *testing.T) {
	t.Parallel()
	b := newStore(t, 0, t.TempDir())
	w := newWay(t, b.Addr().String())
	a := join(t, w.url(), "a", func(o *Options) { storing(o); mortal(o) })
	w.cut()
	testkit.Eventually(t, "the stream is marked", func() bool { return a.Stats().StreamMarks == 1 && !a.Stats().StreamUnsure })
	plain := join(t, b.ClientURL(), "plain", keeping)
	meet(t, a, plain)
	testkit.Eventually(t, "the stream is marked as long as not all use it", func() bool { return a.Stats().StreamMarks > 3 })
	plain.Leave()
	meet(t, a)
	testkit.Eventually(t, "all use it", func() bool { return !a.Stats().StreamUnsure })
}

// Broker and nodes are restarted. What the broker has stored is there.
func TestMessagesSurviveARestartOfTheBroker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := newStore(t, 0, dir)
	a := join(t, b.ClientURL(), "a", storing)
	const topic = "room/x"
	c, _, _ := a.resumes(t, topic, "")
	older(t)
	a.publish(t, topic, "0")
	position := a.at(t, topic)
	c.unsubscribe(topic)
	a.publish(t, topic, "1")
	a.Leave()
	natsd.Stop(b)
	a = join(t, newStore(t, 0, dir).ClientURL(), "a", storing)
	if _, missed, r := a.resumes(t, topic, position); missed != "1" || r.Missing || r.Ahead {
		t.Errorf("%q %+v", missed, r)
	}
}

// Who cannot have a stream is told why, and does not join.
func TestWhoCannotHaveAStreamIsToldWhy(t *testing.T) {
	t.Parallel()
	b := newStore(t, 0, t.TempDir())
	js := streams(t, b)
	foreign := jetstream.StreamConfig{Name: "lull_foreign_1", Subjects: []string{"other"}}
	taken := jetstream.StreamConfig{Name: "taken", Subjects: []string{"lull.taken.>"}}
	for _, s := range []jetstream.StreamConfig{foreign, taken} {
		if _, err := js.CreateStream(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	denied := newBroker(t, 0, func(o *broker.Options) {
		o.JetStream, o.StoreDir = true, t.TempDir()
		own := &broker.SubjectPermission{Allow: []string{"lull.lull.>"}}
		o.Users = []*broker.User{{Username: "lull", Password: "x", Permissions: &broker.Permissions{Publish: own, Subscribe: own}}}
	}).ClientURL()
	for name, c := range map[string]struct {
		url    string
		change func(*Options)
		want   string
	}{
		"no JetStream":     {newBroker(t, 0, nil).ClientURL(), nil, "jetstream not enabled"},
		"no right":         {strings.Replace(denied, "//", "//lull:x@", 1), nil, "ermissions"},
		"another stream":   {b.ClientURL(), func(o *Options) { o.Cluster = "foreign" }, "the stream lull_foreign_1 is there, and is another one"},
		"taken subjects":   {b.ClientURL(), func(o *Options) { o.Cluster = "taken" }, "subjects overlap"},
		"no room":          {b.ClientURL(), func(o *Options) { o.Stream.Bytes = 1 << 60 }, "storage"},
		"nothing is kept":  {b.ClientURL(), func(o *Options) { o.History = nil }, "Options.Stream is for what Options.History keeps"},
		"no message":       {b.ClientURL(), func(o *Options) { o.Stream.Messages = 0 }, "at least one message"},
		"a negative limit": {b.ClientURL(), func(o *Options) { o.Stream.Bytes = -1 }, "Options.Stream is"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tryJoin(t, c.url, "a", func(o *Options) {
				storing(o)
				if c.change != nil {
					c.change(o)
				}
			})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.HasPrefix(name, "no J") && !errors.Is(err, ErrStream) {
				t.Errorf("%v, not %s", err, c.want)
			}
		})
	}
}

// A user needs these rights, and no others.
func TestTheRightsThatAStreamNeeds(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 0, func(o *broker.Options) {
		o.JetStream, o.StoreDir = true, t.TempDir()
		o.Users = []*broker.User{{Username: "lull", Password: "x", Permissions: &broker.Permissions{
			Publish:   &broker.SubjectPermission{Allow: []string{"lull.lull.>", "$JS.API.*.*.lull_lull_1"}},
			Subscribe: &broker.SubjectPermission{Allow: []string{"lull.lull.>"}},
		}}}
	})
	url := strings.Replace(b.ClientURL(), "//", "//lull:x@", 1)
	for range 2 {
		a := join(t, url, "a", storing)
		a.publish(t, "room/x", "hello")
		a.store.doubt()
		testkit.Eventually(t, "the stream is marked", func() bool { return a.Stats().StreamMarks > 0 })
		a.Leave()
	}
	a := join(t, url, "a", storing)
	if _, missed, r := a.resumes(t, "room/x", Beginning); missed != "hello hello" || a.Stats().Restored != 2 || !r.Missing {
		t.Errorf("%q %+v", missed, a.Stats())
	}
}

// A stream that is there gets the limits of the node that comes, and keeps what else was chosen
// for it.
func TestAStreamGetsOtherLimits(t *testing.T) {
	t.Parallel()
	b := newStore(t, 0, t.TempDir())
	js := streams(t, b)
	limits := func(messages int, age time.Duration) {
		t.Helper()
		a := join(t, b.ClientURL(), "a", func(o *Options) {
			storing(o)
			o.Stream = &Stream{Messages: messages, Age: age, Bytes: 1 << 20}
		})
		a.Leave()
		s, err := js.Stream(t.Context(), "lull_lull_1")
		if err != nil {
			t.Fatal(err)
		}
		if c := s.CachedInfo().Config; c.MaxMsgsPerSubject != int64(messages) || c.MaxAge != age || c.MaxBytes != 1<<20 || c.Description == "" && messages < 10 {
			t.Errorf("%+v", c)
		}
	}
	limits(10, time.Minute)
	s, err := js.Stream(t.Context(), "lull_lull_1")
	if err != nil {
		t.Fatal(err)
	}
	c := s.CachedInfo().Config
	c.Description = "ours"
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	limits(5, 10*time.Second)
	limits(5, 10*time.Second)
	limits(7, time.Hour)
}

// Since when a stream has everything of a topic depends on what may have been evicted from it.
func TestSinceWhenAStreamIsTrusted(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli
	for name, c := range map[string]struct {
		config  jetstream.StreamConfig
		bytes   uint64
		marked  int64
		count   int64
		trusted int64
	}{
		"since it was made":                     {jetstream.StreamConfig{}, 1000, 0, 99, 1000},
		"since it was marked":                   {jetstream.StreamConfig{}, 1000, 2000, 99, 2000},
		"for as long as messages stay":          {jetstream.StreamConfig{MaxAge: 5 * time.Second}, 0, 0, 0, 5000},
		"while it is hardly full":               {jetstream.StreamConfig{MaxBytes: 2000}, 1000, 0, 0, 1000},
		"since its first message when it is":    {jetstream.StreamConfig{MaxBytes: 2000}, 1001, 0, 0, 3000},
		"while the topic has few":               {jetstream.StreamConfig{MaxMsgsPerSubject: 10}, 0, 0, 9, 1000},
		"since the topic's first when it is":    {jetstream.StreamConfig{MaxMsgsPerSubject: 10}, 0, 0, 10, 4000},
		"since the latest of all these moments": {jetstream.StreamConfig{MaxMsgsPerSubject: 10, MaxAge: 5 * time.Second}, 0, 6000, 10, 6000},
	} {
		i := &jetstream.StreamInfo{Config: c.config, Created: at(1000), State: jetstream.StreamState{Bytes: c.bytes, FirstTime: at(3000)}}
		if got := vouched(i, c.marked, &reading{count: c.count, first: at(4000)}, 10_000); got != c.trusted {
			t.Errorf("%s: it is trusted since %d, not %d", name, got, c.trusted)
		}
	}
}

// A node that is alone keeps its messages in a directory, which no other one uses meanwhile.
func TestMessagesOfANodeThatIsAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	alone := func() (a *place, leave func()) {
		t.Helper()
		b, err := Embed(BrokerOptions{Store: dir})
		if err != nil {
			t.Fatal(err)
		}
		a = join(t, "", "a", func(o *Options) { storing(o); o.Broker = b })
		return a, func() { a.Leave(); b.Close() }
	}
	a, leave := alone()
	older(t)
	const topic = "room/x"
	c, _, _ := a.resumes(t, topic, "")
	position := a.at(t, topic)
	c.unsubscribe(topic)
	a.publish(t, topic, "1")
	for want, o := range map[string]BrokerOptions{
		"is in use by another server": {Store: dir},
		"not a directory":             {Store: "/dev/null/x"},
		"has no store":                {Store: t.TempDir(), Listen: "127.0.0.1:0"},
	} {
		if _, err := Embed(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %s", err, want)
		}
	}
	leave()
	a, leave = alone()
	defer leave()
	if _, missed, r := a.resumes(t, topic, position); missed != "1" || r.Missing || r.Ahead {
		t.Errorf("%q %+v", missed, r)
	}
}
