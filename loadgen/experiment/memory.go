package experiment

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/procfs"
)

// Memory is what the connections needed when all were open and idle, and the most
// that it was during the broadcasts. The kernel's part is for both ends, because both
// are on this machine.
type Memory struct {
	ServerRSS       int64   `json:"server_rss_bytes"` // in all, with the program itself
	GeneratorRSS    int64   `json:"generator_rss_bytes"`
	ServerPerConn   float64 `json:"server_bytes_per_connection"` // grown by since there was none
	GenPerConn      float64 `json:"generator_bytes_per_connection"`
	MeasuredSeconds float64 `json:"measured_at_s"`

	ServerSlope    *Slope `json:"server_slope,omitempty"`
	GeneratorSlope *Slope `json:"generator_slope,omitempty"`
	KernelSlope    *Slope `json:"kernel_slope_both_ends,omitempty"` // of slabs and vmalloc

	// KernelPerConn is the sum of two: what slabs have grown by, or the objects in
	// them if those have grown by more, and what vmalloc has. The kernel takes back
	// slabs of other things while connections come, which hides growth of slabs but
	// not of objects.
	KernelPerConn float64 `json:"kernel_bytes_per_connection_both_ends"`
	SlabPerConn   float64 `json:"slab_bytes_per_connection_both_ends"`
	ActivePerConn float64 `json:"active_object_bytes_per_connection_both_ends,omitempty"` // 0 if it cannot be read, or there was no hold
	VmallocConn   float64 `json:"vmalloc_bytes_per_connection_both_ends"`

	ServerPeak    int64 `json:"server_rss_peak_bytes,omitempty"` // during the broadcasts
	GeneratorPeak int64 `json:"generator_rss_peak_bytes,omitempty"`
	KernelPeak    int64 `json:"kernel_growth_peak_bytes,omitempty"` // slabs and vmalloc, since there was no connection
}

// Slope is memory by connections: the straight line through samples with the least
// squares of errors. A process's fixed costs have no part in it.
type Slope struct {
	Bytes   float64 `json:"bytes_per_connection"`
	Error   float64 `json:"standard_error"`
	Samples int     `json:"samples"`
	From    int     `json:"from_connections"`
	To      int     `json:"to_connections"`
}

// String says how the slope was measured.
func (s *Slope) String() string {
	return fmt.Sprintf("±%.1f, %d samples from %s to %s connections", s.Error, s.Samples, count(float64(s.From)), count(float64(s.To)))
}

const (
	// slopeFrom is from how many connections on samples count. Until then processes
	// read pages of their program, and the runtime's heap grows.
	slopeFrom = 15_000
	// slopeSpan and slopeSamples are the least that makes a slope: with less, other
	// things than connections make the difference.
	slopeSpan    = 20_000
	slopeSamples = 8
)

// memory computes the figures from the samples. All connections are open and idle
// in the last sample of the hold, or of the ramp if there was no hold.
func memory(o *observer, conns int) Memory {
	empty, held := o.samples[0], o.lastOf("ramp", "hold")
	if held.Open > 0 { // fewer than wanted may be open
		conns = held.Open
	}
	per := func(now, before int64) float64 { return float64(now-before) / float64(conns) }
	m := Memory{
		ServerRSS: held.Server, GeneratorRSS: held.Generator, MeasuredSeconds: held.Seconds,
		ServerPerConn: per(held.Server, empty.Server),
		GenPerConn:    per(held.Generator, empty.Generator),
		SlabPerConn:   per(held.Slab, empty.Slab),
		VmallocConn:   per(held.Vmalloc, empty.Vmalloc),
	}
	if held.Active > 0 {
		m.ActivePerConn = per(held.Active, empty.Active)
	}
	m.KernelPerConn = max(m.SlabPerConn, m.ActivePerConn) + m.VmallocConn
	coming := o.during("ramp")
	m.ServerSlope = slope(coming, func(s Sample) int64 { return s.Server })
	m.GeneratorSlope = slope(coming, func(s Sample) int64 { return s.Generator })
	m.KernelSlope = slope(coming, Sample.kernel)
	for _, s := range o.during("broadcast") {
		m.ServerPeak, m.GeneratorPeak = max(m.ServerPeak, s.Server), max(m.GeneratorPeak, s.Generator)
		m.KernelPeak = max(m.KernelPeak, s.kernel()-empty.kernel())
	}
	return m
}

// slope is the slope of samples that were taken while connections came; nil for those that
// do not make one.
func slope(samples []Sample, of func(Sample) int64) *Slope {
	s := slopeOf(slices.DeleteFunc(samples, func(s Sample) bool { return s.Open < slopeFrom }), of)
	if s == nil || s.Samples < slopeSamples || s.To-s.From < slopeSpan {
		return nil
	}
	return s
}

// slopeOf is the slope of the first samples of each number of connections, nil with fewer
// than three.
func slopeOf(samples []Sample, of func(Sample) int64) *Slope {
	var x, y []float64
	for _, s := range samples {
		if len(x) == 0 || float64(s.Open) > x[len(x)-1] {
			x, y = append(x, float64(s.Open)), append(y, float64(of(s)))
		}
	}
	n := len(x)
	if n < 3 {
		return nil
	}
	b, e := regress(x, y)
	return &Slope{Bytes: b, Error: e, Samples: n, From: int(x[0]), To: int(x[n-1])}
}

// regress is the slope of the straight line through points that has the least squares
// of errors, and its standard error. At least three points are needed for the error.
func regress(x, y []float64) (b, standardError float64) {
	meanX, meanY := mean(x), mean(y)
	var xx, xy, yy float64
	for i := range x {
		dx, dy := x[i]-meanX, y[i]-meanY
		xx, xy, yy = xx+dx*dx, xy+dx*dy, yy+dy*dy
	}
	b = xy / xx
	rest := max(0, yy-b*xy) // the sum of squares that the line does not explain
	return b, math.Sqrt(rest / float64(len(x)-2) / xx)
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// resident is the memory of a process, in bytes; 0 if it has ended. It adds up the
// pages: /proc/PID/stat has a sum that is only correct within some pages for each
// processor (Documentation/filesystems/proc.rst).
func resident(pid int) int64 {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return 0
	}
	rollup, err := proc.ProcSMapsRollup()
	if err != nil {
		return 0
	}
	return int64(rollup.Rss)
}

// kernelMemory is what the kernel uses for objects and tables, in bytes. What cannot
// be read is 0.
type kernelMemory struct {
	slab, vmalloc int64 // slabs, and what vmalloc has given out
}

func readKernel() (k kernelMemory) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return k
	}
	if info, err := fs.Meminfo(); err == nil {
		if info.SlabBytes != nil {
			k.slab = int64(*info.SlabBytes)
		}
		if info.VmallocUsedBytes != nil {
			k.vmalloc = int64(*info.VmallocUsedBytes)
		}
	}
	return k
}

// activeObjects is how many bytes the objects in slabs have that are in use; 0 if that
// cannot be read, as only root can.
func activeObjects() (bytes int64) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	if slabs, err := fs.SlabInfo(); err == nil {
		for _, s := range slabs.Slabs {
			bytes += s.ObjActive * s.ObjSize
		}
	}
	return bytes
}
