package fanout

import "time"

// Round is the Log of an audience that is a reactor's slots. A hand goes round them
// while there are entries. An entry is done when the hand is back where it was when
// the entry came in: then every slot has had its turn.
type Round struct {
	Log
	hand uint32 // the slot that comes next
	lap  uint32
}

// time counts the hand's steps, in laps and slots.
func (r *Round) time() uint64 { return uint64(r.lap)<<32 | uint64(r.hand) }

// Add adds a publication at time now.
func (r *Round) Add(p *Publication, now time.Duration) {
	r.Log.Add(p, now).due = r.time() + 1<<32
}

// Hand is the slot that comes next.
func (r *Round) Hand() int { return int(r.hand) }

// Step moves the hand on among slots below high and returns the entries that are
// done.
func (r *Round) Step(high int) (done []*Entry) {
	if r.hand++; r.hand >= uint32(high) {
		r.hand = 0
		r.lap++
	}
	n := 0
	for n < len(r.entries) && int64(r.time()-r.entries[n].due) >= 0 {
		n++
	}
	return r.cut(n)
}
