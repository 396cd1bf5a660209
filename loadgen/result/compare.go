package result

import (
	"fmt"
	"math"
	"slices"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// Verdict is whether two sides differ by more than the noise.
type Verdict int

// The verdicts.
const (
	CannotTell Verdict = iota // there are too few values, or results
	Within                    // the noise can be all of the difference
	Better                    // B is better than A, beyond the noise
	Worse                     // B is worse than A, beyond the noise
)

func (v Verdict) String() string {
	return [...]string{"cannot tell", "no", "yes, better", "yes, worse"}[v]
}

// How far from each other is beyond the noise.
const (
	// spreadLeast is how many results a side has to have for the spread between them to
	// count. That all of three are above all of three others happens by chance once in
	// ten times, with four once in 35, with five once in 126, in either direction.
	spreadLeast = 3
	// noise is how many standard deviations a figure of one run may be off: by more than
	// 2.58 in one of a hundred runs.
	noise = 2.58
	// resolution is how exact the values of a histogram are.
	resolution = 0.01
)

// Side is one of the two sides of a comparison: results of the same load.
type Side struct {
	Name    string
	Results []*Result // at least one
}

// Comparison is what is measured on two sides.
type Comparison struct {
	A, B     Side
	Rows     []Row
	Warnings []string // why the sides may not be comparable
}

// Row is a figure of both sides.
type Row struct {
	Name    string
	A, B    *float64 // medians of the results; nil if it was not measured
	Verdict Verdict
	// Own is a figure of the generator, and says nothing about the server.
	Own bool
}

// Ratio is B's value to A's, or NaN.
func (r Row) Ratio() float64 {
	if r.A == nil || r.B == nil || *r.A == 0 {
		return math.NaN()
	}
	return *r.B / *r.A
}

// Compare compares two sides.
func Compare(a, b Side) *Comparison {
	c := &Comparison{A: a, B: b, Warnings: warnings(a, b)}
	for _, f := range figures() {
		row := Row{Name: f.name, A: f.median(a), B: f.median(b), Own: f.own}
		if row.A == nil && row.B == nil || f.odd && isZero(row.A) && isZero(row.B) {
			continue
		}
		row.Verdict = f.judge(a, b)
		c.Rows = append(c.Rows, row)
	}
	return c
}

func isZero(v *float64) bool { return v == nil || *v == 0 }

// Worse reports whether a figure of B is worse than A's, beyond the noise. Figures of the
// generator do not count.
func (c *Comparison) Worse() bool {
	return slices.ContainsFunc(c.Rows, func(r Row) bool { return r.Verdict == Worse && !r.Own })
}

// figure is something to compare.
type figure struct {
	name string
	more bool // is better
	odd  bool // is worth a row only where it is not zero
	own  bool // is the generator's
	of   func(*Result) (float64, bool)
	// within is where the figure of one run may lie by chance. Nil means that one run does
	// not tell.
	within func(*Result) (low, high float64, ok bool)
}

// figures are all that is compared, in order.
func figures() []figure {
	all := []figure{
		{name: "open", more: true, of: func(r *Result) (float64, bool) { return float64(r.Open), true }, within: openRange},
		counter("lost", false, false, func(r *Result) int { return r.Lost }),
		counter("errors", false, false, (*Result).failures),
	}
	for _, c := range []measure.Counter{measure.Missed, measure.Repeated, measure.Strayed, measure.Foreign, measure.Unanswered, measure.Mismatched, measure.Omitted} {
		all = append(all, counter(c.String(), false, true, func(r *Result) int { return r.count(c) }))
	}
	for _, of := range []string{"connects", "messages", "deliveries"} {
		all = append(all, figure{name: of + " a second", more: true, of: func(r *Result) (float64, bool) { return r.rate(of) }})
	}
	for k := range measure.Kinds {
		for _, q := range []float64{50, 90, 95, 99, 99.9} {
			all = append(all, figure{
				name: fmt.Sprintf("%s p%v, ms", k, q), own: k == measure.Lag,
				of:     func(r *Result) (float64, bool) { return r.quantile(fmt.Sprintf("p%v", q), k.String()) },
				within: func(r *Result) (low, high float64, ok bool) { return quantileRange(r.Histograms[k], q/100) },
			})
		}
		all = append(all, figure{name: k.String() + " last, ms", own: k == measure.Lag, of: func(r *Result) (float64, bool) { return r.quantile("max", k.String()) }})
	}
	return append(all, figure{name: "generator's processor seconds", own: true, of: func(r *Result) (seconds float64, ok bool) {
		for _, p := range r.Phases {
			seconds += p.CPUSeconds
		}
		return seconds, len(r.Phases) > 0
	}})
}

// counter is the figure of what is counted. By chance, a count is off by its square root.
func counter(name string, more, odd bool, of func(*Result) int) figure {
	return figure{
		name: name, more: more, odd: odd,
		of: func(r *Result) (float64, bool) { return float64(of(r)), true },
		within: func(r *Result) (low, high float64, ok bool) {
			n := float64(of(r))
			return n - noise*math.Sqrt(n), n + noise*math.Sqrt(n), true
		},
	}
}

// openRange is where the number of open connections may lie by chance: it is off by as much
// as that of those that are missing.
func openRange(r *Result) (low, high float64, ok bool) {
	open, wanted := float64(r.Open), float64(r.Conns-r.Gone)
	off := noise * math.Sqrt(max(0, wanted-open))
	return open - off, min(wanted, open+off), true
}

// quantileRange is where a quantile lies, as far as a sample of that size tells: between
// the values of the ranks that are as many standard deviations from the quantile's own
// (of a binomial distribution) as noise says. If the sample is too small to have such
// ranks, ok is false.
func quantileRange(h *hdr.Histogram, q float64) (low, high float64, ok bool) {
	if h == nil || h.TotalCount() == 0 {
		return 0, 0, false
	}
	n := float64(h.TotalCount())
	off := noise * math.Sqrt(q*(1-q)/n)
	if q-off <= 0 || q+off >= 1 {
		return 0, 0, false
	}
	at := func(q float64) float64 { return milliseconds(h.ValueAtQuantile(100 * q)) }
	return at(q - off), at(q + off), true
}

// values are the figure's of all results of a side that have it.
func (f figure) values(s Side) (all []float64) {
	for _, r := range s.Results {
		if v, ok := f.of(r); ok {
			all = append(all, v)
		}
	}
	return all
}

func (f figure) median(s Side) *float64 {
	all := f.values(s)
	if len(all) == 0 {
		return nil
	}
	m := Median(all)
	return &m
}

func (f figure) judge(a, b Side) Verdict {
	va, vb := f.values(a), f.values(b)
	switch {
	case min(len(va), len(vb)) >= spreadLeast:
		return f.apart(slices.Min(va), slices.Max(va), slices.Min(vb), slices.Max(vb))
	case len(va) == 1 && len(vb) == 1 && f.within != nil:
		lowA, highA, okA := f.within(a.Results[0])
		lowB, highB, okB := f.within(b.Results[0])
		if okA && okB {
			return f.apart(lowA, highA, lowB, highB)
		}
	}
	return CannotTell
}

// apart judges two ranges. They have to be further apart than histograms are exact.
func (f figure) apart(lowA, highA, lowB, highB float64) Verdict {
	above := highA*(1+resolution) < lowB
	below := highB*(1+resolution) < lowA
	switch {
	case above && f.more, below && !f.more:
		return Better
	case above, below:
		return Worse
	}
	return Within
}

// warnings are the reasons why two sides may not be comparable.
func warnings(a, b Side) (all []string) {
	for _, s := range []Side{a, b} {
		for i, r := range s.Results {
			who := s.Name
			if len(s.Results) > 1 {
				who = fmt.Sprintf("%s, result %d", s.Name, i+1)
			}
			if !r.Valid {
				all = append(all, fmt.Sprintf("%s is not valid: the generator, or its machine, was the bottleneck", who))
			}
			if r.Interrupted || r.Early != "" {
				all = append(all, who+" ended early")
			}
		}
	}
	first := a.Results[0]
	for _, r := range slices.Concat(a.Results[1:], b.Results) {
		for _, d := range []struct {
			what string
			x, y any
		}{
			{"connections", first.Conns, r.Conns}, {"bytes a message", first.Size, r.Size}, {"connections a second wanted", first.Rate, r.Rate},
			{"processors", first.Processors, r.Processors}, {"phases", phaseNames(first), phaseNames(r)},
		} {
			text := fmt.Sprintf("the loads differ: %s are %v and %v", d.what, d.x, d.y)
			if d.x != d.y && !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
	}
	return all
}

func phaseNames(r *Result) string {
	var names []string
	for _, p := range r.Phases {
		names = append(names, p.Name)
	}
	return fmt.Sprint(names)
}
