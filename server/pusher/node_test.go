package pusher_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/internal/natsd/natsdtest"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/pusher"
)

// startNodes starts servers that are one.
func startNodes(t testing.TB, n int, app pusher.App) (all []*running) {
	t.Helper()
	b := natsdtest.Start(t)
	for i := range n {
		all = append(all, startOn(t, b.ClientURL(), fmt.Sprint("node-", i), pusher.Options{Apps: []pusher.App{app}}, server.Options{Reactors: 1}))
	}
	return all
}

// warm is an event by which a subscriber learns that another server's events reach it.
const warm = "warm"

// hears waits until events reach a subscriber of a channel that are published by an API. More of
// them may come later.
func (c *client) hears(api, channel string) {
	c.t.Helper()
	heard := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for {
			request{path: "/apps/1/events", body: spell(map[string]string{"name": warm, "channel": channel, "data": ""})}.do(c.t, api)
			select {
			case <-heard:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	for c.read().Event != warm {
	}
	close(heard)
	publishing.Wait()
}

// willAnswer waits until a request is answered with JSON: a server that is busy may answer too late
// to be in another one's answer.
func willAnswer(t testing.TB, api string, q request, want string) {
	t.Helper()
	var wanted any
	must(t, json.Unmarshal([]byte(want), &wanted))
	eventually(t, want, func() bool {
		var got any
		_, body := q.do(t, api)
		return json.Unmarshal([]byte(body), &got) == nil && reflect.DeepEqual(got, wanted)
	})
}

func TestSeveralServersAreOne(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, one)
	apis := []string{nodes[0].api(), nodes[1].api()}
	a, b := nodes[0].open(), nodes[1].open()
	a.subscribe("private-room")
	b.subscribe("private-room")
	a.hears(apis[1], "private-room")
	b.hears(apis[0], "private-room")
	a.say("private-room", "client-hi", 1)
	if m := b.next(); m.Event != "client-hi" || string(m.Data) != "1" {
		t.Errorf("got %+v", m)
	}
	publish := func(api, fields string) {
		t.Helper()
		asks(t, api, request{path: "/apps/1/events", body: fields}, `{}`)
	}
	// Whichever server a publisher asks, the event spares the socket that it names.
	publish(apis[1], fmt.Sprintf(`{"name":"x","channel":"private-room","data":"1","socket_id":%q}`, a.socket))
	publish(apis[0], `{"name":"x","channel":"private-room","data":"2"}`)
	if m := a.next(); string(m.Data) != `"2"` {
		t.Errorf("got %+v", m)
	}
	got := map[string]bool{}
	for range 2 {
		got[string(b.next().Data)] = true
	}
	if !got[`"1"`] || !got[`"2"`] {
		t.Errorf("got %v", got)
	}
	for _, api := range apis {
		willAnswer(t, api, request{path: "/apps/1/channels", query: map[string]string{"info": "subscription_count"}}, `{"channels":{"private-room":{"subscription_count":2}}}`)
		willAnswer(t, api, request{path: "/apps/1/channels/private-room", query: map[string]string{"info": "subscription_count"}}, `{"occupied":true,"subscription_count":2}`)
	}
	// A cache channel's last event is kept on all servers, whether or not they have subscribers.
	publish(apis[0], `{"name":"price","channel":"private-cache-x","data":"7"}`)
	eventually(t, "both keep it", func() bool { return nodes[0].Pusher.Stats().Cached == 1 && nodes[1].Pusher.Stats().Cached == 1 })
	b.subscribe("private-cache-x")
	if m := b.next(); m.Event != "price" || string(m.Data) != `"7"` {
		t.Errorf("got %+v", m)
	}
	who := `{"id":"bob"}`
	c := nodes[1].open()
	c.ask("pusher:signin", map[string]string{"auth": auth(c.socket, "", "user", "", who), "user_data": who})
	c.next()
	asks(t, apis[0], request{path: "/apps/1/users/bob/terminate_connections", method: "POST"}, `{}`)
	c.refused(4009)
	c.ended(4009)
}

func TestMembersOfSeveralServers(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, one)
	apis := []string{nodes[0].api(), nodes[1].api()}
	const room = "presence-room"
	anna := nodes[0].open()
	anna.entered(room, "anna", "anna")
	bob := nodes[1].open()
	bob.enter(room, `{"user_id":"bob","user_info":"info of bob"}`)
	anna.expect("pusher_internal:member_added", room, `{"user_id":"bob","user_info":"info of bob"}`)
	// Bob's server may hear of Anna before it answers him, or after.
	for anna, answered := false, false; !anna || !answered; {
		var got struct {
			UserID   string `json:"user_id"`
			Presence *struct{ Hash map[string]string }
		}
		must(t, bob.next().data(&got))
		if got.Presence != nil {
			answered = true
		}
		anna = anna || got.UserID == "anna" || got.Presence != nil && got.Presence.Hash["anna"] != ""
	}
	bob.say(room, "client-hi", 1)
	if m := anna.next(); m.Event != "client-hi" || m.UserID != "bob" {
		t.Errorf("got %+v", m)
	}
	for _, api := range apis {
		willAnswer(t, api, request{path: "/apps/1/channels/" + room + "/users"}, `{"users":[{"id":"anna"},{"id":"bob"}]}`)
		willAnswer(t, api, request{path: "/apps/1/channels", query: map[string]string{"info": "user_count", "filter_by_prefix": "presence-"}}, `{"channels":{"presence-room":{"user_count":2}}}`)
	}
	again := nodes[0].open() // bob's second connection, on the other server
	again.entered(room, "bob", "anna", "bob")
	bob.CloseNow()
	anna.nothing()
	again.CloseNow()
	anna.expect("pusher_internal:member_removed", room, `{"user_id":"bob"}`)
	anna.CloseNow()
	eventually(t, "nothing is left", func() bool { return nodes[0].Pusher.Stats().Channels+nodes[1].Pusher.Stats().Channels == 0 })
}

func TestSubscribersOfSeveralServersAreCounted(t *testing.T) {
	t.Parallel()
	app := one
	app.SubscriptionCount = true
	nodes := startNodes(t, 2, app)
	clients := []*client{nodes[0].open(), nodes[1].open()}
	for _, c := range clients {
		c.ask("pusher:subscribe", map[string]string{"channel": "news"})
	}
	counted := func(c *client, n int) {
		t.Helper()
		for got := -1; got != n; {
			var data struct {
				Count int `json:"subscription_count"`
			}
			must(t, c.next().data(&data))
			got = data.Count
		}
	}
	for _, c := range clients {
		counted(c, 2)
	}
	clients[1].CloseNow() // the last one on its server
	counted(clients[0], 1)
}
