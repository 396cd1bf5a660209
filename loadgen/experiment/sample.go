package experiment

import (
	"os"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/tuning"
)

// Sample is the machine's state at one time.
type Sample struct {
	Seconds   float64 `json:"s"` // since the run began
	Open      int     `json:"open"`
	Server    int64   `json:"server_rss_bytes"`
	Generator int64   `json:"generator_rss_bytes"`
	Slab      int64   `json:"slab_bytes"`
}

// Cost is what a phase took.
type Cost struct {
	Phase        string  `json:"phase"`
	Begun        float64 `json:"begun_s"` // since the run began
	Seconds      float64 `json:"seconds"`
	ServerCPU    float64 `json:"server_cpu_seconds"`
	GeneratorCPU float64 `json:"generator_cpu_seconds"`
}

// observer watches both processes during a load. Its methods phase and progress
// are for loadgen.Config; loadgen calls them on the goroutine that runs the load.
type observer struct {
	pid   int // the server's
	begun time.Time
	show  func(loadgen.Progress)

	samples []Sample

	starts []phaseStart // one for each phase, and one for the end of the last
}

// phaseStart is when a phase began, and the processor time used until then.
type phaseStart struct {
	phase             string
	at                time.Time
	server, generator time.Duration
}

func observe(pid int, show func(loadgen.Progress)) *observer {
	o := &observer{pid: pid, begun: time.Now(), show: show}
	o.sample(0)
	return o
}

func (o *observer) phase(name string) {
	o.starts = append(o.starts, phaseStart{name, time.Now(), cpu(o.pid), cpu(os.Getpid())})
}

func (o *observer) progress(p loadgen.Progress) {
	o.sample(p.Open)
	if o.show != nil {
		o.show(p)
	}
}

func (o *observer) sample(open int) Sample {
	s := Sample{Seconds: time.Since(o.begun).Seconds(), Open: open}
	if m, err := tuning.MemoryOf(o.pid); err == nil { // fails for a server that has ended
		s.Server, s.Slab = m.Resident, m.Slab
	}
	if m, err := tuning.MemoryOf(os.Getpid()); err == nil {
		s.Generator = m.Resident
	}
	o.samples = append(o.samples, s)
	return s
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
