package measure

import "time"

// Snapshot is what a run knows at a time.
type Snapshot struct {
	At         time.Duration `json:"at"`          // since the run began
	Phase      string        `json:"phase"`       // its name
	PhaseIndex int           `json:"phase_index"` // among all phases, from 0
	PhaseCount int           `json:"phase_count"`
	Expected   time.Duration `json:"expected,omitempty"` // how long the phase should still take; 0 if that is not known

	Users   int    `json:"users"`   // wanted in all
	Open    int    `json:"open"`    // connections open now
	Opening int    `json:"opening"` // connections under way
	Counts  Counts `json:"counts"`

	// Times are what was timed since the last snapshot that has some, and CPU and Busy
	// the parts of all processors, 0 to 1, that this process and all processes together
	// had since then. All are empty in snapshots that only say how far a run is.
	Times Histograms `json:"times"`
	CPU   float64    `json:"cpu"`
	Busy  float64    `json:"busy"`

	Paused  bool     `json:"paused,omitempty"`
	Limited []string `json:"limited,omitempty"` // where the generator was the bottleneck until now
	Errors  []Found  `json:"errors,omitempty"`  // until now
}

// Failed is how many connections did not open, or ended without having been told to.
func (s *Snapshot) Failed() int {
	return int(s.Counts.Sum(OpenFailures...) + s.Counts.Sum(StayFailures...))
}

// Rate is how much some counters have risen a second since an earlier snapshot. It is
// 0 if no time has passed, and if they have fallen, as they do where a machine that
// counted has left.
func (s *Snapshot) Rate(earlier *Snapshot, counters ...Counter) float64 {
	rose := float64(s.Counts.Sum(counters...)) - float64(earlier.Counts.Sum(counters...))
	if passed := (s.At - earlier.At).Seconds(); passed > 0 {
		return max(0, rose) / passed
	}
	return 0
}

// Full reports whether s has times and parts of processors, or says only how far the
// run is.
func (s *Snapshot) Full() bool {
	return s.CPU > 0 || s.Busy > 0 || s.Times != Histograms{}
}

// Sink is told what a run does. The run waits until a method returns, and calls none
// at the same time as another. A Sink keeps nothing of a Snapshot that it changes.
type Sink interface {
	Phase(name string)  // a phase begins
	Snapshot(*Snapshot) // about once a tenth of a second; Times about once a second
}

// Funcs is a Sink of functions, each of which may be nil.
type Funcs struct {
	OnPhase    func(name string)
	OnSnapshot func(*Snapshot)
}

// Phase calls OnPhase.
func (f Funcs) Phase(name string) {
	if f.OnPhase != nil {
		f.OnPhase(name)
	}
}

// Snapshot calls OnSnapshot.
func (f Funcs) Snapshot(s *Snapshot) {
	if f.OnSnapshot != nil {
		f.OnSnapshot(s)
	}
}
