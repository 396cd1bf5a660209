package scenario

import (
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// normal is a normal distribution.
var normal = object[plan.Think]{"normal", "A normal distribution. What is below zero becomes zero.", []key[plan.Think]{
	is("mean", lasting(0, plan.TimeMax), func(t *plan.Think) *time.Duration { return &t.Mean }, "", "Its mean."),
	is("dev", lasting(0, plan.TimeMax), func(t *plan.Think) *time.Duration { return &t.Dev }, "", "Its standard deviation."),
}}

var thinkVariants = variants[plan.Think]{"distribution", []object[plan.Think]{
	{"uniform", "Any time between two is as likely.", []key[plan.Think]{
		to("uniform", bounds(), func(t *plan.Think, b [2]time.Duration) { t.Shape, t.From, t.To = plan.Uniform, b[0], b[1] }, "", "The shortest and the longest time."),
	}},
	{"exponential", "Independent events, as requests of many people are; never longer than 20 means.", []key[plan.Think]{
		to("exponential", lasting(1, plan.TimeMax), func(t *plan.Think, mean time.Duration) { t.Shape, t.Mean = plan.Exponential, mean }, "", "Its mean."),
	}},
	{"normal", "A normal distribution.", []key[plan.Think]{
		to("normal", value[plan.Think]{reference("normal"), "mean and dev", func(d *decoder, n *yaml.Node) (t plan.Think, err error) {
			t.Shape = plan.Normal
			return t, normal.decode(d, n, &t)
		}}, func(t *plan.Think, normal plan.Think) { *t = normal }, "", "Its mean and its standard deviation."),
	}},
}}

// thinkTime is a time, or a distribution of times.
func thinkTime() value[plan.Think] {
	constant := lasting(1, plan.TimeMax)
	return value[plan.Think]{anyOf(constant.schema, reference("distribution")), "a time up to " + short(plan.TimeMax) + ", or a distribution", func(d *decoder, n *yaml.Node) (t plan.Think, err error) {
		at, err := d.enter(n)
		if err != nil {
			return t, err
		}
		if at.Kind != yaml.MappingNode {
			t.Mean, err = constant.read(d, n)
			return t, err
		}
		o, err := thinkVariants.pick(d, n)
		if err != nil {
			return t, err
		}
		return t, o.decode(d, n, &t)
	}}
}

// bounds are two times.
func bounds() value[[2]time.Duration] {
	each := lasting(0, plan.TimeMax)
	return value[[2]time.Duration]{schema{"type": "array", "items": each.schema, "minItems": 2, "maxItems": 2}, "two times, " + each.limits, func(d *decoder, n *yaml.Node) (b [2]time.Duration, err error) {
		at, err := d.enter(n)
		if err != nil || at.Kind != yaml.SequenceNode || len(at.Content) != 2 {
			return b, orElse(err, mistake(n, "must be two times, the shorter one first, as [1s, 3s]"))
		}
		for i, n := range at.Content {
			if b[i], err = each.read(d, n); err != nil {
				return b, err
			}
		}
		if b[0] > b[1] {
			return b, mistake(n, "must have the shorter time first")
		}
		return b, nil
	}}
}
