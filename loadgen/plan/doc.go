// Package plan says what a load generator does, as data: which groups of users there
// are, what each user does, in which phases, and what has to come of it.
//
// A [Plan] has [Group]s and [Phase]s. A user belongs to a group. It is one connection,
// or several after each other if it comes back. Its group's script, a list of
// [Step]s, runs for each user by itself from when its connection opens. Phases come
// one after the other, and act on whole groups: they open connections, publish,
// make users talk, cut them off.
//
// A plan is checked by [Plan.Validate], and survives JSON, so that it can be sent to
// another machine. Nothing here does input or output.
package plan
