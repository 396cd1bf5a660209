package netpoll

import "time"

// TickLength is the resolution of a reactor's time. Timeouts are seconds and
// minutes, so nothing needs a better one.
const TickLength = 250 * time.Millisecond

// Tick is a point in a Clock's time: the number of TickLengths since the clock
// began. It wraps after 34 years.
type Tick uint32

// Clock counts ticks. It follows the monotonic clock.
type Clock struct{ start time.Time }

// NewClock makes a clock whose first tick is now.
func NewClock() Clock { return Clock{time.Now()} }

// Now returns the time since the clock began.
func (c Clock) Now() time.Duration { return time.Since(c.start) }

// TickAt returns the tick at a clock's time.
func TickAt(now time.Duration) Tick { return Tick(now / TickLength) }

// UntilTick returns how long it is until the next tick.
func UntilTick(now time.Duration) time.Duration { return TickLength - now%TickLength }

// Ticks converts a duration, rounded up so that a timeout never comes early.
func Ticks(d time.Duration) Tick { return Tick((d + TickLength - 1) / TickLength) }
