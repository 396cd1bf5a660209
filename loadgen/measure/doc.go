// Package measure is what a load generator counts and times: [Counts], which only
// grow, [Histograms] of times, and [Errors] with an example of each. Each worker has
// its own and adds them up with those of others when it is asked, so no counter is
// shared while the load runs. A [Snapshot] is what a run knows at a time. A [Sink]
// is told of each.
package measure
