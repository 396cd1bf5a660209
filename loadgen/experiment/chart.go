package experiment

import (
	"fmt"
	"html/template"

	"github.com/seed-134acfd0/lull/loadgen/internal/chart"
)

// drawConnections shows the open connections and how many were accepted a second.
func (r *Report) drawConnections() (template.HTML, error) {
	open, rate := chart.Line{Name: "connections (right)"}, chart.Line{Name: "accepted a second (left)", Second: true}
	// The rate is the mean over a fiftieth of the run, so that the curve is smooth.
	span := max(3, len(r.Samples)/50)
	for i, s := range r.Samples {
		open.Add(s.Seconds, float64(s.Open))
		first := max(0, i-span)
		gain := 0.0
		if took := s.Seconds - r.Samples[first].Seconds; took > 0 {
			gain = max(0, float64(s.Open-r.Samples[first].Open)/took)
		}
		rate.Add(s.Seconds, gain)
	}
	return chart.Draw(chart.Axis{Name: "time", Format: chart.Seconds}, chart.Axis{Name: "connections", Format: chart.Count}, chart.Axis{Name: "a second", Format: chart.Count}, open, rate)
}

// drawMemory shows the memory of both processes, and the growth of the kernel's.
func (r *Report) drawMemory() (template.HTML, error) {
	server, generator := chart.Line{Name: "server (right)"}, chart.Line{Name: "generator (right)"}
	kernel := chart.Line{Name: "kernel, both ends (left)", Second: true}
	add := func(l *chart.Line, s Sample, bytes int64) {
		l.Add(s.Seconds, float64(max(0, bytes)))
	}
	for _, s := range r.Samples {
		add(&server, s, s.Server)
		add(&generator, s, s.Generator)
		add(&kernel, s, s.kernel()-r.Samples[0].kernel())
	}
	return chart.Draw(chart.Axis{Name: "time", Format: chart.Seconds}, chart.Axis{Name: "resident", Format: chart.Size}, chart.Axis{Name: "grown by", Format: chart.Size}, server, generator, kernel)
}

// drawLatency shows, for each broadcast, which share of the receivers had received
// it after how long.
func (r *Report) drawLatency() (template.HTML, error) {
	var lines []chart.Line
	for i, b := range r.Load.Broadcasts {
		l := chart.Line{Name: fmt.Sprintf("broadcast %d", i+1), X: []float64{0}, Y: []float64{0}}
		n := int64(0)
		for _, bar := range b.Histogram {
			n += bar.Count
			l.Add(bar.UpTo, 100*float64(n)/float64(max(1, b.Expected)))
		}
		lines = append(lines, l)
	}
	return chart.Draw(chart.Axis{Name: "time since it was meant to be sent", Format: chart.Millis}, chart.Axis{Name: "receivers", Format: chart.Percent}, chart.Axis{}, lines...)
}

func count(v float64) string { return chart.Count(v) }

func size(v float64) string { return chart.Size(v) }
