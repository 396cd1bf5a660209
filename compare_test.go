package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestResultsOfLoadsAreCompared(t *testing.T) {
	url, stop := serve(t, "--mode", "echo")
	defer stop()
	path := filepath.Join(t.TempDir(), "a.json")
	if out, errs, code := run(t, "load", "--url", url, "--conns", "200", "--active", "10", "--echo", "200ms", "--json", path); code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"lost": 0,`) {
		t.Fatalf("%s", text)
	}
	lossy := write(t, "b.json", strings.Replace(string(text), `"lost": 0,`, `"lost": 50,`, 1))
	page := filepath.Join(t.TempDir(), "compared.html")
	for _, row := range []struct {
		a, b, want string
		code       int
	}{
		{path, path, "handshake p50, ms", 0},
		{path, lossy, "yes, worse", int(exitWorse)},
		{lossy, path, "yes, better", 0},
		{path + "," + path + "," + path, lossy + "," + lossy + "," + lossy, "3 results, medians", int(exitWorse)},
	} {
		if out, errs, code := run(t, "compare", row.a, row.b, "--html", page); code != row.code || !strings.Contains(out, row.want) {
			t.Errorf("exit %d, want %d with %q\n%s%s", code, row.code, row.want, out, errs)
		}
	}
	if html, err := os.ReadFile(page); err != nil || !strings.Contains(string(html), "<svg") {
		t.Errorf("%.100s, %v", html, err)
	}
}

func TestWhatCannotBeComparedIsRefused(t *testing.T) {
	old := write(t, "old.json", `{"conns":1,"urls":["ws://a/"],"counts":{"connected":1}}`)
	other := write(t, "other.json", `{"name":"somebody"}`)
	for _, row := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{old, old}, "version 1, which has no histograms to compare: run the load again", exitFailed},
		{[]string{other, other}, "no result of lull load", exitFailed},
		{[]string{"none.json", "none.json"}, "none.json: no such file", exitFailed},
		{[]string{old, old, "--html", "/nowhere/page.html"}, "--html: open /nowhere/page.html", exitFailed},
		{[]string{strings.Repeat(old+",", comparedMax) + old, old}, "at most 100", exitFailed},
		{[]string{old}, "--help", exitUsage},
	} {
		if out, errs, code := run(t, append([]string{"compare"}, row.args...)...); code != row.code || !strings.Contains(errs, row.want) {
			t.Errorf("compare %v: exit %d, %q lacks %q\n%s", row.args, code, errs, row.want, out)
		}
	}
}
