package rooms

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/seed-134acfd0/lull/internal/natsd/natsdtest"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
)

// station is a server with its rooms and its node.
type station struct {
	*Rooms
	node *cluster.Node
	url  string
	stop func() error
}

// all lets clients see everything.
var all = Options{Presence: true, MaxMembers: 3, History: cluster.Limits{Messages: 10, Age: time.Minute}}

// newStation starts a server in the cluster of a NATS server, or in one of its own without a URL.
func newStation(t *testing.T, nats, name string, o Options, mode server.Mode) station {
	t.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	at := cluster.Options{URL: nats, Name: name, Log: quiet}
	if nats == "" {
		b, err := cluster.Embed(cluster.BrokerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		at.Broker = b
	}
	r := New(o)
	node, err := cluster.Join(t.Context(), r.Cluster(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Leave)
	s, err := server.Listen([]string{"127.0.0.1:0"}, r.Handler(node), server.Options{Mode: mode, TopicChanged: r.TopicChanged, Log: quiet, Grace: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	r.Bind(s)
	node.Bind(s)
	return station{r, node, "ws://" + s.Addrs()[0].String() + "/", testkit.Run(t, context.Background(), s)}
}

// newStations starts servers that know of each other.
func newStations(t *testing.T, o Options, modes ...server.Mode) (stations []station) {
	t.Helper()
	b := natsdtest.Start(t)
	for i, mode := range modes {
		stations = append(stations, newStation(t, b.ClientURL(), fmt.Sprint("node-", i), o, mode))
	}
	for _, s := range stations {
		testkit.Eventually(t, "all are there", func() bool { return len(s.node.Stats().Nodes) == len(modes)-1 })
	}
	return stations
}

// client is in a room.
type client struct {
	*testing.T
	*websocket.Conn
}

// dial visits a path with subprotocols.
func (s station) dial(t *testing.T, path string, protocols ...string) client {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), s.url+path, &websocket.DialOptions{Subprotocols: protocols})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = c.CloseNow() })
	return client{t, c}
}

func (s station) visit(t *testing.T, path string) client {
	t.Helper()
	c := s.dial(t, path, "chat", Protocol)
	if c.Subprotocol() != Protocol {
		t.Fatalf("the subprotocol is %q", c.Subprotocol())
	}
	return c
}

func (c client) say(kind websocket.MessageType, text string) {
	c.Helper()
	if err := c.Write(c.Context(), kind, []byte(text)); err != nil {
		c.Fatal(err)
	}
}

func (c client) read() (websocket.MessageType, string) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), testkit.Patience)
	defer cancel()
	kind, data, err := c.Read(ctx)
	if err != nil {
		c.Fatal(err)
	}
	return kind, string(data)
}

// said is a text of any type.
type said struct {
	Type     string
	Text     *string
	Binary   []byte
	At       string
	Messages []struct {
		Text   *string
		Binary []byte
	}
	Complete bool
	Ahead    bool
	Members  []struct{ Name, Data string }
	Name     string
	Data     string
}

// next is the next text of a type. Others are passed over, but for lost.
func (c client) next(kind string) said {
	c.Helper()
	for {
		op, data := c.read()
		var s said
		if err := json.Unmarshal([]byte(data), &s); err != nil || op != websocket.MessageText || s.Type == "lost" && kind != "lost" {
			c.Fatalf("%q, %v", data, err)
		}
		if s.Type == kind {
			return s
		}
	}
}

// hears hears a message, and returns its position.
func (c client) hears(want string) (at string) {
	c.Helper()
	s := c.next("message")
	if s.Text == nil || *s.Text != want {
		c.Fatalf("%+v, not %q", s, want)
	}
	return s.At
}

// missed is what a client hears that comes, as words.
func (c client) missed() (words, at string, complete bool) {
	c.Helper()
	s := c.next("missed")
	var all []string
	for _, m := range s.Messages {
		if m.Text != nil {
			all = append(all, *m.Text)
		} else {
			all = append(all, fmt.Sprintf("%x", m.Binary))
		}
	}
	if s.Ahead || s.At == "" {
		c.Fatalf("%+v", s)
	}
	return strings.Join(all, " "), s.At, s.Complete
}

// sees waits until the changes behind a list come to these members.
func (c client) sees(want ...string) {
	c.Helper()
	there := map[string]bool{}
	for _, m := range c.next("members").Members {
		there[m.Name+"="+m.Data] = true
	}
	c.seesLater(there, want...)
}

func (c client) seesLater(there map[string]bool, want ...string) {
	c.Helper()
	for {
		missing := len(there) != len(want)
		for _, w := range want {
			missing = missing || !there[w]
		}
		if !missing {
			return
		}
		_, data := c.read()
		var s said
		if err := json.Unmarshal([]byte(data), &s); err != nil {
			c.Fatal(err)
		}
		if s.Type != "enter" && s.Type != "change" && s.Type != "leave" {
			c.Fatalf("%s, and %v are there", data, there)
		}
		for old := range there {
			if strings.HasPrefix(old, s.Name+"=") {
				delete(there, old)
			}
		}
		if s.Type != "leave" {
			there[s.Name+"="+s.Data] = true
		}
	}
}

// Who comes is told who is there, on all nodes, and of all that come and go later.
func TestMembersSeeEachOther(t *testing.T) {
	t.Parallel()
	stations := newStations(t, Options{Presence: true}, server.Inline, server.Workers)
	anna := stations[0].visit(t, "room/tea?name=anna&data="+url.QueryEscape(`{"mood":"ü"}`))
	anna.sees(`anna={"mood":"ü"}`)
	ben := stations[1].visit(t, "room/tea?name=ben")
	ben.sees(`anna={"mood":"ü"}`, "ben=")
	anna.seesLater(map[string]bool{`anna={"mood":"ü"}`: true}, `anna={"mood":"ü"}`, "ben=")
	looker := stations[0].visit(t, "room/tea")
	looker.sees(`anna={"mood":"ü"}`, "ben=")
	second := stations[1].visit(t, "room/tea?name=ben&data=new") // ben's other device
	anna.seesLater(map[string]bool{`anna={"mood":"ü"}`: true, "ben=": true}, `anna={"mood":"ü"}`, "ben=new")
	_ = second.CloseNow()
	_ = ben.CloseNow()
	anna.seesLater(map[string]bool{`anna={"mood":"ü"}`: true, "ben=new": true}, `anna={"mood":"ü"}`)
	stations[1].visit(t, "room/tea?name=carl")
	anna.seesLater(map[string]bool{`anna={"mood":"ü"}`: true}, `anna={"mood":"ü"}`, "carl=")
	stations[1].node.Leave()
	anna.seesLater(map[string]bool{`anna={"mood":"ü"}`: true, "carl=": true}, `anna={"mood":"ü"}`)
	other := stations[0].visit(t, "room/coffee")
	other.sees()
	other.say(websocket.MessageText, "hello")
	other.hears("hello")
}

// Clients without the subprotocol get and send what they always did, in the same room.
func TestOtherClientsNoticeNothing(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{all, {Presence: true}, {}} {
		s := newStation(t, "", "alone", o, server.Inline)
		plain := []client{s.dial(t, "room/tea"), s.dial(t, "room/tea?name=x&after=no+position", "chat")}
		var speaker *client
		if s.NeedNode() {
			c := s.visit(t, "room/tea?name=anna")
			c.next("members") // it hears everything from here on
			speaker = &c
		} else if c := s.dial(t, "room/tea", Protocol); c.Subprotocol() != "" {
			t.Error("nothing is offered")
		}
		for i, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			plain[i].say(kind, "hello")
			for _, c := range plain {
				if op, data := c.read(); op != kind || data != "hello" || c.Subprotocol() != "" {
					t.Errorf("%v %q", op, data)
				}
			}
		}
		if speaker != nil {
			speaker.hears("hello")
			if m := speaker.next("message"); string(m.Binary) != "hello" || m.Text != nil {
				t.Errorf("%+v", m)
			}
			speaker.say(websocket.MessageBinary, "\x00")
			if op, data := plain[0].read(); op != websocket.MessageBinary || data != "\x00" {
				t.Errorf("%v %q", op, data)
			}
		}
	}
}

// settled waits until positions are younger than rooms, for all clocks.
func settled(t *testing.T) {
	t.Helper()
	const slack = 2 * time.Second // by which clocks of nodes may differ
	begun := time.Now()
	testkit.Eventually(t, "positions are younger", func() bool { return time.Since(begun) > slack+100*time.Millisecond })
}

// A client that comes back to any node gets what it has missed, once and in order, or is
// told that there was more.
func TestClientsThatComeBack(t *testing.T) {
	t.Parallel()
	stations := newStations(t, all, server.Workers, server.Inline)
	a, b := stations[0], stations[1]
	host := b.visit(t, "room/tea")
	anna := a.visit(t, "room/tea")
	for _, c := range []client{host, anna} {
		if words, _, complete := c.missed(); words != "" || !complete {
			t.Fatalf("a new client has missed %q", words)
		}
	}
	settled(t)
	host.say(websocket.MessageText, "0")
	host.hears("0")
	position := anna.hears("0")
	_ = anna.CloseNow()
	host.say(websocket.MessageText, "1")
	host.hears("1")
	host.say(websocket.MessageBinary, "\x02")
	last := host.next("message").At
	for i, s := range []station{b, a, b} {
		anna = s.visit(t, "room/tea?after="+position)
		if words, at, complete := anna.missed(); words != "1 02" || !complete || at == "" {
			t.Errorf("%d: has missed %q, %v", i, words, complete)
		}
		_ = anna.CloseNow()
	}
	if words, _, complete := a.visit(t, "room/tea?after="+last).missed(); words != "" || !complete {
		t.Errorf("has missed %q, %v", words, complete)
	}
	if words, _, _ := a.visit(t, "room/tea?after=0").missed(); words != "0 1 02" {
		t.Errorf("kept is %q", words)
	}
	for i := 3; i < 20; i++ {
		host.say(websocket.MessageText, fmt.Sprint(i))
		host.hears(fmt.Sprint(i))
	}
	if words, _, complete := b.visit(t, "room/tea?after="+position).missed(); words != "10 11 12 13 14 15 16 17 18 19" || complete {
		t.Errorf("has missed %q, %v", words, complete)
	}
}

// What a client says about itself is understood, or refused with a reason of its own.
func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	everything := newStation(t, "", "a", all, server.Inline)
	silent := newStation(t, "", "b", Options{History: all.History}, server.Inline)
	forgetful := newStation(t, "", "c", Options{Presence: true}, server.Inline)
	long := strings.Repeat("x", 201)
	for _, c := range []struct {
		at           station
		path, reason string
	}{
		{everything, "room/a?name=%zz", "the query: invalid URL escape"},
		{everything, "room/a?name=a;b", "the query: invalid semicolon"},
		{everything, "room/a?name=", "a member's name is 1 to 200 bytes"},
		{everything, "room/a?name=" + long, "a member's name is 1 to 200 bytes"},
		{everything, "room/a?name=%00", "a member's name is 1 to 200 bytes"},
		{everything, "room/a?name=%FF", "a member's name is 1 to 200 bytes"},
		{everything, "room/a?data=x", "data are shown with a member's name"},
		{everything, "room/a?name=a&data=" + strings.Repeat("x", 1025), "a member's data are at most 1024 bytes"},
		{everything, "room/a?name=a&data=%FF", "a member's data are at most 1024 bytes"},
		{everything, "room/a?after=x", "after is no position"},
		{everything, "room/a?after=" + strings.Repeat("A", 7000), "after is no position"},
		{everything, "room/" + long[:187], "a room's name has at most 186 bytes"},
		{everything, "room/lull.rooms.v1%2Fa", "does not begin with lull.rooms.v1/"},
		{silent, "room/a?name=a", "does not know who is in a room"},
		{forgetful, "room/a?after=0", "keeps no messages"},
	} {
		_, answer, err := websocket.Dial(t.Context(), c.at.url+c.path, &websocket.DialOptions{Subprotocols: []string{Protocol}})
		if err == nil || answer == nil {
			t.Errorf("%.40s: %v", c.path, err)
			continue
		}
		if body, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), c.reason) {
			t.Errorf("%.40s: %d %q, not %q", c.path, answer.StatusCode, body, c.reason)
		}
	}
	everything.visit(t, "room/"+long[:186]+"?name="+long[:200]+"&data="+strings.Repeat("x", 1024)).next("members")
}

// A room has no more members than it may have, and as many others as come.
func TestARoomThatIsFull(t *testing.T) {
	t.Parallel()
	s := newStation(t, "", "alone", all, server.Inline)
	var last client
	for i := range all.MaxMembers {
		last = s.visit(t, fmt.Sprint("room/a?name=", i))
		last.next("members")
	}
	_, answer, err := websocket.Dial(t.Context(), s.url+"room/a?name=one-more", &websocket.DialOptions{Subprotocols: []string{Protocol}})
	if err == nil || answer == nil || answer.StatusCode != http.StatusServiceUnavailable {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(answer.Body); !strings.Contains(string(body), "the room has 3 members") {
		t.Errorf("%q", body)
	}
	s.visit(t, "room/b?name=one-more").next("members")
	if n := len(s.visit(t, "room/a").next("members").Members); n != all.MaxMembers {
		t.Errorf("%d members", n)
	}
	_ = last.CloseNow()
	testkit.Eventually(t, "there is room again", func() bool { return s.node.MemberCount("a") < all.MaxMembers })
	s.visit(t, "room/a?name=one-more").next("members")
}

// Clients are told that messages were lost, in the rooms where that may be, and get all
// members anew when changes were.
func TestWhatWasLostIsSaid(t *testing.T) {
	t.Parallel()
	s := newStation(t, "", "alone", Options{Presence: true}, server.Inline)
	a, b := s.visit(t, "room/a"), s.visit(t, "room/b")
	for _, c := range []client{a, b} {
		c.sees()
	}
	s.lost(cluster.Loss{Topic: "a", Shard: -1, Messages: 3})
	if op, data := a.read(); op != websocket.MessageText || data != `{"type":"lost","messages":3}` {
		t.Error(data)
	}
	s.lost(cluster.Loss{Shard: -1, Unsure: true})
	for _, c := range []client{a, b} {
		if _, data := c.read(); data != `{"type":"lost"}` {
			t.Error(data)
		}
	}
	s.visit(t, "room/a?name=anna")
	a.seesLater(map[string]bool{}, "anna=")
	s.memberChanged(cluster.MemberChange{Kind: cluster.MembersMissed})
	a.sees("anna=")
	b.sees()
}

func TestARoomsNameIsNoEscapeThatIsNone(t *testing.T) {
	for _, escaped := range []string{"%", "%z", "%zz", "a%2"} {
		if _, err := roomOf("/room/" + escaped); err == nil || !strings.Contains(err.Error(), "invalid URL escape") {
			t.Errorf("%s: %v", escaped, err)
		}
	}
}

// A room of which nobody is left takes no memory.
func TestRoomsThatAreEmptyAreForgotten(t *testing.T) {
	table := newTable()
	a, b, speaker := table.enter("a", false), table.enter("b", false), table.enter("a", true)
	if table.enter("a", false) != a || a == b || table.name(a) != "a" || table.name(b) != "b" || table.name(speaker) != "a" {
		t.Errorf("a is %d, b is %d", a, b)
	}
	if !table.spoken("a") || table.spoken("b") || table.spoken("c") || len(table.names()) != 2 {
		t.Errorf("%v", table.names())
	}
	table.leave(speaker)
	if table.spoken("a") {
		t.Error("who speaks has left")
	}
	for _, tag := range []uint64{a, b, a} {
		table.leave(tag)
	}
	if len(table.numbers)+len(table.rooms) > 0 {
		t.Errorf("left are %v", table.numbers)
	}
	if again := table.enter("a", false); again == a {
		t.Error("a late message to the former room would reach this one")
	}
}
