// Package admin shows a running server to a person and to a monitoring system,
// and lets the person act. New makes an http.Handler of
//
//	/                      a page that shows what goes on
//	/metrics               for Prometheus; alerts.yml and grafana.json are made for it
//	/healthz               200 while every reactor gets on
//	/readyz                200 while another connection would be taken
//	/api/status            all that the page shows, as JSON
//	/api/connections       the slowest peers, and why the last connections ended
//	/api/connections/{id}  DELETE closes one
//	/api/broadcast         POST sends a message to everybody
//	/debug/pprof/          profiles of the process
//
// Nobody is asked who he is, so it belongs on a loopback address, or behind
// something that asks. All that is shown is what the server has counted anyway:
// no reactor is asked for anything, and a look costs the connections nothing.
//
// It imports net/http/pprof, which also registers its pages with
// http.DefaultServeMux.
package admin
