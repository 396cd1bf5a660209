package loadgen

import (
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// tally is what one worker counts and times.
type tally struct {
	counts measure.Counts // they only grow
	report
}

// report is what a worker timed, and the errors that it met, since the last report.
type report struct {
	times  measure.Histograms
	errors map[failure]int
}

// failure is an error's counter and text.
type failure struct {
	counter measure.Counter
	text    string
}

// failuresMost is how many different errors a report names.
const failuresMost = 64

// take returns the report and begins a new one.
func (t *tally) take() report {
	r := t.report
	t.report = report{}
	return r
}

func (w *worker) count(c measure.Counter, n int) { w.tally.counts[c] += uint64(n) }

// measure records a time, and counts one that a histogram cannot hold.
func (w *worker) measure(k measure.Kind, d time.Duration) { w.tally.measure(k, d) }

func (t *tally) measure(k measure.Kind, d time.Duration) {
	if !t.times.Record(k, d) {
		t.counts[measure.OutOfRange]++
	}
}

// fail counts a connection's end and keeps the text of its error.
func (w *worker) fail(why measure.Counter, err error) { w.tally.fail(why, err) }

func (t *tally) fail(why measure.Counter, err error) {
	t.counts[why]++
	f := failure{why, err.Error()}
	if _, known := t.errors[f]; !known && len(t.errors) == failuresMost {
		return
	}
	if t.errors == nil {
		t.errors = map[failure]int{}
	}
	t.errors[f]++
}
