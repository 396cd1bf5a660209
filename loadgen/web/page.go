package web

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed-134acfd0/lull/internal/page"
	"github.com/seed-134acfd0/lull/loadgen/measure"
)

// files are the page's. They load nothing from other sites.
//
//go:embed page
var files embed.FS

// Address is where the page usually is.
const Address = "127.0.0.1:8091"

// Options are options of Listen. The zero value is the default.
type Options struct {
	// Title says what the run is, such as a plan's name, or the server's URL.
	Title string
	// Phases are the names of all phases in their order, as far as they are known. The
	// page learns of others when they begin.
	Phases []string
	// Control is what the page's buttons call. Without it there are none.
	Control Control
	// Token is what everybody has to show who looks: browsers in a form, programs as
	// "Authorization: Bearer TOKEN". Only with a token may other machines reach the page.
	Token string
	// Names are the host names under which browsers may open the page, beside that in
	// Listen's address, addresses, and localhost.
	Names []string
	// Log gets what goes wrong with requests. The default is to say nothing.
	Log *slog.Logger
}

// Page shows one run. It is a measure.Sink. A nil Page is one that nobody can see: its
// methods do nothing.
type Page struct {
	options  Options
	begun    time.Time
	listener net.Listener
	server   http.Server
	ended    chan struct{} // closed by Close

	mu      sync.Mutex
	run     measure.Reading
	times   measure.Histograms // of the whole run
	begins  []begin            // of phases
	line    timeline
	viewers int
	summed  *sums // nil after what they are of has changed
}

// begin is when a phase began.
type begin struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"began_seconds"` // since the run began
}

// beginsMax is how many phases are listed. Those after them are shown while they
// go on.
const beginsMax = 2000

// Timeouts of requests.
const (
	headTimeout = 10 * time.Second
	bodyTimeout = 20 * time.Second
	idleTimeout = time.Minute
	endTimeout  = time.Second // for what is being answered at the end
)

// scrapesMax is how many scrapes of metrics are answered at once.
const scrapesMax = 4

// Listen opens addr, host:port, and shows there a run that has not begun, until Close
// is called. Port 0 picks a free port. An address that other machines can reach needs
// a token. An error says what to do; it wraps that of package net.
func Listen(addr string, o Options) (*Page, error) {
	l, err := listen(addr, o.Token)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(addr) // net.Listen has accepted it
	o.Names = append([]string{host}, o.Names...)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Page{options: o, begun: time.Now(), listener: l, ended: make(chan struct{})}
	p.server = http.Server{
		Handler: p.handler(), ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: headTimeout, ReadTimeout: bodyTimeout, IdleTimeout: idleTimeout,
	}
	go p.server.Serve(l)
	return p, nil
}

func listen(addr, token string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("web: %w: another program has this port, perhaps another run; choose another port, or 0 for a free one", err)
	case err != nil:
		return nil, fmt.Errorf("web: %w; an address is host:port, such as %s", err, Address)
	}
	if token == "" && !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		l.Close()
		return nil, fmt.Errorf("web: other machines can reach %s, and whoever reaches it sees the run, and can stop it; give the page a token, or use an address such as %s", addr, Address)
	}
	return l, nil
}

func (p *Page) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{p}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	page.Serve(mux, files, "page")
	mux.HandleFunc("GET /events", p.events)
	mux.HandleFunc("GET /snapshot.json", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		s := p.status()
		p.mu.Unlock()
		page.Answer(w, http.StatusOK, s)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesMax}))
	p.control(mux)
	return page.Guard{Names: p.options.Names, Public: []string{"/metrics"}, Token: p.options.Token, Cookie: "lull-load"}.Handler(mux)
}

// URL is where the page is.
func (p *Page) URL() string { return "http://" + p.listener.Addr().String() + "/" }

// Phase implements measure.Sink.
func (p *Page) Phase(name string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.summed = nil
	p.run.Phase(name)
	if len(p.begins) < beginsMax {
		p.begins = append(p.begins, begin{name, p.run.Began.Seconds()})
	}
}

// Snapshot implements measure.Sink.
func (p *Page) Snapshot(s *measure.Snapshot) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Full() {
		p.summed = nil
	}
	p.run.Snapshot(s)
	p.times.Merge(&s.Times)
	p.line.add(s)
}

// Close says to all viewers that the run has ended, and closes the address. Pages in
// browsers keep what they show. It is called by one goroutine.
func (p *Page) Close() error {
	if p == nil || p.hasEnded() {
		return nil
	}
	p.mu.Lock()
	p.line.end(&p.run.Now)
	p.mu.Unlock()
	close(p.ended)
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if p.server.Shutdown(ctx) == nil {
		return nil
	}
	return p.server.Close() // of those who take nothing
}

func (p *Page) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// phases are those that have begun, and the names of those that are to come. It is
// called with p locked.
func (p *Page) phases() phases {
	all := phases{append([]begin{}, p.begins...), []string{}} // in JSON, nil is no list
	if planned := p.options.Phases; len(planned) > len(p.begins) {
		all.Coming = planned[len(p.begins):]
	}
	return all
}
