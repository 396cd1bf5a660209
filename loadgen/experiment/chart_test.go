package experiment

import (
	"html/template"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/loadgen/result"
)

// A run may end before there is anything to draw. Then a chart is drawn or an error
// returned, and nothing panics.
func TestChartsWithLittleInThemDoNotPanic(t *testing.T) {
	broadcasts := func(b ...result.Broadcast) *result.Result { return &result.Result{Broadcasts: b} }
	samples := []Sample{{}, {Seconds: 1}, {Seconds: 2, Open: 1, Server: 1, Generator: 1, Slab: 1}}
	bar := result.Bar{UpTo: 1, Count: 1}
	for why, r := range map[string]*Report{
		"nothing":              {Load: broadcasts()},
		"one sample":           {Load: broadcasts(), Samples: samples[2:]},
		"two of the same time": {Load: broadcasts(), Samples: []Sample{{}, {}}},
		"nothing open":         {Load: broadcasts(), Samples: samples[:2]},
		"an empty broadcast":   {Load: broadcasts(result.Broadcast{}), Samples: samples},
		"one of two is empty":  {Load: broadcasts(result.Broadcast{}, result.Broadcast{Expected: 1, Histogram: []result.Bar{bar}}), Samples: samples},
		"more than expected":   {Load: broadcasts(result.Broadcast{Expected: 1, Histogram: []result.Bar{bar, bar}}), Samples: samples},
		"many broadcasts":      {Load: broadcasts(make([]result.Broadcast, 50)...), Samples: samples},
	} {
		for name, draw := range map[string]func() (template.HTML, error){
			"connections": r.drawConnections, "memory": r.drawMemory, "latency": r.drawLatency,
		} {
			picture, err := draw()
			if (err == nil) == (picture == "") {
				t.Errorf("%s of %s: %q, %v", name, why, picture, err)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "chart: draw ") {
				t.Errorf("%s of %s: error %v", name, why, err)
			}
		}
	}
}

func TestChartsNameTheirCurves(t *testing.T) {
	r := fixed()
	rows := []struct {
		draw  func() (template.HTML, error)
		names []string
	}{
		{r.drawConnections, []string{"connections (right)", "accepted a second (left)", "time"}},
		{r.drawMemory, []string{"server (right)", "generator (right)", "kernel, both ends (left)", "resident", "grown by"}},
		{r.drawLatency, []string{"broadcast 1", "broadcast 2", "receivers"}},
	}
	for _, row := range rows {
		picture, err := row.draw()
		if err != nil {
			t.Error(err)
		}
		for _, name := range row.names {
			if !strings.Contains(string(picture), name) {
				t.Errorf("the chart does not contain %q", name)
			}
		}
		if strings.Contains(string(picture), "NaN") || strings.Contains(string(picture), "Inf") {
			t.Error("the chart contains NaN or Inf")
		}
	}
}
