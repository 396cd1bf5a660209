package server

import (
	"sync"
	"testing"
)

// Many add and one takes away, and nothing ever exceeds the bound or gets lost;
// flags and sums do not touch each other.
func TestADebtIsNeverMoreThanItsBound(t *testing.T) {
	const senders, each, size = 8, 2000, 100
	bound := owing(20, 1500)
	var d debt
	added := make(chan owed, 1<<10)
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for n := 0; n < each; {
				if d.tryAdd(owing(1, size), bound) == nil {
					added <- owing(1, size)
					n++
				}
				if o, _ := d.load(); o.over(bound) {
					t.Errorf("%d messages and %d bytes are owed", o.messages(), o.bytes())
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
	for o := range added {
		n++
		d.slow(n%2 == 0)
		if n%3 == 0 {
			d.heard()
		} else {
			d.refuse()
		}
		d.sub(o)
	}
	if o, slow := d.load(); o != 0 || slow != (n%2 == 0) || n != senders*each {
		t.Errorf("%x is left of %d, slow is %v", o, n, slow)
	}
}

func TestASingleMessagePassesWhateverItsSize(t *testing.T) {
	var d debt
	bound := owing(2, 100)
	for _, row := range []struct {
		size int
		want error
	}{{1000, nil}, {1, ErrSlow}} {
		if err := d.tryAdd(owing(1, row.size), bound); err != row.want {
			t.Errorf("%d bytes: %v, want %v", row.size, err, row.want)
		}
	}
	d.sub(owing(1, 1000))
	for range 2 {
		if err := d.tryAdd(owing(1, 10), bound); err != nil {
			t.Error(err)
		}
	}
	if err := d.tryAdd(owing(1, 10), bound); err != ErrSlow {
		t.Errorf("a third message: %v", err)
	}
}

func TestAClosedDebtTakesNothing(t *testing.T) {
	var d debt
	d.add(owing(3, 300))
	if d.close(); d.tryAdd(owing(1, 1), unbounded) != ErrClosed {
		t.Error("a message was added")
	}
	if !d.refuse() || d.refuse() {
		t.Error("the first refusal, and no other, has to be told")
	}
	if d.heard(); !d.refuse() {
		t.Error("what was heard can be told again")
	}
	d.open()
	if o, slow := d.load(); o != owing(3, 300) || slow || d.tryAdd(owing(1, 1), unbounded) != nil {
		t.Errorf("%x is owed, slow is %v", o, slow)
	}
}

func TestPartsOfABound(t *testing.T) {
	bound := owing(1024, 64<<10)
	if half := bound.part(2); half.messages() != 512 || half.bytes() != 32<<10 {
		t.Errorf("half is %d messages and %d bytes", half.messages(), half.bytes())
	}
	for _, o := range []owed{owing(513, 0), owing(0, 32<<10+1)} {
		if !o.over(bound.part(2)) || o.over(bound) {
			t.Errorf("%x is between half and all", o)
		}
	}
}
