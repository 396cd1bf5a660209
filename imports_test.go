package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Who may import whom, as ARCHITECTURE.md draws it. A package that is not here
// needs a place there first.
var arrows = map[string][]string{
	"frame":            nil,
	"netpoll":          nil,
	"internal/testkit": nil, // for tests alone
	"internal/build":   nil,
	// How many connections fit descriptor tables, and whether threads may have
	// their own.
	"tuning":        {"netpoll", "tuning/cgroup"},
	"tuning/cgroup": nil,
	"tuning/deploy": {"tuning"},
	// Its defaults follow from what the control groups allow.
	"server":                    {"frame", "netpoll", "server/internal/outbox", "server/internal/inbox", "server/internal/fanout", "server/internal/gate", "server/internal/histogram", "server/internal/stack", "tuning/cgroup"},
	"server/internal/outbox":    nil,
	"server/internal/inbox":     {"server/internal/histogram", "server/internal/stack"},
	"server/internal/stack":     nil,
	"server/internal/fanout":    nil,
	"server/internal/gate":      nil,
	"server/internal/histogram": nil,
	"server/admin":              {"server", "frame", "tuning", "internal/build"},
	"loadgen":                   {"frame", "netpoll"},
	"loadgen/floor":             {"netpoll"},
	// A program, which nothing imports: a server whose handler is slow, for the
	// experiment to start and to load. That package itself knows no server.
	"loadgen/slowhandler": {"frame", "netpoll", "server", "server/admin"},
	"loadgen/peer":        nil, // a program on another library, to compare with
	"loadgen/experiment":  {"frame", "loadgen", "tuning"},
	"":                    {"frame", "netpoll", "server", "server/admin", "loadgen", "loadgen/experiment", "tuning", "internal/build"},
}

func TestPackagesImportOnlyWhatIsBelowThem(t *testing.T) {
	const module = "github.com/seed-134acfd0/lull"
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	within := func(path string) (string, bool) {
		rest, ok := strings.CutPrefix(path, module)
		return strings.TrimPrefix(rest, "/"), ok
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name, _ := within(fields[0])
		allowed, known := arrows[name]
		if !known {
			t.Errorf("package %q has no place in the architecture", name)
		}
		for _, path := range fields[1:] {
			if imported, ours := within(path); ours && !slices.Contains(allowed, imported) {
				t.Errorf("%s imports %s", name, imported)
			}
		}
	}
}
