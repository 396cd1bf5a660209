package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/tuning"
)

type doctorCommand struct {
	Role        string         `help:"What is to run here: ${enum}." enum:"server,loadgen,both" default:"server"`
	Target      int            `help:"Connections." default:"1000000"`
	ListenPorts int            `help:"Ports that the server listens on." default:"1"`
	Sources     []string       `help:"The generator's source addresses and ranges of them; auto is all that this machine has, and as many as it takes with --role both." default:"auto"`
	Fanout      int            `help:"Bytes of a message that goes to all and may wait unread; 0 if there is none." default:"32"`
	FDTables    netpoll.Tables `name:"fd-tables" help:"Descriptor tables: shared, private or auto, which is private." default:"auto"`
	IdleTimeout time.Duration  `help:"The server's: half way, a silent connection is pinged." default:"10m"`
	JSON        bool           `help:"Write JSON."`
	Watch       bool           `help:"Then write once a second which counters have moved, until interrupted."`
	Root        string         `help:"Where /proc, /sys, /etc and /run are." default:"/" type:"existingdir" hidden:""`
}

func (doctorCommand) Help() string {
	return `Says what this machine holds and what stops it first: one line for each limit, what to do about those that are too
low, and files that contradict it. It changes nothing; "lull tune" does. The limits of descriptors and of memory are
those of whoever runs it: those of a unit are its own (systemd-run -p LimitNOFILE=… lull doctor).

The exit code is 0 if all is well, 1 if the target is reached but slowly, 2 if it is not reached, 3 if that cannot be
seen, 64 for a mistake in the command.

Examples:
  lull doctor
  lull doctor --role loadgen --sources 10.0.0.20-10.0.0.34 --listen-ports 2
  lull doctor --role both --target 256000 --json
  lull doctor --watch`
}

// Validate refuses what no machine could be asked.
func (c *doctorCommand) Validate() error {
	if err := cmp.Or(checkTarget(c.Target), checkFanout(c.Fanout)); err != nil {
		return err
	}
	switch {
	case c.ListenPorts < 1 || c.ListenPorts > 65535:
		return fmt.Errorf("--listen-ports=%d: it takes 1 to 65,535", c.ListenPorts)
	case c.IdleTimeout < 0:
		return fmt.Errorf("--idle-timeout=%v: it is before it begins", c.IdleTimeout)
	}
	_, err := loadgen.ParseSources(c.Sources)
	return err
}

// checkTarget and checkFanout refuse what no machine could be asked, demand is
// what was asked.
func checkTarget(conns int) error {
	if conns < 1 || conns > tuning.ConnsMax {
		return fmt.Errorf("--target=%d: it takes 1 to %s connections", conns, humanize.Comma(tuning.ConnsMax))
	}
	return nil
}

func checkFanout(bytes int) error {
	if bytes < 0 || bytes > 1<<30 {
		return fmt.Errorf("--fanout=%d: it takes 0 to %s bytes", bytes, humanize.Comma(1<<30))
	}
	return nil
}

func demand(role string, conns, fanout int) tuning.Demand {
	return tuning.Demand{Conns: conns, Server: role != "loadgen", Generator: role != "server", Fanout: fanout}
}

func (c *doctorCommand) Run(ctx context.Context) error {
	m, err := tuning.Read(c.Root)
	if err != nil {
		say("lull: cannot tell: %v", err)
		return exitCode(tuning.CannotTell)
	}
	if c.Root == "/" {
		defer connect()()
	}
	diagnosis := m.Diagnose(c.demand(m))
	if c.JSON {
		err = printJSON(os.Stdout, diagnosis)
	} else {
		_, plain := os.LookupEnv("NO_COLOR")
		err = diagnosis.WriteText(os.Stdout, isTerminal(os.Stdout) && !plain)
	}
	if err != nil {
		return err
	}
	if c.Watch {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		if err := c.watch(ctx, m, m.Counters(), tick.C, os.Stdout); err != nil {
			return err
		}
	}
	if diagnosis.Verdict != tuning.Fine {
		return exitCode(diagnosis.Verdict)
	}
	return nil
}

// connect opens a connection over loopback until it is told to close it. By
// that conntrack shows whether a rule has it look at connections.
func connect() (closed func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return func() {}
	}
	c, err := net.Dial("tcp", l.Addr().String())
	return func() {
		if err == nil {
			c.Close()
		}
		l.Close()
	}
}

func (c *doctorCommand) demand(m *tuning.Machine) tuning.Demand {
	d := demand(c.Role, c.Target, c.Fanout)
	d.Private, d.Targets, d.Ping = c.FDTables != netpoll.Shared, c.ListenPorts, c.IdleTimeout/2
	sources, _ := loadgen.ParseSources(c.Sources) // Validate took them
	d.Sources = len(sources)
	if d.Sources == 0 && c.Role == "loadgen" {
		d.Sources = m.Sources()
	}
	return d
}

// watch writes at every tick which counters have moved since the one before.
func (c *doctorCommand) watch(ctx context.Context, m *tuning.Machine, last tuning.Counters, tick <-chan time.Time, w io.Writer) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick:
			counters := m.Counters()
			moved := counters.Since(last)
			last = counters
			if err := c.tell(w, now, moved); err != nil {
				return err
			}
		}
	}
}

// moves is a line of --watch --json.
type moves struct {
	Schema  string          `json:"schema"`
	Version int             `json:"version"`
	Time    time.Time       `json:"time"`
	Moved   tuning.Counters `json:"moved"`
}

func (c *doctorCommand) tell(w io.Writer, now time.Time, moved tuning.Counters) error {
	if len(moved) == 0 {
		return nil
	}
	if c.JSON {
		return json.NewEncoder(w).Encode(moves{tuning.Schema + ".watch", tuning.Version, now.UTC(), moved})
	}
	var texts []string
	for _, name := range moved.Names() {
		texts = append(texts, fmt.Sprintf("%s +%s", name, humanize.Comma(int64(moved[name]))))
	}
	_, err := fmt.Fprintf(w, "%s  %s\n", now.Format(time.TimeOnly), strings.Join(texts, "  "))
	return err
}

func printJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(value)
}
