package experiment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

func TestMedian(t *testing.T) {
	rows := []struct {
		values []float64
		want   float64
	}{
		{nil, 0}, {[]float64{3}, 3}, {[]float64{3, 1, 2}, 2}, {[]float64{9, 1, 5, 1, 9}, 5},
		{[]float64{1, 2}, 1.5}, {[]float64{4, 3, 2, 1}, 2.5}, // the mean of the middle two
		{[]float64{5, 5, 5}, 5},
	}
	for _, r := range rows {
		before := slices.Clone(r.values)
		if got := result.Median(r.values); got != r.want {
			t.Errorf("of %v: %v, want %v", r.values, got, r.want)
		}
		if !slices.Equal(r.values, before) {
			t.Errorf("median changed %v to %v", before, r.values)
		}
	}
}

func TestFiguresAreJudgedByTheirMedian(t *testing.T) {
	rows := []struct {
		why          string
		target       target
		lull, ratios []float64
		want         string
	}{
		{"below the aim", atMost(20, 5), []float64{4.9}, nil, "aim"},
		{"the aim", atMost(20, 5), []float64{5}, nil, "aim"},
		{"between", atMost(20, 5), []float64{5.1}, nil, "must"},
		{"the must", atMost(20, 5), []float64{20}, nil, "must"},
		{"above", atMost(20, 5), []float64{20.1}, nil, "missed"},
		{"one bad round of three", atMost(20, 5), []float64{1, 1000, 2}, nil, "aim"},
		{"two bad rounds of three", atMost(20, 5), []float64{1, 1000, 2000}, nil, "missed"},

		{"above the aim", atLeast(1.5e6, 2e6), []float64{3e6}, nil, "aim"},
		{"the aim, more is better", atLeast(1.5e6, 2e6), []float64{2e6}, nil, "aim"},
		{"between, more is better", atLeast(1.5e6, 2e6), []float64{1.9e6}, nil, "must"},
		{"the must, more is better", atLeast(1.5e6, 2e6), []float64{1.5e6}, nil, "must"},
		{"below", atLeast(1.5e6, 2e6), []float64{1.4e6}, nil, "missed"},

		{"a ratio, whatever the value", ratioAtMost(1.2, 1.1), []float64{1000}, []float64{1.05}, "aim"},
		{"a ratio between", ratioAtMost(1.2, 1.1), []float64{0}, []float64{1.15}, "must"},
		{"a ratio above", ratioAtMost(1.2, 1.1), []float64{0}, []float64{1.3}, "missed"},
		{"the ratios' median, not the medians' ratio", ratioAtMost(1.2, 1.1), []float64{0}, []float64{1, 1.15, 9}, "must"},

		{"no number", atMost(20, 5), []float64{math.NaN()}, nil, "missed"},
		{"no number, more is better", atLeast(1.5e6, 2e6), []float64{math.NaN()}, nil, "missed"},
	}
	for _, r := range rows {
		row := Row{Lull: r.lull, Ratios: r.ratios, Must: r.target.must, Aim: r.target.aim, target: r.target}
		if row.judge(); row.Reached != r.want {
			t.Errorf("%s: %s, want %s", r.why, row.Reached, r.want)
		}
	}
}

func TestFiguresOfAnOutcome(t *testing.T) {
	o := outcome{
		load: &result.Result{Broadcasts: []result.Broadcast{
			{Received: 10, Latency: result.Latency{Last: 3}}, {Received: 20, Latency: result.Latency{Last: 1}},
			{Received: 30, Latency: result.Latency{Last: 2}},
		}},
		costs: []Cost{{Phase: "ramp", ServerCPU: 1.5}, {Phase: "echo", ServerCPU: 2}},
	}
	if got := o.deliveries(); got != 60 {
		t.Errorf("%v deliveries", got)
	}
	if got := o.median(func(b result.Broadcast) float64 { return b.Latency.Last }); got != 2 {
		t.Errorf("median %v", got)
	}
	if got := o.serverCPU("echo"); got != 2 {
		t.Errorf("echo took %v s", got)
	}
	if got := o.serverCPU("hold"); !math.IsNaN(got) {
		t.Errorf("a phase that did not run took %v s, want NaN", got)
	}
}

// Every scenario has a name, a mode or a delay, and figures. Each aim is at least
// as good as its must.
func TestScenariosAreComplete(t *testing.T) {
	names := ScenarioNames()
	for i, s := range scenarios {
		if s.name != names[i] || slices.Contains(names[:i], s.name) {
			t.Errorf("scenario %d is called %q", i, s.name)
		}
		runs := s.mode == "echo" || s.mode == "chat" || s.mode == "" && s.delay > 0 // slowhandler has no mode
		if !runs || s.load.Conns == 0 || len(s.figures) == 0 {
			t.Errorf("%s: %+v", s.name, s)
		}
		for _, f := range s.figures {
			g := f.target
			if f.name == "" || f.value == nil || g.more && g.aim < g.must || !g.more && g.aim > g.must || g.ratio && s.floor == "" && s.instead == nil && !s.peer {
				t.Errorf("%s: %+v", s.name, f)
			}
		}
	}
}

func TestRowsAsATable(t *testing.T) {
	rows := []Row{
		{
			Scenario: "echo", Name: "server CPU per message", Unit: "µs", Lull: []float64{11, 12, 10}, Floor: []float64{10, 10, 10},
			Ratios: []float64{1.1, 1.2, 1}, Must: 1.2, Aim: 1.1, Reached: "aim", target: ratioAtMost(1.2, 1.1),
		},
		{
			Scenario: "burst", Name: "burst of 20", Unit: "deliveries/s", Lull: []float64{1_900_000}, Must: 1.5e6, Aim: 2e6,
			Reached: "must", target: atLeast(1.5e6, 2e6),
		},
		{Scenario: "churn", Name: "sockets left", Lull: []float64{0}, Reached: "aim", target: atMost(0, 0)},
	}
	var b strings.Builder
	if err := WriteRows(&b, rows); err != nil {
		t.Fatal(err)
	}
	head, table, _ := strings.Cut(b.String(), "\n\n")
	if !strings.HasPrefix(head, "Linux ") || !strings.Contains(head, "Medians of 3 rounds") {
		t.Errorf("head %q", head)
	}
	const want = `| figure | lull | floor | ratio (min–max) | must | aim | reached |
|---|--:|--:|--:|--:|--:|---|
| echo: server CPU per message, µs | 11 | 10 | **1.10** (1.00–1.20) | ≤ 1.2 | ≤ 1.1 | aim |
| burst: burst of 20, deliveries/s | 1,900,000 |  |  | ≥ 1,500,000 | ≥ 2,000,000 | must |
| churn: sockets left | 0 |  |  | ≤ 0 | ≤ 0 | aim |
`
	if table != want {
		t.Errorf("got:\n%s\nwant:\n%s", table, want)
	}
	if err := WriteRows(io.Discard, nil); err != nil {
		t.Error(err)
	}
	closed, w := io.Pipe()
	closed.Close()
	if err := WriteRows(w, rows); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("to a closed pipe: %v", err)
	}
}

// tiny replaces the scenarios by small ones for a test.
func tiny(t *testing.T) {
	before := scenarios
	t.Cleanup(func() { scenarios = before })
	scenarios = []scenario{
		{
			name: "both", mode: "echo", floor: "echo",
			load: loadgen.Config{Conns: 20, Active: 5, Echo: 50 * time.Millisecond}, times: 2,
			figures: []figure{
				{"connections", "", ratioAtMost(1, 1), func(o outcome) float64 { return float64(o.load.Open) }},
				{"runs", "", atLeast(2, 2), func(o outcome) float64 { return float64(len(o.remaining)) }},
				{"phases", "", atLeast(2, 2), func(o outcome) float64 { return float64(len(o.costs)) }},
				{"memory left", "B", atLeast(1, 1<<20), func(o outcome) float64 { return float64(o.remaining[1].resident) }},
				{"sockets left", "", atLeast(1, 1), func(o outcome) float64 { return float64(o.remaining[1].sockets) }},
			},
		},
		{
			name: "alone", mode: "chat", load: loadgen.Config{Conns: 10, Broadcasts: 3},
			figures: []figure{{"deliveries", "", atLeast(30, 31), func(o outcome) float64 { return o.deliveries() }}},
		},
		{name: "on request", named: true, mode: "chat", load: loadgen.Config{Conns: 5}},
	}
}

// bench runs tiny scenarios. The test program serves as lull and as the floor.
func bench(t *testing.T, ctx context.Context, rounds int, scenarios ...string) (rows []Row, said []string, err error) {
	t.Helper()
	tiny(t)
	rows, err = Bench(ctx, BenchConfig{
		Floor: os.Args[0], Rounds: rounds, Scenarios: scenarios,
		Say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
	})
	return rows, said, err
}

func TestBenchRunsRoundsOfBothServers(t *testing.T) {
	rows, said, err := bench(t, t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"both, round 1 of 2", "both, round 2 of 2", "alone, round 1 of 2", "alone, round 2 of 2"}; !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	want := map[string]string{"connections": "aim", "runs": "aim", "phases": "aim", "memory left": "aim", "sockets left": "aim", "deliveries": "must"}
	if len(rows) != len(want) {
		t.Fatalf("rows %+v", rows)
	}
	for _, r := range rows {
		floors := 2
		if r.Scenario == "alone" {
			floors = 0
		}
		if len(r.Lull) != 2 || len(r.Floor) != floors || len(r.Ratios) != floors || r.Reached != want[r.Name] {
			t.Errorf("%+v", r)
		}
	}
	if r := rows[0]; !slices.Equal(r.Lull, []float64{20, 20}) || !slices.Equal(r.Floor, r.Lull) || !slices.Equal(r.Ratios, []float64{1, 1}) {
		t.Errorf("%+v", r)
	}
}

func TestBenchRunsTheNamedScenarios(t *testing.T) {
	rows, said, err := bench(t, t.Context(), 1, "on request")
	if err != nil || len(rows) != 0 || !slices.Equal(said, []string{"on request, round 1 of 1"}) {
		t.Errorf("%+v, said %q, %v", rows, said, err)
	}
	rows, said, err = bench(t, t.Context(), 1, "unknown")
	if err != nil || len(rows) != 0 || len(said) != 0 {
		t.Errorf("%+v, said %q, %v", rows, said, err)
	}
}

func TestBenchSaysWhichScenarioFailed(t *testing.T) {
	t.Setenv(fault, "does not start")
	_, _, err := bench(t, t.Context(), 1, "alone")
	if err == nil || !strings.HasPrefix(err.Error(), "alone: experiment: start ") || !strings.Contains(err.Error(), "the port is taken") {
		t.Errorf("got %v", err)
	}
}

func TestBenchFailsIfAConnectionIsLost(t *testing.T) {
	tiny(t)
	s := scenarios[1]
	s.load.Conns, s.load.Hold = faultConns, 1000*time.Hour
	t.Setenv(fault, "dies")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.load.Sinks = []measure.Sink{measure.Funcs{OnSnapshot: func(s *measure.Snapshot) {
		if s.Failed() > 0 && s.Opening == 0 {
			cancel()
		}
	}}}
	_, err := s.run(ctx, s.load, os.Args[0], "serve", "--listen", "127.0.0.1:0", "--mode", "chat")
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("of %d connections", faultConns)) {
		t.Errorf("got %v", err)
	}
}

func TestBenchNeedsTheProgramsOfItsScenarios(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for _, row := range []struct {
		scenario string
		config   BenchConfig
		missing  bool
	}{
		{"echo", BenchConfig{Floor: none, SlowHandler: os.Args[0]}, true},
		{"echo", BenchConfig{Floor: os.Args[0], SlowHandler: none}, false},
		{"clicking", BenchConfig{Floor: os.Args[0], SlowHandler: none}, true},
		{"clicking", BenchConfig{Floor: none, SlowHandler: os.Args[0]}, false},
	} {
		row.config.Scenarios = []string{row.scenario} // without rounds nothing runs
		_, err := Bench(t.Context(), row.config)
		if (err != nil) != row.missing || row.missing && !strings.Contains(err.Error(), "make build") {
			t.Errorf("%s: got %v", row.scenario, err)
		}
	}
}

func TestAScenarioWithADelayRunsSlowHandler(t *testing.T) {
	tiny(t)
	scenarios = []scenario{{
		name: "slow", delay: time.Millisecond, load: loadgen.Config{Conns: 5},
		figures: []figure{{"connections", "", atLeast(5, 5), func(o outcome) float64 { return float64(o.load.Open) }}},
	}}
	rows, err := Bench(t.Context(), BenchConfig{SlowHandler: os.Args[0], Rounds: 1, Say: t.Logf})
	if err != nil || len(rows) != 1 || rows[0].Reached != "aim" {
		t.Errorf("%+v, %v", rows, err)
	}
	name, args := scenarios[0].command("lull", "slowhandler", "2")
	if want := "-listen 127.0.0.1:0 --admin= -reactors 2 -delay 1ms -delay-for 0s"; name != "slowhandler" || strings.Join(args, " ") != want {
		t.Errorf("it runs %s %s", name, args)
	}
}

// Large numbers are not written as powers of ten.
func TestNumbersInRows(t *testing.T) {
	for v, want := range map[float64]string{
		999.4: "999", 999.6: "1,000", 1000: "1,000", 1234.6: "1,235", 99.96: "100", 1.234: "1.23", 0.0123: "0.0123", 0: "0",
	} {
		if got := number(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}
