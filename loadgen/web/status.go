package web

import (
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// status is what is known of the run now. docs/load.md describes it.
type status struct {
	Title   string    `json:"title"`
	Begun   time.Time `json:"begun"`
	Seconds float64   `json:"seconds"` // since the run began
	Ended   bool      `json:"ended"`
	Paused  bool      `json:"paused"`

	Phase        string   `json:"phase"`
	PhaseIndex   int      `json:"phase_index"` // from 0
	PhaseCount   int      `json:"phase_count"`
	PhaseSeconds float64  `json:"phase_seconds"` // since the phase began
	ToGo         *float64 `json:"seconds_to_go"` // until the phase ends; null if that is not known

	Users   int `json:"users"`
	Open    int `json:"open"`
	Opening int `json:"opening"`
	Failed  int `json:"failed"`

	Rates      *measure.Rates            `json:"rates"`       // null in the first second
	Counts     map[string]int            `json:"counts"`      // since the run began
	PhaseTimes map[string]result.Latency `json:"phase_times"` // since the phase began
	Times      map[string]result.Latency `json:"times"`       // since the run began
	CPU        float64                   `json:"cpu"`         // the generator's part of all processors, 0 to 1
	Busy       float64                   `json:"busy"`        // all programs' part

	Limited []string        `json:"limited"`
	Errors  []measure.Found `json:"errors"`
}

// status is called with p locked.
func (p *Page) status() status {
	if p.summed == nil {
		p.summed = &sums{phase: latencies(&p.run.Times), run: latencies(&p.times)}
	}
	now := &p.run.Now
	s := status{
		Title: p.options.Title, Begun: p.begun, Seconds: now.At.Seconds(), Ended: p.hasEnded(), Paused: now.Paused,
		Phase: now.Phase, PhaseIndex: now.PhaseIndex, PhaseCount: now.PhaseCount, PhaseSeconds: p.run.Took().Seconds(),
		Users: now.Users, Open: now.Open, Opening: now.Opening, Failed: now.Failed(),
		Counts: now.Counts.Map(), PhaseTimes: p.summed.phase, Times: p.summed.run, CPU: now.CPU, Busy: now.Busy,
		Limited: append([]string{}, now.Limited...), Errors: append([]measure.Found{}, now.Errors...),
	}
	if now.Expected > 0 {
		s.ToGo = new(now.Expected.Seconds())
	}
	if p.run.Rated {
		s.Rates = new(p.run.Rates)
	}
	return s
}

// sums are quantiles, which take longer to find than all the rest. They are made once for
// all viewers, and do not change.
type sums struct{ phase, run map[string]result.Latency }

// latencies are those kinds of which something was measured.
func latencies(all *measure.Histograms) map[string]result.Latency {
	m := map[string]result.Latency{}
	for k, h := range all {
		if h != nil {
			m[measure.Kind(k).String()] = result.LatencyOf(h)
		}
	}
	return m
}
