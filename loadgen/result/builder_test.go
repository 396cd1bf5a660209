package result

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

var begun = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// load is a load that tells a Builder what it does.
type load struct {
	*Builder
	now measure.Snapshot
}

func newLoad(run Run) *load {
	run.Begun = begun
	if run.Processors == 0 {
		run.Processors = 2
	}
	return &load{Builder: NewBuilder(run)}
}

// pass lets time pass, in which things are counted.
func (l *load) pass(d time.Duration, counts map[measure.Counter]uint64) {
	l.now.At += d
	for c, n := range counts {
		l.now.Counts[c] += n
	}
	l.now.Open = l.now.Counts.Open()
	l.Snapshot(&l.now)
	l.now.Times = measure.Histograms{}
}

func (l *load) times(k measure.Kind, n int, d time.Duration) {
	for range n {
		l.now.Times.Record(k, d)
	}
}

// example is a run with something in every field.
func example() *Result {
	l := newLoad(Run{
		Name: "example", Conns: 1000, URLs: []string{"ws://127.0.0.1:8080/"}, Workers: 2, Sources: 1, Size: 32, Rate: 500, Reconnect: true,
	})
	l.Phase("ramp")
	l.now.CPU, l.now.Busy = 0.25, 0.5
	l.times(measure.Handshake, 990, 500*time.Microsecond)
	l.times(measure.Handshake, 8, 20*time.Millisecond)
	l.times(measure.TLS, 998, 300*time.Microsecond)
	l.now.Errors = []measure.Found{{Error: measure.Error{Counter: "refused", Phase: "ramp", Text: "connection refused"}, Count: 1}}
	l.pass(2*time.Second, map[measure.Counter]uint64{measure.Connected: 998, measure.Refused: 1, measure.TimedOut: 1, measure.Resumed: 7, measure.BytesIn: 123456})
	l.Phase("publish")
	l.times(measure.Broadcast, 998, 5*time.Millisecond)
	l.times(measure.Lag, 998, 20*time.Microsecond)
	l.pass(time.Second, map[measure.Counter]uint64{measure.Sent: 1, measure.Received: 998, measure.Foreign: 6})
	l.Burst(Burst{Messages: 1, Expected: 998, Received: 998, Took: 10 * time.Millisecond})
	l.pass(time.Minute, map[measure.Counter]uint64{measure.Sent: 1, measure.Dropped: 2, measure.Missed: 3, measure.Repeated: 5})
	l.Burst(Burst{Messages: 1, Expected: 998, Received: 0, Took: time.Minute})
	idle, busy := measure.NewHistogram(), measure.NewHistogram()
	measure.Record(idle, 60*time.Microsecond)
	measure.Record(busy, 2*time.Millisecond)
	l.Probe(idle, busy)
	l.Phase("talk")
	l.Part()
	l.times(measure.Echo, 5000, 200*time.Microsecond)
	l.times(measure.Flood, 600, 2*time.Millisecond)
	l.times(measure.Pong, 10, time.Millisecond)
	l.times(measure.Away, 1, 700*time.Millisecond)
	l.now.Limited = []string{"talk: worker 1 was late"}
	l.pass(5*time.Second, map[measure.Counter]uint64{
		measure.Asked: 5001, measure.Echoes: 5000, measure.Flooded: 700, measure.Answered: 600, measure.Abandoned: 50,
		measure.Pinged: 11, measure.Ponged: 10, measure.Connected: 1, measure.Returned: 1, measure.RetryFailed: 3,
	})
	l.Talk(Talk{Active: 100, Flooding: 10, Messages: 5600, Took: 5 * time.Second})
	l.Settle()
	l.Phase("close")
	l.times(measure.Lag, 1, time.Hour)
	l.pass(time.Second, map[measure.Counter]uint64{measure.Left: 997})
	return l.Result(End{Gone: 1})
}

func TestABuilderAddsUpWhatItIsTold(t *testing.T) {
	r := example()
	for what, is := range map[string][2]any{
		"open":              {r.Open, 997},
		"lost":              {r.Lost, 998 + 51},
		"connects a second": {r.ConnectRate, 499.0},
		"seconds":           {r.Seconds, 69.0},
		"left":              {r.Counts["left"], 0},
		"handshakes":        {r.Handshake.Count, int64(998)},
		"of TLS":            {r.TLS.Count, int64(998)},
		"pongs":             {r.Pong.Count, int64(10)},
		"lag":               {r.Lag.Count, int64(998)},
		"p99.9":             {r.Handshake.P999 > 19, true},
		"broadcasts":        {len(r.Broadcasts), 2},
		"deliveries":        {r.Broadcasts[0].Deliveries, 99_800.0},
		"of the second":     {r.Broadcasts[1].Latency, Latency{}},
		"echo rate":         {r.Echo.Rate, 1120.0},
		"flood":             {*r.Echo.Flood, Flood{10, 700, 600, 50, r.Echo.Flood.Latency}},
		"returned":          {r.Returns.Count, 1},
		"phases":            {len(r.Phases), 4},
		"publish begins":    {r.Phases[1].Begun, begun.Add(2 * time.Second)},
		"and takes":         {r.Phases[1].Seconds, 61.0},
		"at a cost of":      {r.Phases[0].CPUSeconds, 1.0},
		"and counts":        {r.Phases[1].Counts[measure.Received], uint64(998)},
		"and times":         {r.Phases[1].Times["broadcast"].Count, int64(998)},
		"none of before":    {len(r.Phases[1].Times), 2},
		"limited":           {strings.Join(r.Limited, ";"), "talk: worker 1 was late"},
		"valid":             {r.Valid, false},
		"OK":                {r.OK(), false},
	} {
		if is[0] != is[1] {
			t.Errorf("%s: %v, want %v", what, is[0], is[1])
		}
	}
}

func TestAPointIsWhatHappenedSinceTheLast(t *testing.T) {
	l := newLoad(Run{})
	l.Phase("ramp")
	for i := range 25 { // tenths of a second
		l.now.CPU = 0.5
		if i == 12 {
			l.times(measure.Handshake, 10, 7*time.Millisecond)
		}
		l.pass(100*time.Millisecond, map[measure.Counter]uint64{measure.Connected: 3, measure.Asked: 2, measure.Echoes: 1, measure.Refused: 1})
	}
	points := l.Result(End{}).Timeline
	if len(points) != 3 {
		t.Fatalf("%d points: %+v", len(points), points)
	}
	first, second, last := points[0], points[1], points[2]
	if first.Open != 30 || first.Connects != 30 || first.In != 10 || first.Out != 20 || first.Errors != 10 || first.CPU < 0.49 || first.CPU > 0.51 {
		t.Errorf("the first: %+v", first)
	}
	if first.HandshakeP99 != nil || second.HandshakeP99 == nil || *second.HandshakeP99 < 6.9 || *second.HandshakeP99 > 7.1 {
		t.Errorf("handshakes: %v, then %v", first.HandshakeP99, second.HandshakeP99)
	}
	if last.Seconds != 2.5 || last.Connects != 15 || last.Open != 75 {
		t.Errorf("the last: %+v", last)
	}
}

// A snapshot may come a little early or late.
func TestPointsAreASecondApart(t *testing.T) {
	l := newLoad(Run{})
	for i := range 40 {
		l.pass(time.Second+time.Duration(i%2*80-35)*time.Millisecond, nil)
	}
	if n := len(l.Result(End{}).Timeline); n < 39 {
		t.Errorf("%d points in 40 s", n)
	}
}

// A run of any length has a bounded time series, and loses nothing of what is counted.
func TestAHistoryIsBounded(t *testing.T) {
	var h History
	at, connects, worst := 0.0, 0, 9.0
	for i := range 20 * measure.PointsMax {
		p := Point{Seconds: at, Connects: 1, Open: i}
		if i == 5 {
			p.HandshakeP99 = &worst
		}
		h.Add(p)
		at += h.Every().Seconds()
	}
	if n := len(h.Points()); n >= measure.PointsMax || n < measure.PointsMax/2-1 {
		t.Errorf("%d points", n)
	}
	for _, p := range h.Points() {
		connects += p.Connects
	}
	if connects != 20*measure.PointsMax {
		t.Errorf("%d connects", connects)
	}
	if first := h.Points()[0]; first.HandshakeP99 == nil || *first.HandshakeP99 != worst {
		t.Errorf("the worst second is gone: %+v", first)
	}
	if last := h.Points()[len(h.Points())-1]; last.Open != 20*measure.PointsMax-1 {
		t.Errorf("the last: %+v", last)
	}
}

func TestASaturatedGeneratorMakesTheResultInvalid(t *testing.T) {
	for why, of := range map[string]struct {
		took      time.Duration
		cpu, busy float64
		timed     bool
		limited   string
	}{
		"all processors":    {time.Second, 0.95, 1, false, "ramp: the generator used 95 %"},
		"a busy machine":    {time.Second, 0.4, 0.99, true, "ramp: this machine's processors were 99 % busy, 40 %"},
		"nothing was timed": {time.Second, 0.4, 0.99, false, ""},
		"idle":              {time.Minute, 0.1, 0.2, true, ""},
		"just enough":       {time.Second, 0.9, 0.97, true, ""},
		"too short to tell": {400 * time.Millisecond, 1, 1, true, ""},
	} {
		l := newLoad(Run{})
		l.Phase("ramp")
		l.now.CPU, l.now.Busy = of.cpu, of.busy
		if of.timed {
			l.times(measure.Handshake, 1, time.Millisecond)
		}
		l.times(measure.Lag, 1, time.Millisecond)
		l.pass(of.took, nil)
		r := l.Result(End{})
		if r.Valid != (of.limited == "") || !strings.HasPrefix(strings.Join(r.Limited, ";"), of.limited) {
			t.Errorf("%s: valid %v, %q", why, r.Valid, r.Limited)
		}
	}
}

func TestMessagesThatWaitedInTheGeneratorMakeTheResultInvalid(t *testing.T) {
	for why, of := range map[string]struct {
		latency, lag time.Duration
		valid        bool
	}{
		"more than half": {10 * time.Millisecond, 6 * time.Millisecond, false},
		"hardly any":     {10 * time.Millisecond, 10 * time.Microsecond, true},
		"none received":  {0, time.Second, true},
	} {
		l := newLoad(Run{})
		l.Phase("publish")
		if of.latency > 0 {
			l.times(measure.Broadcast, 10, of.latency)
		}
		l.times(measure.Lag, 10, of.lag)
		l.pass(time.Second, nil)
		l.Burst(Burst{Messages: 1, Expected: 10, Received: 10, Took: time.Second})
		if r := l.Result(End{}); r.Valid != of.valid {
			t.Errorf("%s: %q", why, r.Limited)
		}
	}
}

func TestAnEarlyEndSaysWhy(t *testing.T) {
	l := newLoad(Run{Conns: 10})
	l.Phase("ramp")
	l.now.Errors = []measure.Found{{Error: measure.Error{Counter: "closed", Phase: "ramp", Text: "closed by peer: 1003 bad json"}, Count: 10}}
	l.pass(time.Second, map[measure.Counter]uint64{measure.Connected: 10, measure.Closed: 10})
	l.now.Errors = nil // a snapshot that only says how far it is
	l.pass(time.Second, nil)
	r := l.Result(End{Early: "nobody is left"})
	if r.Early != "nobody is left: 10 × closed by peer: 1003 bad json" || r.OK() {
		t.Errorf("%q", r.Early)
	}
}

// Bursts beyond a number are in the totals alone, so a long run does not fill memory.
func TestBroadcastsAreBounded(t *testing.T) {
	l := newLoad(Run{})
	l.Phase("publish")
	for range broadcastsMax + 10 {
		l.Burst(Burst{Messages: 1, Expected: 2, Received: 1, Took: time.Second})
	}
	if r := l.Result(End{}); len(r.Broadcasts) != broadcastsMax || r.Lost != broadcastsMax+10 {
		t.Errorf("%d broadcasts, %d lost", len(r.Broadcasts), r.Lost)
	}
}

func TestAResultSurvivesJSON(t *testing.T) {
	want := example()
	want.Early, want.Interrupted = "stopped", true
	want.Expected = want.Check(thresholds(t, "p99(handshake)<50ms,lost=0,p99(pong)<1us"))
	var b bytes.Buffer
	if err := want.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	got, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	for k, h := range want.Histograms {
		if (h == nil) != (got.Histograms[k] == nil) || h != nil && !h.Equals(got.Histograms[k]) {
			t.Errorf("the histogram of %v has changed", measure.Kind(k))
		}
	}
	got.Histograms = want.Histograms
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\nbecame %+v", text, got)
	}
	for _, null := range []string{`"p99_9": null`, `"answer_p50_ms": null`} {
		if !strings.Contains(text, null) {
			t.Errorf("%s is missing", null)
		}
	}
}

func TestOtherFilesAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"conns":1,"urls":[],"counts":{}}`:  "of version 1, which has no histograms to compare: run the load again",
		`{"schema":"lull.load","version":1}`: "run the load again",
		`{"schema":"lull.load","version":3}`: "use the lull that wrote it",
		`{"name":"somebody"}`:                "no result of lull load",
		`[]`:                                 "no JSON of lull load",
		``:                                   "no JSON of lull load",
		`{"schema":"lull.load","version":2,"open":""}`:               "damaged",
		`{"schema":"lull.load","version":2,"histograms":"echo x\n"}`: "damaged",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestOKMeansAllOpenAndNothingLost(t *testing.T) {
	for why, of := range map[string]struct {
		change func(*Result)
		ok     bool
	}{
		"as it is":            {func(*Result) {}, true},
		"before it counted":   {func(r *Result) { r.Counts = nil }, true},
		"users that left":     {func(r *Result) { r.Open, r.Gone = 7, 3 }, true},
		"a threshold met":     {func(r *Result) { r.Expected = []Check{{Met: true}} }, true},
		"one not open":        {func(r *Result) { r.Open = 9 }, false},
		"one too many":        {func(r *Result) { r.Open = 11 }, false},
		"a message lost":      {func(r *Result) { r.Lost = 1 }, false},
		"a message missed":    {func(r *Result) { r.Counts["missed"] = 1 }, false},
		"a message twice":     {func(r *Result) { r.Counts["repeated"] = 1 }, false},
		"another's message":   {func(r *Result) { r.Counts["strayed"] = 1 }, false},
		"a broken protocol":   {func(r *Result) { r.Counts["broken"] = 1 }, false},
		"interrupted":         {func(r *Result) { r.Interrupted = true }, false},
		"an early end":        {func(r *Result) { r.Early = "nobody is left" }, false},
		"a threshold not met": {func(r *Result) { r.Expected = []Check{{}} }, false},
	} {
		r := &Result{
			Conns: 10, Open: 10, Counts: map[string]int{"connected": 10, "held": 3, "skipped": 2, "foreign": 1, "received": 10},
			Limited: []string{"slow"},
		}
		if of.change(r); r.OK() != of.ok {
			t.Errorf("%s: OK is %v", why, r.OK())
		}
	}
}
