package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/internal/build"
	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/agent"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/tuning"
)

type agentCommand struct {
	NATS     string `name:"nats" help:"The NATS server where loads come from: nats://HOST:4222, which may be the one of lull load --agents listen://:4222, or tls:// where it wants TLS." required:"" placeholder:"URL"`
	natsKeys `embed:"" prefix:"nats-"`
	Name     string         `help:"The agent's name in results. Default: this machine's name." placeholder:"NAME"`
	Sources  []string       `help:"Source addresses and address ranges. auto means all addresses of this machine." default:"auto"`
	Allow    []string       `help:"Connect to no other hosts than these: names, addresses, and prefixes such as 10.0.0.0/8. Default: to any that a load names." placeholder:"HOST,..."`
	Workers  int            `help:"Number of reactors. 0, the default, means as many as a load needs." placeholder:"N" range:"0..1024" example:"4" env:"LULL_LOAD_WORKERS"`
	FDTables netpoll.Tables `name:"fd-tables" help:"File descriptor tables: shared or private. auto means private, or shared where the system does not allow that." default:"auto" enum:"auto,shared,private"`
}

// natsKeys are what a NATS server asks for.
type natsKeys struct {
	TokenFile string `help:"File with the token that the NATS server asks for. Or the token is in the variable LULL_NATS_TOKEN." type:"path" placeholder:"FILE" predictor:"file"`
	CredsFile string `help:"File with the credentials of a NATS user: JWT and seed." type:"path" placeholder:"FILE" predictor:"file"`
	CA        string `name:"ca" help:"Trust a NATS server with a certificate of the authorities in this file, in PEM. Default: those of the system." type:"path" placeholder:"FILE" predictor:"file"`
	Cert      string `help:"Show the NATS server this certificate, in PEM." type:"path" placeholder:"FILE" predictor:"file"`
	Key       string `help:"Private key of the certificate, in PEM." type:"path" placeholder:"FILE" predictor:"file"`
}

func (agentCommand) Help() string {
	return `lull agent waits for loads, and carries out its share of each. Start it on several machines, and lull load --agents on
one: their connections, counts and times come together there. It ends with SIGINT or SIGTERM. docs/agents.md is about
loads on several machines.

Whoever may use the NATS server can have an agent connect anywhere. So give the server a token, and the agent a list of
hosts with --allow.

Examples:
  lull agent --nats nats://10.0.0.1:4222 --nats-token-file token --allow 10.0.0.9
  lull agent --nats tls://nats.example.com:4222 --nats-creds-file agent.creds --nats-ca ca.pem
  lull agent --nats nats://10.0.0.1:4222 --sources 10.0.0.20-10.0.0.34`
}

// Validate checks the flags that depend on each other.
func (c *agentCommand) Validate() error {
	if err := c.natsKeys.check("--nats-"); err != nil {
		return err
	}
	if err := agent.Allow(c.Allow).Check(); err != nil {
		return named("--allow", err)
	}
	_, err := loadgen.ParseSources(c.Sources)
	return named("--sources", err)
}

// check checks the flags, whose names begin with prefix.
func (k *natsKeys) check(prefix string) error {
	switch {
	case (k.Cert == "") != (k.Key == ""):
		return fmt.Errorf("%[1]scert and %[1]skey: must be used together", prefix)
	case k.TokenFile != "" && k.CredsFile != "":
		return fmt.Errorf("%[1]stoken-file and %[1]screds-file: cannot be used together", prefix)
	}
	return nil
}

// token reads the token, empty if there is none.
func (k *natsKeys) token(prefix string) (string, error) {
	return readToken(prefix+"token-file", k.TokenFile, "LULL_NATS_TOKEN")
}

// client is how a client connects.
func (k *natsKeys) client(prefix, url string) (b agent.Broker, err error) {
	b = agent.Broker{URL: url, CredsFile: k.CredsFile}
	if b.Token, err = k.token(prefix); err != nil || k.CA == "" && k.Cert == "" {
		return b, err
	}
	b.TLS = &tls.Config{}
	if k.CA != "" {
		if b.TLS.RootCAs, err = authorities(prefix+"ca", k.CA); err != nil {
			return b, err
		}
	}
	if k.Cert != "" {
		b.TLS.Certificates, err = k.certificate(prefix)
	}
	return b, err
}

func (k *natsKeys) certificate(prefix string) ([]tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(k.Cert, k.Key)
	if err != nil {
		return nil, fmt.Errorf("%[1]scert and %[1]skey: %[2]w", prefix, err)
	}
	return []tls.Certificate{pair}, nil
}

func (c *agentCommand) Run(ctx context.Context) error { return c.serve(ctx, nil) }

// serve runs the agent. Tests give it a wrong clock; nil is the machine's.
func (c *agentCommand) serve(ctx context.Context, clock func() time.Time) error {
	log := newLog()
	sources, _ := loadgen.ParseSources(c.Sources) // Validate has accepted them
	tables := chooseTables(c.FDTables, log)
	machine, err := thisMachine(c.Name, sources, tables)
	if err != nil {
		return err
	}
	broker, err := c.natsKeys.client("--nats-", c.NATS)
	if err != nil {
		return err
	}
	conn, err := agent.Connect(ctx, broker, true, log)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	hosts := "any, because there is no --allow"
	if len(c.Allow) > 0 {
		hosts = strings.Join(c.Allow, ", ")
	}
	log.Info("waits for loads", "nats", conn.ConnectedUrlRedacted(), "name", machine.Name, "version", machine.Version, "hosts", hosts,
		"processors", machine.Cores, "memory", humanize.IBytes(uint64(max(0, machine.Memory))), "source_addresses", machine.Addresses, "users_at_most", machine.Users)
	base := loadgen.Config{Sources: sources, Workers: c.Workers, Tables: tables}
	return agent.Serve(ctx, conn, agent.Config{
		Machine: machine, Allow: c.Allow, Log: log, Clock: clock,
		Engine: func() agent.Engine { return &localEngine{base: base, log: log} },
	})
}

// release is what agents and their coordinator have to have in common.
func release() string {
	b := build.Read()
	text := b.Version
	if b.Commit != "" {
		text += " (commit " + b.Commit
		if b.Modified {
			text += ", modified"
		}
		text += ")"
	}
	return text
}

// thisMachine is what this machine can contribute.
func thisMachine(name string, sources []netip.Addr, tables netpoll.Tables) (agent.Machine, error) {
	m, err := tuning.Read("/")
	if err != nil {
		return agent.Machine{}, err
	}
	if name == "" {
		name, _ = os.Hostname() // Serve finds another one
	}
	addresses := len(sources)
	if addresses == 0 {
		addresses = max(0, m.Sources())
	}
	demand := tuning.Demand{Conns: tuning.ConnsMax, Generator: true, TLS: true, Private: m.Private(tables), Targets: 1}
	users, _ := m.Largest(demand)
	ports := 0
	if demand.Sources = addresses; addresses > 0 {
		if most, _ := m.Largest(demand); most < users {
			ports = most // to each of a load's targets
		}
	}
	return agent.Machine{
		Name: name, Version: release(), Addresses: addresses, Memory: m.Memory,
		Machine: plan.Machine{Cores: netpoll.Processors(), Users: users, Ports: ports},
	}, nil
}

// localEngine is this machine's generator, for one load.
type localEngine struct {
	loadgen.Control
	base loadgen.Config
	log  *slog.Logger
}

// Run carries out this machine's share of a load.
func (e *localEngine) Run(ctx context.Context, t agent.Task) (*result.Result, error) {
	c := e.base
	c.Plan, c.First, c.RunID, c.Begin, c.Barrier = t.Plan, t.First, t.RunID, t.Begin, t.Barrier
	c.Control, c.Sinks = &e.Control, []measure.Sink{t.Sink}
	c.ConnectTimeout, c.Patience, c.Segment, c.Resume = t.Settings.Timeout, t.Settings.Patience, t.Settings.Segment, t.Settings.Resume
	c.TLS = &tls.Config{InsecureSkipVerify: t.Settings.Insecure}
	if len(t.Settings.CA) > 0 {
		c.TLS.RootCAs = x509.NewCertPool()
		if !c.TLS.RootCAs.AppendCertsFromPEM(t.Settings.CA) {
			return nil, errors.New("the coordinator's authorities are no certificates in PEM")
		}
	}
	for _, g := range t.Plan.Groups {
		for _, u := range g.URLs {
			if strings.HasPrefix(u.String(), "wss:") {
				expectHandshakes()
			}
		}
	}
	e.log.Info("begins its share", "users", t.Plan.Users(), "at", t.Begin)
	return loadgen.Run(ctx, c)
}
