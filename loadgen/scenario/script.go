package scenario

import (
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// stepVariants are a script's steps but close, which has no keys. They are a function
// because repeat has steps itself.
func stepVariants() variants[plan.Step] {
	message := func(s *plan.Step) *plan.Message { return &s.Message }
	return variants[plan.Step]{"step", []object[plan.Step]{
		{"send", "Send a message, and wait for its answer if it has one.", []key[plan.Step]{
			payload("send", message, "", "The message: a text, or a mapping."),
			answer(message),
			within(message),
		}},
		{"think", "Do nothing for a time.", []key[plan.Step]{
			is("think", thinkTime(), func(s *plan.Step) *plan.Think { return &s.Think }, "", "The time, or its distribution."),
		}},
		{"repeat", "Do other steps several times.", []key[plan.Step]{
			is("repeat", wholeOr(plan.TimesMax, "forever"), func(s *plan.Step) *int { return &s.Times }, "", "How many times; forever is until the run ends.").as("times"),
			is("every", lasting(plan.TimeMin, plan.TimeMax), func(s *plan.Step) *time.Duration { return &s.Every }, "a round begins when the one before has ended",
				"The time from the beginning of one round to that of the next. If a round takes longer, the next one is late, and the times of its messages count from when they should have been sent."),
			is("steps", script(), func(s *plan.Step) *[]plan.Step { return &s.Steps }, "", "The steps."),
		}},
	}}
}

// does are what the variants of steps do, by their first keys.
var does = map[string]plan.Do{"send": plan.Send, "think": plan.Pause, "repeat": plan.Repeat}

const closeStep = "close"

// script is a list of steps.
func script() value[[]plan.Step] {
	return value[[]plan.Step]{schema{"type": "array", "minItems": 1, "items": reference("step")}, "a list of steps", func(d *decoder, n *yaml.Node) (steps []plan.Step, err error) {
		if at, err := d.enter(n); err != nil || at.Kind != yaml.SequenceNode || len(at.Content) == 0 {
			return nil, orElse(err, mistake(n, "must be a list of steps"))
		}
		err = d.sequence(n, func(n *yaml.Node) error {
			step, err := d.step(n)
			steps = append(steps, step)
			return err
		})
		return steps, err
	}}
}

func (d *decoder) step(n *yaml.Node) (plan.Step, error) {
	s := plan.Step{Line: n.Line}
	at, err := d.enter(n)
	if err != nil {
		return s, err
	}
	if at.Kind == yaml.ScalarNode && at.Value == closeStep {
		s.Do = plan.Close
		d.note(n, "", "", n)
		return s, nil
	}
	v := stepVariants()
	o, err := v.pick(d, n)
	if err != nil {
		if e, ok := err.(*Error); ok && at.Kind != yaml.MappingNode {
			e.Text += ", or be close"
		}
		return s, err
	}
	s.Do = does[o.name]
	return s, o.decode(d, n, &s)
}

// orElse is the first of two errors that there is.
func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
