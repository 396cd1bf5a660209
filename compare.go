package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/result"
)

type compareCommand struct {
	A    string `arg:"" help:"A result of lull load --json, or several of the same load with commas between them." predictor:"file"`
	B    string `arg:"" help:"What to compare it with: the same." predictor:"file"`
	HTML string `name:"html" help:"Write the comparison, with plots, to this file." type:"path" placeholder:"FILE" predictor:"file"`
}

// exitWorse is the code of a comparison in which B is worse than A.
const exitWorse = exitCode(2)

// comparedMax is how many results a side may have.
const comparedMax = 100

func (compareCommand) Help() string {
	return `Figure by figure: A, B, how many times B is A, and whether the difference is beyond the noise. With one result a side, the
noise is what the number of values in a run leaves open. With three a side or more, it is the spread between runs:
then beyond the noise means higher, or lower, in every result of B than in every result of A. docs/results.md says how
likely that is by chance.

The exit code is 0 if nothing of B is worse than A beyond the noise, 2 if something is, and 1 if a file cannot be read.

Examples:
  lull compare before.json after.json
  lull compare before.json after.json --html compared.html
  lull compare a1.json,a2.json,a3.json b1.json,b2.json,b3.json`
}

func (c *compareCommand) Run() error {
	if c.HTML != "" {
		if err := result.Writable(c.HTML); err != nil {
			return named("--html", err)
		}
	}
	a, err := readSide(c.A)
	if err != nil {
		return err
	}
	b, err := readSide(c.B)
	if err != nil {
		return err
	}
	compared := result.Compare(a, b)
	err = compared.WriteText(os.Stdout)
	if c.HTML != "" {
		err = errors.Join(err, writeFile(c.HTML, compared.WriteHTML))
	}
	if err == nil && compared.Worse() {
		return exitWorse
	}
	return err
}

// readSide reads the results in files with commas between their names.
func readSide(files string) (result.Side, error) {
	s := result.Side{Name: files}
	paths := strings.Split(files, ",")
	if len(paths) > comparedMax {
		return s, fmt.Errorf("a side has %d results: at most %d can be compared", len(paths), comparedMax)
	}
	for _, path := range paths {
		r, err := result.ReadFile(path)
		if err != nil {
			return s, err
		}
		s.Results = append(s.Results, r)
	}
	return s, nil
}
