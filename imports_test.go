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
	"frame":              nil,
	"netpoll":            nil,
	"tuning":             nil,
	"tuning/deploy":      {"tuning"},
	"server":             {"frame", "netpoll"},
	"server/admin":       {"server", "frame", "tuning"},
	"loadgen":            {"frame", "netpoll"},
	"loadgen/floor":      {"netpoll"},
	"loadgen/experiment": {"loadgen", "tuning"},
	"":                   {"frame", "netpoll", "server", "server/admin", "loadgen", "loadgen/experiment", "tuning"},
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
