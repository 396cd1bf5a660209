package admin_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/internal/natsd/natsdtest"
)

// Every field that the page reads is in /api/status.
func TestThePageReadsFieldsThatExist(t *testing.T) {
	script, err := os.ReadFile("page/page.js")
	if err != nil {
		t.Fatal(err)
	}
	var status map[string]any
	startWhole(t, natsdtest.Start(t).ClientURL(), "here").json("/api/status", &status)
	paths := regexp.MustCompile(`\bs\.([a-z0-9_]+(?:\.[a-z0-9_]+)?)\b[^(]`).FindAllSubmatch(script, -1)
	if len(paths) < 20 {
		t.Fatalf("it reads only %q", paths)
	}
	for _, m := range paths {
		object, name, nested := strings.Cut(string(m[1]), ".")
		value, ok := status[object]
		ok = ok && (!nested || value != nil)
		if inner, isObject := value.(map[string]any); ok && nested && isObject {
			_, ok = inner[name]
		}
		if !ok {
			t.Errorf("the page reads s.%s, which is not in /api/status", m[1])
		}
	}
}

// The page names counters in three lists and in calls of rate.
func TestThePageNamesCountersThatExist(t *testing.T) {
	text, err := os.ReadFile("page/page.js")
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, list := range regexp.MustCompile(`(?s)\bconst (?:closed|lost|overload) = \[(.*?)\]|\brate\(i, ("[^)]*)\)`).FindAllStringSubmatch(string(text), -1) {
		for _, name := range regexp.MustCompile(`"([a-z0-9_]+)"`).FindAllStringSubmatch(list[1]+list[2], -1) {
			named[name[1]] = true
		}
	}
	all := counters()
	for name := range maps.Keys(named) {
		if !slices.Contains(all, name) {
			t.Errorf("the page names %s, which is no counter", name)
		}
	}
	for _, c := range all {
		if strings.HasPrefix(c, "closed_") && !named[c] {
			t.Errorf("the page forgets %s", c)
		}
	}
}

// So it does with those of a cluster: in calls of clusterRate, of total, and one by one.
func TestThePageNamesCountersOfAClusterThatExist(t *testing.T) {
	text, err := os.ReadFile("page/page.js")
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, call := range regexp.MustCompile(`\b(?:clusterRate\(i|total\(s\.cluster), ("[^)]*)\)`).FindAllStringSubmatch(string(text), -1) {
		for _, name := range regexp.MustCompile(`"([a-z_]+)"`).FindAllStringSubmatch(call[1], -1) {
			named = append(named, name[1])
		}
	}
	for _, one := range regexp.MustCompile(`s\.cluster\.counters\.([a-z_]+)`).FindAllStringSubmatch(string(text), -1) {
		named = append(named, one[1])
	}
	there := startWhole(t, natsdtest.Start(t).ClientURL(), "here").cluster().Counters
	for _, name := range named {
		if _, ok := there[name]; !ok {
			t.Errorf("the page names %s, which is no counter of a cluster", name)
		}
	}
	if len(named) < 10 {
		t.Errorf("it names only %q", named)
	}
}
