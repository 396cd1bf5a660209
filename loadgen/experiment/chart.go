package experiment

import (
	"bytes"
	"fmt"
	"html/template"
	"math"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/wcharczuk/go-chart/v2"
	"github.com/wcharczuk/go-chart/v2/drawing"
)

// The charts' size in pixels. The colours can be told apart by people who are
// colour-blind.
const (
	chartWidth  = 900
	chartHeight = 320
)

var palette = []drawing.Color{
	drawing.ColorFromHex("0072b2"), drawing.ColorFromHex("e69f00"), drawing.ColorFromHex("009e73"),
	drawing.ColorFromHex("cc79a7"), drawing.ColorFromHex("56b4e9"), drawing.ColorFromHex("d55e00"),
}

// line is a named curve.
type line struct {
	name   string
	x, y   []float64
	second bool // belongs to the axis at the left, which has its own scale
}

// axis is an axis's name and the format of its numbers.
type axis struct {
	name   string
	format func(float64) string
}

// top is the end of a scale: the next round number that is not below the highest
// value.
func top(lines []line, second bool) float64 {
	highest := 0.0
	for _, l := range lines {
		if l.second == second && len(l.y) > 0 {
			highest = max(highest, slices.Max(l.y))
		}
	}
	if highest <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(highest)))
	for _, round := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8} {
		if round*power >= highest {
			return round * power
		}
	}
	return 10 * power
}

// draw draws curves as SVG below a legend. Both scales begin at zero.
func draw(x, y, second axis, lines ...line) (template.HTML, error) {
	scale := func(a axis, second bool) chart.YAxis {
		return chart.YAxis{
			Name: a.name, ValueFormatter: formatter(a),
			Range: &chart.ContinuousRange{Min: 0, Max: top(lines, second)},
		}
	}
	c := chart.Chart{
		Width: chartWidth, Height: chartHeight,
		Background:     chart.Style{Padding: chart.Box{Top: 10, Left: 30, Right: 30, Bottom: 10}},
		XAxis:          chart.XAxis{Name: x.name, ValueFormatter: formatter(x)},
		YAxis:          scale(y, false),
		YAxisSecondary: chart.HideYAxis(),
	}
	if second.name != "" {
		c.YAxisSecondary = scale(second, true)
	}
	var html bytes.Buffer
	html.WriteString(`<p class="legend">`)
	for i, l := range lines {
		colour := palette[i%len(palette)]
		s := chart.ContinuousSeries{
			Name: l.name, XValues: l.x, YValues: l.y,
			Style: chart.Style{StrokeColor: colour, StrokeWidth: 2},
		}
		if l.second {
			s.YAxis = chart.YAxisSecondary
		}
		c.Series = append(c.Series, s)
		fmt.Fprintf(&html, `<span><i style="background: %s"></i>%s</span> `, colour, template.HTMLEscapeString(l.name))
	}
	html.WriteString("</p>\n")
	if !drawable(lines) {
		html.WriteString("<p>There is nothing to draw.</p>\n")
		return template.HTML(html.String()), nil
	}
	if err := c.Render(chart.SVG, &html); err != nil {
		return "", fmt.Errorf("experiment: draw %s: %w", y.name, err)
	}
	return template.HTML(html.String()), nil // safe: it contains only our own names and numbers
}

// drawable reports whether the curves span any of the x axis.
func drawable(lines []line) bool {
	from, to := math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, x := range l.x {
			from, to = min(from, x), max(to, x)
		}
	}
	return from < to
}

func formatter(a axis) chart.ValueFormatter {
	return func(v any) string {
		n, _ := v.(float64)
		if a.format == nil {
			return humanize.Ftoa(n)
		}
		return a.format(n)
	}
}

func seconds(v float64) string { return humanize.FtoaWithDigits(v, 1) + " s" }
func count(v float64) string   { return humanize.Comma(int64(v)) }
func size(v float64) string    { return humanize.IBytes(uint64(max(0, v))) }
func percent(v float64) string { return fmt.Sprintf("%.0f %%", v) }
func millis(v float64) string  { return humanize.CommafWithDigits(v, 0) + " ms" }

// drawConnections shows the open connections and how many were accepted a second.
func (r *Report) drawConnections() (template.HTML, error) {
	open, rate := line{name: "connections (right)"}, line{name: "accepted a second (left)", second: true}
	// The rate is the mean over a fiftieth of the run, so that the curve is smooth.
	span := max(3, len(r.Samples)/50)
	for i, s := range r.Samples {
		open.x, open.y = append(open.x, s.Seconds), append(open.y, float64(s.Open))
		first := max(0, i-span)
		gain := 0.0
		if took := s.Seconds - r.Samples[first].Seconds; took > 0 {
			gain = max(0, float64(s.Open-r.Samples[first].Open)/took)
		}
		rate.x, rate.y = append(rate.x, s.Seconds), append(rate.y, gain)
	}
	return draw(axis{"time", seconds}, axis{"connections", count}, axis{"a second", count}, open, rate)
}

// drawMemory shows the memory of both processes, and the growth of the kernel's.
func (r *Report) drawMemory() (template.HTML, error) {
	server, generator := line{name: "server (right)"}, line{name: "generator (right)"}
	kernel := line{name: "kernel, both ends (left)", second: true}
	add := func(l *line, s Sample, bytes int64) {
		l.x, l.y = append(l.x, s.Seconds), append(l.y, float64(max(0, bytes)))
	}
	for _, s := range r.Samples {
		add(&server, s, s.Server)
		add(&generator, s, s.Generator)
		add(&kernel, s, s.Slab-r.Samples[0].Slab)
	}
	return draw(axis{"time", seconds}, axis{"resident", size}, axis{"grown by", size}, server, generator, kernel)
}

// drawLatency shows, for each broadcast, which share of the receivers had received
// it after how long.
func (r *Report) drawLatency() (template.HTML, error) {
	var lines []line
	for i, b := range r.Load.Broadcasts {
		l := line{name: fmt.Sprintf("broadcast %d", i+1), x: []float64{0}, y: []float64{0}}
		n := int64(0)
		for _, bar := range b.Histogram {
			n += bar.Count
			l.x = append(l.x, bar.UpTo)
			l.y = append(l.y, 100*float64(n)/float64(max(1, b.Expected)))
		}
		lines = append(lines, l)
	}
	return draw(axis{"time since it was meant to be sent", millis}, axis{"receivers", percent}, axis{}, lines...)
}
