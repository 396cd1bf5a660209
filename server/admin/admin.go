package admin

import (
	"context"
	"embed"
	"math"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/internal/page"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/health"
	"github.com/seed-134acfd0/lull/tuning"
)

// pages are the files of the page. They load nothing from other sites.
//
//go:embed page
var pages embed.FS

// admin is what the HTTP handlers share.
type admin struct {
	ctx context.Context // of the server's Run
	source
	backends Part // nil without any
	cluster  Part // nil without one
	apps     Part // nil without any
}

// Options are options of New. The zero value is the default.
type Options struct {
	// Names are the host names under which browsers may open the page. Addresses
	// and localhost are always allowed.
	Names []string
	// Pprof serves profiles of the process at /debug/pprof/. Whoever can reach them
	// can slow the process down.
	Pprof bool
	// Token is what everybody has to show, but for /healthz and /readyz: programs as
	// "Authorization: Bearer TOKEN", people in the form that the page then begins with.
	// Without a token there is no authentication, and the handler belongs on a loopback
	// address, on a unix socket, or behind a proxy that authenticates.
	Token string
	// Degraded is for health.Handler.
	Degraded func() error
	// Backends are those that the server's handler calls, as hooks.Hooks; nil for none.
	Backends Part
	// Cluster is the server's place among others, as cluster.Node; nil for none.
	Cluster Part
	// Apps are those whose clients the server has, as pusher.Pusher; nil for none.
	Apps Part
}

// Part is a part of a program that has something to say beside the server: what it collects
// is in /metrics, and its status on the page and in /api/status. Any goroutine may call it.
type Part interface {
	prometheus.Collector
	Status() any // for JSON
}

// New returns the HTTP handler for s. ctx is the context of s.Run: once it has
// ended, the server is no longer ready.
func New(ctx context.Context, s *server.Server, o Options) http.Handler {
	a := &admin{ctx: ctx, source: newSource(s), backends: o.Backends, cluster: o.Cluster, apps: o.Apps}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{a.source}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, part := range []Part{o.Backends, o.Cluster, o.Apps} {
		if part != nil {
			registry.MustRegister(part)
		}
	}

	mux := http.NewServeMux()
	page.Serve(mux, pages, "page")
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesMax}))
	probes := health.Handler(ctx, s, o.Degraded)
	mux.Handle("GET /healthz", probes)
	mux.Handle("GET /readyz", probes)

	mux.HandleFunc("GET /api/status", a.showStatus)
	mux.HandleFunc("GET /api/connections", a.showConnections)
	mux.HandleFunc("DELETE /api/connections/{id}", a.closeConnection)
	mux.HandleFunc("POST /api/broadcast", a.broadcast)
	mux.HandleFunc("POST /api/drain", a.drain)

	if o.Pprof {
		profiles(mux)
	}
	return page.Guard{
		Names: o.Names, Public: []string{"/metrics", "/healthz", "/readyz"},
		Token: o.Token, Open: []string{"/healthz", "/readyz"}, Cookie: "lull-admin", // a balancer has no token
	}.Handler(mux)
}

func profiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

// scrapesMax is how many scrapes are answered at once.
const scrapesMax = 4

// NewCollector returns only the metrics of s, for programs that have their own
// registry.
func NewCollector(s *server.Server) prometheus.Collector { return &collector{newSource(s)} }

// processors is how many processors the process may use, by affinity and control group:
// GOMAXPROCS before a server raises it.
var processors = runtime.GOMAXPROCS(0)

// processorTime is what the process has used since it began.
func processorTime() time.Duration {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// source is where the figures come from.
type source struct {
	server  *server.Server
	largest *largestTopics
	began   time.Time
	empty   tuning.Memory // of the process and the kernel at the start
}

func newSource(s *server.Server) source {
	empty, _ := tuning.MemoryOf(os.Getpid()) // if it fails, all memory counts as the connections'
	return source{server: s, largest: &largestTopics{of: s.LargestTopics, now: time.Now}, began: time.Now(), empty: empty}
}

// reading is everything that is known of the server at one moment.
type reading struct {
	options server.Options
	stats   server.Stats
	census  server.Census
	topics  []server.Topic // the largest
	user    float64        // memory of the process for each connection, in bytes; NaN while there are few
	kernel  float64        // memory of the kernel for each connection, in bytes; NaN while there are few

	// These are tuning.Unknown if they could not be read.
	slab        int64 // the kernel's memory for objects, in bytes
	descriptors int64 // of each table
	files       int64 // open on the whole machine
	filesMax    int64
}

func (s source) read() *reading {
	r := &reading{
		options: s.server.Options(), stats: s.server.Stats(), census: s.server.Census(), topics: s.largest.recent(),
		user: math.NaN(), kernel: math.NaN(), slab: tuning.Unknown, descriptors: tuning.Unknown, files: tuning.Unknown, filesMax: tuning.Unknown,
	}
	if now, err := tuning.MemoryOf(os.Getpid()); err == nil {
		if user, kernel, ok := now.PerConn(s.empty, r.stats.Open); ok {
			r.user, r.kernel = user, kernel
		}
		r.slab = now.Slab
	}
	if m, err := tuning.Read("/"); err == nil {
		r.descriptors, r.files, r.filesMax = m.OpenFiles, m.Files, m.FilesMax()
	}
	return r
}

// workers is how many handlers may run at once, or 0 if they run on the reactors.
func (r *reading) workers() int {
	if r.options.Mode == server.Inline {
		return 0
	}
	return r.options.Workers
}

// inboxHigh is how many inboxes have been half full, and more than an eighth full
// since. The two counters are not read at the same moment.
func (r *reading) inboxHigh() uint64 {
	high, low := r.stats.InboxHigh, r.stats.InboxLow
	return high - min(high, low)
}
