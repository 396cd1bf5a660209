package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
	"github.com/seed-134acfd0/lull/tuning"
)

type serveCommand struct {
	Listen       []string        `help:"Addresses to listen on, host:port; port 0 is a free one." default:"127.0.0.1:8080"`
	Mode         string          `help:"What to do with a message: chat sends it to every connection, echo back to the one it came from." enum:"chat,echo" default:"chat"`
	MaxConns     int             `help:"Most connections at once; by default what descriptors allow." placeholder:"N"`
	Reactors     int             `help:"Reactors; by default one for each processor, or as many as --max-conns takes." placeholder:"N"`
	FDTables     netpoll.Tables  `name:"fd-tables" help:"Descriptor tables: shared, or private, which gives each reactor its own with its own ulimit; auto is private." default:"auto"`
	Handlers     server.Mode     `help:"Where messages are handled: on the connection's reactor (inline), or on goroutines: a pool of them (workers) or a single one (serial)." default:"inline"`
	Workers      int             `help:"Messages that may be handled at once, with --handlers=workers; by default 16 for each processor." placeholder:"N"`
	WhenFull     server.WhenFull `help:"What becomes of a connection that sends faster than its messages are handled: pause does not read from it for a while, drop drops the message, close closes the connection (1013)." default:"pause"`
	QueueLength  int             `help:"Messages that a connection's handler may have before it is full." default:"64"`
	WhenSlow     server.WhenSlow `help:"What becomes of a message for a connection that does not read: close closes the connection (1013), drop-new and drop-old drop this one or older ones, latest keeps the newest only." default:"close"`
	MaxOutbox    int             `help:"How much a connection may be owed, in bytes, before that happens." default:"65536"`
	Delay        time.Duration   `help:"Have each message take so long, to see what a slow handler does." default:"0s"`
	DelayFor     time.Duration   `help:"Let that end after so long; 0 is never." default:"0s"`
	IdleTimeout  time.Duration   `help:"Close connections that are silent for so long; half way they are pinged." default:"10m"`
	MaxMessage   int64           `help:"Largest message, in bytes." default:"65536"`
	Grace        time.Duration   `help:"How long connections have to leave at the end." default:"10s"`
	Admin        string          `help:"Address of the page that shows the server, its metrics (Prometheus) and its API; port 0 is a free one, none if empty. Nobody is asked who he is there." default:"127.0.0.1:6060"`
	Anyway       bool            `help:"Start although this machine will not hold --max-conns."`
	StatusPeriod time.Duration   `name:"status" help:"How often to say how many connections there are; 0 is never." default:"5s"`
}

func (serveCommand) Help() string {
	return `SIGTERM or SIGINT ends the server: it stops accepting, sends everybody a Close frame (1001), waits for at most
--grace and exits with 0.

Examples:
  lull serve
  lull serve --listen 0.0.0.0:8080,0.0.0.0:8081 --max-conns 1000000
  lull serve --mode echo --listen '[::1]:0' --reactors 1`
}

func (c *serveCommand) Run(ctx context.Context) error {
	if c.FDTables == netpoll.Auto {
		c.FDTables = netpoll.Private // the handlers below open no descriptors
	}
	log := newLog()
	if err := c.preflight(log); err != nil {
		return err
	}
	s, err := server.Listen(strings.Join(c.Listen, ","), c.handler(), server.Options{
		Mode: c.Handlers, Workers: c.Workers, WhenFull: c.WhenFull, QueueMessages: c.QueueLength,
		WhenSlow: c.WhenSlow, MaxOutbox: c.MaxOutbox,
		Reactors: c.Reactors, Tables: c.FDTables, MaxConns: c.MaxConns,
		MaxMessage: c.MaxMessage, IdleTimeout: c.IdleTimeout, Grace: c.Grace, Log: log,
	})
	if err != nil {
		return err
	}
	if c.Admin != "" {
		stop, err := c.watch(ctx, s, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	o := s.Options()
	fmt.Printf("listening on %s (%s, %d reactors, %s descriptor tables, at most %s connections)\n",
		join(s.Addrs()), c.Mode, o.Reactors, o.Tables, humanize.Comma(int64(o.MaxConns)))
	if c.StatusPeriod > 0 {
		go newStatus(s, log).run(ctx, c.StatusPeriod)
	}
	go notify(ctx, s.Stalled, log)
	return s.Run(ctx)
}

// preflight says what would stop as many connections as are wanted, rather
// than run into it.
func (c *serveCommand) preflight(log *slog.Logger) error {
	if c.MaxConns == 0 {
		return nil // as many as there is room for
	}
	return preflight(log, c.Anyway, tuning.Demand{
		Conns: c.MaxConns, Server: true, Private: c.FDTables == netpoll.Private, Targets: len(c.Listen), Ping: c.IdleTimeout / 2,
	})
}

// preflight holds this machine against a demand.
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
		return fmt.Errorf("%w; --anyway tries all the same", refusal)
	}
	return nil
}

// watch serves what admin shows of s, until stop.
func (c *serveCommand) watch(ctx context.Context, s *server.Server, log *slog.Logger) (stop func() error, err error) {
	l, err := net.Listen("tcp", c.Admin)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("admin: %w: is there another lull? Choose another address with --admin, port 0 for a free one, or --admin= for none", err)
	}
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	if !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		log.Warn("whoever reaches the admin address can see who is connected, close connections and send to everybody: there is no authentication",
			"address", l.Addr().String())
	}
	fmt.Printf("admin on http://%s/\n", l.Addr())
	name, _, _ := net.SplitHostPort(c.Admin) // Listen took it
	h := http.Server{
		Handler:           admin.New(ctx, s, name),
		ReadHeaderTimeout: adminTimeout, ReadTimeout: 2 * adminTimeout, IdleTimeout: 6 * adminTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go h.Serve(l)
	return h.Close, nil
}

// adminTimeout is the time for a request's head to arrive.
const adminTimeout = 10 * time.Second

func (c *serveCommand) handler() server.Handler {
	begun := time.Now()
	return server.Handler{Message: func(conn server.Conn, op frame.Op, data []byte) {
		if c.DelayFor == 0 || time.Since(begun) < c.DelayFor {
			time.Sleep(c.Delay)
		}
		if c.Mode == "chat" {
			_ = conn.Broadcast(op, data)
			return
		}
		err := conn.Send(op, data)
		// If only the reactor is behind, a handler that may block waits for it.
		// For what the peer does not read there is --when-slow.
		for c.Handlers != server.Inline && err == server.ErrSlow && !conn.Slow() {
			time.Sleep(time.Millisecond)
			err = conn.Send(op, data)
		}
	}}
}

func join(addrs []netip.AddrPort) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ",")
}

// status says now and then how the server is.
type status struct {
	server *server.Server
	log    *slog.Logger
	empty  tuning.Memory // before there were connections
	opened uint64        // when it last said so
}

func newStatus(s *server.Server, log *slog.Logger) *status {
	empty, _ := tuning.MemoryOf(os.Getpid()) // zero shows all there is
	return &status{server: s, log: log, empty: empty}
}

func (s *status) run(ctx context.Context, period time.Duration) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.say(period)
		case <-ctx.Done():
			return
		}
	}
}

func (s *status) say(period time.Duration) {
	stats := s.server.Stats()
	opened := stats.Count(server.Opened)
	rate := float64(opened-s.opened) / period.Seconds()
	s.opened = opened
	now, err := tuning.MemoryOf(os.Getpid())
	if err != nil {
		s.log.Warn("no figures for memory", "error", err)
		return
	}
	perUser, perKernel := now.PerConn(s.empty, stats.Open)
	user, kernel := int64(perUser), int64(perKernel)
	if isTerminal(os.Stdout) {
		fmt.Printf("\r\033[K%s connections, %.0f/s opened; a connection takes %s B user, %s B kernel",
			humanize.Comma(stats.Open), rate, humanize.Comma(user), humanize.Comma(kernel))
		return
	}
	s.log.Info("status", "connections", stats.Open, "opened_per_second", rate,
		"user_bytes_per_connection", user, "kernel_bytes_per_connection", kernel,
		"messages_in", stats.Count(server.MessagesIn), "messages_out", stats.Count(server.MessagesOut))
}
