package loadgen

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// short is a context that ends a run that hangs.
func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func mustRun(t *testing.T, ctx context.Context, c Config) *Result {
	t.Helper()
	res, err := Run(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// runPlan carries a plan out, which must end by itself.
func runPlan(t *testing.T, c Config) *Result {
	t.Helper()
	res := mustRun(t, short(t), c)
	if res.Interrupted {
		t.Errorf("the run hung; counts %v", res.Counts)
	}
	return res
}

// runUntil interrupts a run when done is true.
func runUntil(t *testing.T, c Config, done func(*measure.Snapshot) bool) *Result {
	t.Helper()
	ctx, cancel := context.WithCancel(short(t))
	defer cancel()
	c.Sinks = append(c.Sinks, measure.Funcs{OnSnapshot: func(s *measure.Snapshot) {
		if done(s) {
			cancel()
		}
	}})
	res := mustRun(t, ctx, c)
	if !res.Interrupted {
		t.Error("the run ended by itself")
	}
	return res
}

// received is how many messages have come that were to come.
func received(s *measure.Snapshot) int { return int(s.Counts.Sum(measure.Received, measure.Echoes)) }

// counted is the sum of some counters.
func counted(res *Result, counters ...measure.Counter) (n int) {
	for _, c := range counters {
		n += res.Counts[c.String()]
	}
	return n
}

// expectCounts compares the counters, except for those that depend on timing.
func expectCounts(t *testing.T, res *Result, want map[measure.Counter]int) {
	t.Helper()
	for c := range measure.Counters {
		switch c {
		case measure.BytesIn, measure.BytesOut, measure.Held, measure.Skipped:
			continue
		}
		if got := res.Counts[c.String()]; got != want[c] {
			t.Errorf("%s: %d, want %d", c, got, want[c])
		}
	}
}

// expect compares the counters, and what follows from them.
func expect(t *testing.T, res *Result, want map[measure.Counter]int) {
	t.Helper()
	expectCounts(t, res, want)
	open := want[measure.Connected]
	for _, c := range measure.StayFailures {
		open -= want[c]
	}
	if res.Open != open {
		t.Errorf("%d open, want %d", res.Open, open)
	}
	received := 0
	for i, b := range res.Broadcasts {
		received += b.Received
		if len(res.Broadcasts) == 1 && b.Expected != b.Received+res.Lost {
			t.Errorf("broadcast %d: %d expected, %d received, %d lost", i, b.Expected, b.Received, res.Lost)
		}
	}
	if received != want[measure.Received] {
		t.Errorf("%d received in broadcasts, want %d", received, want[measure.Received])
	}
}

// expectError checks that errors with these words were counted n times.
func expectError(t *testing.T, res *Result, words string, n int) {
	t.Helper()
	got := 0
	for _, f := range res.Errors {
		if strings.Contains(f.Counter+": "+f.Text, words) {
			got += f.Count
		}
	}
	if got != n {
		t.Errorf("%d errors contain %q, want %d: %v", got, words, n, fmt.Sprint(res.Errors))
	}
}
