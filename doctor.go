package main

import (
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
	Role        string         `help:"What runs on this machine: ${enum}." enum:"server,loadgen,both" default:"server"`
	Target      int            `help:"Number of connections that the machine should hold." default:"1000000" range:"1..1073741824"`
	ListenPorts int            `help:"Number of ports that the server listens on." default:"1" range:"1..65535"`
	Sources     []string       `help:"The generator's source addresses and address ranges. auto means all addresses of this machine, or, with --role both, as many as are needed." default:"auto"`
	TLS         bool           `name:"tls" help:"Connections are wss://, which lull serves and loads itself."`
	Fanout      int            `help:"Size of a broadcast, in bytes, that every connection may have unread. 0 means none." default:"32" range:"0..1073741824"`
	FDTables    netpoll.Tables `name:"fd-tables" help:"File descriptor tables: shared or private. auto means private, or shared where the system does not allow that." default:"auto" enum:"auto,shared,private"`
	IdleTimeout time.Duration  `help:"The server's --idle-timeout. A silent connection is pinged after half of it. 0 means never." default:"10m" range:"0s..8760h"`
	Ping        time.Duration  `help:"The server's --ping: how long a connection is silent before it is pinged. 0 means half of --idle-timeout." default:"0s" range:"0s..8760h"`
	JSON        bool           `help:"Print JSON."`
	Watch       bool           `help:"Afterwards, print once a second which kernel counters have grown, until interrupted."`
	Root        string         `help:"Directory that holds /proc, /sys, /etc and /run." default:"/" type:"existingdir" hidden:"" env:"-"`
}

func (doctorCommand) Help() string {
	return `lull doctor prints one line for each limit, how to raise those that are too low, and configuration files that
contradict them. It changes nothing; "lull tune" does. The limits of descriptors and of memory are those of the process
that runs it. To see a unit's limits, run it as a unit: systemd-run -p LimitNOFILE=… lull doctor.

The exit code is 0 if all limits are high enough, 1 if the target can be reached but slowly, 2 if it cannot be reached,
3 if a limit that may stop it cannot be read, and 64 for a mistake in the command line.

Examples:
  lull doctor
  lull doctor --role loadgen --sources 10.0.0.20-10.0.0.34 --listen-ports 2
  lull doctor --role both --target 256000 --json
  lull doctor --watch`
}

// Validate checks the flags.
func (c *doctorCommand) Validate() error {
	_, err := loadgen.ParseSources(c.Sources)
	return named("--sources", err)
}

func (c *doctorCommand) Run(ctx context.Context) error {
	m, err := tuning.Read(c.Root)
	if err != nil {
		say("lull: the machine cannot be read: %v", err)
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

// connect opens a connection over loopback and returns a function that closes
// it. It makes conntrack show whether a firewall rule tracks connections.
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
	d := demand(m, c.Role, c.Target, c.Fanout, c.FDTables)
	d.TLS = c.TLS
	d.Targets, d.Ping = c.ListenPorts, silence(c.Ping, c.IdleTimeout)
	sources, _ := loadgen.ParseSources(c.Sources) // Validate has accepted them
	d.Sources = len(sources)
	if d.Sources == 0 && c.Role == "loadgen" {
		d.Sources = m.Sources()
	}
	return d
}

// watch writes at every tick which counters have grown since the last tick.
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

// moves is one line of --watch --json.
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
