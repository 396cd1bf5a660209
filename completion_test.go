package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestShellsAreToldWhatCanFollow(t *testing.T) {
	for line, want := range map[string][]string{
		"lull ser":                   {"serve"},
		"lull tune ":                 {"addresses", "apply", "revert", "show"},
		"lull serve --max-me":        {"--max-members", "--max-message"},
		"lull serve --mode ":         {"chat", "echo", "hooks", "pusher", "rooms"},
		"lull serve --fd-tables p":   {"private"},
		"lull completion ":           {"bash", "fish", "zsh"},
		"lull serve --config ./go.m": {"./go.mod"},
	} {
		out, errs, code := runWith(t, []string{"COMP_LINE=" + line}, "")
		got := strings.Fields(out)
		slices.Sort(got)
		if code != 0 || !slices.Equal(got, want) {
			t.Errorf("%q: exit %d, %q%s, want %q", line, code, got, errs, want)
		}
	}
}

// Bash runs what its script says, and that is lull, wherever it lies.
func TestBashCompletes(t *testing.T) {
	there := filepath.Join(t.TempDir(), "a 'place'")
	if err := os.Mkdir(there, 0o700); err != nil {
		t.Fatal(err)
	}
	lull := filepath.Join(there, "lull")
	if err := os.Link(program, lull); err != nil {
		t.Fatal(err)
	}
	script, err := exec.Command(lull, "completion", "bash").Output()
	if err != nil {
		t.Fatal(err)
	}
	command, _ := strings.CutPrefix(strings.TrimSpace(string(script)), "complete -C ")
	command, ok := strings.CutSuffix(command, " lull")
	cmd := exec.Command("bash", "-c", command)
	cmd.Env = append(os.Environ(), "COMP_LINE=lull doc")
	if out, errs, code := runCommand(t, cmd); !ok || strings.TrimSpace(out) != "doctor" {
		t.Errorf("%s: exit %d, %s%s", script, code, out, errs)
	}
}
