package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/experiment"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/terminal"
)

type experimentCommand struct {
	Conns      int           `help:"Number of connections. 0, the default, means as many as this machine can hold, at most 256,000." placeholder:"N" range:"0..1073741824" example:"100000"`
	Rate       float64       `help:"Connections per second. 0, the default, means as fast as the server accepts them." placeholder:"N" range:"0..10000000" example:"10000"`
	Hold       time.Duration `help:"How long the connections stay idle before they are measured." default:"10s" range:"0s..8760h" example:"30s"`
	Broadcasts int           `help:"Number of messages that every connection should receive." default:"5" range:"0..1000000"`
	Size       int           `help:"Size of a message, in bytes." default:"32" range:"16..65536"`
	TLS        bool          `name:"tls" help:"Connect with wss://, over TLS 1.3, with a certificate made for the run."`
	Compress   bool          `help:"Compress messages (permessage-deflate), from 64 bytes on."`
	Rooms      int           `help:"Number of rooms that the connections are in. 0, the default, means that all are in one chat." placeholder:"N" range:"0..1073741824" example:"1000" env:"LULL_EXPERIMENT_ROOMS"`
	Cluster    bool          `help:"With --rooms, the server joins a cluster, of which it is the only one: by a NATS server that runs in the generator's process." env:"LULL_EXPERIMENT_CLUSTER"`
	netnsFlag
	Report string `help:"Directory for report.md, report.json and report.html." default:"report" type:"path" placeholder:"DIR" predictor:"file"`
}

func (experimentCommand) Help() string {
	return `The experiment starts a server and a load generator as two processes, opens the connections, lets them idle, sends
messages to all of them, and closes them. Kernel limits that are too low are raised for the run, if this is permitted,
and restored afterwards; if the run was killed, the next one or "lull tune revert" restores them. Where the kernel's TCP hash table is
too small for the connections, both processes run in a network namespace with a larger one, if this is permitted (root, Linux 6.1).
The exit code is 0 only if all connections were opened and stayed open and no message was lost.

Examples:
  lull experiment
  lull experiment --conns 1000000 --hold 30s
  lull experiment --conns 1000000 --tls
  lull experiment --conns 100000 --rooms 1000 --cluster
  lull experiment --conns 2000000 --report two-million`
}

// Validate checks the flags that depend on each other.
func (c *experimentCommand) Validate() error {
	if c.Cluster && c.Rooms == 0 {
		return errors.New("--cluster: needs --rooms")
	}
	return nil
}

func (c *experimentCommand) Run(ctx context.Context) error {
	if ran, err := c.again(cmp.Or(c.Conns, experiment.ConnsAuto)); ran {
		return err
	}
	if c.TLS {
		expectHandshakes()
	}
	show := terminal.New(os.Stderr, newLog())
	report, err := experiment.Run(ctx, experiment.Config{
		Conns: c.Conns, Hold: c.Hold, Broadcasts: c.Broadcasts, Size: c.Size, Rate: c.Rate, TLS: c.TLS, Compress: c.Compress, Rooms: c.Rooms, Cluster: c.Cluster,
		Say:   say,
		Sinks: []measure.Sink{show},
	})
	show.Close()
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
