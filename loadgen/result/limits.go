package result

import (
	"fmt"
	"slices"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// The generator counts as the bottleneck above these shares.
const (
	limitedCPU  = 0.9  // its part of all processors' time in a phase
	limitedBusy = 0.97 // all processes' part of it
	limitedLag  = 0.5  // its part of the messages' p99
	// limitedAfter is the shortest phase for which limitedCPU and limitedBusy are applied.
	limitedAfter = 500 * time.Millisecond
)

// limits are the sentences that say where the generator was the bottleneck, each once.
type limits []string

func (l *limits) add(sentences ...string) {
	for _, s := range sentences {
		if !slices.Contains(*l, s) {
			*l = append(*l, s)
		}
	}
}

// processors adds a phase in which the generator, or the whole machine, had no processor
// time left. That a machine is busy matters where something is timed.
func (l *limits) processors(p *Phase, cpu, busy float64) {
	timed := len(p.Times)
	if _, lag := p.Times[measure.Lag.String()]; lag {
		timed--
	}
	switch {
	case p.Seconds < limitedAfter.Seconds():
	case cpu > limitedCPU:
		l.add(fmt.Sprintf("%s: the generator used %.0f %% of all processors", p.Name, 100*cpu))
	case busy > limitedBusy && timed > 0:
		l.add(fmt.Sprintf("%s: this machine's processors were %.0f %% busy, %.0f %% with the generator, which had to wait for them", p.Name, 100*busy, 100*cpu))
	}
}

// lag adds messages that waited in the generator for most of their time.
func (l *limits) lag(what string, latency, lag Latency) {
	if latency.Count > 0 && lag.P99 > limitedLag*latency.P99 {
		l.add(fmt.Sprintf("%s: the p99 is %.2f ms, and the p99 of the wait in the generator %.2f ms", what, latency.P99, lag.P99))
	}
}
