package experiment

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// ReaderConfig says how to compare the generator with the reader program.
type ReaderConfig struct {
	Reader string // the program
	Conns  int
	Count  int // broadcasts
	Rounds int
	Say    func(format string, args ...any)
}

// Reader is what receiving a broadcast costs the generator, and a program that only reads.
type Reader struct {
	Conns     int       `json:"conns"`
	Generator []float64 `json:"generator_cpu_us_per_frame"` // of each round
	Reader    []float64 `json:"reader_cpu_us_per_frame"`
	Ratios    []float64 `json:"ratios"`
}

// CompareReader lets the generator and the reader program receive the same broadcasts, in
// turns. Each has a server of its own.
func CompareReader(ctx context.Context, config ReaderConfig) (*Reader, error) {
	r := &Reader{Conns: config.Conns}
	for round := range config.Rounds {
		config.Say("reader, round %d of %d", round+1, config.Rounds)
		generator, err := withChat(ctx, func(addr string) (float64, error) { return generatorCost(ctx, addr, config) })
		if err != nil {
			return r, err
		}
		reader, err := withChat(ctx, func(addr string) (float64, error) { return readerCost(ctx, addr, config) })
		if err != nil {
			return r, err
		}
		r.Generator, r.Reader = append(r.Generator, generator), append(r.Reader, reader)
		r.Ratios = append(r.Ratios, generator/reader)
	}
	return r, nil
}

// withChat measures against a new chat server.
func withChat(ctx context.Context, measure func(addr string) (float64, error)) (float64, error) {
	lull, err := self()
	if err != nil {
		return 0, err
	}
	server, err := start(ctx, lull, "serve", "--listen", "127.0.0.1:0", "--mode", "chat", "--admin=", "--status", "0s")
	if err != nil {
		return 0, err
	}
	defer server.kill()
	return measure(server.addr)
}

// generatorCost is the generator's processor time for a frame, in µs.
func generatorCost(ctx context.Context, addr string, config ReaderConfig) (float64, error) {
	res, err := loadgen.Run(ctx, loadgen.Config{URLs: []string{"ws://" + addr + "/"}, Conns: config.Conns, Hold: time.Second, Broadcasts: config.Count})
	if err != nil {
		return 0, err
	}
	if !res.OK() {
		return 0, fmt.Errorf("experiment: reader: %d of %d connections are open, %d messages lost", res.Open, res.Conns, res.Lost)
	}
	for _, p := range res.Phases {
		if p.Name == "broadcast" {
			return p.CPUSeconds / float64(config.Conns*config.Count) * micro, nil
		}
	}
	return 0, fmt.Errorf("experiment: reader: there were no broadcasts")
}

// readerCost is the reader program's processor time for a frame, in µs.
func readerCost(ctx context.Context, addr string, config ReaderConfig) (float64, error) {
	out, err := exec.CommandContext(ctx, config.Reader, "-addr", addr, "-conns", strconv.Itoa(config.Conns), "-messages", strconv.Itoa(config.Count)).Output()
	if err != nil {
		return 0, fmt.Errorf("experiment: %s: %w", config.Reader, err)
	}
	var got struct {
		Frames float64 `json:"frames"`
		CPU    float64 `json:"cpu_seconds"`
	}
	if err := json.Unmarshal(out, &got); err != nil || got.Frames == 0 {
		return 0, fmt.Errorf("experiment: %s printed %.100q", config.Reader, out)
	}
	return got.CPU / got.Frames * micro, nil
}

// WriteText prints the comparison: medians of the rounds.
func (r *Reader) WriteText(w io.Writer) error {
	if len(r.Ratios) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "processor time a received broadcast\tgenerator\tbare reader\tratio\tfrom\tto\t")
	low, high := r.Ratios[0], r.Ratios[0]
	for _, ratio := range r.Ratios {
		low, high = min(low, ratio), max(high, ratio)
	}
	fmt.Fprintf(t, "%d connections, %d rounds\t%.2f µs\t%.2f µs\t%.2f\t%.2f\t%.2f\t\n", r.Conns, len(r.Ratios), result.Median(r.Generator), result.Median(r.Reader), result.Median(r.Ratios), low, high)
	return t.Flush()
}
