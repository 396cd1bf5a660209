package experiment

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// HooksConfig says how to measure what lull costs between clients and a backend.
type HooksConfig struct {
	Backend string // the program
	Conns   int    // of clients, and of wrk
	Time    time.Duration
	Rounds  int
	Say     func(format string, args ...any)
}

// Hooks is how many messages a second a backend answers through lull, and how many requests
// of wrk straight.
type Hooks struct {
	Conns    int         `json:"conns"`
	Straight []float64   `json:"straight_per_second"` // of each round
	WrkCPU   []float64   `json:"wrk_cpu_us_per_request"`
	Cost     []float64   `json:"straight_backend_cpu_us_per_request"`
	Ways     []HooksWays `json:"ways"`
}

// HooksWays is a way through lull.
type HooksWays struct {
	Name      string    `json:"name"`
	Through   []float64 `json:"per_second"` // of each round, as all here
	Ratios    []float64 `json:"ratios"`
	CPU       []float64 `json:"lull_cpu_us_per_message"`
	Backend   []float64 `json:"backend_cpu_us_per_message"`
	Generator []float64 `json:"generator_cpu_us_per_message"`
}

// hooksSize is the size of a message, in bytes.
const hooksSize = 32

// hooksWay is a way between lull and the backend.
type hooksWay struct {
	name  string
	unix  bool
	serve []string // arguments of lull serve
}

var hooksWays = []hooksWay{
	{name: "a request for each message, TCP", serve: []string{"--hook-concurrency", "64"}},
	{name: "a request for each message, unix socket", unix: true, serve: []string{"--hook-concurrency", "64"}},
	{name: "up to 64 messages in a request, 1 request at a time, TCP", serve: []string{"--hook-concurrency", "1", "--hook-batch", "64"}},
	{name: "up to 32 messages in a request, 2 requests at a time, TCP", serve: []string{"--hook-concurrency", "2", "--hook-batch", "32"}},
}

// MeasureHooks lets wrk and lull ask the same backend, in turns. It needs wrk.
func MeasureHooks(ctx context.Context, config HooksConfig) (*Hooks, error) {
	h := &Hooks{Conns: config.Conns, Ways: make([]HooksWays, len(hooksWays))}
	for round := range config.Rounds {
		config.Say("hooks, round %d of %d", round+1, config.Rounds)
		if err := h.round(ctx, config); err != nil {
			return h, err
		}
	}
	return h, nil
}

func (h *Hooks) round(ctx context.Context, config HooksConfig) error {
	dir, err := os.MkdirTemp("", "lull-hooks-")
	if err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "backend.sock")
	backend, err := start(ctx, config.Backend, "-unix", socket)
	if err != nil {
		return err
	}
	defer backend.kill()
	before := cpu(backend.cmd.Process.Pid)
	straight, wrkCPU, err := wrk(ctx, "http://"+backend.addr+"/", config)
	if err != nil {
		return err
	}
	h.Straight, h.WrkCPU = append(h.Straight, straight), append(h.WrkCPU, wrkCPU)
	h.Cost = append(h.Cost, (cpu(backend.cmd.Process.Pid)-before).Seconds()/(straight*config.Time.Seconds())*micro)
	for i, way := range hooksWays {
		w := &h.Ways[i]
		w.Name = way.name
		hook := "http://" + backend.addr + "/"
		if way.unix {
			hook = "unix:" + socket + ":/"
		}
		if err := w.measure(ctx, append([]string{"--hook", hook}, way.serve...), backend, config); err != nil {
			return err
		}
		w.Ratios = append(w.Ratios, w.Through[len(w.Through)-1]/straight)
	}
	return nil
}

// wrk is how many requests a second a backend answers, and the processor time that each
// takes wrk, in µs.
func wrk(ctx context.Context, url string, config HooksConfig) (perSecond, each float64, err error) {
	dir, err := os.MkdirTemp("", "lull-wrk")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	script := filepath.Join(dir, "post.lua")
	post := fmt.Sprintf("wrk.method = %q\nwrk.body = %q\nwrk.headers[%q] = %q\n", "POST", strings.Repeat("x", hooksSize), "Content-Type", "application/octet-stream")
	if err := os.WriteFile(script, []byte(post), 0o600); err != nil {
		return 0, 0, err
	}
	seconds := strconv.Itoa(int(config.Time.Seconds())) + "s"
	cmd := exec.CommandContext(ctx, "wrk", "-t1", "-c", strconv.Itoa(config.Conns), "-d", seconds, "-s", script, url)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("experiment: wrk: %w (Debian's package is wrk): %s", err, out)
	}
	if perSecond, err = wrkRate(out); err != nil {
		return 0, 0, err
	}
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return perSecond, used.Seconds() / (perSecond * config.Time.Seconds()) * micro, nil
}

var wrkLine = regexp.MustCompile(`(?m)^Requests/sec:\s+([0-9.]+)$`)

// wrkRate reads what wrk prints.
func wrkRate(out []byte) (float64, error) {
	m := wrkLine.FindSubmatch(out)
	if m == nil || bytes.Contains(out, []byte("Non-2xx")) {
		return 0, fmt.Errorf("experiment: wrk printed %.500q", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// measure is how many messages a second the backend answers through lull, and what each
// costs.
func (w *HooksWays) measure(ctx context.Context, args []string, backend *process, config HooksConfig) error {
	lull, err := self()
	if err != nil {
		return err
	}
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--mode", "hooks", "--api=", "--admin=", "--status", "0s"}, args...)
	server, err := start(ctx, lull, args...)
	if err != nil {
		return err
	}
	defer server.kill()
	used := func() [3]time.Duration {
		return [3]time.Duration{cpu(server.cmd.Process.Pid), cpu(backend.cmd.Process.Pid), cpu(os.Getpid())}
	}
	before := used()
	res, err := loadgen.Run(ctx, loadgen.Config{URLs: []string{"ws://" + server.addr + "/"}, Conns: config.Conns, Active: config.Conns, Echo: config.Time, Size: hooksSize})
	switch {
	case err != nil:
		return err
	case !res.OK() || res.Echo == nil || res.Echo.Messages == 0:
		return fmt.Errorf("experiment: hooks: %d of %d connections are open, %d messages lost", res.Open, res.Conns, res.Lost)
	}
	after := used()
	each := func(i int) float64 { return (after[i] - before[i]).Seconds() / float64(res.Echo.Messages) * micro }
	w.Through = append(w.Through, res.Echo.Rate)
	w.CPU, w.Backend, w.Generator = append(w.CPU, each(0)), append(w.Backend, each(1)), append(w.Generator, each(2))
	return nil
}

// WriteText prints the medians of the rounds.
func (h *Hooks) WriteText(w io.Writer) error {
	if len(h.Straight) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "a backend that answers at once, %d connections, %d rounds\ta second\tratio\tprocessor time: lull\tbackend\tgenerator\n", h.Conns, len(h.Straight))
	fmt.Fprintf(t, "wrk, straight\t%.0f\t1\t\t%.1f µs\t%.1f µs\n", result.Median(h.Straight), result.Median(h.Cost), result.Median(h.WrkCPU))
	for i := range h.Ways {
		way := &h.Ways[i]
		fmt.Fprintf(t, "through lull, %s\t%.0f\t%.2f\t%.1f µs\t%.1f µs\t%.1f µs\n", way.Name, result.Median(way.Through), result.Median(way.Ratios),
			result.Median(way.CPU), result.Median(way.Backend), result.Median(way.Generator))
	}
	return t.Flush()
}
