package tsung

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// timeMax is the longest time. tsung's own limit is a little lower.
const timeMax = 50 * 24 * time.Hour

// translation is a file on its way to a plan. Its methods go on after an error with
// values that do no harm, and the first error is kept.
type translation struct {
	factor float64 // of users and their rate
	read   func(file string) ([]string, error)

	options options
	urls    []string // of the servers, without paths

	plan    plan.Plan
	stay    bool // some of its users do
	sources []string
	notes   []Note
	err     error
}

// translate translates a file. read reads the lines of another one.
func translate(root *element, factor float64, read func(file string) ([]string, error)) (*translation, error) {
	t := &translation{factor: factor, read: read}
	t.file(root)
	if t.err == nil {
		t.err = t.plan.Validate()
	}
	if t.err != nil {
		return nil, t.err
	}
	slices.SortStableFunc(t.notes, func(a, b Note) int { return a.Line - b.Line })
	return t, nil
}

func (t *translation) file(root *element) {
	for _, e := range root.children {
		switch e.name {
		case "information", "clients", "servers", "load", "options", "sessions":
		case "monitoring":
			t.note(e, "servers are not monitored")
		default:
			t.note(e, "<%s> is not known", e.name)
		}
	}
	t.clients(root.child("clients"))
	t.urls = t.servers(root.child("servers"))
	t.options = t.settings(root.child("options"))
	sessions := t.sessions(root.child("sessions"))
	t.load(root.child("load"), sessions, t.room(root.child("clients")))
}

// note says what of e was left out, or makes no difference.
func (t *translation) note(e *element, format string, args ...any) {
	t.notes = append(t.notes, Note{e.line, fmt.Sprintf(format, args...)})
}

// fail says what is wrong with e.
func (t *translation) fail(e *element, format string, args ...any) {
	if t.err == nil {
		t.err = &plan.Fault{Line: e.line, What: fmt.Sprintf(format, args...)}
	}
}

// Numbers of a file are 0 or between these, so that nothing that is computed with them
// overflows.
const (
	fractionMin = 1e-9
	amountMax   = 1e12
)

// number is an attribute that is a number, at least 0. Without it, it is otherwise.
func (t *translation) number(e *element, name string, otherwise float64) float64 {
	raw, written := e.attrs[name]
	if !written {
		return otherwise
	}
	n, err := strconv.ParseFloat(raw, 64)
	if err != nil || n != 0 && !(fractionMin <= n && n <= amountMax) {
		t.fail(e, "%s has to be 0, or a number from %v to %v, not %.40q", name, fractionMin, amountMax, raw)
		return otherwise
	}
	return n
}

// whole is an attribute that is a whole number, from 0 to most. Without it, it is
// otherwise.
func (t *translation) whole(e *element, name string, otherwise, most int) int {
	raw, written := e.attrs[name]
	if !written {
		return otherwise
	}
	n, err := strconv.Atoi(raw)
	if err != nil || n < 0 || n > most {
		t.fail(e, "%s has to be a whole number from 0 to %d, not %.40q", name, most, raw)
		return otherwise
	}
	return n
}

// span is an attribute that is a time in the unit that another attribute names.
func (t *translation) span(e *element, name string) time.Duration {
	return t.seconds(e, t.number(e, name, 0)*t.unit(e).Seconds())
}

// seconds is a time.
func (t *translation) seconds(e *element, s float64) time.Duration {
	if s > timeMax.Seconds() {
		t.fail(e, "no time may be longer than %v", timeMax)
		return 0
	}
	return time.Duration(math.Round(s * float64(time.Second)))
}

func (t *translation) unit(e *element) time.Duration {
	switch unit := e.attr("unit", "second"); unit {
	case "millisecond":
		return time.Millisecond
	case "second":
		return time.Second
	case "minute":
		return time.Minute
	case "hour":
		return time.Hour
	default:
		t.fail(e, "unit has to be millisecond, second, minute or hour, not %.40q", unit)
		return time.Second
	}
}
