package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
)

// site is a server with its node, and its clients.
type site struct {
	testing.TB
	place // without its fake server
	url   string

	mu     sync.Mutex
	seen   map[string]int // messages that the broker has brought, by subject
	held   [][]byte       // those that are late
	random *rand.Rand     // of the way from the broker
	away   *way

	witness *guest   // is in all topics
	guests  []*guest // come and go
	said    map[string]int
}

func newSite(t testing.TB, broker, name string, seed uint64) *site {
	t.Helper()
	s := &site{TB: t, random: rand.New(rand.NewPCG(seed, uint64(name[0]))), seen: map[string]int{}, said: map[string]int{}, away: newWay(t, broker)}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	var err error
	s.Node, err = Join(t.Context(), Options{URL: s.away.url(), Name: name, pace: brisk, Log: quiet, Lost: func(l Loss) {
		s.place.mu.Lock()
		defer s.place.mu.Unlock()
		s.losses = append(s.losses, l)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Leave)
	srv, err := server.Listen([]string{"127.0.0.1:0"}, server.Handler{Message: s.message}, server.Options{TopicChanged: s.TopicChanged, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	s.Bind(srv)
	testkit.Run(t, context.Background(), srv)
	s.url = "ws://" + srv.Addrs()[0].String()
	return s
}

// message does what a client asks for: "+topic" and "-topic", which are answered, and
// "topic text".
func (s *site) message(c server.Conn, op frame.Op, data []byte) {
	text := string(data)
	var err error
	switch topic, _, _ := strings.Cut(text, " "); text[0] {
	case '+':
		err = s.Subscribe(c, text[1:], func(confirmed bool) { _ = c.Send(op, fmt.Append(nil, text, " ", confirmed)) })
	case '-':
		err = c.Unsubscribe(text[1:])
		_ = c.Send(op, data)
	default:
		err = s.PublishFrom(c, topic, op, data)
	}
	if err != nil {
		s.Errorf("%q: %v", text, err)
	}
}

// meddle loses, doubles and delays what the broker brings.
func (s *site) meddle(subject string, message []byte) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !strings.HasPrefix(subject, s.subjects.topic) && !strings.HasPrefix(subject, strings.TrimSuffix(s.subjects.shard[0], "0")) {
		return [][]byte{message}
	}
	if kind(message[bytes.IndexByte(message, '\n')+1]) == kindMessage {
		s.seen[subject]++
	}
	switch all := append([][]byte{message}, s.held...); s.random.IntN(10) {
	case 0:
		return nil
	case 1:
		return [][]byte{message, message}
	case 2:
		s.held = append(s.held, message)
		return nil
	case 3:
		s.held = nil
		return all
	}
	return [][]byte{message}
}

func (s *site) brought(topic string) int {
	subject, _ := s.subjects.of(topic)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[subject]
}

// guest is a client.
type guest struct {
	*websocket.Conn
	site   *site
	topics map[string]bool
	ended  chan struct{}

	mu  sync.Mutex
	got []string
}

func (s *site) invite(topics ...string) *guest {
	s.Helper()
	c, _, err := websocket.Dial(s.Context(), s.url, nil)
	if err != nil {
		s.Fatal(err)
	}
	g := &guest{Conn: c, site: s, topics: map[string]bool{}, ended: make(chan struct{})}
	s.Cleanup(g.leave)
	go func() {
		defer close(g.ended)
		for {
			_, text, err := c.Read(context.Background())
			if err != nil {
				return
			}
			g.mu.Lock()
			g.got = append(g.got, string(text))
			g.mu.Unlock()
		}
	}()
	for _, topic := range topics {
		g.enter(topic)
	}
	return g
}

// leave ends the connection in the middle of whatever comes.
func (g *guest) leave() {
	_ = g.CloseNow()
	<-g.ended
}

func (g *guest) says(text string) {
	g.site.Helper()
	if err := g.Write(context.Background(), websocket.MessageText, []byte(text)); err != nil {
		g.site.Fatal(err)
	}
}

func (g *guest) enter(topic string) {
	g.site.Helper()
	g.topics[topic] = true
	g.says("+" + topic)
	g.hears("+" + topic + " true")
}

func (g *guest) exit(topic string) {
	g.site.Helper()
	delete(g.topics, topic)
	g.says("-" + topic)
	g.hears("-" + topic)
}

// hears waits for an answer, and takes it away.
func (g *guest) hears(answer string) {
	g.site.Helper()
	testkit.Eventually(g.site, answer, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		i := slices.Index(g.got, answer)
		if i >= 0 {
			g.got = slices.Delete(g.got, i, i+1)
		}
		return i >= 0
	})
}

// in is what was heard in a topic.
func (g *guest) in(topic string) (texts []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, text := range g.got {
		if strings.HasPrefix(text, topic+" ") {
			texts = append(texts, text)
		}
	}
	return texts
}

// from is what a site has published of some texts.
func from(site *site, texts []string) (own []string) {
	for _, text := range texts {
		if strings.HasSuffix(text, " "+site.options.Name) {
			own = append(own, text)
		}
	}
	return own
}

// isSection reports whether a list is a part of another one, without gaps.
func isSection(part, whole []string) bool {
	if len(part) == 0 {
		return true
	}
	i := slices.Index(whole, part[0])
	return i >= 0 && len(part) <= len(whole)-i && slices.Equal(part, whole[i:i+len(part)])
}

// Clients of two servers come, go, subscribe, unsubscribe and publish, while the ways from the
// broker to both nodes lose, double and delay. The model: a site's witness, who is in each topic, hears all
// that its own site publishes; of what the other one does it hears each message once and in
// order, or the node says that it is lost. All others hear a section of that without gaps.
func TestTwoServersAgainstAModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			broker := newBroker(t, 0, nil).Addr().String()
			a, b := newSite(t, broker, "a", seed), newSite(t, broker, "b", seed)
			sites := []*site{a, b}
			meet(t, &a.place, &b.place)
			random := rand.New(rand.NewPCG(seed, 4))
			topics := []string{"x", "y", "z", "user:1"}
			for _, s := range sites {
				s.witness = s.invite()
				for range 4 {
					s.guests = append(s.guests, s.invite())
				}
			}
			number := 0
			for range 5 {
				for _, s := range sites {
					s.rejoin(topics)
					for _, g := range s.guests {
						g.forget()
						s.wander(g, topics, random)
					}
				}
				for _, s := range sites {
					s.away.setMeddle(s.meddle)
				}
				for range 200 {
					s := sites[random.IntN(2)]
					i, topic := random.IntN(len(s.guests)), topics[random.IntN(len(topics))]
					number++
					s.said[topic]++
					s.witness.says(fmt.Sprint(topic, " ", number, " ", s.options.Name))
					if random.IntN(20) == 0 {
						s.guests[i] = s.replace(s.guests[i], topics, random)
					}
				}
				for i, s := range sites {
					s.settle(sites[1-i], topics)
				}
				for _, s := range sites {
					s.clear(topics, random)
				}
			}
			for _, s := range sites {
				if stats := s.Stats(); stats.Lost == 0 || stats.Stale == 0 || stats.Unsure != 0 || stats.Malformed != 0 {
					t.Errorf("%+v", stats)
				}
			}
		})
	}
}

// rejoin has the witness in each topic, and nothing on record.
func (s *site) rejoin(topics []string) {
	for _, topic := range topics {
		if !s.witness.topics[topic] {
			s.witness.enter(topic)
		}
	}
	s.witness.forget()
	s.forget()
	clear(s.said)
}

// forget takes away what was heard.
func (g *guest) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.got = nil
}

// wander lets a guest enter or exit a topic.
func (s *site) wander(g *guest, topics []string, random *rand.Rand) {
	topic := topics[random.IntN(len(topics))]
	if g.topics[topic] {
		g.exit(topic)
	} else {
		g.enter(topic)
	}
}

// replace lets another guest come into the place of one who leaves, and perhaps enter a topic.
// What the one has heard is a section already.
func (s *site) replace(g *guest, topics []string, random *rand.Rand) *guest {
	g.leave()
	s.compare(g, topics)
	g = s.invite()
	if random.IntN(2) == 0 {
		s.wander(g, topics, random)
	}
	return g
}

// compare checks that a guest has heard a section of what the witness has heard or will hear.
func (s *site) compare(g *guest, topics []string) {
	s.Helper()
	for _, topic := range topics {
		heard := g.in(topic)
		testkit.Eventually(s, fmt.Sprintf("%q is a section of what the witness hears in %s", heard, topic), func() bool { return isSection(heard, s.witness.in(topic)) })
	}
}

// settle waits until what both have published has come or is said to be lost.
func (s *site) settle(other *site, topics []string) {
	s.Helper()
	for _, topic := range topics {
		testkit.Eventually(s, "the witness hears all that is published here", func() bool { return len(from(s, s.witness.in(topic))) == s.said[topic] })
		testkit.Eventually(s, "all of the other's have come by", func() bool { return s.brought(topic) >= other.said[topic] })
	}
	s.away.setMeddle(nil)
	s.mu.Lock()
	clear(s.seen)
	s.mu.Unlock()
	other.queue.setAway(false) // as if its broker was back: tails that were lost are told again
	for _, topic := range topics {
		there := func() int { return len(from(other, s.witness.in(topic))) }
		lost := func() int { return int(s.lost(topic)) }
		testkit.Eventually(s, topic+": all are there or lost", func() bool { return there()+lost() >= other.said[topic] })
		if n := there() + lost(); n != other.said[topic] {
			s.Errorf("%s: %d of %d are there, and %d lost", topic, there(), other.said[topic], lost())
		}
		last := 0
		for _, text := range from(other, s.witness.in(topic)) {
			var number int
			if _, err := fmt.Sscanf(text, topic+" %d", &number); err != nil || number <= last {
				s.Errorf("%s: %q came behind %d", topic, text, last)
			}
			last = number
		}
	}
	for _, g := range s.guests {
		s.compare(g, topics)
	}
}

// clear empties some topics of this site, and waits until it follows them no more.
func (s *site) clear(topics []string, random *rand.Rand) {
	topics = slices.DeleteFunc(slices.Clone(topics), func(string) bool { return random.IntN(3) > 0 })
	for _, topic := range topics {
		for _, g := range append([]*guest{s.witness}, s.guests...) {
			if g.topics[topic] {
				g.exit(topic)
			}
		}
	}
	for _, topic := range topics {
		testkit.Eventually(s, "the topic is left", func() bool { return !s.follows(topic) })
	}
}
