package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/loadgen/terminal"
	"github.com/seed-134acfd0/lull/loadgen/web"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/tuning"
)

type loadCommand struct {
	Addresses []string `arg:"" optional:"" name:"url" help:"URLs to connect to: ws:// or wss://. Connections are spread over them. Without one: ws://127.0.0.1:8080/."`
	URL       []string `help:"The same, for a file or a variable: several have commas between them." sep:"none" placeholder:"URL"`

	Scenario string  `help:"What to do: a file that docs/scenarios.md describes. Flags about users and phases then mean nothing." type:"path" placeholder:"FILE" predictor:"file"`
	Tsung    string  `help:"What to do: a scenario of tsung's, in XML; docs/tsung.md says what is understood. URLs, if there are some, replace its servers." type:"path" placeholder:"FILE" predictor:"file"`
	Scale    float64 `help:"For --tsung: this many times as many users, arriving this many times as fast." default:"1" range:"0.000001..1000000" example:"0.01"`

	CA       string `name:"ca" help:"For wss:// URLs: trust the authorities in this file, in PEM. Default: those of the system." type:"path" placeholder:"FILE" predictor:"file"`
	Insecure bool   `help:"For wss:// URLs: accept any certificate."`
	Resume   bool   `help:"For wss:// URLs: resume TLS sessions with a ticket, which all connections share."`
	TLSCert  string `name:"tls-cert" help:"For wss:// URLs: show the server this certificate, in PEM." type:"path" placeholder:"FILE" predictor:"file" env:"LULL_LOAD_TLS_CERT"`
	TLSKey   string `name:"tls-key" help:"Private key of --tls-cert, in PEM." type:"path" placeholder:"FILE" predictor:"file" env:"LULL_LOAD_TLS_KEY"`

	loadUsers
	loadMessages

	Sources  []string       `help:"Source addresses and address ranges. auto finds as many as are needed." default:"auto"`
	Segment  int            `help:"Maximum TCP segment size, in bytes. 1460 is usual on a network; loopback has 65,483. 0, the default, means what the route has." placeholder:"N" range:"0..65483" example:"1460"`
	Timeout  time.Duration  `help:"Timeout of a connection's TCP, TLS and WebSocket handshakes." default:"30s" range:"1ms..24h"`
	Patience time.Duration  `help:"Give up on messages and answers that make no progress for this long." default:"60s" range:"1ms..24h"`
	Workers  int            `help:"Number of reactors. 0, the default, means as many as --conns needs." placeholder:"N" range:"0..1024" example:"4" env:"LULL_LOAD_WORKERS"`
	FDTables netpoll.Tables `name:"fd-tables" help:"File descriptor tables: shared or private. auto means private, or shared where the system does not allow that." default:"auto" enum:"auto,shared,private"`
	Floor    bool           `help:"The server is the floor program: send the fixed key and the zero mask that it needs."`
	Anyway   bool           `help:"Start even if this machine cannot hold --conns."`

	agentsFlags
	loadPage
	loadOutput
}

func (loadCommand) Help() string {
	return `lull load checks every handshake and every frame. The exit code is 0 only if all connections were opened and stayed
open, every message arrived exactly once, and what --expect says holds.

It works with any WebSocket server. What it sends by default is its own: binary messages with a time and a number,
which an echo server sends back (--active, --flood), or a chat server to everybody (--broadcasts). For a server that
wants something else, say what to send (--message) and what counts as an answer (--answer).

Templates, in URLs, headers and messages: {{.Conn}} is the connection's number, {{.Seq}} the message's, {{.Room}} that of
the connection's room; {{random 1 6}}, {{hex 16}}, {{uuid}}, {{base64 "text"}} and {{line "names.txt"}} are what they say.

Words in the result: a foreign message is one that the generator did not send, such as a greeting; a missed one did not
come before a later one did; a repeated one came again; a strayed one belongs to another connection, room or run; a
lost one did not come at all.

Examples:
  lull load --conns 10000 --broadcasts 5
  lull load --conns 1000000 --hold 30s --broadcasts 5 --json result.json
  lull load ws://10.0.0.1:8080/ ws://10.0.0.1:8081/ --sources 10.0.0.20-10.0.0.34 --conns 1000000 --rate 10000
  lull load wss://chat.example.com/ --ca authority.pem --conns 10000
  lull load --conns 10000 --reconnect --hold 10m
  lull load --conns 5000 --active 1000 --echo 10s --expect 'p99(echo)<50ms,lost=0'
  lull load --conns 2000 --flood 2000 --echo 60s
  lull load --conns 20000 --deaf 2000 --broadcasts 600 --burst 20 --size 1024
  lull load 'ws://127.0.0.1:3000/?user={{.Conn}}' --header 'Authorization: Bearer {{line "tokens.txt"}}' \
      --active 100 --message '{"type":"ping","n":{{.Seq}}}' --answer 'contains:"n":{{.Seq}}'
  lull load 'ws://127.0.0.1:8080/room/{{.Room}}' --conns 10000 --rooms 1000 --broadcasts 5
  lull load --scenario scenario.yaml --html report.html
  lull load --tsung websocket.xml --scale 0.01`
}

// Validate checks the flags that depend on each other, and the addresses.
func (c *loadCommand) Validate() error {
	for _, raw := range c.urls() {
		if host, ok := hostOf(raw); !ok || host == "" {
			return fmt.Errorf("URL %s: must begin with ws:// or wss:// and have a host; for example ws://127.0.0.1:8080/", raw)
		}
	}
	const floorSizeMax = 125
	switch {
	case c.Scenario != "" && c.Tsung != "":
		return errors.New("--scenario and --tsung: cannot be used together")
	case c.Scenario != "" && len(c.given()) > 0:
		return errors.New("URLs and --scenario: cannot be used together; the file says where to connect")
	case c.Scale != 1 && c.Tsung == "":
		return errors.New("--scale: can be used only with --tsung")
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
	case c.Floor && slices.ContainsFunc(c.urls(), isSecure):
		return errors.New("--floor: cannot be used with wss:// URLs")
	case c.Floor && c.Compress:
		return errors.New("--compress: cannot be used with --floor")
	case c.Floor && c.Deaf+c.Flood > 0:
		return errors.New("--deaf and --flood: cannot be used with --floor")
	}
	_, err := loadgen.ParseSources(c.Sources)
	return errors.Join(named("--sources", err), c.agentsFlags.check(c), c.loadMessages.check(), c.loadPage.check(), c.loadOutput.check())
}

// given are the URLs that the command line, a variable or a file has.
func (c *loadCommand) given() (urls []string) {
	for _, list := range c.URL {
		urls = append(urls, splitURLs(list)...)
	}
	return append(urls, c.Addresses...)
}

// urls are the URLs to connect to, unless a file says others.
func (c *loadCommand) urls() []string {
	if given := c.given(); len(given) > 0 {
		return given
	}
	return []string{"ws://127.0.0.1:8080/"}
}

// splitURLs splits a list at the commas before a URL, since a URL may have some too.
func splitURLs(list string) (urls []string) {
	for _, part := range strings.Split(list, ",") {
		if n := len(urls); n > 0 && !strings.Contains(part, "://") {
			urls[n-1] += "," + part
		} else {
			urls = append(urls, part)
		}
	}
	return urls
}

// hostOf is the host of a ws:// or wss:// URL, whose path may be a template.
func hostOf(raw string) (host string, ok bool) {
	scheme, rest, _ := strings.Cut(raw, "://")
	if s := strings.ToLower(scheme); s != "ws" && s != "wss" {
		return "", false
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	u, err := url.Parse("ws://" + rest)
	if err != nil {
		return "", false
	}
	return u.Hostname(), true
}

func isSecure(raw string) bool { return len(raw) >= 4 && strings.EqualFold(raw[:4], "wss:") }

// named is an error of a flag whose value somebody else has parsed.
func named(flag string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", flag, err)
}

func (c *loadCommand) Run(ctx context.Context) error {
	log := newLog()
	p, sources, err := c.plan(log)
	if err != nil {
		return err
	}
	carryOut := c.here
	if c.Agents != "" {
		carryOut = c.onAgents
	}
	run, err := carryOut(p, sources, log)
	if err != nil {
		return err
	}
	page, err := c.loadPage.open(web.Options{Title: titleOf(p), Phases: phaseNames(p), Control: run.control, Log: log})
	if err != nil {
		return err
	}
	defer page.Close()
	show := terminal.New(os.Stderr, log)
	r, err := run.start(ctx, []measure.Sink{show, page})
	show.Close()
	if r == nil {
		return err
	}
	if err := errors.Join(err, c.loadOutput.write(r, p.Expect)); err != nil {
		return err
	}
	if !r.OK() {
		return errNotOK
	}
	return nil
}

// load is a plan that can be carried out.
type load struct {
	control web.Control
	start   func(context.Context, []measure.Sink) (*loadgen.Result, error)
}

// here carries a plan out on this machine.
func (c *loadCommand) here(p *plan.Plan, sources []netip.Addr, log *slog.Logger) (load, error) {
	config, err := c.config(p, sources, log)
	control := &loadgen.Control{}
	return load{control, func(ctx context.Context, sinks []measure.Sink) (*loadgen.Result, error) {
		config.Control, config.Sinks = control, sinks
		return loadgen.Run(ctx, config)
	}}, err
}

// config is how to carry out a plan.
func (c *loadCommand) config(p *plan.Plan, sources []netip.Addr, log *slog.Logger) (loadgen.Config, error) {
	config := loadgen.Config{
		Plan: p, Resume: c.Resume, Sources: sources, Segment: c.Segment, ConnectTimeout: c.Timeout, Patience: c.Patience,
		Workers: c.Workers, Tables: chooseTables(c.FDTables, log), Floor: c.Floor,
	}
	urls := urlsOf(p)
	secure := slices.ContainsFunc(urls, isSecure)
	if secure {
		expectHandshakes()
		var err error
		if config.TLS, err = c.tls(); err != nil {
			return config, err
		}
	}
	return config, preflight(log, c.Anyway, tuning.Demand{
		Conns: p.Users(), Server: isHere(urls), Generator: true, Sources: len(sources), Targets: len(urls), TLS: secure, Private: config.Tables == netpoll.Private,
	})
}

// tls is what the flags say about TLS.
func (c *loadCommand) tls() (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: c.Insecure}
	if c.CA != "" {
		var err error
		if config.RootCAs, err = authorities("--ca", c.CA); err != nil {
			return nil, err
		}
	}
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// urlsOf are the different URLs of a plan.
func urlsOf(p *plan.Plan) (urls []string) {
	for i := range p.Groups {
		for _, t := range p.Groups[i].URLs {
			if raw := t.String(); !slices.Contains(urls, raw) {
				urls = append(urls, raw)
			}
		}
	}
	return urls
}

// isHere reports whether all URLs lead to this machine.
func isHere(urls []string) bool {
	return !slices.ContainsFunc(urls, func(raw string) bool {
		host, ok := hostOf(raw)
		if !ok || host == "localhost" {
			return false
		}
		addr, err := netip.ParseAddr(host)
		return err != nil || !addr.IsLoopback()
	})
}

func titleOf(p *plan.Plan) string {
	if p.Name != "" {
		return p.Name
	}
	return strings.Join(urlsOf(p), " ")
}

func phaseNames(p *plan.Plan) (names []string) {
	for i := range p.Phases {
		names = append(names, p.Phases[i].Name)
	}
	return append(names, "close")
}

// loadOutput is where the result goes.
type loadOutput struct {
	Expect []string `help:"What has to come of it, as in p99(handshake)<50ms or lost=0; otherwise the exit code is 1. docs/results.md has all figures." sep:"none" placeholder:"THRESHOLDS" example:"lost=0"`
	JSON   string   `help:"Write the result to this file; - is stdout, in place of the text." type:"path" placeholder:"FILE" env:"LULL_JSON_FILE" predictor:"file"`
	CSV    string   `name:"csv" help:"Write the time series to this file, a row for each second." type:"path" placeholder:"FILE" predictor:"file"`
	HTML   string   `name:"html" help:"Write a report with plots to this file." type:"path" placeholder:"FILE" predictor:"file"`
}

// check checks the flags, and that the files can be written, before a long run.
func (o *loadOutput) check() error {
	_, err := o.thresholds()
	for flag, path := range map[string]string{"--json": o.JSON, "--csv": o.CSV, "--html": o.HTML} {
		if path != "" {
			err = errors.Join(err, named(flag, result.Writable(path)))
		}
	}
	return err
}

func (o *loadOutput) thresholds() (all []plan.Threshold, err error) {
	for _, text := range o.Expect {
		some, err := plan.ParseThresholds(text)
		if err != nil {
			return nil, named("--expect", err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// write writes the result, and whether the thresholds of the plan and of --expect were met.
// If a file cannot be written, the others are.
func (o *loadOutput) write(r *loadgen.Result, expect []plan.Threshold) error {
	flags, _ := o.thresholds() // check has accepted them
	r.Expected = r.Check(slices.Concat(expect, flags))
	var errs []error
	if o.JSON == "-" {
		errs = append(errs, r.WriteJSON(os.Stdout))
	} else {
		errs = append(errs, r.WriteText(os.Stdout))
		if o.JSON != "" {
			errs = append(errs, named("--json", writeFile(o.JSON, r.WriteJSON)))
		}
	}
	if o.CSV != "" {
		errs = append(errs, named("--csv", writeFile(o.CSV, r.WriteCSV)))
	}
	if o.HTML != "" {
		errs = append(errs, named("--html", writeFile(o.HTML, r.WriteHTML)))
	}
	return errors.Join(errs...)
}
