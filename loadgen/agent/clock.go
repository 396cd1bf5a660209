package agent

import "time"

// Clock is how an agent's clock differs from the coordinator's.
type Clock struct {
	Offset time.Duration // what it shows more, negative if it is behind
	Trip   time.Duration // of the shortest round trip: the offset is exact to half of it
}

// With how many round trips a clock is measured, before a run and after it.
const (
	joinSamples  = 10
	driftSamples = 4
)

// sample is what one round trip says: the agent read its clock between the two times,
// most likely in the middle.
func sample(sent, received, agent time.Time) Clock {
	trip := received.Sub(sent)
	return Clock{Offset: agent.Sub(sent.Add(trip / 2).Round(0)), Trip: trip} // Round: by the wall clock
}

// better is the clock that is known more exactly. The zero Clock is not known at all.
func better(a, b Clock) Clock {
	if a == (Clock{}) || b.Trip < a.Trip {
		return b
	}
	return a
}

// show is what the agent's clock shows at a time of ours, in nanoseconds since 1970.
func (c Clock) show(t time.Time) int64 { return t.Add(c.Offset).UnixNano() }
