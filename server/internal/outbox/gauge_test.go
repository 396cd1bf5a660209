package outbox

import (
	"sync"
	"testing"
)

// Many senders add and one reactor subtracts. The sum never exceeds the bound, nothing is
// lost, and the flags do not change the sum.
func TestAGaugeIsNeverAboveItsBound(t *testing.T) {
	const senders, each, size = 8, 500, 100
	bound, low := SizeOf(20, 1500), SizeOf(2, 200)
	var g Gauge
	added := make(chan Size, 1<<10)
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for n := 0; n < each; {
				if g.TryAdd(SizeOf(1, size), bound) == nil {
					added <- SizeOf(1, size)
					n++
				}
				if s := g.Load(); s.Exceeds(bound) {
					t.Errorf("%d messages and %d bytes wait", s.Messages(), s.Bytes())
					return
				}
			}
		})
	}
	go func() {
		sending.Wait()
		close(added)
	}()
	n := 0
	for s := range added {
		if n++; n%3 == 0 {
			g.Told()
		} else {
			g.Refuse()
		}
		g.Sub(s, low)
	}
	if s := g.Load(); s != 0 || n != senders*each {
		t.Errorf("%x is left of %d messages", s, n)
	}
}

func TestAMessageIsAddedWhateverItsSizeWhileHalfIsFree(t *testing.T) {
	var g Gauge
	bound := SizeOf(2, 100)
	for _, row := range []struct {
		size int
		want error
	}{{50, nil}, {1000, nil}, {1, ErrFull}} {
		if err := g.TryAdd(SizeOf(1, row.size), bound); err != row.want {
			t.Errorf("%d bytes: %v, want %v", row.size, err, row.want)
		}
	}
	g.Sub(SizeOf(2, 1050), 0)
	for range 2 {
		if err := g.TryAdd(SizeOf(1, 10), bound); err != nil {
			t.Error(err)
		}
	}
	if err := g.TryAdd(SizeOf(1, 10), bound); err != ErrFull {
		t.Errorf("a third message: %v", err)
	}
}

func TestAClosedGaugeTakesNothing(t *testing.T) {
	var g Gauge
	g.Add(SizeOf(3, 300))
	if g.Close(); g.TryAdd(SizeOf(1, 1), SizeOf(MessagesMax, BytesMax)) != ErrClosed {
		t.Error("a message was added")
	}
	if !g.Refuse() || g.Refuse() {
		t.Error("only the first refusal has to be reported")
	}
	if g.Told(); !g.Refuse() {
		t.Error("after that a later refusal has to be reported too")
	}
	if g.Open(); g.Load() != SizeOf(3, 300) || g.TryAdd(SizeOf(1, 1), SizeOf(MessagesMax, BytesMax)) != nil {
		t.Errorf("%x waits", g.Load())
	}
}

// After an Await, exactly one Sub reports the fall: the one that makes the gauge low.
func TestAnAwaitedFallIsReportedOnce(t *testing.T) {
	var g Gauge
	low := SizeOf(1, 100)
	if g.Await(low) {
		t.Error("a gauge at zero is awaited")
	}
	g.Add(SizeOf(3, 300))
	if !g.Await(low) {
		t.Error("a high gauge is not awaited")
	}
	for i, want := range []bool{false, true, false} {
		if fallen := g.Sub(SizeOf(1, 100), low); fallen != want {
			t.Errorf("Sub %d tells %v, want %v", i, fallen, want)
		}
	}
}

// If Await and Sub run at the same time, exactly one of them sees the fall.
func TestAFallIsNeverMissed(t *testing.T) {
	for range 3_000 {
		var g Gauge
		g.Add(SizeOf(1, 10))
		told := make(chan bool, 2)
		go func() { told <- g.Sub(SizeOf(1, 10), 0) }()
		go func() { told <- !g.Await(0) }()
		if a, b := <-told, <-told; a == b {
			t.Fatalf("the fall was seen by both or by neither: %v", a)
		}
	}
}

func TestPartsOfABound(t *testing.T) {
	bound := SizeOf(1024, 64<<10)
	if half := bound.Part(2); half.Messages() != 512 || half.Bytes() != 32<<10 {
		t.Errorf("half is %d messages and %d bytes", half.Messages(), half.Bytes())
	}
	for _, s := range []Size{SizeOf(513, 0), SizeOf(0, 32<<10+1)} {
		if !s.Exceeds(bound.Part(2)) || s.Exceeds(bound) {
			t.Errorf("%x is between half and all", s)
		}
	}
}
