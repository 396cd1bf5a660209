package admin_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/server"
)

// Every field that the page reads is in /api/status.
func TestThePageReadsFieldsThatExist(t *testing.T) {
	script, err := os.ReadFile("page/page.js")
	if err != nil {
		t.Fatal(err)
	}
	var status map[string]any
	start(t, server.Handler{}, server.Options{}).json("/api/status", &status)
	paths := regexp.MustCompile(`\bs\.([a-z0-9_]+(?:\.[a-z0-9_]+)?)\b[^(]`).FindAllSubmatch(script, -1)
	if len(paths) < 20 {
		t.Fatalf("it reads only %q", paths)
	}
	for _, m := range paths {
		object, name, nested := strings.Cut(string(m[1]), ".")
		value, ok := status[object]
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
