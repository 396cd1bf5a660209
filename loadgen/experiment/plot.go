package experiment

import (
	"fmt"
	"io"
	"math"

	"github.com/seed-134acfd0/lull/loadgen/internal/chart"
)

// WritePlot draws the costs by the number of connections, whose scale is logarithmic,
// as SVG. Without a result at two numbers it returns an error.
func (f *Flat) WritePlot(w io.Writer) error {
	micros := chart.Axis{Name: "µs", Format: number}
	panels := []chart.Panel{
		{Title: "Processor time of a handshake", Y: micros},
		{Title: "Processor time of a delivery in a broadcast to all", Y: micros},
		{Title: "Time until the last receiver of a broadcast, for each 1,000 receivers", Y: chart.Axis{Name: "ms", Format: number}},
	}
	x := chart.Axis{Name: "connections"}
	for _, p := range f.best() {
		x.Ticks = append(x.Ticks, chart.Tick{At: math.Log10(float64(p.Conns)), Label: short(float64(p.Conns))})
	}
	for _, large := range []bool{true, false} {
		points := f.table(large)
		if len(points) == 0 {
			continue
		}
		add := func(panel int, who string, of func(p FlatPoint, median FlatCost) float64) {
			l := chart.Line{Name: fmt.Sprintf("%s%s buckets", who, count(float64(points[0].Buckets))), Dots: true}
			for _, p := range points {
				l.Add(math.Log10(float64(p.Conns)), of(p, p.Median()))
			}
			panels[panel].Lines = append(panels[panel].Lines, l)
		}
		add(0, "server, ", func(_ FlatPoint, c FlatCost) float64 { return c.HandshakeServer })
		add(0, "generator, ", func(_ FlatPoint, c FlatCost) float64 { return c.HandshakeGenerator })
		add(1, "server, ", func(_ FlatPoint, c FlatCost) float64 { return c.DeliveryServer })
		add(1, "generator, ", func(_ FlatPoint, c FlatCost) float64 { return c.DeliveryGenerator })
		add(2, "", func(p FlatPoint, c FlatCost) float64 { return c.Last / float64(p.Conns) * 1000 })
	}
	return chart.WritePanels(w, x, panels...)
}

// short is a number of connections, such as "10 k" or "2.5 M".
func short(n float64) string {
	switch {
	case n >= 1e6:
		return number(n/1e6) + " M"
	case n >= 1e3:
		return number(n/1e3) + " k"
	}
	return number(n)
}
