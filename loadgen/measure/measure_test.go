package measure

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

func TestCountersAndKindsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range append(counterNames[:], kindNames[:]...) {
		if name == "" || seen[name] && name != "flood" {
			t.Errorf("the name %q is given twice, or is none", name)
		}
		seen[name] = true
	}
}

func TestCountersAndKindsSayWhatTheyAre(t *testing.T) {
	seen := map[string]bool{}
	for _, help := range append(counterHelp[:], kindHelp[:]...) {
		if help == "" || seen[help] {
			t.Errorf("the help %q is given twice, or is none", help)
		}
		seen[help] = true
	}
}

func TestCountsSurviveJSON(t *testing.T) {
	var c, got Counts
	for i := range c {
		c[i] = uint64(i * 1000)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &got); err != nil || got != c {
		t.Errorf("%v became %v: %v", c, got, err)
	}
	if err := json.Unmarshal([]byte(`{"of_tomorrow":1}`), &got); err == nil {
		t.Error("a counter of another version was taken")
	}
}

func TestOpenIsWhatDidNotEnd(t *testing.T) {
	var c Counts
	c[Connected], c[Dropped], c[Closed], c[Left], c[Refused] = 10, 1, 2, 3, 4
	if c.Open() != 4 {
		t.Errorf("%d open", c.Open())
	}
	later := c
	later[Connected] += 5
	if d := later.Sub(&c); d[Connected] != 5 || d[Dropped] != 0 {
		t.Errorf("difference %v", d)
	}
}

func TestRatesAreOfTheTimeBetween(t *testing.T) {
	earlier, later := Snapshot{At: time.Second}, Snapshot{At: 3 * time.Second}
	earlier.Counts[Sent], later.Counts[Sent], later.Counts[Told] = 10, 20, 4
	if r := later.Rate(&earlier, MessagesOut...); r != 7 {
		t.Errorf("%v a second", r)
	}
	if r := later.Rate(&later, Sent); r != 0 {
		t.Errorf("%v a second in no time", r)
	}
	later.Counts[Sent] = 5 // a machine has left
	if r := later.Rate(&earlier, Sent); r != 0 {
		t.Errorf("%v a second of a count that fell", r)
	}
}

// Nine of ten snapshots say only how far the run is.
func TestAReadingKeepsWhatTheLastFullSnapshotHad(t *testing.T) {
	var r Reading
	if r.Running() {
		t.Error("it runs before it has begun")
	}
	r.Phase("ramp")
	full := Snapshot{At: time.Second, Phase: "ramp", Users: 10, CPU: 0.5, Busy: 0.75, Errors: []Found{{Count: 1}}}
	full.Counts[Connected] = 10
	full.Times.Record(Handshake, time.Millisecond)
	r.Snapshot(&full)
	full.Errors[0].Count = 99 // it is the run's
	short := Snapshot{At: 1100 * time.Millisecond, Phase: "ramp", Users: 10, Errors: []Found{{Count: 2}}}
	if !full.Full() || short.Full() {
		t.Error("full snapshots are not told from others")
	}
	if r.Now.Errors[0].Count != 1 {
		t.Error("the reading shares the run's memory")
	}
	r.Snapshot(&short)
	if r.Now.CPU != 0.5 || r.Now.Busy != 0.75 || r.Times.Of(Handshake).TotalCount() != 1 || !r.Rated || r.Rates.Connects != 10 || r.Took() != 1100*time.Millisecond {
		t.Errorf("%+v", r.Now)
	}
	if _, known := r.Progress(); known {
		t.Error("it knows how long the phase takes")
	}
	short.Expected = 3300 * time.Millisecond
	r.Snapshot(&short)
	if share, known := r.Progress(); share != 0.25 || !known {
		t.Errorf("progress %v", share)
	}
	r.Phase("hold")
	if r.Took() != 0 || r.Times.Of(Handshake).TotalCount() != 0 {
		t.Errorf("a phase begins with %v", r.Took())
	}
}

func TestTimesOutOfRangeAreSaid(t *testing.T) {
	var h Histograms
	for d, fits := range map[time.Duration]bool{-time.Second: false, 0: true, time.Hour: true, 25 * time.Hour: false} {
		if h.Record(Echo, d) != fits {
			t.Errorf("%v fits: %v", d, !fits)
		}
	}
	if n := h.Of(Echo).TotalCount(); n != 4 {
		t.Errorf("%d recorded", n)
	}
	if n := h.Of(Handshake).TotalCount(); n != 0 {
		t.Errorf("%d recorded of another kind", n)
	}
}

func TestHistogramsSurviveTheirText(t *testing.T) {
	var h, got, sum Histograms
	for i := range 1000 {
		h.Record(Handshake, time.Duration(i*i)*time.Millisecond)
		h.Record(Lag, time.Duration(i)*time.Microsecond)
	}
	text, err := h.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if err := got.UnmarshalText(text); err != nil {
		t.Fatal(err)
	}
	sum.Merge(&got)
	sum.Merge(&h)
	for _, k := range []Kind{Handshake, Lag} {
		for _, q := range []float64{0, 50, 99, 100} {
			if a, b := h.Of(k).ValueAtQuantile(q), sum.Of(k).ValueAtQuantile(q); a != b {
				t.Errorf("%v: the quantile %v was %d, and is %d", k, q, a, b)
			}
		}
		if n := sum.Of(k).TotalCount(); n != 2000 {
			t.Errorf("%v: %d values", k, n)
		}
	}
	if got[Echo] != nil {
		t.Error("a histogram came from nothing")
	}
	if taken := h.Take(); h[Lag] != nil || taken[Lag] == nil {
		t.Error("histograms were not taken")
	}
}

func FuzzHistogramsText(f *testing.F) {
	var h Histograms
	h.Record(Echo, time.Second)
	text, _ := h.MarshalText()
	f.Add(text)
	f.Add([]byte("echo x\n"))
	f.Add([]byte("nothing"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		var h Histograms
		if h.UnmarshalText(text) == nil {
			h.Merge(&h)
		}
	})
}

// A server that answers each connection with a different error fills no memory.
func TestDifferentErrorsAreBounded(t *testing.T) {
	var e Errors
	for i := range 10 * errorsMost {
		e.Add(Error{"rejected", "ramp", fmt.Sprint("number ", i)}, 1)
	}
	e.Add(Error{"rejected", "ramp", "number 0"}, 2)
	list := e.List()
	if len(list) != errorsMost || list[0] != (Found{Error{"rejected", "ramp", "number 0"}, 3}) {
		t.Errorf("%d errors, the first %v", len(list), list[0])
	}
}

func TestBucketsAreThoseOfTheDistribution(t *testing.T) {
	h := NewHistogram()
	for i := range 100_000 {
		Record(h, time.Duration(rand.N(int64(time.Second)>>(i%30))))
	}
	Record(h, 24*time.Hour)
	var want, got []hdr.Bar
	for _, bar := range h.Distribution() {
		if bar.Count > 0 {
			want = append(want, hdr.Bar{To: bar.To, Count: bar.Count})
		}
	}
	for most, count := range Buckets(h) {
		got = append(got, hdr.Bar{To: most, Count: count})
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// Histograms that were freed are empty when they are given away again.
func TestAFreedHistogramIsEmpty(t *testing.T) {
	for range 100 {
		var h Histograms
		h.Record(Lag, time.Second)
		if n := h.Of(Lag).TotalCount(); n != 1 {
			t.Fatalf("%d times in a new histogram", n)
		}
		if h.Free(); h != (Histograms{}) {
			t.Fatal("there are histograms after Free")
		}
	}
}
