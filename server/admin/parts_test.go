package admin_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/natsd/natsdtest"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
	"github.com/seed-134acfd0/lull/server/cluster"
	"github.com/seed-134acfd0/lull/server/hooks"
	"github.com/seed-134acfd0/lull/server/pusher"
)

// whole is a server with all parts: it is a node of a cluster, and has a backend. Each of its
// connections is a member of the topic tea, whose last message is kept.
type whole struct {
	*site
	node    *cluster.Node
	hooked  *hooks.Hooks
	backend *httptest.Server
}

func startWhole(t testing.TB, url, name string) *whole {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	tea := func(topic string) bool { return topic == "tea" }
	node, err := cluster.Join(t.Context(), cluster.Options{URL: url, Name: name, Log: quiet, Present: tea, History: func(topic string) (l cluster.Limits) {
		if tea(topic) {
			l.Messages = 1
		}
		return l
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Leave)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"topics": []string{"tea"}})
	}))
	t.Cleanup(backend.Close)
	hooked, err := hooks.New(hooks.Options{Backends: []hooks.Backend{{URL: backend.URL}}, Publisher: node, Node: name, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hooked.Close(t.Context()) })
	h := hooked.Handler()
	open := h.Open
	h.Open = func(c server.Conn) {
		open(c)
		_ = node.Enter(c, "tea", fmt.Sprint(c.ID()), []byte("data"))
	}
	apps, err := pusher.New(pusher.Options{Log: quiet, Apps: []pusher.App{{
		ID: "1", Key: "key", Secret: "secret", Webhooks: []pusher.Webhook{{URL: backend.URL, Events: []string{"channel_occupied"}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { apps.Close(t.Context()) })
	s := startWith(t, node.Handler(h), server.Options{TopicChanged: node.TopicChanged, Workers: hooked.Workers()},
		admin.Options{Backends: hooked, Cluster: node, Apps: apps, Degraded: node.Ready})
	node.Bind(s.Server)
	return &whole{s, node, hooked, backend}
}

// clusterStatus is what a page reads of a cluster.
type clusterStatus struct {
	Cluster, Node, Broker string
	NotReady              string  `json:"not_ready"`
	Away                  float64 `json:"away_seconds"`
	Nodes                 int
	Silent                []struct{ Name string }
	Members               int
	Kept                  int `json:"history_messages"`
	History               struct {
		Bytes int
		Limit int `json:"limit_bytes"`
	}
	Counters map[string]uint64
}

func (w *whole) cluster() clusterStatus {
	w.t.Helper()
	var status struct{ Cluster clusterStatus }
	w.json("/api/status", &status)
	return status.Cluster
}

// A cluster shows by as many series, whatever its topics, members and nodes are. The page
// names some of its nodes.
func TestAClusterShows(t *testing.T) {
	b := natsdtest.Start(t)
	here := startWhole(t, b.ClientURL(), "here")
	here.shows("lull_cluster_nodes", 1)
	before := len(here.scrape())
	there := startWhole(t, b.ClientURL(), "there")
	here.open()
	here.open()
	there.open()
	here.shows("lull_cluster_nodes", 2)
	here.shows("lull_cluster_members", 3)
	eventually(t, "a message arrives", func() bool {
		if err := there.node.Publish("tea", frame.Text, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		return here.node.Stats().Received > 0
	})
	for series, want := range map[string]float64{
		"lull_cluster_connected": 1, "lull_cluster_away_seconds": 0, "lull_cluster_members_own": 2, "lull_cluster_history_messages": 1, "lull_cluster_history_topics": 1,
		"lull_cluster_lost_total": 0, "lull_cluster_doubles_total": 0, "lull_cluster_unsent_total": 0,
		"lull_cluster_queue_limit_bytes": 8 << 20, "lull_cluster_queue_bytes": 0, "lull_cluster_nodes_limit": 1000, "lull_cluster_members_limit": 1 << 20,
		`lull_cluster_info{cluster="lull",node="here"}`: 1, "lull_hook_connects_accepted_total{backend=\"" + here.backend.URL + "\"}": 2,
	} {
		here.shows(series, want)
	}
	scrape := here.scrape()
	if scrape["lull_cluster_history_bytes"] == 0 || scrape["lull_cluster_member_bytes"] == 0 || scrape["lull_cluster_received_total"] == 0 {
		t.Errorf("of history, members and messages there is nothing: %v", scrape)
	}
	if len(scrape) != before {
		t.Errorf("%d series, and %d with another node, members and a topic", before, len(scrape))
	}
	for series := range scrape {
		if strings.Contains(series, "tea") || strings.Contains(series, "there") {
			t.Errorf("%s names a topic or another node", series)
		}
	}
	now := here.cluster()
	if now.Cluster != "lull" || now.Node != "here" || now.Broker != b.ClientURL() || now.NotReady != "" || now.Nodes != 2 || now.Members != 3 ||
		now.Kept != 1 || now.History.Bytes == 0 || now.History.Limit == 0 || now.Counters["received"] == 0 || len(now.Silent) != 1 || now.Silent[0].Name != "there" {
		t.Errorf("%+v", now)
	}

	b.Shutdown()
	here.shows("lull_cluster_connected", 0)
	if now := here.cluster(); !strings.HasPrefix(now.NotReady, "the broker is away") {
		t.Errorf("%+v", now)
	}
	eventually(t, "it says for how long", func() bool { return here.scrape()["lull_cluster_away_seconds"] > 0 })
}

// A server without parts shows none.
func TestAServerAlone(t *testing.T) {
	s := start(t, server.Handler{}, server.Options{})
	for series := range s.scrape() {
		if strings.HasPrefix(series, "lull_cluster") || strings.HasPrefix(series, "lull_hook") {
			t.Error(series)
		}
	}
	var status map[string]json.RawMessage
	s.json("/api/status", &status)
	if string(status["cluster"]) != "null" || string(status["backends"]) != "null" {
		t.Errorf("%s, %s", status["cluster"], status["backends"])
	}
}

func TestPartsPassPrometheusLint(t *testing.T) {
	w := startWhole(t, natsdtest.Start(t).ClientURL(), "here")
	for _, part := range []admin.Part{w.node, w.hooked} {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(part)
		problems, err := testutil.GatherAndLint(registry)
		if err != nil || len(problems) > 0 {
			t.Errorf("%v, %+v", err, problems)
		}
	}
}
