package experiment

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// Run starts the running program as «lull serve». In a test this is the test
// program, so it can serve too. fault makes its server fail.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "serve":
		serve(os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "-listen": // how floor and slowhandler are called
		serve(os.Args[1:])
	case os.Getenv(orphan) != "":
		leaveOrphan(os.Getenv(orphan))
	default:
		os.Exit(m.Run())
	}
}

// fault is an environment variable. It says how the server fails.
const fault = "LULL_TEST_FAULT"

// faultConns is after how many connections a server with the fault "dies" exits.
const faultConns = 50

func serve(args []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	listen := flags.String("listen", "", "")
	mode := flags.String("mode", "", "")
	conns := flags.Int("max-conns", 0, "")
	reactors := flags.Int("reactors", 0, "")
	threads := flags.Int("threads", 0, "")
	cert := flags.String("tls-cert", "", "")
	key := flags.String("tls-key", "", "")
	flags.String("admin", "", "")
	flags.String("status", "", "")
	flags.String("fd-tables", "", "")
	flags.String("tables", "", "")
	flags.String("drain", "", "")
	ticketKeys := flags.String("tls-ticket-keys", "", "")
	flags.String("return", "", "")
	flags.Duration("delay", 0, "")
	flags.Duration("delay-for", 0, "")
	_ = flags.Parse(args) // exits on an error

	if os.Getenv(fault) == "does not start" {
		fmt.Fprintln(os.Stderr, "the port is taken")
		os.Exit(3)
	}
	var opened atomic.Int64
	h := server.Handler{
		Open: func(server.Conn) {
			if os.Getenv(fault) == "dies" && opened.Add(1) == faultConns {
				fmt.Fprintln(os.Stderr, "out of luck")
				os.Exit(4)
			}
		},
		Message: func(c server.Conn, op frame.Op, data []byte) {
			if *mode == "echo" || *mode == "" && *cert != "" { // peer has no mode
				_ = c.Send(op, data)
			} else {
				_ = c.Server().Broadcast(op, data)
			}
		},
	}
	var secure *tls.Config
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		secure = &tls.Config{Certificates: []tls.Certificate{pair}}
		if *ticketKeys != "" {
			secure.SetSessionTicketKeys([][32]byte{{1}})
		}
	}
	s, err := server.Listen([]string{*listen}, h, server.Options{
		TLS: secure, MaxConns: *conns, Reactors: max(*reactors, *threads), Tables: netpoll.Private,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Printf("listening on %s (%s)\n", s.Addrs()[0], *mode)
	if err := s.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
