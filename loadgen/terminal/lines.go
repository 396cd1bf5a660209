package terminal

import (
	"log/slog"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// lineEvery is the time between two lines of a phase, as the run counts it.
const lineEvery = 5 * time.Second

// Lines says how a run gets on in lines of a log: one when a phase begins, one every
// five seconds, and one at the end.
type Lines struct {
	log  *slog.Logger
	view view
	said time.Duration // when the last line was written
}

// NewLines returns Lines that writes to log.
func NewLines(log *slog.Logger) *Lines { return &Lines{log: log} }

// Phase implements measure.Sink.
func (l *Lines) Phase(name string) {
	l.end()
	l.view.Phase(name)
	l.log.Info("phase", "name", name)
}

// Snapshot implements measure.Sink.
func (l *Lines) Snapshot(s *measure.Snapshot) {
	l.view.Snapshot(s)
	if s.At-l.said >= lineEvery {
		l.line()
	}
}

// Close writes a last line.
func (l *Lines) Close() { l.end() }

// end says how the phase has ended, unless that has been said.
func (l *Lines) end() {
	if l.view.Now.At > l.said {
		l.line()
	}
}

func (l *Lines) line() {
	v := &l.view
	l.said = v.Now.At
	attributes := []any{
		"phase", v.Now.Phase, "seconds", v.Took().Seconds(),
		"users", v.Now.Users, "open", v.Now.Open, "opening", v.Now.Opening, "failed", v.Now.Failed(),
		"sent", v.Now.Counts.Sum(measure.MessagesOut...), "received", v.Now.Counts.Sum(measure.MessagesIn...),
		"cpu", v.Now.CPU,
	}
	if v.Now.Expected > 0 {
		attributes = append(attributes, "seconds_to_go", v.Now.Expected.Seconds())
	}
	if v.Now.Paused {
		attributes = append(attributes, "paused", true)
	}
	for k := range measure.Kinds {
		if h := v.Times[k]; h != nil {
			attributes = append(attributes, slog.Group(k.String(), "p50_ms", milliseconds(quantile(h, 50)), "p99_ms", milliseconds(quantile(h, 99))))
		}
	}
	l.log.Info("progress", attributes...)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
