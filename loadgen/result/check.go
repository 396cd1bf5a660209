package result

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// Check is a threshold and what was measured.
type Check struct {
	plan.Threshold
	Measured *float64 `json:"measured"` // nil if nothing was
	Met      bool     `json:"met"`
}

func (c Check) String() string {
	verdict := "not met"
	if c.Met {
		verdict = "met"
	}
	if c.Measured == nil {
		return fmt.Sprintf("%s: %s: it was not measured", verdict, c.Threshold)
	}
	return fmt.Sprintf("%s: %s: it is %s", verdict, c.Threshold, c.Threshold.Write(*c.Measured))
}

// Check compares r with thresholds. A figure that was not measured is not met.
func (r *Result) Check(thresholds []plan.Threshold) []Check {
	checks := make([]Check, 0, len(thresholds))
	for _, t := range thresholds {
		c := Check{Threshold: t}
		if v, ok := r.figure(t.Figure, t.Of); ok {
			c.Measured, c.Met = &v, t.Holds(v)
		}
		checks = append(checks, c)
	}
	return checks
}

// figure is what was measured of what a threshold names.
func (r *Result) figure(name, of string) (value float64, measured bool) {
	switch name {
	case "lost":
		return float64(r.Lost), true
	case "open":
		return float64(r.Open), true
	case "errors":
		return float64(r.failures()), true
	case "valid":
		if r.Valid {
			return 1, true
		}
		return 0, true
	case "rate":
		return r.rate(of)
	}
	if of != "" {
		return r.quantile(name, of)
	}
	n, ok := r.Counts[name]
	return float64(n), ok
}

func (r *Result) rate(of string) (float64, bool) {
	switch {
	case of == "connects":
		return r.ConnectRate, r.count(measure.Connected) > 0
	case of == "messages" && r.Echo != nil:
		return r.Echo.Rate, true
	case of == "deliveries" && len(r.Broadcasts) > 0:
		rates := make([]float64, 0, len(r.Broadcasts))
		for _, b := range r.Broadcasts {
			rates = append(rates, b.Deliveries)
		}
		return Median(rates), true
	}
	return 0, false
}

// quantile is "p99" or so of a kind of times, in milliseconds.
func (r *Result) quantile(name, of string) (float64, bool) {
	k, ok := measure.KindOf(of)
	if !ok || r.Histograms[k] == nil || r.Histograms[k].TotalCount() == 0 {
		return 0, false
	}
	h := r.Histograms[k]
	switch name {
	case "min":
		return milliseconds(h.Min()), true
	case "max":
		return milliseconds(h.Max()), true
	}
	q, err := strconv.ParseFloat(strings.TrimPrefix(name, "p"), 64)
	return milliseconds(h.ValueAtQuantile(q)), err == nil
}

// failures is how many connections did not open, or ended without having been told to.
func (r *Result) failures() (n int) {
	for _, c := range failures {
		n += r.count(c)
	}
	return n
}

// Median is the middle value, or the mean of the middle two; 0 of none.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
