package measure

import (
	"slices"
	"time"
)

// rateOver is the least time over which a Reading computes rates.
const rateOver = time.Second

// Reading is what a sink that shows a run knows of it: the last snapshot, and what
// follows from those before. The zero value is a run that has not begun. Its methods
// are a sink's; it keeps nothing of a snapshot that it was given. It belongs to one
// goroutine at a time.
type Reading struct {
	Now   Snapshot      // the last one, without its times; CPU and Busy are those of the last full one
	Began time.Duration // when the phase began
	Times Histograms    // what was timed in this phase

	// Rates are those between two snapshots that are at least a second apart. Until
	// there are two, Rated is false.
	Rates Rates
	Rated bool

	before Snapshot // from which the next rates count
}

// Rates are how much a run did a second.
type Rates struct {
	Connects float64 `json:"connects"`
	Failures float64 `json:"failures"` // connections that did not open, or ended without having been told to
	In       float64 `json:"messages_in"`
	Out      float64 `json:"messages_out"`
	BytesIn  float64 `json:"bytes_in"`
	BytesOut float64 `json:"bytes_out"`
}

// Rates are how much the run did a second since an earlier snapshot.
func (s *Snapshot) Rates(earlier *Snapshot) Rates {
	each := func(counters ...Counter) float64 { return s.Rate(earlier, counters...) }
	return Rates{
		Connects: each(Connected), Failures: each(OpenFailures...) + each(StayFailures...),
		In: each(MessagesIn...), Out: each(MessagesOut...), BytesIn: each(BytesIn), BytesOut: each(BytesOut),
	}
}

// Phase begins a phase.
func (r *Reading) Phase(name string) {
	r.Began = r.Now.At
	r.Now.Phase = name
	r.Now.Expected = 0
	r.Times = Histograms{}
}

// Snapshot reads a snapshot.
func (r *Reading) Snapshot(s *Snapshot) {
	cpu, busy := r.Now.CPU, r.Now.Busy
	r.Now = *s
	r.Now.Times = Histograms{}
	if !s.Full() {
		r.Now.CPU, r.Now.Busy = cpu, busy
	}
	r.Now.Errors, r.Now.Limited = slices.Clone(s.Errors), slices.Clone(s.Limited)
	r.Times.Merge(&s.Times)
	if s.At-r.before.At >= rateOver {
		r.Rates, r.Rated = s.Rates(&r.before), true
		r.before = r.Now
	}
}

// Running reports whether the run has begun.
func (r *Reading) Running() bool { return r.Now.Phase != "" || r.Now.At > 0 }

// Took is how long the phase has taken until now.
func (r *Reading) Took() time.Duration { return r.Now.At - r.Began }

// Progress is how much of the phase's time has passed, from 0 to 1. ok is false if
// nobody knows how long it takes.
func (r *Reading) Progress() (share float64, ok bool) {
	if r.Now.Expected <= 0 {
		return 0, false
	}
	return r.Took().Seconds() / (r.Took() + r.Now.Expected).Seconds(), true
}
