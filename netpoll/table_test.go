package netpoll

import (
	"sync"
	"testing"
)

func TestATableIsZeroedWhenItsMemoryIsGivenBack(t *testing.T) {
	table, err := NewTable[uint64](100_000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range table.Len() {
		p := table.At(i)
		if *p != 0 || table.index(p) != i {
			t.Fatalf("cell %d holds %d and says that it is %d", i, *p, table.index(p))
		}
		*p = uint64(i + 1)
	}
	table.Zero()
	for i := range table.Len() {
		if *table.At(i) != 0 {
			t.Fatalf("cell %d holds %d", i, *table.At(i))
		}
	}
}

// Any goroutine may ask whether a token is stale, while slots are taken and put
// back.
func TestAnyGoroutineMayAskWhetherATokenIsLive(t *testing.T) {
	s := newSlots(t, 2)
	keeper := s.Token(s.Take(1))
	over := make(chan bool)
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if !s.Live(keeper) {
					t.Error("the slot in use is stale")
					return
				}
			}
		})
	}
	for range 10_000 {
		p := s.Take(2)
		token := s.Token(p)
		if !s.Live(token) {
			t.Fatal("a slot is stale that was just taken")
		}
		if s.Put(p); s.Live(token) {
			t.Fatal("a slot is live that was put back")
		}
		s.Reclaim()
	}
	close(over)
	asking.Wait()
	s.Put(s.Take(2))
	if free := (Token{Slot: 1}); s.Live(free) || s.Get(free) != nil {
		t.Error("a free slot is live")
	}
	if s.Live(Token{Slot: 2, Gen: keeper.Gen}) || s.Live(Token{Slot: 1 << 31, Gen: 1}) {
		t.Error("slots are live that do not exist")
	}
	if s.Close(); s.Live(keeper) {
		t.Error("a slot is live after the end of the table")
	}
}
