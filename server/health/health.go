package admin

import (
	"fmt"
	"net/http"
	"time"

	"github.com/seed-134acfd0/lull/server"
)

// health says whether every reactor makes progress. A reactor that is blocked is
// noticed after Options.StallAfter.
func (a *admin) health(w http.ResponseWriter, _ *http.Request) {
	if n := a.server.Stalled(); n > 0 {
		reactors := a.server.Options().Reactors
		http.Error(w, fmt.Sprintf("%d of %d reactors stall: something blocks them, and the log says what", n, reactors),
			http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// readiness says whether the server can take another connection.
func (a *admin) readiness(w http.ResponseWriter, _ *http.Request) {
	stats := a.server.Stats()
	if why := a.notReady(&stats); why != "" {
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// notReady says why the server cannot take another connection. It is empty if it
// can.
func (a *admin) notReady(now *server.Stats) string {
	o := a.server.Options()
	switch {
	case a.ctx.Err() != nil:
		return "the server is ending"
	case now.Draining:
		return fmt.Sprintf("the server is draining: %d connections are left, for %v at most", now.Open, now.DrainFor.Round(time.Second))
	case now.Open >= int64(o.MaxConns):
		return fmt.Sprintf("the server is full: %d of %d connections", now.Open, o.MaxConns)
	case now.Sockets >= now.SocketsMax:
		return fmt.Sprintf("the server is full: %d of %d sockets, of which %d are open connections", now.Sockets, now.SocketsMax, now.Open)
	case now.MemoryShort:
		return "memory is short: new connections are refused; the log says how short"
	case o.Mode != server.Inline && now.Stuck >= o.Workers:
		return fmt.Sprintf("every worker is in a call that takes longer than %v; the log shows one of them", o.CallTimeout)
	}
	return ""
}
