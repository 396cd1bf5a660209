package loadgen

import (
	"fmt"
	"io"
	"runtime"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Result is what came of a run. Times are in milliseconds unless their name
// says otherwise.
type Result struct {
	Conns   int      `json:"conns"` // wanted
	URLs    []string `json:"urls"`
	Workers int      `json:"workers"`
	Sources int      `json:"sources"` // source addresses
	Size    int      `json:"message_bytes"`

	Counts      map[string]int `json:"counts"`
	Open        int            `json:"open"` // at the end, before closing
	Lost        int            `json:"lost"` // broadcasts that did not arrive
	Phases      []Phase        `json:"phases"`
	Handshake   Latency        `json:"handshake_ms"`
	ConnectRate float64        `json:"connects_per_second"`
	Broadcasts  []Broadcast    `json:"broadcasts,omitempty"`
	Echo        *Echo          `json:"echo,omitempty"`
	Errors      map[string]int `json:"errors,omitempty"`
	Interrupted bool           `json:"interrupted,omitempty"`
	// Limits says where the generator itself was the bottleneck, so that the
	// figures are its own and not the server's.
	Limits []string `json:"generator_limited,omitempty"`

	ProbeIdle, ProbeBusy Latency

	handshakes *hdr.Histogram
	probeBusy  *hdr.Histogram
}

func (res *Result) addProbe(h *hdr.Histogram) {
	if res.probeBusy == nil {
		res.probeBusy = newHistogram()
	}
	res.probeBusy.Merge(h)
	res.ProbeBusy = latency(res.probeBusy)
}

// Phase is a part of the run and what it cost this process.
type Phase struct {
	Name        string    `json:"name"`
	Begun       time.Time `json:"begun"`
	Seconds     float64   `json:"seconds"`
	CPUSeconds  float64   `json:"cpu_seconds"`
	ResidentEnd int64     `json:"rss_bytes_end"`
}

// Latency summarizes a distribution, in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	Min   float64 `json:"min"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Broadcast is one burst, one message at the least.
type Broadcast struct {
	Messages   int     `json:"messages"`
	Expected   int     `json:"expected"`
	Received   int     `json:"received"`
	Latency    Latency `json:"latency_ms"`
	Lag        Latency `json:"generator_lag_ms"` // the generator's own part of it
	Deliveries float64 `json:"deliveries_per_second"`
	// Histogram holds the distribution for plots: upper bounds in milliseconds
	// and counts.
	Histogram []Bar `json:"histogram"`
}

// Bar is one bucket of a histogram.
type Bar struct {
	UpTo  float64 `json:"up_to_ms"`
	Count int64   `json:"count"`
}

// Echo is the echo phase.
type Echo struct {
	Active   int     `json:"active"`
	Messages int     `json:"messages"`
	Rate     float64 `json:"messages_per_second"`
	Latency  Latency `json:"latency_ms"`
	Lag      Latency `json:"generator_lag_ms"`
}

func newResult(r *run) *Result {
	return &Result{
		Conns: r.config.Conns, URLs: r.config.URLs, Workers: len(r.workers), Sources: len(r.sources.addrs),
		Size: r.config.Size, Counts: map[string]int{}, Errors: map[string]int{},
	}
}

// usage is what this process has used.
type usage struct {
	at  time.Time
	cpu time.Duration
}

func (r *run) usage() usage {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return usage{time.Now(), time.Duration(u.Utime.Nano() + u.Stime.Nano())}
}

// limitedAt is the share of all processors from which on a phase counts as
// limited by the generator.
const limitedAt = 0.9

func (res *Result) add(name string, before, after usage) {
	p := Phase{
		Name: name, Begun: before.at, Seconds: after.at.Sub(before.at).Seconds(),
		CPUSeconds: (after.cpu - before.cpu).Seconds(),
	}
	res.Phases = append(res.Phases, p)
	if share := p.CPUSeconds / p.Seconds / float64(runtime.NumCPU()); share > limitedAt {
		res.Limits = append(res.Limits, fmt.Sprintf("%s: the generator used %.0f %% of all processors", name, 100*share))
	}
}

func latency(h *hdr.Histogram) Latency {
	ms := func(micros int64) float64 { return float64(micros) / 1000 }
	return Latency{
		Count: h.TotalCount(), Min: ms(h.Min()), Max: ms(h.Max()),
		P50: ms(h.ValueAtQuantile(50)), P90: ms(h.ValueAtQuantile(90)), P99: ms(h.ValueAtQuantile(99)),
	}
}

func (res *Result) addBroadcast(r *run, meant time.Duration, size, expected, received int) {
	got := r.collect()
	b := Broadcast{
		Messages: size, Expected: expected, Received: received,
		Latency: latency(got.broadcast), Lag: latency(got.lag),
	}
	last := int64(0)
	for _, w := range r.workers {
		last = max(last, w.public.lastRecv.Load())
	}
	if took := time.Duration(last) - meant; took > 0 {
		b.Deliveries = float64(received) / took.Seconds()
	}
	for _, bar := range got.broadcast.Distribution() {
		if bar.Count > 0 {
			b.Histogram = append(b.Histogram, Bar{float64(bar.To) / 1000, bar.Count})
		}
	}
	res.Broadcasts = append(res.Broadcasts, b)
	res.Lost += expected - received
}

func (res *Result) addEcho(r *run, took time.Duration, messages int) {
	got := r.collect()
	res.Echo = &Echo{
		Active: r.config.Active, Messages: messages, Rate: float64(messages) / took.Seconds(),
		Latency: latency(got.echo), Lag: latency(got.lag),
	}
}

// addHandshakes keeps what reports say of handshakes and failures, which
// happen in all phases.
func (res *Result) addHandshakes(got report) {
	if res.handshakes == nil {
		res.handshakes = got.handshake
	} else {
		res.handshakes.Merge(got.handshake)
	}
	for text, n := range got.errors {
		res.Errors[text] += n
	}
}

// finish takes stock before the connections are closed.
func (res *Result) finish(r *run) {
	r.collect()
	res.Handshake = latency(res.handshakes)
	for c := range tallies {
		res.Counts[c.String()] = r.sum(c)
	}
	res.Open = r.open()
	if len(res.Phases) > 0 && res.Phases[0].Seconds > 0 {
		res.ConnectRate = float64(r.sum(Connected)) / res.Phases[0].Seconds
	}
}

// OK reports whether every connection was opened and stayed open, and every
// message arrived once.
func (res *Result) OK() bool {
	c := res.Counts
	return !res.Interrupted && res.Open == res.Conns && res.Lost == 0 && c["missed"] == 0 && c["repeated"] == 0
}

// WriteText prints the result for people.
func (res *Result) WriteText(w io.Writer) {
	fmt.Fprintf(w, "connections  %d of %d open", res.Open, res.Conns)
	for _, c := range append(append([]Counter{}, openFailures...), stayFailures...) {
		if n := res.Counts[c.String()]; n > 0 {
			fmt.Fprintf(w, ", %d %s", n, c)
		}
	}
	fmt.Fprintf(w, "; %.0f/s\n", res.ConnectRate)
	fmt.Fprintf(w, "handshake    %s\n", res.Handshake)
	for i, b := range res.Broadcasts {
		fmt.Fprintf(w, "broadcast %-2d %d of %d received, %s, %.0f deliveries/s\n", i+1, b.Received, b.Expected, b.Latency, b.Deliveries)
	}
	if res.probeBusy != nil {
		fmt.Fprintf(w, "probe idle %s\nprobe busy %d %s\n", res.ProbeIdle, res.ProbeBusy.Count, res.ProbeBusy)
	}
	if e := res.Echo; e != nil {
		fmt.Fprintf(w, "echo         %d messages, %.0f/s, %s\n", e.Messages, e.Rate, e.Latency)
	}
	for _, p := range res.Phases {
		fmt.Fprintf(w, "%-12s %.2f s, %.2f s CPU\n", p.Name, p.Seconds, p.CPUSeconds)
	}
	for text, n := range res.Errors {
		fmt.Fprintf(w, "error        %d × %s\n", n, text)
	}
	for _, l := range res.Limits {
		fmt.Fprintf(w, "generator-limited: %s\n", l)
	}
}

func (l Latency) String() string {
	return fmt.Sprintf("first %.2f ms, p50 %.2f, p99 %.2f, last %.2f", l.Min, l.P50, l.P99, l.Max)
}
