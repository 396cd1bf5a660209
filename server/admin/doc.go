// Package admin shows a running server to people and to a monitoring system, and
// lets an operator act on it. New returns an http.Handler with
//
//	/                      a page that shows the server's load
//	/metrics               metrics for Prometheus; alerts.yml and grafana.json use them
//	/healthz               200 while no reactor is blocked
//	/readyz                200 while the server can take another connection
//	/api/status            everything that the page shows, as JSON
//	/api/connections       the largest outboxes, and why the last connections ended
//	/api/connections/{id}  DELETE closes a connection
//	/api/broadcast         POST sends a message to every connection
//	/debug/pprof/          profiles of the process, if Options.Pprof is set
//
// With Options.Token all but /healthz and /readyz needs a token. Without it there is no
// authentication, and the handler belongs on a loopback address, on a unix socket, or
// behind a proxy that authenticates. Requests that a browser makes for pages of other
// sites are rejected, except for /metrics, /healthz and /readyz. Showing the server
// costs its connections nothing, because it shows only what is counted anyway.
//
// The package imports net/http/pprof, which also registers its pages with
// http.DefaultServeMux.
package admin
