// Package tuning knows the limits of a Linux machine that a million sockets
// run into: where each stands, what it allows, what happens when it is hit,
// and how it is raised and put back.
//
// [Read] takes stock of a [Machine], a [Demand] says what is wanted of it, and
// [Machine.Check] holds one against the other, limit by limit, as [Limits]
// lists them. [Machine.Diagnose] makes of that what lull doctor shows, and
// [Preflight] what a program should know before it opens connections. Files are
// read below a root, so that tests and other machines' fixtures can stand in
// for /proc.
package tuning
