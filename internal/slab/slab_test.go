package slab

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// Strings come out as they were put in, and what is freed makes room.
func TestBytesAgainstAMap(t *testing.T) {
	const limit = 64 << 10
	b, err := NewBytes(limit)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	kept := map[uint32]string{}
	used := 0
	for range 50_000 {
		if rng.IntN(100) == 0 || rng.IntN(2) == 0 && len(kept) > 0 {
			for at, s := range kept {
				b.Free(at)
				delete(kept, at)
				used -= Cost(len(s))
				if rng.IntN(100) > 0 {
					break
				}
			}
		}
		s := strings.Repeat(string(rune('a'+rng.IntN(26))), rng.IntN(200)) + "end"
		cut := rng.IntN(len(s) + 1)
		at, ok := b.Put([]byte(s[:cut]), []byte(s[cut:]))
		if ok != (used+Cost(len(s)) <= limit) {
			t.Fatalf("%d of %d bytes are used, and Put of %d says %t", used, limit, len(s), ok)
		}
		if ok {
			kept[at] = s
			used += Cost(len(s))
		}
		if b.Used() != used {
			t.Fatalf("%d bytes are used, want %d", b.Used(), used)
		}
		for at, s := range kept {
			from := rng.IntN(len(s))
			n := rng.IntN(len(s) - from + 1)
			if got := b.Append([]byte("x"), at, from, n); string(got) != "x"+s[from:from+n] {
				t.Fatalf("%q came out, want %q", got[1:], s[from:from+n])
			}
			if !b.HasPrefix(at, s[:n]) || b.HasPrefix(at, s[:len(s)-1]+"!") {
				t.Fatalf("%q has not its own prefix, or another's", s)
			}
			break
		}
	}
}

func TestTheEmptyStringTakesNothing(t *testing.T) {
	b, err := NewBytes(0)
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := b.Put(nil, []byte{}); at != 0 || !ok {
		t.Errorf("it is at %d, %t", at, ok)
	}
	b.Free(0)
	if got := b.Append(nil, 0, 0, 0); len(got) != 0 || !b.HasPrefix(0, "") {
		t.Errorf("it is %q", got)
	}
}

// chain are records for an Index, by their keys.
type chain struct {
	keys []uint64
	next []uint32
}

func (c *chain) Hash(i uint32) uint64  { return c.keys[i] }
func (c *chain) Next(i uint32) *uint32 { return &c.next[i] }

// An Index finds all records of a hash, while it grows and after it was emptied.
func TestAnIndexAgainstAMap(t *testing.T) {
	const limit = 3 * keptMost
	x, err := NewIndex(limit / 2) // fewer buckets than records
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(2, 1))
	c := &chain{keys: make([]uint64, limit+1), next: make([]uint32, limit+1)}
	in := map[uint32]bool{}
	for step := range 200_000 {
		i := 1 + rng.Uint32N(limit)
		switch {
		case step%50_000 == 49_999:
			for i := range in {
				x.Remove(i, c)
				delete(in, i)
			}
		case in[i]:
			x.Remove(i, c)
			delete(in, i)
		default:
			c.keys[i] = rng.Uint64() % (3 * limit) * 0x9e3779b97f4a7c15
			x.Add(i, c)
			in[i] = true
		}
		for i := range in {
			found := x.First(c.keys[i])
			for found != i && found != 0 {
				found = *c.Next(found)
			}
			if found == 0 {
				t.Fatalf("step %d: record %d is not found", step, i)
			}
			break
		}
	}
}

func TestRecordsAreZeroedAndReused(t *testing.T) {
	const limit = keptMost + 10
	r, err := NewRecords[[2]uint64](limit)
	if err != nil {
		t.Fatal(err)
	}
	var taken []uint32
	for r.Room() > 0 {
		i := r.Take()
		*r.At(i) = [2]uint64{1, 1}
		taken = append(taken, i)
	}
	if len(taken) != limit || r.Take() != 0 {
		t.Fatalf("%d were taken, and another one", len(taken))
	}
	r.Put(taken[1])
	if i := r.Take(); i != taken[1] || *r.At(i) != [2]uint64{} {
		t.Errorf("record %d is %v", i, *r.At(i))
	}
	for _, i := range taken {
		r.Put(i)
	}
	if i := r.Take(); i != 1 || r.Used() != 1 || *r.At(i) != [2]uint64{} {
		t.Errorf("after all were freed %d is taken, %d used", i, r.Used())
	}
}

// Records need no alignment.
func TestRecordsOfOddSizes(t *testing.T) {
	type odd struct{ a, b Uint24 }
	r, err := NewRecords[odd](10)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint32(1); i <= 10; i++ {
		if at := r.Take(); at != i {
			t.Fatalf("%d was taken, want %d", at, i)
		}
		*r.At(i) = odd{ToUint24(i), ToUint24(Uint24Max - i)}
	}
	r.Put(7)
	r.Put(3)
	for _, want := range []uint32{3, 7} {
		if i := r.Take(); i != want || *r.At(i) != (odd{}) {
			t.Errorf("%d was taken, want %d; it is %v", i, want, *r.At(i))
		}
	}
	if o := r.At(8); o.a.Uint32() != 8 || o.b.Uint32() != Uint24Max-8 {
		t.Errorf("its neighbour is %d, %d", o.a.Uint32(), o.b.Uint32())
	}
}

func TestAUint24IsTheLowBits(t *testing.T) {
	for _, n := range []uint32{0, 1, 0x010203, Uint24Max, Uint24Max + 2, 1<<32 - 1} {
		if got := ToUint24(n).Uint32(); got != n&Uint24Max {
			t.Errorf("%#x became %#x", n, got)
		}
	}
}

func BenchmarkBytes(b *testing.B) {
	s, err := NewBytes(1 << 20)
	if err != nil {
		b.Fatal(err)
	}
	data := bytes.Repeat([]byte("x"), 136)
	buf := make([]byte, 0, 200)
	for b.Loop() {
		at, _ := s.Put(data)
		buf = s.Append(buf[:0], at, 0, len(data))
		s.Free(at)
	}
}
