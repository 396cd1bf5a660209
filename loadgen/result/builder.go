package result

import (
	"fmt"
	"math"
	"slices"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// broadcastsMax is how many broadcasts are kept one by one. Those after them are in
// the totals alone.
const broadcastsMax = 1000

// phasesMax is how many phases are kept.
const phasesMax = 2000

// Run is what a run begins with.
type Run struct {
	Name       string // of the plan
	Begun      time.Time
	Conns      int // users wanted
	URLs       []string
	Workers    int
	Sources    int // source addresses
	Processors int // that Snapshot.CPU is a part of
	Size       int // of messages, in bytes
	Rate       float64
	Ramps      []string // the names of the phases in which connections are opened; "ramp" if there are none
	Reconnect  bool     // connections that end are opened again
}

// RunOf is what a plan says of a run that carries it out.
func RunOf(p *plan.Plan) Run {
	run := Run{Name: p.Name, Conns: p.Users()}
	for _, g := range p.Groups {
		run.Reconnect = run.Reconnect || g.Reconnect
		for _, url := range g.URLs {
			run.URLs = append(run.URLs, url.String())
		}
	}
	for _, phase := range p.Phases {
		switch phase.Kind {
		case plan.Ramp:
			run.Ramps = append(run.Ramps, phase.Name)
			run.Rate = max(run.Rate, phase.Rate)
		case plan.Churn, plan.Storm:
			run.Reconnect = true
		}
	}
	return run
}

// Builder makes a Result while a run goes on. Its methods are called one at a time.
type Builder struct {
	run     Run
	result  Result
	limits  limits
	history History

	now measure.Snapshot // the latest, without its Times
	cpu float64          // processor seconds of the generator until now
	all float64          // of all processes

	// Times since the run, the phase, the last burst or talk, and the last point began.
	total, phase, part, point measure.Histograms

	began   mark // of the phase
	pointed mark // of the point
	settled bool
	talked  time.Duration
	asking  int // messages answered in talks
}

// mark is where a run was at a time.
type mark struct {
	at       time.Duration
	counts   measure.Counts
	cpu, all float64
}

// NewBuilder begins a Result.
func NewBuilder(run Run) *Builder {
	if len(run.Ramps) == 0 {
		run.Ramps = []string{"ramp"}
	}
	return &Builder{run: run, result: Result{
		Schema: Schema, Version: Version, Name: run.Name, Begun: run.Begun, Conns: run.Conns, URLs: run.URLs,
		Workers: run.Workers, Sources: run.Sources, Processors: max(1, run.Processors), Size: run.Size, Rate: run.Rate,
	}}
}

func (b *Builder) mark() mark { return mark{b.now.At, b.now.Counts, b.cpu, b.all} }

// Phase ends the phase before and begins another. The last Snapshot must have what
// belongs to the phase before.
func (b *Builder) Phase(name string) {
	b.endPhase()
	b.began = b.mark()
	b.phase.Free()
	if len(b.result.Phases) < phasesMax {
		b.result.Phases = append(b.result.Phases, Phase{Name: name, Begun: b.run.Begun.Add(b.now.At)})
	}
}

func (b *Builder) endPhase() {
	if len(b.result.Phases) == 0 {
		return
	}
	p := &b.result.Phases[len(b.result.Phases)-1]
	took := b.now.At - b.began.at
	p.Seconds, p.CPUSeconds = took.Seconds(), b.cpu-b.began.cpu
	p.Counts = b.now.Counts.Sub(&b.began.counts)
	p.Times = map[string]Latency{}
	for k, h := range b.phase {
		if h != nil {
			p.Times[measure.Kind(k).String()] = LatencyOf(h)
		}
	}
	if took > 0 {
		whole := took.Seconds() * float64(b.result.Processors)
		b.limits.processors(p, p.CPUSeconds/whole, (b.all-b.began.all)/whole)
	}
}

// Snapshot adds what was counted and timed. It keeps nothing of s.
func (b *Builder) Snapshot(s *measure.Snapshot) {
	took := (s.At - b.now.At).Seconds() * float64(b.result.Processors)
	b.cpu += s.CPU * took
	b.all += s.Busy * took
	for _, h := range b.since() {
		h.Merge(&s.Times)
	}
	errors := b.now.Errors
	b.now = *s
	b.now.Times, b.now.Limited = measure.Histograms{}, nil
	if b.now.Errors = slices.Clone(s.Errors); len(s.Errors) == 0 {
		b.now.Errors = errors
	}
	b.limits.add(s.Limited...)
	// Points end close to multiples of their length, so that a snapshot that comes a little
	// early makes none twice as long.
	every := b.history.Every()
	early := every / 12 // less than from one snapshot to the next
	if (s.At+early)/every > (b.pointed.at+early)/every {
		b.addPoint()
	}
}

// since are the histograms that a snapshot's times belong to.
func (b *Builder) since() []*measure.Histograms {
	if b.settled {
		return []*measure.Histograms{&b.phase, &b.point}
	}
	return []*measure.Histograms{&b.total, &b.phase, &b.part, &b.point}
}

// The counters of messages, whoever sent them.
var (
	messagesIn  = []measure.Counter{measure.Received, measure.Repeated, measure.Foreign, measure.Strayed, measure.Echoes, measure.Answered, measure.Mismatched, measure.DeafReceived}
	messagesOut = []measure.Counter{measure.Sent, measure.Asked, measure.Flooded, measure.Told}
	failures    = slices.Concat(measure.OpenFailures, measure.StayFailures)
)

func (b *Builder) addPoint() {
	since := b.now.Counts.Sub(&b.pointed.counts)
	p := Point{
		Seconds: b.now.At.Seconds(), Open: b.now.Open, Connects: int(since[measure.Connected]),
		In: int(since.Sum(messagesIn...)), Out: int(since.Sum(messagesOut...)), Errors: int(since.Sum(failures...)),
	}
	p.HandshakeP50, p.HandshakeP99 = middleAndTail(b.point[measure.Handshake])
	p.AnswerP50, p.AnswerP99 = middleAndTail(b.point[measure.Echo], b.point[measure.Flood], b.point[measure.Broadcast])
	_, p.LagP99 = middleAndTail(b.point[measure.Lag])
	if took := (b.now.At - b.pointed.at).Seconds() * float64(b.result.Processors); took > 0 {
		p.CPU, p.Busy = share((b.cpu-b.pointed.cpu)/took), share((b.all-b.pointed.all)/took)
	}
	b.history.Add(p)
	b.pointed = b.mark()
	b.point.Free()
}

// share rounds a part of the processors: more digits mean nothing.
func share(v float64) float64 { return math.Round(v*1e4) / 1e4 }

// middleAndTail are the p50 and the p99 of histograms together, nil if they are empty.
func middleAndTail(histograms ...*hdr.Histogram) (p50, p99 *float64) {
	sum := measure.NewHistogram()
	for _, h := range histograms {
		if h != nil {
			sum.Merge(h)
		}
	}
	l := LatencyOf(sum)
	if l.Count == 0 {
		return nil, nil
	}
	return &l.P50, &l.P99
}

// Burst is messages that were published together.
type Burst struct {
	Messages int
	Expected int           // deliveries
	Received int           // deliveries
	Took     time.Duration // from when it was meant to be sent to the last receiver
}

// Burst adds a burst when its last message has been received or given up. What was timed
// since the last Burst, Talk or Part is the burst's. The last Snapshot must have all
// of it.
func (b *Builder) Burst(burst Burst) {
	times := &b.part
	defer times.Free()
	b.result.Lost += max(0, burst.Expected-burst.Received)
	if len(b.result.Broadcasts) == broadcastsMax {
		return
	}
	one := Broadcast{
		Phase: b.now.Phase, Messages: burst.Messages, Expected: burst.Expected, Received: burst.Received,
		Latency: LatencyOf(times[measure.Broadcast]), Lag: LatencyOf(times[measure.Lag]), Histogram: Bars(times[measure.Broadcast]),
	}
	if burst.Took > 0 {
		one.Deliveries = float64(burst.Received) / burst.Took.Seconds()
	}
	b.result.Broadcasts = append(b.result.Broadcasts, one)
	b.limits.lag(fmt.Sprintf("broadcast %d", len(b.result.Broadcasts)), one.Latency, one.Lag)
}

// Bars are the buckets of a histogram of microseconds, which may be nil, without those
// that are empty.
func Bars(h *hdr.Histogram) (bars []Bar) {
	if h == nil {
		return nil
	}
	for most, count := range measure.Buckets(h) {
		bars = append(bars, Bar{milliseconds(most), count})
	}
	return bars
}

// Part makes what was timed until the last Snapshot no part of the next Burst or Talk.
func (b *Builder) Part() { b.part.Free() }

// Talk is a phase in which users sent and expected answers.
type Talk struct {
	Active   int           // users that waited for each answer
	Flooding int           // users that did not
	Messages int           // answers that came while the users sent
	Took     time.Duration // how long the users sent
}

// Talk adds such a phase when its last answers have come or were given up. What was timed
// since the last Burst, Talk or Part is the talk's. The last Snapshot must have all of it.
// Talks are added up.
func (b *Builder) Talk(talk Talk) {
	times := &b.part
	defer times.Free()
	if b.result.Echo == nil {
		b.result.Echo = &Echo{}
	}
	e := b.result.Echo
	e.Active = max(e.Active, talk.Active)
	if talk.Flooding > 0 {
		if e.Flood == nil {
			e.Flood = &Flood{}
		}
		e.Flood.Conns = max(e.Flood.Conns, talk.Flooding)
	}
	b.talked += talk.Took
	b.asking += talk.Messages
	b.limits.lag("echo", LatencyOf(times[measure.Echo]), LatencyOf(times[measure.Lag]))
}

// Probe adds the round trips of Pings on a connection that has no part in the load:
// while the server was idle, and while it was busy.
func (b *Builder) Probe(idle, busy *hdr.Histogram) {
	b.result.Probe = &Probe{LatencyOf(idle), LatencyOf(busy)}
}

// Settle says that the load is over, and that connections are closed from now on. What
// comes later belongs to phases and the time series alone. The last Snapshot must
// have all that came before.
func (b *Builder) Settle() {
	if b.settled {
		return
	}
	b.settled = true
	r, counts := &b.result, &b.now.Counts
	r.Open, r.Counts, r.Errors = b.now.Open, counts.Map(), b.now.Errors
	r.Histograms = b.total
	r.Handshake, r.TLS = LatencyOf(b.total[measure.Handshake]), LatencyOf(b.total[measure.TLS])
	r.Pong, r.Lag = LatencyOf(b.total[measure.Pong]), LatencyOf(b.total[measure.Lag])
	b.addAnswers(counts)
	if b.run.Reconnect {
		r.Returns = &Returns{int(counts[measure.Returned]), int(counts[measure.RetryFailed]), LatencyOf(b.total[measure.Away])}
	}
}

// addAnswers adds what became of messages that should be answered, in talks and scripts.
func (b *Builder) addAnswers(counts *measure.Counts) {
	r := &b.result
	asked, answered := counts.Sum(measure.Asked, measure.Flooded), counts.Sum(measure.Echoes, measure.Answered)
	r.Lost += max(0, int(asked)-int(answered)-int(counts[measure.Abandoned]))
	if r.Echo == nil {
		if asked == 0 {
			return
		}
		r.Echo = &Echo{} // scripts asked, and no talk
		b.asking, b.talked = int(answered), b.now.At
	}
	e := r.Echo
	e.Messages = b.asking
	if b.talked > 0 {
		e.Rate = float64(e.Messages) / b.talked.Seconds()
	}
	e.Latency, e.Lag = LatencyOf(b.total[measure.Echo]), r.Lag
	if f := e.Flood; f != nil {
		f.Sent, f.Answered, f.Abandoned = int(counts[measure.Flooded]), int(counts[measure.Answered]), int(counts[measure.Abandoned])
		f.Latency = LatencyOf(b.total[measure.Flood])
	}
}

// End is how a run ended.
type End struct {
	Gone        int    // users that were to leave, and did, and so are not open
	Early       string // why it ended before its last phase, such as "nobody is left"; otherwise empty
	Interrupted bool
}

// Result ends the last phase and returns the Result. The last Snapshot must have all
// that came before. b must not be used any more.
func (b *Builder) Result(end End) *Result {
	b.Settle()
	b.endPhase()
	if b.now.At > b.pointed.at {
		b.addPoint()
	}
	r := &b.result
	r.Seconds, r.Gone, r.Interrupted, r.Early = b.now.At.Seconds(), end.Gone, end.Interrupted, end.Early
	if r.Early != "" && len(r.Errors) > 0 {
		r.Early = fmt.Sprintf("%s: %d × %s", r.Early, r.Errors[0].Count, r.Errors[0].Text)
	}
	r.ConnectRate = b.connectRate()
	r.Timeline = b.history.Points()
	r.Limited, r.Valid = b.limits, len(b.limits) == 0
	return r
}

// connectRate is how many users connected a second while connections were opened.
func (b *Builder) connectRate() float64 {
	connected, seconds := 0, 0.0
	for i := range b.result.Phases {
		if p := &b.result.Phases[i]; slices.Contains(b.run.Ramps, p.Name) {
			connected += int(p.Counts[measure.Connected]) - int(p.Counts[measure.Returned])
			seconds += p.Seconds
		}
	}
	if seconds == 0 {
		return 0
	}
	return float64(connected) / seconds
}
