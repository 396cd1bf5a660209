package experiment

import (
	"bytes"
	"fmt"
	"html/template"

	"github.com/dustin/go-humanize"
	"github.com/wcharczuk/go-chart/v2"
	"github.com/wcharczuk/go-chart/v2/drawing"
)

// The charts' size in pixels, and their colours, which also those tell apart
// who see no red.
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
	second bool // on the axis at the left, with a scale of its own
}

// axis is what a scale shows.
type axis struct {
	name   string
	format func(float64) string
}

// draw draws curves as SVG.
func draw(x, y, second axis, lines ...line) (template.HTML, error) {
	c := chart.Chart{
		Width: chartWidth, Height: chartHeight,
		Background:     chart.Style{Padding: chart.Box{Top: 40, Left: 10, Right: 10, Bottom: 10}},
		XAxis:          chart.XAxis{Name: x.name, ValueFormatter: formatter(x)},
		YAxis:          chart.YAxis{Name: y.name, ValueFormatter: formatter(y)},
		YAxisSecondary: chart.YAxis{Name: second.name, ValueFormatter: formatter(second)},
	}
	for i, l := range lines {
		s := chart.ContinuousSeries{
			Name: l.name, XValues: l.x, YValues: l.y,
			Style: chart.Style{StrokeColor: palette[i%len(palette)], StrokeWidth: 2},
		}
		if l.second {
			s.YAxis = chart.YAxisSecondary
		}
		c.Series = append(c.Series, s)
	}
	c.Elements = []chart.Renderable{chart.LegendThin(&c)}
	var svg bytes.Buffer
	if err := c.Render(chart.SVG, &svg); err != nil {
		return "", fmt.Errorf("experiment: draw %s: %w", y.name, err)
	}
	return template.HTML(svg.String()), nil // drawn from numbers
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

func seconds(v float64) string { return fmt.Sprintf("%.0f s", v) }
func count(v float64) string   { return humanize.Comma(int64(v)) }
func size(v float64) string    { return humanize.IBytes(uint64(max(0, v))) }
func percent(v float64) string { return fmt.Sprintf("%.0f %%", v) }
func millis(v float64) string  { return humanize.CommafWithDigits(v, 1) + " ms" }

// drawConnections shows the connections and how fast they came.
func (r *Report) drawConnections() (template.HTML, error) {
	open, rate := line{name: "connections"}, line{name: "accepted a second", second: true}
	for i, s := range r.Samples {
		open.x, open.y = append(open.x, s.Seconds), append(open.y, float64(s.Open))
		// Over a second's span the rate is steady enough to be read.
		first := max(0, i-10)
		span := s.Seconds - r.Samples[first].Seconds
		gain := 0.0
		if span > 0 {
			gain = max(0, float64(s.Open-r.Samples[first].Open)/span)
		}
		rate.x, rate.y = append(rate.x, s.Seconds), append(rate.y, gain)
	}
	return draw(axis{"time", seconds}, axis{"connections", count}, axis{"a second", count}, open, rate)
}

// drawMemory shows both processes' memory, and the kernel's.
func (r *Report) drawMemory() (template.HTML, error) {
	server, generator, slab := line{name: "server"}, line{name: "generator"}, line{name: "kernel (right scale)", second: true}
	for _, s := range r.Samples {
		for l, bytes := range map[*line]int64{&server: s.Server, &generator: s.Generator, &slab: s.Slab} {
			l.x, l.y = append(l.x, s.Seconds), append(l.y, float64(bytes))
		}
	}
	return draw(axis{"time", seconds}, axis{"resident", size}, axis{"kernel objects", size}, server, generator, slab)
}

// drawLatency shows, for each broadcast, which share of the receivers had it
// by when.
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
