package experiment

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/tuning"
)

// fixed is a report with something in every field.
func fixed() *Report {
	begun := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	return &Report{
		Date:    begun,
		Machine: Machine{Kernel: "6.18.0", Go: "go1.26.0", Processors: 4, Memory: 16 << 30, Buckets: 1 << 20},
		Wanted:  1_000_000, Limit: "memory allows 500000: more memory, or fewer connections",
		Raised: []tuning.Change{{Name: "net.core.somaxconn", Old: "4096", New: "65535"}},
		Load: &result.Result{
			Conns: 500_000, URLs: []string{"ws://127.0.0.1:8080/"}, Workers: 4, Sources: 8, Size: 32,
			Open: 499_999, Lost: 1, ConnectRate: 25_000.4,
			Counts:    map[string]int{"connected": 500_000, "dropped": 1, "missed": 1},
			Handshake: result.Latency{Count: 500_000, First: 0.1, P50: 1.5, P90: 2, P99: 12.25, Last: 100},
			Broadcasts: []result.Broadcast{
				{
					Messages: 1, Expected: 500_000, Received: 500_000, Deliveries: 250_000.7,
					Latency:   result.Latency{Count: 500_000, First: 0.25, P50: 1000, P90: 1800, P99: 1990.5, Last: 2000},
					Histogram: []result.Bar{{UpTo: 1000, Count: 250_000}, {UpTo: 2000, Count: 250_000}},
				},
				{
					Messages: 1, Expected: 500_000, Received: 499_999, Deliveries: 1_000_000,
					Latency:   result.Latency{Count: 499_999, First: 0.5, P50: 250, P90: 450, P99: 490, Last: 500},
					Histogram: []result.Bar{{UpTo: 250, Count: 250_000}, {UpTo: 500, Count: 249_999}},
				},
			},
			Phases:  []result.Phase{{Name: "ramp", Begun: begun, Seconds: 20, CPUSeconds: 30}},
			Errors:  []measure.Found{{Error: measure.Error{Counter: "dropped", Text: "EOF"}, Count: 1}},
			Limited: []string{"ramp: the generator used 95 % of all processors"},
		},
		Costs: []Cost{{"ramp", 0, 20, 15.5, 30}, {"hold", 20, 10, 0.01, 0}, {"broadcast", 30, 5, 2.5, 3.25}},
		Memory: Memory{
			ServerRSS: 36 << 20, GeneratorRSS: 48 << 20, ServerPerConn: 45.25, GenPerConn: 50, MeasuredSeconds: 29.9,
			KernelPerConn: 8005, SlabPerConn: 7985, ActivePerConn: 7900, VmallocConn: 20,
			ServerSlope:    &Slope{40.5, 0.25, 180, 15_000, 499_999},
			GeneratorSlope: &Slope{44, 0.5, 180, 15_000, 499_999},
			KernelSlope:    &Slope{8000, 1.5, 180, 15_000, 499_999},
			ServerPeak:     40 << 20, GeneratorPeak: 50 << 20, KernelPeak: 4100 << 20,
		},
		Model: Model{Kernel: 4_100_000_000, User: 90 << 20}, // 4,090,572,379 were measured
		Samples: []Sample{
			{0, 0, 12 << 20, 24 << 20, 100 << 20, 0, 1 << 20},
			{10, 250_000, 24 << 20, 36 << 20, 2000 << 20, 0, 1 << 20},
			{20, 499_999, 36 << 20, 48 << 20, 4000 << 20, 0, 1 << 20},
			{35, 499_999, 40 << 20, 50 << 20, 4100 << 20, 0, 1 << 20},
		},
	}
}

// plain is the report of a small run without losses.
func plain() *Report {
	return &Report{
		Date:    time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		Machine: Machine{Kernel: "6.18.0", Go: "go1.26.0", Processors: 2, Memory: 8 << 30},
		Wanted:  100,
		Load:    &result.Result{Conns: 100, Open: 100, ConnectRate: 5000, Counts: map[string]int{}},
		Costs:   []Cost{{"ramp", 0, 0.5, 0.1, 0.2}},
		Samples: []Sample{{0, 0, 12 << 20, 24 << 20, 100 << 20, 0, 1 << 20}, {0.5, 100, 12 << 20, 24 << 20, 101 << 20, 0, 1 << 20}},
	}
}

func TestReportAsMarkdown(t *testing.T) {
	for name, of := range map[string]struct {
		report *Report
		want   string
	}{"with everything": {fixed(), goldenFixed}, "plain": {plain(), goldenPlain}} {
		var b strings.Builder
		if err := of.report.WriteMarkdown(&b); err != nil {
			t.Fatal(err)
		}
		if b.String() != of.want {
			t.Errorf("%s: got:\n%s\nwant:\n%s", name, b.String(), of.want)
		}
	}
}

const goldenFixed = `# 500,000 connections: not as wanted

2026-03-04 05:06 UTC · Linux 6.18.0 · 4 processors · 16 GiB · go1.26.0
Server and generator are two processes on this machine, over loopback.
Limited: memory allows 500000: more memory, or fewer connections
Raised for the run and put back: net.core.somaxconn from 4096 to 65535
**Generator-limited** — ramp: the generator used 95 % of all processors

| | |
|---|---|
| connections open after the hold | 499,999 of 500,000 |
| connect rate | 25,000/s; handshake p50 1.5 ms, p99 12.3 ms |
| messages lost | 1 |
| server, user space | 36 MiB in all, 45.2 B a connection; **40.5 B** by the slope (±0.2, 180 samples from 15,000 to 499,999 connections) |
| generator, user space | 48 MiB in all, 50.0 B a connection; 44.0 B by the slope (±0.5, 180 samples from 15,000 to 499,999 connections) |
| kernel, both ends | 8,005.0 B a connection: slabs 7,985.0 B, of which objects in use 7,900.0 B, vmalloc 20.0 B; 8,000.0 B by the slope (±1.5, 180 samples from 15,000 to 499,999 connections) |
| the most during the broadcasts | server 40 MiB, generator 50 MiB, kernel grown by 4.0 GiB |
| TCP hash table | 1,048,576 buckets for 999,998 sockets |
| the doctor's model of both | kernel 3.8 GiB, user space 90 MiB: 2.5 % off |

| phase | seconds | server CPU s | generator CPU s |
|---|--:|--:|--:|
| ramp | 20.00 | 15.50 | 30.00 |
| hold | 10.00 | 0.01 | 0.00 |
| broadcast | 5.00 | 2.50 | 3.25 |

| broadcast | received | first ms | p50 ms | p99 ms | last ms | deliveries/s |
|--:|--:|--:|--:|--:|--:|--:|
| 1 | 500,000 of 500,000 | 0.25 | 1,000.0 | 1,990.5 | 2,000.0 | 250,001 |
| 2 | 499,999 of 500,000 | 0.50 | 250.0 | 490.0 | 500.0 | 1,000,000 |

| beside published runs | connections | memory | a connection | of | hardware |
|---|--:|--:|--:|---|---|
| **lull, this run** | 499,999 | 36 MiB | 75.5 B | the server process, without the kernel | 4 processors, 16 GiB, generator included |
| **lull, this run** | 499,999 | 1.9 GiB | 4,078.0 B | the server process and its ends in the kernel | the same |
| Haskell websockets, 256 k (the generator (tsung) ran on a second one) | 256,000 | 4.7 GiB | 19,771 B | the server process, without the kernel | EC2 m4.xlarge, 4 cores, 16 GB |
| Haskell websockets, 500 k (then the generator died) | 500,000 | 9.4 GiB | 20,175 B | the server process, without the kernel | EC2 m4.xlarge, 4 cores, 16 GB |
| Phoenix channels, 2 M (45 generators) | 2,000,000 | 78 GiB | 41,900 B | the whole machine: the server process, the kernel and everything else | Rackspace OnMetal, 40 cores, 128 GB |

| errors | |
|---|--:|
| dropped: EOF | 1 |

`

const goldenPlain = `# 100 connections: all open, nothing lost

2026-03-04 05:06 UTC · Linux 6.18.0 · 2 processors · 8.0 GiB · go1.26.0
Server and generator are two processes on this machine, over loopback.

| | |
|---|---|
| connections open after the hold | 100 of 100 |
| connect rate | 5,000/s; handshake p50 – ms, p99 – ms |
| messages lost | 0 |
| server, user space | 0 B in all, 0.0 B a connection |
| generator, user space | 0 B in all, 0.0 B a connection |
| kernel, both ends | 0.0 B a connection: slabs 0.0 B, vmalloc 0.0 B |

| phase | seconds | server CPU s | generator CPU s |
|---|--:|--:|--:|
| ramp | 0.50 | 0.10 | 0.20 |

| beside published runs | connections | memory | a connection | of | hardware |
|---|--:|--:|--:|---|---|
| **lull, this run** | 100 | 0 B | 0.0 B | the server process, without the kernel | 2 processors, 8.0 GiB, generator included |
| **lull, this run** | 100 | 0 B | 0.0 B | the server process and its ends in the kernel | the same |
| Haskell websockets, 256 k (the generator (tsung) ran on a second one) | 256,000 | 4.7 GiB | 19,771 B | the server process, without the kernel | EC2 m4.xlarge, 4 cores, 16 GB |
| Haskell websockets, 500 k (then the generator died) | 500,000 | 9.4 GiB | 20,175 B | the server process, without the kernel | EC2 m4.xlarge, 4 cores, 16 GB |
| Phoenix channels, 2 M (45 generators) | 2,000,000 | 78 GiB | 41,900 B | the whole machine: the server process, the kernel and everything else | Rackspace OnMetal, 40 cores, 128 GB |

`

// saved saves a report and reads it back.
func saved(t *testing.T, r *Report) (markdown, html, text string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new", "folder")
	if err := r.Save(dir); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return read("report.md"), read("report.html"), read("report.json")
}

func TestSaveWritesThreeFiles(t *testing.T) {
	markdown, html, text := saved(t, fixed())
	if markdown != goldenFixed {
		t.Errorf("report.md is not what WriteMarkdown writes:\n%s", markdown)
	}
	got := &Report{}
	if err := json.Unmarshal([]byte(text), got); err != nil {
		t.Fatal(err)
	}
	if want := fixed(); !reflect.DeepEqual(got, want) {
		t.Errorf("report.json became %+v, want %+v", got, want)
	}
	if !strings.HasPrefix(html, "<!doctype html>") || !strings.HasSuffix(strings.TrimSpace(html), "</html>") {
		t.Errorf("report.html is cut: %q … %q", html[:20], html[len(html)-20:])
	}
}

func TestSaveSaysWhereItCannotWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// A folder in a report's place cannot be written even by root.
	taken := t.TempDir()
	for _, name := range []string{"report.json", "report.md", "report.html"} {
		if err := os.Mkdir(filepath.Join(taken, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for dir, in := range map[string]string{file: file, filepath.Join(file, "below"): file, taken: filepath.Join(taken, "report.")} {
		err := fixed().Save(dir)
		if err == nil || !strings.HasPrefix(err.Error(), "experiment: ") || !strings.Contains(err.Error(), in) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// wellFormed reads HTML as lenient XML, and returns an error if an end tag has no
// start tag.
func wellFormed(html string) error {
	d := xml.NewDecoder(strings.NewReader(html))
	d.Strict, d.AutoClose, d.Entity = false, append(xml.HTMLAutoClose, "meta", "th", "td"), xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestThePageFetchesNothing(t *testing.T) {
	for name, r := range map[string]*Report{"with everything": fixed(), "plain": plain()} {
		_, html, _ := saved(t, r)
		if err := wellFormed(html); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		charts := 2
		if len(r.Load.Broadcasts) > 0 {
			charts = 3
		}
		if n := strings.Count(html, "<figure"); n != charts || strings.Count(html, "</svg>") != 2*charts {
			t.Errorf("%s: %d pictures, want %d", name, n, charts)
		}
		// Its only URLs name XML namespaces.
		for _, url := range regexp.MustCompile(`(?:\S+\s*=\s*)?\S*https?://[^"'\s)]*`).FindAllString(html, -1) {
			if !strings.HasPrefix(url, "xmlns") {
				t.Errorf("%s: refers to %s", name, url)
			}
		}
		for _, tag := range []string{"<script", "<link", "<img", "<iframe", "@import", "url("} {
			if strings.Contains(strings.ToLower(html), tag) {
				t.Errorf("%s: there is a %s", name, tag)
			}
		}
	}
}

func TestPageShowsTheFigures(t *testing.T) {
	_, html, _ := saved(t, fixed())
	text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(html, "|")
	for _, want := range []string{
		"500,000 connections|",               // the title: what was tried
		"499,999 connections|",               // the heading: what was reached
		"Linux 6.18.0", "go1.26.0", "16 GiB", // where
		"Limited: memory allows 500000",
		"499,999 of 500,000 open, 1 messages lost",
		"Generator-limited — ramp: the generator used 95 % of all processors",
		"|45.2 B|", "|50.0 B|", "|8,005.0 B|", "|25,000|", "|36 MiB|",
		"|broadcast 1|", "|broadcast 2|",
		"|499,999 of 500,000|0.50|250.0|490.0|500.0|1,000,000|",
		"|ramp|20.00|15.50|30.00|",
		"net.core.somaxconn from 4096 to 65535",
		"|75.5 B|the server process, without the kernel|", "|4,078.0 B|", "Haskell websockets, 256 k", "|19,771 B|the server process, without the kernel|",
		"|44.0 B (±0.5, 180 samples from 15,000 to 499,999 connections)|50 MiB|",
		"|dropped: EOF|1|",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not contain %q", want)
		}
	}
	_, html, _ = saved(t, plain())
	for _, unwanted := range []string{"Limited", "limited", "Not as wanted", "Broadcasts", "Errors", "Raised"} {
		if strings.Contains(html, unwanted) {
			t.Errorf("the page of a good run contains %q", unwanted)
		}
	}
}

// HTML in errors and names is shown as text.
func TestErrorsAreEscaped(t *testing.T) {
	const evil = `rejected: <script>alert("x")</script></table><img src=x onerror=y>`
	r := fixed()
	r.Load.Errors = []measure.Found{{Error: measure.Error{Text: evil}, Count: 1}}
	r.Load.Limited = []string{evil}
	r.Limit = evil
	r.Machine.Kernel = evil
	r.Raised[0].Old = evil
	_, html, _ := saved(t, r)
	for _, tag := range []string{"<script", "<img"} {
		if strings.Contains(html, tag) {
			t.Errorf("there is a %s", tag)
		}
	}
	if n := strings.Count(html, template.HTMLEscapeString(evil)); n != 5 {
		t.Errorf("shown %d times, want 5", n)
	}
	if err := wellFormed(html); err != nil {
		t.Error(err)
	}
}

// Published totals have the memory of the program without connections in them.
func TestTotalsHaveTheMemoryOfTheProgram(t *testing.T) {
	r := fixed()
	if got := r.BytesTotal(); got != 36<<20+2_001_245_997 { // 8005 ÷ 2 × 499,999; the kernel's figure is both ends'
		t.Errorf("%d B in all", got)
	}
	if got, want := r.BytesPerConnection(), float64(r.BytesTotal())/499_999; got != want {
		t.Errorf("%v B, want %v", got, want)
	}
	if got, want := r.UserPerConnection(), float64(36<<20)/499_999; got != want {
		t.Errorf("%v B in user space, want %v", got, want)
	}
	r.Load.Open = 0
	if got := r.UserPerConnection(); got != 36<<20 {
		t.Errorf("%v B of no connection", got)
	}
}

func TestPublishedRuns(t *testing.T) {
	want := map[string]int{
		"Haskell websockets, 256 k": 19_771, // 4.714 GiB ÷ 256,000
		"Haskell websockets, 500 k": 20_175, // 9.395 GiB ÷ 500,000
		"Phoenix channels, 2 M":     41_900, // 83.8 GB ÷ 2,000,000
	}
	for _, m := range PublishedRuns {
		if got := m.PerConnection(); got != want[m.What] || m.Hardware == "" || m.Of == "" {
			t.Errorf("%s: %d B a connection, want %d", m.What, got, want[m.What])
		}
	}
}

// Short runs, and runs in which nothing was received, have a report too.
func TestReportsWithLittleInThemAreSaved(t *testing.T) {
	none := result.Broadcast{Messages: 1, Expected: 10}
	samples := []Sample{{Open: 0}, {Seconds: 1, Open: 10}}
	for why, r := range map[string]*Report{
		"no sample":        {Load: &result.Result{}},
		"one sample":       {Load: &result.Result{}, Samples: samples[:1]},
		"a broadcast lost": {Load: &result.Result{Broadcasts: []result.Broadcast{none}}, Samples: samples},
		"one of two lost":  {Load: &result.Result{Broadcasts: []result.Broadcast{none, {Expected: 1, Histogram: []result.Bar{{UpTo: 1, Count: 1}}}}}, Samples: samples},
	} {
		if err := r.Save(t.TempDir()); err != nil {
			t.Errorf("%s: %v", why, err)
		}
	}
}
