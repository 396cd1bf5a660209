package result

import (
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// side is results of runs that differ by chance. slower is the factor by which their times
// are longer.
func side(name string, seed uint64, runs int, slower float64) Side {
	s := Side{Name: name}
	for i := range runs {
		s.Results = append(s.Results, lively(seed+uint64(i), slower))
	}
	return s
}

func verdicts(c *Comparison) map[string]Verdict {
	m := map[string]Verdict{}
	for _, r := range c.Rows {
		m[r.Name] = r.Verdict
	}
	return m
}

func TestRunsThatDifferByChanceAreWithinTheNoise(t *testing.T) {
	for _, runs := range []int{1, 3} {
		c := Compare(side("a", 1, runs, 1), side("b", 11, runs, 1))
		for name, v := range verdicts(c) {
			if strings.HasPrefix(name, "handshake p") && v != Within {
				t.Errorf("%d runs: %s: %v", runs, name, v)
			}
		}
		if len(c.Warnings) > 0 {
			t.Errorf("%q", c.Warnings)
		}
	}
}

func TestASlowerServerIsBeyondTheNoise(t *testing.T) {
	for _, runs := range []int{1, 3} {
		slower := Compare(side("a", 1, runs, 1), side("b", 11, runs, 1.3))
		faster := Compare(side("a", 1, runs, 1.3), side("b", 11, runs, 1))
		for _, name := range []string{"handshake p50, ms", "handshake p99, ms", "echo p50, ms", "echo p99, ms"} {
			if v := verdicts(slower)[name]; v != Worse {
				t.Errorf("%d runs, slower: %s: %v", runs, name, v)
			}
			if v := verdicts(faster)[name]; v != Better {
				t.Errorf("%d runs, faster: %s: %v", runs, name, v)
			}
		}
		if !slower.Worse() || faster.Worse() {
			t.Errorf("%d runs: worse is %v, and %v", runs, slower.Worse(), faster.Worse())
		}
	}
}

// Nothing is said about what too few values, or too few runs, do not tell.
func TestTooLittleIsNotJudged(t *testing.T) {
	one := Compare(Side{"a", []*Result{example()}}, Side{"b", []*Result{example()}})
	for _, name := range []string{"handshake p99.9, ms", "handshake last, ms", "connects a second", "away p50, ms"} {
		if v, ok := verdicts(one)[name]; !ok || v != CannotTell {
			t.Errorf("%s: %v, %v", name, v, ok)
		}
	}
	two := Compare(side("a", 1, 2, 1), side("b", 11, 2, 9))
	if v := verdicts(two)["echo p50, ms"]; v != CannotTell {
		t.Errorf("of two runs a side: %v", v)
	}
	none := Compare(Side{"a", []*Result{example()}}, Side{"b", []*Result{nobody()}})
	if v := verdicts(none)["echo p50, ms"]; v != CannotTell {
		t.Errorf("measured on one side: %v", v)
	}
	if _, there := verdicts(none)["unanswered"]; there {
		t.Error("there is a row for what is zero on both sides")
	}
}

func TestMoreLossesAreWorse(t *testing.T) {
	for lost, want := range map[int]Verdict{0: Within, 3: Within, 20: Worse} {
		a, b := lively(1, 1), lively(1, 1)
		b.Lost = lost
		if v := verdicts(Compare(Side{"a", []*Result{a}}, Side{"b", []*Result{b}}))["lost"]; v != want {
			t.Errorf("%d lost: %v", lost, v)
		}
	}
}

func TestConnectionsThatAreMissingAreWorse(t *testing.T) {
	for open, want := range map[int]Verdict{30_000: Within, 29_995: Within, 29_000: Worse} {
		a, b := lively(1, 1), lively(1, 1)
		b.Open = open
		if v := verdicts(Compare(Side{"a", []*Result{a}}, Side{"b", []*Result{b}}))["open"]; v != want {
			t.Errorf("%d open: %v", open, v)
		}
	}
}

// The generator may be busier without the server being worse.
func TestTheGeneratorsOwnFiguresAreNotTheServers(t *testing.T) {
	a, b := lively(1, 1), lively(1, 1)
	b.Histograms[measure.Lag] = b.Histograms[measure.Handshake]
	c := Compare(Side{"a", []*Result{a}}, Side{"b", []*Result{b}})
	if v := verdicts(c)["lag p99, ms"]; v != Worse || c.Worse() {
		t.Errorf("%v, worse is %v", v, c.Worse())
	}
}

func TestSidesThatAreNotComparableAreWarnedOf(t *testing.T) {
	a, b := lively(1, 1), lively(1, 1)
	b.Conns, b.Valid, b.Interrupted, b.Phases = 5, false, true, b.Phases[:2]
	all := strings.Join(Compare(Side{"a", []*Result{a}}, Side{"b", []*Result{b}}).Warnings, "\n")
	for _, want := range []string{"connections are 30000 and 5", "phases are [ramp hold talk] and [ramp hold]", "b is not valid", "b ended early"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in %q", want, all)
		}
	}
}

func TestAComparisonForPeople(t *testing.T) {
	c := Compare(Side{"a.json", []*Result{lively(1, 1)}}, Side{"b.json", []*Result{lively(2, 1.3)}})
	golden(t, "compare.txt", c.WriteText)
	golden(t, "compare3.txt", Compare(side("a.json", 1, 3, 1), side("b.json", 11, 3, 1)).WriteText)
	html := checkPage(t, c.WriteHTML)
	for _, text := range []string{"a.json", "handshake p99, ms", "yes, worse", "handshake A", "echo B", `class="c0 dashed"`} {
		if !strings.Contains(html, text) {
			t.Errorf("%q is missing", text)
		}
	}
	checkPage(t, Compare(Side{"<script>", []*Result{nobody()}}, Side{"b", []*Result{newLoad(Run{}).Result(End{})}}).WriteHTML)
}
