package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The imports that ARCHITECTURE.md allows each package. A new package needs a row here
// and a place there.
var arrows = map[string][]string{
	"frame":               nil,
	"netpoll":             nil,
	"internal/record":     nil,
	"internal/testkit":    {"internal/selfsigned"}, // for tests alone
	"internal/selfsigned": nil,
	"internal/deflate":    {"frame"},
	"internal/build":      nil,
	// tuning asks netpoll how many connections fit into descriptor tables, and whether
	// private tables are possible.
	"tuning":        {"netpoll", "tuning/cgroup"},
	"tuning/cgroup": nil,
	"tuning/deploy": {"tuning"},
	// The server's defaults depend on what the control groups allow.
	"server":                    {"frame", "netpoll", "internal/record", "internal/deflate", "server/internal/outbox", "server/internal/inbox", "server/internal/fanout", "server/internal/gate", "server/internal/proxy", "server/internal/pressure", "server/internal/histogram", "server/internal/stack", "tuning/cgroup"},
	"server/internal/outbox":    nil,
	"server/internal/inbox":     {"server/internal/histogram", "server/internal/stack"},
	"server/internal/stack":     nil,
	"server/internal/fanout":    nil,
	"server/internal/gate":      nil,
	"server/internal/proxy":     nil,
	"server/internal/pressure":  {"tuning/cgroup"}, // what the control groups leave
	"server/internal/histogram": nil,
	"server/health":             {"server"},
	"server/admin":              {"server", "server/health", "frame", "tuning", "internal/build"},
	"loadgen":                   {"frame", "netpoll", "internal/record", "internal/deflate"},
	"loadgen/floor":             {"netpoll"},
	// slowhandler is a program, a server with a slow handler, which experiment starts.
	// Package experiment itself imports no server.
	"loadgen/slowhandler": {"frame", "netpoll", "server", "server/admin"},
	"loadgen/peer":        nil, // a program on another library, to compare with
	"loadgen/experiment":  {"frame", "loadgen", "tuning", "internal/selfsigned"},
	"conformance":         nil, // tests of the program from outside
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
