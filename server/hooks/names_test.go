package hooks

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// names against a map.
func TestNamesAreKeptUntilTheyAreDropped(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var kept names
	model := map[uint64]name{}
	for range 20_000 {
		if rng.IntN(5) < 3 {
			n := name{uint8(rng.IntN(3)), rng.Uint64N(2) * rng.Uint64(), strings.Repeat(string('a'+rune(rng.IntN(26))), rng.IntN(256))}
			tag := kept.put(n)
			if old, twice := model[tag]; twice && tag != 0 {
				t.Fatalf("%x is there twice: %v and %v", tag, old, n)
			}
			model[tag] = n
			continue
		}
		for tag, n := range model {
			if got := kept.get(tag); got != n {
				t.Fatalf("%x is %v, not %v", tag, got, n)
			}
			kept.drop(tag)
			delete(model, tag)
			break
		}
	}
	for tag, n := range model {
		if got := kept.get(tag); got != n {
			t.Fatalf("%x is %v, not %v", tag, got, n)
		}
	}
	if kept.put(name{}) != 0 || kept.get(0) != (name{}) {
		t.Error("the zero name takes a place")
	}
}
