// Package tuning knows the limits of a Linux machine that a million sockets
// run into: where each stands, what it allows, what happens when it is hit,
// and how it is raised and put back.
//
// [Read] takes stock of a machine, [Demand] says what is wanted of it, and
// [Check] holds one against the other, limit by limit. Files are read below a
// root, so that tests and other machines' fixtures can stand in for /proc.
package tuning
