package hooks

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// names against a map.
func TestNamesAreKeptUntilTheyAreDropped(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	kept, err := newNames()
	if err != nil {
		t.Fatal(err)
	}
	model := map[uint64]name{}
	for range 20_000 {
		if rng.IntN(5) < 3 {
			n := name{uint8(rng.IntN(3)), 1<<32 | rng.Uint64(), strings.Repeat(string('a'+rune(rng.IntN(26))), 9*rng.IntN(6))}
			tag, err := kept.put(n)
			if n.user == "" && n.backend == 0 {
				n = name{}
			}
			if err != nil {
				t.Fatal(err)
			}
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
			var want []uint64
			for _, m := range model {
				if m.user == n.user && n.user != "" {
					want = append(want, m.id)
				}
			}
			if got := kept.of(n.user); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
				t.Fatalf("%q has %d connections, not %d", n.user, len(got), len(want))
			}
			break
		}
	}
	for tag, n := range model {
		if got := kept.get(tag); got != n {
			t.Fatalf("%x is %v, not %v", tag, got, n)
		}
	}
	if tag, err := kept.put(name{id: 1 << 40}); tag != 0 || err != nil || kept.get(0) != (name{}) {
		t.Error("the zero name takes a place")
	}
}
