package tsung

import (
	"math"
	"strconv"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// numberMax bounds random numbers, and how often a loop is run.
const numberMax = 1 << 30

// script is a session on its way to a group's script.
type script struct {
	*translation
	group     *plan.Group
	connected bool
	variables map[string]*variable
	loop      *element // the innermost one; nil outside
}

// end is how a part of a script ends.
type end int

const (
	goesOn end = iota
	stays      // the user stays connected for good
	leaves     // its connection ends
)

func (how end) String() string {
	return [...]string{goesOn: "go on", stays: "stay", leaves: "leave"}[how]
}

// steps translates what a user does. What comes after its end is not translated.
func (s *script) steps(list []*element) (steps []plan.Step, how end) {
	for i, e := range list {
		var more []plan.Step
		more, how = s.step(e)
		for j := range more {
			if more[j].Line == 0 {
				more[j].Line = e.line
			}
		}
		steps = append(steps, more...)
		if how != goesOn {
			if i+1 < len(list) {
				s.note(list[i+1], "users do not come here: at line %d they %s", e.line, how)
			}
			break
		}
	}
	return steps, how
}

func (s *script) step(e *element) ([]plan.Step, end) {
	switch e.name {
	case "request":
		return s.request(e)
	case "thinktime":
		return s.think(e)
	case "for":
		return s.repeat(e)
	case "repeat":
		s.note(e, "<repeat> is run once, because its condition depends on what the server answers")
		return s.steps(e.children)
	case "while", "until":
	case "transaction":
		s.note(e, "transaction %.40s has no times of its own in the result", e.attr("name"))
		return s.steps(e.children)
	case "setdynvars":
		s.setVariables(e)
	case "abort":
		return nil, leaves
	case "if", "foreach":
		s.note(e, "<%s> is left out, because it depends on what the server answers", e.name)
	default:
		s.note(e, "<%s> is left out", e.name)
	}
	return nil, goesOn
}

// repeat translates <for>. Its end is looked at after each round, so that there is at
// least one.
func (s *script) repeat(e *element) ([]plan.Step, end) {
	from, to, by := s.bound(e, "from"), s.bound(e, "to"), s.number(e, "incr", 1)
	times := 1
	if to > from {
		rounds := 1 + math.Ceil((to-from)/by)
		if !(rounds <= plan.TimesMax) {
			s.fail(e, "the loop from %v to %v by %v has more than %d rounds", from, to, by, plan.TimesMax)
		} else {
			times = int(rounds)
		}
	}
	s.variables[e.attr("var")] = &variable{
		field: "{{.Seq}}", set: e, loop: s.loop,
		changes: "the number of the user's message, from 0, stands for the loop's",
	}
	outer := s.loop
	s.loop = e
	steps, how := s.steps(e.children)
	s.loop = outer
	if times == 1 || how != goesOn || len(steps) == 0 {
		return steps, how
	}
	return []plan.Step{{Do: plan.Repeat, Times: times, Steps: steps}}, goesOn
}

// bound is where a loop begins or ends.
func (s *script) bound(e *element, name string) float64 {
	raw := e.attr(name)
	if variable, isVariable := strings.CutPrefix(raw, "%%_"); isVariable {
		if v := s.variables[strings.TrimSuffix(variable, "%%")]; v != nil && v.value != "" {
			raw = v.value
		}
	}
	n, err := strconv.Atoi(raw)
	if err != nil {
		s.fail(e, "%s has to be a whole number, not %.40q", name, raw)
	}
	return float64(n)
}
