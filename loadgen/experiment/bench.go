package experiment

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/tuning"
)

// BenchConfig says what to compare.
type BenchConfig struct {
	Floor       string   // the floor program
	SlowHandler string   // the slowhandler program
	Peer        string   // the peer program
	Rounds      int      // of each server; the servers alternate
	Scenarios   []string // names; if empty, all that do not have to be named
	Say         func(format string, args ...any)
}

// scenario is a load on lull, and for some on a server to compare with.
type scenario struct {
	name  string
	named bool // runs only if BenchConfig.Scenarios names it
	mode  string
	serve []string // more arguments of lull serve, or of slowhandler
	floor string   // the floor's mode, empty for none
	joins bool     // the floor coalesces
	peer  bool     // compared with the peer program
	tls   bool     // over TLS, by clients on crypto/tls in place of the generator

	delay    time.Duration // of slowhandler's handler; if it is not 0, slowhandler runs in place of lull serve
	delayFor time.Duration // how long the handler has a delay; 0 is for ever

	watched bool        // the server's metrics are read during the load
	scraped bool        // the cost of reading the metrics is measured during the hold
	lossy   bool        // the scenario may lose connections and messages
	trust   *tls.Config // of a round of a scenario that is tls
	say     func(format string, args ...any)
	load    loadgen.Config
	instead *loadgen.Config // another load, on another server of the same kind, to compare with
	times   int             // how often the same server gets the load; 0 is once
	figures []figure
}

// figure is one result of a scenario.
type figure struct {
	name   string
	unit   string
	target target
	value  func(outcome) float64
}

// target is what a figure should be.
type target struct {
	must, aim float64
	ratio     bool // the target is for the ratio to the figure of the comparison
	more      bool // the figure should be at least this, otherwise at most
}

// outcome is one run of a scenario against one server.
type outcome struct {
	load      *result.Result // of the last load
	costs     []Cost         // of the last load
	remaining []remaining    // after each load

	samples []Sample // of the last load
	watcher *watcher // of the last load, if the scenario is watched
	tls     tlsCosts // if the scenario is tls
	scrapes scrapes
}

// remaining is what a server has after its connections are closed.
type remaining struct {
	resident int64 // bytes
	sockets  int
}

// cost is what a phase took. Everything is NaN if there was no such phase.
func (o outcome) cost(phase string) Cost {
	for _, c := range o.costs {
		if c.Phase == phase {
			return c
		}
	}
	none := math.NaN()
	return Cost{phase, none, none, none, none}
}

func (o outcome) serverCPU(phase string) float64 { return o.cost(phase).ServerCPU }

func (o outcome) deliveries() float64 {
	n := 0
	for _, b := range o.load.Broadcasts {
		n += b.Received
	}
	return float64(n)
}

// median is the median of a value over the broadcasts.
func (o outcome) median(of func(result.Broadcast) float64) float64 {
	values := make([]float64, len(o.load.Broadcasts))
	for i, b := range o.load.Broadcasts {
		values[i] = of(b)
	}
	return result.Median(values)
}

// grownSince is by how much the server's memory has grown since the end of a load, in
// KiB.
func (o outcome) grownSince(load int) float64 {
	return float64(o.remaining[len(o.remaining)-1].resident-o.remaining[load].resident) / 1024
}

const micro = 1e6

// These functions make targets readable in the table below.
func ratioAtMost(must, aim float64) target { return target{must: must, aim: aim, ratio: true} }
func atMost(must, aim float64) target      { return target{must: must, aim: aim} }
func ratioAtLeast(must, aim float64) target {
	return target{must: must, aim: aim, ratio: true, more: true}
}
func atLeast(must, aim float64) target { return target{must: must, aim: aim, more: true} }

func broadcastFigures() []figure {
	return []figure{
		{"server CPU per delivery", "µs", ratioAtMost(1.2, 1.1), func(o outcome) float64 {
			return o.serverCPU("broadcast") / o.deliveries() * micro
		}},
		{"last receiver", "ms", ratioAtMost(1.2, 1.1), func(o outcome) float64 {
			return o.median(func(b result.Broadcast) float64 { return b.Latency.Last })
		}},
	}
}

var scenarios = []scenario{
	{
		name: "handshake", mode: "echo", floor: "echo",
		load: loadgen.Config{Conns: 35_000},
		figures: []figure{{"server CPU per handshake", "µs", ratioAtMost(1.5, 1.2), func(o outcome) float64 {
			return o.serverCPU("ramp") / float64(o.load.Open) * micro
		}}},
	},
	{
		name: "echo", mode: "echo", floor: "echo",
		load: loadgen.Config{Conns: 5_000, Active: 1_000, Echo: 5 * time.Second},
		figures: []figure{{"server CPU per echoed message", "µs", ratioAtMost(1.2, 1.1), func(o outcome) float64 {
			return o.serverCPU("echo") / float64(o.load.Echo.Messages) * micro
		}}},
	},
	{
		name: "workers", named: true, mode: "echo", peer: true, serve: []string{"--handlers", "workers"},
		load: loadgen.Config{Conns: 5_000, Active: 1_000, Echo: 5 * time.Second},
		figures: []figure{{"server CPU per message echoed by workers, and by gws", "µs", ratioAtMost(1, 0.85), func(o outcome) float64 {
			return o.serverCPU("echo") / float64(o.load.Echo.Messages) * micro
		}}},
	},
	{
		name: "broadcast-15k", mode: "chat", floor: "fanout",
		load:    loadgen.Config{Conns: 15_000, Hold: time.Second, Broadcasts: 20},
		figures: broadcastFigures(),
	},
	{
		name: "burst", mode: "chat", floor: "fanout",
		load: loadgen.Config{Conns: 15_000, Hold: time.Second, Broadcasts: 100, Burst: 20},
		figures: []figure{{"burst of 20 to 15,000", "deliveries/s", atLeast(1.5e6, 2e6), func(o outcome) float64 {
			return o.median(func(b result.Broadcast) float64 { return b.Deliveries })
		}}},
	},
	{
		name: "burst-coalesced", mode: "chat", floor: "fanout", joins: true,
		load: loadgen.Config{Conns: 15_000, Hold: time.Second, Broadcasts: 100, Burst: 20},
		figures: []figure{{"burst of 20 to 15,000, beside a floor that coalesces too", "deliveries/s", ratioAtLeast(0.8, 0.9), func(o outcome) float64 {
			return o.median(func(b result.Broadcast) float64 { return b.Deliveries })
		}}},
	},
	{
		name: "ping", mode: "chat",
		load: loadgen.Config{Conns: 100_000, Hold: time.Second, Broadcasts: 10, Probe: time.Millisecond},
		figures: []figure{{"another's ping during a broadcast to 100,000, p99", "ms", atMost(20, 5), func(o outcome) float64 {
			return o.load.Probe.Busy.P99
		}}},
	},
	{
		name: "churn", mode: "echo",
		load: loadgen.Config{Conns: 20_000}, times: 50,
		figures: []figure{
			{"memory grown by in a million connects and closes, from the end of the first 20,000", "KiB", atMost(1024, 256), func(o outcome) float64 {
				return o.grownSince(0)
			}},
			// After a fifth of them the Go runtime has what it needs.
			{"the same, from the end of the first 220,000", "KiB", atMost(1024, 256), func(o outcome) float64 {
				return o.grownSince(len(o.remaining) / 5)
			}},
			{"sockets left by them", "", atMost(0, 0), func(o outcome) float64 {
				return float64(o.remaining[len(o.remaining)-1].sockets - o.remaining[0].sockets)
			}},
		},
	},
	overTLS(),
	clicking("clicking", clickingFigures(), "--inbox-policy", "pause"),
	clicking("clicking-close", []figure{
		{"connections closed", "", atLeast(1, 1), func(o outcome) float64 { return float64(o.load.Counts["closed"]) }},
	}, "--inbox-policy", "close"),
	warning(),
	flooding(),
	scraping(),
	slow("close"), slow("drop-new"), slow("drop-old"), slow("latest"),
	blocking("inline", atLeast(0.9, 0.95), atLeast(100, 100), atLeast(1, 3), "--handlers", "inline"),
	blocking("serial", atLeast(0.9, 0.95), atMost(20, 5), atMost(0, 0), "--handlers", "serial"),
	blocking("1-worker", atLeast(0.9, 0.95), atMost(20, 5), atMost(0, 0), "--handlers", "workers", "--workers", "1"),
	blocking("5-workers", atLeast(4.5, 4.75), atMost(20, 5), atMost(0, 0), "--handlers", "workers", "--workers", "5"),
	{
		name: "broadcast-1m", named: true, mode: "chat", floor: "fanout",
		load:    loadgen.Config{Conns: 1_000_000, Hold: 2 * time.Second, Broadcasts: 5},
		figures: broadcastFigures(),
	},
}

// ScenarioNames lists what Bench knows.
func ScenarioNames() []string {
	names := make([]string, len(scenarios))
	for i, s := range scenarios {
		names[i] = s.name
	}
	return names
}

// MostConns is how many connections the largest of the named scenarios opens, or of
// those that Bench runs without a name.
func MostConns(names []string) (most int) {
	for _, s := range (BenchConfig{Scenarios: names}).chosen() {
		most = max(most, s.load.Conns)
	}
	return most
}

// Row is one figure with its values in all rounds.
type Row struct {
	Scenario string    `json:"scenario"`
	Name     string    `json:"name"`
	Unit     string    `json:"unit"`
	Lull     []float64 `json:"lull"`             // round by round
	Floor    []float64 `json:"floor,omitempty"`  // of the server or load to compare with, round by round
	Ratios   []float64 `json:"ratios,omitempty"` // round by round
	Must     float64   `json:"must"`
	Aim      float64   `json:"aim"`
	Reached  string    `json:"reached"` // "aim", "must" or "missed"

	target target
}

// Bench runs the scenarios and returns a row for each figure. The server and the
// one to compare with alternate, because the machine's speed changes over time.
func Bench(ctx context.Context, config BenchConfig) ([]Row, error) {
	lull, err := self()
	if err != nil {
		return nil, err
	}
	chosen := config.chosen()
	for _, s := range chosen {
		if err := config.needs(s); err != nil {
			return nil, err
		}
	}
	var rows []Row
	for _, s := range chosen {
		own := make([]Row, len(s.figures))
		for i, f := range s.figures {
			own[i] = Row{Scenario: s.name, Name: f.name, Unit: f.unit, Must: f.target.must, Aim: f.target.aim, target: f.target}
		}
		for round := range config.Rounds {
			config.Say("%s, round %d of %d", s.name, round+1, config.Rounds)
			if err := s.round(ctx, lull, config, own); err != nil {
				return rows, fmt.Errorf("%s: %w", s.name, err)
			}
		}
		for i := range own {
			own[i].judge()
		}
		rows = append(rows, own...)
	}
	return rows, nil
}

// chosen are the scenarios to run.
func (c BenchConfig) chosen() []scenario {
	return slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool {
		if len(c.Scenarios) == 0 {
			return s.named
		}
		return !slices.Contains(c.Scenarios, s.name)
	})
}

// needs returns an error if a program that the scenario runs does not exist.
func (c BenchConfig) needs(s scenario) error {
	programs := map[string]bool{c.Floor: s.floor != "", c.SlowHandler: s.delay > 0, c.Peer: s.peer}
	for program, needed := range programs {
		if !needed {
			continue
		}
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("experiment: scenario %s needs a program that «make build» builds: %w", s.name, err)
		}
	}
	return nil
}

// command returns the server of a scenario and its arguments.
func (s scenario) command(lull, slowHandler, reactors string) (name string, args []string) {
	admin := "--admin="
	if s.watched || s.scraped {
		admin += "127.0.0.1:0"
	}
	if s.delay > 0 {
		args = []string{"-listen", "127.0.0.1:0", admin, "-reactors", reactors, "-delay", s.delay.String(), "-delay-for", s.delayFor.String()}
		return slowHandler, append(args, s.serve...)
	}
	args = []string{"serve", "--listen", "127.0.0.1:0", "--mode", s.mode, admin, "--status", "0s",
		"--fd-tables", "private", "--reactors", reactors}
	return lull, append(args, s.serve...)
}

func (s scenario) floorArgs(reactors string) []string {
	args := []string{"-listen", "127.0.0.1:0", "-mode", s.floor, "-tables", "private", "-threads", reactors}
	if s.joins {
		args = append(args, "-coalesce")
	}
	return args
}

// round runs a scenario once against each server.
func (s scenario) round(ctx context.Context, lull string, config BenchConfig, rows []Row) error {
	reactors := strconv.Itoa(tuning.Reactors(s.load.Conns))
	name, args := s.command(lull, config.SlowHandler, reactors)
	peerArgs := []string{"-listen", "127.0.0.1:0"}
	if s.tls {
		files, err := newCertificate()
		if err != nil {
			return err
		}
		defer files.remove()
		s.trust, s.say = files.trust, config.Say
		args = append(args, "--tls-cert", files.cert, "--tls-key", files.key)
		peerArgs = append(peerArgs, "-tls-cert", files.cert, "-tls-key", files.key)
	}
	ours, err := s.run(ctx, s.load, name, args...)
	if err != nil {
		return err
	}
	theirs, compared := outcome{}, s.floor != "" || s.instead != nil || s.peer
	switch {
	case s.instead != nil:
		theirs, err = s.run(ctx, *s.instead, name, args...)
	case s.peer:
		theirs, err = s.run(ctx, s.load, config.Peer, peerArgs...)
	case s.floor != "":
		theirs, err = s.run(ctx, s.load, config.Floor, s.floorArgs(reactors)...)
	}
	if err != nil {
		return err
	}
	for i, f := range s.figures {
		r := &rows[i]
		value := f.value(ours)
		r.Lull = append(r.Lull, value)
		if s.floor != "" || compared && f.target.ratio {
			yardstick := f.value(theirs)
			r.Floor = append(r.Floor, yardstick)
			r.Ratios = append(r.Ratios, value/yardstick)
		}
	}
	return nil
}

// run starts a server and puts a load on it.
func (s scenario) run(ctx context.Context, load loadgen.Config, name string, args ...string) (o outcome, err error) {
	server, err := start(ctx, name, args...)
	if err != nil {
		return o, err
	}
	defer server.kill()
	if s.tls {
		o.tls, err = s.measureTLS(ctx, server)
		return o, err
	}
	sinks := load.Sinks
	for range max(1, s.times) {
		watch := observe(server.cmd.Process.Pid)
		load.URLs = []string{"ws://" + server.addr + "/"}
		load.Floor = s.floor != "" // lull and the floor get the same load
		load.Sinks = append(slices.Clone(sinks), measure.Funcs{OnPhase: watch.Phase})
		scraped := make(chan error, 1)
		if s.scraped {
			load.Sinks = append(load.Sinks, measure.Funcs{OnPhase: func(name string) {
				if name == "hold" {
					go func() {
						var err error
						o.scrapes, err = measureScrapes(ctx, server.admin)
						scraped <- err
					}()
				}
			}})
		}
		if s.watched { // samples take time of the processors that others measure
			load.Sinks = append(load.Sinks, measure.Funcs{OnSnapshot: watch.Snapshot})
			o.watcher = watchMetrics(server.admin)
		}
		o.load, err = loadgen.Run(ctx, load)
		if s.scraped && err == nil {
			err = <-scraped
		}
		if s.watched {
			err = errors.Join(err, o.watcher.end())
		}
		if err != nil {
			return o, err
		}
		if !o.load.OK() && !s.lossy {
			return o, fmt.Errorf("%s: %d of %d connections, %d messages lost", name, o.load.Open, load.Conns, o.load.Lost)
		}
		o.costs, o.samples = watch.cost(), watch.samples
		o.remaining = append(o.remaining, remaining{watch.sample(0, false).Server, sockets(server.cmd.Process.Pid)})
	}
	return o, ctx.Err()
}

// judge compares the median with the target.
func (r *Row) judge() {
	value := result.Median(r.Lull)
	if r.target.ratio {
		value = result.Median(r.Ratios)
	}
	reached := func(goal float64) bool {
		if r.target.more {
			return value >= goal
		}
		return value <= goal
	}
	switch {
	case reached(r.Aim):
		r.Reached = "aim"
	case reached(r.Must):
		r.Reached = "must"
	default:
		r.Reached = "missed"
	}
}

// WriteRows prints rows as a Markdown table, below a line about this machine.
func WriteRows(w io.Writer, rows []Row) error {
	machine, err := tuning.Read("/")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "Linux %s, %d processors, %s. Medians of %d rounds that alternate; ratios round by round.\n\n"+
		"| figure | lull | floor | ratio (min–max) | must | aim | reached |\n|---|--:|--:|--:|--:|--:|---|\n",
		machine.Kernel, machine.Processors, runtime.Version(), rounds(rows))
	for _, r := range rows {
		floor, ratio := "", ""
		if len(r.Ratios) > 0 {
			floor = number(result.Median(r.Floor))
			ratio = fmt.Sprintf("**%.2f** (%.2f–%.2f)", result.Median(r.Ratios), slices.Min(r.Ratios), slices.Max(r.Ratios))
		}
		sign := "≤"
		if r.target.more {
			sign = "≥"
		}
		_, e := fmt.Fprintf(w, "| %s: %s | %s | %s | %s | %s %s | %s %s | %s |\n",
			r.Scenario, strings.TrimSuffix(r.Name+", "+r.Unit, ", "), number(result.Median(r.Lull)), floor, ratio, sign, number(r.Must), sign, number(r.Aim), r.Reached)
		err = errors.Join(err, e)
	}
	return err
}

func rounds(rows []Row) int {
	if len(rows) == 0 {
		return 0
	}
	return len(rows[0].Lull)
}

func number(v float64) string {
	if v >= 999.5 { // three digits are not enough, and 'g' would write 1e+03
		return count(math.Round(v))
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
