package experiment

import (
	"os"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// Sample is the machine's state at one time.
type Sample struct {
	Seconds   float64 `json:"s"` // since the run began
	Open      int     `json:"open"`
	Server    int64   `json:"server_rss_bytes"`
	Generator int64   `json:"generator_rss_bytes"`
	Slab      int64   `json:"slab_bytes"`
	Active    int64   `json:"slab_active_bytes,omitempty"` // of the objects in slabs; 0 if it was not or cannot be read
	Vmalloc   int64   `json:"vmalloc_bytes"`
}

// kernel is the kernel's memory for sockets and for tables of descriptors.
func (s Sample) kernel() int64 { return s.Slab + s.Vmalloc }

// Cost is what a phase took.
type Cost struct {
	Phase        string  `json:"phase"`
	Begun        float64 `json:"begun_s"` // since the run began
	Seconds      float64 `json:"seconds"`
	ServerCPU    float64 `json:"server_cpu_seconds"`
	GeneratorCPU float64 `json:"generator_cpu_seconds"`
}

// observer watches both processes during a load. It is a measure.Sink.
type observer struct {
	pid   int // the server's
	begun time.Time

	open    int // connections, in the last snapshot
	samples []Sample

	starts []phaseStart // one for each phase, and one for the end of the last
}

// phaseStart is when a phase began, and the processor time used until then.
type phaseStart struct {
	phase             string
	at                time.Time
	server, generator time.Duration
}

// sampleEvery is the least time between samples, which take a millisecond or two of the
// processors that are measured. Another is taken at a phase's end.
const sampleEvery = 250 * time.Millisecond

func observe(pid int) *observer {
	o := &observer{pid: pid, begun: time.Now()}
	o.sample(0, true)
	return o
}

// Phase takes note that a phase begins.
func (o *observer) Phase(name string) {
	if n := len(o.starts); n > 0 {
		o.sample(o.open, strings.HasPrefix(o.starts[n-1].phase, "hold"))
	}
	o.starts = append(o.starts, phaseStart{name, time.Now(), cpu(o.pid), cpu(os.Getpid())})
}

// Snapshot takes a sample now and then.
func (o *observer) Snapshot(now *measure.Snapshot) {
	o.open = now.Open
	if last := o.samples[len(o.samples)-1]; time.Since(o.begun).Seconds()-last.Seconds >= sampleEvery.Seconds() {
		o.sample(now.Open, false)
	}
}

// sample takes a sample. The objects in slabs are read only at the end of a hold: that
// takes milliseconds, and leaves more garbage than all that a generator does.
func (o *observer) sample(open int, objects bool) Sample {
	k := readKernel()
	s := Sample{
		Seconds: time.Since(o.begun).Seconds(), Open: open, Server: resident(o.pid), Generator: resident(os.Getpid()),
		Slab: k.slab, Vmalloc: k.vmalloc,
	}
	if objects {
		s.Active = activeObjects()
	}
	o.samples = append(o.samples, s)
	return s
}

// during are the samples of a phase.
func (o *observer) during(phase string) (samples []Sample) {
	for _, c := range o.cost() {
		for _, s := range o.samples {
			if c.Phase == phase && s.Seconds >= c.Begun && s.Seconds <= c.Begun+c.Seconds {
				samples = append(samples, s)
			}
		}
	}
	return samples
}

// lastOf is the last sample until the end of the last of these phases; the first
// sample if there was none of them.
func (o *observer) lastOf(phases ...string) Sample {
	last := o.samples[0]
	for _, c := range o.cost() {
		for _, s := range o.samples {
			if slices.Contains(phases, c.Phase) && s.Seconds <= c.Begun+c.Seconds {
				last = s
			}
		}
	}
	return last
}

// cost is what each phase took until the next one began.
func (o *observer) cost() []Cost {
	costs := make([]Cost, 0, len(o.starts))
	for i, start := range o.starts[:max(0, len(o.starts)-1)] {
		next := o.starts[i+1]
		costs = append(costs, Cost{
			Phase: start.phase, Begun: start.at.Sub(o.begun).Seconds(), Seconds: next.at.Sub(start.at).Seconds(),
			ServerCPU: (next.server - start.server).Seconds(), GeneratorCPU: (next.generator - start.generator).Seconds(),
		})
	}
	return costs
}
