package tsung

import (
	"strconv"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// think translates a think time.
func (s *script) think(e *element) ([]plan.Step, end) {
	if !s.connected {
		s.note(e, "a user connects at once, and does not wait before")
		return nil, goesOn
	}
	switch e.attr("value") {
	case "wait_bidi":
		s.note(e, "the user stays connected, as tsung's does: in a ts_websocket session nothing that arrives ends this wait")
		return nil, stays
	case "wait_global":
		s.note(e, "the user does not wait until all users have come here")
		return nil, goesOn
	}
	think := s.time(e)
	if think == (plan.Think{}) {
		return nil, goesOn
	}
	return []plan.Step{{Do: plan.Pause, Think: think}}, goesOn
}

// time is how long a think time takes.
func (s *script) time(e *element) plan.Think {
	if raw, isVariable := strings.CutPrefix(e.attr("value"), "%%_"); isVariable {
		return s.variableTime(e, strings.TrimSuffix(raw, "%%"))
	}
	// A time or a range of its own counts, unless the option overrides it. Whether it is random
	// may be said by either.
	of := e
	_, hasValue := e.attrs["value"]
	_, hasRange := e.attrs["min"]
	if s.options.override || !hasValue && !hasRange {
		of = s.options.think
	}
	if _, hasRange := of.attrs["min"]; hasRange {
		from, to := s.seconds(of, s.number(of, "min", 0)), s.seconds(of, s.number(of, "max", 0))
		if to < from {
			s.fail(of, "max has to be at least min")
		}
		return plan.Think{Shape: plan.Uniform, From: from, To: to}
	}
	random := e.attr("random", s.options.think.attr("random"))
	if s.options.override {
		random = of.attr("random")
	}
	return think(random == "true", s.seconds(of, s.number(of, "value", thinkTime)*s.unit(of).Seconds()))
}

// thinkTime is tsung's think time where a file names none, in seconds.
const thinkTime = 5

func think(random bool, mean time.Duration) plan.Think {
	if random && mean > 0 {
		return plan.Think{Shape: plan.Exponential, Mean: mean}
	}
	return plan.Think{Mean: mean}
}

// variableTime is the think time that a variable has, in seconds.
func (s *script) variableTime(e *element, name string) plan.Think {
	v := s.variables[name]
	switch {
	case v != nil && v.to > 0:
		return plan.Think{Shape: plan.Uniform, From: s.seconds(e, float64(v.from)), To: s.seconds(e, float64(v.to))}
	case v != nil && v.value != "":
		if n, err := strconv.ParseFloat(v.value, 64); err == nil && n >= 0 {
			return think(e.attr("random") == "true", s.seconds(e, n))
		}
	}
	s.fail(e, "the value of %.40s is not known here: write a number of seconds", name)
	return plan.Think{}
}
