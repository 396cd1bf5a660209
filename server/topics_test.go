package server_test

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// topical subscribes to a topic for "+topic", unsubscribes for "-topic" and publishes for
// "topic:text", and to others alone for "!topic:text". What is refused is answered with the error. The path of a request names
// topics to begin with: /a,b.
var topical = server.Handler{
	Upgrade: func(r *server.Request) error {
		if names := strings.TrimPrefix(r.Target(), "/"); names != "" {
			r.Topics = strings.Split(names, ",")
		}
		return nil
	},
	Message: func(c server.Conn, op frame.Op, data []byte) {
		text := string(data)
		var err error
		switch {
		case text == "":
		case text[0] == '+':
			err = c.Subscribe(text[1:])
		case text[0] == '-':
			err = c.Unsubscribe(text[1:])
		case text[0] == '!':
			topic, _, _ := strings.Cut(text[1:], ":")
			err = c.PublishToOthers(topic, op, data)
		default:
			topic, _, _ := strings.Cut(text, ":")
			err = c.Publish(topic, op, data)
		}
		if err != nil {
			must(c.Send(frame.Text, []byte(err.Error())))
		}
	},
}

// said sends requests that the server has done when it returns.
func (c *client) said(requests ...string) *client {
	for _, r := range requests {
		c.send(frame.Text, r)
	}
	name := fmt.Sprintf("own-%p", c) // a topic of its own comes back behind all of them
	c.send(frame.Text, "+"+name)
	c.send(frame.Text, name+":done")
	c.expect(frame.Text, name+":done")
	c.send(frame.Text, "-"+name)
	return c
}

// What a connection publishes to others reaches all of them and not itself, in the order of
// everything else.
func TestAPublicationToOthersSparesItsPublisher(t *testing.T) {
	const messages = 60
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, topical, o)
		clients := s.openMany(5)
		for _, c := range clients {
			c.said("+room")
		}
		publisher := clients[0]
		var all, own []string
		for i := range messages {
			text := fmt.Sprintf("room:%d", i)
			if i%3 != 0 {
				text = "!" + text
			} else {
				own = append(own, text)
			}
			all = append(all, text)
			publisher.send(frame.Text, text)
		}
		for _, text := range own {
			publisher.expect(frame.Text, text)
		}
		for _, c := range clients[1:] {
			for _, text := range all {
				c.expect(frame.Text, text)
			}
		}
		var spared server.Conn
		for c := range s.SubscribersOf("room") {
			spared = c
		}
		must(s.PublishExcept(spared.ID(), "room", frame.Text, []byte("some")))
		must(s.PublishExcept(0, "room", frame.Text, []byte("all")))
		some := 0
		for _, c := range clients {
			_, text, err := c.next()
			must(err)
			if text == "some" {
				some++
				c.expect(frame.Text, "all")
			}
		}
		if some != len(clients)-1 {
			t.Errorf("%d got what one did not", some)
		}
	})
}

// A publication reaches those who subscribe, and them alone, once and in order.
func TestAPublicationReachesSubscribersOnce(t *testing.T) {
	const each, messages = 10, 30
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, topical, o)
		clients := s.openMany(4 * each)
		member := func(i int, room string) bool {
			return room == "both" || room == "even" && i%2 == 0 || room == "third" && i%3 == 0
		}
		names := []string{"both", "even", "third", "nobody"}
		for i, c := range clients {
			var requests []string
			for _, room := range names {
				if member(i, room) && room != "nobody" {
					requests = append(requests, "+"+room, "+"+room) // twice is once
				}
			}
			c.said(requests...)
		}
		for i := range messages {
			must(s.Publish(names[i%len(names)], frame.Text, []byte(numbered(i, i*20))))
		}
		for i, c := range clients {
			var want []string
			for n := range messages {
				if member(i, names[n%len(names)]) {
					want = append(want, numbered(n, n*20))
				}
			}
			var got []string
			for range want {
				_, payload, err := c.next()
				must(err)
				got = append(got, payload)
			}
			byRoom := func(all []string, room int) (of []string) { // there is no order between topics
				for n := room; n < messages; n += len(names) {
					if slices.Contains(all, numbered(n, n*20)) {
						of = append(of, numbered(n, n*20))
					}
				}
				return of
			}
			for room := range names {
				of := slices.DeleteFunc(slices.Clone(got), func(p string) bool { return !slices.Contains(byRoom(want, room), p) })
				if !slices.Equal(of, byRoom(want, room)) {
					t.Fatalf("%d got %d of %q, want %d in order", i, len(of), names[room], len(byRoom(want, room)))
				}
			}
			c.said("-even") // and nothing more
		}
		if n := s.Subscribers("even"); n != 0 {
			t.Errorf("%d still subscribe", n)
		}
		if n := s.Subscribers("both"); n != len(clients) {
			t.Errorf("%d subscribe, want %d", n, len(clients))
		}
	})
}

// What one peer asks for takes effect in its order: it gets what is published after it
// has subscribed and before it has unsubscribed, and its own answers in between.
func TestSubscriptionsAndMessagesKeepTheirOrder(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, topical, o)
		c := s.open()
		for i := range 50 {
			text := fmt.Sprint("room:", i)
			for _, request := range []string{"room:early", "+room", text, "+", "room:last", "-room", "room:late"} {
				c.send(frame.Text, request)
			}
			c.expect(frame.Text, text)
			c.expect(frame.Text, server.ErrTopicName.Error()) // an answer is not overtaken
			c.expect(frame.Text, "room:last")
		}
		c.said()
	})
}

// A connection that ends leaves its topics. Whoever has its slot then is in none of them.
func TestAConnectionThatEndsLeavesItsTopics(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, topical, o)
		for range 20 {
			c := s.open().said("+a", "+b", "+c")
			c.leave()
			eventually(t, "the topics have ended", func() bool { return s.Stats().Topics == 0 && s.Stats().Subscriptions == 0 })
			d := s.open()
			must(s.Publish("a", frame.Text, []byte("for nobody")))
			d.said("+d")
			d.leave()
			eventually(t, "it has left", func() bool { return s.Stats().Open == 0 })
		}
		s.counted("subscribed", 20*(3+1+2))
		s.counted("unsubscribed", 20*(3+1+2))
	})
}

// A request can bring topics. Those that cannot be reject it.
func TestARequestBringsTopics(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.MaxTopics, o.MaxSubscriptions = 3, 2
		s := start(t, topical, o)
		ask := func(path string) *client {
			c := s.dial()
			c.write("GET " + path + " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			return c
		}
		first := ask("/a,b")
		first.accepted()
		must(s.Publish("b", frame.Text, []byte("hello")))
		first.expect(frame.Text, "hello")
		for path, want := range map[string]int{"/a,b,c": 500, "/" + strings.Repeat("x", 201): 500, "/c,d": 503} {
			if r, _ := ask(path).response(); r.StatusCode != want {
				t.Errorf("%s: %d, want %d", path, r.StatusCode, want)
			}
		}
		second := ask("/a,c")
		second.accepted()
		must(s.Publish("a", frame.Text, []byte("to both")))
		first.expect(frame.Text, "to both")
		second.expect(frame.Text, "to both")
		second.send(frame.Text, "+d")
		second.expect(frame.Text, server.ErrSubscriptions.Error())
		third := s.open()
		third.send(frame.Text, "+d")
		third.expect(frame.Text, server.ErrTopics.Error())
		third.send(frame.Text, "+a")
		third.send(frame.Text, "a:hi")
		for _, c := range []*client{first, second, third} {
			c.expect(frame.Text, "a:hi")
		}
		s.counted("subscriptions_refused", 4)
	})
}

// Close is called for a request that Upgrade has accepted and whose topics are refused, with
// what Upgrade has given the connection.
func TestCloseIsCalledWhereTopicsAreRefused(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.MaxTopics = 1
		ended := make(chan string, 10)
		s := start(t, server.Handler{
			Upgrade: func(r *server.Request) error {
				r.Tag, r.Value, r.Topics = 7, r.Target(), []string{r.Target()}
				return nil
			},
			Close: func(c server.Conn, code frame.Code, cause error) {
				ended <- fmt.Sprint(c.Tag(), c.Value(), code, cause)
			},
		}, o)
		first := s.open()
		for path, cause := range map[string]string{"/b": server.ErrTopics.Error(), "/" + strings.Repeat("b", 200): server.ErrTopicName.Error()} {
			c := s.dial()
			c.write(swap("GET /", "GET "+path))
			c.response()
			if got := <-ended; !strings.HasPrefix(got, fmt.Sprint(7, path, frame.Abnormal)) || !strings.Contains(got, cause) {
				t.Errorf("%s: %s", path, got)
			}
		}
		first.leave()
		if got := <-ended; got != fmt.Sprint(7, "/", frame.NormalClosure, nil) {
			t.Error(got)
		}
	})
}

// A receipt's numbers together are the subscribers.
func TestAReceiptCountsSubscribers(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, topical, o)
		receipts := make(chan server.Receipt, 1)
		for n := range 5 {
			must(s.PublishAs(server.Kind{}, "room", frame.Text, []byte("x"), func(r server.Receipt) { receipts <- r }))
			if r := <-receipts; r.Sent+r.Queued != n || r.Dropped+r.Closed != 0 || r.Last.IsZero() {
				t.Errorf("of %d subscribers: %+v", n, r)
			}
			s.open().said("+room")
		}
	})
}

// Whoever wants to know hears of topics that come and go, and last the truth.
func TestTopicsAreToldOf(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		var mu sync.Mutex
		now := map[string]bool{}
		o.TopicChanged = func(topic string, live bool) {
			mu.Lock()
			defer mu.Unlock()
			if now[topic] == live {
				t.Errorf("told twice that %q is live: %v", topic, live)
			}
			now[topic] = live
		}
		s := start(t, topical, o)
		clients := s.openMany(5)
		for i, c := range clients {
			c.said("+all", fmt.Sprint("+", i%2))
		}
		is := func(want ...string) func() bool {
			return func() bool {
				mu.Lock()
				defer mu.Unlock()
				live := slices.DeleteFunc(slices.Sorted(maps.Keys(now)), func(topic string) bool { return !now[topic] })
				return slices.Equal(live, want)
			}
		}
		eventually(t, "all have come", is("0", "1", "all"))
		for i, c := range clients {
			if i%2 == 0 {
				c.leave()
			}
		}
		eventually(t, "the even have gone", is("1", "all"))
		eventually(t, "the topics are listed", func() bool {
			return maps.Equal(maps.Collect(s.Topics()), map[string]int{"1": 2, "all": 2})
		})
	})
}

// The topics with the most subscribers are found among many.
func TestTheLargestTopicsAreFound(t *testing.T) {
	const members, names = 20, 3000 // many small ones, and some that grow larger and larger
	all := &crowd{}
	s := start(t, server.Handler{Open: all.open}, server.Options{MaxSubscriptions: names})
	if got := s.LargestTopics(5); got == nil || len(got) > 0 {
		t.Errorf("there are none, and it finds %v", got)
	}
	_, conns := all.openMany(s, members)
	for i, c := range conns {
		for n := range 10 {
			if i <= n {
				must(c.Subscribe(fmt.Sprint("large ", n)))
			}
		}
	}
	for n := range names / 2 {
		must(conns[0].Subscribe(fmt.Sprint("small ", n)))
	}
	eventually(t, "all have subscribed", func() bool { return s.Stats().Subscriptions == 55+names/2 })
	want := []server.Topic{{"large 9", 10}, {"large 8", 9}, {"large 7", 8}, {"large 6", 7}}
	for n := range want {
		if got := s.LargestTopics(n); !slices.Equal(got, want[:n]) {
			t.Errorf("the %d largest are %v", n, got)
		}
	}
	if got := s.LargestTopics(2 * names); len(got) != 10+names/2 || !slices.IsSortedFunc(got, func(a, b server.Topic) int { return b.Subscribers - a.Subscribers }) {
		t.Errorf("of all there are %d", len(got))
	}
}

// Who subscribes to what can be asked from both sides.
func TestSubscribersCanBeAskedFor(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		for _, o.Reactors = range []int{1, 3} {
			members := &crowd{}
			o.Mode = server.Workers
			s := start(t, server.Handler{Open: members.open}, o)
			s.openMany(30)
			eventually(t, "all are open", func() bool { return len(members.all()) == 30 })
			var want []server.Conn
			for i, c := range members.all() {
				must(c.Subscribe("all"))
				if i%3 == 0 {
					must(c.Subscribe("third"))
					want = append(want, c)
				}
			}
			byID := func(a, b server.Conn) int { return int(int64(a.ID()) - int64(b.ID())) }
			slices.SortFunc(want, byID)
			eventually(t, "all have subscribed", func() bool { return s.Subscribers("third") == len(want) })
			if got := slices.SortedFunc(s.SubscribersOf("third"), byID); !slices.Equal(got, want) {
				t.Errorf("%d subscribers, want %d", len(got), len(want))
			}
			if got := slices.Sorted(slices.Values(want[0].Topics())); !slices.Equal(got, []string{"all", "third"}) {
				t.Errorf("its topics are %q", got)
			}
			if n := len(slices.Collect(s.SubscribersOf("none"))); n != 0 {
				t.Errorf("%d subscribers of nothing", n)
			}
		}
	})
}

// Connections whose topics find no room when they open, because others were faster, are
// closed and counted.
func TestATopicTooManyAtTheOpening(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.MaxTopics = 1
		first := make(chan struct{})
		o.Mode = server.Workers
		var asked sync.WaitGroup
		asked.Add(2)
		h := server.Handler{Upgrade: func(r *server.Request) error {
			r.Topics = []string{r.Target()}
			asked.Done()
			<-first // both find room now
			return nil
		}}
		s := start(t, h, o)
		clients := []*client{s.dial(), s.dial()}
		for i, c := range clients {
			c.write(string(frame.AppendRequest(nil, "localhost", fmt.Sprint("/", i), frame.SampleKey)))
		}
		asked.Wait()
		close(first)
		closed := 0
		for _, c := range clients {
			head := c.head()
			if strings.Contains(head, " 503 ") { // its answer came after the other's
				closed++
				continue
			}
			must(s.Publish("/0", frame.Text, []byte("to one of them")))
			must(s.Publish("/1", frame.Text, []byte("to one of them")))
			switch op, _, err := c.next(); {
			case err != nil:
				t.Error(err)
			case op == frame.Close:
				closed++
			}
		}
		if closed != 1 {
			t.Errorf("%d of 2 found no room for their topics, want 1", closed)
		}
	})
}

// All subscribers get a topic's publications in the same order, however many publish at
// once, and so it is with broadcasts.
func TestEverybodyHearsTheSameOrder(t *testing.T) {
	const publishers, each, listeners = 8, 40, 12
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, topical, o)
		clients := s.openMany(listeners)
		for _, c := range clients {
			c.said("+room")
		}
		for _, publish := range []func(text string) error{
			func(text string) error { return s.Publish("room", frame.Text, []byte(text)) },
			func(text string) error { return s.Broadcast(frame.Text, []byte(text)) },
		} {
			var all sync.WaitGroup
			for p := range publishers {
				all.Go(func() {
					for i := range each {
						for publish(fmt.Sprint(p, " ", i)) == server.ErrBackpressure {
							runtime.Gosched()
						}
					}
				})
			}
			all.Wait()
			var first []string
			for _, c := range clients {
				var got []string
				for range publishers * each {
					_, text, err := c.next()
					must(err)
					got = append(got, text)
				}
				if first == nil {
					first = got
				}
				if !slices.Equal(got, first) {
					t.Fatal("two clients heard different orders")
				}
			}
		}
	})
}
