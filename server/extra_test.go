package server

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// Bytes come out as they went in; what is shared stays as it was.
func TestOutboxAgainstAModel(t *testing.T) {
	type shared struct{ frame, copy []byte }
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var o outbox
		var model []byte
		var frames []shared
		for range 5000 {
			switch n := rng.IntN(10); {
			case n < 2:
				b := randomBytes(rng, rng.IntN(100))
				o.copy(b)
				model = append(model, b...)
				clear(b) // for it belongs to the caller
			case n < 4:
				b := randomBytes(rng, 1+rng.IntN(2*shareMin))
				o.share(b)
				model = append(model, b...)
				frames = append(frames, shared{b, slices.Clone(b)})
			case o.bytes > 0:
				first := o.queue[0].data
				n := rng.IntN(len(first) + 1)
				if !bytes.Equal(first[:n], model[:n]) {
					t.Fatal("other bytes come out")
				}
				o.sent(n)
				model = model[n:]
			}
			if o.bytes != len(model) || (o.bytes == 0) != (o.queue == nil) {
				t.Fatalf("%d bytes in %d pieces, want %d bytes", o.bytes, len(o.queue), len(model))
			}
		}
		for o.bytes > 0 {
			first := o.queue[0].data
			if !bytes.Equal(first, model[:len(first)]) {
				t.Fatal("other bytes come out at the end")
			}
			o.sent(len(first))
			model = model[len(first):]
		}
		for _, f := range frames {
			if !bytes.Equal(f.frame, f.copy) {
				t.Fatal("a shared frame was changed")
			}
		}
	}
}

func TestOutboxSharesLargeFramesAndCopiesSmallOnes(t *testing.T) {
	large, small := make([]byte, shareMin), make([]byte, shareMin-1)
	var o outbox
	o.share(large)
	o.share(small)
	o.share(small)
	o.copy(large)
	if len(o.queue) != 2 {
		t.Fatalf("%d pieces, want one shared and one copied", len(o.queue))
	}
	if unsafe.SliceData(o.queue[0].data) != unsafe.SliceData(large) {
		t.Error("a large frame was copied")
	}
	if n := len(o.queue[1].data); n != 2*len(small)+len(large) {
		t.Errorf("%d bytes were copied", n)
	}
}

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
