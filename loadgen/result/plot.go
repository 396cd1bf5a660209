package result

import (
	"html/template"
	"math"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/seed-134acfd0/lull/loadgen/internal/chart"
	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// plot is a chart with a title and a sentence about it.
type plot struct {
	Title, Note string
	Picture     template.HTML
}

// series is a curve of the time series.
func (r *Result) series(name string, of func(*Point) float64) chart.Line {
	l := chart.Line{Name: name}
	for i := range r.Timeline {
		l.Add(r.Timeline[i].Seconds, of(&r.Timeline[i]))
	}
	return l
}

// rates is a curve of what came a second.
func (r *Result) rates(name string, of func(*Point) int) chart.Line {
	l, before := chart.Line{Name: name}, 0.0
	for i := range r.Timeline {
		p := &r.Timeline[i]
		l.Add(p.Seconds, float64(of(p))/max(p.Seconds-before, 1e-3))
		before = p.Seconds
	}
	return l
}

// logarithm is that of a time that may not have been measured: then the curve has a gap.
func logarithm(ms *float64) float64 {
	if ms == nil {
		return math.NaN()
	}
	return math.Log10(max(*ms, 1e-3))
}

// The axes of most charts.
var (
	overTime  = chart.Axis{Name: "time", Format: chart.Seconds}
	aSecond   = chart.Axis{Name: "a second", Format: chart.Count}
	openUsers = chart.Axis{Name: "connections", Format: chart.Count}
)

// plots are the charts of r's page.
func (r *Result) plots() (all []plot, err error) {
	add := func(title, note string, x, y, second chart.Axis, lines ...chart.Line) {
		picture, e := chart.Draw(x, y, second, lines...)
		if e != nil {
			err = e
		}
		all = append(all, plot{title, note, picture})
	}
	connects := r.rates("connected a second (left)", func(p *Point) int { return p.Connects })
	connects.Second = true
	add("Connections", "", overTime, openUsers, aSecond,
		r.series("open (right)", func(p *Point) float64 { return float64(p.Open) }), connects)
	add("Messages", "Errors are connections that did not open, or ended without having been told to.", overTime, aSecond, chart.Axis{},
		r.rates("received", func(p *Point) int { return p.In }), r.rates("sent", func(p *Point) int { return p.Out }),
		r.rates("errors", func(p *Point) int { return p.Errors }))
	times := r.timesOverTime()
	add("Times", "Timed from when each was meant to begin. The scale is logarithmic, and what was not measured is a gap.", overTime,
		chart.Axis{Name: "time", Ticks: chart.Powers(chart.Millis, times...)}, chart.Axis{}, times...)
	curves := r.distributions()
	add("Distributions", "How many of all took at most how long. Both scales are logarithmic.", shares(curves),
		chart.Axis{Name: "time", Ticks: chart.Powers(chart.Millis, curves...)}, chart.Axis{}, curves...)
	lag := r.series("lag p99 (left)", func(p *Point) float64 {
		if p.LagP99 == nil {
			return math.NaN()
		}
		return *p.LagP99
	})
	lag.Second = true
	add("The generator", "Its part of this machine's processors, that of all processes, and how long what had come waited for it.", overTime,
		chart.Axis{Name: "of all processors", Format: chart.Percent}, chart.Axis{Name: "lag", Format: chart.Millis},
		r.series("generator (right)", func(p *Point) float64 { return 100 * p.CPU }), r.series("all (right)", func(p *Point) float64 { return 100 * p.Busy }), lag)
	return all, err
}

// timesOverTime are the logarithms of the quantiles of the time series, as far as there
// are any.
func (r *Result) timesOverTime() (lines []chart.Line) {
	for _, q := range []struct {
		name string
		of   func(*Point) *float64
	}{
		{"handshake p50", func(p *Point) *float64 { return p.HandshakeP50 }},
		{"handshake p99", func(p *Point) *float64 { return p.HandshakeP99 }},
		{"answer p50", func(p *Point) *float64 { return p.AnswerP50 }},
		{"answer p99", func(p *Point) *float64 { return p.AnswerP99 }},
	} {
		lines = append(lines, r.series(q.name, func(p *Point) float64 { return logarithm(q.of(p)) }))
	}
	return lines
}

// distributions are curves of each kind of times that was measured.
func (r *Result) distributions() (lines []chart.Line) {
	for k, h := range r.Histograms {
		if h != nil && h.TotalCount() > 0 {
			lines = append(lines, distribution(measure.Kind(k).String(), h))
		}
	}
	return lines
}

// ninesMax is where distributions end: at 99.999 %.
const ninesMax = 5

// distribution is the logarithm of each quantile q over that of 1/(1-q), so that each nine
// takes the same room. It ends where there are no more values.
func distribution(name string, h *hdr.Histogram) chart.Line {
	const step = 0.02
	l := chart.Line{Name: name}
	if h.TotalCount() == 0 {
		return l
	}
	end := min(ninesMax, math.Log10(float64(h.TotalCount())))
	for x := 0.0; x <= end; x += step {
		ms := milliseconds(h.ValueAtQuantile(100 * (1 - math.Pow(10, -x))))
		l.Add(x, logarithm(&ms))
	}
	return l
}

// shares is the axis of distributions.
func shares(curves []chart.Line) chart.Axis {
	a := chart.Axis{Name: "quantile", Ticks: []chart.Tick{{At: 0}}}
	end := 1.0
	for _, l := range curves {
		if len(l.X) > 0 {
			end = max(end, l.X[len(l.X)-1])
		}
	}
	for _, t := range []chart.Tick{{At: math.Log10(2), Label: "p50"}, {At: 1, Label: "p90"}, {At: 2, Label: "p99"}, {At: 3, Label: "p99.9"}, {At: 4, Label: "p99.99"}, {At: 5, Label: "p99.999"}} {
		if t.At < end+1 {
			a.Ticks = append(a.Ticks, t)
		}
	}
	return a
}
