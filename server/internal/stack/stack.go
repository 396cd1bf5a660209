// Package stack finds out what another goroutine is doing.
package stack

import (
	"bytes"
	"runtime"
)

// ID names a goroutine as stack traces do.
type ID string

// Self returns the calling goroutine's ID.
func Self() ID {
	var trace [64]byte
	head, _, _ := bytes.Cut(trace[:runtime.Stack(trace[:], false)], []byte(" ["))
	return ID(head)
}

// max bounds what is looked through for one goroutine's stack, in bytes: some ten
// thousand goroutines.
const max = 16 << 20

// Of returns a goroutine's stack, or nothing if it is not among the first. It
// stops all goroutines for a moment.
func Of(id ID) []byte {
	var all []byte
	for size := 1 << 20; len(all) == cap(all) && size <= max; size *= 4 {
		all = make([]byte, size)
		all = all[:runtime.Stack(all, true)]
	}
	head := []byte(id + " [")
	for one := range bytes.SplitSeq(all, []byte("\n\n")) {
		if bytes.HasPrefix(one, head) {
			return one
		}
	}
	return nil
}
