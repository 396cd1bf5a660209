// Package experiment runs a server and a generator on one machine, each a
// process of its own, and reports what that took: [Run] once with many
// connections, [Bench] in rounds that alternate with the floor program.
//
// The generator is the calling process; the server is started as a child. It
// is a package beside loadgen because it starts processes, changes the
// machine's limits for a while and draws pictures, none of which a load
// generator should do.
package experiment
