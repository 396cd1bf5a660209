package experiment

import "github.com/seed-134acfd0/lull/tuning"

// raiseLimits raises limits for a run, and says which. One that cannot be raised can only slow the
// run down. The caller restores them.
func raiseLimits(machine *tuning.Machine, demand tuning.Demand, say func(format string, args ...any)) *tuning.Raised {
	raised, err := machine.Raise(demand)
	for _, c := range raised.Changes {
		say("raised %s from %q to %q for this run", c.Name, c.Old, c.New)
	}
	if err != nil {
		say("not raised: %v", err)
	}
	return raised
}
