package server

import (
	"math/bits"
	"sync/atomic"
	"time"
)

func microseconds(d time.Duration) uint64 { return uint64(max(0, d/time.Microsecond)) }

// Histogram counts values by their size: bucket i those below 2^i and not
// below 2^(i-1), the last all above.
type Histogram struct {
	Buckets [histogramBuckets]uint64
	Sum     uint64
}

const histogramBuckets = 32

func bucketOf(v uint64) int { return min(bits.Len64(v), histogramBuckets-1) }

// Count is how many values there are.
func (h *Histogram) Count() (n uint64) {
	for _, b := range h.Buckets {
		n += b
	}
	return n
}

func (h *Histogram) add(v uint64) {
	h.Buckets[bucketOf(v)]++
	h.Sum += v
}

func (h *Histogram) merge(other *Histogram) {
	for i, n := range other.Buckets {
		h.Buckets[i] += n
	}
	h.Sum += other.Sum
}

// histogram is one that may be read while values are added.
type histogram struct {
	buckets [histogramBuckets]atomic.Uint64
	sum     atomic.Uint64
}

func (h *histogram) add(v uint64) {
	h.buckets[bucketOf(v)].Add(1)
	h.sum.Add(v)
}

func (h *histogram) addTo(sum *Histogram) {
	for i := range h.buckets {
		sum.Buckets[i] += h.buckets[i].Load()
	}
	sum.Sum += h.sum.Load()
}
