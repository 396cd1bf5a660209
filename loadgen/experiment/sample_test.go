package experiment

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// observed is an observer of a run that began at begun.
func observed(begun time.Time, samples []Sample, starts ...phaseStart) *observer {
	return &observer{begun: begun, samples: samples, starts: starts}
}

func TestCostsArePerPhase(t *testing.T) {
	begun := time.Unix(1_000_000, 0)
	at := func(s float64) time.Time { return begun.Add(time.Duration(s * float64(time.Second))) }
	o := observed(begun, nil,
		phaseStart{"ramp", at(0.5), 10 * time.Second, time.Second},
		phaseStart{"hold", at(2), 11 * time.Second, 3 * time.Second},
		phaseStart{"end", at(12), 11*time.Second + 500*time.Millisecond, 3 * time.Second})
	want := []Cost{{"ramp", 0.5, 1.5, 1, 2}, {"hold", 2, 10, 0.5, 0}}
	if got := o.cost(); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, starts := range [][]phaseStart{nil, {{phase: "end"}}} {
		if got := observed(begun, nil, starts...).cost(); got == nil || len(got) > 0 {
			t.Errorf("%v: %+v", starts, got)
		}
	}
}

func TestAnObserverSeesBothProcesses(t *testing.T) {
	o := observe(os.Getpid())
	o.Phase("ramp")
	o.Snapshot(&measure.Snapshot{Open: 7})
	o.Phase("end")
	// A slow machine may take another sample in between.
	first, last := o.samples[0], o.samples[len(o.samples)-1]
	if len(o.samples) < 2 || len(o.samples) > 3 || first.Open != 0 || last.Open != 7 || last.Seconds < first.Seconds {
		t.Errorf("samples %+v", o.samples)
	}
	for _, s := range o.samples {
		if s.Server < 1<<20 || s.Generator < 1<<20 || s.Slab < 1<<20 || s.Vmalloc < 1 {
			t.Errorf("%+v", s)
		}
	}
	costs := o.cost()
	if len(costs) != 1 || costs[0].Phase != "ramp" || costs[0].Seconds < 0 || costs[0].ServerCPU < 0 || costs[0].GeneratorCPU < 0 {
		t.Errorf("%+v", costs)
	}
}

func TestAnEndedServerHasNoMemory(t *testing.T) {
	o := observe(1 << 30)
	o.Phase("ramp")
	o.Snapshot(&measure.Snapshot{Open: 1})
	o.Phase("end")
	if s := o.samples[1]; s.Server != 0 || s.Generator < 1<<20 || s.Open != 1 {
		t.Errorf("%+v", s)
	}
}
