package plan

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// The most of a regular expression.
const (
	PatternMax      = 1000 // bytes
	instructionsMax = 5000 // of its program: a{1000} has 1000
)

// Pattern is a regular expression (package regexp) that survives JSON.
type Pattern struct{ *regexp.Regexp }

// ParsePattern reads a regular expression.
func ParsePattern(raw string) (*Pattern, error) {
	if len(raw) > PatternMax {
		return nil, fmt.Errorf("a regular expression has at most %d bytes", PatternMax)
	}
	parsed, err := syntax.Parse(raw, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if n := len(program.Inst); n > instructionsMax {
		return nil, fmt.Errorf("a regular expression has at most %d instructions, not %d: it repeats too much", instructionsMax, n)
	}
	r, err := regexp.Compile(raw)
	return &Pattern{r}, err
}

// UnmarshalText reads a regular expression.
func (p *Pattern) UnmarshalText(raw []byte) error {
	parsed, err := ParsePattern(string(raw))
	if err == nil {
		*p = *parsed
	}
	return err
}
