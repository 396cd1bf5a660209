package pusher_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/pusher"
)

// What was counted can be scraped, and each fault has a text and a counter.
func TestMetricsAndStatus(t *testing.T) {
	t.Parallel()
	app := one
	app.Limits.Connections = 2
	app.Webhooks = []pusher.Webhook{{URL: "http://127.0.0.1:1/", Events: everyEvent}}
	r := start(t, pusher.Options{Apps: []pusher.App{app}}, server.Options{})
	a, b := r.open(), r.open()
	a.subscribe("news")
	b.send("x")
	b.refused(4300)
	eventually(t, "the webhook fails", func() bool { return !r.Pusher.Stats().Hooks[0].Since.IsZero() })

	registry := prometheus.NewPedanticRegistry()
	must(t, registry.Register(r.Pusher))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	got := w.Body.String()
	for _, line := range []string{
		`lull_pusher_connections{app="1"} 2`, `lull_pusher_subscriptions_total 1`, `lull_pusher_channels 1`,
		`lull_pusher_refused_total{reason="bad_json"} 1`, `lull_pusher_webhook_failing_seconds{app="1",url="http://127.0.0.1:1/"} `,
	} {
		if !strings.Contains(got, "\n"+line) {
			t.Errorf("%s is missing", line)
		}
	}
	names := map[string]bool{}
	for _, r := range pusher.Reasons() {
		if !strings.Contains(got, `{reason="`+r.Name+`"}`) || r.Text == "" || names[r.Name] {
			t.Errorf("%s has no counter of its own, or no text", r.Name)
		}
		names[r.Name] = true
	}
	var s pusher.Status
	must(t, json.Unmarshal([]byte(spell(r.Pusher.Status())), &s))
	if one := s.Apps[0]; one.Connections != 2 || one.Limit != 2 || one.Failing == 0 || !strings.Contains(one.Advice, "127.0.0.1:1") {
		t.Errorf("%+v", s)
	}
	if len(s.Refused) != 1 || s.Refused[0].Reason != "bad_json" {
		t.Errorf("%+v", s.Refused)
	}
}
