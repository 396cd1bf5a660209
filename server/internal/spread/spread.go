// Package spread shows the server's histograms to Prometheus and on pages.
package spread

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-134acfd0/lull/server"
)

// Unit says how a histogram of the server is converted to base units.
type Unit struct {
	from, to int     // the first and the last bucket that are shown
	per      float64 // how many of the histogram's units make one base unit
	gap      float64 // the distance from a bucket's end to the largest value in it
}

// The units of the server's histograms. Bucket i holds values below 2^i. The largest whole
// number below 2^i is 2^i-1, so sizes and calls have a gap of 1. Times were cut to whole
// microseconds: the real times come arbitrarily close to 2^i, so they have no gap.
var (
	Times = Unit{from: 4, to: 26, per: 1e6} // 16 µs to a minute, in seconds
	Sizes = Unit{from: 8, to: 30, per: 1, gap: 1}
	Calls = Unit{from: 1, to: 14, per: 1, gap: 1}
)

func (u Unit) bound(bucket int) float64 { return (float64(uint64(1)<<bucket) - u.gap) / u.per }

// Metric returns a histogram as a metric with values of its labels.
func (u Unit) Metric(desc *prometheus.Desc, h *server.Histogram, labels ...string) prometheus.Metric {
	below := make(map[float64]uint64, u.to-u.from+1)
	var n uint64
	for i, in := range h.Buckets {
		if n += in; u.from <= i && i <= u.to {
			below[u.bound(i)] = n
		}
	}
	return prometheus.MustNewConstHistogram(desc, n, float64(h.Sum)/u.per, below, labels...)
}

// Quantile returns the end of the first bucket up to which that share of all values is
// counted; 0 if there are none.
func (u Unit) Quantile(h *server.Histogram, share float64) float64 {
	all := float64(h.Count())
	var n uint64
	for i, in := range h.Buckets {
		if n += in; n > 0 && float64(n) >= share*all {
			return u.bound(i)
		}
	}
	return 0
}
