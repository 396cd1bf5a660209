package tuning

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// SysctlPath is the file that sets the values at boot.
const SysctlPath = "/etc/sysctl.d/90-lull.conf"

// Choice is which settings a person wants to change.
type Choice struct {
	Only []string // if not empty, these and no others
	With []string // these too, of the settings that must be named
}

// Plan is what Apply would do. Making a plan changes nothing.
type Plan struct {
	Rows     []Row // kernel settings
	Units    []Row // limits of units, which Files set
	Boot     []Row // parameters of the kernel's command line, which Files set
	Files    []PlannedFile
	Warnings []string

	again func() (*Plan, error) // plans once more, from the machine as it is then
}

// Row is what a plan does to a setting.
type Row struct {
	Setting
	Now   string // "" if this machine has no such setting
	After string
	Skip  string // why the setting is not changed; "" if it is
}

// PlannedFile is a file and its new content.
type PlannedFile struct {
	Path string
	Text []byte
}

// Empty reports whether there is nothing to do.
func (p *Plan) Empty() bool { return len(p.Changes()) == 0 && len(p.Files) == 0 }

// Changes are the kernel settings that the plan changes.
func (p *Plan) Changes() []Change {
	var changes []Change
	for _, r := range p.Rows {
		if r.Skip == "" {
			changes = append(changes, Change{r.Name, r.Now, r.After})
		}
	}
	return changes
}

// Plan says what must change for a machine to meet a demand: kernel settings now,
// files that set them at every boot, the descriptor limits of systemd's units, and
// the kernel's command line. It raises and never lowers.
func (m *Machine) Plan(d Demand, c Choice) (*Plan, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	others := *m
	others.Privileged = false // limits that do not apply to root apply to the server, which is not root
	return m.plan(d, c, others.Settings(d))
}

func (m *Machine) plan(d Demand, c Choice, settings []Setting) (*Plan, error) {
	p := &Plan{again: func() (*Plan, error) { return m.plan(d, c, settings) }}
	applied, err := loadState[state](m, StateFile)
	if errors.Is(err, fs.ErrPermission) {
		p.Warnings = append(p.Warnings, err.Error()+": changes of an earlier apply are not considered")
	} else if err != nil {
		return nil, err
	}
	if m.exists(RunFile) {
		p.Warnings = append(p.Warnings, "a run has raised settings and has not put them back, says "+RunFile+": wait for its end, or, if it was killed, use \"lull tune revert\"")
	}
	for _, s := range settings {
		r, err := m.row(s, c)
		if err != nil {
			return nil, err
		}
		p.Rows = append(p.Rows, r)
	}
	if err := m.planSysctls(p, applied); err != nil {
		return nil, err
	}
	if c.includes(limitSetting) {
		if err := m.planUnits(p, d, applied); err != nil {
			return nil, err
		}
	}
	if err := m.planBoot(p, d, c, applied); err != nil {
		return nil, err
	}
	return p, nil
}

// Check returns an error if a name is unknown.
func (c Choice) Check() error {
	known := append(slices.Clone(tunable), limitSetting.Name, bootSetting.Name)
	for _, name := range slices.Concat(c.Only, c.With) {
		if !slices.Contains(known, sysctlName(name)) {
			slices.Sort(known)
			return fmt.Errorf("tuning: there is no %q to tune, only %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// includes reports whether a setting should be changed.
func (c Choice) includes(s Setting) bool {
	named := func(names []string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return sysctlName(n) == s.Name })
	}
	if named(c.Only) || named(c.With) {
		return true
	}
	return len(c.Only) == 0 && !s.Named
}

// Reasons not to change a setting.
const (
	skipEnough = "enough"
	skipNamed  = "left: it can do harm, so it must be named"
	skipChoice = "left: not chosen"
	skipAbsent = "not in this kernel, or not in this network namespace"
)

func (m *Machine) row(s Setting, c Choice) (Row, error) {
	now, err := m.sysctl(s.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return Row{Setting: s, Skip: skipAbsent}, nil
	}
	if err != nil {
		return Row{}, fmt.Errorf("tuning: read %s: %w", s.Name, err)
	}
	after, err := s.raise(now)
	if err != nil {
		return Row{}, fmt.Errorf("tuning: raise %s from %q: %w", s.Name, now, err)
	}
	r := Row{Setting: s, Now: now, After: now}
	switch {
	case same(now, after):
		r.Skip = skipEnough
	case c.includes(s):
		r.After = after
	case s.Named:
		r.Skip = skipNamed
	default:
		r.Skip = skipChoice
	}
	return r, nil
}

// planSysctls plans the file for the next boot. It keeps the file's lines, and
// adds settings that change now or were changed by an earlier apply, which may
// have been killed before it wrote the file.
func (m *Machine) planSysctls(p *Plan, applied *state) error {
	had, err := m.contentOf(SysctlPath)
	if err != nil {
		return fmt.Errorf("tuning: plan a file: %w", err)
	}
	text := []byte(sysctlHead)
	if had != nil {
		text = had.Text
	}
	inFile := parseSysctls(text)
	var edits []Setting
	for _, r := range p.Rows {
		i := len(inFile) - 1 // of several lines the last one counts
		for i >= 0 && inFile[i].Name != r.Name {
			i--
		}
		wanted := r.Skip == "" || r.Skip == skipEnough
		ours := r.Skip == "" || wanted && applied != nil && applied.value(r.Name) != nil
		edit := Setting{Name: r.Name, Want: r.After, Why: r.Why}
		switch {
		case i < 0 && ours:
			edits = append(edits, edit)
		case i >= 0 && wanted:
			// The file's value may be lower than the kernel's, or higher.
			least := Setting{Name: r.Name, Want: r.After}
			if r.Skip == skipEnough && !ours {
				least.Want = r.Want
			}
			if raised, err := least.raise(inFile[i].Want); err == nil {
				edit.Want = raised
			}
			if edit.Want != inFile[i].Want {
				edits = append(edits, edit)
			}
		}
	}
	text = editSysctls(text, edits)
	if len(edits) > 0 {
		p.Files = append(p.Files, PlannedFile{SysctlPath, text})
	}
	m.warnSysctls(p, parseSysctls(text))
	return nil
}

// warnSysctls warns of files that override ours at boot, because their names sort
// after it.
func (m *Machine) warnSysctls(p *Plan, settings []Setting) {
	for _, theirs := range m.assignments() {
		if filepath.Base(theirs.file) <= filepath.Base(SysctlPath) {
			continue
		}
		for _, s := range settings {
			if raised, err := s.raise(theirs.value); s.Name == theirs.name && err == nil && !same(raised, theirs.value) {
				p.Warnings = append(p.Warnings, fmt.Sprintf("%s sets %s to %s: it is read after %s, so its value counts after a reboot",
					theirs.file, s.Name, theirs.value, SysctlPath))
			}
		}
	}
}

// confs lists the configuration files of several directories in the order in
// which systemd reads them: by name, and of files with the same name only the
// first directory's.
func (m *Machine) confs(dirs ...string) []string {
	var paths []string
	seen := map[string]bool{}
	for _, dir := range dirs {
		entries, _ := os.ReadDir(m.below(dir)) // a directory that does not exist is empty
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ".conf") && !seen[name] {
				seen[name] = true
				paths = append(paths, filepath.Join(dir, name))
			}
		}
	}
	slices.SortFunc(paths, byBase)
	return paths
}

func byBase(a, b string) int { return cmp.Compare(filepath.Base(a), filepath.Base(b)) }

// Apply carries out a plan, completely or not at all. Before it changes anything,
// it saves in StateFile what Revert needs. If a run was killed, Apply puts back what
// the run has raised, so that it is not taken for the machine's own; if the plan is
// another one then, it returns an error.
func (m *Machine) Apply(p *Plan) error {
	if p.Empty() {
		return nil
	}
	if err := m.Permitted(p); err != nil {
		return fmt.Errorf("tuning: nothing was changed, because not everything can be changed: %w", err)
	}
	unlock, err := m.begin()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := m.putBackAll(RunFile); err != nil {
		return err
	}
	again, err := p.again()
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(p.Changes(), again.Changes()) || !reflect.DeepEqual(p.Files, again.Files) {
		return errors.New("tuning: the machine has changed since the plan was made; try again")
	}
	a := application{m: m, plan: p, path: StateFile}
	return a.carryOut()
}

// Permitted returns an error if this process may not carry out a plan.
func (m *Machine) Permitted(p *Plan) error {
	var errs []error
	for _, c := range p.Changes() {
		if err := m.writable(c.Name); err != nil {
			errs = append(errs, err)
		}
	}
	for _, path := range append(paths(p.Files), StateFile) {
		if err := m.permitted(filepath.Dir(path)); err != nil {
			errs = append(errs, err)
		}
	}
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return fmt.Errorf("%w, and %d more like it", errs[0], len(errs)-1)
}

func paths(files []PlannedFile) []string {
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	return paths
}

// application is an apply in progress.
type application struct {
	m        *Machine
	plan     *Plan
	path     string              // of the state
	before   *state              // the state of an earlier apply; nil if there is none
	state    *state              // what is saved
	files    map[string]*content // as they were before this apply
	made     []string            // directories that were made
	set      []Change            // changes that were made
	replaced []string            // files that were replaced
}

func (a *application) carryOut() error {
	if err := a.note(); err != nil {
		return err
	}
	if err := a.run(); err != nil {
		return a.rollBack(err)
	}
	return nil
}

// note saves the current values of everything that is about to change.
func (a *application) note() (err error) {
	m := a.m
	if a.before, err = loadState[state](m, a.path); err != nil {
		return err
	}
	if a.state, err = m.here(); err != nil {
		return err
	}
	if err := a.extend(); err != nil {
		return err
	}
	for _, c := range a.plan.Changes() {
		v := a.state.value(c.Name)
		if v == nil {
			a.state.Values = append(a.state.Values, value{Name: c.Name, Old: c.Old})
			v = &a.state.Values[len(a.state.Values)-1]
		}
		v.New = append(v.New, c.New)
	}
	a.files = map[string]*content{}
	for _, p := range a.plan.Files {
		now, err := m.contentOf(p.Path)
		if err != nil {
			return fmt.Errorf("tuning: save the content of %s: %w", p.Path, err)
		}
		a.files[p.Path] = now
		f := a.state.file(p.Path)
		if f == nil {
			a.state.Files = append(a.state.Files, file{Path: p.Path, Old: now})
			f = &a.state.Files[len(a.state.Files)-1]
		}
		f.New = append(f.New, p.Text)
		a.state.Dirs = append(a.state.Dirs, m.missing(filepath.Dir(p.Path), a.state.Dirs)...)
	}
	if err := m.saveState(a.path, a.state); err != nil {
		return fmt.Errorf("tuning: save what will change: %w", err)
	}
	return nil
}

// extend takes over the state of an earlier apply, because its old values are the
// original ones. Values of an earlier boot are gone.
func (a *application) extend() error {
	b := a.before
	if b == nil {
		return nil
	}
	if b.Boot == a.state.Boot && b.Namespace != a.state.Namespace {
		return fmt.Errorf("tuning: %s belongs to another network namespace, %s: revert there first", a.path, b.Namespace)
	}
	if b.Boot == a.state.Boot {
		for _, v := range b.Values {
			v.New = slices.Clone(v.New)
			a.state.Values = append(a.state.Values, v)
		}
	}
	for _, f := range b.Files {
		f.New = slices.Clone(f.New)
		a.state.Files = append(a.state.Files, f)
	}
	a.state.Dirs = slices.Clone(b.Dirs)
	return nil
}

// missing lists the directories that must be made for dir to exist, outer ones
// first.
func (m *Machine) missing(dir string, known []string) []string {
	if _, err := os.Lstat(m.below(dir)); err == nil || slices.Contains(known, dir) {
		return nil
	}
	return append(m.missing(filepath.Dir(dir), known), dir)
}

func (a *application) run() error {
	m := a.m
	for _, c := range a.plan.Changes() {
		if err := m.write(c.Name, c.New); err != nil {
			return fmt.Errorf("set %s to %s: %w", c.Name, c.New, err)
		}
		a.set = append(a.set, c)
		now, err := m.sysctl(c.Name)
		if err != nil {
			return fmt.Errorf("read %s back: %w", c.Name, err)
		}
		a.state.value(c.Name).Read = now
		if same(now, c.New) {
			continue
		}
		// The kernel changed what we wrote. If this were not saved, revert would take
		// it for somebody else's value.
		if err := m.saveState(a.path, a.state); err != nil {
			return fmt.Errorf("save that %s is %s: %w", c.Name, now, err)
		}
		if !holds(c, now) {
			return fmt.Errorf("set %s to %s: the kernel made it %s", c.Name, c.New, now)
		}
	}
	for _, p := range a.plan.Files {
		if err := a.writeFile(p); err != nil {
			return fmt.Errorf("write %s: %w", p.Path, err)
		}
	}
	if err := m.saveState(a.path, a.state); err != nil {
		return fmt.Errorf("save what the kernel made of it: %w", err)
	}
	return nil
}

// holds reports whether the value that was read back is at least the one that was
// written.
func holds(c Change, read string) bool {
	raised, err := Setting{Name: c.Name, Want: c.New}.raise(read)
	return err == nil && same(raised, read)
}

func (a *application) writeFile(p PlannedFile) error {
	m := a.m
	for _, dir := range a.state.Dirs {
		if err := m.makeDir(dir, 0o755); err == nil {
			a.made = append(a.made, dir)
		} else if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	to := &content{Text: p.Text, Mode: 0o644, UID: os.Geteuid(), GID: os.Getegid()}
	if had := a.files[p.Path]; had != nil {
		to.Mode, to.UID, to.GID = had.Mode, had.UID, had.GID
	}
	a.replaced = append(a.replaced, p.Path) // even if it fails half way
	return m.replace(p.Path, to)
}

// rollBack undoes what was done before something failed, and restores the state of
// an earlier apply. If something cannot be undone, it keeps the state for Revert.
func (a *application) rollBack(cause error) error {
	m := a.m
	var errs []error
	for _, path := range slices.Backward(a.replaced) {
		errs = append(errs, m.putBack(path, a.files[path]))
	}
	for _, dir := range slices.Backward(a.made) {
		errs = append(errs, m.removeDir(dir))
	}
	for _, c := range slices.Backward(a.set) {
		errs = append(errs, m.write(c.Name, c.Old))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tuning: %w; and some earlier changes could not be undone: %w; try \"lull tune revert\"", cause, err)
	}
	if a.before != nil {
		errs = append(errs, m.saveState(a.path, a.before))
	} else {
		errs = append(errs, m.forget(a.path))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tuning: %w; earlier changes were undone, but the state file could not be: %w", cause, err)
	}
	return fmt.Errorf("tuning: %w; earlier changes were undone", cause)
}

// forget removes a state file.
func (m *Machine) forget(path string) error {
	return errors.Join(m.remove(temporary(path)), m.remove(path))
}

// putBack restores a file's old content, or removes the file.
func (m *Machine) putBack(path string, old *content) error {
	if old == nil {
		return m.remove(path)
	}
	return m.replace(path, old)
}

// Reverted is what happened to one thing that Apply had changed.
type Reverted struct {
	Name  string // a sysctl, or a file's path
	To    string // its new state, in a few words
	Drift bool   // somebody else has changed it, so it was left
	Err   error  // it could not be restored
}

// Revert restores what Apply has changed and nobody else has changed since, and
// removes the state. First it restores what a run that was killed has raised. It
// returns what happened to each thing; nothing if there is
// nothing to revert. If something cannot be restored the state stays, so that
// Revert can be tried again.
//
// After a reboot the kernel's values are not ours, and in another network namespace
// those are not that each namespace has for itself; then these are left.
func (m *Machine) Revert() ([]Reverted, error) {
	if _, err := os.Stat(m.below(filepath.Dir(StateFile))); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err := m.permitted(filepath.Dir(StateFile)); err != nil {
		return nil, fmt.Errorf("tuning: revert: %w", err)
	}
	unlock, err := m.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	run, err := m.putBackAll(RunFile)
	if err != nil {
		return run, err
	}
	all, err := m.putBackAll(StateFile)
	return append(run, all...), err
}

// putBackAll restores what the state in a file lists, and removes the file. The
// caller has locked the states' directory.
func (m *Machine) putBackAll(path string) (all []Reverted, err error) {
	s, err := loadState[state](m, path)
	switch {
	case err != nil:
		return nil, err
	case s != nil:
		if all, err = m.revertState(path, s); err != nil {
			return all, err
		}
	case !m.exists(temporary(path)): // of a program that was killed
		return nil, nil
	}
	if err := m.forget(path); err != nil {
		return all, fmt.Errorf("tuning: remove the state: %w", err)
	}
	return all, nil
}

// revertState restores what a state lists, the last change first.
func (m *Machine) revertState(path string, s *state) (all []Reverted, err error) {
	here, err := m.here()
	if err != nil {
		return nil, err
	}
	for _, f := range slices.Backward(s.Files) {
		all = append(all, m.revertFile(f))
	}
	for _, dir := range slices.Backward(s.Dirs) {
		_ = m.removeDir(dir) // fails if it holds somebody else's files
	}
	for _, v := range slices.Backward(s.Values) {
		all = append(all, m.revertValue(v, s, here))
	}
	var errs []error
	for _, r := range all {
		errs = append(errs, r.Err)
	}
	if err := errors.Join(errs...); err != nil {
		return all, fmt.Errorf("tuning: not everything could be restored, so %s stays: %w", path, err)
	}
	return all, nil
}

func (m *Machine) revertFile(f file) Reverted {
	r := Reverted{Name: f.Path}
	now, err := m.contentOf(f.Path)
	if err == nil {
		err = m.remove(temporary(f.Path)) // left by a program that was killed
	}
	switch {
	case err != nil:
		r.Err = fmt.Errorf("%s: %w", f.Path, err)
	case reflect.DeepEqual(now, f.Old):
		r.To = "unchanged"
	case now == nil:
		r.To, r.Drift = "left: somebody else has removed it", true
	case !f.ours(now):
		r.To, r.Drift = "left: somebody else has changed it", true
	case f.Old == nil:
		r.To = "removed"
		r.Err = m.putBack(f.Path, nil)
	default:
		r.To = "restored"
		r.Err = m.putBack(f.Path, f.Old)
	}
	if f.Path == BootPath && r.To != "unchanged" {
		r.To += "; run update-grub, and it counts from the next boot on"
	}
	return r
}

func (m *Machine) revertValue(v value, s, here *state) Reverted {
	r := Reverted{Name: v.Name}
	now, err := m.sysctl(v.Name)
	switch {
	case s.Boot != here.Boot:
		r.To = "left: this is another boot"
	case s.Namespace != here.Namespace && namespaced[v.Name]:
		r.To = fmt.Sprintf("left: this is another network namespace; in %s it was %s", s.Namespace, oneLine(v.Old))
	case err != nil:
		r.Err = fmt.Errorf("read %s: %w", v.Name, err)
	case same(now, v.Old):
		r.To = oneLine(v.Old) + " already"
	case !v.ours(now):
		r.To, r.Drift = fmt.Sprintf("left at %s: somebody else has changed it; it was %s, and lull set it to %s", oneLine(now), oneLine(v.Old), v.New[len(v.New)-1]), true
	default:
		r.To = oneLine(v.Old)
		if err := m.write(v.Name, v.Old); err != nil {
			r.Err = fmt.Errorf("set %s to %s: %w", v.Name, oneLine(v.Old), err)
		}
	}
	return r
}

// Applied lists what Revert would restore, as "key: old → new".
func (m *Machine) Applied() ([]string, error) {
	var lines []string
	for _, path := range []string{RunFile, StateFile} {
		s, err := loadState[state](m, path)
		if err != nil {
			return nil, err
		}
		if s != nil {
			lines = append(lines, s.lines()...)
		}
	}
	return lines, nil
}

// lines are what a state restores, as "key: old → new".
func (s *state) lines() (lines []string) {
	for _, v := range s.Values {
		lines = append(lines, fmt.Sprintf("%s: %s → %s", v.Name, oneLine(v.Old), v.New[len(v.New)-1]))
	}
	for _, f := range s.Files {
		if f.Old == nil {
			lines = append(lines, f.Path+": new")
		} else {
			lines = append(lines, f.Path+": changed, "+strconv.Itoa(len(f.Old.Text))+" bytes before")
		}
	}
	return lines
}
