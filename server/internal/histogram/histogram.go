// Package histogram counts values by their size, while others read the counts.
package histogram

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets is how many buckets a histogram has. Bucket i counts the values below
// 2^i that are not below 2^(i-1); the last bucket counts all larger ones too.
const Buckets = 32

// Bucket returns the bucket of a value.
func Bucket(v uint64) int { return min(bits.Len64(v), Buckets-1) }

// Atomic is a histogram to which one or several goroutines add while any
// goroutine reads it. The zero value is empty.
type Atomic struct {
	buckets [Buckets]atomic.Uint64
	sum     atomic.Uint64
}

// Add counts a value.
func (h *Atomic) Add(v uint64) {
	h.buckets[Bucket(v)].Add(1)
	h.sum.Add(v)
}

// AddTime counts a duration, in microseconds.
func (h *Atomic) AddTime(d time.Duration) { h.Add(uint64(max(0, d/time.Microsecond))) }

// AddTo adds the counts to buckets and sum.
func (h *Atomic) AddTo(buckets *[Buckets]uint64, sum *uint64) {
	for i := range h.buckets {
		buckets[i] += h.buckets[i].Load()
	}
	*sum += h.sum.Load()
}
