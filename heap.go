package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// keepSmall makes the garbage collector start when the heap has one megabyte
// instead of four, unless GOGC says otherwise. Connections are not in the heap,
// so a collection is cheap, and three megabytes are the slots of a hundred
// thousand connections.
func keepSmall() {
	collectFrom(25)
}

// expectHandshakes takes keepSmall back for TLS, whose handshakes allocate some
// hundred kilobytes each: with so small a heap they took 1.4 times the processor
// time. Calls of backends allocate too.
func expectHandshakes() { collectFrom(100) }

// collectFrom makes the garbage collector start when the heap has a percentage of four
// megabytes, unless GOGC says otherwise.
func collectFrom(percent int) {
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(percent)
	}
}

// giveBack gives the heap's free memory back to the system when a rush is over, until ctx is
// done. The runtime collects garbage when the heap grows: what handshakes in flight have
// needed would stay for minutes.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(quietTime)
	defer tick.Stop()
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	var r rush
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if metrics.Read(allocated); r.over(allocated[0].Value.Uint64()) {
			debug.FreeOSMemory()
		}
	}
}

// rush is a time in which much is allocated: worthBytes in all, until less than quietBytes are
// in quietTime.
type rush struct {
	begun uint64 // what had been allocated when it began
	last  uint64 // and when somebody looked last
}

const (
	quietTime  = 5 * time.Second
	quietBytes = 1 << 20
	worthBytes = 4 << 20
)

// over reports whether the rush is over, now that so many bytes have been allocated since the
// program began. It is asked every quietTime.
func (r *rush) over(allocated uint64) bool {
	quiet := allocated-r.last < quietBytes
	if r.last = allocated; !quiet || allocated-r.begun < worthBytes {
		return false
	}
	r.begun = allocated
	return true
}
