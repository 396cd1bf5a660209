package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
	"github.com/seed-134acfd0/lull/server/cluster"
	"github.com/seed-134acfd0/lull/server/hooks"
	"github.com/seed-134acfd0/lull/server/pusher"
	"github.com/seed-134acfd0/lull/server/rooms"
	"github.com/seed-134acfd0/lull/tuning"
)

type serveCommand struct {
	Listen                  []string            `help:"Addresses to listen on, as host:port. Port 0 picks a free port." default:"127.0.0.1:8080"`
	Mode                    string              `help:"What to do with a message: chat sends it to every connection, rooms to every connection with the same path, /room/NAME, echo back to its sender, hooks to an HTTP application (--hook), pusher as Pusher Channels does (--pusher-apps)." enum:"chat,rooms,echo,hooks,pusher" default:"chat"`
	MaxConns                int                 `help:"Maximum number of connections. 0, the default, means as many as the descriptor limit allows." placeholder:"N" range:"0..1073741824" example:"1000000"`
	Reactors                int                 `help:"Number of reactors. 0, the default, means one for each processor, or more if --max-conns needs them." placeholder:"N" range:"0..1024" example:"4"`
	FDTables                netpoll.Tables      `name:"fd-tables" help:"File descriptor tables: shared, or private, which gives each reactor its own table with its own limit. auto means private, or shared where the system does not allow that." default:"auto" enum:"auto,shared,private"`
	Origin                  []string            `help:"Sites whose pages may connect, beside the server's own: https://chat.example.com, *.example.com for all subdomains, or any." placeholder:"ORIGIN" example:"https://chat.example.com"`
	Trust                   []string            `help:"Addresses and prefixes of the proxies in front, whose word about the client counts." placeholder:"PREFIX" example:"10.0.0.0/8"`
	ProxyProtocol           bool                `help:"Connections of trusted proxies begin with a PROXY protocol head, version 1 or 2."`
	ClientHeader            string              `help:"Header in which trusted proxies name the client: X-Forwarded-For or Forwarded." placeholder:"NAME" example:"X-Forwarded-For"`
	MaxConnsPerAddress      int                 `help:"Maximum number of connections of an address. 0 means no limit." placeholder:"N" range:"0..1073741824" default:"0"`
	MaxConnsPerPrefix       int                 `help:"Maximum number of connections of a network: a /24 of IPv4, a /64 of IPv6. 0 means no limit." placeholder:"N" range:"0..1073741824" default:"0"`
	HandshakeRate           float64             `help:"Maximum number of handshakes per second. 0 means no limit." default:"0" placeholder:"N" range:"0..1000000" example:"1000"`
	HandshakeRatePerAddress float64             `help:"Maximum number of handshakes per second of an address. 0 means no limit." default:"0" placeholder:"N" range:"0..1000000" example:"1000"`
	MessageRate             float64             `help:"Maximum number of messages per second of a connection; each fragment, ping and pong counts as one. A connection that sends faster is read more slowly. 0 means no limit." default:"0" placeholder:"N" range:"0..1000000" example:"100"`
	MessageBurst            int                 `help:"How many messages a connection may send at once after a rest. 0, the default, means as many as in a second." placeholder:"N" range:"0..1000000" example:"200"`
	ByteRate                float64             `help:"Maximum number of bytes per second of a connection. 0 means no limit." default:"0" placeholder:"N" range:"0..1000000000" example:"65536"`
	ByteBurst               int                 `help:"How many bytes a connection may send at once after a rest. 0, the default, means as many as in a second." placeholder:"N" range:"0..1073741824" example:"262144"`
	CloseOverRate           bool                `help:"Close a connection that is over --message-rate or --byte-rate (1008), in place of reading it more slowly."`
	MaxAge                  time.Duration       `help:"Close a connection that has been open for this long, or up to a tenth less. 0 means never." default:"0s" range:"0s..87600h"`
	Ping                    time.Duration       `help:"Ping a connection that has been silent for this long. 0, the default, means half of --idle-timeout." default:"0s" range:"0s..8760h"`
	MemoryGuard             bool                `help:"Refuse new connections while memory is short." default:"true" negatable:""`
	Compress                bool                `help:"Offer to compress messages (permessage-deflate), without keeping anything of a connection between two messages."`
	CompressFrom            int                 `help:"Smallest message that is compressed, in bytes." default:"256" range:"1..268435456"`
	Handlers                server.Mode         `help:"Where messages are handled: on the connection's reactor (inline), on a pool of goroutines (workers), or on a single goroutine (serial)." default:"inline" enum:"workers,inline,serial"`
	Workers                 int                 `help:"Maximum number of messages handled at once, with --handlers=workers. 0, the default, means 16 for each processor." placeholder:"N" range:"0..1000000" example:"64"`
	InboxPolicy             server.InboxPolicy  `help:"What happens when a connection's inbox of unhandled messages is full: pause stops reading from it until the inbox is half empty, drop drops the message, close closes the connection (1013)." default:"pause" enum:"pause,drop,close"`
	MaxInbox                int                 `name:"max-inbox-messages" help:"Maximum number of unhandled messages of a connection." default:"64" range:"1..1000000"`
	OutboxPolicy            server.OutboxPolicy `help:"What happens when a connection's outbox is full because its client does not read: close closes the connection (1013), drop-new drops the new message, drop-old drops older messages, latest keeps only the newest message." default:"close" enum:"close,drop-new,drop-old,latest"`
	MaxOutbox               int                 `help:"Maximum size of a connection's outbox, in bytes." default:"65536" range:"1..1073741824"`
	IdleTimeout             time.Duration       `help:"Close a connection that has been silent for this long. It is pinged after half of it. 0 means never; then nobody is pinged either." default:"10m" range:"0s..8760h"`
	MaxMessage              int64               `help:"Maximum size of a message, in bytes." default:"65536" range:"1..268435456"`
	MaxTopics               int                 `help:"Maximum number of topics that connections subscribe to; a room is one." default:"1048576" range:"1..1073741824"`
	MaxSubscriptions        int                 `help:"Maximum number of topics that one connection subscribes to; with --mode=rooms it subscribes to one." default:"100" range:"1..10000"`
	Grace                   time.Duration       `help:"How long the server waits for connections to close when it shuts down. 0 means not at all." default:"10s" range:"0s..24h"`
	WWW                     string              `name:"www" help:"Serve the files of this directory to requests that are no WebSocket handshake." placeholder:"DIR" predictor:"file" example:"docs/chat"`
	Drain                   time.Duration       `help:"Time over which SIGTERM and SIGINT ask the connections to leave, evenly. 0 means all at once, without --drain-delay." default:"0s" range:"0s..24h" example:"10m"`
	DrainDelay              time.Duration       `help:"How long before that the server is not ready, so that balancers notice." default:"0s" range:"0s..1h" example:"15s"`
	DrainOrder              string              `help:"Which connections leave first: the oldest or the newest." enum:"oldest,newest" default:"oldest"`
	Return                  time.Duration       `help:"Clients that are asked to leave are told to come back within this time, each at a random moment of it." default:"30s" range:"0s..24h"`
	TLSCert                 []string            `name:"tls-cert" help:"Certificates, in PEM, each with its chain. They make all connections wss://, over TLS 1.3; a client gets the first that is for the name that it asks for. They are read again on SIGHUP, and when the files change." type:"path" placeholder:"FILE" predictor:"file"`
	TLSKey                  []string            `name:"tls-key" help:"The private keys of the certificates, in PEM, in the same order." type:"path" placeholder:"FILE" predictor:"file"`
	TLSClientCA             string              `name:"tls-client-ca" help:"Accept only clients that have a certificate of an authority in this file, in PEM." placeholder:"FILE" predictor:"file"`
	TLSTicketKeys           string              `name:"tls-ticket-keys" help:"Keys of session tickets, so that clients resume their TLS sessions after a restart, or at another server: a file with 64 hexadecimal digits in each line (openssl rand -hex 32). The first key makes tickets, all are accepted. Default: keys that are made at the start and change every day." placeholder:"FILE" predictor:"file"`
	AdminPort               adminPort           `embed:""`
	Hooks                   hooksMode           `embed:""`
	Pusher                  pusherMode          `embed:""`
	Rooms                   roomsFlags          `embed:""`
	Cluster                 clusterFlags        `embed:""`
	Anyway                  bool                `help:"Start even if this machine cannot hold --max-conns."`
	StatusPeriod            time.Duration       `name:"status" help:"How often to log the number of connections. 0 means never." default:"5s" range:"0s..24h"`
}

func (serveCommand) Help() string {
	return `SIGTERM or SIGINT shuts the server down: it stops accepting, sends a Close frame (1001) to every connection, waits at
most --grace, and exits with 0. With --drain the connections are asked to leave one after the other, with 1012 and a
reason that tells when to come back, such as "retry=12.3s". A second signal then asks all that are left at once.

Examples:
  lull serve
  lull serve --www docs/chat
  lull serve --listen 0.0.0.0:443 --tls-cert chat.pem --tls-key chat.key
  lull serve --listen 0.0.0.0:8080,0.0.0.0:8081 --max-conns 1000000
  lull serve --drain 10m --drain-delay 15s
  lull serve --mode rooms --max-topics 100000
  lull serve --mode rooms --presence --history 100
  lull serve --mode rooms --nats nats://10.0.0.9:4222
  lull serve --mode hooks --hook http://127.0.0.1:8000/lull --hook-concurrency 4
  lull serve --mode pusher --pusher-app 1:app-key:app-secret
  lull serve --mode echo --listen '[::1]:0' --reactors 1`
}

func (c *serveCommand) Run(ctx context.Context) error {
	log := newLog()
	signal.Ignore(syscall.SIGHUP)              // until there are certificates to read again
	c.FDTables = chooseTables(c.FDTables, log) // private is safe: the handlers below open no descriptors
	if err := c.preflight(log); err != nil {
		return err
	}
	secure, err := c.secure(ctx, log)
	if err != nil {
		return err
	}
	pages, err := c.pages()
	if err != nil {
		return err
	}
	inRooms := rooms.New(c.Rooms.options())
	suit := func(o cluster.Options) cluster.Options {
		o.Stream = c.Rooms.stream()
		return inRooms.Cluster(o)
	}
	var channels *pusher.Pusher
	if c.Mode == "pusher" {
		if channels, err = c.Pusher.begin(c.Origin, c.IdleTimeout, log); err != nil {
			return err
		}
		defer c.Pusher.finish(channels, c.Grace)
		suit, pages = channels.Cluster, pusherPages(channels.API(), pages)
	}
	node, leave, err := c.Cluster.join(ctx, int(c.MaxMessage), suit, inRooms.NeedNode(), c.Rooms.HistoryStore, log)
	if err != nil {
		return err
	}
	defer leave()
	handler := c.handler(inRooms, node)
	var hooked *hooks.Hooks
	if c.Mode == "hooks" {
		if hooked, err = c.Hooks.begin(log, node, c.Cluster.NodeName); err != nil {
			return err
		}
		defer c.Hooks.finish(hooked, c.Grace, log)
		handler, c.Handlers, c.Workers = hooked.Handler(), server.Workers, hooked.Workers()
	}
	if channels != nil {
		handler, c.Handlers, c.Origin = channels.Handler(), server.Inline, []string{"any"} // the apps have origins of their own
	}
	options := server.Options{
		TLS: secure, HTTP: pages, Mode: c.Handlers, Workers: c.Workers, Origins: c.Origin,
		Trust: c.Trust, ProxyProtocol: c.ProxyProtocol, ClientHeader: c.ClientHeader,
		MaxConnsPerAddress: c.MaxConnsPerAddress, MaxConnsPerPrefix: c.MaxConnsPerPrefix,
		HandshakeRate: c.HandshakeRate, HandshakeRatePerAddress: c.HandshakeRatePerAddress,
		MessageRate: c.MessageRate, MessageBurst: c.MessageBurst, ByteRate: c.ByteRate, ByteBurst: c.ByteBurst, CloseOverRate: c.CloseOverRate,
		MaxAge: c.MaxAge, PingAfter: c.Ping, MemoryGuard: c.MemoryGuard,
		Compress: c.Compress, CompressFrom: c.CompressFrom, InboxPolicy: c.InboxPolicy, MaxInboxMessages: c.MaxInbox,
		OutboxPolicy: c.OutboxPolicy, MaxOutbox: c.MaxOutbox,
		Reactors: c.Reactors, Tables: c.FDTables, MaxConns: c.MaxConns, MaxTopics: c.MaxTopics, MaxSubscriptions: c.MaxSubscriptions,
		MaxMessage: c.MaxMessage, IdleTimeout: orOff(c.IdleTimeout), Grace: orOff(c.Grace), Log: log,
		DrainDelay: c.DrainDelay, DrainTime: c.Drain, DrainReturn: orOff(c.Return), DrainNewestFirst: c.DrainOrder == "newest",
	}
	switch {
	case node != nil && c.Mode == "rooms":
		options.TopicChanged = inRooms.TopicChanged
	case node != nil:
		options.TopicChanged = node.TopicChanged
	}
	s, err := server.Listen(c.Listen, handler, options)
	if err != nil {
		return fmt.Errorf("%w%s", err, listenHint(err, "--listen", c.Listen))
	}
	switch {
	case channels != nil:
		channels.Bind(s, node)
	case node != nil:
		inRooms.Bind(s)
		node.Bind(s)
	}
	ctx, end := c.leave(ctx, s)
	defer end()
	if channels != nil {
		go c.Pusher.watch(ctx, channels, log)
	}
	if c.AdminPort.Admin != "" {
		var shown admin.Options
		if hooked != nil {
			shown.Backends = hooked
		}
		if channels != nil {
			shown.Apps = channels
		}
		if node != nil {
			shown.Cluster, shown.Degraded = node, node.Ready
		}
		stop, err := c.AdminPort.watch(ctx, s, shown, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	if hooked != nil {
		stop, err := c.Hooks.serve(hooked, s, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	o := s.Options()
	mode := c.Mode
	if secure != nil {
		mode += ", TLS"
	}
	fmt.Printf("listening on %s (%s, %d reactors, %s descriptor tables, at most %s connections)\n",
		join(s.Addrs()), mode, o.Reactors, o.Tables, humanize.Comma(int64(o.MaxConns)))
	if c.StatusPeriod > 0 {
		go newStatus(s, node, log).run(ctx, c.StatusPeriod)
	}
	go notify(ctx, s.Stalled, log)
	go giveBack(ctx)
	return s.Run(ctx)
}

// leave returns the context of s.Run, which ends with the first signal, or with
// --drain, where the first signal begins to drain, with the second.
func (c *serveCommand) leave(ctx context.Context, s *server.Server) (running context.Context, end func()) {
	if c.Drain == 0 {
		return context.WithCancel(ctx)
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer cancel()
		<-signals
		s.Drain()
		<-signals
	}()
	return running, func() {
		signal.Stop(signals)
		cancel()
	}
}

// secure is the TLS of all connections, nil for none.
func (c *serveCommand) secure(ctx context.Context, log *slog.Logger) (*tls.Config, error) {
	if len(c.TLSCert) == 0 {
		return nil, nil
	}
	certificates, err := readCertificates(c.tlsFiles(), log)
	if err != nil {
		return nil, err
	}
	expectHandshakes()
	go certificates.watch(ctx)
	return certificates.server(), nil
}

func (c *serveCommand) tlsFiles() tlsFiles {
	return tlsFiles{certs: c.TLSCert, keys: c.TLSKey, clientCA: c.TLSClientCA, ticketKeys: c.TLSTicketKeys}
}

// pages serves the files of --www. It is nil without them. A link in the directory
// leads nowhere outside it.
func (c *serveCommand) pages() (http.Handler, error) {
	if c.WWW == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(c.WWW)
	if err != nil {
		return nil, fmt.Errorf("--www: %w", err)
	}
	return http.FileServerFS(root.FS()), nil
}

// orOff is a timeout as server.Options have it: there, 0 is the default, and a
// negative timeout is off.
func orOff(d time.Duration) time.Duration {
	if d == 0 {
		return -time.Second
	}
	return d
}

// Validate checks the flags. The listener checks addresses again; here a wrong
// one is found before anything has begun.
func (c *serveCommand) Validate() error {
	if len(c.Listen) == 0 {
		return errors.New("--listen: must have an address; for example --listen=0.0.0.0:8080")
	}
	for _, address := range c.Listen {
		if err := checkAddress("--listen", address, "0.0.0.0:8080"); err != nil {
			return err
		}
	}
	if info, err := os.Stat(c.WWW); c.WWW != "" && (err != nil || !info.IsDir()) {
		return fmt.Errorf("--www=%s: must be a directory", c.WWW)
	}
	if err := c.tlsFiles().check(); err != nil {
		return err
	}
	return cmp.Or(c.Hooks.check(c.Mode), c.Pusher.check(c.Mode), c.Rooms.check(c.Mode, &c.Cluster), c.Cluster.check(c.Mode), checkAdmin(&c.AdminPort, c.Listen))
}

// checkTwice checks that no address is there twice, unless its port is any port.
func checkTwice(addresses []string) error {
	seen := map[string]bool{}
	for _, address := range addresses {
		if seen[address] && !strings.HasSuffix(address, ":0") {
			return fmt.Errorf("--listen and --admin: %s is there twice", address)
		}
		seen[address] = true
	}
	return nil
}

// checkAddress checks that a flag's value is an address to listen on.
func checkAddress(flag, address, example string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("%s=%s: must be host:port, with a port from 0 to 65,535; for example %s=%s", flag, address, flag, example)
	}
	return nil
}

// preflight returns an error if this machine cannot hold --max-conns.
func (c *serveCommand) preflight(log *slog.Logger) error {
	if c.MaxConns == 0 {
		return nil // the server computes how many it can hold
	}
	return preflight(log, c.Anyway, tuning.Demand{
		Conns: c.MaxConns, Server: true, Private: c.FDTables == netpoll.Private, Targets: len(c.Listen), TLS: len(c.TLSCert) > 0, Ping: silence(c.Ping, c.IdleTimeout),
	})
}

func (c *serveCommand) handler(inRooms *rooms.Rooms, node *cluster.Node) server.Handler {
	if c.Mode == "rooms" {
		return inRooms.Handler(node)
	}
	return server.Handler{Message: func(conn server.Conn, op frame.Op, data []byte) {
		if c.Mode == "chat" {
			_ = conn.Broadcast(op, data)
			return
		}
		_ = conn.Send(op, data)
	}}
}

func join(addrs []netip.AddrPort) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ",")
}

// status logs figures of the server at intervals.
type status struct {
	server *server.Server
	node   *cluster.Node // nil without a cluster
	log    *slog.Logger
	empty  tuning.Memory // before there were connections
	opened uint64        // connections opened until the last report
}

func newStatus(s *server.Server, node *cluster.Node, log *slog.Logger) *status {
	empty, _ := tuning.MemoryOf(os.Getpid()) // if it fails, all memory counts as the connections'
	return &status{server: s, node: node, log: log, empty: empty}
}

func (s *status) run(ctx context.Context, period time.Duration) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.report(period)
		case <-ctx.Done():
			return
		}
	}
}

func (s *status) report(period time.Duration) {
	stats := s.server.Stats()
	opened := stats.Opened
	rate := float64(opened-s.opened) / period.Seconds()
	s.opened = opened
	now, err := tuning.MemoryOf(os.Getpid())
	if err != nil {
		s.log.Warn("memory cannot be read", "error", err)
		return
	}
	user, kernel, known := now.PerConn(s.empty, stats.Open)
	if isTerminal(os.Stdout) {
		fmt.Printf("\r\033[K%s connections, %.0f/s opened", humanize.Comma(stats.Open), rate)
		if known {
			fmt.Printf("; per connection: %s B user space, %s B kernel", humanize.Comma(int64(user)), humanize.Comma(int64(kernel)))
		}
		return
	}
	line := []any{"connections", stats.Open, "opened_per_second", rate, "messages_in", stats.MessagesIn, "messages_out", stats.MessagesOut}
	if known {
		line = append(line, "user_bytes_per_connection", int64(user), "kernel_bytes_per_connection", int64(kernel))
	}
	if s.node != nil {
		line = append(line, clusterStatus(s.node.Stats())...)
	}
	s.log.Info("status", line...)
}
