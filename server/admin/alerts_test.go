package admin_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"

	"github.com/seed-134acfd0/lull/internal/natsd/natsdtest"
)

// rule is a rule of alerts.yml.
type rule struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	data, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// panels returns the expressions of the dashboard by panel title.
func panels(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]string)
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all[p.Title] = append(all[p.Title], target.Expr)
		}
		if p.Type != "row" && len(all[p.Title]) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
	}
	for _, v := range dashboard.Templating.List {
		if v.Definition != "" {
			all["variable "+v.Name] = []string{v.Definition}
		}
	}
	return all
}

var named = regexp.MustCompile(`\b(?:lull|go|process)_[a-z0-9_]+`)

// Every metric that an alert or a panel uses is in a scrape.
func TestAlertsAndPanelsUseMetricsThatExist(t *testing.T) {
	// Few connections do not tell what one of them takes.
	there := map[string]bool{"lull_connection_user_bytes": true, "lull_connection_kernel_bytes": true}
	for series := range startWhole(t, natsdtest.Start(t).ClientURL(), "here").scrape() {
		name, _, _ := strings.Cut(series, "{")
		there[name] = true
	}
	asked := make(map[string]bool)
	check := func(where, expression string) {
		names := named.FindAllString(expression, -1)
		if len(names) == 0 {
			t.Errorf("%s asks for no metric: %s", where, expression)
		}
		for _, name := range names {
			if asked[name] = true; !there[name] {
				t.Errorf("%s asks for %s, which is not in a scrape", where, name)
			}
		}
	}
	for _, r := range rules(t) {
		check(r.Alert, r.Expr)
	}
	for title, expressions := range panels(t) {
		for _, e := range expressions {
			check(title, e)
		}
	}
	// There is an alert or a panel for each way in which a message can be lost.
	for _, name := range []string{
		"lull_messages_dropped_total", "lull_messages_undelivered_total", "lull_connections_closed_total", "lull_handshakes_rejected_total", "lull_messages_discarded_total", "lull_sockets_evicted_total",
		"lull_accept_pauses_total", "lull_reactor_stalls_total", "lull_inbox_high_total", "lull_slow_connections", "lull_sockets", "lull_workers_stuck", "lull_subscriptions_refused_total",
		"lull_cluster_lost_total", "lull_cluster_unsure_total", "lull_cluster_unsent_total", "lull_cluster_refused_total", "lull_cluster_unwatched_total", "lull_cluster_unkept_total",
		"lull_cluster_connected", "lull_cluster_nodes", "lull_cluster_nodes_died_total",
		"lull_hook_down", "lull_hook_waiting_seconds", "lull_hook_messages_lost_total", "lull_hook_disconnects_lost_total", "lull_hook_messages_refused_total", "lull_processors",
	} {
		if !asked[name] {
			t.Errorf("nothing asks for %s", name)
		}
	}
}

func TestAlertsSayWhatToDo(t *testing.T) {
	var reasons []string
	for _, r := range rules(t) {
		if len(r.Annotations["summary"]) < 10 || len(r.Annotations["description"]) < 40 || !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s: %+v", r.Alert, r)
		}
		if r.Alert == "LullScaleOut" {
			reasons = append(reasons, r.Labels["because"])
		}
	}
	if want := []string{"inboxes", "workers", "slow-peers", "memory", "reactors", "processors"}; !slices.Equal(reasons, want) {
		t.Errorf("scale out because of %v, not %v", reasons, want)
	}
}

// Every metric that an annotation mentions is in a scrape.
func TestAnnotationsNameMetricsThatExist(t *testing.T) {
	shown := startWhole(t, natsdtest.Start(t).ClientURL(), "here").scrape()
	families := make(map[string]bool)
	for series := range shown {
		name, _, _ := strings.Cut(series, "{")
		families[name] = true
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			families[strings.TrimSuffix(name, suffix)] = true
		}
	}
	for _, r := range rules(t) {
		for _, name := range named.FindAllString(r.Annotations["description"], -1) {
			if !families[name] {
				t.Errorf("%s names %s", r.Alert, name)
			}
		}
	}
}
