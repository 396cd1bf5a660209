package web

import (
	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// gauges are the metrics that may fall.
var gauges = []struct {
	name, help string
	of         func(*measure.Snapshot) float64
}{
	{"users", "Connections that are wanted.", func(s *measure.Snapshot) float64 { return float64(s.Users) }},
	{"connections_open", "Connections that are open.", func(s *measure.Snapshot) float64 { return float64(s.Open) }},
	{"connections_opening", "Connections that are being opened.", func(s *measure.Snapshot) float64 { return float64(s.Opening) }},
	{"run_seconds", "Time since the run began.", func(s *measure.Snapshot) float64 { return s.At.Seconds() }},
	{"phase", "The number of the phase that is going on, from 1.", func(s *measure.Snapshot) float64 { return float64(s.PhaseIndex + 1) }},
	{"phases", "How many phases the run has.", func(s *measure.Snapshot) float64 { return float64(s.PhaseCount) }},
	{"phase_togo_seconds", "How long the phase should still take; 0 if that is not known.", func(s *measure.Snapshot) float64 { return s.Expected.Seconds() }},
	{"paused", "1 while the run is paused.", func(s *measure.Snapshot) float64 { return truth(s.Paused) }},
	{"limited", "1 if the generator was the bottleneck at some time, so that its figures are not the server's.", func(s *measure.Snapshot) float64 { return truth(len(s.Limited) > 0) }},
	{"cpu_ratio", "The generator's part of all processors, 0 to 1.", func(s *measure.Snapshot) float64 { return s.CPU }},
	{"machine_busy_ratio", "All programs' part of all processors, 0 to 1.", func(s *measure.Snapshot) float64 { return s.Busy }},
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Histograms of times have buckets up to 2^bucketFirst µs, and so on to 2^bucketLast.
const (
	bucketFirst = 4  // 16 µs
	bucketLast  = 26 // about a minute
)

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("lull_load_"+name, help, nil, nil)
}

func counterDesc(c measure.Counter) *prometheus.Desc {
	return desc(c.String()+"_total", "Counted since the run began: "+c.Help()+".")
}

func timesDesc(k measure.Kind) *prometheus.Desc {
	return desc(k.String()+"_seconds", "Times since the run began: "+k.Help()+".")
}

// collector reads the run once for each scrape.
type collector struct{ page *Page }

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for i := range gauges {
		out <- desc(gauges[i].name, gauges[i].help)
	}
	for i := range measure.Counters {
		out <- counterDesc(i)
	}
	for k := range measure.Kinds {
		out <- timesDesc(k)
	}
}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.page.mu.Lock()
	now := c.page.run.Now
	var times measure.Histograms
	times.Merge(&c.page.times)
	c.page.mu.Unlock()
	for i := range gauges {
		g := &gauges[i]
		out <- prometheus.MustNewConstMetric(desc(g.name, g.help), prometheus.GaugeValue, g.of(&now))
	}
	for i, n := range now.Counts {
		out <- prometheus.MustNewConstMetric(counterDesc(measure.Counter(i)), prometheus.CounterValue, float64(n))
	}
	for k := range measure.Kinds {
		out <- histogram(timesDesc(k), times.Of(k))
	}
}

// histogram converts h, in microseconds, to seconds.
func histogram(desc *prometheus.Desc, h *hdr.Histogram) prometheus.Metric {
	below := make(map[float64]uint64, bucketLast-bucketFirst+1)
	n, sum, bucket := uint64(0), 0.0, bucketFirst
	for _, bar := range h.Distribution() {
		for ; bucket <= bucketLast && bar.To > 1<<bucket; bucket++ {
			below[seconds(1<<bucket)] = n
		}
		n += uint64(bar.Count)
		sum += seconds(bar.From+bar.To) / 2 * float64(bar.Count)
	}
	for ; bucket <= bucketLast; bucket++ {
		below[seconds(1<<bucket)] = n
	}
	return prometheus.MustNewConstHistogram(desc, n, sum, below)
}

func seconds(micros int64) float64 { return float64(micros) / 1e6 }
