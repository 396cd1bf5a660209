// Package result is what came of a load: a [Result], which survives JSON with a
// version, and what can be done with it: print it, draw it, hold it against thresholds,
// compare it with others.
//
// A [Builder] makes a Result while the load runs. It is a [measure.Sink], so whoever has
// snapshots of a load, an engine here or one that adds up those of other machines, can
// have a Result:
//
//	b := result.NewBuilder(result.Run{…})
//	b.Phase("ramp")        // and snapshots, all the time
//	b.Snapshot(s)          // with all that was counted and timed in the phase
//	b.Phase("publish")
//	b.Snapshot(s)          // with all that was timed of the burst
//	b.Burst(result.Burst{…})
//	b.Snapshot(s)
//	b.Settle()             // connections are closed from now on
//	b.Phase("close")
//	b.Snapshot(s)
//	r := b.Result(result.End{})
//
// docs/results.md describes the JSON.
package result
