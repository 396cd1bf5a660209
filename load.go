package main

import (
	"context"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/tuning"
)

type loadCommand struct {
	URL        []string       `help:"URLs to connect to. Connections are spread over them." default:"ws://127.0.0.1:8080/"`
	Conns      int            `help:"Number of connections." default:"1000"`
	Rate       float64        `help:"Connections per second. Default: as fast as the server accepts them." placeholder:"N"`
	Sources    []string       `help:"Source addresses and address ranges. auto finds as many as are needed." default:"auto"`
	Segment    int            `help:"Maximum TCP segment size, in bytes. 1460 is usual on a network; loopback has 65,483." placeholder:"N"`
	Timeout    time.Duration  `help:"Timeout of a connection's TCP and WebSocket handshakes." default:"30s"`
	Hold       time.Duration  `help:"How long the connections then stay idle." default:"0s"`
	Broadcasts int            `help:"Then send this many messages, which every connection should receive." placeholder:"N"`
	Burst      int            `help:"Send this many of them back to back." default:"1"`
	Size       int            `help:"Size of a message, in bytes." default:"32"`
	Patience   time.Duration  `help:"Give up on a broadcast that makes no progress for this long." default:"60s"`
	Probe      time.Duration  `help:"During broadcasts, or else during echoes, ping at this interval on a separate connection." placeholder:"1ms"`
	Deaf       int            `help:"Let this many connections read nothing until the broadcasts are over." placeholder:"N"`
	Active     int            `help:"Then let this many connections send a message, wait for its echo, and repeat." placeholder:"N"`
	Pace       float64        `help:"Messages per second of all --active connections together. Default: as fast as echoes arrive." placeholder:"N"`
	Flood      int            `help:"Let this many connections send without waiting for echoes." placeholder:"N"`
	FloodRate  float64        `help:"Messages per second of all --flood connections together. Default: as fast as the server reads them." placeholder:"N"`
	Echo       time.Duration  `help:"How long --active and --flood connections send." default:"5s"`
	Workers    int            `help:"Number of reactors. Default: as many as --conns needs." placeholder:"N"`
	FDTables   netpoll.Tables `name:"fd-tables" help:"File descriptor tables: shared or private. auto means private, or shared where the system does not allow that." default:"auto"`
	Floor      bool           `help:"The server is the floor program: send the fixed key and the zero mask that it needs."`
	Anyway     bool           `help:"Start even if this machine cannot hold --conns."`
	JSON       string         `help:"Write the result to this file." type:"path" placeholder:"FILE"`
}

func (loadCommand) Help() string {
	return `lull load checks every handshake and every frame. The exit code is 0 only if all connections were opened and stayed
open, and every message arrived exactly once.

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
	log := newLog()
	c.FDTables = chooseTables(c.FDTables, log)
	err = preflight(log, c.Anyway, tuning.Demand{
		Conns: c.Conns, Server: c.here(), Generator: true, Sources: len(sources), Targets: len(c.URL), Private: c.FDTables == netpoll.Private,
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

// here reports whether all URLs lead to this machine.
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
