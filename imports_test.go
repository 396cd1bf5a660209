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
	"frame":                    nil,
	"netpoll":                  nil,
	"internal/record":          nil,
	"internal/testkit":         {"internal/selfsigned"}, // for tests alone
	"internal/selfsigned":      nil,
	"internal/deflate":         {"frame"},
	"internal/build":           nil,
	"internal/natsd/natsdtest": {"internal/natsd"}, // for tests alone
	"internal/natsd":           nil,                // NATS servers within a process, and logging in at others
	"internal/percent":         nil,
	"internal/page":            nil, // what the pages of server/admin and loadgen/web have in common
	// tuning asks netpoll how many connections fit into descriptor tables, and whether
	// private tables are possible.
	"tuning":        {"netpoll", "tuning/cgroup"},
	"tuning/cgroup": nil,
	"tuning/deploy": {"tuning"},
	// The server's defaults depend on what the control groups allow.
	"server":                      {"frame", "netpoll", "internal/record", "internal/deflate", "server/internal/outbox", "server/internal/inbox", "server/internal/fanout", "server/internal/topics", "server/internal/gate", "server/internal/proxy", "server/internal/pressure", "server/internal/histogram", "server/internal/stack", "tuning/cgroup"},
	"server/internal/outbox":      nil,
	"server/internal/inbox":       {"server/internal/histogram", "server/internal/stack"},
	"server/internal/stack":       nil,
	"server/internal/fanout":      nil,
	"server/internal/topics":      {"netpoll", "internal/slab", "server/internal/fanout"},
	"server/internal/topicserver": {"frame", "netpoll", "server", "server/internal/topics"}, // a program that measures topics
	"server/internal/gate":        nil,
	"server/internal/proxy":       nil,
	"server/internal/pressure":    {"tuning/cgroup"}, // what the control groups leave
	"server/internal/histogram":   nil,
	"server/internal/spread":      {"server"}, // histograms for Prometheus
	"server/health":               {"server"},
	"server/admin":                {"server", "server/internal/spread", "server/health", "frame", "tuning", "internal/build", "internal/page"},
	"server/hooks":                {"server", "frame", "internal/page", "internal/percent", "internal/slab", "server/internal/histogram", "server/internal/spread"},
	"server/pusher":               {"server", "server/cluster", "frame", "internal/slab", "server/internal/gate"},
	"loadgen":                     {"frame", "netpoll", "internal/record", "internal/deflate", "loadgen/wire", "loadgen/plan", "loadgen/measure", "loadgen/result"},
	"loadgen/plan":                {"loadgen/measure"}, // what thresholds can be of
	"loadgen/scenario":            {"loadgen/plan"},
	"loadgen/measure":             nil,
	"loadgen/wire":                nil,
	"loadgen/tsung":               {"loadgen/plan"},
	"loadgen/terminal":            {"loadgen/measure"},
	"loadgen/internal/chart":      nil,
	"loadgen/result":              {"loadgen/measure", "loadgen/plan", "loadgen/internal/chart"},
	"loadgen/web":                 {"loadgen/measure", "loadgen/result", "internal/page"},
	"loadgen/agent":               {"internal/natsd", "loadgen/measure", "loadgen/plan", "loadgen/result"},
	"loadgen/floor":               {"netpoll"},
	// slowhandler is a program, a server with a slow handler, which experiment starts.
	// Package experiment itself imports no server.
	"loadgen/slowhandler": {"frame", "netpoll", "server", "server/admin"},
	"loadgen/reader":      {"frame", "netpoll"},
	// A node of a cluster that tells what it knows, which experiment starts too.
	"loadgen/clusternode": {"frame", "internal/natsd", "server", "server/cluster"},
	"loadgen/backend":     nil, // a backend for hooks, to measure them with
	"loadgen/peer":        nil, // a program on another library, to compare with
	"loadgen/experiment":  {"frame", "netpoll", "internal/natsd", "loadgen", "loadgen/measure", "loadgen/plan", "loadgen/result", "loadgen/internal/chart", "tuning", "internal/selfsigned"},
	"docs/hooks/go":       nil, // an example of a backend
	"conformance":         nil, // tests of the program from outside
	"":                    {"frame", "netpoll", "server", "server/admin", "server/hooks", "server/pusher", "server/rooms", "server/cluster", "loadgen", "loadgen/agent", "loadgen/measure", "loadgen/plan", "loadgen/result", "loadgen/scenario", "loadgen/terminal", "loadgen/tsung", "loadgen/web", "loadgen/experiment", "tuning", "internal/build"},
	// Several servers as one.
	"server/cluster":                   {"frame", "server", "internal/natsd", "internal/percent", "server/cluster/internal/sequence", "server/cluster/internal/presence", "server/cluster/internal/history"},
	"server/rooms":                     {"frame", "server", "server/cluster"}, // what clients see of topics
	"server/cluster/internal/sequence": nil,
	// What the nodes of a cluster know of each other: state machines, and their tables off the heap.
	"internal/slab":                    {"netpoll"},
	"server/cluster/internal/wire":     nil,
	"server/cluster/internal/limit":    nil,
	"server/cluster/internal/presence": {"internal/slab", "server/internal/topics", "server/cluster/internal/wire", "server/cluster/internal/limit"},
	"server/cluster/internal/history":  {"internal/slab", "server/internal/topics", "server/cluster/internal/wire", "server/cluster/internal/limit"},
}

// A program that embeds the server does not carry what the load generator's machines talk
// to each other with.
func TestServersDoWithoutNATS(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./server", "./server/admin", "./loadgen").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(path, "github.com/nats-io/") {
			t.Errorf("%s is linked", path)
		}
	}
}

// The libraries of other WebSocket servers are for tests, and for a program to compare with.
func TestTheProgramDoesWithoutOtherServers(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.FieldsSeq(string(out)) {
		for _, other := range []string{"github.com/gorilla/", "github.com/coder/", "github.com/lxzan/", "github.com/lesismal/"} {
			if strings.HasPrefix(path, other) {
				t.Errorf("%s is linked", path)
			}
		}
	}
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
