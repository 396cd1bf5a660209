package main

import "testing"

func TestARushIsOverWhenLittleIsAllocated(t *testing.T) {
	const mebi = 1 << 20
	var r rush
	for i, look := range []struct {
		allocated uint64
		over      bool
	}{
		{10 * mebi, false}, // it has begun
		{50 * mebi, false},
		{50*mebi + 1000, true},
		{50*mebi + 2000, false}, // it is over already
		{51*mebi - 1000, false},
		{53 * mebi, false}, // more than a little, and not worth it
		{53 * mebi, false},
		{54*mebi - 1, false},
		{54*mebi + 1000, true}, // many littles are worth it
		{54*mebi + 1000, false},
	} {
		if over := r.over(look.allocated); over != look.over {
			t.Errorf("look %d, at %d bytes: over is %t", i, look.allocated, over)
		}
	}
}
