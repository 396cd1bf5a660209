package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/experiment"
)

type experimentCommand struct {
	Conns      int           `help:"Connections; by default as many as this machine holds, at most 256,000." placeholder:"N"`
	Rate       float64       `help:"Connections a second; 0 is as fast as the server takes them." placeholder:"N"`
	Hold       time.Duration `help:"How long they sit idle before they are measured." default:"10s"`
	Broadcasts int           `help:"Messages that all should receive." default:"5"`
	Size       int           `help:"Bytes of a message." default:"32"`
	Report     string        `help:"Where to write report.md, report.json and report.html." default:"report" type:"path" placeholder:"DIR"`
}

func (experimentCommand) Help() string {
	return `The famous experiment on one machine: a server and a generator, each a process, as many connections as asked for,
all idle; then messages to all of them; then the end. Kernel limits in the way are raised for the run where that is
permitted, and put back. The exit code is 0 only if all connections were opened and stayed open and nothing was lost.

Examples:
  lull experiment
  lull experiment --conns 1000000 --hold 30s
  lull experiment --conns 2000000 --report two-million`
}

func (c *experimentCommand) Run(ctx context.Context) error {
	show := newProgress(max(c.Conns, experiment.ConnsAuto))
	report, err := experiment.Run(ctx, experiment.Config{
		Conns: c.Conns, Hold: c.Hold, Broadcasts: c.Broadcasts, Size: c.Size, Rate: c.Rate,
		Say:      say,
		Progress: show.progress,
	})
	show.end()
	if report == nil || report.Load == nil {
		return err
	}
	if e := report.WriteMarkdown(os.Stdout); e != nil {
		err = errors.Join(err, e)
	}
	if e := report.Save(c.Report); e != nil {
		err = errors.Join(err, e)
	} else {
		say("wrote %s", filepath.Join(c.Report, "report.{md,json,html}"))
	}
	if err == nil && !report.Load.OK() {
		return errNotOK
	}
	return err
}

// say tells a person what is going on, beside a command's output.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

type benchCommand struct {
	Scenarios []string `arg:"" optional:"" help:"Which: handshake, echo, broadcast-15k, burst, ping, churn; and, only when asked for, broadcast-1m (minutes and 9 GB) and blocking-inline, blocking-serial, blocking-1-worker, blocking-5-workers (a handler that sleeps)."`
	Rounds    int      `help:"Rounds of each." default:"5"`
	Floor     string   `help:"The floor program; by default beside lull." type:"path" placeholder:"FILE"`
	JSON      string   `help:"Write the rows to a file." type:"path" placeholder:"FILE"`
}

func (benchCommand) Help() string {
	return `The floor program (loadgen/floor) accepts, reads and sends and does nothing else, so nothing can be cheaper. What lull
costs is given beside it, as a ratio of rounds that alternate: absolute times change with the machine's mood.

Examples:
  lull bench
  lull bench echo handshake --rounds 9
  lull bench broadcast-1m --rounds 2`
}

func (c *benchCommand) Run(ctx context.Context) error {
	for _, name := range c.Scenarios {
		if !slices.Contains(experiment.ScenarioNames(), name) {
			return fmt.Errorf("unknown scenario %q; there are %s", name, strings.Join(experiment.ScenarioNames(), ", "))
		}
	}
	if c.Floor == "" {
		lull, err := os.Executable()
		if err != nil {
			return err
		}
		c.Floor = filepath.Join(filepath.Dir(lull), "floor")
	}
	rows, err := experiment.Bench(ctx, experiment.BenchConfig{
		Floor: c.Floor, Rounds: c.Rounds, Scenarios: c.Scenarios, Say: say,
	})
	if err != nil {
		return err
	}
	if c.JSON != "" {
		if err := writeJSON(c.JSON, rows); err != nil {
			return err
		}
	}
	return experiment.WriteRows(os.Stdout, rows)
}
