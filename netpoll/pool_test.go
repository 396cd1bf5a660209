package netpoll

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// check compares a pool's table with its free list and Used.
func (p *Pool[T]) check(t *testing.T) {
	t.Helper()
	used := 0
	for _, v := range p.all {
		if v != nil {
			used++
		}
	}
	for _, i := range p.free {
		if p.all[i-1] != nil {
			t.Fatalf("index %d is free and in use", i)
		}
	}
	if used != p.Used() || used+len(p.free) != len(p.all) {
		t.Fatalf("%d used, %d free of %d, but Used %d", used, len(p.free), len(p.all), p.Used())
	}
	if len(p.spare) > spareMost {
		t.Fatalf("%d spare ones are kept", len(p.spare))
	}
	if used == 0 && len(p.all) > spareMost {
		t.Fatalf("a table of %d is kept although no index is in use", len(p.all))
	}
}

func TestPoolAgainstAModel(t *testing.T) {
	p := NewPool[int](nil)
	rng := rand.New(rand.NewPCG(3, 4))
	live := map[uint32]int{}
	var indices []uint32 // of live, in any order
	drop := func(n int) {
		i := indices[n]
		p.Put(i)
		delete(live, i)
		indices[n] = indices[len(indices)-1]
		indices = indices[:len(indices)-1]
		if p.At(i) != nil {
			t.Fatalf("index %d is free and names something", i)
		}
	}
	for phase := range 20 {
		most := []int{10, 500}[phase%2]
		for step := range 2000 {
			switch n := rng.IntN(10); {
			case n < 5 && len(live) < most:
				i := p.Take()
				_, known := live[i]
				v := p.At(i)
				if i == 0 || known || v == nil || *v != 0 {
					t.Fatalf("took %d, known %v", i, known)
				}
				*v = rng.Int()
				live[i] = *v
				indices = append(indices, i)
			case n < 9 && len(live) > 0:
				drop(rng.IntN(len(indices)))
			default:
				seen := map[uint32]bool{}
				want := rng.IntN(2 * most)
				for i, v := range p.Each(want) {
					if seen[i] || v != p.At(i) || *v != live[i] {
						t.Fatalf("Each finds %d, seen %v: %d, want %d", i, seen[i], *v, live[i])
					}
					seen[i] = true
				}
				if len(seen) != min(want, len(live)) {
					t.Fatalf("Each(%d) found %d of %d", want, len(seen), len(live))
				}
			}
			if len(indices) > 0 {
				if i := indices[step%len(indices)]; *p.At(i) != live[i] {
					t.Fatalf("index %d is %d, want %d", i, *p.At(i), live[i])
				}
			}
			p.check(t)
		}
		for len(indices) > 0 {
			drop(len(indices) - 1)
		}
		p.check(t)
	}
}

func TestZeroNamesNothingInAPool(t *testing.T) {
	p := NewPool[int](nil)
	if p.At(0) != nil || p.At(1) != nil {
		t.Error("an empty pool has something")
	}
	if i := p.Take(); i != 1 || p.At(1) == nil || p.At(0) != nil {
		t.Errorf("the first index is %d", i)
	}
}

func TestAPoolWithoutAResetGivesZeroValues(t *testing.T) {
	p := NewPool[int](nil)
	i := p.Take()
	*p.At(i) = 7
	p.Put(i)
	if v := *p.At(p.Take()); v != 0 {
		t.Errorf("took %d", v)
	}
}

func TestWhatResetLeavesIsTakenAgain(t *testing.T) {
	p := NewPool(func(b *[]byte) { *b = (*b)[:0] })
	i := p.Take()
	*p.At(i) = make([]byte, 10)
	p.Put(i)
	if b := *p.At(p.Take()); len(b) != 0 || cap(b) != 10 {
		t.Errorf("%d bytes of %d", len(b), cap(b))
	}
}

func TestTakingAndPuttingDoesNotAllocate(t *testing.T) {
	p := NewPool[[64]byte](nil)
	p.Take()
	if n := testing.AllocsPerRun(1000, func() {
		for range spareMost {
			p.Take()
		}
		for i := range uint32(spareMost) {
			p.Put(i + 2)
		}
		for range p.Each(3) {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Repeated calls of Each come to all indices in use, one after the other.
func TestEachGoesRound(t *testing.T) {
	p := NewPool[int](nil)
	for range 10 {
		p.Take()
	}
	p.Put(4)
	p.Put(10)
	var got []uint32
	for range 4 {
		for i := range p.Each(3) {
			got = append(got, i)
		}
	}
	want := []uint32{1, 2, 3, 5, 6, 7, 8, 9, 1, 2, 3, 5}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// The index at which a loop ended counts as seen.
func TestEachGoesOnAfterALoopThatEndedEarly(t *testing.T) {
	p := NewPool[int](nil)
	for range 3 {
		p.Take()
	}
	for want := range uint32(6) {
		for i := range p.Each(3) {
			if i != want%3+1 {
				t.Fatalf("%d, want %d", i, want%3+1)
			}
			break
		}
	}
}

func TestTheLoopOverAPoolMayChangeIt(t *testing.T) {
	p := NewPool[int](nil)
	const many = 5 * spareMost
	for range many {
		p.Take()
	}
	seen := 0
	for i := range p.Each(many) { // the table is forgotten with the last
		p.Put(i)
		seen++
	}
	if seen != many || p.Used() != 0 {
		t.Errorf("%d of %d seen, %d left", seen, many, p.Used())
	}
	p.check(t)

	p.Take()
	seen = 0
	for range p.Each(many) {
		p.Take()
		seen++
	}
	if seen != many || p.Used() != many+1 {
		t.Errorf("%d seen, %d in use", seen, p.Used())
	}
	p.check(t)
}
