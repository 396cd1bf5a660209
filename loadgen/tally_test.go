package loadgen

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

func TestFailuresAreCountedAndNamed(t *testing.T) {
	var w tally
	w.fail(measure.Refused, errors.New("nobody there"))
	w.fail(measure.Refused, errors.New("nobody there"))
	w.fail(measure.Reset, errors.New("nobody there"))
	if w.counts[measure.Refused] != 2 || w.counts[measure.Reset] != 1 {
		t.Errorf("counts %v", w.counts)
	}
	if got := w.errors; len(got) != 2 || got[failure{measure.Refused, "nobody there"}] != 2 || got[failure{measure.Reset, "nobody there"}] != 1 {
		t.Errorf("errors %v", got)
	}
}

// A server that answers each connection with a different error fills no memory.
// Errors that are kept are still counted.
func TestDifferentErrorsAreBounded(t *testing.T) {
	var w tally
	for i := range 10 * failuresMost {
		w.fail(measure.Rejected, fmt.Errorf("number %d", i))
	}
	w.fail(measure.Rejected, errors.New("number 0"))
	if n := w.errors[failure{measure.Rejected, "number 0"}]; len(w.errors) != failuresMost || w.counts[measure.Rejected] != 10*failuresMost+1 || n != 2 {
		t.Errorf("%d errors, %d counted, the first %d times", len(w.errors), w.counts[measure.Rejected], n)
	}
}

func TestAReportIsTakenOnceAndCountsStay(t *testing.T) {
	var w tally
	w.fail(measure.Failed, errors.New("x"))
	w.measure(measure.Handshake, time.Millisecond)
	first, second := w.take(), w.take()
	if first.times.Of(measure.Handshake).TotalCount() != 1 || len(first.errors) != 1 {
		t.Errorf("the first report is %+v", first)
	}
	if second.times[measure.Handshake] != nil || len(second.errors) != 0 || w.counts[measure.Failed] != 1 {
		t.Errorf("taken twice: %+v, counts %v", second, w.counts)
	}
}

func TestTimesOutOfRangeAreCounted(t *testing.T) {
	var w tally
	for _, d := range []time.Duration{-time.Microsecond, 0, time.Hour, 25 * time.Hour} {
		w.measure(measure.Echo, d)
	}
	if n := w.counts[measure.OutOfRange]; n != 2 || w.times[measure.Echo].TotalCount() != 4 {
		t.Errorf("%d out of range, %d in all", n, w.times[measure.Echo].TotalCount())
	}
}

func TestCountsAreAsNewAsTheReport(t *testing.T) {
	w, _ := reader(t)
	w.fail(measure.Broken, errors.New("x"))
	reports := make(chan report, 1)
	_ = w.mail.Force(order{kind: orderReport, report: reports}, nil)
	w.readMail()
	if got := <-reports; got.errors[failure{measure.Broken, "x"}] != 1 || w.public.counts[measure.Broken].Load() != 1 {
		t.Errorf("the report says %v, the counter %d", got.errors, w.public.counts[measure.Broken].Load())
	}
}
