package admin

import (
	"fmt"
	"net/http"
)

// health says whether the server gets on. If a reactor is busy it takes
// Options.StallAfter to see that it is stuck.
func (a *admin) health(w http.ResponseWriter, _ *http.Request) {
	if n := a.server.Stalled(); n > 0 {
		reactors := a.server.Options().Reactors
		http.Error(w, fmt.Sprintf("%d of %d reactors stall: something blocks them, and the log says what", n, reactors),
			http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// readiness says whether another connection would be taken.
func (a *admin) readiness(w http.ResponseWriter, _ *http.Request) {
	if why := a.notReady(a.server.Stats().Open); why != "" {
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// notReady says why another connection would not be taken; it is empty if it
// would.
func (a *admin) notReady(open int64) string {
	most := int64(a.server.Options().MaxConns)
	switch {
	case a.ctx.Err() != nil:
		return "the server is ending"
	case open >= most:
		return fmt.Sprintf("the server is full: %d of %d connections", open, most)
	}
	return ""
}
