package experiment

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// experiment runs an experiment until done returns true, or to its end.
func experiment(t *testing.T, c Config, done func(*measure.Snapshot) bool) (r *Report, said string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all strings.Builder
	c.Say = func(format string, args ...any) { fmt.Fprintf(&all, format+"\n", args...) }
	c.Sinks = []measure.Sink{measure.Funcs{OnSnapshot: func(s *measure.Snapshot) {
		if done != nil && done(s) {
			cancel()
		}
	}}}
	r, err = Run(ctx, c)
	return r, all.String(), err
}

func TestAnExperiment(t *testing.T) {
	const conns, size = 300, 40
	r, said, err := experiment(t, Config{Conns: conns, Hold: 300 * time.Millisecond, Broadcasts: 2, Size: size}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Wanted != conns || r.Limit != "" || r.Date.Location() != time.UTC || r.Machine.Kernel == "" || r.Machine.Memory <= 0 {
		t.Errorf("%+v", r)
	}
	if !r.Load.OK() || r.Load.Open != conns || r.Load.Size != size || len(r.Load.Broadcasts) != 2 {
		t.Errorf("%+v", r.Load)
	}
	if !strings.Contains(said, "300 connections to 127.0.0.1:") {
		t.Errorf("said %q", said)
	}

	var phases []string
	for _, c := range r.Costs {
		phases = append(phases, c.Phase)
		if c.Seconds < 0 || c.ServerCPU < 0 || c.GeneratorCPU < 0 {
			t.Errorf("%+v", c)
		}
	}
	if !slices.Equal(phases, []string{"ramp", "hold", "broadcast", "close"}) {
		t.Errorf("phases %v", phases)
	}

	hold := r.Costs[1]
	if m := r.Memory; m.ServerRSS < 1<<20 || m.GeneratorRSS < 1<<20 || m.ServerSlope != nil || m.ServerPeak < m.ServerRSS/2 ||
		m.MeasuredSeconds < hold.Begun || m.MeasuredSeconds > hold.Begun+hold.Seconds {
		t.Errorf("%+v, held from %v s for %v s", m, hold.Begun, hold.Seconds)
	}
	if s := r.Samples; len(s) < 2 || s[0].Open != 0 || s[len(s)-1].Open > conns || r.Machine.Buckets != HashTable() {
		t.Errorf("samples %+v", s)
	}

	// Limits that were raised for the run have their old values again.
	for _, c := range r.Raised {
		if got := sysctl(t, c.Name); got != strings.Join(strings.Fields(c.Old), " ") {
			t.Errorf("%s is %q, was %q", c.Name, got, c.Old)
		}
		if !strings.Contains(said, "raised "+c.Name) {
			t.Errorf("Say was not called about %s", c.Name)
		}
	}

	markdown, html, text := saved(t, r)
	if !strings.HasPrefix(markdown, "# 300 connections: all open, nothing lost\n") || strings.Count(html, "<figure") != 3 || !json.Valid([]byte(text)) {
		t.Errorf("report.md: %s", markdown)
	}
}

func TestAnInterruptedExperimentHasAReport(t *testing.T) {
	r, _, err := experiment(t, Config{Conns: 100, Hold: 1000 * time.Hour, Broadcasts: 2}, func(s *measure.Snapshot) bool {
		return s.Phase == "hold"
	})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Load.Interrupted || r.Load.OK() || r.Load.Open != 100 || len(r.Load.Broadcasts) != 0 {
		t.Errorf("%+v", r.Load)
	}
	if r.Memory.ServerRSS == 0 || len(r.Costs) != 3 { // ramp, hold, close
		t.Errorf("%+v, %+v", r.Memory, r.Costs)
	}
}

func TestAServerThatDiesIsReported(t *testing.T) {
	t.Setenv(fault, "dies")
	r, _, err := experiment(t, Config{Conns: faultConns, Hold: 1000 * time.Hour}, func(s *measure.Snapshot) bool {
		return s.Failed() > 0 && s.Opening == 0
	})
	if err == nil || !strings.Contains(err.Error(), "experiment: the server failed: exit status 4\nout of luck") {
		t.Errorf("got %v", err)
	}
	if r == nil || r.Load == nil || r.Load.OK() || r.Load.Open == faultConns {
		t.Errorf("%+v", r)
	}
}

func TestAServerThatDoesNotStartIsReported(t *testing.T) {
	t.Setenv(fault, "does not start")
	r, _, err := experiment(t, Config{Conns: 10}, nil)
	if err == nil || !strings.Contains(err.Error(), "exit status 3\nthe port is taken") {
		t.Errorf("got %v", err)
	}
	if r == nil || r.Load != nil || r.Wanted != 10 {
		t.Errorf("%+v", r)
	}
}

func TestAnExperimentNeedsAConnection(t *testing.T) {
	r, _, err := experiment(t, Config{Conns: -1}, nil)
	if err == nil || r == nil || r.Load != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func sysctl(t *testing.T, name string) string {
	t.Helper()
	value, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(value)), " ")
}
