package experiment

import (
	"html/template"
	"math"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/loadgen"
)

func TestScalesEndWithARoundNumber(t *testing.T) {
	rows := []struct {
		highest, want float64
	}{
		{0, 1}, {-5, 1}, {1, 1}, {1.01, 1.5}, {9, 10}, {10, 10}, {11, 15}, {23_456, 25_000}, {61, 80}, {99, 100},
		{1_000_001, 1_500_000}, {0.03, 0.03}, {0.031, 0.04},
	}
	for _, r := range rows {
		got := top([]line{{y: []float64{0, r.highest, -1}}, {y: []float64{1e12}, second: true}, {}}, false)
		if math.Abs(got-r.want) > r.want*1e-9 {
			t.Errorf("up to %v: the scale ends at %v, want %v", r.highest, got, r.want)
		}
	}
	if got := top(nil, false); got != 1 {
		t.Errorf("nothing: the scale ends at %v", got)
	}
}

func TestNumbersAreFormatted(t *testing.T) {
	for got, want := range map[string]string{
		seconds(12.34): "12.3 s", count(1_234_567.8): "1,234,567", size(1 << 20): "1.0 MiB", size(-5): "0 B",
		percent(49.6): "50 %", millis(1234.5): "1,234 ms",
		formatter(axis{})(1.5): "1.5", formatter(axis{})("text"): "0",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A run may end before there is anything to draw. Then a chart is drawn or an error
// returned, and nothing panics.
func TestChartsWithLittleInThemDoNotPanic(t *testing.T) {
	broadcasts := func(b ...loadgen.Broadcast) *loadgen.Result { return &loadgen.Result{Broadcasts: b} }
	samples := []Sample{{}, {Seconds: 1}, {Seconds: 2, Open: 1, Server: 1, Generator: 1, Slab: 1}}
	bar := loadgen.Bar{UpTo: 1, Count: 1}
	for why, r := range map[string]*Report{
		"nothing":              {Load: broadcasts()},
		"one sample":           {Load: broadcasts(), Samples: samples[2:]},
		"two of the same time": {Load: broadcasts(), Samples: []Sample{{}, {}}},
		"nothing open":         {Load: broadcasts(), Samples: samples[:2]},
		"an empty broadcast":   {Load: broadcasts(loadgen.Broadcast{}), Samples: samples},
		"one of two is empty":  {Load: broadcasts(loadgen.Broadcast{}, loadgen.Broadcast{Expected: 1, Histogram: []loadgen.Bar{bar}}), Samples: samples},
		"more than expected":   {Load: broadcasts(loadgen.Broadcast{Expected: 1, Histogram: []loadgen.Bar{bar, bar}}), Samples: samples},
		"many broadcasts":      {Load: broadcasts(make([]loadgen.Broadcast, 50)...), Samples: samples},
	} {
		for name, draw := range map[string]func() (template.HTML, error){
			"connections": r.drawConnections, "memory": r.drawMemory, "latency": r.drawLatency,
		} {
			picture, err := draw()
			if (err == nil) == (picture == "") {
				t.Errorf("%s of %s: %q, %v", name, why, picture, err)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "experiment: draw ") {
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
