// Package tsung reads the XML files of tsung, a load generator written in Erlang, and
// translates their WebSocket sessions to a plan.
//
// docs/tsung.md says how each element is translated. What a plan cannot say is left
// out, and a [Note] names its line. What would make another load of it, or one
// that never ends, is an error.
package tsung
