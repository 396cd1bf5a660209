package result

import (
	"encoding/json"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Latency summarizes a distribution, in milliseconds. Nothing was measured if Count is
// zero: then the others are null in JSON, and "–" in text.
type Latency struct {
	Count int64   `json:"count"`
	First float64 `json:"first"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Last  float64 `json:"last"`
}

// LatencyOf summarizes a histogram of microseconds, which may be nil.
func LatencyOf(h *hdr.Histogram) Latency {
	if h == nil || h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(quantile float64) float64 { return milliseconds(h.ValueAtQuantile(quantile)) }
	return Latency{
		Count: h.TotalCount(), First: milliseconds(h.Min()), Last: milliseconds(h.Max()),
		P50: at(50), P90: at(90), P95: at(95), P99: at(99), P999: at(99.9),
	}
}

func milliseconds(micros int64) float64 { return float64(micros) / 1000 }

// MarshalJSON writes null for what was not measured.
func (l Latency) MarshalJSON() ([]byte, error) {
	if l.Count == 0 {
		return []byte(`{"count":0,"first":null,"p50":null,"p90":null,"p95":null,"p99":null,"p99_9":null,"last":null}`), nil
	}
	type plain Latency
	return json.Marshal(plain(l))
}
