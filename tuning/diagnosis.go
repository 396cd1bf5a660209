package tuning

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
)

// Schema and Version identify the JSON form of a Diagnosis. The version grows
// when a field is removed or changes its meaning, not when a field is added.
//
//	schema, version   these
//	role, target      what was asked
//	facts             where the process runs: name, where it is read, value
//	limits            in the order of the table; each has
//	  state             "ok", "raise" (too low to be fast), "will not reach", "cannot be seen"
//	  have, need        have is null if it cannot be read or there is no limit
//	  unlimited         whether there is no limit
//	  tops_out_at       connections; null for any number
//	  name, where, formula, scope, unit, symptom, fix, risk, source, note
//	  setting           the sysctl, if there is one; want is the recommended value
//	warnings          file, name, text
//	counters          that are not zero, since the kernel started
//	tops_out_at       connections that the whole machine can hold; null if no known limit stops it
//	because, next     the lowest limit and the one after it: name, tops_out_at
//	line              the same in words
//	exit              the exit code
const (
	Schema  = "lull.doctor"
	Version = 1
)

// Verdict is the result of a diagnosis, and the exit code of lull doctor.
type Verdict int

// Verdicts.
const (
	Fine       Verdict = 0
	Degraded   Verdict = 1 // the target can be reached, but slowly
	NotReached Verdict = 2
	CannotTell Verdict = 3 // a limit that may stop it cannot be read
)

// Diagnosis says how many connections a machine can hold, and why not more.
type Diagnosis struct {
	Schema   string    `json:"schema"`
	Version  int       `json:"version"`
	Role     string    `json:"role"`
	Target   int       `json:"target"`
	Facts    []Fact    `json:"facts"`
	Limits   []Result  `json:"limits"`
	Warnings []Warning `json:"warnings"`
	Counters Counters  `json:"counters"`
	Conns    *int      `json:"tops_out_at"`
	Because  *Stop     `json:"because"`
	Next     *Stop     `json:"next"`
	Line     string    `json:"line"`
	Verdict  Verdict   `json:"exit"`
}

// Result is a finding as it is printed.
type Result struct {
	Name      string `json:"name"`
	State     State  `json:"state"`
	Have      *int64 `json:"have"`
	Unlimited bool   `json:"unlimited"`
	Need      int64  `json:"need"`
	Conns     *int   `json:"tops_out_at"`
	Unit      Unit   `json:"unit,omitempty"`
	Scope     Scope  `json:"scope"`
	Where     string `json:"where"`
	Formula   string `json:"formula"`
	Symptom   string `json:"symptom"`
	Fix       string `json:"fix"`
	Risk      string `json:"risk,omitempty"`
	Source    string `json:"source"`
	Note      string `json:"note,omitempty"`
	Setting   string `json:"setting,omitempty"`
	Want      string `json:"want,omitempty"`
}

// Stop is a limit and how many connections it allows.
type Stop struct {
	Name  string `json:"name"`
	Conns int    `json:"tops_out_at"`
}

// Diagnose compares a machine with a demand.
func (m *Machine) Diagnose(d Demand) *Diagnosis {
	findings := m.Check(d)
	g := &Diagnosis{
		Schema: Schema, Version: Version, Role: d.role(), Target: d.Conns,
		Facts: m.Facts(), Warnings: m.Warnings(d), Counters: Counters{},
	}
	counters := m.Counters()
	for _, name := range counters.Names() {
		g.Counters[name] = counters[name]
	}
	for _, f := range findings {
		g.Limits = append(g.Limits, f.result())
	}
	stops := stopsOf(findings)
	if len(stops) > 0 {
		g.Because, g.Conns = &stops[0], &stops[0].Conns
	}
	if len(stops) > 1 {
		g.Next = &stops[1]
	}
	g.Line, g.Verdict = lineOf(stops, unseenOf(findings)), verdictOf(findings)
	return g
}

func (d Demand) role() string {
	switch {
	case d.Server && d.Generator:
		return "both"
	case d.Server:
		return "server"
	}
	return "loadgen"
}

func (f Finding) result() Result {
	l := f.Limit
	r := Result{
		Name: l.Name, State: f.State(), Need: f.Need, Unlimited: f.Have == Unlimited,
		Unit: l.Unit, Scope: l.Scope, Where: l.Where, Formula: l.Formula,
		Symptom: l.Symptom, Fix: f.Fix(), Risk: l.Risk, Source: l.Source, Note: f.Note,
	}
	if f.Have != Unknown && f.Have != Unlimited {
		r.Have = &f.Have
	}
	if f.Conns != math.MaxInt {
		r.Conns = &f.Conns
	}
	if l.Sysctl != "" {
		r.Setting, r.Want = l.Sysctl, f.Want
	}
	return r
}

// stopsOf are the hard limits that allow a limited number of connections, the
// lowest first.
func stopsOf(findings []Finding) []Stop {
	var stops []Stop
	for _, f := range findings {
		if !f.Limit.Soft && f.Conns != math.MaxInt {
			stops = append(stops, Stop{f.Limit.Name, f.Conns})
		}
	}
	slices.SortStableFunc(stops, func(a, b Stop) int { return a.Conns - b.Conns })
	return stops
}

// unseenOf are the hard limits that cannot be read.
func unseenOf(findings []Finding) []string {
	var names []string
	for _, f := range findings {
		if !f.Limit.Soft && f.State() == Unseen {
			names = append(names, f.Limit.Name)
		}
	}
	return names
}

// lineOf is the diagnosis in one sentence.
func lineOf(stops []Stop, unseen []string) string {
	text := "nothing that can be seen stops this machine"
	if len(stops) > 0 {
		text = fmt.Sprintf("this machine tops out at %s connections because of %s", count(stops[0].Conns), stops[0].Name)
	}
	if len(stops) > 1 {
		text += fmt.Sprintf("; next is %s at %s", stops[1].Name, count(stops[1].Conns))
	}
	if len(unseen) > 0 {
		text += "; not seen: " + strings.Join(unseen, ", ")
	}
	return text
}

// verdictOf is the verdict of the worst finding. Soft limits that cannot be read
// do not count.
func verdictOf(findings []Finding) Verdict {
	has := func(state State, soft bool) bool {
		return slices.ContainsFunc(findings, func(f Finding) bool { return f.State() == state && f.Limit.Soft == soft })
	}
	switch {
	case has(Stops, false):
		return NotReached
	case has(Unseen, false):
		return CannotTell
	case has(Raise, true):
		return Degraded
	}
	return Fine
}

// Colours of a state on a terminal.
var colours = map[State]string{OK: "\x1b[32m", Raise: "\x1b[33m", Stops: "\x1b[31m", Unseen: "\x1b[36m"}

// WriteText writes a diagnosis for people to read.
func (g *Diagnosis) WriteText(w io.Writer, colour bool) error {
	p := &page{w: w, colour: colour}
	for _, f := range g.Facts {
		p.line("%-18s %s", f.Name, f.Value)
	}
	p.line("")
	p.line("%-14s  %-36s %14s %14s %14s", "", "limit", "have", "need", "tops out at")
	for _, r := range g.Limits {
		p.limit(r)
	}
	if len(g.Warnings) > 0 {
		p.line("\nfiles and values that contradict this:")
	}
	for _, warning := range g.Warnings {
		p.line("  %s: %s %s", warning.File, warning.Name, warning.Text)
	}
	if len(g.Counters) > 0 {
		p.line("\ncounted since the kernel started:")
	}
	for _, name := range g.Counters.Names() {
		p.line("  %-36s %14s", name, humanize.Comma(int64(g.Counters[name])))
	}
	p.line("\n%s", g.Line)
	return p.err
}

// page is text that is written line by line, until the first error.
type page struct {
	w      io.Writer
	colour bool
	err    error
}

func (p *page) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}

// limit writes one line for a limit, and below it what to do if it is too low.
func (p *page) limit(r Result) {
	state := fmt.Sprintf("%-14s", r.State)
	if p.colour {
		state = colours[r.State] + state + "\x1b[0m"
	}
	need, conns := "–", "–"
	if r.Need > 0 {
		need = r.Unit.text(r.Need)
	}
	if r.Conns != nil {
		conns = count(*r.Conns)
	}
	note := ""
	if r.Note != "" {
		note = "  (" + r.Note + ")"
	}
	p.line("%s  %-36s %14s %14s %14s%s", state, r.Name, r.have(), need, conns, note)
	if r.State == OK {
		return
	}
	for _, row := range []struct{ name, text string }{{"then", r.Symptom}, {"fix", r.Fix}, {"risk", r.Risk}} {
		if row.text != "" {
			p.line("%16s%-5s %s", "", row.name, row.text)
		}
	}
}

func (r Result) have() string {
	switch {
	case r.Unlimited:
		return "no limit"
	case r.Have == nil && r.Need == 0:
		return "–"
	case r.Have == nil:
		return "?"
	}
	return r.Unit.text(*r.Have)
}

// text writes a number with its unit.
func (u Unit) text(n int64) string {
	switch u {
	case Bytes:
		return humanize.IBytes(uint64(max(0, n)))
	case Seconds:
		return humanize.Comma(n) + " s"
	}
	return humanize.Comma(n)
}

// plain writes a number in a sentence.
func plain(n int64) string {
	if n == Unlimited {
		return "no limit"
	}
	return humanize.Comma(n)
}

func count(n int) string { return humanize.Comma(int64(n)) }
