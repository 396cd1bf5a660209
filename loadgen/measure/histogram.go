package measure

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Kind names a distribution of times.
type Kind int

// What is timed.
const (
	Handshake Kind = iota // from when a connection was meant to begin until it is open, TCP and TLS included
	TLS                   // of that, TLS's handshake
	Broadcast             // from when a message was meant to be published to a receiver
	Echo                  // from when a message was meant to be sent to its answer, for users that wait for it
	Flood                 // the same for users that do not wait
	Away                  // from a connection's end until it is open again
	Pong                  // from a Ping to its Pong
	Lag                   // how late the generator was, at the most: data may have waited so long to be read, and messages were sent so late
	Kinds                 // how many kinds there are
)

var kindNames = [Kinds]string{"handshake", "tls", "broadcast", "echo", "flood", "away", "pong", "lag"}

// String is the kind's name in results and thresholds, such as "handshake".
func (k Kind) String() string { return kindNames[k] }

// KindOf is the kind with a name.
func KindOf(name string) (k Kind, known bool) {
	i := slices.Index(kindNames[:], name)
	return Kind(i), i >= 0
}

// A histogram holds microseconds in two significant digits, up to a day.
const (
	microsMax = int64(24 * time.Hour / time.Microsecond)
	digits    = 2
)

// NewHistogram returns an empty histogram of microseconds, 31 KB large. It holds
// times from 1 µs to a day in two significant digits.
func NewHistogram() *hdr.Histogram { return spare.Get().(*hdr.Histogram) }

// spare are empty histograms that nobody has.
var spare = sync.Pool{New: func() any { return hdr.New(1, microsMax, digits) }}

// Record adds a time to h. It returns false if h cannot hold it: below zero, because
// a clock is wrong, or more than a day. h then has its least or greatest instead.
func Record(h *hdr.Histogram, d time.Duration) bool {
	micros := d.Microseconds()
	_ = h.RecordValue(min(max(1, micros), microsMax)) // fails only out of range
	return d >= 0 && micros <= microsMax
}

// Buckets iterates over the buckets of h that are not empty, in ascending order: the
// greatest value that is counted in the bucket, and how many are.
func Buckets(h *hdr.Histogram) iter.Seq2[int64, int64] {
	const half = 128 // the buckets of each power of two, for two digits; below twice that, each has one value
	return func(yield func(most, count int64) bool) {
		for i, n := range h.Export().Counts {
			i, bits := int64(i), max(0, i/half-1)
			if n > 0 && !yield((i-int64(bits)*half+1)<<bits-1, n) {
				return
			}
		}
	}
}

// Histograms has a histogram of each kind. Those in which nothing was recorded are
// nil.
type Histograms [Kinds]*hdr.Histogram

// Of returns the histogram of a kind, which is empty if nothing was recorded.
func (h *Histograms) Of(k Kind) *hdr.Histogram {
	if h[k] == nil {
		return NewHistogram()
	}
	return h[k]
}

// Record adds a time to a kind's histogram, and reports whether it can hold it.
func (h *Histograms) Record(k Kind, d time.Duration) bool {
	if h[k] == nil {
		h[k] = NewHistogram()
	}
	return Record(h[k], d)
}

// Merge adds what other has to h. It keeps nothing of other.
func (h *Histograms) Merge(other *Histograms) {
	for k, from := range other {
		if from == nil {
			continue
		}
		if h[k] == nil {
			h[k] = NewHistogram()
		}
		h[k].Merge(from)
	}
}

// Take returns what h has, and empties h.
func (h *Histograms) Take() Histograms {
	all := *h
	*h = Histograms{}
	return all
}

// Free empties h, and lets NewHistogram give its histograms away again: nobody may use
// them any more.
func (h *Histograms) Free() {
	for _, used := range h {
		if used != nil {
			used.Reset()
			spare.Put(used)
		}
	}
	*h = Histograms{}
}

// MarshalText encodes h for another process, in the compressed format of
// HdrHistogram's log, one kind a line.
func (h Histograms) MarshalText() ([]byte, error) {
	var text []byte
	for k, from := range h {
		if from == nil {
			continue
		}
		b, err := from.Encode(hdr.V2CompressedEncodingCookieBase)
		if err != nil {
			return nil, fmt.Errorf("measure: encode a histogram: %w", err)
		}
		text = fmt.Appendf(text, "%s %s\n", Kind(k), b)
	}
	return text, nil
}

// histogramText is the longest encoded histogram that UnmarshalText takes, in bytes.
const histogramText = 64 << 10

// UnmarshalText reads what MarshalText wrote. It refuses kinds that it does not know,
// and histograms of other bounds, which cannot be merged.
func (h *Histograms) UnmarshalText(text []byte) error {
	*h = Histograms{}
	for line := range splitLines(text) {
		name, encoded, ok := cut(line)
		k, known := KindOf(name)
		if !ok || !known || len(encoded) > histogramText {
			return errHistogram
		}
		from, err := hdr.Decode(encoded)
		if err != nil || from.HighestTrackableValue() != microsMax || from.SignificantFigures() != digits {
			return errHistogram
		}
		h[k] = from
	}
	return nil
}

var errHistogram = errors.New("measure: these histograms are damaged, or those of another version")
