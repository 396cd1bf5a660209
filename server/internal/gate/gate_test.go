package gate

import (
	"sync"
	"testing"
)

func TestNoMoreComeInThanThereIsRoomFor(t *testing.T) {
	g := New(10, 100)
	var in sync.WaitGroup
	entered := make(chan bool, 100)
	for range 100 {
		in.Go(func() { entered <- g.Enter() })
	}
	in.Wait()
	close(entered)
	n := 0
	for ok := range entered {
		if ok {
			n++
		}
	}
	if n != 10 || g.Open() != 10 {
		t.Errorf("%d came in, %d are open, want 10", n, g.Open())
	}
	if g.Leave(); !g.Enter() || g.Enter() {
		t.Error("one that leaves makes room for one")
	}
	if g.Readmit(); g.Open() != 11 {
		t.Error("one that stays is counted whatever the limit")
	}
}

func TestRequestHeadsHaveABudget(t *testing.T) {
	g := New(1, 100)
	if !g.Ask(60) || g.Ask(41) || !g.Ask(40) {
		t.Error("the budget is not kept")
	}
	if g.Asked(60); !g.Ask(60) {
		t.Error("what was decided makes no room")
	}
}

func TestRejectionsAreCountedByStatus(t *testing.T) {
	g := New(1, 1)
	for _, status := range []int{403, 503, 503, -1, 600} {
		g.Reject(status)
	}
	if got := g.Rejected(); len(got) != 2 || got[403] != 1 || got[503] != 2 {
		t.Errorf("counted %v", got)
	}
}
