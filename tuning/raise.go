package tuning

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Change is a sysctl that was raised.
type Change struct {
	Name     string
	Old, New string
}

// Raise raises the sysctls that are too low for a demand. It never lowers any. It
// returns what it changed, even with an error; pass that to Restore.
func (m *Machine) Raise(d Demand) ([]Change, error) {
	var changes []Change
	var errs []error
	for _, f := range m.Check(d) {
		l := f.Limit
		if f.OK() || l.Sysctl == "" {
			continue
		}
		old, err := m.sysctl(l.Sysctl)
		if err == nil {
			change := Change{l.Sysctl, old, raised(old, l.Field, f.Need)}
			if err = m.write(change.Name, change.New); err == nil {
				changes = append(changes, change)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tuning: raise %s to %d: %w", l.Sysctl, f.Need, err))
		}
	}
	return changes, errors.Join(errs...)
}

// Restore restores the sysctls that Raise changed and that still have the value
// that Raise set, the last one first.
func (m *Machine) Restore(changes []Change) error {
	var errs []error
	for i := len(changes) - 1; i >= 0; i-- {
		c := changes[i]
		now, err := m.sysctl(c.Name)
		switch {
		case err != nil:
		case !same(now, c.New):
			err = fmt.Errorf("it is %q by now, not %q", now, c.New)
		default:
			err = m.write(c.Name, c.Old)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tuning: restore %s to %q: %w", c.Name, c.Old, err))
		}
	}
	return errors.Join(errs...)
}

// raised raises the numbers of a sysctl's value, from one index on, that are below
// need.
func raised(value string, field int, need int64) string {
	fields := strings.Fields(value)
	for i := field; i < len(fields); i++ {
		if n, err := strconv.ParseInt(fields[i], 10, 64); err == nil && n < need {
			fields[i] = strconv.FormatInt(need, 10)
		}
	}
	return strings.Join(fields, " ")
}

// write gives a sysctl a value. It makes no file where there is none.
func (m *Machine) write(name, value string) error {
	if err := step("set " + name); err != nil {
		return err
	}
	f, err := os.OpenFile(m.path(name), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}
