package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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
	CA         string         `name:"ca" help:"For wss:// URLs: trust the authorities in this file, in PEM. Default: those of the system." type:"path" placeholder:"FILE" predictor:"file"`
	Insecure   bool           `help:"For wss:// URLs: accept any certificate."`
	Resume     bool           `help:"For wss:// URLs: resume TLS sessions with a ticket, which all connections share."`
	TLSCert    string         `name:"tls-cert" help:"For wss:// URLs: show the server this certificate, in PEM." type:"path" placeholder:"FILE" predictor:"file" env:"LULL_LOAD_TLS_CERT"`
	TLSKey     string         `name:"tls-key" help:"Private key of --tls-cert, in PEM." type:"path" placeholder:"FILE" predictor:"file" env:"LULL_LOAD_TLS_KEY"`
	Conns      int            `help:"Number of connections." default:"1000" range:"1..1073741824"`
	Rate       float64        `help:"Connections per second. 0, the default, means as fast as the server accepts them." placeholder:"N" range:"0..10000000" example:"10000"`
	Sources    []string       `help:"Source addresses and address ranges. auto finds as many as are needed." default:"auto"`
	Segment    int            `help:"Maximum TCP segment size, in bytes. 1460 is usual on a network; loopback has 65,483. 0, the default, means what the route has." placeholder:"N" range:"0..65483" example:"1460"`
	Compress   bool           `help:"Offer to compress messages (permessage-deflate). The server has to agree."`
	Timeout    time.Duration  `help:"Timeout of a connection's TCP, TLS and WebSocket handshakes." default:"30s" range:"1ms..24h"`
	Reconnect  bool           `help:"Open a connection again when the server has ended it: at the time that the Close frame tells (retry=12s), otherwise after about a second, and twice as long after each try that fails. --hold then lasts until all are back."`
	Hold       time.Duration  `help:"How long the connections then stay idle." default:"0s" range:"0s..8760h" example:"30s"`
	Broadcasts int            `help:"Then send this many messages, which every connection should receive." placeholder:"N" range:"0..1000000000" example:"5"`
	Burst      int            `help:"Send this many of them back to back." default:"1" range:"1..1000000"`
	Size       int            `help:"Size of a message, in bytes." default:"32" range:"16..65536"`
	Patience   time.Duration  `help:"Give up on a broadcast that makes no progress for this long." default:"60s" range:"1ms..24h"`
	Probe      time.Duration  `help:"During broadcasts, or else during echoes, ping at this interval on a separate connection. 0, the default, means not at all." placeholder:"1ms" range:"0s..1h" example:"1ms"`
	Deaf       int            `help:"Let this many connections read nothing until the broadcasts are over." placeholder:"N" range:"0..1073741824" example:"100"`
	Active     int            `help:"Then let this many connections send a message, wait for its echo, and repeat." placeholder:"N" range:"0..1073741824" example:"1000"`
	Pace       float64        `help:"Messages per second of all --active connections together. 0, the default, means as fast as echoes arrive." placeholder:"N" range:"0..10000000" example:"5000"`
	Flood      int            `help:"Let this many connections send without waiting for echoes." placeholder:"N" range:"0..65535" example:"100"`
	FloodRate  float64        `help:"Messages per second of all --flood connections together. 0, the default, means as fast as the server reads them." placeholder:"N" range:"0..10000000" example:"5000"`
	Echo       time.Duration  `help:"How long --active and --flood connections send." default:"5s" range:"1ms..8760h"`
	Workers    int            `help:"Number of reactors. 0, the default, means as many as --conns needs." placeholder:"N" range:"0..1024" example:"4" env:"LULL_LOAD_WORKERS"`
	FDTables   netpoll.Tables `name:"fd-tables" help:"File descriptor tables: shared or private. auto means private, or shared where the system does not allow that." default:"auto" enum:"auto,shared,private"`
	Floor      bool           `help:"The server is the floor program: send the fixed key and the zero mask that it needs."`
	Anyway     bool           `help:"Start even if this machine cannot hold --conns."`
	JSON       string         `help:"Write the result to this file." type:"path" placeholder:"FILE" env:"LULL_JSON_FILE" predictor:"file"`
}

func (loadCommand) Help() string {
	return `lull load checks every handshake and every frame. The exit code is 0 only if all connections were opened and stayed
open, and every message arrived exactly once.

Examples:
  lull load --conns 10000 --broadcasts 5
  lull load --conns 1000000 --hold 30s --broadcasts 5 --json result.json
  lull load --url ws://10.0.0.1:8080/,ws://10.0.0.1:8081/ --sources 10.0.0.20-10.0.0.34 --conns 1000000 --rate 10000
  lull load --url wss://chat.example.com/ --ca authority.pem --conns 10000
  lull load --conns 10000 --reconnect --hold 10m
  lull load --conns 5000 --active 1000 --echo 10s
  lull load --conns 2000 --flood 2000 --echo 60s
  lull load --conns 20000 --deaf 2000 --broadcasts 600 --burst 20 --size 1024`
}

// Validate checks the flags that depend on each other, and the addresses.
func (c *loadCommand) Validate() error {
	for _, raw := range c.URL {
		if u, err := url.Parse(raw); err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
			return fmt.Errorf("--url=%s: must begin with ws:// or wss:// and have a host; for example --url=ws://127.0.0.1:8080/", raw)
		}
	}
	const floorSizeMax = 125
	switch {
	case len(c.URL) == 0:
		return errors.New("--url: must have a URL; for example --url=ws://127.0.0.1:8080/")
	case c.Active+c.Flood > c.Conns:
		return fmt.Errorf("--active=%d and --flood=%d: must not be more than --conns=%d together", c.Active, c.Flood, c.Conns)
	case c.Deaf >= c.Conns:
		return fmt.Errorf("--deaf=%d: must be less than --conns=%d", c.Deaf, c.Conns)
	case c.Floor && c.Size > floorSizeMax:
		return fmt.Errorf("--size=%d: must be at most %d with --floor", c.Size, floorSizeMax)
	case c.CA != "" && c.Insecure:
		return errors.New("--ca and --insecure: cannot be used together")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key: must be used together")
	case c.Reconnect && c.Deaf > 0:
		return errors.New("--reconnect and --deaf: cannot be used together")
	case c.Floor && slices.ContainsFunc(c.URL, isSecure):
		return errors.New("--url: cannot be wss:// with --floor")
	case c.Floor && c.Compress:
		return errors.New("--compress: cannot be used with --floor")
	case c.Floor && c.Deaf+c.Flood > 0:
		return errors.New("--deaf and --flood: cannot be used with --floor")
	}
	_, err := loadgen.ParseSources(c.Sources)
	return named("--sources", err)
}

// isSecure reports whether a URL that Validate has accepted is wss://.
func isSecure(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Scheme == "wss"
}

// named is an error of a flag whose value somebody else has parsed.
func named(flag string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", flag, err)
}

func (c *loadCommand) Run(ctx context.Context) error {
	sources, _ := loadgen.ParseSources(c.Sources) // Validate has accepted them
	secure := &tls.Config{InsecureSkipVerify: c.Insecure}
	if slices.ContainsFunc(c.URL, isSecure) {
		expectHandshakes()
	}
	if c.CA != "" {
		var err error
		if secure.RootCAs, err = authorities("--ca", c.CA); err != nil {
			return err
		}
	}
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return fmt.Errorf("--tls-cert and --tls-key: %w", err)
		}
		secure.Certificates = []tls.Certificate{pair}
	}
	log := newLog()
	c.FDTables = chooseTables(c.FDTables, log)
	err := preflight(log, c.Anyway, tuning.Demand{
		Conns: c.Conns, Server: c.here(), Generator: true, Sources: len(sources), Targets: len(c.URL), TLS: slices.ContainsFunc(c.URL, isSecure), Private: c.FDTables == netpoll.Private,
	})
	if err != nil {
		return err
	}
	show := newProgress(c.Conns)
	result, err := loadgen.Run(ctx, loadgen.Config{
		URLs: c.URL, TLS: secure, Resume: c.Resume, Conns: c.Conns, Rate: c.Rate, Reconnect: c.Reconnect, Sources: sources, Segment: c.Segment, Compress: c.Compress, ConnectTimeout: c.Timeout,
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
