package pusher_test

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
	"github.com/seed-134acfd0/lull/server/pusher"
)

const (
	key    = "app-key"
	secret = "app-secret"
)

var eventually = testkit.Eventually

// one is an app that allows everything.
var one = pusher.App{ID: "1", Key: key, Secret: secret, ClientEvents: true}

// running is a server that speaks the protocol, until its test ends.
type running struct {
	*server.Server
	*pusher.Pusher
	t testing.TB
}

func start(t testing.TB, o pusher.Options, so server.Options) *running {
	t.Helper()
	return startOn(t, "", "", o, so)
}

// startOn starts a server that is a node of a cluster, unless the URL of its broker is empty.
func startOn(t testing.TB, url, name string, o pusher.Options, so server.Options) *running {
	t.Helper()
	if o.Apps == nil {
		o.Apps = []pusher.App{one}
	}
	o.Log = slog.New(slog.DiscardHandler)
	p, err := pusher.New(o)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p.Close(ctx)
	})
	so.Mode, so.Origins, so.Log, so.StallAfter = server.Inline, []string{"any"}, o.Log, -1
	so.CloseTimeout = cmp.Or(so.CloseTimeout, 100*time.Millisecond)
	so.Reactors = cmp.Or(so.Reactors, 2)
	var node *cluster.Node
	if url != "" {
		node, err = cluster.Join(t.Context(), p.Cluster(cluster.Options{URL: url, Name: name, Log: o.Log}))
		must(t, err)
		t.Cleanup(node.Leave)
		so.TopicChanged = node.TopicChanged
	}
	s, err := server.Listen([]string{"127.0.0.1:0"}, p.Handler(), so)
	must(t, err)
	p.Bind(s, node)
	testkit.Run(t, context.Background(), s)
	return &running{s, p, t}
}

// told waits until a fault was told n times, and fails if it was more often.
func (r *running) told(fault string, n int) {
	r.t.Helper()
	if _, known := r.Pusher.Stats().Faults[fault]; !known {
		r.t.Fatalf("there is no fault %s", fault)
	}
	eventually(r.t, fault, func() bool { return r.Pusher.Stats().Faults[fault] >= uint64(n) })
	if got := r.Pusher.Stats().Faults[fault]; got != uint64(n) {
		r.t.Errorf("%s is %d, not %d", fault, got, n)
	}
}

// client is a client of the protocol.
type client struct {
	*websocket.Conn
	t      testing.TB
	socket string
}

// message is what a client gets.
type message struct {
	Event   string          `json:"event"`
	Channel string          `json:"channel"`
	Data    json.RawMessage `json:"data"`
	UserID  string          `json:"user_id"`
}

// data decodes what is in m's data, a string with JSON.
func (m message) data(into any) error {
	var text string
	if err := json.Unmarshal(m.Data, &text); err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

const usual = "/app/" + key + "?protocol=7&client=js&version=8.4.0"

// dial opens a connection that is not greeted yet.
func (r *running) dial(path string, header http.Header) *client {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+r.Addrs()[0].String()+path, &websocket.DialOptions{HTTPHeader: header})
	must(r.t, err)
	r.t.Cleanup(func() { c.CloseNow() })
	return &client{Conn: c, t: r.t}
}

// open opens a connection.
func (r *running) open() *client {
	r.t.Helper()
	c := r.dial(usual, nil)
	m := c.next()
	var hello struct {
		SocketID string `json:"socket_id"`
		Timeout  int    `json:"activity_timeout"`
	}
	if err := m.data(&hello); m.Event != "pusher:connection_established" || err != nil || hello.Timeout <= 0 {
		r.t.Fatalf("greeted with %+v", m)
	}
	c.socket = hello.SocketID
	return c
}

// next reads a message that is no warm one.
func (c *client) next() (m message) {
	c.t.Helper()
	for m = c.read(); m.Event == warm; m = c.read() {
	}
	return m
}

// read reads a message.
func (c *client) read() (m message) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	_, got, err := c.Read(ctx)
	must(c.t, err)
	if err := json.Unmarshal(got, &m); err != nil {
		c.t.Fatalf("%v: %s", err, got)
	}
	return m
}

// nextInto reads a message into v, too.
func (c *client) nextInto(v any) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	_, got, err := c.Read(ctx)
	must(c.t, err)
	must(c.t, json.Unmarshal(got, v))
}

// send sends a text.
func (c *client) send(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	must(c.t, c.Write(ctx, websocket.MessageText, []byte(text)))
}

// ask sends an event with its data.
func (c *client) ask(event string, data any) {
	c.t.Helper()
	c.send(spell(map[string]any{"event": event, "data": data}))
}

// say sends a client event.
func (c *client) say(channel, event string, data any) {
	c.t.Helper()
	c.send(spell(map[string]any{"event": event, "channel": channel, "data": data}))
}

// expect reads an event whose data, JSON within a string, are want.
func (c *client) expect(event, channel, want string) {
	c.t.Helper()
	m := c.next()
	var got, wanted any
	must(c.t, json.Unmarshal([]byte(want), &wanted))
	if err := m.data(&got); m.Event != event || m.Channel != channel || err != nil || !reflect.DeepEqual(got, wanted) {
		c.t.Fatalf("got %s in %q: %s, want %s in %q: %s", m.Event, m.Channel, m.Data, event, channel, want)
	}
}

// nothing checks that nothing has come before the answer to a ping.
func (c *client) nothing() {
	c.t.Helper()
	c.send(`{"event":"pusher:ping","data":{}}`)
	c.expect("pusher:pong", "", "{}")
}

// refused reads an error with a code.
func (c *client) refused(code int) {
	c.t.Helper()
	var why struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	m := c.next()
	if err := m.data(&why); err != nil || m.Event != "pusher:error" || why.Code != code || why.Message == "" {
		c.t.Fatalf("got %s %s, want the error %d", m.Event, m.Data, code)
	}
}

// ended reads the end.
func (c *client) ended(code int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	if _, got, err := c.Read(ctx); int(websocket.CloseStatus(err)) != code {
		c.t.Fatalf("got %q, %v, want the end with %d", got, err, code)
	}
}

// auth is the signature of the parts, as the app's backend makes it.
func auth(parts ...string) string {
	return key + ":" + mac(strings.Join(parts, ":"))
}

func mac(text string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

// subscribe subscribes to a channel that is no presence channel.
func (c *client) subscribe(channel string) {
	c.t.Helper()
	data := map[string]any{"channel": channel}
	if strings.HasPrefix(channel, "private-") {
		data["auth"] = auth(c.socket, channel)
	}
	c.ask("pusher:subscribe", data)
	c.expect("pusher_internal:subscription_succeeded", channel, "{}")
}

// enter asks to subscribe to a presence channel.
func (c *client) enter(channel, who string) {
	c.t.Helper()
	c.ask("pusher:subscribe", map[string]any{"channel": channel, "channel_data": who, "auth": auth(c.socket, channel, who)})
}

// entered subscribes to a presence channel, and expects these to be there, each without an
// info.
func (c *client) entered(channel, user string, there ...string) {
	c.t.Helper()
	c.enter(channel, spell(map[string]any{"user_id": user, "user_info": "info of " + user}))
	m := c.next()
	var got struct {
		Presence struct {
			Count int
			IDs   []string
			Hash  map[string]string
		}
	}
	must(c.t, m.data(&got))
	want := map[string]string{}
	for _, u := range there {
		want[u] = "info of " + u
	}
	if p := got.Presence; m.Event != "pusher_internal:subscription_succeeded" || p.Count != len(want) || len(p.IDs) != len(want) || !reflect.DeepEqual(p.Hash, want) {
		c.t.Fatalf("%s: got %s, want %v", m.Event, m.Data, want)
	}
}

func spell(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
