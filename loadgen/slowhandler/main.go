// Command slowhandler is an echo server whose handler sleeps. It shows what
// lull does when handlers are slower than their clients; the scenarios of
// `lull bench` whose names begin with blocking, clicking and flooding need it.
//
//	slowhandler -delay 5ms -delay-for 1m -handlers workers -workers 4
//
// It prints the same "listening on" and "admin on" lines as `lull serve`.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
)

// config is what the flags say.
type config struct {
	listen, admin   string
	delay, delayFor time.Duration
	options         server.Options
}

func main() {
	c := config{options: server.Options{Tables: netpoll.Private, Log: slog.New(slog.NewJSONHandler(os.Stderr, nil))}}
	flag.StringVar(&c.listen, "listen", "127.0.0.1:0", "address and port")
	flag.StringVar(&c.admin, "admin", "", "address and port of the metrics; empty is none")
	flag.DurationVar(&c.delay, "delay", time.Second, "how long the handler sleeps")
	flag.DurationVar(&c.delayFor, "delay-for", 0, "how long after the start the handler sleeps no more; 0 is never")
	flag.IntVar(&c.options.Reactors, "reactors", 0, "number of reactors; 0 is one for each processor")
	flag.IntVar(&c.options.Workers, "workers", 0, "number of workers; 0 is the server's default")
	flag.TextVar(&c.options.Mode, "handlers", server.Workers, "where the handler runs: inline, serial or workers")
	flag.TextVar(&c.options.InboxPolicy, "inbox-policy", server.InboxPause, "what happens to a connection whose inbox is full: pause, drop or close")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "slowhandler:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config, out io.Writer) error {
	s, err := server.Listen([]string{c.listen}, handler(c), c.options)
	if err != nil {
		return err
	}
	if c.admin != "" {
		l, err := net.Listen("tcp", c.admin)
		if err != nil {
			return err
		}
		h := http.Server{Handler: admin.New(ctx, s, admin.Options{}), ReadHeaderTimeout: time.Minute}
		defer h.Close()
		go h.Serve(l)
		fmt.Fprintf(out, "admin on http://%s/\n", l.Addr())
	}
	fmt.Fprintf(out, "listening on %s (echo after %s)\n", s.Addrs()[0], c.delay)
	return s.Run(ctx)
}

// handler sleeps and echoes.
func handler(c config) server.Handler {
	began := time.Now()
	return server.Handler{Message: func(conn server.Conn, op frame.Op, data []byte) {
		if c.delayFor == 0 || time.Since(began) < c.delayFor {
			time.Sleep(c.delay)
		}
		_ = conn.Send(op, data)
	}}
}
