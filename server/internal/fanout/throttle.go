package fanout

import (
	"sync"
	"sync/atomic"
)

// Throttle bounds the publications that are on their way, and makes publishers
// wait until receivers have got on. Any goroutine may use it.
//
// There are two bounds. A publisher that can be made to wait does so at the
// lower one, which is small enough for every receiver's Box; nothing is taken
// beyond the upper one. Who publishes to everybody waits too while receivers are
// congested: they read, and not as fast as they are sent to. Who publishes to a
// topic does not, because they may be receivers of other topics: nobody shall hold
// up those with whom he has nothing to do.
type Throttle struct {
	// constant
	most  int64  // bytes on their way
	early int64  // bytes at which publishers wait
	room  func() // is told when reactors' waiting publishers may go on

	inFlight  atomic.Int64
	congested atomic.Int64 // receivers
	awaited   atomic.Bool  // a reactor waits

	mu   sync.Mutex
	free sync.Cond // waiting goroutines
}

// NewThrottle makes a Throttle of two bounds in bytes. room is called when
// AwaitRoom's wait is over.
func NewThrottle(most, early int64, room func()) *Throttle {
	t := &Throttle{most: most, early: min(early, most), room: room}
	t.free.L = &t.mu
	return t
}

// InFlight is how many bytes are on their way.
func (t *Throttle) InFlight() int64 { return t.inFlight.Load() }

// TryAdd takes room for a publication. It returns false if there is none, which is
// so from when the bound is reached: it may be exceeded by one publication.
func (t *Throttle) TryAdd(cost int64) bool { return t.tryAdd(cost, t.most) }

// TryAddLate is TryAdd for a publisher that was let go on when there was room,
// though others may have taken that meanwhile. It has twice the bound.
func (t *Throttle) TryAddLate(cost int64) bool { return t.tryAdd(cost, 2*t.most) }

func (t *Throttle) tryAdd(cost, most int64) bool {
	if t.inFlight.Add(cost)-cost >= most {
		t.Done(cost)
		return false
	}
	return true
}

// Done gives the room of a publication back.
func (t *Throttle) Done(cost int64) {
	t.inFlight.Add(-cost)
	t.release()
}

// Congested takes note that so many more receivers are congested.
func (t *Throttle) Congested(more int) {
	if t.congested.Add(int64(more)); more < 0 {
		t.release()
	}
}

// Crowded reports whether those who publish to everybody have to wait.
func (t *Throttle) Crowded() bool { return t.Loaded() || t.congested.Load() > 0 }

// Loaded reports whether everybody who publishes has to wait, to a topic too.
func (t *Throttle) Loaded() bool { return t.inFlight.Load() > t.early || t.Full() }

// Full reports whether TryAdd would refuse everything.
func (t *Throttle) Full() bool { return t.inFlight.Load() >= t.most }

// Wait waits until it is no longer crowded, and WaitTopic until it is no longer
// loaded.
func (t *Throttle) Wait() { t.wait(t.Crowded) }

func (t *Throttle) WaitTopic() { t.wait(t.Loaded) }

func (t *Throttle) wait(while func() bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for while() {
		t.free.Wait()
	}
}

// AwaitRoom has room called when it is no longer crowded. It returns false if it
// is not; then room will not be called.
func (t *Throttle) AwaitRoom() bool {
	t.awaited.Store(true)
	return t.Crowded() || !t.awaited.CompareAndSwap(true, false)
}

// release lets publishers go on whose wait may be over.
func (t *Throttle) release() {
	if t.Loaded() {
		return
	}
	t.mu.Lock()
	t.free.Broadcast()
	t.mu.Unlock()
	if !t.Crowded() && t.awaited.Load() && t.awaited.CompareAndSwap(true, false) {
		t.room()
	}
}
