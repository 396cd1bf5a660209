package web

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// The columns of a point. After them come three for each kind of times.
const (
	columnAt = iota // seconds since the run began, at the point's end
	columnUsers
	columnOpen
	columnOpening
	columnConnects // from here on: a second
	columnFailures
	columnIn
	columnOut
	columnBytesIn
	columnBytesOut
	columnCPU // from here on: parts of all processors, from 0 to 1
	columnBusy
	columnTimes // from here on: milliseconds
)

// Of each kind of times a point has these quantiles.
var quantiles = [...]struct {
	name string
	at   float64
}{{"p50", 50}, {"p99", 99}, {"max", 100}}

const columnsAll = columnTimes + int(measure.Kinds)*len(quantiles)

// columns are the columns' names.
var columns = func() []string {
	names := []string{"at", "users", "open", "opening", "connects", "failures", "in", "out", "bytes_in", "bytes_out", "cpu", "busy"}
	for k := range measure.Kinds {
		for _, q := range quantiles {
			names = append(names, k.String()+"_"+q.name)
		}
	}
	return names
}()

// point is a part of the run in numbers, one a column. NaN is what was not measured.
type point [columnsAll]float32

// Join makes one point of neighbours, which are equally long. Of quantiles the greater
// is kept: the true one of both together is not above it.
func (p point) Join(next point) point {
	for i := range next {
		switch {
		case i >= columnTimes:
			if !(next[i] >= p[i]) && !isNaN(p[i]) {
				next[i] = p[i]
			}
		case i >= columnConnects && isNaN(next[i]):
			next[i] = p[i]
		case i >= columnConnects && !isNaN(p[i]):
			next[i] = (p[i] + next[i]) / 2
		}
	}
	return next
}

func isNaN(x float32) bool { return x != x }

// MarshalJSON writes a list of numbers, with null for what was not measured.
func (p point) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, x := range p {
		if i > 0 {
			b = append(b, ',')
		}
		if isNaN(x) || math.IsInf(float64(x), 0) {
			b = append(b, "null"...)
			continue
		}
		b = strconv.AppendFloat(b, float64(x), 'f', -1, 32)
	}
	return append(b, ']'), nil
}

var _ json.Marshaler = point{}

// timeline is the run from its beginning until now, in a bounded number of points.
type timeline struct {
	history measure.History[point]

	// The point that is being made:
	first     measure.Snapshot // where it begins
	times     measure.Histograms
	cpu, busy float64 // seconds of all processors,
	over      float64 // of so many

	full time.Duration // the time of the last full snapshot
}

// add adds a snapshot to the point that is being made. The point ends with the first
// full snapshot that makes it long enough.
func (t *timeline) add(s *measure.Snapshot) {
	if s.Full() {
		passed := (s.At - t.full).Seconds()
		t.full = s.At
		t.cpu += s.CPU * passed
		t.busy += s.Busy * passed
		t.over += passed
		t.times.Merge(&s.Times)
	}
	if took, every := s.At-t.first.At, t.history.Every(); took >= 2*every || took >= every && s.Full() {
		t.end(s)
	}
}

// end ends the point that is being made, if time has passed since it began.
func (t *timeline) end(s *measure.Snapshot) {
	if s.At > t.first.At {
		t.history.Add(t.point(s))
		t.first = measure.Snapshot{At: s.At, Counts: s.Counts}
		t.cpu, t.busy, t.over, t.times = 0, 0, 0, measure.Histograms{}
	}
}

// point is the point that ends with s.
func (t *timeline) point(s *measure.Snapshot) (p point) {
	rates := s.Rates(&t.first)
	for i, x := range []float64{
		columnAt: s.At.Seconds(), columnUsers: float64(s.Users), columnOpen: float64(s.Open), columnOpening: float64(s.Opening),
		columnConnects: rates.Connects, columnFailures: rates.Failures, columnIn: rates.In, columnOut: rates.Out,
		columnBytesIn: rates.BytesIn, columnBytesOut: rates.BytesOut, columnCPU: t.cpu / t.over, columnBusy: t.busy / t.over, // NaN if there was no full snapshot
	} {
		p[i] = float32(x)
	}
	for k, h := range t.times {
		for i, q := range quantiles {
			p[columnTimes+k*len(quantiles)+i] = milliseconds(h, q.at)
		}
	}
	return p
}

// milliseconds is a quantile, or NaN if nothing was measured.
func milliseconds(h *hdr.Histogram, quantile float64) float32 {
	if h == nil || h.TotalCount() == 0 {
		return float32(math.NaN())
	}
	return float32(h.ValueAtQuantile(quantile)) / 1000
}

// since are copies of the points after a time, the oldest first.
func (t *timeline) since(at float32) []point {
	all := t.history.Points()
	first := len(all)
	for first > 0 && all[first-1][columnAt] > at {
		first--
	}
	return append([]point{}, all[first:]...) // in JSON, nil is no list
}
