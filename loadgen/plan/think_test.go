package plan

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// The seed is fixed, so this passes always or never.
func TestThinkTimesHaveTheirMeanAndBounds(t *testing.T) {
	const draws = 100_000
	for _, row := range []struct {
		think       Think
		mean        time.Duration
		least, most time.Duration
	}{
		{Think{Mean: time.Second}, time.Second, time.Second, time.Second},
		{Think{Shape: Uniform, From: time.Second, To: 3 * time.Second}, 2 * time.Second, time.Second, 3 * time.Second},
		{Think{Shape: Uniform, From: 5, To: 5}, 5, 5, 5},
		{Think{Shape: Exponential, Mean: time.Second}, time.Second, 0, exponentialMax * time.Second},
		{Think{Shape: Normal, Mean: 10 * time.Second, Dev: time.Second}, 10 * time.Second, 0, 20 * time.Second},
		// Half of these are cut off: the mean of what is left is dev/√(2π).
		{Think{Shape: Normal, Dev: time.Second}, 398942280, 0, 10 * time.Second},
		{Think{Shape: Uniform, To: TimeMax}, TimeMax / 2, 0, TimeMax},
	} {
		r := rand.New(rand.NewPCG(1, 2))
		var sum float64
		for range draws {
			d := row.think.Draw(r)
			if d < row.least || d > row.most {
				t.Fatalf("%+v gives %s", row.think, d)
			}
			sum += float64(d)
		}
		if mean := sum / draws; math.Abs(mean-float64(row.mean)) > 0.01*float64(row.mean) {
			t.Errorf("%+v has the mean %s", row.think, time.Duration(mean))
		}
	}
}

// numbers gives some numbers one after the other.
type numbers []uint64

func (n *numbers) Uint64() uint64 {
	first := (*n)[0]
	*n = (*n)[1:]
	return first
}

// These numbers make package rand take the logarithm of zero.
func TestAnExponentialTimeIsNeverInfinite(t *testing.T) {
	worst := func() *rand.Rand { return rand.New(&numbers{math.MaxUint32, 0}) }
	if f := worst().ExpFloat64(); !math.IsInf(f, 1) {
		t.Fatalf("they give %g", f)
	}
	if d := (Think{Shape: Exponential, Mean: TimeMax}).Draw(worst()); d != exponentialMax*TimeMax {
		t.Error(d)
	}
}
