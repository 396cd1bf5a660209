package hooks_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-134acfd0/lull/server/hooks"
)

// gathered is what Prometheus would see: each metric's values, by their labels.
func gathered(t *testing.T, r *running) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	must(t, registry.Register(r.Hooks))
	families, err := registry.Gather()
	must(t, err)
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				if l.GetName() != "backend" {
					name += " " + l.GetValue()
				}
			}
			switch {
			case m.Counter != nil:
				values[name] = m.Counter.GetValue()
			case m.Gauge != nil:
				values[name] = m.Gauge.GetValue()
			case m.Histogram != nil:
				values[name] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return values
}

// One sees where it waits, for whom and since when, and that it is the backend.
func TestOneSeesWhereItWaits(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	a := startApp(t, &app{
		connect: func(w http.ResponseWriter, c call) { welcome(w, map[string]any{"user": "ann"}) },
		message: func(w http.ResponseWriter, c call) { <-release; echo(w, c) },
	})
	r := startFor(t, a, hooks.Options{Concurrency: 2})
	api := r.startAPI(hooks.APIOptions{Token: token})
	api.does("GET", "/none", "", 404, "")
	var clients []*client
	for range 8 {
		clients = append(clients, r.open("/"))
	}
	for _, c := range clients {
		c.send("x", "y")
	}
	eventually(t, "they wait", func() bool { b := r.backend(); return b.Busy == 2 && b.Parked == 5 })
	b := r.backend()
	if !strings.HasPrefix(b.Advice(), "scale the backend") || b.ParkedSince <= 0 || len(b.Longest) != 5 || b.Longest[0].User != "ann" || b.Longest[0].For <= 0 {
		t.Errorf("its state is %+v", b)
	}
	var page []map[string]any
	text, err := json.Marshal(r.Hooks.Status())
	must(t, err)
	must(t, json.Unmarshal(text, &page))
	if len(page) != 1 || page[0]["connections_waiting"] != 5.0 || page[0]["advice"] == "" || page[0]["down_seconds"] != 0.0 {
		t.Errorf("a page shows %s", text)
	}
	got := gathered(t, r)
	for name, want := range map[string]float64{
		"lull_hook_calls": 2, "lull_hook_calls_limit": 2, "lull_hook_connections_waiting": 5, "lull_hook_calls_waiting": 1, "lull_hook_down": 0,
		"lull_hook_connects_accepted_total": 8, "lull_hook_messages_lost_total": 0, "lull_hook_answer_seconds": 8,
		"lull_api_requests_total no_path": 1, "lull_api_requests_total ok": 0, "lull_hook_no_backend_total": 0,
	} {
		if v, there := got[name]; !there || v != want {
			t.Errorf("%s is %v, %v, not %v", name, v, there, want)
		}
	}
	close(release)
	for _, c := range clients {
		c.expect("x", "y")
	}
	eventually(t, "nothing waits", func() bool { b := r.backend(); return b.Parked == 0 && b.Advice() == "" && b.Busy == 0 })
}
