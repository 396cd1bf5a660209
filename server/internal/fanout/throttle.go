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
// beyond the upper one. A publisher waits too while receivers are congested:
// they read, and not as fast as they are sent to.
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

// Crowded reports whether publishers have to wait.
func (t *Throttle) Crowded() bool {
	return t.inFlight.Load() > t.early || t.Full() || t.congested.Load() > 0
}

// Full reports whether TryAdd would refuse everything.
func (t *Throttle) Full() bool { return t.inFlight.Load() >= t.most }

// Wait waits until it is no longer crowded.
func (t *Throttle) Wait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.Crowded() {
		t.free.Wait()
	}
}

// AwaitRoom has room called when it is no longer crowded. It returns false if it
// is not; then room will not be called.
func (t *Throttle) AwaitRoom() bool {
	t.awaited.Store(true)
	return t.Crowded() || !t.awaited.CompareAndSwap(true, false)
}

// release lets publishers go on if it is no longer crowded.
func (t *Throttle) release() {
	if t.Crowded() {
		return
	}
	t.mu.Lock()
	t.free.Broadcast()
	t.mu.Unlock()
	if t.awaited.Load() && t.awaited.CompareAndSwap(true, false) {
		t.room()
	}
}
