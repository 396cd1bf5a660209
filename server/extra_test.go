package server

import (
	"math/rand/v2"
	"testing"
)

// What incomplete messages hold is counted while they hold it, and the memory
// of many does not outlast them.
func TestExtrasAgainstAModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var x extras
	live := map[uint32]bool{}
	for phase := range 20 {
		most := []int{10, 500}[phase%2]
		for range 2000 {
			i := x.anyOf(live, rng)
			switch n := rng.IntN(10); {
			case n < 4 && len(live) < most:
				i := x.take()
				e := x.all[i-1]
				if i == 0 || live[i] || len(e.raw)+len(e.message)+e.out.bytes != 0 || !e.parse.Idle() {
					t.Fatalf("took %d, which is not new: %+v", i, e)
				}
				live[i] = true
			case n < 8 && i > 0:
				e := x.all[i-1]
				e.raw = append(e.raw[:0], make([]byte, rng.IntN(100))...)
				e.message = append(e.message, make([]byte, rng.IntN(2*keptBytes))...)
				x.weigh(e)
			case i > 0:
				x.put(i)
				delete(live, i)
			}
			held := 0
			for i := range live {
				e := x.all[i-1]
				if e.held != 0 {
					held += cap(e.raw) + cap(e.message)
				}
			}
			if x.held != held {
				t.Fatalf("%d bytes are counted, %d are held", x.held, held)
			}
		}
		for i := range live {
			x.put(i)
			delete(live, i)
		}
		kept, free := 0, 0
		for _, e := range x.all {
			if e != nil {
				free++
				kept += cap(e.raw) + cap(e.message)
			}
		}
		if x.held != 0 || free > keptExtras || kept > keptExtras*2*keptBytes {
			t.Errorf("phase %d: %d bytes are counted, %d extras with %d bytes are kept", phase, x.held, free, kept)
		}
	}
}

// anyOf returns one of those in use by chance, zero if there is none.
func (x *extras) anyOf(live map[uint32]bool, rng *rand.Rand) uint32 {
	if len(x.all) == 0 {
		return 0
	}
	if i := uint32(1 + rng.IntN(len(x.all))); live[i] {
		return i
	}
	return 0
}
