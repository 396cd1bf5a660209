package terminal

import (
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// view is what is shown of a run.
type view struct{ measure.Reading }

// quantile is a quantile of times, from 0 to 100.
func quantile(h *hdr.Histogram, q float64) time.Duration {
	return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond
}
