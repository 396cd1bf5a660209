package loadgen

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Result is the outcome of a run.
type Result struct {
	Conns   int      `json:"conns"` // wanted
	URLs    []string `json:"urls"`
	Workers int      `json:"workers"`
	Sources int      `json:"source_addresses"`
	Size    int      `json:"message_bytes"`
	Rate    float64  `json:"rate_wanted_per_second,omitempty"`

	Open        int            `json:"open"` // at the end, before closing
	Lost        int            `json:"lost"` // broadcasts and answers that did not arrive
	ConnectRate float64        `json:"connects_per_second"`
	Counts      map[string]int `json:"counts"`
	Handshake   Latency        `json:"handshake_ms"` // from connect to the response
	Broadcasts  []Broadcast    `json:"broadcasts,omitempty"`
	Probe       *Probe         `json:"probe,omitempty"`
	Echo        *Echo          `json:"echo,omitempty"`
	Returns     *Returns       `json:"returns,omitempty"` // nil without Config.Reconnect
	Phases      []Phase        `json:"phases"`
	Errors      map[string]int `json:"errors,omitempty"`
	Interrupted bool           `json:"interrupted,omitempty"`
	// Limited says where the generator was the bottleneck. Those figures measure
	// the generator and not the server.
	Limited  []string `json:"generator_limited,omitempty"`
	Timeline []Point  `json:"timeline"`

	handshakes, away *hdr.Histogram
}

// Phase is a part of the run and what it cost the generator.
type Phase struct {
	Name       string    `json:"name"`
	Begun      time.Time `json:"begun"`
	Seconds    float64   `json:"seconds"`
	CPUSeconds float64   `json:"cpu_seconds"`
}

// Point is how many connections were open at a time.
type Point struct {
	Seconds float64 `json:"s"`
	Open    int     `json:"open"`
}

// Latency summarizes a distribution, in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	First float64 `json:"first"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Last  float64 `json:"last"`
}

// Broadcast is one burst of broadcast messages, at least one.
type Broadcast struct {
	Messages   int     `json:"messages"`
	Expected   int     `json:"expected"` // deliveries
	Received   int     `json:"received"`
	Deliveries float64 `json:"deliveries_per_second"`
	Latency    Latency `json:"latency_ms"`
	// Lag is the generator's own part of the latency: how long a socket that
	// epoll reported as readable waited until the generator read it.
	Lag       Latency `json:"generator_lag_ms"`
	Histogram []Bar   `json:"histogram"`
}

// Bar is one bucket of a distribution.
type Bar struct {
	UpTo  float64 `json:"up_to_ms"`
	Count int64   `json:"count"`
}

// Probe is how long Pings of an uninvolved connection took: while the server was
// idle, and during the broadcasts, or the echoes if there were no broadcasts.
type Probe struct {
	Idle Latency `json:"idle_ms"`
	Busy Latency `json:"busy_ms"`
}

// Returns are the connections that the server has ended, and that were opened again.
type Returns struct {
	Count  int     `json:"count"`
	Failed int     `json:"failed_tries"`
	Away   Latency `json:"away_ms"` // from the end until it was open again
}

// Echo is the echo phase.
type Echo struct {
	Active   int     `json:"active"`
	Messages int     `json:"messages"`
	Rate     float64 `json:"messages_per_second"`
	Latency  Latency `json:"latency_ms"`
	Lag      Latency `json:"generator_lag_ms"`
	// Flood is nil without flooding connections.
	Flood *Flood `json:"flood,omitempty"`
}

// Flood is what flooding connections sent, and what became of it.
type Flood struct {
	Conns     int     `json:"conns"`
	Sent      int     `json:"sent"`
	Answered  int     `json:"answered"`
	Abandoned int     `json:"abandoned"` // unanswered when their connection ended
	Latency   Latency `json:"latency_ms"`
}

func newResult(r *run) *Result {
	return &Result{
		Conns: r.config.Conns, URLs: r.config.URLs, Workers: len(r.workers),
		Sources: len(r.sources.addrs), Size: r.config.Size, Rate: r.config.Rate,
		Counts: map[string]int{}, Errors: map[string]int{}, handshakes: newHistogram(), away: newReport().away,
	}
}

// usage is how much processor time this process had used at a time.
type usage struct {
	at  time.Time
	cpu time.Duration
}

func usageNow() usage {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail for the own process
	return usage{time.Now(), time.Duration(u.Utime.Nano() + u.Stime.Nano())}
}

// The generator counts as the bottleneck above these shares.
const (
	limitedCPU  = 0.9  // its part of all processors' time in a phase
	limitedLag  = 0.5  // its part of the messages' p99
	limitedRate = 0.05 // by how much it missed the wanted rate while the server kept up
	// limitedAfter is the shortest phase for which limitedCPU is applied.
	limitedAfter = 500 * time.Millisecond
)

func (res *Result) limited(format string, args ...any) {
	res.Limited = append(res.Limited, fmt.Sprintf(format, args...))
}

func (res *Result) addPhase(name string, before, after usage) {
	took, cpu := after.at.Sub(before.at), after.cpu-before.cpu
	res.Phases = append(res.Phases, Phase{name, before.at, took.Seconds(), cpu.Seconds()})
	share := float64(cpu) / float64(took) / float64(runtime.NumCPU())
	if took >= limitedAfter && share > limitedCPU {
		res.limited("%s: the generator used %.0f %% of all processors", name, 100*share)
	}
}

func (res *Result) addLag(what string, latency, lag Latency) {
	if latency.Count > 0 && lag.P99 > limitedLag*latency.P99 {
		res.limited("%s: the p99 is %.2f ms, and the p99 of the wait in the generator %.2f ms", what, latency.P99, lag.P99)
	}
}

// addReport adds a report's handshakes and errors, which come in all phases.
func (res *Result) addReport(got report) {
	res.handshakes.Merge(got.handshake)
	res.away.Merge(got.away)
	for text, n := range got.errors {
		res.Errors[text] += n
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
			b.Histogram = append(b.Histogram, Bar{milliseconds(bar.To), bar.Count})
		}
	}
	res.Broadcasts = append(res.Broadcasts, b)
	res.Lost += max(0, expected-received)
	res.addLag(fmt.Sprintf("broadcast %d", len(res.Broadcasts)), b.Latency, b.Lag)
}

func (res *Result) addEcho(r *run, took time.Duration, messages int) {
	got := r.collect()
	res.Echo = &Echo{
		Active: r.config.Active, Messages: messages, Rate: float64(messages) / took.Seconds(),
		Latency: latency(got.echo), Lag: latency(got.lag),
	}
	res.Lost += max(0, r.sum(Asked, Flooded)-r.sum(Echoes, Answered, Abandoned))
	if r.config.Flood > 0 {
		res.Echo.Flood = &Flood{r.config.Flood, r.sum(Flooded), r.sum(Answered), r.sum(Abandoned), latency(got.flood)}
	}
	res.addLag("echo", res.Echo.Latency, res.Echo.Lag)
}

// complete adds what is known at the end, before the connections are closed.
func (res *Result) complete(r *run) {
	r.collect()
	res.Handshake = latency(res.handshakes)
	for c := range tallies {
		res.Counts[c.String()] = r.sum(c)
	}
	res.Open = r.open()
	if r.config.Reconnect {
		res.Returns = &Returns{r.sum(Returned), r.sum(RetryFailed), latency(res.away)}
	}
	if len(res.Phases) == 0 {
		return
	}
	ramp := res.Phases[0]
	res.ConnectRate = float64(r.sum(Connected)-r.sum(Returned)) / ramp.Seconds
	if res.Counts[Held.String()] == 0 {
		res.addRamp(r)
	}
}

// addRamp checks whether workers called connect at the wanted rate. A server
// cannot delay that while fewer than inFlight connections are opening.
func (res *Result) addRamp(r *run) {
	rate := res.Rate / float64(min(runtime.NumCPU(), max(1, len(r.workers))))
	for _, w := range r.workers {
		took := time.Duration(w.public.lastConnect.Load()).Seconds()
		started := float64(w.public.started.Load() - 1) // the first is due at once
		if res.Rate > 0 && took > 1 && started < (1-limitedRate)*rate*took {
			res.limited("ramp: worker %d started %.0f connections a second instead of %.0f", w.index, started/took, rate)
		}
	}
}

// OK reports whether every connection was opened and stayed open, or came back, and
// every message arrived once, and none of another run or connection. A server may
// send messages of its own, such as a greeting.
func (res *Result) OK() bool {
	return !res.Interrupted && res.Open == res.Conns && res.Lost == 0 &&
		res.Counts[Missed.String()] == 0 && res.Counts[Repeated.String()] == 0 && res.Counts[Strayed.String()] == 0
}

// WriteText prints the result for people.
func (res *Result) WriteText(w io.Writer) {
	fmt.Fprintf(w, "connections  %d of %d open, %.0f a second\n", res.Open, res.Conns, res.ConnectRate)
	for _, c := range slices.Concat(openFailures, stayFailures, []Counter{Missed, Repeated, Foreign, Strayed, Omitted, OutOfRange}) {
		if n := res.Counts[c.String()]; n > 0 {
			fmt.Fprintf(w, "  %-10s %d\n", c, n)
		}
	}
	for _, text := range slices.Sorted(maps.Keys(res.Errors)) {
		fmt.Fprintf(w, "  %d × %s\n", res.Errors[text], text)
	}
	fmt.Fprintf(w, "handshake    %s\n", res.Handshake)
	if n := res.Counts[Resumed.String()]; n > 0 {
		fmt.Fprintf(w, "  resumed    %d\n", n)
	}
	if b := res.Returns; b != nil {
		fmt.Fprintf(w, "returned     %d, %d tries failed; away %s\n", b.Count, b.Failed, b.Away)
	}
	for i, b := range res.Broadcasts {
		fmt.Fprintf(w, "broadcast %-2d %d of %d received, %.0f a second; %s\n", i+1, b.Received, b.Expected, b.Deliveries, b.Latency)
	}
	if n := res.Counts[DeafReceived.String()] + res.Counts[DeafEnded.String()]; n > 0 {
		fmt.Fprintf(w, "deaf         %d messages received in the end, %d not, %d connections ended\n",
			res.Counts[DeafReceived.String()], res.Counts[DeafMissed.String()], res.Counts[DeafEnded.String()])
	}
	if len(res.Broadcasts) > 0 {
		fmt.Fprintf(w, "lost         %d messages\n", res.Lost)
	}
	if p := res.Probe; p != nil {
		fmt.Fprintf(w, "ping, idle   %s\nping, busy   %s\n", p.Idle, p.Busy)
	}
	if e := res.Echo; e != nil {
		fmt.Fprintf(w, "echo         %d messages, %.0f a second; %s\n", e.Messages, e.Rate, e.Latency)
		if f := e.Flood; f != nil {
			fmt.Fprintf(w, "flood        %d connections: %d messages sent, %d answered, %d abandoned; %s\n", f.Conns, f.Sent, f.Answered, f.Abandoned, f.Latency)
		}
	}
	for _, p := range res.Phases {
		fmt.Fprintf(w, "%-12s %.2f s, %.2f s of processor time\n", p.Name, p.Seconds, p.CPUSeconds)
	}
	for _, l := range res.Limited {
		fmt.Fprintf(w, "generator-limited: %s\n", l)
	}
	if res.Interrupted {
		fmt.Fprintln(w, "interrupted")
	}
}

func (l Latency) String() string {
	return fmt.Sprintf("first %.2f ms, p50 %.2f, p99 %.2f, last %.2f", l.First, l.P50, l.P99, l.Last)
}

func latency(h *hdr.Histogram) Latency {
	return Latency{
		Count: h.TotalCount(), First: milliseconds(h.Min()), Last: milliseconds(h.Max()),
		P50: milliseconds(h.ValueAtQuantile(50)), P90: milliseconds(h.ValueAtQuantile(90)), P99: milliseconds(h.ValueAtQuantile(99)),
	}
}

func milliseconds(micros int64) float64 { return float64(micros) / 1000 }
