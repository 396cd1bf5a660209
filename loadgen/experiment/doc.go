// Package experiment runs a server and a generator on one machine, as two
// processes, and reports what they needed. [Run] runs them once with many
// connections, [Bench] in rounds that alternate with the floor program, [Abuse] with
// clients that attack the server, and [MeasureFlat] at several numbers of
// connections. [Generators] compares the generator with others.
//
// The generator is the calling process, and the server is its child. The package
// is not part of loadgen because it starts processes, raises the machine's limits
// for a while and draws charts, and a load generator should do none of these.
package experiment
