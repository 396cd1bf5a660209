package tsung

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// The most of a file from which variables are set.
const (
	linesBytesMax = plan.FileBytesMax
	linesMax      = 1_000_000
)

// Import is a tsung file as a plan.
type Import struct {
	Plan *plan.Plan
	// Sources are the addresses from which tsung's clients connect, without those that only
	// the client's machine knows. It is empty if the file has none.
	Sources []string
	Notes   []Note // in the order of lines

	path string
	root *element
}

// Note is what was not translated, or what makes no difference here.
type Note struct {
	Line int    `json:"line"`
	Text string `json:"text"`
}

// Load reads a tsung file, and the files from which it sets variables. These are looked
// for beside it if their names are relative. An error names the file and the line.
func Load(path string) (*Import, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tsung: %w", err)
	}
	defer f.Close()
	i := &Import{path: path}
	if i.root, err = parse(f); err != nil {
		return nil, i.wrong(err)
	}
	if err := i.Scale(1); err != nil {
		return nil, err
	}
	return i, nil
}

// scaleMax is the greatest factor of Scale.
const scaleMax = 1e6

// Scale makes the plan anew with factor times as many users, that arrive factor times as
// fast. Nothing takes longer or shorter than before: phases, think times and loops
// are as they were. Of each phase that has users, at least one is left. Scales do not
// add up: each one is of the file's own numbers.
func (i *Import) Scale(factor float64) error {
	if !(factor >= fractionMin && factor <= scaleMax) {
		return fmt.Errorf("tsung: a scale is from %v to %v, not %v", fractionMin, scaleMax, factor)
	}
	t, err := translate(i.root, factor, i.lines)
	if err != nil {
		return i.wrong(err)
	}
	t.plan.Name = name(strings.TrimSuffix(filepath.Base(i.path), filepath.Ext(i.path)))
	i.Plan, i.Sources, i.Notes = &t.plan, t.sources, t.notes
	return nil
}

// wrong names the file that an error is about.
func (i *Import) wrong(err error) error {
	var f *plan.Fault
	if errors.As(err, &f) && f.Line > 0 {
		return fmt.Errorf("tsung: %s:%d: %s", i.path, f.Line, f.Text())
	}
	return fmt.Errorf("tsung: %s: %w", i.path, err)
}

// lines reads the lines of a file from which variables are set.
func (i *Import) lines(name string) ([]string, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(i.path), name)
	}
	if is, err := os.Stat(name); err == nil && !is.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, linesBytesMax+1))
	if err != nil {
		return nil, err
	}
	if len(b) > linesBytesMax || bytes.Count(b, []byte("\n")) > linesMax {
		return nil, fmt.Errorf("%s has more than %d bytes or %d lines", name, linesBytesMax, linesMax)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s has no lines", name)
	}
	return lines, nil
}
