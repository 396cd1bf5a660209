// Package web shows a run of the load generator in a browser while it goes on, and lets
// its user pause it, stop it and change its rate. A [Page] serves
//
//	/               the page
//	/events         what the page shows, as server-sent events
//	/snapshot.json  what is known of the run now
//	/metrics        metrics for Prometheus
//	/api/pause      POST {"paused": true} or false
//	/api/rate       POST {"per_second": 1000}; 0 is as fast as it goes
//	/api/stop       POST {} ends the run
//
// Nobody who looks holds the run: it leaves its snapshots with the page, and goroutines
// of the page's own give them to whoever looks, as fast as each takes them.
//
// Without a token the page is for this machine alone. Requests that a browser makes for
// pages of other sites, or under other names, are rejected.
package web
