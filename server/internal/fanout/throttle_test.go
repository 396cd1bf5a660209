package fanout

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestTheThrottleAcceptsNothingBeyondTheBound(t *testing.T) {
	th := NewThrottle(1000, 500, func() {})
	for i, row := range []struct {
		cost int64
		want bool
	}{{600, true}, {500, true}, {1, false}} {
		if got := th.TryAdd(row.cost); got != row.want {
			t.Errorf("publication %d was taken: %v", i, got)
		}
	}
	if !th.Full() || !th.TryAddLate(900) || th.TryAddLate(1) {
		t.Error("a late publisher has twice the bound")
	}
	for _, cost := range []int64{600, 500, 900} {
		th.Done(cost)
	}
	if !th.TryAdd(5000) || th.TryAdd(1) {
		t.Error("one publication has room whatever it costs, and no second one")
	}
}

func TestPublishersWaitAtTheLowerBoundAndForCongestedReceivers(t *testing.T) {
	th := NewThrottle(1000, 500, func() {})
	th.TryAdd(500)
	if th.Crowded() {
		t.Error("it is crowded at the bound")
	}
	th.TryAdd(1)
	if !th.Crowded() || th.Full() {
		t.Error("it is not crowded beyond the lower bound, or full below the upper one")
	}
	th.Done(501)
	th.Congested(1)
	if !th.Crowded() {
		t.Error("no publisher waits for a congested receiver")
	}
	if th.Loaded() {
		t.Error("a publisher to a topic waits for a congested receiver")
	}
	th.WaitTopic()
	th.Congested(-1)
	if th.Crowded() {
		t.Error("it is crowded for nothing")
	}
}

// A waiting publisher goes on after a release, on a goroutine as on a reactor, even if
// the wait begins at the same moment.
func TestNoPublisherWaitsForEver(t *testing.T) {
	for range 500 {
		var told atomic.Int32
		th := NewThrottle(1000, 100, func() { told.Add(1) })
		th.TryAdd(500)
		var all sync.WaitGroup
		all.Go(th.Wait)
		waits := make(chan bool, 1)
		all.Go(func() { waits <- th.AwaitRoom() })
		all.Go(func() { th.Done(500) })
		all.Wait()
		if want := int32(0); <-waits {
			want = 1
			if told.Load() != want {
				t.Fatal("a waiting reactor was not told that there is room")
			}
		}
	}
}

func TestTheLastReactorEndsAPublication(t *testing.T) {
	var got []Tally
	p := NewPublication(nil, nil, 0, 0, 2, func(t Tally) { got = append(got, t) })
	p.Passed(Tally{Sent: 1, Dropped: 2})
	if len(got) != 0 {
		t.Fatal("it is done before the last reactor has passed it")
	}
	p.Passed(Tally{Sent: 3, Queued: 4, Closed: 5})
	if len(got) != 1 || got[0].Last.IsZero() {
		t.Fatalf("it is done %d times", len(got))
	}
	if got[0].Last = (Tally{}).Last; got[0] != (Tally{Sent: 4, Queued: 4, Dropped: 2, Closed: 5}) {
		t.Errorf("it came to %+v", got[0])
	}
}
