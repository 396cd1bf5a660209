package hooks

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// breaker decides whether a backend is down.
//
//	up ──so many failures in a row──▶ down ──a probe succeeds──▶ up
//
// While it is down nothing is sent to the backend but probes, after longer and longer
// pauses. Any goroutine may use it.
type breaker struct {
	most int // failures in a row

	failures atomic.Int64
	isDown   atomic.Bool

	mu    sync.Mutex
	since time.Time     // when it went down; guarded by mu
	cause error         // of the last failure; guarded by mu
	pause time.Duration // before the next probe; guarded by mu
	next  time.Time     // when that is; guarded by mu
}

// Pauses before probes.
const (
	pauseFirst = 100 * time.Millisecond
	pauseMost  = 5 * time.Second
)

// up notes that the backend has answered.
func (b *breaker) up() {
	if b.failures.Load() != 0 && !b.isDown.Load() {
		b.failures.Store(0)
	}
}

// fail notes that it has not. It returns true when the backend is down from now on.
func (b *breaker) fail(now time.Time, cause error) (trips bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cause = cause
	if b.failures.Add(1) < int64(b.most) || b.isDown.Load() {
		return false
	}
	b.isDown.Store(true)
	b.since, b.pause, b.next = now, pauseFirst, now.Add(pauseFirst)
	return true
}

// down reports whether the backend is down.
func (b *breaker) down() bool { return b.isDown.Load() }

// wait is how long it is until the next probe.
func (b *breaker) wait(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, b.next.Sub(now))
}

// probed notes what came of a probe, nil if the backend has answered.
func (b *breaker) probed(now time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.failures.Store(0)
		b.isDown.Store(false)
		return
	}
	b.cause = err
	b.pause = min(2*b.pause, pauseMost)
	b.next = now.Add(b.pause - time.Duration(rand.Int64N(int64(b.pause)/4)))
}

// state is what there is to know about the backend: whether it is down, since when, and why.
func (b *breaker) state() (down bool, since time.Time, cause string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isDown.Load() {
		return false, since, ""
	}
	return true, b.since, b.cause.Error()
}
