package pusher_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/pusher"
)

func TestPublicChannels(t *testing.T) {
	t.Parallel()
	r := start(t, pusher.Options{}, server.Options{})
	a, b := r.open(), r.open()
	if a.socket == b.socket {
		t.Errorf("two are called %s", a.socket)
	}
	a.subscribe("news")
	b.subscribe("news")
	a.ask("pusher:unsubscribe", map[string]string{"channel": "news"})
	a.nothing()
	a.subscribe("news")
	a.send(`{"event":"pusher:subscribe","data":"{\"channel\":\"other\"}"}`) // data in a string
	a.expect("pusher_internal:subscription_succeeded", "other", "{}")
	eventually(t, "there are two channels", func() bool { return r.Pusher.Stats().Channels == 2 })
	a.Close(websocket.StatusNormalClosure, "")
	b.Close(websocket.StatusNormalClosure, "")
	eventually(t, "nothing is left", func() bool {
		s := r.Pusher.Stats()
		return s.Channels == 0 && s.Apps[0].Connections == 0
	})
}

func TestClientEventsReachOthers(t *testing.T) {
	t.Parallel()
	r := start(t, pusher.Options{}, server.Options{})
	for _, channel := range []string{"private-room", "private-cache-room"} {
		a, b := r.open(), r.open()
		a.subscribe(channel)
		b.subscribe(channel)
		if strings.Contains(channel, "cache") {
			for _, c := range []*client{a, b} {
				if m := c.next(); m.Event != "pusher:cache_miss" || m.Channel != channel {
					t.Errorf("got %+v", m)
				}
			}
		}
		for i := range 5 {
			a.say(channel, "client-typed", map[string]int{"n": i})
			if m := b.next(); m.Event != "client-typed" || m.Channel != channel || string(m.Data) != fmt.Sprintf(`{"n":%d}`, i) || m.UserID != "" {
				t.Fatalf("got %+v", m)
			}
		}
		a.nothing()
	}
}

func TestPresence(t *testing.T) {
	t.Parallel()
	r := start(t, pusher.Options{}, server.Options{})
	const room = "presence-room"
	anna, bob, again := r.open(), r.open(), r.open()
	anna.entered(room, "anna", "anna")
	bob.entered(room, "bob", "anna", "bob")
	anna.expect("pusher_internal:member_added", room, `{"user_id":"bob","user_info":"info of bob"}`)
	again.entered(room, "bob", "anna", "bob") // a second connection is the same member
	bob.say(room, "client-hi", "hello")
	for _, c := range []*client{anna, again} {
		if m := c.next(); m.Event != "client-hi" || m.UserID != "bob" || string(m.Data) != `"hello"` {
			t.Errorf("got %+v", m)
		}
	}
	again.ask("pusher:unsubscribe", map[string]string{"channel": room})
	again.nothing()
	anna.nothing()
	bob.Close(websocket.StatusNormalClosure, "")
	anna.expect("pusher_internal:member_removed", room, `{"user_id":"bob"}`)
	seven := r.open()
	seven.enter(room, `{"user_id":7,"user_info":{"name":"<Zoë>"}}`)
	anna.expect("pusher_internal:member_added", room, `{"user_id":"7","user_info":{"name":"<Zoë>"}}`)
	var got struct {
		Presence struct{ Hash map[string]json.RawMessage }
	}
	must(t, seven.next().data(&got))
	if string(got.Presence.Hash["7"]) != `{"name":"<Zoë>"}` {
		t.Errorf("got %s", got.Presence.Hash)
	}
	seven.CloseNow()
	anna.expect("pusher_internal:member_removed", room, `{"user_id":"7"}`)
}

func TestSubscribersAreCounted(t *testing.T) {
	t.Parallel()
	app := one
	app.SubscriptionCount = true
	r := start(t, pusher.Options{Apps: []pusher.App{app}}, server.Options{})
	a := r.open()
	a.subscribe("news")
	a.expect("pusher_internal:subscription_count", "news", `{"subscription_count":1}`)
	b := r.open()
	b.subscribe("news")
	a.expect("pusher_internal:subscription_count", "news", `{"subscription_count":2}`)
	b.expect("pusher_internal:subscription_count", "news", `{"subscription_count":2}`)
	b.CloseNow()
	a.expect("pusher_internal:subscription_count", "news", `{"subscription_count":1}`)
}

func TestUsersSignIn(t *testing.T) {
	t.Parallel()
	r := start(t, pusher.Options{}, server.Options{})
	c := r.open()
	who := `{"id":"anna","name":"Anna"}`
	for range 2 { // once more is no harm
		c.ask("pusher:signin", map[string]string{"auth": auth(c.socket, "", "user", "", who), "user_data": who})
		c.expect("pusher:signin_success", "", spell(map[string]string{"user_data": who}))
	}
	c.ask("pusher:subscribe", map[string]string{"channel": "#server-to-user-anna"})
	c.expect("pusher_internal:subscription_succeeded", "#server-to-user-anna", "{}")
	other := `{"id":"bob"}`
	c.ask("pusher:signin", map[string]string{"auth": auth(c.socket, "", "user", "", other), "user_data": other})
	c.refused(4009)
	c.ended(4009)
	r.told("signin_twice", 1)
}

// A handshake that is refused opens, tells the reason, and is closed with its code.
func TestHandshakesThatAreRefused(t *testing.T) {
	t.Parallel()
	apps := []pusher.App{
		{ID: "1", Key: key, Secret: secret, Origins: []string{"https://chat.example.com"}, Limits: pusher.Limits{Connections: 1}},
		{ID: "2", Key: "off", Secret: secret, Disabled: true},
		{ID: "3", Key: "tls", Secret: secret, TLSOnly: true},
	}
	r := start(t, pusher.Options{Apps: apps}, server.Options{})
	origin := func(o string) http.Header { return http.Header{"Origin": {o}} }
	for _, c := range []struct {
		path, fault string
		code        int
		header      http.Header
	}{
		{"/app/tls?protocol=7", "tls_only", 4000, nil},
		{"/app/nobody?protocol=7", "unknown_app", 4001, nil},
		{"/app/off?protocol=7", "app_disabled", 4003, nil},
		{"/", "unknown_path", 4005, nil},
		{"/apps/" + key, "unknown_path", 4005, nil},
		{"/app/" + key + "/x?protocol=7", "unknown_path", 4005, nil},
		{"/app/" + key + "?protocol=seven", "bad_version", 4006, nil},
		{"/app/" + key + "?protocol=7&version=%00", "bad_version", 4006, nil},
		{"/app/" + key + "?protocol=7&version=" + strings.Repeat("1", 65), "bad_version", 4006, nil},
		{"/app/" + key + "?protocol=8", "unsupported_protocol", 4007, nil},
		{"/app/" + key + "?protocol=4", "unsupported_protocol", 4007, nil},
		{"/app/" + key, "no_protocol", 4008, nil},
		{usual, "foreign_origin", 4009, origin("https://evil.example.com")},
	} {
		before := int(r.Pusher.Stats().Faults[c.fault])
		me := r.dial(c.path, c.header)
		me.refused(c.code)
		me.ended(c.code)
		r.told(c.fault, before+1)
	}
	ours := r.dial(usual, origin("https://chat.example.com"))
	if m := ours.next(); m.Event != "pusher:connection_established" {
		t.Errorf("got %+v", m)
	}
	behind := r.dial("/proxied/app/tls?protocol=7", http.Header{"X-Forwarded-Proto": {"https"}})
	if m := behind.next(); m.Event != "pusher:connection_established" {
		t.Errorf("got %+v", m)
	}
	second := r.dial(usual, nil)
	second.refused(4004)
	second.ended(4004)
	r.told("over_quota", 1)
	ours.CloseNow()
	eventually(t, "there is room again", func() bool { return r.Pusher.Stats().Apps[0].Connections == 0 })
	r.open()
}

// What a client does wrong is told and counted, and its connection goes on.
func TestMessagesThatAreRefused(t *testing.T) {
	t.Parallel()
	app := one
	app.Limits = pusher.Limits{EventBytes: 100, MemberBytes: 50, Members: 2, ClientEvents: 5}
	quiet := pusher.App{ID: "quiet", Key: "quiet", Secret: secret}
	r := start(t, pusher.Options{Apps: []pusher.App{app, quiet}}, server.Options{MaxSubscriptions: 4})
	c := r.open()
	c.subscribe("private-in")
	long := strings.Repeat("x", 101)
	wish := func(channel, auth string, more ...string) string {
		data := map[string]string{"channel": channel, "auth": auth}
		if len(more) > 0 {
			data["channel_data"] = more[0]
		}
		return spell(map[string]any{"event": "pusher:subscribe", "data": data})
	}
	signed := func(channel, who string) string { return wish(channel, auth(c.socket, channel, who), who) }
	tell := func(channel, event, data string) string {
		return spell(map[string]any{"event": event, "channel": channel, "data": data})
	}
	for _, m := range []struct{ text, fault string }{
		{`{`, "bad_json"}, {`[]`, "bad_json"}, {`"x"`, "bad_json"}, {`7`, "bad_json"}, {``, "bad_json"}, {`{"event":7}`, "bad_json"}, {`{} {}`, "bad_json"},
		{`{}`, "no_event"}, {`null`, "no_event"}, {`{"event":""}`, "no_event"},
		{`{"event":"pusher:unknown"}`, "unknown_event"}, {`{"event":"pusher_internal:member_added"}`, "unknown_event"}, {`{"event":"hello"}`, "unknown_event"},
		{`{"event":"pusher:subscribe"}`, "bad_data"}, {`{"event":"pusher:subscribe","data":7}`, "bad_data"}, {`{"event":"pusher:subscribe","data":"x"}`, "bad_data"},
		{`{"event":"pusher:subscribe","data":{"channel":7}}`, "bad_data"}, {`{"event":"pusher:unsubscribe","data":[]}`, "bad_data"}, {`{"event":"pusher:signin","data":""}`, "bad_data"},
		{`{"event":"pusher:unsubscribe","data":{"channel":"nowhere"}}`, "not_subscribed"},
		{wish("private-in", auth(c.socket, "private-in")), "subscribed_twice"},
		{tell("public", "client-x", ""), "client_event_channel"}, {tell("private-encrypted-x", "client-x", ""), "client_event_channel"}, {tell("", "client-x", ""), "client_event_channel"},
		{tell("private-out", "client-x", ""), "client_event_not_subscribed"},
		{tell("private-in", "client-"+strings.Repeat("x", 200), ""), "client_event_name"},
		{tell("private-in", "client-x", long), "client_event_too_large"},
	} {
		before := int(r.Pusher.Stats().Faults[m.fault])
		c.send(m.text)
		code := 4300
		if strings.HasPrefix(m.fault, "client_event") {
			code = 4301
		}
		c.refused(code)
		r.told(m.fault, before+1)
	}
	must(t, c.Write(t.Context(), websocket.MessageBinary, []byte("{}")))
	c.refused(4300)
	r.told("binary_message", 1)

	full := r.open()
	full.entered("presence-full", "a", "a")
	fuller := r.open()
	fuller.entered("presence-full", "b", "a", "b")
	for _, m := range []struct {
		text, fault string
		status      int
	}{
		{wish("", ""), "bad_channel", 400}, {wish("a b", ""), "bad_channel", 400}, {wish("#x", ""), "bad_channel", 400}, {wish("é", ""), "bad_channel", 400}, {wish("a/b", ""), "bad_channel", 400},
		{wish(strings.Repeat("x", 165), ""), "bad_channel", 400},
		{wish("private-x", ""), "no_auth", 401}, {wish("private-x", "x"), "no_auth", 401}, {wish("presence-x", ""), "no_auth", 401}, {wish("private-encrypted-x", ""), "no_auth", 401},
		{wish("private-x", "other:"+mac(c.socket+":private-x")), "auth_of_another_key", 401},
		{wish("private-x", key+":"), "auth_forged", 401}, {wish("private-x", auth("1.1", "private-x")), "auth_forged", 401}, {wish("private-x", auth(c.socket, "private-y")), "auth_forged", 401},
		{wish("presence-x", auth(c.socket, "presence-x", `{"user_id":"1"}`), `{"user_id":"2"}`), "auth_forged", 401},
		{signed("presence-x", ``), "bad_member", 400}, {signed("presence-x", `7`), "bad_member", 400}, {signed("presence-x", `{}`), "bad_member", 400}, {signed("presence-x", `{"user_id":true}`), "bad_member", 400},
		{signed("presence-x", spell(map[string]string{"user_id": strings.Repeat("x", 129)})), "bad_member", 400}, {signed("presence-x", `{"user_id":"a\u0000"}`), "bad_member", 400},
		{signed("presence-x", spell(map[string]string{"user_id": "1", "user_info": long})), "member_too_large", 413},
		{signed("presence-full", `{"user_id":"c"}`), "too_many_members", 403},
		{wish("#server-to-user-anna", ""), "another_user", 401}, {wish("#server-to-user-", ""), "another_user", 401},
	} {
		before := int(r.Pusher.Stats().Faults[m.fault])
		c.send(m.text)
		var why struct {
			Type, Error string
			Status      int
		}
		got := c.next()
		if err := got.data(&why); err != nil || got.Event != "pusher:subscription_error" || why.Status != m.status || why.Type == "" || why.Error == "" {
			t.Errorf("%.80s is answered %+v %s", m.text, got, got.Data)
		}
		r.told(m.fault, before+1)
	}
	for _, more := range []string{"x", "y", "z"} {
		c.subscribe(more)
	}
	c.ask("pusher:subscribe", map[string]string{"channel": "w"})
	if m := c.next(); m.Event != "pusher:subscription_error" || m.Channel != "w" {
		t.Errorf("got %+v", m)
	}
	r.told("too_many_subscriptions", 1)

	for range 200 {
		c.say("private-in", "client-x", "")
	}
	c.refused(4301)
	eventually(t, "some were too many", func() bool { return r.Pusher.Stats().Faults["client_event_rate"] > 0 })
	fuller.nothing()

	mute := r.dial("/app/quiet?protocol=7", nil)
	mute.next()
	mute.say("private-in", "client-x", "")
	mute.refused(4301)
	r.told("client_events_off", 1)
}

func TestSigningInThatIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t, pusher.Options{}, server.Options{})
	for i, bad := range []struct{ who, auth, fault string }{
		{`{"id":"1"}`, "", "signin_forged"}, {`{"id":"1"}`, key + ":00", "signin_forged"}, {`{"id":"1"}`, "other:00", "signin_forged"},
		{``, "good", "signin_bad_user"}, {`{}`, "good", "signin_bad_user"}, {`{"id":""}`, "good", "signin_bad_user"}, {`{"id":"a\u0085"}`, "good", "signin_bad_user"}, {`{"id":"` + strings.Repeat("x", 129) + `"}`, "good", "signin_bad_user"},
	} {
		c := r.open()
		if bad.auth == "good" {
			bad.auth = auth(c.socket, "", "user", "", bad.who)
		}
		before := int(r.Pusher.Stats().Faults[bad.fault])
		c.ask("pusher:signin", map[string]string{"auth": bad.auth, "user_data": bad.who})
		c.refused(4009)
		c.ended(4009)
		if r.told(bad.fault, before+1); t.Failed() {
			t.Fatal(i)
		}
	}
}

func TestAppsChange(t *testing.T) {
	t.Parallel()
	r := start(t, pusher.Options{}, server.Options{})
	c := r.open()
	if err := r.Reload([]pusher.App{one, one}); err == nil {
		t.Error("two of one id were accepted")
	}
	c.nothing()
	two := pusher.App{ID: "2", Key: "two", Secret: secret}
	must(t, r.Reload([]pusher.App{two}))
	c.refused(4003)
	c.ended(4003)
	if m := r.dial("/app/two?protocol=7", nil).next(); m.Event != "pusher:connection_established" {
		t.Errorf("got %+v", m)
	}
	r.dial(usual, nil).refused(4001)
	must(t, r.Reload([]pusher.App{one, two}))
	r.open()
}

func TestAppsThatCannotBe(t *testing.T) {
	t.Parallel()
	for text, a := range map[string]pusher.App{
		"id must be":       {ID: "a/b", Key: "k", Secret: "s"},
		"id must":          {Key: "k", Secret: "s"},
		"key must":         {ID: "1", Secret: "s"},
		"no secret":        {ID: "1", Key: "k"},
		"must not":         {ID: "1", Key: "k", Secret: "s", Limits: pusher.Limits{Batch: -1}},
		"member_bytes":     {ID: "1", Key: "k", Secret: "s", Limits: pusher.Limits{MemberBytes: 2000}},
		"its origins: ori": {ID: "1", Key: "k", Secret: "s", Origins: []string{"*"}},
	} {
		if _, err := pusher.New(pusher.Options{Apps: []pusher.App{a}}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
