// Package tuning knows the limits of a Linux machine that a million sockets
// reach: where each is read, what it allows, what happens when it is reached, and
// how it is raised and restored.
//
// [Read] reads a [Machine]; a [Demand] says what the machine should hold;
// [Machine.Check] compares the two for each of [Limits]. [Machine.Diagnose] turns
// the result into what lull doctor shows, [Preflight] into what a program should
// know before it opens connections. All files are read below a root, so that
// tests can use copies of other machines' files.
package tuning
