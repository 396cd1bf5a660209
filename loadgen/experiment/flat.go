package experiment

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/tuning"
)

// What a connection costs is flat if it costs the same at each number of connections.

// FlatConfig says at which numbers of connections to measure.
type FlatConfig struct {
	Conns  []int // ascending
	Rounds int   // of all numbers and tables
	Say    func(format string, args ...any)
}

// Flat is what connections cost at each of their numbers.
type Flat struct {
	Date    time.Time   `json:"date"`
	Machine Machine     `json:"machine"`
	Points  []FlatPoint `json:"points"`
}

// FlatPoint is one number of connections with one TCP hash table.
type FlatPoint struct {
	Conns   int        `json:"conns"`
	Buckets int        `json:"tcp_hash_buckets"`
	Large   bool       `json:"large_table"` // for the most connections; otherwise of the size that the machine has booted with
	Rounds  []FlatCost `json:"rounds"`
	Failed  []string   `json:"failed,omitempty"` // the rounds without a result, and why
}

// FlatCost is the result of a round, or the medians of several.
type FlatCost struct {
	Seconds            float64 `json:"connected_after_s"`
	Rate               float64 `json:"connects_per_second"`
	HandshakeServer    float64 `json:"handshake_server_cpu_micros"`
	HandshakeGenerator float64 `json:"handshake_generator_cpu_micros"`
	DeliveryServer     float64 `json:"delivery_server_cpu_micros"`
	DeliveryGenerator  float64 `json:"delivery_generator_cpu_micros"`
	Last               float64 `json:"last_receiver_ms"` // median of the broadcasts
	ServerRSS          int64   `json:"server_rss_bytes"`
	Kernel             float64 `json:"kernel_bytes_per_connection_both_ends"`
}

// flatHold is how long connections are idle before the broadcasts.
const flatHold = 2 * time.Second

// flatBroadcasts is how many broadcasts make enough deliveries for a mean: a million,
// or those of five broadcasts.
func flatBroadcasts(conns int) int { return min(100, max(5, 1_000_000/conns)) }

// table is a namespace whose hash table points are measured with; nil for the
// caller's own.
type table struct {
	space   *Namespace
	buckets int
	large   bool
}

// MeasureFlat runs «lull experiment» with each number of connections, with a TCP hash
// table for the most of them and with one of the size that this machine's has, in a
// network namespace each. Where no namespace can be made it says so, and measures in
// the caller's. On an error it returns what it has measured until then.
func MeasureFlat(ctx context.Context, config FlatConfig) (*Flat, error) {
	machine, err := tuning.Read("/")
	if err != nil {
		return nil, err
	}
	flat := &Flat{Date: time.Now().UTC().Truncate(time.Second), Machine: machineOf(machine)}
	most := 0
	for _, n := range config.Conns {
		most = max(most, n)
	}
	tables := flatTables(most, config.Say)
	for _, t := range tables {
		if t.space != nil {
			defer t.space.Leave()
		}
	}
	for _, n := range config.Conns {
		for _, t := range tables {
			flat.Points = append(flat.Points, FlatPoint{Conns: n, Buckets: t.buckets, Large: t.large})
		}
	}
	for round := range config.Rounds {
		for i := range flat.Points {
			p, t := &flat.Points[i], tables[i%len(tables)]
			config.Say("round %d of %d: %s connections, a table of %s buckets", round+1, config.Rounds, count(float64(p.Conns)), count(float64(p.Buckets)))
			cost, err := t.measure(ctx, p.Conns)
			switch {
			case ctx.Err() != nil:
				return flat, ctx.Err()
			case err != nil:
				config.Say("  %v", err)
				p.Failed = append(p.Failed, err.Error())
			default:
				p.Rounds = append(p.Rounds, cost)
			}
		}
	}
	return flat, flat.failed()
}

// failed is an error if rounds have failed.
func (f *Flat) failed() error {
	n := 0
	for _, p := range f.Points {
		n += len(p.Failed)
	}
	if n > 0 {
		return fmt.Errorf("experiment: %d measurements failed", n)
	}
	return nil
}

// flatTables makes the namespaces.
func flatTables(conns int, say func(string, ...any)) []table {
	own := HashTable()
	small, err := NewNamespace(max(own, 1))
	if err != nil {
		say("not in network namespaces, so only with this one's TCP hash table: %v", err)
		return []table{{buckets: own}}
	}
	tables := []table{{small, small.Buckets, false}}
	if Buckets(conns) <= small.Buckets {
		say("the TCP hash table of %s buckets is large enough for all", count(float64(own)))
		return tables
	}
	large, err := NewNamespace(Buckets(conns))
	if err != nil {
		say("not with a larger TCP hash table: %v", err)
		return tables
	}
	return append(tables, table{large, large.Buckets, true})
}

// measure runs one experiment.
func (t table) measure(ctx context.Context, conns int) (cost FlatCost, err error) {
	lull, err := self()
	if err != nil {
		return cost, err
	}
	dir, err := os.MkdirTemp("", "lull-flat-")
	if err != nil {
		return cost, fmt.Errorf("experiment: %w", err)
	}
	defer os.RemoveAll(dir)
	var errs tail
	cmd := exec.CommandContext(ctx, lull, "experiment", "--conns", strconv.Itoa(conns), "--hold", flatHold.String(),
		"--broadcasts", strconv.Itoa(flatBroadcasts(conns)), "--netns", "no", "--report", dir)
	cmd.Stderr = &errs
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it restores limits then
	start := (*exec.Cmd).Start
	if t.space != nil {
		start = func(c *exec.Cmd) error { return t.space.Start(c) }
	}
	if err := start(cmd); err != nil {
		return cost, fmt.Errorf("experiment: %w", err)
	}
	ended := cmd.Wait()
	text, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		return cost, fmt.Errorf("experiment: %d connections: %w\n%s", conns, errors.Join(ended, err), errs.String())
	}
	var report Report
	if err := json.Unmarshal(text, &report); err != nil {
		return cost, fmt.Errorf("experiment: %d connections: %w", conns, err)
	}
	if report.Limit != "" || ended != nil || !report.Load.OK() {
		return cost, fmt.Errorf("experiment: %d of %d connections, %d messages lost: %w\n%s", report.Load.Open, conns, report.Load.Lost,
			cmp.Or(ended, errors.New("not as wanted")), cmp.Or(report.Limit, errs.String()))
	}
	return flatCost(&report), nil
}

// flatCost computes a round's figures.
func flatCost(r *Report) FlatCost {
	o := outcome{load: r.Load, costs: r.Costs}
	ramp, broadcast, open := o.cost("ramp"), o.cost("broadcast"), float64(r.Load.Open)
	return FlatCost{
		Seconds: ramp.Seconds, Rate: r.Load.ConnectRate,
		HandshakeServer: ramp.ServerCPU / open * micro, HandshakeGenerator: ramp.GeneratorCPU / open * micro,
		DeliveryServer:    broadcast.ServerCPU / o.deliveries() * micro,
		DeliveryGenerator: broadcast.GeneratorCPU / o.deliveries() * micro,
		Last:              o.median(func(b loadgen.Broadcast) float64 { return b.Latency.Last }),
		ServerRSS:         r.Memory.ServerRSS, Kernel: r.Memory.KernelPerConn,
	}
}

// Median is the median of each figure; all are NaN where no round has a result.
func (p *FlatPoint) Median() (m FlatCost) {
	of := func(figure func(FlatCost) float64) float64 {
		if len(p.Rounds) == 0 {
			return math.NaN()
		}
		values := make([]float64, len(p.Rounds))
		for i, r := range p.Rounds {
			values[i] = figure(r)
		}
		return result.Median(values)
	}
	return FlatCost{
		Seconds:            of(func(c FlatCost) float64 { return c.Seconds }),
		Rate:               of(func(c FlatCost) float64 { return c.Rate }),
		HandshakeServer:    of(func(c FlatCost) float64 { return c.HandshakeServer }),
		HandshakeGenerator: of(func(c FlatCost) float64 { return c.HandshakeGenerator }),
		DeliveryServer:     of(func(c FlatCost) float64 { return c.DeliveryServer }),
		DeliveryGenerator:  of(func(c FlatCost) float64 { return c.DeliveryGenerator }),
		Last:               of(func(c FlatCost) float64 { return c.Last }),
		ServerRSS:          int64(of(func(c FlatCost) float64 { return float64(c.ServerRSS) })),
		Kernel:             of(func(c FlatCost) float64 { return c.Kernel }),
	}
}

// table are the points that were measured with one of the tables.
func (f *Flat) table(large bool) (points []FlatPoint) {
	for _, p := range f.Points {
		if p.Large == large && len(p.Rounds) > 0 {
			points = append(points, p)
		}
	}
	return points
}

// best are the points with the large table, or with the only one.
func (f *Flat) best() []FlatPoint {
	if large := f.table(true); len(large) > 0 {
		return large
	}
	return f.table(false)
}

// WriteMarkdown prints the points as a Markdown table, below a line about the
// machine, and how the cost at the most connections relates to that at the fewest.
func (f *Flat) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	rounds := 0
	for _, p := range f.Points {
		rounds = max(rounds, len(p.Rounds)+len(p.Failed))
	}
	fmt.Fprintf(&b, "%s · Linux %s · %d processors · %s · %s\nServer and generator on this machine; medians of %d rounds; processor time in µs.\n\n",
		f.Date.Format("2006-01-02"), f.Machine.Kernel, f.Machine.Processors, size(float64(f.Machine.Memory)), f.Machine.Go, rounds)
	b.WriteString("| connections | TCP hash table | connected after | connects a second | a handshake: server, generator | a delivery: server, generator | last receiver |\n" +
		"|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, p := range f.Points {
		m := p.Median()
		if len(p.Rounds) == 0 {
			fmt.Fprintf(&b, "| %s | %s | – | – | – | – | – |\n", count(float64(p.Conns)), count(float64(p.Buckets)))
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s s | %s | %.1f, %.1f | %.2f, %.2f | %s ms |\n", count(float64(p.Conns)), count(float64(p.Buckets)),
			number(m.Seconds), count(m.Rate), m.HandshakeServer, m.HandshakeGenerator, m.DeliveryServer, m.DeliveryGenerator, number(m.Last))
	}
	for _, large := range []bool{false, true} {
		points := f.table(large)
		if len(points) < 2 {
			continue
		}
		few, many := points[0], points[len(points)-1]
		from, to := few.Median(), many.Median()
		fmt.Fprintf(&b, "\nWith a table of %s buckets, %s connections to %s: a handshake costs the server **%.2f** times as much, a delivery **%.2f** times; "+
			"both ends together, which share out the kernel's work differently, **%.2f** and **%.2f** times. A broadcast's last receiver waits **%.2f** times as long for each connection.\n",
			count(float64(many.Buckets)), count(float64(few.Conns)), count(float64(many.Conns)),
			to.HandshakeServer/from.HandshakeServer, to.DeliveryServer/from.DeliveryServer,
			(to.HandshakeServer+to.HandshakeGenerator)/(from.HandshakeServer+from.HandshakeGenerator),
			(to.DeliveryServer+to.DeliveryGenerator)/(from.DeliveryServer+from.DeliveryGenerator),
			to.Last/float64(many.Conns)/(from.Last/float64(few.Conns)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
