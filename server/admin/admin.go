package admin

import (
	"context"
	"embed"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/tuning"
)

// pages are what a browser loads; they load nothing from elsewhere.
//
//go:embed page
var pages embed.FS

// admin is what the handlers share.
type admin struct {
	ctx   context.Context // of the server's Run
	names []string
	source
}

// New returns the handler for s. ctx is what s.Run is given: once it has ended
// the server is not ready any more. names are those of this machine under which
// browsers may come; its addresses and localhost need not be among them.
func New(ctx context.Context, s *server.Server, names ...string) http.Handler {
	a := &admin{ctx: ctx, names: names, source: newSource(s)}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{a.source}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", page("index.html"))
	mux.HandleFunc("GET /page.css", page("page.css"))
	mux.HandleFunc("GET /page.js", page("page.js"))

	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesMax}))
	mux.HandleFunc("GET /healthz", a.health)
	mux.HandleFunc("GET /readyz", a.readiness)

	mux.HandleFunc("GET /api/status", a.showStatus)
	mux.HandleFunc("GET /api/connections", a.showConnections)
	mux.HandleFunc("DELETE /api/connections/{id}", a.closeConnection)
	mux.HandleFunc("POST /api/broadcast", a.broadcast)

	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return sealed(a.known(http.NewCrossOriginProtection().Handler(mux)))
}

// scrapesMax is how many scrapes are answered at once.
const scrapesMax = 4

func page(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, pages, "page/"+name) }
}

// NewCollector returns the metrics of s alone, for who has a registry already.
func NewCollector(s *server.Server) prometheus.Collector { return &collector{newSource(s)} }

// source is where figures come from.
type source struct {
	server *server.Server
	began  time.Time
	empty  tuning.Memory // when it began
}

func newSource(s *server.Server) source {
	empty, _ := tuning.MemoryOf(os.Getpid()) // zero shows all there is
	return source{server: s, began: time.Now(), empty: empty}
}

// reading is all that is known of a server at one moment.
type reading struct {
	options server.Options
	stats   server.Stats
	census  server.Census
	user    float64 // bytes of the process since it began, for each connection
	kernel  float64 // the same of the kernel

	// tuning.Unknown if they could not be read
	slab        int64 // the kernel's memory for objects, in bytes
	descriptors int64 // of each table
	files       int64 // open on the whole machine
	filesMax    int64
}

func (s source) read() *reading {
	r := &reading{
		options: s.server.Options(), stats: s.server.Stats(), census: s.server.Census(),
		slab: tuning.Unknown, descriptors: tuning.Unknown, files: tuning.Unknown, filesMax: tuning.Unknown,
	}
	if now, err := tuning.MemoryOf(os.Getpid()); err == nil {
		r.user, r.kernel = now.PerConn(s.empty, r.stats.Open)
		r.slab = now.Slab
	}
	if m, err := tuning.Read("/"); err == nil {
		r.descriptors, r.files, r.filesMax = m.OpenFiles, m.Files, m.FilesMax()
	}
	return r
}

// workers is how many handlers may run at once; none if they run on reactors.
func (r *reading) workers() int {
	if r.options.Mode == server.Inline {
		return 0
	}
	return r.options.Workers
}

// halfFull is how many connections' handlers have had half of what they may
// have before them, and more than an eighth since.
func (r *reading) halfFull() uint64 {
	begins, ends := r.stats.Count(server.QueueBegins), r.stats.Count(server.QueueEnds)
	return begins - min(begins, ends)
}
