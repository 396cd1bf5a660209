package cluster_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/natsd/natsdtest"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
)

// station is a server with its node.
type station struct {
	node *cluster.Node
	*server.Server
}

// newStation starts a server in a cluster. A client sends "+topic" to subscribe, which is
// answered with true or false when that is confirmed or not, and "topic:text" to publish;
// and for topic room "resume position", "where", "enter id" and "exit".
func newStation(t testing.TB, url, name string, mode server.Mode) station {
	t.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	node, err := cluster.Join(t.Context(), cluster.Options{
		URL: url, Name: name, Log: quiet,
		Present: func(topic string) bool { return topic == "room" },
		History: func(topic string) (l cluster.Limits) {
			if topic == "room" {
				l.Messages = 10
			}
			return l
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Leave)
	handler := server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
		text := string(data)
		var err error
		if position, ok := strings.CutPrefix(text, "resume "); ok {
			err = node.Resume(c, "room", position, func(r cluster.Resumed) {
				for _, m := range r.Messages {
					_ = c.Send(m.Op, m.Data)
				}
				_ = c.Send(frame.Text, []byte("at "+r.Position))
			})
		} else if text == "where" {
			err = node.Position("room", func(position string) { _ = c.Send(frame.Text, []byte("at "+position)) })
		} else if id, ok := strings.CutPrefix(text, "enter "); ok {
			err = node.Enter(c, "room", id, nil)
		} else if text == "exit" {
			node.Exit(c, "room")
		} else if topic, ok := strings.CutPrefix(text, "+"); ok {
			err = node.Subscribe(c, topic, func(confirmed bool) { _ = c.Send(frame.Text, fmt.Append(nil, confirmed)) })
		} else {
			topic, _, _ := strings.Cut(text, ":")
			err = node.PublishFrom(c, topic, op, data)
		}
		if err != nil {
			_ = c.Send(frame.Text, []byte(err.Error()))
		}
	}}
	s, err := server.Listen([]string{"127.0.0.1:0"}, node.Handler(handler), server.Options{Mode: mode, TopicChanged: node.TopicChanged, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	node.Bind(s)
	testkit.Run(t, context.Background(), s)
	return station{node, s}
}

// client is a WebSocket client.
type client struct {
	testing.TB
	*websocket.Conn
}

func (s station) dial(t testing.TB) client {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), "ws://"+s.Addrs()[0].String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return client{t, c}
}

func (c client) say(text string) {
	c.Helper()
	if err := c.Write(c.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.Fatal(err)
	}
}

func (c client) hear() string {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), testkit.Patience)
	defer cancel()
	_, text, err := c.Read(ctx)
	if err != nil {
		c.Fatal(err)
	}
	return string(text)
}

func (c client) expect(want string) {
	c.Helper()
	if got := c.hear(); got != want {
		c.Fatalf("%q, not %q", got, want)
	}
}

// position hears a position.
func (c client) position() string {
	c.Helper()
	position, ok := strings.CutPrefix(c.hear(), "at ")
	if !ok || position == "" {
		c.Fatal("that is no position")
	}
	return position
}

// The clients of three servers talk to each other, whether handlers run on workers or on
// reactors.
func TestClientsOfThreeServersTalk(t *testing.T) {
	t.Parallel()
	url := natsdtest.Start(t).ClientURL()
	var stations []station
	for i, mode := range []server.Mode{server.Workers, server.Inline, server.Serial} {
		stations = append(stations, newStation(t, url, fmt.Sprint("node-", i), mode))
	}
	for _, s := range stations {
		testkit.Eventually(t, "all are there", func() bool { return len(s.node.Stats().Nodes) == 2 })
	}
	var clients []client
	for _, s := range stations {
		c := s.dial(t)
		c.say("+a b")
		if text := c.hear(); text != "true" && text != "false" { // false where the machine is very busy
			t.Fatal(text)
		}
		c.say("+\n")
		c.expect(server.ErrTopicName.Error())
		c.say("\n:x")
		c.expect(server.ErrTopicName.Error())
		clients = append(clients, c)
	}
	for i, from := range clients {
		for n := range 50 {
			from.say(fmt.Sprintf("a b:%d from %d", n, i))
		}
		for _, to := range clients {
			for n := range 50 {
				to.expect(fmt.Sprintf("a b:%d from %d", n, i))
			}
		}
	}
	_ = clients[0].CloseNow()
	testkit.Eventually(t, "its topic is live no more", func() bool { return stations[0].Subscribers("a b") == 0 })
}

// A client that loses its server goes on at another one, and the members of its server are
// gone.
func TestAClientWhoseServerEnds(t *testing.T) {
	t.Parallel()
	url := natsdtest.Start(t).ClientURL()
	one, other := newStation(t, url, "one", server.Workers), newStation(t, url, "other", server.Inline)
	for _, s := range []station{one, other} {
		testkit.Eventually(t, "both are there", func() bool { return len(s.node.Stats().Nodes) == 1 })
	}
	a, b := one.dial(t), other.dial(t)
	for _, c := range []client{a, b} {
		c.say("resume ")
		c.position()
	}
	a.say("enter anna")
	b.say("enter ben")
	for _, s := range []station{one, other} {
		testkit.Eventually(t, "both are members", func() bool { return s.node.MemberCount("room") == 2 && len(s.node.Members("room")) == 2 })
	}
	a.say("room:1")
	a.expect("room:1")
	b.expect("room:1")
	a.say("where")
	position := a.position()
	a.say("exit")
	testkit.Eventually(t, "anna has left", func() bool { return other.node.MemberCount("room") == 1 })
	a.say("enter anna")
	testkit.Eventually(t, "anna is back", func() bool { return other.node.MemberCount("room") == 2 })
	_ = a.CloseNow()
	testkit.Eventually(t, "anna's connection has ended, and so she has left", func() bool { return other.node.MemberCount("room") == 1 })
	one.node.Leave()
	b.say("room:2")
	b.expect("room:2")
	a = other.dial(t)
	a.say("resume " + position)
	a.expect("room:2")
	a.position()
	b.say("room:3")
	a.expect("room:3")
}
