package loadgen

import (
	"math"
	"time"
)

// pace spreads events evenly over time. Its zero value is no limit.
type pace struct {
	rate  float64       // events a second; 0 is no limit
	begun time.Duration // when the first is due
	done  int           // events since begun
}

// due returns how many more events should have happened by now.
func (p *pace) due(now time.Duration) int {
	switch {
	case p.rate == 0:
		return math.MaxInt
	case now < p.begun:
		return 0
	}
	return max(0, int(p.rate*(now-p.begun).Seconds())+1-p.done)
}

// wait returns how long it is from now until the next event is due.
func (p *pace) wait(now time.Duration) time.Duration {
	if p.rate == 0 {
		return 0
	}
	return max(0, p.at()-now)
}

// at returns when the next event is due.
func (p *pace) at() time.Duration {
	return p.begun + time.Duration(float64(p.done)/p.rate*float64(time.Second))
}

// next counts an event and returns when it was meant to happen: now, if there is no
// limit.
func (p *pace) next(now time.Duration) (meant time.Duration) {
	if meant = now; p.rate > 0 {
		meant = p.at()
	}
	p.done++
	return meant
}

// change makes events come at another rate from now on.
func (p *pace) change(rate float64, now time.Duration) {
	*p = pace{rate: rate, begun: now}
}

// soonest is the least of some waits, of which those below zero never end. It is -1 if
// none ends.
func soonest(waits ...time.Duration) time.Duration {
	least := time.Duration(-1)
	for _, d := range waits {
		if d >= 0 && (least < 0 || d < least) {
			least = d
		}
	}
	return least
}
