package netpoll

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

type testSlot struct {
	Slot
	value uint64
}

func newSlots(t *testing.T, limit int) *Slots[testSlot, *testSlot] {
	t.Helper()
	s, err := NewSlots[testSlot](limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// check walks the table and compares it with Used and High.
func (s *Slots[T, P]) check(t *testing.T) {
	t.Helper()
	used := 0
	for i := range s.High() {
		if s.At(i) != nil {
			used++
		}
	}
	free := len(s.retired)
	for i := s.free; i != noSlot; i = P(s.table.At(int(i))).slot().FD {
		free++
	}
	if used != s.Used() || used+free != s.High() {
		t.Fatalf("%d used, %d free, but Used %d, High %d", used, free, s.Used(), s.High())
	}
}

func TestSlotsAgainstAModel(t *testing.T) {
	type entry struct {
		token Token
		value uint64
	}
	s := newSlots(t, 64)
	rng := rand.New(rand.NewPCG(1, 2))
	var live []entry
	var stale []Token
	for step := range 20_000 {
		switch n := rng.IntN(10); {
		case n < 5:
			full := s.Full()
			p := s.Take(step)
			if (p == nil) != full {
				t.Fatalf("step %d: Take = %v with %d of %d used", step, p, len(live), s.Limit())
			}
			if p == nil {
				break
			}
			if p.value != 0 || p.FD != int32(step) {
				t.Fatalf("step %d: a new slot is %+v", step, p)
			}
			p.value = rng.Uint64()
			live = append(live, entry{s.Token(p), p.value})
		case n < 9 && len(live) > 0:
			i := rng.IntN(len(live))
			p := s.Get(live[i].token)
			s.Put(p)
			if p.value != live[i].value {
				t.Fatal("Put changed a slot before Reclaim")
			}
			stale = append(stale, live[i].token)
			live[i] = live[len(live)-1]
			live = live[:len(live)-1]
		default:
			s.Reclaim()
		}
		for _, e := range live {
			if p := s.Get(e.token); p == nil || p.value != e.value {
				t.Fatalf("step %d: %v is %v, want %d", step, e.token, p, e.value)
			}
		}
		if len(stale) > 0 {
			if token := stale[rng.IntN(len(stale))]; s.Get(token) != nil {
				t.Fatalf("step %d: stale %v found a slot", step, token)
			}
		}
		s.check(t)
	}
}

func TestASlotIsNotReusedBeforeReclaim(t *testing.T) {
	s := newSlots(t, 4)
	a, keep := s.Take(1), s.Take(2)
	old := s.Token(a)
	s.Put(a)
	if b := s.Take(3); b == a {
		t.Fatal("taken again in the same turn")
	}
	s.Reclaim()
	c := s.Take(4)
	if c != a {
		t.Fatal("not taken again after Reclaim")
	}
	if s.Get(old) != nil || s.Get(s.Token(c)) != c || s.Get(s.Token(keep)) != keep {
		t.Error("tokens are mixed up")
	}
}

func TestTakeStopsAtTheLimit(t *testing.T) {
	s := newSlots(t, 3)
	for range 3 {
		if s.Take(1) == nil {
			t.Fatal("full too early")
		}
	}
	if s.Take(1) != nil {
		t.Error("took a fourth of three")
	}
}

func TestATableIsFullUntilReclaim(t *testing.T) {
	s := newSlots(t, 1)
	if s.Full() {
		t.Error("an empty table is full")
	}
	s.Put(s.Take(0))
	if !s.Full() || s.Take(1) != nil {
		t.Error("a slot is free that was Put and not reclaimed")
	}
	s.Reclaim()
	if s.Full() || s.Take(2) == nil {
		t.Error("a reclaimed slot is not free")
	}
}

func TestUnknownTokensAreStale(t *testing.T) {
	s := newSlots(t, 3)
	s.Take(1)
	for _, token := range []Token{{}, {0, 2}, {1, 0}, {1, 1}, {3, 1}, {1<<32 - 1, 1}} {
		if s.Get(token) != nil {
			t.Errorf("%v found a slot", token)
		}
	}
}

func TestGenerationsSkipZeroWhenTheyWrap(t *testing.T) {
	s := newSlots(t, 3)
	s.gen = 1<<32 - 1
	if p := s.Take(1); p.Gen != 1 {
		t.Errorf("generation %d, want 1", p.Gen)
	}
}

// resident counts the table's pages that are in memory.
func (s *Slots[T, P]) resident(t *testing.T) int {
	t.Helper()
	mem := s.table.bytes()
	pages := make([]byte, (len(mem)+4095)/4096)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	n := 0
	for _, p := range pages {
		n += int(p & 1)
	}
	return n
}

func TestMemoryFollowsUse(t *testing.T) {
	const limit = 1 << 20
	s := newSlots(t, limit)
	if n := s.resident(t); n != 0 {
		t.Errorf("%d pages resident before the first slot", n)
	}
	const used = 100_000
	taken := make([]*testSlot, used)
	for i := range taken {
		taken[i] = s.Take(i)
	}
	pages := used * int(unsafe.Sizeof(testSlot{})) / 4096
	if n := s.resident(t); n < pages || n > pages+1 {
		t.Errorf("%d pages resident for %d slots, want %d", n, used, pages)
	}
	last := s.Token(taken[used-1])
	for _, p := range taken {
		s.Put(p)
	}
	s.Reclaim()
	if n := s.resident(t); n != 0 {
		t.Errorf("%d pages resident after the last slot was freed", n)
	}
	if s.Take(1); s.Get(last) != nil {
		t.Error("a stale token found a slot after the memory was given back")
	}
	s.check(t)
}
