package hooks_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/hooks"
)

func TestABackendIsToldOfALifeInItsOrder(t *testing.T) {
	t.Parallel()
	a := startApp(t, &app{})
	r := startFor(t, a, hooks.Options{})
	c, _, err := r.dial("/chat/caf%C3%A9?room=1&x=%20", &websocket.DialOptions{
		Subprotocols: []string{"chat.v2", "chat.v1"},
		HTTPHeader:   http.Header{"Cookie": {"a=b", "c=d"}, "Authorization": {"Bearer x"}, "X-Other": {"1"}, "User-Agent": {"me"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	me := &client{c, t}
	me.send("one", "two")
	me.expect("one", "two")
	must(t, me.Write(t.Context(), websocket.MessageBinary, []byte{0, 255}))
	if kind, got, err := me.Read(t.Context()); kind != websocket.MessageBinary || string(got) != "\x00\xff" {
		t.Errorf("got %v %q, %v", kind, got, err)
	}
	me.leave()
	r.counted("disconnects_told", 1)
	calls := a.told("")
	var events []string
	ids := map[string]bool{}
	for _, c := range calls {
		events = append(events, c.event)
		ids[c.id] = true
		if c.connection != calls[0].connection || c.request.URL.Path != "/lull" || c.request.Method != http.MethodPost {
			t.Errorf("%+v does not belong to %s", c, calls[0].connection)
		}
	}
	if got := strings.Join(events, " "); got != "connect message message message disconnect" || len(ids) != len(calls) {
		t.Errorf("told %s, with %d IDs", got, len(ids))
	}
	var told, want map[string]any
	must(t, json.Unmarshal([]byte(calls[0].body), &told))
	if told["remote"] == "" {
		t.Error("it has no address")
	}
	delete(told, "remote")
	must(t, json.Unmarshal([]byte(`{"path": "/chat/caf%C3%A9", "query": "room=1&x=%20", "protocols": ["chat.v2", "chat.v1"],
		"headers": {"Cookie": "a=b; c=d", "Authorization": "Bearer x", "User-Agent": "me"}}`), &want))
	if !reflect.DeepEqual(told, want) {
		t.Errorf("told %v, not %v", told, want)
	}
	if h := calls[0].request.Header; h["Cookie"][0] != "a=b" || h.Get("Authorization") != "Bearer x" || h.Get("X-Other") != "" {
		t.Errorf("the call's own headers are %v", h)
	}
	if got := calls[1].request.Header.Get("Content-Type") + calls[3].request.Header.Get("Content-Type"); got != "text/plain; charset=utf-8application/octet-stream" {
		t.Errorf("the messages are %s", got)
	}
	if got := calls[4].body; got != `{"code":1000,"cause":"closed"}` {
		t.Errorf("told of the end: %s", got)
	}
}

func TestABackendWelcomesAConnection(t *testing.T) {
	t.Parallel()
	a := startApp(t, &app{
		connect: func(w http.ResponseWriter, c call) {
			welcome(w, map[string]any{"user": "Zoë/1", "topics": []string{"room 1"}, "protocol": "v2", "expires_in": 3600, "messages": words("hello there")})
		},
		message: func(w http.ResponseWriter, c call) { fmt.Fprint(w, c.user) },
	})
	r := startFor(t, a, hooks.Options{})
	c, answer, err := r.dial("/", &websocket.DialOptions{Subprotocols: []string{"v1", "v2"}})
	if err != nil || answer.Header.Get("Sec-WebSocket-Protocol") != "v2" {
		t.Fatal(answer, err)
	}
	me := &client{c, t}
	me.expect("hello", "there")
	me.send("who am I?")
	me.expect("Zo%C3%AB%2F1")
	me.CloseNow()
	r.counted("disconnects_told", 1)
	if end := a.told("disconnect")[0]; end.body != `{"code":1006,"cause":"gone"}` || end.user != "Zo%C3%AB%2F1" {
		t.Errorf("told of the end: %+v", end)
	}
}

func TestABackendRefusesAConnection(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	a := startApp(t, &app{connect: func(w http.ResponseWriter, c call) {
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Location", "/login")
		w.Header().Set("X-Secret", "1")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(int(status.Load()))
		fmt.Fprint(w, "log in first")
	}})
	r := startFor(t, a, hooks.Options{})
	for i, s := range []int{302, 400, 401, 403, 404, 410, 429, 500, 501} {
		status.Store(int64(s))
		answer := r.refused("/", &websocket.DialOptions{HTTPClient: noRedirects})
		body, _ := io.ReadAll(answer.Body)
		if answer.StatusCode != s || answer.Header.Get("Retry-After") != "7" || answer.Header.Get("Location") != "/login" ||
			answer.Header.Get("X-Secret") != "" || string(body) != "log in first\n" {
			t.Errorf("%d is %d %v %q", s, answer.StatusCode, answer.Header, body)
		}
		r.counted("connects_refused", i+1)
	}
	if n := len(a.told("disconnect")); n != 0 {
		t.Errorf("told of %d ends", n)
	}
}

var noRedirects = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func TestWhatABackendCannotMean(t *testing.T) {
	t.Parallel()
	var answer atomic.Value
	a := startApp(t, &app{connect: func(w http.ResponseWriter, c call) { _, _ = io.WriteString(w, answer.Load().(string)) }})
	r := startFor(t, a, hooks.Options{})
	for i, text := range []string{
		"{", "[]", `"hello"`, `{"user": 7}`, `{"name": "x"}`, `{} {}`, `{"topics": "x"}`, "\xff\xfe",
		`{"user": "` + strings.Repeat("x", 196) + `"}`, `{"user": "a\u0000b"}`, `{"topics": [""]}`, `{"topics": ["user:bob"]}`, `{"topics": ["a\nb"]}`,
		`{"topics": ["` + strings.Repeat("x", 201) + `"]}`, `{"topics": ["x"` + strings.Repeat(`,"x"`, 99) + `]}`,
		`{"protocol": "none"}`, `{"expires_in": -1}`, `{"messages": [""` + strings.Repeat(`,""`, 100) + `]}`,
	} {
		answer.Store(text)
		if got := r.refused("/", nil); got.StatusCode != http.StatusBadGateway {
			t.Errorf("%.50s is answered %d", text, got.StatusCode)
		}
		r.counted("answers_bad", i+1)
	}
	eventually(t, "no connection is open", func() bool { return r.Server.Stats().Open == 0 })
}

func TestPathsHaveBackends(t *testing.T) {
	t.Parallel()
	all, chat, room := startApp(t, &app{}), startApp(t, &app{}), startApp(t, &app{})
	r := startHooks(t, hooks.Options{Backends: []hooks.Backend{{URL: chat.URL, Path: "/chat"}, {URL: all.URL + "/a?b=c", Path: "/api/"}, {URL: room.URL, Path: "/chat/room"}}}, server.Options{})
	for path, want := range map[string]*app{"/chat": chat, "/chat/": chat, "/chat/roomy": chat, "/chat/room": room, "/chat/room/1?x": room, "/api": all, "/api/x": all} {
		before := len(want.told("connect"))
		c := r.open(path)
		c.send("x")
		c.expect("x")
		if n := len(want.told("connect")); n != before+1 {
			t.Errorf("%s came to another backend", path)
		}
	}
	if uri := all.told("connect")[0].request.RequestURI; uri != "/a?b=c" {
		t.Errorf("the path is %s", uri)
	}
	for _, path := range []string{"/", "/chats", "/Chat"} {
		if got := r.refused(path, nil); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.StatusCode)
		}
	}
	if n := r.Hooks.Stats().NoPath; n != 3 {
		t.Errorf("%d had no path", n)
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	t.Parallel()
	one := []hooks.Backend{{URL: "http://localhost"}}
	for text, o := range map[string]hooks.Options{
		"there is none":       {},
		"two for path":        {Backends: []hooks.Backend{one[0], one[0]}},
		"does not begin":      {Backends: []hooks.Backend{{URL: one[0].URL, Path: "chat"}}},
		"http://":             {Backends: []hooks.Backend{{URL: "ftp://x/"}}},
		"a host":              {Backends: []hooks.Backend{{URL: "http:///x"}}},
		"no user":             {Backends: []hooks.Backend{{URL: "http://a:b@x/"}}},
		"unix socket":         {Backends: []hooks.Backend{{URL: "unix:relative"}}},
		"missing":             {Backends: []hooks.Backend{{URL: ":"}}},
		"Concurrency":         {Backends: one, Concurrency: -1},
		"negative":            {Backends: one, Retries: -1},
		"Node":                {Backends: one, Node: "a/b"},
		`"Host"`:              {Backends: one, Headers: []string{"host"}},
		`"Lull-User"`:         {Backends: one, Headers: []string{"lull-user"}},
		`"Sec-Websocket-Key"`: {Backends: one, Headers: []string{"Sec-WebSocket-Key"}},
		`"X: y"`:              {Backends: one, Headers: []string{"X: y"}},
	} {
		if _, err := hooks.New(o); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
