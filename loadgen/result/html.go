package result

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strconv"

	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/loadgen/internal/chart"
	"github.com/seed-134acfd0/lull/loadgen/measure"
)

//go:embed result.html.tmpl
var resultTemplate string

var pageFunctions = template.FuncMap{
	"style": func() template.CSS { return chart.Style },
	"comma": func(n int) string { return humanize.Comma(int64(n)) },
	"f0":    func(v float64) string { return humanize.FormatFloat("#,###.", v) },
	"f2":    func(v float64) string { return humanize.FormatFloat("#,###.##", v) },
	"ms": func(l Latency, of string) string {
		if l.Count == 0 {
			return "–"
		}
		v := map[string]float64{"p50": l.P50, "p99": l.P99, "last": l.Last}[of]
		return strconv.FormatFloat(v, 'f', 2, 64) + " ms"
	},
}

var resultPage = template.Must(template.New("result.html").Funcs(pageFunctions).Parse(resultTemplate))

// counted is a counter that is not zero, and what it means.
type counted struct {
	Name, Meaning string
	Count         int
}

// WriteHTML writes r as one page with plots, which needs no other file and no scripts.
func (r *Result) WriteHTML(w io.Writer) error {
	plots, err := r.plots()
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	data := struct {
		*Result
		Plots   []plot
		Times   []timed
		Counted []counted
		Mistake string
	}{Result: r, Plots: plots, Times: r.times(), Mistake: r.mistake()}
	for _, m := range meanings {
		if n := r.count(m.counter); n > 0 {
			data.Counted = append(data.Counted, counted{m.counter.String(), m.text, n})
		}
	}
	if err := resultPage.Execute(w, data); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	return nil
}

// Bytes are what was received and sent, as people read it.
func (r *Result) Bytes() string {
	size := func(c measure.Counter) string { return humanize.IBytes(uint64(max(0, r.count(c)))) }
	return size(measure.BytesIn) + " received, " + size(measure.BytesOut) + " sent"
}
