package result

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"github.com/seed-134acfd0/lull/loadgen/internal/chart"
	"github.com/seed-134acfd0/lull/loadgen/measure"
)

//go:embed compare.html.tmpl
var compareTemplate string

var comparePage = template.Must(template.New("compare.html").Funcs(pageFunctions).Parse(compareTemplate))

// WriteHTML writes the comparison as one page with plots, which needs no other file and no
// scripts. Of the time series, the first of each side is drawn.
func (c *Comparison) WriteHTML(w io.Writer) error {
	plots, err := c.plots()
	if err == nil {
		err = comparePage.Execute(w, struct {
			*Comparison
			Plots []plot
		}{c, plots})
	}
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	return nil
}

// plots lay B, in dashes, over A.
func (c *Comparison) plots() (all []plot, err error) {
	add := func(title, note string, x, y chart.Axis, lines ...chart.Line) {
		picture, e := chart.Draw(x, y, chart.Axis{}, lines...)
		if e != nil {
			err = e
		}
		all = append(all, plot{title, note, picture})
	}
	a, b := c.A.Results[0], c.B.Results[0]
	curves := overlaid(c.A.distributions(), c.B.distributions())
	add("Distributions", "How many of all took at most how long. Both scales are logarithmic.", shares(curves),
		chart.Axis{Name: "time", Ticks: chart.Powers(chart.Millis, curves...)}, curves...)
	times := overlaid(a.timesOverTime(), b.timesOverTime())
	add("Times", "The scale is logarithmic, and what was not measured is a gap.", overTime,
		chart.Axis{Name: "time", Ticks: chart.Powers(chart.Millis, times...)}, times...)
	open := func(r *Result) []chart.Line {
		return []chart.Line{r.series("open", func(p *Point) float64 { return float64(p.Open) })}
	}
	add("Connections", "", overTime, openUsers, overlaid(open(a), open(b))...)
	received := func(r *Result) []chart.Line {
		return []chart.Line{r.rates("messages received", func(p *Point) int { return p.In })}
	}
	add("Messages", "", overTime, aSecond, overlaid(received(a), received(b))...)
	return all, err
}

// overlaid are the curves of both sides, each of B behind that of A with the same name.
// Those that are empty on both sides are left out.
func overlaid(a, b []chart.Line) (all []chart.Line) {
	for i := range a {
		one, other := a[i], b[i]
		if len(one.X)+len(other.X) == 0 {
			continue
		}
		one.Name, other.Name, other.Dashed = one.Name+" A", other.Name+" B", true
		all = append(all, one, other)
	}
	return all
}

// distributions are curves of all results together, one for each kind of times; empty of
// those that were not measured.
func (s Side) distributions() (lines []chart.Line) {
	var sum measure.Histograms
	for _, r := range s.Results {
		sum.Merge(&r.Histograms)
	}
	for k := range measure.Kinds {
		lines = append(lines, distribution(k.String(), sum.Of(k)))
	}
	return lines
}
