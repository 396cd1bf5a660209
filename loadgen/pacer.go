package loadgen

import (
	"math"
	"time"
)

// pacer spreads events evenly over time.
type pacer struct {
	rate float64 // a second; 0 is no limit
}

// due returns how many events should have happened after elapsed.
func (p pacer) due(elapsed time.Duration) int {
	if p.rate == 0 {
		return math.MaxInt
	}
	return int(p.rate*elapsed.Seconds()) + 1
}

// wait returns how long it is from elapsed until the next event is due, if done
// events have happened.
func (p pacer) wait(elapsed time.Duration, done int) time.Duration {
	if p.rate == 0 {
		return 0
	}
	return max(0, p.at(done)-elapsed)
}

// at returns when the next event is due, if done events have happened.
func (p pacer) at(done int) time.Duration {
	return time.Duration(float64(done) / p.rate * float64(time.Second))
}
