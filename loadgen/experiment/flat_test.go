package experiment

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// measureFlat measures few connections, and collects what is said.
func measureFlat(t *testing.T, ctx context.Context, say func(string)) (*Flat, error) {
	t.Helper()
	return MeasureFlat(ctx, FlatConfig{Conns: []int{20, 40}, Rounds: 2, Say: func(format string, args ...any) { say(fmt.Sprintf(format, args...)) }})
}

func TestFlatMeasuresEachNumberInEachRound(t *testing.T) {
	var said []string
	f, err := measureFlat(t, t.Context(), func(text string) { said = append(said, text) })
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Points) != 2 || f.Points[0].Conns != 20 || f.Points[1].Conns != 40 {
		t.Fatalf("%+v", f.Points) // this machine's own table is large enough for these
	}
	for _, p := range f.Points {
		if len(p.Rounds) != 2 || len(p.Failed) > 0 || p.Large || p.Buckets < 1 && HashTable() > 0 {
			t.Errorf("%+v", p)
		}
		for _, c := range append(p.Rounds, p.Median()) {
			if min(c.Seconds, c.Rate, c.HandshakeServer, c.HandshakeGenerator, c.DeliveryServer, c.DeliveryGenerator, c.Last) <= 0 || c.ServerRSS < 1<<20 {
				t.Errorf("%+v", c)
			}
		}
	}
	if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "round 2 of 2: 40 connections, ") }) {
		t.Errorf("said %q", said)
	}
	if _, err := json.Marshal(f); err != nil {
		t.Error(err)
	}
}

func TestFlatReportsWhatFailed(t *testing.T) {
	t.Setenv(fault, "does not start")
	f, err := measureFlat(t, t.Context(), func(string) {})
	if err == nil || err.Error() != "experiment: 4 measurements failed" {
		t.Errorf("got %v", err)
	}
	for _, p := range f.Points {
		if len(p.Failed) != 2 || !strings.Contains(p.Failed[0], "the port is taken") {
			t.Errorf("%+v", p)
		}
	}
	var b strings.Builder
	if err := f.WriteMarkdown(&b); err != nil || !strings.Contains(b.String(), "| – | – | – | – | – |") {
		t.Errorf("%v\n%s", err, &b)
	}
	if err := f.WritePlot(io.Discard); err == nil || !strings.Contains(err.Error(), "less than two points") {
		t.Errorf("the plot: %v", err)
	}
}

func TestAnInterruptedFlatKeepsItsPoints(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f, err := measureFlat(t, ctx, func(text string) {
		if strings.HasPrefix(text, "round 2 of 2: 20 ") {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(f.Points) != 2 || len(f.Points[1].Rounds) != 1 || len(f.Points[0].Failed) > 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

// flatOf is a measurement of two numbers of connections with two tables.
func flatOf() *Flat {
	cost := func(handshake, delivery float64) []FlatCost {
		c := FlatCost{2, 5000, handshake, 20, delivery, 3, 400, 30 << 20, 8400}
		odd := c
		odd.HandshakeServer, odd.DeliveryServer = 1000, 0.001
		return []FlatCost{c, odd, c} // the medians are c's
	}
	return &Flat{
		Date:    time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		Machine: Machine{Kernel: "6.18.0", Go: "go1.26.0", Processors: 2, Memory: 24 << 30, Buckets: 262_144},
		Points: []FlatPoint{
			{Conns: 10_000, Buckets: 262_144, Rounds: cost(10, 5)},
			{Conns: 10_000, Buckets: 2_097_152, Large: true, Rounds: cost(10, 5)},
			{Conns: 1_000_000, Buckets: 262_144, Rounds: cost(30, 12.5)},
			{Conns: 1_000_000, Buckets: 2_097_152, Large: true, Rounds: cost(11, 5.5)},
		},
	}
}

func TestFlatAsATable(t *testing.T) {
	var b strings.Builder
	if err := flatOf().WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	const want = `2026-03-04 · Linux 6.18.0 · 2 processors · 24 GiB · go1.26.0
Server and generator on this machine; medians of 3 rounds; processor time in µs.

| connections | TCP hash table | connected after | connects a second | a handshake: server, generator | a delivery: server, generator | last receiver |
|--:|--:|--:|--:|--:|--:|--:|
| 10,000 | 262,144 | 2 s | 5,000 | 10.0, 20.0 | 5.00, 3.00 | 400 ms |
| 10,000 | 2,097,152 | 2 s | 5,000 | 10.0, 20.0 | 5.00, 3.00 | 400 ms |
| 1,000,000 | 262,144 | 2 s | 5,000 | 30.0, 20.0 | 12.50, 3.00 | 400 ms |
| 1,000,000 | 2,097,152 | 2 s | 5,000 | 11.0, 20.0 | 5.50, 3.00 | 400 ms |

With a table of 262,144 buckets, 10,000 connections to 1,000,000: a handshake costs the server **3.00** times as much, a delivery **2.50** times; both ends together, which share out the kernel's work differently, **1.67** and **1.94** times. A broadcast's last receiver waits **0.01** times as long for each connection.

With a table of 2,097,152 buckets, 10,000 connections to 1,000,000: a handshake costs the server **1.10** times as much, a delivery **1.10** times; both ends together, which share out the kernel's work differently, **1.03** and **1.06** times. A broadcast's last receiver waits **0.01** times as long for each connection.
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &b, want)
	}
}

func TestFlatAsAPlot(t *testing.T) {
	var b strings.Builder
	if err := flatOf().WritePlot(&b); err != nil {
		t.Fatal(err)
	}
	svg := b.String()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(svg, "<svg y="); n != 3 {
		t.Errorf("%d charts", n)
	}
	for _, text := range []string{"server, 2,097,152 buckets", "generator, 262,144 buckets", ">10 k<", ">1 M<", "for each 1,000 receivers"} {
		if !strings.Contains(svg, text) {
			t.Errorf("there is no %q", text)
		}
	}
	// A file can be written again from its JSON.
	var again Flat
	text, err := json.Marshal(flatOf())
	if err == nil {
		err = json.Unmarshal(text, &again)
	}
	var other strings.Builder
	if err := errors.Join(err, again.WritePlot(&other)); err != nil || other.String() != svg {
		t.Errorf("another plot, %v", err)
	}
}

func TestShortNumbers(t *testing.T) {
	for n, want := range map[float64]string{20: "20", 999: "999", 10_000: "10 k", 300_000: "300 k", 1e6: "1 M", 2.5e6: "2.5 M"} {
		if got := short(n); got != want {
			t.Errorf("%v is %s, want %s", n, got, want)
		}
	}
}
