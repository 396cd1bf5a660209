// Package loadgen opens WebSocket connections by the million and measures what
// the server behind them does.
//
// [Run] is the coordinator: it drives the phases (ramp, hold, broadcasts, echo,
// close) and gathers the [Result]. The connections belong to workers, reactors
// like the server's, each on a thread and with a descriptor table of its own;
// a connection is a slot of 28 bytes, and with wss:// 108 bytes of TLS state.
// Which source address and port each one
// uses is computed from its number ([Sources]). Nothing has to be stored for it,
// and the kernel does not choose: its choice becomes slow when most ports of an
// address are taken.
//
// A message's payload contains the time at which the message was meant to be
// sent, and its latency is measured from then. So a generator that is late adds
// to the latencies instead of hiding the delay.
package loadgen
