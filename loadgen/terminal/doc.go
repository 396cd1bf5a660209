// Package terminal shows a run of the load generator to whoever has started it: as
// rows that are drawn again and again in the same place, or, where there is no
// terminal, as lines of a log.
package terminal
