package gate

import (
	"fmt"
	"math"
	"time"
)

// Pace is how often something may happen.
type Pace struct {
	PerSecond float64 // on average; zero is no limit
	Burst     int     // at once, after a rest; zero is what comes in a second, and at least 1
}

// paceWaitMax is the longest that anybody is made to wait for one thing. A pace that
// is slower than that is as fast as that.
const paceWaitMax = time.Hour

// check returns an error if p makes no sense.
func (p Pace) check(what string) error {
	switch {
	case !(p.PerSecond >= 0) || math.IsInf(p.PerSecond, 1):
		return fmt.Errorf("gate: %s per second is %v, and should be zero (no limit) or more", what, p.PerSecond)
	case p.Burst < 0:
		return fmt.Errorf("gate: %s at once is %d, and should be zero (a second's worth) or more", what, p.Burst)
	}
	return nil
}

// limited reports whether p is a limit at all.
func (p Pace) limited() bool { return p.PerSecond > 0 }

func (p Pace) burst() int {
	if p.Burst > 0 {
		return p.Burst
	}
	return int(max(1, min(p.PerSecond, math.MaxInt32)))
}

// lasting is how long n things take at this pace.
func (p Pace) lasting(n int) time.Duration {
	return time.Duration(min(float64(n)*float64(time.Second)/p.PerSecond, float64(max(1, n))*float64(paceWaitMax), math.MaxInt64/4))
}

// Bucket is a token bucket: tokens come at a Pace, up to its Burst. All that it
// remembers is when it will be full (the "theoretical arrival time" of the generic
// cell rate algorithm, ITU-T I.371), which takes 8 bytes. The zero value is full.
//
// It belongs to one goroutine. Times are those since some fixed moment.
type Bucket struct{ full time.Duration }

// Take takes n tokens, whether they are there or not, and returns how long it takes
// until none is owed. What has been read already can be charged only like this.
func (b *Bucket) Take(p Pace, n int, now time.Duration) (wait time.Duration) {
	if !p.limited() {
		return 0
	}
	allowed := p.lasting(p.burst())
	b.full = min(max(b.full, now)+p.lasting(n), now+allowed+paceWaitMax)
	return max(0, b.full-now-allowed)
}

// Rested reports whether all tokens have come back.
func (b *Bucket) Rested(now time.Duration) bool { return b.full <= now }

// RateLimit is how fast one connection may send.
type RateLimit struct {
	Messages Pace
	Bytes    Pace // as they come from the socket
}

// Check returns an error if the limits make no sense.
func (l RateLimit) Check() error {
	if err := l.Messages.check("messages"); err != nil {
		return err
	}
	return l.Bytes.check("bytes")
}

// Limited reports whether there is a limit, so that connections need a Rate.
func (l RateLimit) Limited() bool { return l.Messages.limited() || l.Bytes.limited() }

// Rate is how fast one connection has sent lately. It takes 16 bytes without
// pointers, and the zero value is that of a connection that has sent nothing.
type Rate struct{ messages, bytes Bucket }

// Took takes note of what was read from the connection, and returns for how long it
// should not be read: an hour at most.
func (r *Rate) Took(l RateLimit, messages, bytes int, now time.Duration) (wait time.Duration) {
	return max(r.messages.Take(l.Messages, messages, now), r.bytes.Take(l.Bytes, bytes, now))
}

// Rested reports whether the connection may send as if it had sent nothing, so that
// its Rate need not be kept.
func (r *Rate) Rested(now time.Duration) bool { return r.messages.Rested(now) && r.bytes.Rested(now) }
