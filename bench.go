package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/experiment"
)

type benchCommand struct {
	Scenarios   []string `arg:"" optional:"" help:"Scenarios to run. Default: handshake, echo, broadcast-15k, burst, ping and churn. Others run only if they are named: broadcast-1m and metrics-1m (a million connections: minutes and 9 GB), workers (the default mode of handlers beside another library), tls (handshakes and echoes over TLS beside net/http, crypto/tls and that library), clicking, clicking-close, clicking-warning, flooding, blocking-inline, blocking-serial, blocking-1-worker and blocking-5-workers (slow handlers), slow-close, slow-drop-new, slow-drop-old and slow-latest (clients that do not read). abuse, which runs alone, attacks the server and prints what honest clients feel. storm, alone too, lets all clients come back at once to a new server: 200,000 after a kill and after a drain, and 20,000 over TLS (minutes and 2 GB)."`
	Rounds      int      `help:"Number of rounds of each scenario." default:"5" range:"1..1000"`
	Floor       string   `help:"The floor program. Default: floor, in the directory of lull." type:"path" placeholder:"FILE" env:"LULL_FLOOR_PROGRAM" predictor:"file"`
	SlowHandler string   `help:"The slowhandler program. Default: slowhandler, in the directory of lull." type:"path" placeholder:"FILE" predictor:"file"`
	Peer        string   `help:"The peer program. Default: peer, in the directory of lull." type:"path" placeholder:"FILE" predictor:"file"`
	Against     string   `help:"Another lull program, which abuse attacks too." type:"path" placeholder:"FILE" predictor:"file"`
	JSON        string   `help:"Write the results to this file." type:"path" placeholder:"FILE" env:"LULL_JSON_FILE" predictor:"file"`
}

func (benchCommand) Help() string {
	return `The floor program (loadgen/floor) accepts, reads and sends, and does nothing else, so no server can be cheaper. lull
and the floor program run in turns, and the result is the ratio of the two: absolute times vary too much between runs.

Examples:
  lull bench
  lull bench echo handshake --rounds 9
  lull bench broadcast-1m --rounds 2
  lull bench abuse
  lull bench storm`
}

// Validate checks the names of scenarios.
func (c *benchCommand) Validate() error {
	if c.alone("abuse") || c.alone("storm") {
		return nil
	}
	for _, name := range c.Scenarios {
		if !slices.Contains(experiment.ScenarioNames(), name) {
			return fmt.Errorf("unknown scenario %q: must be one of %s; or abuse or storm, alone", name, strings.Join(experiment.ScenarioNames(), ", "))
		}
	}
	return nil
}

// alone reports whether a scenario is the only one that was named.
func (c *benchCommand) alone(scenario string) bool {
	return slices.Equal(c.Scenarios, []string{scenario})
}

func (c *benchCommand) Run(ctx context.Context) error {
	switch {
	case c.alone("abuse"):
		return c.abuse(ctx)
	case c.alone("storm"):
		return c.storm(ctx)
	}
	rows, err := experiment.Bench(ctx, experiment.BenchConfig{
		Floor: cmp.Or(c.Floor, besideLull("floor")), SlowHandler: cmp.Or(c.SlowHandler, besideLull("slowhandler")), Peer: cmp.Or(c.Peer, besideLull("peer")),
		Rounds: c.Rounds, Scenarios: c.Scenarios, Say: say,
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

// abuse attacks the server and prints the harm.
func (c *benchCommand) abuse(ctx context.Context) error {
	rows, err := experiment.Abuse(ctx, experiment.AbuseConfig{
		Against: c.Against, SlowHandler: cmp.Or(c.SlowHandler, besideLull("slowhandler")), Say: say,
	})
	return errors.Join(err, experiment.WriteHarms(os.Stdout, rows)) // those that there are
}

// The clients of the storms.
const (
	stormConns    = 200_000
	stormTLSConns = 20_000
)

// storm lets clients come back and prints how that went.
func (c *benchCommand) storm(ctx context.Context) error {
	rows, err := experiment.Storms(ctx, experiment.StormConfig{Conns: stormConns, TLSConns: stormTLSConns, Say: say})
	if c.JSON != "" && len(rows) > 0 {
		err = errors.Join(err, writeJSON(c.JSON, rows))
	}
	return errors.Join(err, experiment.WriteStorms(os.Stdout, rows)) // those that there are
}

// besideLull is a program in the directory of this one.
func besideLull(name string) string {
	lull, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(lull), name)
}
