//go:build interop

package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The example for somebody else's server runs against one with Node and ws, in a smaller
// form. Both sides count the same messages.
func TestInteropScenarioOfAServerThatSpeaksJSON(t *testing.T) {
	const writing, reading, each = 20, 100, 5
	address, stop := roomServer(t)
	scenario := inSmall(t, "docs/scenarios/json-server.yaml", map[string]string{
		"ws://127.0.0.1:3000/": "ws://" + address + "/",
		"users: 100\n":         "users: 20\n",
		"users: 1000\n":        "users: 100\n",
		"rate: 100\n":          "rate: 1000\n",
		"repeat: 20\n":         "repeat: 5\n",
		"{mean: 3s, dev: 1s}":  "{mean: 20ms, dev: 10ms}",
		"every: 25s":           "every: 100ms",
		"finish: 5m":           "finish: 5s",
	})
	out, errs, code := run(t, "load", "--scenario", scenario, "--json", "-")
	var result struct {
		Lost, Gone int
		Counts     struct{ Connected, Asked, Echoes, Mismatched, Failed int }
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 {
		t.Fatalf("exit %d, %v, %s%s", code, err, out, errs)
	}
	got := stop()
	if got["login"] != writing || got["join"] != writing+reading || got["message"] != writing*each || len(got) > 4 {
		t.Errorf("the server got %v", got)
	}
	asked := got["login"] + got["join"] + got["message"] + got["ping"]
	if c := result.Counts; c.Connected != writing+reading || c.Asked != asked || c.Failed != 0 || result.Lost != 0 {
		t.Errorf("the server got %v, and the result has %+v", got, result)
	}
}

// Without what the server wants, nobody gets in; with JSON that it does not know, its
// Close frame is told.
func TestInteropScenarioSaysWhyAServerEndsIt(t *testing.T) {
	address, stop := roomServer(t)
	defer stop()
	const example = "docs/scenarios/json-server.yaml"
	url := map[string]string{"ws://127.0.0.1:3000/": "ws://" + address + "/", "users: 100\n": "users: 2\n", "users: 1000\n": "users: 2\n", "finish: 5m": "finish: 1s"}
	for change, says := range map[[2]string]string{
		{"Origin:", "X-Origin:"}:         "401 Unauthorized",
		{`"type": "login"`, `"type": 1`}: "1003 bad json",
	} {
		changes := map[string]string{change[0]: change[1]}
		for old, with := range url {
			changes[old] = with
		}
		out, errs, code := run(t, "load", "--scenario", inSmall(t, example, changes))
		if code == 0 || !strings.Contains(out+errs, says) {
			t.Errorf("exit %d, without %q: %s%s", code, says, out, errs)
		}
	}
}

// inSmall is a scenario with some texts changed, beside its files.
func inSmall(t *testing.T, example string, changes map[string]string) (path string) {
	t.Helper()
	scenario, pairs := text(t, example), []string(nil)
	for old, with := range changes {
		if !strings.Contains(scenario, old) {
			t.Fatalf("%s has no %q", example, old)
		}
		pairs = append(pairs, old, with)
	}
	scenario = strings.NewReplacer(pairs...).Replace(scenario)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(example))); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "small.yaml")
	if err := os.WriteFile(path, []byte(scenario), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// roomServer starts the server with Node. stop ends it, and says how many messages of each
// type it got.
func roomServer(t *testing.T) (address string, stop func() map[string]int) {
	t.Helper()
	cmd := exec.Command("node", "server/testdata/interop/rooms.mjs")
	cmd.Env = append(os.Environ(), "LULL_INTEROP_DIR="+cmp.Or(os.Getenv("LULL_INTEROP_DIR"), "/var/cache/lull-interop"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; server/testdata/interop/install, run as root, installs Node and ws", err)
	}
	out := bufio.NewScanner(pipe)
	if !out.Scan() {
		_ = cmd.Wait()
		t.Fatal("the server with Node did not start")
	}
	return out.Text(), func() (got map[string]int) {
		t.Helper()
		in.Close()
		if !out.Scan() {
			t.Fatal("the server with Node did not say what it got")
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		return got
	}
}
