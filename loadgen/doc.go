// Package loadgen opens WebSocket connections by the million and measures what
// the server behind them does.
//
// [Run] is the coordinator: it drives the phases (ramp, hold, broadcasts, echo,
// close) and gathers the [Result]. The connections belong to workers, reactors
// like the server's, each on a thread and with a descriptor table of its own;
// a connection is a slot of 28 bytes. Which source address and port each one
// uses is computed from its number ([Sources]), not stored and not left to the
// kernel, whose own choice becomes slow when an address's ports run out.
//
// Latencies are measured from the moment at which a message was meant to be
// sent, which stands in its payload, so that a generator that comes late
// blames itself.
package loadgen
