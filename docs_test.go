package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/loadgen/experiment"
	"github.com/seed-134acfd0/lull/server"
)

// pages are the documents for people.
func pages(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatal(docs, err)
	}
	return append(docs, "README.md", "ARCHITECTURE.md", "SECURITY.md", "tuning/deploy/README.md")
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheREADMEIsShort(t *testing.T) {
	const linesMax = 200
	if n := strings.Count(text(t, "README.md"), "\n"); n > linesMax {
		t.Errorf("it has %d lines, more than %d", n, linesMax)
	}
}

func TestTheREADMEsProgramCompiles(t *testing.T) {
	_, rest, _ := strings.Cut(text(t, "README.md"), "```go\n")
	program, _, _ := strings.Cut(rest, "```")
	path := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "vet", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestLinksLeadToFiles(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text(t, page), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

// The transcript in docs/doctor.md is of a machine in testdata.
func TestTheDoctorsPageShowsADiagnosis(t *testing.T) {
	const page = "docs/doctor.md"
	args := []string{"doctor", "--role", "server", "--target", "1000000", "--fd-tables", "shared"}
	out, _, code := run(t, append(args, "--root", patient(t, "conntrack"))...)
	head, rest, _ := strings.Cut(text(t, page), "```text\n")
	_, tail, _ := strings.Cut(rest, "```\n")
	want := fmt.Sprintf("%s```text\n$ lull %s\n%s$ echo $?\n%d\n```\n%s", head, strings.Join(args, " "), out, code, tail)
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text(t, page) != want {
		t.Errorf("%s is not what go test . -run Page -update makes of it", page)
	}
}

// The tables in docs/projection.md are computed from docs/flat.json, which
// «lull bench flat» writes.
func TestTheProjectionPageShowsWhatWasMeasured(t *testing.T) {
	const page = "docs/projection.md"
	var flat experiment.Flat
	if err := json.Unmarshal([]byte(text(t, "docs/flat.json")), &flat); err != nil {
		t.Fatal(err)
	}
	want := text(t, page)
	for marker, write := range map[string]func(io.Writer) error{"measured": flat.WriteMarkdown, "projected": flat.WriteProjection} {
		var table strings.Builder
		if err := write(&table); err != nil {
			t.Fatal(err)
		}
		begin, end := "<!-- "+marker+" -->\n", "<!-- end of what was "+marker+" -->\n"
		head, rest, found := strings.Cut(want, begin)
		_, tail, ends := strings.Cut(rest, end)
		if !found || !ends {
			t.Fatalf("%s lacks %q or %q", page, begin, end)
		}
		want = head + begin + table.String() + end + tail
	}
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text(t, page) != want {
		t.Errorf("%s is not what go test . -run Page -update makes of it", page)
	}
	var plot strings.Builder
	if err := flat.WritePlot(&plot); err != nil || plot.String() != text(t, "docs/flat.svg") {
		t.Errorf("docs/flat.svg is not the plot of docs/flat.json: %v", err)
	}
}

// SECURITY.md names options that exist, with their defaults.
func TestTheSecurityPageHasTheDefaults(t *testing.T) {
	s, err := server.Listen([]string{"127.0.0.1:0"}, server.Handler{}, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	defer s.Run(ctx)
	options := reflect.ValueOf(s.Options())
	rows := regexp.MustCompile("(?m)\\| `(\\w+)` \\| (.+) \\|$").FindAllStringSubmatch(text(t, "SECURITY.md"), -1)
	for _, row := range rows {
		name, says := row[1], row[2]
		option := options.FieldByName(name)
		if !option.IsValid() {
			t.Errorf("there is no option %s", name)
			continue
		}
		if name == "MaxConns" || name == "MaxOutboxTotal" {
			continue // they depend on the machine
		}
		is := fmt.Sprint(option.Interface())
		switch n, isBytes := humanize.ParseBytes(says); {
		case option.IsZero():
			is = "off"
			says, _, _ = strings.Cut(says, ";")
		case isBytes == nil:
			says = fmt.Sprint(n)
		}
		if is != says {
			t.Errorf("%s is %s, not %s", name, is, says)
		}
	}
	if len(rows) < 20 {
		t.Errorf("only %d options are named", len(rows))
	}
}

// lull has every flag that the pages use.
func TestThePagesNameFlagsThatExist(t *testing.T) {
	help := map[string]string{}
	for _, command := range documented {
		out, _, _ := run(t, append(strings.Fields(command), "--help")...)
		help[command] = out
	}
	call := regexp.MustCompile(`\blull (serve|load|compare|experiment|bench|doctor|config|tune (?:show|apply|revert|addresses))((?: +[\w./%:~=,@'\[\]-]+)*)`)
	flag := regexp.MustCompile(` (--[a-z][a-z-]*)`)
	for _, page := range pages(t) {
		if page == helpPage {
			continue // the page with the help text
		}
		for _, m := range call.FindAllStringSubmatch(text(t, page), -1) {
			for _, f := range flag.FindAllStringSubmatch(m[2], -1) {
				if !regexp.MustCompile(`(?m)(^|[\s,])` + f[1] + `([=\s]|$)`).MatchString(help[m[1]]) {
					t.Errorf("%s: lull %s has no %s", page, m[1], f[1])
				}
			}
		}
	}
}

// The tests that docs/abuse.md names are there.
func TestTheAbusePageNamesTestsThatExist(t *testing.T) {
	var all strings.Builder
	err := filepath.WalkDir(".", func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, "_test.go") {
			all.WriteString(text(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`Test\w+`).FindAllString(text(t, "docs/abuse.md"), -1)
	for _, name := range names {
		if !strings.Contains(all.String(), "\nfunc "+name+"(t *testing.T)") {
			t.Errorf("there is no %s", name)
		}
	}
	if len(names) == 0 {
		t.Error("no test is named")
	}
}
