package tuning

import (
	"errors"
	"fmt"
)

// Change is a sysctl that was raised.
type Change struct {
	Name     string
	Old, New string
}

// Raised is what was raised for the time of a run. It belongs to one goroutine.
type Raised struct {
	Changes []Change

	machine *Machine
	done    func() // nil if nothing has to be put back
}

// Raise raises the sysctls that are too low for a demand, for the time of a run:
// also those that Apply raises only if they are named, and no files. It never lowers
// any. In a network namespace, those that are not the namespace's own are raised in
// the first one, if this process may enter it.
//
// Before it changes anything it saves the old values in RunFile, so that after a kill
// -9 the next Raise, Apply or Revert puts them back. Until Restore nobody else can
// raise, apply or revert: they get an error.
//
// It raises what it may. The error names what it may not raise, and then nothing or
// only a part was raised; the result is never nil.
func (m *Machine) Raise(d Demand) (*Raised, error) {
	m, leave := m.outside()
	plan, denied := m.planRun(d)
	if plan.Empty() && !m.exists(RunFile) {
		leave()
		return &Raised{}, denied
	}
	unlock, err := m.begin()
	if err != nil {
		leave()
		return &Raised{}, errors.Join(denied, err)
	}
	done := func() {
		unlock()
		leave()
	}
	plan, denied, err = m.raise(d)
	if err != nil || plan.Empty() {
		done()
		return &Raised{}, errors.Join(denied, err)
	}
	return &Raised{Changes: plan.Changes(), machine: m, done: done}, denied
}

// raise puts back what a run that was killed has raised, and raises what is too low
// then. The caller has locked the states' directory.
func (m *Machine) raise(d Demand) (plan *Plan, denied, err error) {
	if _, err := m.putBackAll(RunFile); err != nil {
		return nil, nil, err
	}
	plan, denied = m.planRun(d)
	if plan.Empty() {
		return plan, denied, nil
	}
	a := application{m: m, plan: plan, path: RunFile}
	return plan, denied, a.carryOut()
}

// planRun plans what is too low for a demand and may be written. The error names
// what may not be written.
func (m *Machine) planRun(d Demand) (*Plan, error) {
	p := &Plan{}
	var errs []error
	for _, f := range m.Check(d) {
		if f.OK() || f.Limit.Sysctl == "" {
			continue
		}
		s := f.setting()
		r, err := m.row(s, Choice{Only: []string{s.Name}})
		if err == nil && r.Skip == "" {
			err = m.writable(s.Name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tuning: raise %s to %s: %w", s.Name, s.Want, err))
			continue
		}
		p.Rows = append(p.Rows, r)
	}
	return p, errors.Join(errs...)
}

// Restore puts back what Raise has raised, the last change first. The error names
// what could not be put back, which RunFile keeps for "lull tune revert", and what
// was left because somebody else has changed it since. A second call does nothing.
func (r *Raised) Restore() error {
	if r.done == nil {
		return nil
	}
	defer r.done()
	r.done = nil
	all, err := r.machine.putBackAll(RunFile)
	errs := []error{err}
	for _, one := range all {
		if one.Drift {
			errs = append(errs, fmt.Errorf("tuning: restore %s: %s", one.Name, one.To))
		}
	}
	return errors.Join(errs...)
}
