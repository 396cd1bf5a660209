package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/agent"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// agentsFlags let agents on other machines carry out a load.
type agentsFlags struct {
	Agents     string        `help:"Let agents carry out the load, which \"lull agent\" starts on other machines. They meet at a NATS server: nats://HOST:4222 is one that runs already, listen://:4222 one that ends with this load. That one needs --agents-token-file, unless its address is on loopback; --agents-cert and --agents-key are then its own, and --agents-ca signs the certificates of agents." placeholder:"URL"`
	AgentsMin  int           `help:"Wait for this many agents. Those that are there beside them take part too." default:"1" range:"1..1000"`
	AgentsWait time.Duration `help:"How long to wait for them." default:"5m" range:"1s..8760h"`
	AgentsKeys natsKeys      `embed:"" prefix:"agents-"`
}

// listenScheme begins an --agents that is not a server's URL but an address to listen on.
const listenScheme = "listen://"

// check checks the flags, and that the agents can do what the others say.
func (f *agentsFlags) check(c *loadCommand) error {
	if f.Agents == "" {
		return nil
	}
	if err := f.AgentsKeys.check("--agents-"); err != nil {
		return err
	}
	switch {
	case c.TLSCert != "":
		return errors.New("--tls-cert: cannot be used with --agents, because the key would have to be sent to them")
	case c.Floor:
		return errors.New("--floor: cannot be used with --agents")
	case len(c.Sources) != 1 || c.Sources[0] != "auto":
		return errors.New("--sources: cannot be used with --agents, which each have their own")
	}
	if address, ok := strings.CutPrefix(f.Agents, listenScheme); ok {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("--agents=%s: must have a port, as in listen://:4222", f.Agents)
		}
		if f.AgentsKeys.CredsFile != "" {
			return errors.New("--agents-creds-file: cannot be used with listen://, which has --agents-token-file")
		}
		return nil
	}
	if !isNATS(f.Agents) {
		return fmt.Errorf("--agents=%s: must be nats://HOST:4222, tls://HOST:4222 or listen://:4222", f.Agents)
	}
	return nil
}

// onAgents carries a plan out on agents.
func (c *loadCommand) onAgents(p *plan.Plan, sources []netip.Addr, log *slog.Logger) (load, error) {
	if len(sources) > 0 {
		log.Warn("the file's source addresses are not used, because each agent has its own")
	}
	if err := p.Validate(); err != nil {
		return load{}, err
	}
	settings := agent.Settings{Timeout: c.Timeout, Patience: c.Patience, Segment: c.Segment, Insecure: c.Insecure, Resume: c.Resume}
	if c.CA != "" {
		if _, err := authorities("--ca", c.CA); err != nil {
			return load{}, err
		}
		var err error
		if settings.CA, err = os.ReadFile(c.CA); err != nil {
			return load{}, fmt.Errorf("--ca: %w", err)
		}
	}
	control := agent.NewRemote()
	return load{control, func(ctx context.Context, sinks []measure.Sink) (*loadgen.Result, error) {
		conn, end, err := c.meet(ctx, log)
		if err != nil {
			return nil, err
		}
		defer end()
		return agent.Coordinate(ctx, conn, agent.Options{
			Plan: p, Settings: settings, Version: release(), Min: c.AgentsMin, Wait: c.AgentsWait, Sinks: sinks, Control: control, Log: log,
		})
	}}, nil
}

// meet connects to the NATS server, or starts one.
func (f *agentsFlags) meet(ctx context.Context, log *slog.Logger) (conn *nats.Conn, end func(), err error) {
	address, own := strings.CutPrefix(f.Agents, listenScheme)
	if !own {
		broker, err := f.AgentsKeys.client("--agents-", f.Agents)
		if err != nil {
			return nil, nil, err
		}
		if conn, err = agent.Connect(ctx, broker, false, log); err != nil {
			return nil, nil, err
		}
		return conn, conn.Close, nil
	}
	token, err := f.AgentsKeys.token("--agents-")
	if err != nil {
		return nil, nil, err
	}
	secure, err := f.AgentsKeys.server("--agents-")
	if err != nil {
		return nil, nil, err
	}
	server, err := agent.NewServer(address, token, secure)
	if err != nil {
		return nil, nil, fmt.Errorf("--agents=%s: %w%s", f.Agents, err, listenHint(err, "--agents", []string{address}))
	}
	if conn, err = server.Connect(log); err != nil {
		server.Close()
		return nil, nil, err
	}
	say("agents can connect to %s", server.Addr())
	return conn, func() { conn.Close(); server.Close() }, nil
}

// server is TLS of a NATS server of our own: with a certificate, and agents' certificates if
// there are authorities for them. It is nil without.
func (k *natsKeys) server(prefix string) (*tls.Config, error) {
	if k.Cert == "" {
		if k.CA != "" {
			return nil, fmt.Errorf("%[1]sca: agents' certificates need TLS: %[1]scert and %[1]skey", prefix)
		}
		return nil, nil
	}
	pair, err := k.certificate(prefix)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: pair}
	if k.CA != "" {
		if config.ClientCAs, err = authorities(prefix+"ca", k.CA); err != nil {
			return nil, err
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}
