package loadgen

import (
	"math"
	"sync/atomic"
)

// Control lets other goroutines change a run. Its zero value does nothing. A run
// looks at it about fifty times a second.
type Control struct {
	paused  atomic.Bool
	stopped atomic.Bool
	rate    atomic.Uint64 // the bits of a float64
	rated   atomic.Bool   // rate has not been read yet
	orphan  atomic.Int64  // one more than the index of the phase whose publisher is lost
}

// Pause makes the run begin nothing new, or go on as if the pause had not been. Answers are
// still received.
func (c *Control) Pause(on bool) { c.paused.Store(on) }

// Stop ends the run, which closes its connections and returns its result until then.
func (c *Control) Stop() { c.stopped.Store(true) }

// SetRate changes the rate of the phase that is under way: connections, messages or
// endings a second, all together. A phase that goes on as fast as it can takes a rate
// only if it opens or ends connections. What is not above zero is ignored.
func (c *Control) SetRate(perSecond float64) {
	if perSecond > 0 && !math.IsInf(perSecond, 0) {
		c.rate.Store(math.Float64bits(perSecond))
		c.rated.Store(true)
	}
}

// newRate is a rate that has been set and not been read yet.
func (c *Control) newRate() (rate float64, ok bool) {
	if !c.rated.Swap(false) {
		return 0, false
	}
	return math.Float64frombits(c.rate.Load()), true
}

// LosePublisher tells a run that the machine is lost that was to publish in a phase, by its index.
// Who listens in it waits no longer for what has not come.
func (c *Control) LosePublisher(phase int) { c.orphan.Store(int64(phase) + 1) }

// orphaned reports whether a phase has lost its publisher.
func (c *Control) orphaned(phase int) bool { return c.orphan.Load() == int64(phase)+1 }
