package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/tuning"
)

type loadCommand struct {
	URL        []string       `help:"Where to; connections spread over several." default:"ws://127.0.0.1:8080/"`
	Conns      int            `help:"Connections to open." default:"1000"`
	Rate       float64        `help:"Connections a second; 0 is as fast as the server takes them." placeholder:"N"`
	Sources    []string       `help:"Source addresses and ranges of them; auto finds as many as it takes." default:"auto"`
	Segment    int            `help:"Longest TCP segment, in bytes; 1460 is as on a network, where loopback has 65,483." placeholder:"N"`
	Timeout    time.Duration  `help:"For a connection's handshakes." default:"30s"`
	Hold       time.Duration  `help:"Then sit idle for so long." default:"0s"`
	Broadcasts int            `help:"Then send so many messages, which every connection should receive." placeholder:"N"`
	Burst      int            `help:"Send so many of them back to back." default:"1"`
	Size       int            `help:"Bytes of a message." default:"32"`
	Patience   time.Duration  `help:"How long a broadcast may make no progress." default:"60s"`
	Probe      time.Duration  `help:"Meanwhile, or else during the echoes below, ping at this interval on a connection of its own." placeholder:"1ms"`
	Deaf       int            `help:"Let so many connections not read meanwhile, and only in the end." placeholder:"N"`
	Active     int            `help:"Then let so many connections send, and wait for the echo, again and again…" placeholder:"N"`
	Pace       float64        `help:"…so many messages a second together, in place of as fast as the echoes come…" placeholder:"N"`
	Flood      int            `help:"…and so many send without waiting for the echoes…" placeholder:"N"`
	FloodRate  float64        `help:"…so many messages a second together, in place of as fast as the server takes them…" placeholder:"N"`
	Echo       time.Duration  `help:"…for so long." default:"5s"`
	Workers    int            `help:"Reactors; by default as many as it takes." placeholder:"N"`
	FDTables   netpoll.Tables `name:"fd-tables" help:"Descriptor tables: shared, private or auto, which is private." default:"auto"`
	Floor      bool           `help:"The server is the floor program: send the sample key and a masking key of zeros."`
	Anyway     bool           `help:"Start although this machine will not hold --conns."`
	JSON       string         `help:"Write the result to a file." type:"path" placeholder:"FILE"`
}

func (loadCommand) Help() string {
	return `Every handshake and every frame is checked. The exit code is 0 only if all connections were opened and stayed open
and every message arrived exactly once.

Examples:
  lull load --conns 10000 --broadcasts 5
  lull load --conns 1000000 --hold 30s --broadcasts 5 --json result.json
  lull load --url ws://10.0.0.1:8080/,ws://10.0.0.1:8081/ --sources 10.0.0.20-10.0.0.34 --conns 1000000 --rate 10000
  lull load --conns 5000 --active 1000 --echo 10s
  lull load --conns 2000 --flood 2000 --echo 60s
  lull load --conns 20000 --deaf 2000 --broadcasts 600 --burst 20 --size 1024`
}

func (c *loadCommand) Run(ctx context.Context) error {
	sources, err := loadgen.ParseSources(c.Sources)
	if err != nil {
		return err
	}
	err = preflight(newLog(), c.Anyway, tuning.Demand{
		Conns: c.Conns, Server: c.here(), Generator: true, Sources: len(sources), Targets: len(c.URL), Private: c.FDTables != netpoll.Shared,
	})
	if err != nil {
		return err
	}
	show := newProgress(c.Conns)
	result, err := loadgen.Run(ctx, loadgen.Config{
		URLs: c.URL, Conns: c.Conns, Rate: c.Rate, Sources: sources, Segment: c.Segment, ConnectTimeout: c.Timeout,
		Hold: c.Hold, Broadcasts: c.Broadcasts, Burst: c.Burst, Size: c.Size, Patience: c.Patience, Probe: c.Probe,
		Deaf: c.Deaf, Active: c.Active, Pace: c.Pace, Flood: c.Flood, FloodRate: c.FloodRate, Echo: c.Echo, Workers: c.Workers, Tables: c.FDTables, Floor: c.Floor,
		Phase: show.phase, Progress: show.progress,
	})
	show.end()
	if err != nil {
		return err
	}
	result.WriteText(os.Stdout)
	if c.JSON != "" {
		if err := writeJSON(c.JSON, result); err != nil {
			return err
		}
	}
	if !result.OK() {
		return errNotOK
	}
	return nil
}

// here reports whether the server is on this machine, as far as the URLs say.
func (c *loadCommand) here() bool {
	return !slices.ContainsFunc(c.URL, func(raw string) bool {
		u, err := url.Parse(raw)
		if err != nil {
			return true
		}
		addr, err := netip.ParseAddr(u.Hostname())
		return u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback())
	})
}

func writeJSON(path string, value any) error {
	b, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// progress shows how far a load is: a bar on a terminal, lines elsewhere.
type progress struct {
	bar  *progressbar.ProgressBar // nil where there is no terminal
	log  *slog.Logger
	said time.Duration
}

// progressEvery is how often there is a line.
const progressEvery = 5 * time.Second

func newProgress(conns int) *progress {
	p := &progress{log: newLog()}
	if isTerminal(os.Stderr) {
		p.bar = progressbar.NewOptions(conns, progressbar.OptionSetWriter(os.Stderr),
			progressbar.OptionShowCount(), progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish())
	}
	return p
}

func (p *progress) phase(name string) {
	if p.bar != nil {
		p.bar.Describe(name)
		return
	}
	p.log.Info("phase", "name", name)
}

func (p *progress) progress(now loadgen.Progress) {
	if p.bar != nil {
		_ = p.bar.Set(now.Open) // what a terminal does not show is lost
		p.bar.Describe(describe(now))
		return
	}
	if now.Elapsed-p.said >= progressEvery {
		p.said = now.Elapsed
		p.log.Info("progress", "phase", now.Phase, "open", now.Open, "opening", now.Opening, "failed", now.Failed, "received", now.Received)
	}
}

func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

func describe(now loadgen.Progress) string {
	text := now.Phase
	if now.Failed > 0 {
		text += fmt.Sprintf(", %d failed", now.Failed)
	}
	if now.Received > 0 {
		text += fmt.Sprintf(", %d messages", now.Received)
	}
	return text
}
