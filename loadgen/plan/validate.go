package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Fault is a mistake in a plan.
type Fault struct {
	Line  int    // of the group, step or phase in the file that the plan is from; 0 where it is from none
	Place string // such as `group "idle"`
	Key   string // JSON's name of what is wrong in it; "" is all of it
	What  string // what is wrong, and what to do
}

// Error says where the mistake is and what to do.
func (f *Fault) Error() string {
	if f.Line > 0 {
		return fmt.Sprintf("line %d: %s", f.Line, f.Text())
	}
	return f.Text()
}

// Text is the error without the line.
func (f *Fault) Text() string {
	text := f.What
	if f.Key != "" {
		text = f.Key + " " + text
	}
	if f.Place != "" {
		text = f.Place + ": " + text
	}
	return text
}

// Validate checks a plan. The error is a *[Fault] for the first mistake. What Validate has
// accepted takes bounded memory for each user, and no phase or script waits forever
// for something that cannot come.
//
// A share of a plan, for one of several machines, need not be valid by itself.
func (p *Plan) Validate() error {
	c := checker{plan: p, longest: map[string]int{}, bad: map[[2]string]int{}}
	for _, check := range []func() error{c.checkPlan, c.checkFiles, c.checkGroups, c.checkPhases} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checker is a plan that is checked, and what is known of it by then.
type checker struct {
	plan    *Plan
	longest map[string]int    // each file's longest line, in bytes
	bad     map[[2]string]int // the first line of a file that a key cannot have
	lasting mask              // groups with users whose script has no end
	opened  mask              // groups of which a phase has opened connections
	ramps   ledger
}

func (c *checker) checkPlan() error {
	f := &finder{}
	switch p := c.plan; {
	case len(p.Name) > NameMax || !printable(p.Name):
		return f.fault("name", "is %.80q: it must be at most %d printable characters", p.Name, NameMax)
	case len(p.Groups) == 0 || len(p.Groups) > GroupsMax:
		return f.fault("groups", "are %d: there must be 1 to %d", len(p.Groups), GroupsMax)
	case len(p.Phases) == 0 || len(p.Phases) > PhasesMax:
		return f.fault("phases", "are %d: there must be 1 to %d", len(p.Phases), PhasesMax)
	case len(p.Expect) > ThresholdsMax:
		return f.fault("expect", "has %d thresholds: there may be %d", len(p.Expect), ThresholdsMax)
	case len(p.Files) > FilesMax:
		return f.fault("files", "are %d: templates may name %d", len(p.Files), FilesMax)
	}
	for _, t := range c.plan.Expect {
		if _, err := ParseThreshold(t.String()); err != nil {
			return f.fault("expect", "has a mistake: %s", err)
		}
	}
	return nil
}

func (c *checker) checkFiles() error {
	f, all := &finder{}, 0
	for _, name := range slices.Sorted(maps.Keys(c.plan.Files)) {
		lines := c.plan.Files[name]
		f.place = fmt.Sprintf("file %.80q", name)
		if len(lines) == 0 {
			return f.fault("", "it has no lines for templates to take")
		}
		for i, line := range lines {
			if strings.ContainsRune(line, '\n') || !utf8.ValidString(line) {
				return f.fault("", "line %d must be one line of UTF-8", i+1)
			}
			all += len(line)
			c.longest[name] = max(c.longest[name], len(line))
		}
	}
	if f.place = ""; all > FileBytesMax {
		return f.fault("files", "have %s bytes: they may have %s", Thousands(all), Thousands(FileBytesMax))
	}
	return nil
}

// finder makes faults of one place.
type finder struct {
	line  int
	place string
}

func (f *finder) fault(key, format string, args ...any) error {
	return &Fault{Line: f.line, Place: f.place, Key: key, What: fmt.Sprintf(format, args...)}
}

// counts checks a number.
func (f *finder) counts(key string, n, least, most int, unit string) error {
	if n < least || n > most {
		return f.fault(key, "is %s: it must be %s to %s%s", Thousands(n), Thousands(least), Thousands(most), unit)
	}
	return nil
}

// lasts checks a time.
func (f *finder) lasts(key string, d, least, most time.Duration) error {
	if d < least || d > most {
		return f.fault(key, "is %s: it must be %s to %s", d, least, most)
	}
	return nil
}

// optional checks a time that may be zero.
func (f *finder) optional(key string, d, least, most time.Duration) error {
	if d == 0 {
		return nil
	}
	return f.lasts(key, d, least, most)
}

// rate checks a rate.
func (f *finder) rate(r float64) error {
	if !(r >= 0 && r <= RateMax) { // NaN is neither
		return f.fault("rate", "is %g: it must be 0 to %s a second, and 0 is as fast as it goes", r, Thousands(RateMax))
	}
	return nil
}

// first is the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Thousands is a number as 10_000, which Go and YAML read too.
func Thousands(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "_" + digits[i:]
	}
	return digits
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
