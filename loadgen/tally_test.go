package loadgen

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestCountersHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for c := range tallies {
		if c.String() == "" || seen[c.String()] {
			t.Errorf("counter %d is called %q", c, c)
		}
		seen[c.String()] = true
	}
}

func TestFailuresAreCountedAndNamed(t *testing.T) {
	w := tally{report: newReport()}
	w.fail(Refused, errors.New("nobody there"))
	w.fail(Refused, errors.New("nobody there"))
	w.fail(Reset, errors.New("nobody there"))
	if w.counts[Refused] != 2 || w.counts[Reset] != 1 {
		t.Errorf("counts %v", w.counts)
	}
	if got := fmt.Sprint(w.errors); got != "map[refused: nobody there:2 reset: nobody there:1]" {
		t.Errorf("errors %s", got)
	}
}

// A server that answers each connection with a different error fills no memory.
// Errors that are kept are still counted.
func TestDifferentErrorsAreBounded(t *testing.T) {
	w := tally{report: newReport()}
	for i := range 10 * errorsKept {
		w.fail(Rejected, fmt.Errorf("number %d", i))
	}
	w.fail(Rejected, errors.New("number 0"))
	if len(w.errors) != errorsKept || w.counts[Rejected] != 10*errorsKept+1 || w.errors["rejected: number 0"] != 2 {
		t.Errorf("%d errors, %d counted, the first %d times", len(w.errors), w.counts[Rejected], w.errors["rejected: number 0"])
	}
}

func TestAReportIsTakenOnceAndCountsStay(t *testing.T) {
	w := tally{report: newReport()}
	w.fail(Failed, errors.New("x"))
	measure(w.handshake, time.Millisecond)
	measure(w.lag, time.Millisecond)
	all := newReport()
	for range 2 {
		all.merge(w.take())
	}
	if all.handshake.TotalCount() != 1 || all.lag.TotalCount() != 1 || all.errors["failed: x"] != 1 {
		t.Errorf("taken twice: %d handshakes, %d lags, errors %v", all.handshake.TotalCount(), all.lag.TotalCount(), all.errors)
	}
	if w.counts[Failed] != 1 {
		t.Errorf("counts %v", w.counts)
	}
}

func TestHistogramsTakeEveryDuration(t *testing.T) {
	h := newHistogram()
	for _, d := range []time.Duration{-time.Hour, 0, time.Nanosecond, time.Second, time.Minute, time.Hour} {
		measure(h, d)
	}
	l := latency(h)
	if l.Count != 6 || l.First != 0.001 || l.Last < 60_000*0.99 || l.Last > 60_000*1.01 {
		t.Errorf("%+v", l)
	}
	if empty := latency(newHistogram()); empty != (Latency{}) {
		t.Errorf("nothing recorded: %+v", empty)
	}
}

func TestTimesOutOfRangeAreCounted(t *testing.T) {
	w := tally{report: newReport()}
	for _, d := range []time.Duration{-time.Microsecond, 0, time.Minute, time.Hour} {
		w.measure(w.echo, d)
	}
	w.measure(w.away, time.Hour) // absences may be longer
	if n := w.counts[OutOfRange]; n != 2 || w.echo.TotalCount() != 4 {
		t.Errorf("%d out of range, %d in all", n, w.echo.TotalCount())
	}
}

func TestLatencySummarizesInTwoDigits(t *testing.T) {
	h := newHistogram()
	for i := range 1000 {
		measure(h, time.Duration(i+1)*time.Millisecond)
	}
	l := latency(h)
	for name, of := range map[string][2]float64{
		"first": {l.First, 1}, "p50": {l.P50, 500}, "p90": {l.P90, 900}, "p99": {l.P99, 990}, "last": {l.Last, 1000},
	} {
		if got, want := of[0], of[1]; got < 0.99*want || got > 1.01*want {
			t.Errorf("%s is %v ms, want about %v", name, got, want)
		}
	}
}

func TestCountsAreAsNewAsTheReport(t *testing.T) {
	w, _ := reader(t)
	w.tally.fail(Broken, errors.New("x"))
	reports := make(chan report, 1)
	w.tell(order{kind: orderReport, report: reports})
	w.readMail()
	if got := <-reports; got.errors["broken: x"] != 1 || w.public.counts[Broken].Load() != 1 {
		t.Errorf("the report says %v, the counter %d", got.errors, w.public.counts[Broken].Load())
	}
}
