// Package loadgen opens WebSocket connections by the million and measures what
// the server behind them does.
//
// [Run] is the coordinator: it carries out the phases of a plan (package plan) one after
// the other, and gathers the [Result]. The connections belong to workers, reactors
// like the server's, each on a thread and with a descriptor table of its own; the
// coordinator gives them orders, and reads what they count and time (package measure).
// A connection is a slot of 32 bytes. One that sends messages has a talk beside it, and
// one with wss:// 108 bytes of TLS state. Which source address and port each one
// uses is computed from its user's number ([Sources]). Nothing has to be stored for it,
// and the kernel does not choose: its choice becomes slow when most ports of an
// address are taken.
//
// All that users send is of one kind: a message, and perhaps an answer for which to wait.
// A script's step sends one, a stream sends them in turn at a rate or as fast as a window
// allows: an echo is a stream with a window of one, and a flood one without a window.
//
// Everything is timed from when it was meant to happen. So a generator or a server that is
// late adds to the times instead of hiding the delay.
package loadgen
