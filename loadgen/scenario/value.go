package scenario

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

var (
	wholeForm = regexp.MustCompile(`^(0|[1-9][0-9]*|[1-9][0-9]{0,2}(_[0-9]{3})+)$`)
	timeForm  = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`)
	bytesForm = regexp.MustCompile(`^(0|[1-9][0-9]*|[1-9][0-9]{0,2}(_[0-9]{3})+)(KiB|MiB|GiB)?$`)
)

// whole is a whole number.
func whole(least, most int) value[int] {
	limits := plan.Thousands(least) + " to " + plan.Thousands(most)
	must := "a whole number, " + limits + "; thousands may be written as 10_000"
	return value[int]{number(least, most), limits, func(d *decoder, n *yaml.Node) (int, error) {
		raw, err := d.scalar(n, must)
		if err != nil {
			return 0, err
		}
		v, err := strconv.Atoi(strings.ReplaceAll(raw, "_", ""))
		if !wholeForm.MatchString(raw) || err != nil || v < least || v > most {
			return 0, mistake(n, "must be %s, and is %.40q", must, raw)
		}
		return v, nil
	}}
}

// wholeOr is a whole number from 1, or a word for as many as there are.
func wholeOr(most int, word string) value[int] {
	number := whole(1, most)
	read := func(d *decoder, n *yaml.Node) (int, error) {
		if v, err := d.enter(n); err == nil && v.Kind == yaml.ScalarNode && v.Value == word {
			return 0, nil
		}
		v, err := number.read(d, n)
		if err, ok := err.(*Error); ok {
			err.Text = strings.Replace(err.Text, "must be a", "must be "+word+" or a", 1)
		}
		return v, err
	}
	return value[int]{anyOf(schema{"const": word}, number.schema), word + ", or " + number.limits, read}
}

// size is a number of bytes.
func size(least, most int) value[int] {
	limits := inBytes(least) + " to " + inBytes(most)
	must := "a number of bytes, " + limits
	text := schema{"type": "string", "pattern": bytesForm.String()}
	return value[int]{anyOf(schema{"type": "integer", "minimum": least, "maximum": most}, text), limits, func(d *decoder, n *yaml.Node) (int, error) {
		raw, err := d.scalar(n, must)
		if err != nil {
			return 0, err
		}
		m := bytesForm.FindStringSubmatch(raw)
		if m == nil {
			return 0, mistake(n, "must be %s, and is %.40q", must, raw)
		}
		v, err := strconv.Atoi(strings.ReplaceAll(m[1], "_", ""))
		unit := map[string]int{"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[m[3]]
		if err != nil || v < (least+unit-1)/unit || v > most/unit {
			return 0, mistake(n, "must be %s, and is %.40s", must, raw)
		}
		return v * unit, nil
	}}
}

// inBytes is a number of bytes as a scenario has it.
func inBytes(n int) string {
	for _, u := range []struct {
		n    int
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n > 0 && n%u.n == 0 {
			return strconv.Itoa(n/u.n) + u.name
		}
	}
	return plan.Thousands(n)
}

// rateMin is the lowest rate: once in a quarter of an hour.
const rateMin = 0.001

// rate is a number a second.
func rate() value[float64] {
	limits := fmt.Sprintf("%g to %s a second", rateMin, plan.Thousands(plan.RateMax))
	must := "a number, " + limits
	fraction := schema{"type": "number", "minimum": rateMin, "maximum": plan.RateMax}
	return value[float64]{anyOf(fraction, underscored), limits, func(d *decoder, n *yaml.Node) (float64, error) {
		raw, err := d.scalar(n, must)
		if err != nil {
			return 0, err
		}
		digits := raw
		if wholeForm.MatchString(raw) {
			digits = strings.ReplaceAll(raw, "_", "")
		}
		v, err := strconv.ParseFloat(digits, 64)
		if err != nil || strings.ContainsAny(digits, "xXpP_") || !(v >= rateMin && v <= plan.RateMax) {
			return 0, mistake(n, "must be %s, and is %.40q; leave it out for as fast as it goes", must, raw)
		}
		return v, nil
	}}
}

// lasting is a time.
func lasting(least, most time.Duration) value[time.Duration] {
	limits := short(least) + " to " + short(most)
	must := "a time with its unit, as 500ms, 30s, 10m or 2h; " + limits
	return value[time.Duration]{schema{"type": "string", "pattern": timeForm.String()}, limits, func(d *decoder, n *yaml.Node) (time.Duration, error) {
		raw, err := d.scalar(n, must)
		if err != nil {
			return 0, err
		}
		v, err := time.ParseDuration(raw)
		if !timeForm.MatchString(raw) || err != nil || v < least || v > most {
			return 0, mistake(n, "must be %s, and is %.40q", must, raw)
		}
		return v, nil
	}}
}

// short is a time without zeros at its end.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// yes is true or false.
func yes() value[bool] {
	return value[bool]{schema{"type": "boolean"}, "true or false", func(d *decoder, n *yaml.Node) (bool, error) {
		raw, err := d.scalar(n, "true or false")
		if err == nil && raw != "true" && raw != "false" {
			err = mistake(n, "must be true or false, and is %.40q", raw)
		}
		return raw == "true", err
	}}
}

// name is a text without templates.
func name(limits string) value[string] {
	return value[string]{scalarSchema, limits, func(d *decoder, n *yaml.Node) (string, error) { return d.scalar(n, "a text") }}
}

// text is a template.
func text(limits string) value[*plan.Text] {
	return value[*plan.Text]{scalarSchema, limits, func(d *decoder, n *yaml.Node) (*plan.Text, error) {
		raw, err := d.scalar(n, "a text")
		if err != nil {
			return nil, err
		}
		return d.template(n, raw)
	}}
}

// list is one value, or a list of them.
func list[V any](v value[V], limits string) value[[]V] {
	schema := anyOf(v.schema, schema{"type": "array", "items": v.schema})
	return value[[]V]{schema, limits, func(d *decoder, n *yaml.Node) (all []V, err error) {
		err = d.sequence(n, func(n *yaml.Node) error {
			one, err := v.read(d, n)
			all = append(all, one)
			return err
		})
		return all, err
	}}
}

// pair is a name and a text.
type pair struct {
	name string
	text *plan.Text
}

// pairs are names with texts, in their order. A name may have several texts.
func pairs(limits string) value[[]pair] {
	texts := list(text(""), "")
	schema := schema{"type": "object", "additionalProperties": texts.schema}
	return value[[]pair]{schema, limits, func(d *decoder, n *yaml.Node) (all []pair, err error) {
		err = d.mapping(n, func(key, value *yaml.Node) error {
			several, err := texts.read(d, value)
			for _, t := range several {
				all = append(all, pair{key.Value, t})
			}
			return about(key.Value, err)
		})
		return all, err
	}}
}
