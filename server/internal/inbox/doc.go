// Package inbox holds what a connection's handler has still to be called for,
// and calls it on a bounded pool of goroutines, so that a handler may block.
//
// A connection that has calls waiting has an Inbox. Its calls are made one at a
// time and in order. Inboxes that have calls wait in the Pool's queue; a worker
// takes the first, makes calls for at most a quantum, and puts it back behind
// the others if it has more. So no connection can keep the workers from the
// rest.
//
//	reactor ──Add──▶ Inbox ──Hand──▶ queue ──▶ worker ──Call──▶ handler
//	   ▲                               ▲          │
//	   │                               └──────────┤ has more calls
//	   └──────────────Changed─────────────────────┘ what the reactor waits for is true
//
// The package knows neither connections nor frames: its Hooks make the calls.
package inbox
