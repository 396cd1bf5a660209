// Package chart draws curves as SVG, for the reports of loads and experiments. Colours
// come from a style sheet, so that a page can be dark or light.
package chart

import (
	"bytes"
	"fmt"
	"html/template"
	"math"

	"github.com/dustin/go-humanize"
	gochart "github.com/wcharczuk/go-chart/v2"

	_ "embed"
)

// Style is a style sheet for pages with charts: for both colour schemes and any width.
//
//go:embed style.css
var Style template.CSS

// shape is a chart's size in pixels. A page shows one of them, as its width allows.
type shape struct {
	class         string
	width, height int
	axisSize      float64 // of the font, in points
	ticks         int     // about how many marks there is room for below it
}

var shapes = []shape{{"wide", 900, 320, 10, 9}, {"narrow", 400, 280, 9, 4}}

// colours is how many colours the style sheet has.
const colours = 6

// Line is a named curve.
type Line struct {
	Name   string
	X, Y   []float64
	Second bool // belongs to the axis at the left, which has its own scale
	Dashed bool // is drawn with dashes, in the colour of the line before
	Dots   bool // has a dot at each point
}

// Add adds a point. Without one, of which y is NaN, the curve has a gap.
func (l *Line) Add(x, y float64) { l.X, l.Y = append(l.X, x), append(l.Y, y) }

// Axis is an axis's name and the format of its numbers. Its scale begins at zero unless
// it has ticks, from the first to the last of which it then extends.
type Axis struct {
	Name   string
	Format func(float64) string
	Ticks  []Tick
}

// Tick is a mark on an axis.
type Tick struct {
	At    float64
	Label string
}

// Draw draws curves below a legend. A second axis without a name is none.
func Draw(x, y, second Axis, lines ...Line) (template.HTML, error) {
	var html bytes.Buffer
	html.WriteString(`<figure class="chart">` + "\n" + `<figcaption>`)
	for i, l := range lines {
		fmt.Fprintf(&html, `<span><i class="%s"></i>%s</span> `, class(lines, i), template.HTMLEscapeString(l.Name))
	}
	html.WriteString("</figcaption>\n")
	if !drawable(lines) {
		html.WriteString("<p>There is nothing to draw.</p>\n</figure>\n")
		return template.HTML(html.String()), nil
	}
	for _, s := range shapes {
		fmt.Fprintf(&html, `<div class="%s">`, s.class)
		if err := s.draw(x, y, second, lines).Render(gochart.SVG, &html); err != nil {
			return "", fmt.Errorf("chart: draw %s: %w", y.Name, err)
		}
		html.WriteString("</div>\n")
	}
	html.WriteString("</figure>\n")
	return template.HTML(html.String()), nil // safe: names are escaped, and axes have only our own words and numbers
}

// class is the class of a line in the style sheet.
func class(lines []Line, i int) string {
	colour := -1
	for _, l := range lines[:i+1] {
		if !l.Dashed {
			colour++
		}
	}
	c := fmt.Sprintf("c%d", max(0, colour)%colours)
	if lines[i].Dashed {
		c += " dashed"
	}
	return c
}

func (s shape) draw(x, y, second Axis, lines []Line) gochart.Chart {
	style := gochart.Style{ClassName: "axis", FontSize: s.axisSize}
	grid := gochart.Style{ClassName: "grid", StrokeWidth: 1}
	vertical := func(a Axis, second bool) gochart.YAxis {
		return gochart.YAxis{
			Name: a.Name, Style: style, NameStyle: style, Range: scaleOf(a, top(lines, second), verticalTicks),
			GridMajorStyle: grid, GridMinorStyle: grid,
		}
	}
	c := gochart.Chart{
		Width: s.width, Height: s.height,
		Background: gochart.Style{ClassName: "paper", Padding: gochart.Box{Top: 10, Left: 30, Right: 30, Bottom: 10}},
		Canvas:     gochart.Style{ClassName: "paper"},
		XAxis: gochart.XAxis{
			Name: x.Name, Style: style, NameStyle: style, Range: scaleOf(x, right(lines), s.ticks),
			GridMajorStyle: gochart.Hidden(), GridMinorStyle: gochart.Hidden(),
		},
		YAxis:          vertical(y, false),
		YAxisSecondary: gochart.HideYAxis(),
	}
	if second.Name != "" {
		c.YAxisSecondary = vertical(second, true)
		c.YAxisSecondary.GridMajorStyle, c.YAxisSecondary.GridMinorStyle = gochart.Hidden(), gochart.Hidden()
	}
	for i, l := range lines {
		for _, part := range l.parts() {
			// The class has the colour; that there is a width makes it drawn.
			part.Style = gochart.Style{ClassName: class(lines, i), StrokeWidth: 2}
			switch {
			case l.Dots:
				part.Style.DotWidth = 3
			case len(part.XValues) == 1: // otherwise it could not be seen
				part.Style.DotWidth = 2
			}
			if l.Second {
				part.YAxis = gochart.YAxisSecondary
			}
			c.Series = append(c.Series, part)
		}
	}
	return c
}

// scale is a range with marks.
type scale struct {
	*gochart.ContinuousRange
	ticks []gochart.Tick
}

// GetTicks is asked for the marks.
func (s scale) GetTicks(gochart.Renderer, gochart.Style, gochart.ValueFormatter) []gochart.Tick {
	return s.ticks
}

// scaleOf is an axis's scale: between its ticks, or from zero to at least end, with about
// so many marks at round numbers.
func scaleOf(a Axis, end float64, marks int) scale {
	if n := len(a.Ticks); n > 1 {
		s := scale{ContinuousRange: &gochart.ContinuousRange{Min: a.Ticks[0].At, Max: a.Ticks[n-1].At}}
		for _, t := range a.Ticks {
			s.ticks = append(s.ticks, gochart.Tick{Value: t.At, Label: t.Label})
		}
		return s
	}
	s := scale{ContinuousRange: &gochart.ContinuousRange{Max: end}}
	step := round(end / float64(marks))
	for i := 0.0; i*step <= end*(1+1e-9); i++ {
		s.ticks = append(s.ticks, gochart.Tick{Value: i * step, Label: a.format(i * step)})
	}
	return s
}

// verticalTicks divides each end that top returns into round numbers.
const verticalTicks = 5

// parts are the stretches of l between its gaps.
func (l Line) parts() (all []gochart.ContinuousSeries) {
	for i, n := range l.Y {
		switch {
		case math.IsNaN(n):
			continue
		case i == 0 || math.IsNaN(l.Y[i-1]):
			all = append(all, gochart.ContinuousSeries{})
		}
		last := &all[len(all)-1]
		last.XValues, last.YValues = append(last.XValues, l.X[i]), append(last.YValues, n)
	}
	return all
}

// top is the end of a scale: the next round number that is not below the highest
// value.
func top(lines []Line, second bool) float64 {
	highest := 0.0
	for _, l := range lines {
		for _, y := range l.Y {
			if l.Second == second && y > highest {
				highest = y
			}
		}
	}
	if highest <= 0 {
		return 1
	}
	return round(highest)
}

// round is the next round number that is not below v, which is above zero.
func round(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, round := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8} {
		if round*power*(1+1e-9) >= v { // as far as floating point tells
			return round * power
		}
	}
	return 10 * power
}

// right is the greatest x.
func right(lines []Line) (end float64) {
	for _, l := range lines {
		for _, x := range l.X {
			end = max(end, x)
		}
	}
	return end
}

// drawable reports whether the curves span any of the x axis.
func drawable(lines []Line) bool {
	from, to := math.Inf(1), 0.0
	for _, l := range lines {
		for i, x := range l.X {
			if !math.IsNaN(l.Y[i]) {
				from, to = min(from, x), max(to, x)
			}
		}
	}
	return from < to
}

func (a Axis) format(v float64) string {
	if a.Format == nil {
		return humanize.Ftoa(v)
	}
	return a.Format(v)
}

// Powers are ticks at the powers of ten that enclose all values of the curves, which have
// the logarithm of what they show.
func Powers(label func(float64) string, lines ...Line) (all []Tick) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, y := range l.Y {
			if !math.IsNaN(y) {
				low, high = min(low, math.Floor(y)), max(high, math.Ceil(y))
			}
		}
	}
	if low > high {
		return nil
	}
	for at := low; at <= max(high, low+1); at++ {
		all = append(all, Tick{at, label(math.Pow(10, at))})
	}
	return all
}

// The formats of numbers.
func Seconds(v float64) string { return humanize.FtoaWithDigits(v, 1) + " s" }
func Count(v float64) string   { return humanize.Comma(int64(v)) }
func Size(v float64) string    { return humanize.IBytes(uint64(max(0, v))) }
func Percent(v float64) string { return fmt.Sprintf("%.0f %%", v) }
func Millis(v float64) string  { return humanize.Commaf(math.Round(v*1000)/1000) + " ms" }
