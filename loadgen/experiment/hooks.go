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
	Conns    int       `json:"conns"`
	Straight []float64 `json:"straight_per_second"` // of each round
	Through  []float64 `json:"through_per_second"`
	CPU      []float64 `json:"lull_cpu_us_per_message"`
	Ratios   []float64 `json:"ratios"`
}

// hooksSize is the size of a message, in bytes.
const hooksSize = 32

// MeasureHooks lets wrk and lull ask the same backend, in turns. It needs wrk.
func MeasureHooks(ctx context.Context, config HooksConfig) (*Hooks, error) {
	h := &Hooks{Conns: config.Conns}
	for round := range config.Rounds {
		config.Say("hooks, round %d of %d", round+1, config.Rounds)
		if err := h.round(ctx, config); err != nil {
			return h, err
		}
	}
	return h, nil
}

func (h *Hooks) round(ctx context.Context, config HooksConfig) error {
	backend, err := start(ctx, config.Backend)
	if err != nil {
		return err
	}
	defer backend.kill()
	straight, err := wrk(ctx, "http://"+backend.addr+"/", config)
	if err != nil {
		return err
	}
	through, cpu, err := throughLull(ctx, "http://"+backend.addr+"/", config)
	if err != nil {
		return err
	}
	h.Straight, h.Through, h.CPU = append(h.Straight, straight), append(h.Through, through), append(h.CPU, cpu)
	h.Ratios = append(h.Ratios, through/straight)
	return nil
}

// wrk is how many requests a second a backend answers.
func wrk(ctx context.Context, url string, config HooksConfig) (float64, error) {
	dir, err := os.MkdirTemp("", "lull-wrk")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	script := filepath.Join(dir, "post.lua")
	post := fmt.Sprintf("wrk.method = %q\nwrk.body = %q\nwrk.headers[%q] = %q\n", "POST", strings.Repeat("x", hooksSize), "Content-Type", "application/octet-stream")
	if err := os.WriteFile(script, []byte(post), 0o600); err != nil {
		return 0, err
	}
	seconds := strconv.Itoa(int(config.Time.Seconds())) + "s"
	out, err := exec.CommandContext(ctx, "wrk", "-t1", "-c", strconv.Itoa(config.Conns), "-d", seconds, "-s", script, url).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("experiment: wrk: %w (Debian's package is wrk): %s", err, out)
	}
	return wrkRate(out)
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

// throughLull is how many messages a second the backend answers through lull, and what each
// costs lull, in µs of processor time.
func throughLull(ctx context.Context, url string, config HooksConfig) (perSecond, each float64, err error) {
	lull, err := self()
	if err != nil {
		return 0, 0, err
	}
	server, err := start(ctx, lull, "serve", "--listen", "127.0.0.1:0", "--mode", "hooks", "--hook", url,
		"--hook-concurrency", strconv.Itoa(config.Conns), "--api=", "--admin=", "--status", "0s")
	if err != nil {
		return 0, 0, err
	}
	defer server.kill()
	before := cpu(server.cmd.Process.Pid)
	res, err := loadgen.Run(ctx, loadgen.Config{URLs: []string{"ws://" + server.addr + "/"}, Conns: config.Conns, Active: config.Conns, Echo: config.Time, Size: hooksSize})
	switch {
	case err != nil:
		return 0, 0, err
	case !res.OK() || res.Echo == nil || res.Echo.Messages == 0:
		return 0, 0, fmt.Errorf("experiment: hooks: %d of %d connections are open, %d messages lost", res.Open, res.Conns, res.Lost)
	}
	spent := cpu(server.cmd.Process.Pid) - before
	return res.Echo.Rate, spent.Seconds() / float64(res.Echo.Messages) * micro, nil
}

// WriteText prints the medians of the rounds.
func (h *Hooks) WriteText(w io.Writer) error {
	if len(h.Ratios) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "a backend that answers at once\twrk, straight\tthrough lull\tratio\tlull, processor time a message\t")
	fmt.Fprintf(t, "%d connections, %d rounds\t%.0f/s\t%.0f/s\t%.2f\t%.1f µs\t\n",
		h.Conns, len(h.Ratios), result.Median(h.Straight), result.Median(h.Through), result.Median(h.Ratios), result.Median(h.CPU))
	return t.Flush()
}
