package pusher_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/pusher"
)

// backend is told by webhooks. It keeps what it is told with a right signature.
type backend struct {
	*httptest.Server
	mu     sync.Mutex
	events []string // guarded by mu
	deaf   atomic.Bool
	asked  atomic.Int64
}

func startBackend(t testing.TB) *backend {
	b := new(backend)
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.asked.Add(1)
		if b.deaf.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if r.Header.Get("X-Pusher-Key") != key || r.Header.Get("X-Pusher-Signature") != mac(string(body)) || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v of %s", r.Header, body)
		}
		var told struct {
			Time   int64 `json:"time_ms"`
			Events []struct {
				Name, Channel, Event string
				UserID               string          `json:"user_id"`
				SocketID             string          `json:"socket_id"`
				Data                 json.RawMessage `json:"data"`
				Count                *int            `json:"subscription_count"`
			}
		}
		if err := json.Unmarshal(body, &told); err != nil || time.Since(time.UnixMilli(told.Time)) > time.Hour {
			t.Errorf("%v: %s", err, body)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, e := range told.Events {
			text := strings.TrimSpace(e.Name + " " + e.Channel + " " + e.UserID + e.Event + string(e.Data))
			if e.Count != nil {
				text += " counted"
			}
			b.events = append(b.events, text)
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) told() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.events...)
}

var everyEvent = []string{"channel_occupied", "channel_vacated", "member_added", "member_removed", "client_event", "cache_miss", "subscription_count"}

func TestWebhooksAreToldInOrder(t *testing.T) {
	t.Parallel()
	all, some := startBackend(t), startBackend(t)
	app := one
	app.Webhooks = []pusher.Webhook{{URL: all.URL + "/hook", Events: everyEvent}, {URL: some.URL, Events: []string{"channel_occupied"}, Prefix: "cache-"}}
	r := start(t, pusher.Options{Apps: []pusher.App{app}}, server.Options{})
	a, b := r.open(), r.open()
	a.entered("presence-room", "anna", "anna")
	b.entered("presence-room", "bob", "anna", "bob")
	a.next()
	a.say("presence-room", "client-typed", map[string]int{"n": 1})
	b.next()
	a.subscribe("cache-x")
	a.next()
	b.CloseNow()
	a.next()
	a.CloseNow()
	want := []string{
		"channel_occupied presence-room", "member_added presence-room anna", "member_added presence-room bob", `client_event presence-room annaclient-typed{"n":1}`,
		"channel_occupied cache-x", "cache_miss cache-x", "member_removed presence-room bob",
	}
	eventually(t, "all is told", func() bool { return len(all.told()) >= len(want)+3 && len(some.told()) == 1 })
	got := all.told()
	for i, w := range want {
		if got[i] != w {
			t.Errorf("%d is %q, not %q", i, got[i], w)
		}
	}
	if some := some.told()[0]; some != "channel_occupied cache-x" {
		t.Errorf("told %s", some)
	}
}

func TestAWebhookThatFailsIsToldLater(t *testing.T) {
	t.Parallel()
	b := startBackend(t)
	b.deaf.Store(true)
	app := one
	app.Webhooks = []pusher.Webhook{{URL: b.URL, Events: everyEvent}}
	r := start(t, pusher.Options{Apps: []pusher.App{app}, WebhookRetry: time.Millisecond}, server.Options{})
	c := r.open()
	c.subscribe("x")
	eventually(t, "it was tried again", func() bool { return b.asked.Load() > 2 })
	eventually(t, "it is known to fail", func() bool { h := r.Pusher.Stats().Hooks[0]; return !h.Since.IsZero() && h.Cause != "" })
	c.subscribe("y")
	b.deaf.Store(false)
	eventually(t, "both are told", func() bool { return strings.Join(b.told(), ", ") == "channel_occupied x, channel_occupied y" })
	eventually(t, "it is well again", func() bool {
		s := r.Pusher.Stats()
		return s.Hooks[0].Since.IsZero() && s.HookEvents == 2 && s.HookLost == 0 && s.HookFailures > 0
	})
}

func TestWhatAWebhookIsNotToldIsCounted(t *testing.T) {
	t.Parallel()
	b := startBackend(t)
	b.deaf.Store(true)
	app := one
	app.Webhooks = []pusher.Webhook{{URL: b.URL, Events: everyEvent}}
	r := start(t, pusher.Options{Apps: []pusher.App{app}, WebhookRetry: time.Millisecond, WebhookTime: time.Millisecond}, server.Options{})
	r.open().subscribe("x")
	eventually(t, "it is lost", func() bool { return r.Pusher.Stats().HookLost == 1 })
	must(t, r.Reload([]pusher.App{one}))
	r.open().subscribe("y")
	if s := r.Pusher.Stats(); len(s.Hooks) != 0 {
		t.Errorf("%+v", s.Hooks)
	}
}

func TestWebhooksThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, hooks := range [][]pusher.Webhook{
		{{URL: "ftp://x/", Events: everyEvent}}, {{URL: "http:///x", Events: everyEvent}}, {{URL: "http://a:b@x/", Events: everyEvent}},
		{{URL: "http://x/"}}, {{URL: "http://x/", Events: []string{"other"}}}, {{URL: "http://x/", Events: everyEvent}, {URL: "http://x/", Events: everyEvent}},
		make([]pusher.Webhook, 17),
	} {
		app := one
		app.Webhooks = hooks
		if _, err := pusher.New(pusher.Options{Apps: []pusher.App{app}}); err == nil || !strings.Contains(err.Error(), "webhook") {
			t.Errorf("%+v: %v", hooks, err)
		}
	}
}
