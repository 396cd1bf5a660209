package netpoll

import "time"

// TickLength is the resolution of a reactor's time. Timeouts are seconds and
// minutes; nothing here needs better.
const TickLength = 250 * time.Millisecond

// Tick is a point in a Clock's time, in TickLengths since it began. It fits a
// slot and wraps after 34 years.
type Tick uint32

// Clock counts ticks. It follows the monotonic clock.
type Clock struct{ start time.Time }

// NewClock makes a clock whose first tick is now.
func NewClock() Clock { return Clock{time.Now()} }

// Now returns the current tick and the time that passes until the next.
func (c Clock) Now() (tick Tick, next time.Duration) {
	t := time.Since(c.start)
	return Tick(t / TickLength), TickLength - t%TickLength
}

// Ticks converts a duration, rounded up so that a timeout never comes early.
func Ticks(d time.Duration) Tick { return Tick((d + TickLength - 1) / TickLength) }
