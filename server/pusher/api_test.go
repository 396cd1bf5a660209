package pusher_test

import (
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/pusher"
)

// request is a publisher's. Fields that are not set are as they should be.
type request struct {
	method, path, body string
	query              map[string]string // more of it; a parameter that is "-" is left out
	change             func(url.Values)  // after it was signed
}

// do makes a request, and returns its status and what was answered.
func (q request) do(t testing.TB, api string) (*http.Response, string) {
	t.Helper()
	v := map[string]string{"auth_key": key, "auth_timestamp": strconv.FormatInt(time.Now().Unix(), 10), "auth_version": "1.0"}
	if q.body != "" {
		sum := md5.Sum([]byte(q.body))
		v["body_md5"] = hex.EncodeToString(sum[:])
		q.method = cmp.Or(q.method, "POST")
	}
	q.method = cmp.Or(q.method, "GET")
	for name, value := range q.query {
		if v[name] = value; value == "-" {
			delete(v, name)
		}
	}
	var pairs []string
	values := url.Values{}
	for name, value := range v {
		pairs = append(pairs, name+"="+value)
		values.Set(name, value)
	}
	slices.Sort(pairs)
	values.Set("auth_signature", mac(q.method+"\n"+q.path+"\n"+strings.Join(pairs, "&")))
	if q.change != nil {
		q.change(values)
	}
	r, err := http.NewRequest(q.method, api+q.path+"?"+values.Encode(), strings.NewReader(q.body))
	must(t, err)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer, string(body)
}

// api serves the API of r.
func (r *running) api() string {
	s := httptest.NewServer(r.API())
	r.t.Cleanup(s.Close)
	return s.URL
}

// asks makes a request that is answered with JSON.
func asks(t testing.TB, api string, q request, want string) {
	t.Helper()
	answer, body := q.do(t, api)
	var got, wanted any
	must(t, json.Unmarshal([]byte(want), &wanted))
	if err := json.Unmarshal([]byte(body), &got); err != nil || answer.StatusCode != http.StatusOK || !reflect.DeepEqual(got, wanted) {
		t.Errorf("%s %s is answered %s %s, want %s", q.path, q.body, answer.Status, body, want)
	}
}

func TestEventsArePublished(t *testing.T) {
	t.Parallel()
	r := start(t, pusher.Options{}, server.Options{})
	api := r.api()
	a, b := r.open(), r.open()
	for _, c := range []*client{a, b} {
		c.subscribe("news")
		c.subscribe("private-encrypted-x")
	}
	publish := func(fields string) {
		t.Helper()
		asks(t, api, request{path: "/apps/1/events", body: fields}, `{}`)
	}
	expect := func(c *client, event, channel, data string) {
		t.Helper()
		if m := c.next(); m.Event != event || m.Channel != channel || string(m.Data) != spell(data) {
			t.Fatalf("got %+v %s", m, m.Data)
		}
	}
	publish(`{"name":"said","channels":["news"],"data":"{\"text\":\"<hi>\"}"}`)
	for _, c := range []*client{a, b} {
		var said struct{ Text string }
		if m := c.next(); m.Event != "said" || m.data(&said) != nil || said.Text != "<hi>" {
			t.Fatalf("got %+v", m)
		}
	}
	publish(fmt.Sprintf(`{"name":"said","channel":"news","data":"1","socket_id":%q}`, a.socket))
	publish(`{"name":"said","channel":"news","data":"2","socket_id":"1.1"}`) // another server's
	publish(`{"name":"secret","channel":"private-encrypted-x","data":"{\"nonce\":\"n\"}"}`)
	expect(b, "said", "news", "1")
	for _, c := range []*client{a, b} {
		expect(c, "said", "news", "2")
		expect(c, "secret", "private-encrypted-x", `{"nonce":"n"}`)
	}
	asks(t, api, request{path: "/apps/1/batch_events", body: `{"batch":[{"name":"one","channel":"news","data":"1"},{"name":"two","channel":"nobody","data":"2"}]}`}, `{}`)
	expect(a, "one", "news", "1")
	asks(t, api, request{path: "/apps/1/batch_events", body: `{"batch":[{"name":"one","channel":"news","data":"3","info":"subscription_count"},{"name":"two","channel":"x","data":""}]}`},
		`{"batch":[{"subscription_count":2},{}]}`)
	asks(t, api, request{path: "/apps/1/events", body: `{"name":"x","channels":["news","presence-x"],"data":"","info":"subscription_count"}`},
		`{"channels":{"news":{"subscription_count":2},"presence-x":{"subscription_count":0}}}`)
	if n := r.Pusher.Stats().Published; n != 10 {
		t.Errorf("%d events were published", n)
	}
}

func TestACacheChannelHasItsLastEvent(t *testing.T) {
	t.Parallel()
	r := start(t, pusher.Options{CacheBytes: 1500}, server.Options{})
	api := r.api()
	publish := func(channel, data string) {
		t.Helper()
		asks(t, api, request{path: "/apps/1/events", body: spell(map[string]string{"name": "price", "channel": channel, "data": data})}, `{}`)
	}
	const channel = "cache-a"
	publish(channel, "1")
	publish(channel, "2")
	publish("news", "not kept")
	c := r.open()
	c.subscribe(channel)
	if m := c.next(); m.Event != "price" || m.Channel != channel || string(m.Data) != `"2"` {
		t.Errorf("got %+v", m)
	}
	publish(channel, "3")
	if m := c.next(); string(m.Data) != `"3"` {
		t.Errorf("got %+v", m)
	}
	var info struct {
		Cache struct {
			Data string
			TTL  int
		}
	}
	_, body := request{path: "/apps/1/channels/" + channel, query: map[string]string{"info": "cache"}}.do(t, api)
	if err := json.Unmarshal([]byte(body), &info); err != nil || info.Cache.Data != "3" || info.Cache.TTL < 1000 || info.Cache.TTL > 1800 {
		t.Errorf("%v in %s", err, body)
	}
	for i := range 5 {
		publish("cache-"+string(rune('b'+i)), "x")
	}
	other := r.open()
	other.subscribe(channel)
	if m := other.next(); m.Event != "pusher:cache_miss" || m.Channel != channel {
		t.Errorf("got %+v", m)
	}
	if s := r.Pusher.Stats(); s.CacheEvicted == 0 || s.CacheBytes > 1500 {
		t.Errorf("%+v", s)
	}
}

func TestAUserGetsEventsAndIsTerminated(t *testing.T) {
	t.Parallel()
	r := start(t, pusher.Options{}, server.Options{})
	api := r.api()
	var all []*client
	for _, user := range []string{"anna z", "anna z", "bob"} {
		c := r.open()
		who := spell(map[string]string{"id": user})
		c.ask("pusher:signin", map[string]string{"auth": auth(c.socket, "", "user", "", who), "user_data": who})
		c.next()
		all = append(all, c)
	}
	asks(t, api, request{path: "/apps/1/events", body: `{"name":"for you","channels":["#server-to-user-anna z"],"data":"hello"}`}, `{}`)
	for _, c := range all[:2] {
		if m := c.next(); m.Event != "for you" || m.Channel != "#server-to-user-anna z" || string(m.Data) != `"hello"` {
			t.Errorf("got %+v", m)
		}
	}
	asks(t, api, request{path: "/apps/1/users/anna z/terminate_connections", method: "POST"}, `{}`)
	for _, c := range all[:2] {
		c.refused(4009)
		c.ended(4009)
	}
	all[2].nothing()
	r.told("terminated", 2)
}

func TestChannelsAreListed(t *testing.T) {
	t.Parallel()
	r := start(t, pusher.Options{Apps: []pusher.App{one, {ID: "2", Key: "two", Secret: secret}}}, server.Options{})
	api := r.api()
	a, b := r.open(), r.open()
	a.subscribe("news")
	b.subscribe("news")
	a.entered("presence-room", "anna", "anna")
	b.entered("presence-room", "bob", "anna", "bob")
	asks(t, api, request{path: "/apps/1/channels"}, `{"channels":{"news":{},"presence-room":{}}}`)
	asks(t, api, request{path: "/apps/1/channels", query: map[string]string{"filter_by_prefix": "presence-", "info": "user_count"}}, `{"channels":{"presence-room":{"user_count":2}}}`)
	asks(t, api, request{path: "/apps/1/channels", query: map[string]string{"info": "subscription_count", "filter_by_prefix": "n"}}, `{"channels":{"news":{"subscription_count":2}}}`)
	asks(t, api, request{path: "/apps/1/channels/news", query: map[string]string{"info": "subscription_count"}}, `{"occupied":true,"subscription_count":2}`)
	asks(t, api, request{path: "/apps/1/channels/presence-room", query: map[string]string{"info": "user_count,subscription_count"}}, `{"occupied":true,"user_count":2,"subscription_count":2}`)
	asks(t, api, request{path: "/apps/1/channels/nobody", query: map[string]string{"info": "subscription_count"}}, `{"occupied":false,"subscription_count":0}`)
	asks(t, api, request{path: "/apps/1/channels/presence-nobody/users"}, `{"users":[]}`)
	b.CloseNow()
	a.expect("pusher_internal:member_added", "presence-room", `{"user_id":"bob","user_info":"info of bob"}`)
	a.expect("pusher_internal:member_removed", "presence-room", `{"user_id":"bob"}`)
	asks(t, api, request{path: "/apps/1/channels/presence-room/users"}, `{"users":[{"id":"anna"}]}`)
	other := func(v url.Values) { v.Set("auth_key", "two") }
	if answer, _ := (request{path: "/apps/2/channels", query: map[string]string{"auth_key": "two"}, change: other}).do(t, api); answer.StatusCode != http.StatusOK {
		t.Errorf("another app: %s", answer.Status)
	}
}

// What a publisher does wrong is answered and counted.
func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	app := one
	app.Limits = pusher.Limits{EventBytes: 100, EventChannels: 3, Batch: 2, Events: 1}
	r := start(t, pusher.Options{Apps: []pusher.App{app, {ID: "off", Key: key + "2", Secret: secret, Disabled: true}}}, server.Options{})
	api := r.api()
	const events, batch = "/apps/1/events", "/apps/1/batch_events"
	good := `{"name":"x","channel":"c","data":""}`
	set := func(name, value string) func(url.Values) { return func(v url.Values) { v.Set(name, value) } }
	q := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	at := func(d time.Duration) string { return strconv.FormatInt(time.Now().Add(d).Unix(), 10) }
	for _, c := range []struct {
		fault  string
		status int
		request
	}{
		{"api_unknown_path", 404, request{path: "/"}}, {"api_unknown_path", 404, request{path: "/apps/1"}}, {"api_unknown_path", 404, request{path: "/apps/1/other"}},
		{"api_unknown_path", 404, request{path: "/apps/1/events/x"}}, {"api_unknown_path", 404, request{path: "/apps/1/users/x"}},
		{"api_wrong_method", 405, request{path: events}}, {"api_wrong_method", 405, request{path: "/apps/1/channels", method: "POST"}},
		{"api_unknown_app", 404, request{path: "/apps/2/events", body: good}},
		{"api_app_disabled", 403, request{path: "/apps/off/channels", query: q("auth_key", key+"2")}},
		{"api_unsigned", 401, request{path: events, body: good, query: q("auth_key", "-")}}, {"api_unsigned", 401, request{path: events, body: good, query: q("auth_timestamp", "-")}},
		{"api_unsigned", 401, request{path: events, body: good, query: q("auth_version", "-")}}, {"api_unsigned", 401, request{path: events, body: good, change: func(v url.Values) { v.Del("auth_signature") }}},
		{"api_wrong_key", 401, request{path: events, body: good, query: q("auth_key", "x")}},
		{"api_auth_version", 401, request{path: events, body: good, query: q("auth_version", "2.0")}},
		{"api_bad_timestamp", 401, request{path: events, body: good, query: q("auth_timestamp", "now")}},
		{"api_old_timestamp", 401, request{path: events, body: good, query: q("auth_timestamp", at(-700*time.Second))}}, {"api_old_timestamp", 401, request{path: events, body: good, query: q("auth_timestamp", at(700*time.Second))}},
		{"api_old_timestamp", 401, request{path: events, body: good, query: q("auth_timestamp", "-9223372036854775808")}},
		{"api_forged", 401, request{path: events, body: good, change: set("auth_signature", strings.Repeat("0", 64))}}, {"api_forged", 401, request{path: "/apps/1/channels", change: set("info", "user_count")}},
		{"api_repeated_parameter", 401, request{path: events, body: good, change: func(v url.Values) { v.Add("auth_key", key) }}},
		{"api_no_body_md5", 401, request{path: events, body: good, query: q("body_md5", "-")}}, {"api_wrong_body_md5", 401, request{path: events, body: good, query: q("body_md5", strings.Repeat("0", 32))}},
		{"api_body_too_large", 413, request{path: events, body: strings.Repeat("x", 30<<10)}},
		{"api_bad_json", 400, request{path: events, body: "{"}}, {"api_bad_json", 400, request{path: events, body: "[]"}}, {"api_bad_json", 400, request{path: events, body: `{"name":"x","channel":"c","data":{}}`}},
		{"api_bad_json", 400, request{path: batch, body: `{"batch":{}}`}}, {"api_bad_json", 400, request{path: events, method: "POST"}},
		{"api_no_name", 400, request{path: events, body: `{}`}}, {"api_bad_name", 400, request{path: events, body: fmt.Sprintf(`{"name":%q}`, strings.Repeat("x", 201))}},
		{"api_reserved_name", 400, request{path: events, body: `{"name":"pusher:error","channel":"c","data":""}`}}, {"api_reserved_name", 400, request{path: events, body: `{"name":"pusher_internal:x"}`}},
		{"api_no_data", 400, request{path: events, body: `{"name":"x","channel":"c"}`}}, {"api_no_data", 400, request{path: events, body: `{"name":"x","channel":"c","data":null}`}},
		{"api_data_too_large", 413, request{path: events, body: fmt.Sprintf(`{"name":"x","channel":"c","data":%q}`, strings.Repeat("x", 101))}},
		{"api_no_channels", 400, request{path: events, body: `{"name":"x","data":""}`}}, {"api_no_channels", 400, request{path: events, body: `{"name":"x","data":"","channels":[]}`}},
		{"api_too_many_channels", 400, request{path: events, body: `{"name":"x","data":"","channels":["a","b","c","d"]}`}},
		{"api_bad_channel", 400, request{path: events, body: `{"name":"x","data":"","channel":"a b"}`}}, {"api_bad_channel", 400, request{path: events, body: fmt.Sprintf(`{"name":"x","data":"","channel":%q}`, strings.Repeat("x", 165))}},
		{"api_bad_channel", 400, request{path: events, body: `{"name":"x","data":"","channel":"#server-to-user-"}`}}, {"api_bad_channel", 400, request{path: events, body: `{"name":"x","data":"","channels":["a",""]}`}},
		{"api_bad_channel", 400, request{path: "/apps/1/channels/a b"}}, {"api_bad_channel", 400, request{path: "/apps/1/channels/a b/users"}},
		{"api_encrypted_with_others", 400, request{path: events, body: `{"name":"x","data":"","channels":["a","private-encrypted-b"]}`}},
		{"api_bad_socket_id", 400, request{path: events, body: `{"name":"x","data":"","channel":"a","socket_id":"x"}`}}, {"api_bad_socket_id", 400, request{path: events, body: `{"name":"x","data":"","channel":"a","socket_id":"1.2.3"}`}},
		{"api_empty_batch", 400, request{path: batch, body: `{"batch":[]}`}}, {"api_batch_too_large", 400, request{path: batch, body: `{"batch":[{},{},{}]}`}}, {"api_no_name", 400, request{path: batch, body: `{"batch":[` + good + `,{}]}`}},
		{"api_bad_info", 400, request{path: events, body: `{"name":"x","data":"","channel":"a","info":"user_count"}`}}, {"api_bad_info", 400, request{path: "/apps/1/channels/a", query: q("info", "everything")}},
		{"api_bad_info", 400, request{path: "/apps/1/channels/a", query: q("info", "cache")}}, {"api_bad_info", 400, request{path: "/apps/1/channels", query: q("info", "cache")}},
		{"api_user_count_prefix", 400, request{path: "/apps/1/channels", query: q("info", "user_count")}},
		{"api_no_presence", 400, request{path: "/apps/1/channels/news/users"}},
		{"api_bad_user", 400, request{path: "/apps/1/users/" + strings.Repeat("x", 129) + "/terminate_connections", method: "POST"}},
	} {
		before := int(r.Pusher.Stats().Faults[c.fault])
		answer, body := c.do(t, api)
		if answer.StatusCode != c.status || body == "" {
			t.Errorf("%s: %s %s", c.fault, answer.Status, body)
		}
		r.told(c.fault, before+1)
	}
	for range 7 { // six may come at once
		answer, _ := request{path: events, body: good}.do(t, api)
		if answer.StatusCode != http.StatusOK {
			if answer.StatusCode != http.StatusTooManyRequests || answer.Header.Get("Retry-After") != "1" {
				t.Errorf("too fast: %s %v", answer.Status, answer.Header)
			}
			break
		}
	}
	eventually(t, "it was too fast", func() bool {
		_, _ = request{path: events, body: good}.do(t, api)
		return r.Pusher.Stats().Faults["api_too_fast"] > 0
	})
}
