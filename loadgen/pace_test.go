package loadgen

import (
	"math"
	"testing"
	"time"
)

const begun = time.Minute

func TestAPaceTellsHowManyAreDue(t *testing.T) {
	rows := []struct {
		why     string
		rate    float64
		elapsed time.Duration
		want    int
	}{
		{"the first is due at once", 10, 0, 1},
		{"not yet the second", 10, 99 * time.Millisecond, 1},
		{"the second", 10, 100 * time.Millisecond, 2},
		{"after a second", 10, time.Second, 11},
		{"fewer than one a second", 0.5, 1999 * time.Millisecond, 1},
		{"one in two seconds", 0.5, 2 * time.Second, 2},
		{"a stall is caught up on", 1000, time.Minute, 60_001},
		{"no limit", 0, 0, math.MaxInt},
		{"no limit, later", 0, time.Hour, math.MaxInt},
	}
	for _, r := range rows {
		if got := (&pace{rate: r.rate, begun: begun}).due(begun + r.elapsed); got != r.want {
			t.Errorf("%s: %d are due, want %d", r.why, got, r.want)
		}
	}
}

func TestAPaceTellsHowLongToWait(t *testing.T) {
	rows := []struct {
		why     string
		rate    float64
		elapsed time.Duration
		done    int
		want    time.Duration
	}{
		{"not for the first", 10, 0, 0, 0},
		{"for the second", 10, 0, 1, 100 * time.Millisecond},
		{"half of it is over", 10, 50 * time.Millisecond, 1, 50 * time.Millisecond},
		{"all of it is", 10, 100 * time.Millisecond, 1, 0},
		{"two seconds each", 0.5, 0, 3, 6 * time.Second},
		{"not at all after a stall", 10, time.Minute, 5, 0},
		{"no limit", 0, 0, 0, 0},
		{"no limit, many done", 0, time.Second, 1 << 30, 0},
	}
	for _, r := range rows {
		if got := (&pace{rate: r.rate, begun: begun, done: r.done}).wait(begun + r.elapsed); got != r.want {
			t.Errorf("%s: wait %s, want %s", r.why, got, r.want)
		}
	}
}

// After the returned wait the next event is due, and not a microsecond before.
// So a worker neither spins nor is late.
func TestWaitEndsWhenTheNextEventIsDue(t *testing.T) {
	for _, rate := range []float64{0.3, 1, 3, 7, 99.5, 10_000, 123_456} {
		for done := range 1000 {
			p := pace{rate: rate, done: done}
			at := p.wait(0)
			if late := at + time.Microsecond; p.due(late) == 0 {
				t.Errorf("rate %v: none is due after %s, though %d were done", rate, late, done)
			}
			if early := at - time.Microsecond; early >= 0 && p.due(early) > 0 {
				t.Errorf("rate %v: %d due after %s already", rate, p.due(early), early)
			}
		}
	}
}
