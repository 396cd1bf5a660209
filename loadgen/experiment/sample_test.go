package experiment

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
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
	var shown []loadgen.Progress
	o := observe(os.Getpid(), func(p loadgen.Progress) { shown = append(shown, p) })
	o.phase("ramp")
	o.progress(loadgen.Progress{Open: 7})
	o.phase("end")
	if len(o.samples) != 2 || o.samples[0].Open != 0 || o.samples[1].Open != 7 || o.samples[1].Seconds < o.samples[0].Seconds {
		t.Errorf("samples %+v", o.samples)
	}
	for _, s := range o.samples {
		if s.Server < 1<<20 || s.Generator < 1<<20 || s.Slab < 1<<20 {
			t.Errorf("%+v", s)
		}
	}
	if len(shown) != 1 || shown[0].Open != 7 {
		t.Errorf("shown %+v", shown)
	}
	costs := o.cost()
	if len(costs) != 1 || costs[0].Phase != "ramp" || costs[0].Seconds < 0 || costs[0].ServerCPU < 0 || costs[0].GeneratorCPU < 0 {
		t.Errorf("%+v", costs)
	}
}

func TestAnEndedServerHasNoMemory(t *testing.T) {
	o := observe(1<<30, nil)
	o.progress(loadgen.Progress{Open: 1})
	if s := o.samples[1]; s.Server != 0 || s.Slab != 0 || s.Generator < 1<<20 || s.Open != 1 {
		t.Errorf("%+v", s)
	}
}

const mega = 1_000_000

// heldRun opens 200,000 connections in four seconds, holds them for ten seconds
// and then broadcasts.
func heldRun() *observer {
	begun := time.Unix(1_000_000, 0)
	return observed(begun,
		[]Sample{
			{0, 0, 10 * mega, 20 * mega, 100 * mega},
			{1, 15_000, 12 * mega, 23 * mega, 220 * mega},
			{2, 60_000, 15 * mega, 26 * mega, 600 * mega},
			{3, 115_000, 17 * mega, 28 * mega, 1000 * mega},
			{4.1, 200_000, 20 * mega, 31 * mega, 1700 * mega},
			{13.9, 200_000, 19 * mega, 30 * mega, 1701 * mega}, // the last of the hold
			{14.1, 200_000, 90 * mega, 80 * mega, 2500 * mega},
		},
		phaseStart{phase: "ramp", at: begun},
		phaseStart{phase: "hold", at: begun.Add(4 * time.Second)},
		phaseStart{phase: "broadcast", at: begun.Add(14 * time.Second)},
		phaseStart{phase: "end", at: begun.Add(20 * time.Second)})
}

func TestMemoryIsMeasuredWhenAllAreIdle(t *testing.T) {
	want := Memory{
		ServerRSS: 19 * mega, GeneratorRSS: 30 * mega, MeasuredSeconds: 13.9,
		ServerPerConn:  45,   // (19 − 10) MB ÷ 200,000
		GenPerConn:     50,   // (30 − 20) MB ÷ 200,000
		KernelPerConn:  8005, // (1701 − 100) MB ÷ 200,000
		ServerSlope:    50,   // (17 − 12) MB ÷ (115,000 − 15,000)
		GeneratorSlope: 50,   // (28 − 23) MB ÷ (115,000 − 15,000)
	}
	if got := memory(heldRun(), 200_000); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A slope needs 100,000 connections.
func TestMemoryOfFewConnectionsHasNoSlope(t *testing.T) {
	o := heldRun()
	for i := range o.samples {
		o.samples[i].Open /= 10
	}
	got := memory(o, 20_000)
	if got.ServerSlope != 0 || got.GeneratorSlope != 0 || got.ServerPerConn != 450 {
		t.Errorf("%+v", got)
	}
}

func TestReachedIsTheFirstSampleWithEnoughConnections(t *testing.T) {
	samples := heldRun().samples
	for open, want := range map[int]float64{0: 0, 1: 1, 15_000: 1, 15_001: 2, 100_000: 3, 200_000: 4.1} {
		if got := reached(samples, open); got.Seconds != want {
			t.Errorf("%d were reached after %v s, want %v", open, got.Seconds, want)
		}
	}
	if got := reached(samples, 200_001); got != (Sample{}) {
		t.Errorf("more than there were: %+v", got)
	}
	if got := reached(nil, 0); got != (Sample{}) {
		t.Errorf("no samples: %+v", got)
	}
}

// Without a hold, memory is measured when the last connection was open.
func TestMemoryIsMeasuredWithoutAHold(t *testing.T) {
	begun := time.Unix(1_000_000, 0)
	o := observed(begun,
		[]Sample{{0, 0, 10 * mega, 20 * mega, 100 * mega}, {0.9, 1000, 11 * mega, 22 * mega, 108 * mega}, {1.1, 1000, 50 * mega, 50 * mega, 200 * mega}},
		phaseStart{phase: "ramp", at: begun}, phaseStart{phase: "broadcast", at: begun.Add(time.Second)}, phaseStart{phase: "end", at: begun.Add(2 * time.Second)})
	want := Memory{ServerRSS: 11 * mega, GeneratorRSS: 22 * mega, MeasuredSeconds: 0.9, ServerPerConn: 1000, GenPerConn: 2000, KernelPerConn: 8000}
	if got := memory(o, 1000); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Memory is divided by the number of open connections, not of wanted ones.
func TestMemoryIsDividedByOpenConnections(t *testing.T) {
	o := heldRun()
	for i := range o.samples {
		o.samples[i].Open /= 2
	}
	if got := memory(o, 200_000); got.ServerPerConn != 90 { // 9 MB ÷ 100,000
		t.Errorf("%+v", got)
	}
}
