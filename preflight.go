package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/tuning"
)

// demand is what --role, --target, --fanout and --fd-tables ask of a machine. The doctor and tune have
// it from here, so that they agree.
func demand(m *tuning.Machine, role string, conns, fanout int, tables netpoll.Tables) tuning.Demand {
	return tuning.Demand{Conns: conns, Server: role != "loadgen", Generator: role != "server", Fanout: fanout, Private: m.Private(tables)}
}

// silence is how long a connection may be silent before a server with this --ping and
// --idle-timeout pings it. A server that never does is said to do so once a year.
func silence(ping, idleTimeout time.Duration) time.Duration {
	const year = 365 * 24 * time.Hour
	switch {
	case ping > 0:
		return ping
	case idleTimeout > 0:
		return idleTimeout / 2
	}
	return year
}

// chooseTables decides what auto means: private descriptor tables, unless the
// system does not allow them.
func chooseTables(t netpoll.Tables, log *slog.Logger) netpoll.Tables {
	if t != netpoll.Auto {
		return t
	}
	if err := netpoll.PrivateTables(); err != nil {
		log.Warn("reactors share one descriptor table, because the system does not allow private ones", "error", err)
		return netpoll.Shared
	}
	return netpoll.Private
}

// preflight logs warnings if this machine meets a demand only badly, and
// returns an error if it does not meet it at all, unless anyway is set.
func preflight(log *slog.Logger, anyway bool, d tuning.Demand) error {
	warnings, refusal := tuning.Preflight(d)
	for _, w := range warnings {
		log.Warn(w)
	}
	switch {
	case refusal == nil:
	case anyway:
		log.Warn(refusal.Error())
	default:
		return fmt.Errorf("%w; use --anyway to try it nevertheless", refusal)
	}
	return nil
}
