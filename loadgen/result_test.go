package loadgen

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/netpoll"
)

func TestAPhaseThatTakesAllProcessorsIsTheGeneratorsLimit(t *testing.T) {
	all := time.Duration(runtime.NumCPU())
	rows := []struct {
		why       string
		took, cpu time.Duration
		limited   bool
	}{
		{"all of them", time.Second, all * time.Second, true},
		{"just over nine tenths", time.Second, all * 901 * time.Millisecond, true},
		{"the shortest phase that counts", 500 * time.Millisecond, all * 500 * time.Millisecond, true},

		{"just under nine tenths", time.Second, all * 899 * time.Millisecond, false},
		{"idle", time.Minute, 0, false},
		{"too short to tell", 499 * time.Millisecond, all * 499 * time.Millisecond, false},
		{"no time at all", 0, time.Millisecond, false},
	}
	for _, r := range rows {
		res := &Result{}
		begun := time.Unix(1_000_000, 0)
		res.addPhase("ramp", usage{begun, time.Hour}, usage{begun.Add(r.took), time.Hour + r.cpu})
		want := Phase{"ramp", begun, r.took.Seconds(), r.cpu.Seconds()}
		if len(res.Phases) != 1 || res.Phases[0] != want {
			t.Errorf("%s: phases %+v, want %+v", r.why, res.Phases, want)
		}
		if (len(res.Limited) > 0) != r.limited {
			t.Errorf("%s: limited %q", r.why, res.Limited)
		}
		for _, text := range res.Limited {
			if !strings.HasPrefix(text, "ramp: ") || !strings.Contains(text, "%") {
				t.Errorf("%s: limited %q", r.why, text)
			}
		}
	}
}

func TestMessagesThatWaitedInTheGeneratorAreItsLimit(t *testing.T) {
	rows := []struct {
		why          string
		latency, lag float64
		limited      bool
	}{
		{"more than half", 10, 5.01, true},
		{"all of it", 10, 10, true},
		{"half", 10, 5, false},
		{"hardly any", 10, 0.01, false},
		{"nothing measured", 0, 0, false},
	}
	for _, r := range rows {
		res := &Result{}
		res.addLag("broadcast 3", Latency{Count: 1, P99: r.latency}, Latency{Count: 1, P99: r.lag})
		if (len(res.Limited) > 0) != r.limited {
			t.Errorf("%s: limited %q", r.why, res.Limited)
		}
		for _, text := range res.Limited {
			if want := fmt.Sprintf("broadcast 3: the p99 is %.2f ms", r.latency); !strings.HasPrefix(text, want) {
				t.Errorf("%s: limited %q", r.why, text)
			}
		}
	}
}

// completed is the result of a run whose workers have these counts, after a ramp
// of so many seconds.
func completed(t *testing.T, config Config, ramp float64, counts ...map[Counter]uint64) *Result {
	t.Helper()
	r := &run{config: config}
	for range counts {
		waker, err := netpoll.NewWaker()
		if err != nil {
			t.Fatal(err)
		}
		w := &worker{mail: netpoll.NewMailbox[order](waker, netpoll.Limit{Letters: 10})}
		r.workers = append(r.workers, w)
	}
	r.result = newResult(r)
	if ramp > 0 {
		r.result.Phases = []Phase{{Name: "ramp", Seconds: ramp}, {Name: "hold", Seconds: 100}}
	}
	for i, w := range r.workers {
		for c, n := range counts[i] {
			w.public.counts[c].Store(n)
		}
	}
	// The workers do not run, and without Patience collect does not wait for them.
	r.result.complete(r)
	return r.result
}

func TestCountsAreTheSumOverTheWorkers(t *testing.T) {
	res := completed(t, Config{Conns: 10}, 2,
		map[Counter]uint64{Connected: 3, Closed: 1, BytesIn: 100},
		map[Counter]uint64{Connected: 5, Dropped: 1, Broken: 1, Stalled: 1, Refused: 2})
	if res.Open != 4 || res.ConnectRate != 4 {
		t.Errorf("%d open, %v connected a second", res.Open, res.ConnectRate)
	}
	want := map[Counter]int{Connected: 8, Closed: 1, BytesIn: 100, Dropped: 1, Broken: 1, Stalled: 1, Refused: 2}
	for c := range tallies {
		if got, there := res.Counts[c.String()]; got != want[c] || !there {
			t.Errorf("%s: %d, %v; want %d", c, got, there, want[c])
		}
	}
	if res := completed(t, Config{Conns: 1}, 0); res.Open != 0 || res.ConnectRate != 0 {
		t.Errorf("before the first phase: %d open, %v a second", res.Open, res.ConnectRate)
	}
}

// ramped is the result of a run whose worker has started so many connections in
// so many seconds.
func ramped(t *testing.T, rate, seconds float64, started int64, counts map[Counter]uint64) *Result {
	t.Helper()
	waker, err := netpoll.NewWaker()
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{mail: netpoll.NewMailbox[order](waker, netpoll.Limit{Letters: 10})}
	w.public.started.Store(started)
	w.public.lastConnect.Store(int64(seconds * float64(time.Second)))
	for c, n := range counts {
		w.public.counts[c].Store(n)
	}
	r := &run{config: Config{Conns: int(started), Rate: rate}, workers: []*worker{w}}
	r.result = newResult(r)
	r.result.Phases = []Phase{{Name: "ramp", Seconds: 2 * seconds}}
	r.result.complete(r)
	return r.result
}

func TestARateThatIsMissedIsTheGeneratorsLimit(t *testing.T) {
	rows := []struct {
		why           string
		rate, seconds float64
		started       int64
		held          uint64
		limited       bool
	}{
		{"two thirds", 1000, 3, 2001, 0, true},
		{"just under 95 %", 1000, 2, 1900, 0, true},

		{"95 %", 1000, 2, 1901, 0, false},
		{"as wanted", 1000, 2, 2001, 0, false},
		{"the server was slow", 1000, 3, 2000, 1, false},
		{"no rate was wanted", 0, 3, 2000, 0, false},
		{"too short to tell", 1000, 1, 500, 0, false},
		{"none started", 1000, 0, 0, 0, false},
	}
	for _, r := range rows {
		res := ramped(t, r.rate, r.seconds, r.started, map[Counter]uint64{Held: r.held})
		if (len(res.Limited) > 0) != r.limited {
			t.Errorf("%s: limited %q", r.why, res.Limited)
		}
		for _, text := range res.Limited {
			if !strings.HasPrefix(text, "ramp: worker 0 started ") {
				t.Errorf("%s: limited %q", r.why, text)
			}
		}
	}
}

func TestOKMeansAllOpenAndNothingLost(t *testing.T) {
	good := func() *Result {
		return &Result{
			Conns: 10, Open: 10, Counts: map[string]int{"connected": 10, "held": 3, "skipped": 2, "foreign": 1, "received": 10},
			Limited: []string{"slow"},
		}
	}
	rows := []struct {
		why    string
		change func(*Result)
		ok     bool
	}{
		{"as it is", func(*Result) {}, true},
		{"before it was counted", func(res *Result) { res.Counts = nil }, true},

		{"one not open", func(res *Result) { res.Open = 9 }, false},
		{"one too many", func(res *Result) { res.Open = 11 }, false},
		{"a message lost", func(res *Result) { res.Lost = 1 }, false},
		{"a message missed", func(res *Result) { res.Counts["missed"] = 1 }, false},
		{"a message twice", func(res *Result) { res.Counts["repeated"] = 1 }, false},
		{"interrupted", func(res *Result) { res.Interrupted = true }, false},
	}
	for _, r := range rows {
		res := good()
		if r.change(res); res.OK() != r.ok {
			t.Errorf("%s: OK is %v", r.why, res.OK())
		}
	}
}

// fixed is a result with something in every field.
func fixed() *Result {
	begun := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	return &Result{
		Conns: 1000, URLs: []string{"ws://127.0.0.1:8080/"}, Workers: 2, Sources: 1, Size: 32, Rate: 500,
		Open: 996, Lost: 4, ConnectRate: 498.5,
		Counts: map[string]int{
			"connected": 998, "refused": 1, "timed_out": 1, "dropped": 2, "missed": 3, "repeated": 5, "foreign": 6,
			"bytes_in": 123456, "received": 1994,
		},
		Handshake: Latency{998, 0.1, 0.5, 0.9, 1.25, 20},
		Broadcasts: []Broadcast{
			{
				Messages: 1, Expected: 998, Received: 998, Deliveries: 99_800, Latency: Latency{998, 0.2, 5, 8, 9.5, 10},
				Lag: Latency{998, 0.01, 0.02, 0.03, 0.04, 0.05}, Histogram: []Bar{{5.023, 500}, {10.047, 498}},
			},
			{Messages: 1, Expected: 1000, Received: 996, Deliveries: 1234.4},
		},
		Probe:       &Probe{Idle: Latency{2000, 0.05, 0.06, 0.07, 0.08, 0.5}, Busy: Latency{100, 0.05, 1, 2, 3, 4}},
		Echo:        &Echo{100, 5000, 1000, Latency{5000, 0.1, 0.2, 0.3, 0.4, 0.5}, Latency{5000, 0, 0, 0, 0, 0.1}, &Flood{10, 700, 600, 50, Latency{600, 1, 2, 3, 4, 5}}},
		Phases:      []Phase{{"ramp", begun, 2, 0.5}, {"broadcast", begun.Add(2 * time.Second), 60.25, 1}},
		Errors:      map[string]int{"refused: connection refused": 1},
		Interrupted: true,
		Limited:     []string{"ramp: the generator used 95 % of all processors"},
		Timeline:    []Point{{0.1, 50}, {2, 998}},
	}
}

func TestResultSurvivesJSON(t *testing.T) {
	for _, want := range []*Result{fixed(), {Counts: map[string]int{}}} {
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := &Result{}
		if err := json.Unmarshal(text, got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\nbecame %+v", text, got)
		}
	}
}

func TestResultAsText(t *testing.T) {
	const golden = `connections  996 of 1000 open, 498 a second
  refused    1
  timed_out  1
  dropped    2
  missed     3
  repeated   5
  foreign    6
  1 × refused: connection refused
handshake    first 0.10 ms, p50 0.50, p99 1.25, last 20.00
broadcast 1  998 of 998 received, 99800 a second; first 0.20 ms, p50 5.00, p99 9.50, last 10.00
broadcast 2  996 of 1000 received, 1234 a second; first 0.00 ms, p50 0.00, p99 0.00, last 0.00
lost         4 messages
ping, idle   first 0.05 ms, p50 0.06, p99 0.08, last 0.50
ping, busy   first 0.05 ms, p50 1.00, p99 3.00, last 4.00
echo         5000 messages, 1000 a second; first 0.10 ms, p50 0.20, p99 0.40, last 0.50
flood        10 connections: 700 messages sent, 600 answered, 50 abandoned; first 1.00 ms, p50 2.00, p99 4.00, last 5.00
ramp         2.00 s, 0.50 s of processor time
broadcast    60.25 s, 1.00 s of processor time
generator-limited: ramp: the generator used 95 % of all processors
interrupted
`
	expectText(t, fixed(), golden)
	expectText(t, &Result{Conns: 1, Open: 1, Lost: 0}, `connections  1 of 1 open, 0 a second
handshake    first 0.00 ms, p50 0.00, p99 0.00, last 0.00
`)
}

func expectText(t *testing.T, res *Result, want string) {
	t.Helper()
	var b strings.Builder
	res.WriteText(&b)
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

// The same for connections that the server refuses.
func TestAServerThatRefusesIsNotTheGeneratorsLimit(t *testing.T) {
	for why, counts := range map[string]map[Counter]uint64{
		"half refused":   {Connected: 1500, Refused: 1500},
		"half timed out": {Connected: 1500, TimedOut: 1500},
	} {
		if res := completed(t, Config{Conns: 3000, Rate: 1000}, 3, counts); len(res.Limited) > 0 {
			t.Errorf("%s: limited %q", why, res.Limited)
		}
	}
}

// Where nothing was received, nothing waited in the generator.
func TestWithoutMessagesThereIsNoLag(t *testing.T) {
	res := &Result{}
	res.addLag("broadcast 1", Latency{}, Latency{Count: 1, P99: 0.005})
	if len(res.Limited) > 0 {
		t.Errorf("limited %q", res.Limited)
	}
}

// The same result is the same text each time.
func TestErrorsForPeopleHaveAnOrder(t *testing.T) {
	res := &Result{Errors: map[string]int{"a": 1, "b": 2, "c": 3, "d": 4}}
	for range 20 {
		var b strings.Builder
		res.WriteText(&b)
		if !strings.Contains(b.String(), "1 × a\n  2 × b\n  3 × c\n  4 × d\n") {
			t.Fatal(b.String())
		}
	}
}
