package plan

import (
	"fmt"
	"slices"
)

// script is a group's script that is checked.
type script struct {
	*checker
	group string
	steps int // so far
}

func (c *checker) checkScript(g *Group) error {
	s := script{checker: c, group: g.Name}
	if err := s.check(g.Script, 1, g.Line); err != nil {
		return err
	}
	if endless(g.Script) {
		c.lasting |= 1 << slices.IndexFunc(c.plan.Groups, func(other Group) bool { return other.Name == g.Name })
	}
	return nil
}

// check checks steps at a depth. line is where they are, if they do not know it themselves.
func (s *script) check(steps []Step, depth, line int) error {
	f := &finder{line, fmt.Sprintf("group %.80q", s.group)}
	if s.steps += len(steps); s.steps > StepsMax {
		return f.fault("script", "has more than %d steps", StepsMax)
	}
	if depth > DepthMax {
		return f.fault("script", "has steps within steps more than %d deep", DepthMax)
	}
	for i := range steps {
		step := &steps[i]
		f := &finder{max(line, step.Line), fmt.Sprintf("group %.80q: step %s", s.group, step.Do)}
		last := i == len(steps)-1
		switch {
		case step.Do == Close && (!last || depth > 1):
			return f.fault("", "it must be the script's last step, and not in a repeat")
		case !last && endless(steps[i:i+1]):
			return f.fault("", "it has no end, so the steps behind it never come: it needs times")
		}
		if err := s.checkStep(f, step, depth); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) checkStep(f *finder, step *Step, depth int) error {
	for _, has := range []struct {
		key string
		is  bool
		of  Do
	}{
		{"message", step.Message != Message{}, Send}, {"think", step.Think != Think{}, Pause}, {"times", step.Times != 0, Repeat},
		{"every", step.Every != 0, Repeat}, {"steps", step.Steps != nil, Repeat},
	} {
		if has.is && step.Do != has.of {
			return f.fault(has.key, "is for %s only", has.of)
		}
	}
	switch step.Do {
	case Send:
		return s.checkMessage(f, &step.Message)
	case Pause:
		return step.Think.check(f)
	case Repeat:
		return s.checkRepeat(f, step, depth)
	case Close:
		return nil
	}
	return f.fault("do", "is %.40q: it must be send, pause, repeat or close", step.Do)
}

func (s *script) checkRepeat(f *finder, step *Step, depth int) error {
	if err := first(f.counts("times", step.Times, 0, TimesMax, ", and 0 for until the run ends"), f.optional("every", step.Every, TimeMin, TimeMax)); err != nil {
		return err
	}
	switch {
	case len(step.Steps) == 0:
		return f.fault("steps", "are missing")
	case step.Times == 0 && step.Every == 0 && !waits(step.Steps):
		return f.fault("", "it has no end, and nothing in it waits: it needs a pause, an answer, every or times")
	}
	return s.check(step.Steps, depth+1, max(f.line, step.Line))
}

// endless reports whether steps have no end.
func endless(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return s.Do == Repeat && (s.Times == 0 || endless(s.Steps)) })
}

// waits reports whether a user waits while it does steps.
func waits(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool {
		return s.Do == Pause || s.Do == Send && s.Message.Answer.Kind != AnswerNone || s.Do == Repeat && (s.Every > 0 || waits(s.Steps))
	})
}
