// Package health answers the probes of balancers and of Kubernetes. Like package
// server it compiles everywhere.
package health

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/seed-134acfd0/lull/server"
)

// Handler returns the HTTP handler for GET /healthz and /readyz of s. ctx is the
// context of s.Run: once it has ended, the server is no longer ready.
//
// /healthz answers 503 while a reactor makes no progress, which is noticed after
// Options.StallAfter. /readyz answers 503 while the server cannot take another
// connection. The body says why.
//
// What degraded returns does not make the server unready, because others may be no better
// off: /readyz answers 200 and says it. Nil functions are left out.
func Handler(ctx context.Context, s *server.Server, degraded ...func() error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, "ok", NotHealthy(s))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		stats := s.Stats()
		good := "ready"
		for _, f := range degraded {
			if f == nil {
				continue
			}
			if err := f(); err != nil {
				good += ", but degraded: " + err.Error()
			}
		}
		answer(w, good, NotReady(ctx, s, &stats))
	})
	return mux
}

func answer(w http.ResponseWriter, good, trouble string) {
	if trouble != "" {
		http.Error(w, trouble, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, good)
}

// NotHealthy says which part of s makes no progress. It is empty if all parts do.
func NotHealthy(s *server.Server) string {
	if n := s.Stalled(); n > 0 {
		return fmt.Sprintf("%d of %d reactors stall: something blocks them, and the log says what", n, s.Options().Reactors)
	}
	return ""
}

// NotReady says why s, with these figures, cannot take another connection. It is
// empty if it can.
func NotReady(ctx context.Context, s *server.Server, now *server.Stats) string {
	o := s.Options()
	switch {
	case ctx.Err() != nil:
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
