package experiment

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// nobodyIsLeft checks that this process has no descendants.
func nobodyIsLeft(t *testing.T) {
	t.Helper()
	if left := descendants(0); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

func TestAGeneratorDoesItsJobs(t *testing.T) {
	lull := generators[0]
	program, err := lull.find("")
	if err != nil {
		t.Fatal(err)
	}
	idle, err := lull.run(t.Context(), program, job{Conns: 20, Rate: generatorRate, Hold: 50 * time.Millisecond})
	if err != nil || idle.Conns != 20 || idle.Messages != 0 || idle.Bytes < 1<<20 || idle.CPU <= 0 {
		t.Errorf("idle: %+v, %v", idle, err)
	}
	echo, err := lull.run(t.Context(), program, job{Conns: 5, Rate: generatorRate, Messages: 20, Text: generatorText})
	if err != nil || echo.Conns != 5 || echo.Messages < 100 || echo.Bytes < 1<<20 || echo.CPU <= 0 {
		t.Errorf("echo: %+v, %v", echo, err)
	}
	nobodyIsLeft(t)
}

// scripted is a generator that is a shell's script.
func scripted(script string) generator {
	return generator{name: "shell", program: "sh", args: func(job) []string { return []string{"-c", script} }}
}

func TestAGeneratorThatEndsIsReportedWithWhatItSaid(t *testing.T) {
	_, err := scripted("echo out of luck; exit 3").run(t.Context(), "sh", job{Conns: 1, Rate: 1})
	if err == nil || !strings.Contains(err.Error(), "it has ended") || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("got %v", err)
	}
	nobodyIsLeft(t)
}

// Also a daemon, whose parent has ended, and what it has started.
func TestAllThatAGeneratorHasStartedEnds(t *testing.T) {
	stop, err := adoptOrphans()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	started := filepath.Join(t.TempDir(), "started")
	go func() {
		for {
			if _, err := os.Stat(started); err == nil {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	const script = `(setsid sh -c 'sleep 1000; true' & sleep 1000 &) ; touch "$0"; exec sleep 1000`
	g := scripted(script)
	g.args = func(job) []string { return []string{"-c", script, started} }
	if _, err := g.run(ctx, "sh", job{Conns: 1, Rate: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	nobodyIsLeft(t)
}

func TestJobsAreValidInEachGeneratorsLanguage(t *testing.T) {
	for _, g := range generators {
		for messages, sends := range map[int]bool{0: false, 7: true} {
			j := job{Host: "127.0.0.1", Port: "81", URL: "ws://127.0.0.1:81/", Conns: 10, Rate: 5, Seconds: 2, Messages: messages, Text: generatorText, Dir: t.TempDir()}
			if err := g.write(&j); err != nil {
				t.Fatal(err)
			}
			if len(g.args(j)) == 0 {
				t.Errorf("%s has no arguments", g.name)
			}
			if g.file == "" {
				continue
			}
			text, err := os.ReadFile(j.File)
			if err != nil {
				t.Fatal(err)
			}
			switch filepath.Ext(j.File) {
			case ".xml":
				d := xml.NewDecoder(strings.NewReader(string(text)))
				for err == nil {
					_, err = d.Token()
				}
				if errors.Is(err, io.EOF) {
					err = nil
				}
			case ".yml":
				err = yaml.Unmarshal(text, &map[string]any{})
			case ".js":
				if node, missing := exec.LookPath("node"); missing == nil {
					module := strings.TrimSuffix(j.File, ".js") + ".mjs"
					if err = os.WriteFile(module, text, 0o600); err == nil {
						err = exec.Command(node, "--check", module).Run()
					}
				}
			}
			has := strings.Contains(string(text), strings.ReplaceAll(generatorText, `"`, `\"`)) || strings.Contains(string(text), generatorText)
			if err != nil || sends && !has || strings.Contains(string(text), "<no value>") {
				t.Errorf("%s, %d messages: %v\n%s", g.name, messages, err, text)
			}
		}
	}
}

func TestGeneratorsThatAreMissingAreNamed(t *testing.T) {
	before := generators
	t.Cleanup(func() { generators = before })
	generators = generators[1:]
	t.Setenv("PATH", "")
	rows, err := Generators(t.Context(), GeneratorsConfig{Conns: 4, Dir: t.TempDir(), Say: t.Logf})
	if err != nil || len(rows) != 4 {
		t.Fatalf("%+v, %v", rows, err)
	}
	var b strings.Builder
	if err := WriteGenerators(&b, rows); err != nil {
		t.Fatal(err)
	}
	for _, g := range generators {
		if text := g.name + " was not measured, because it is not installed: " + g.install + ".\n"; g.install == "" || !strings.Contains(b.String(), text) {
			t.Errorf("the table does not say %q:\n%s", text, &b)
		}
	}
}

func TestGeneratorsAsATable(t *testing.T) {
	rows := []GeneratorCost{
		{Name: "lull", Memory: 50, Error: 12, Connected: 20, Echoed: 2, Whole: 25, Runs: []GeneratorRun{{Conns: 25_000}, {Conns: 100}}},
		{Name: "tsung", Version: "1.7.0", Memory: 10_000, Error: 300, Connected: 400, Echoed: 20, Whole: 2500, Runs: []GeneratorRun{{Conns: 5000}}},
		{Name: "k6", Missing: "install it"},
		{Name: "artillery", Failed: "it has ended\nout of memory"},
	}
	var b strings.Builder
	if err := WriteGenerators(&b, rows); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(b.String(), "\n\n")
	const want = `| generator | memory of a connection | processor time of a connection | the same with its share of the start | processor time of an echoed message | connections |
|---|--:|--:|--:|--:|--:|
| lull | 50 ± 12 B | 20 µs | 25 µs | 2 µs | 25,000 |
| tsung 1.7.0 | 10,000 ± 300 B (**200 ×**) | 400 µs (20 ×) | 2,500 µs (**100 ×**) | 20 µs (10 ×) | 5,000 |

Bold: at least 100 times what lull needs.

k6 was not measured, because it is not installed: install it.

artillery was not measured: it has ended.
`
	if table != want {
		t.Errorf("got:\n%s\nwant:\n%s", table, want)
	}
}

func TestVersionsAreFoundInWhatProgramsPrint(t *testing.T) {
	for out, want := range map[string]string{"Tsung version 1.7.0": "1.7.0", "k6 v0.50.0 (go1.22, linux/amd64)": "0.50.0", "none": "", "": ""} {
		g := generator{version: []string{"-c", `printf %s "$0"`, out}}
		if got := g.versionOf("sh"); got != want {
			t.Errorf("%q: %q, want %q", out, got, want)
		}
	}
}
