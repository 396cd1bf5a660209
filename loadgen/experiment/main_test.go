package experiment

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/admin"
	"github.com/seed-134acfd0/lull/server/cluster"
	"github.com/seed-134acfd0/lull/server/rooms"
)

// Run starts the running program as «lull serve». In a test this is the test
// program, so it can serve too. fault makes its server fail.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "serve":
		serve(os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "-listen": // how floor and slowhandler are called
		serve(os.Args[1:])
	case len(os.Args) > 1 && os.Args[1] == "experiment":
		runExperiment(os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "load":
		loadAsLull(os.Args[2:])
	case os.Getenv(inLab) != "":
		if err := tryLab(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
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

// runExperiment is «lull experiment» with the flags that MeasureFlat gives.
func runExperiment(args []string) {
	flags := flag.NewFlagSet("experiment", flag.ExitOnError)
	conns := flags.Int("conns", 0, "")
	hold := flags.Duration("hold", 0, "")
	broadcasts := flags.Int("broadcasts", 0, "")
	report := flags.String("report", "", "")
	flags.String("netns", "", "")
	_ = flags.Parse(args) // exits on an error
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	r, err := Run(ctx, Config{Conns: *conns, Hold: min(*hold, 50*time.Millisecond), Broadcasts: min(2, *broadcasts), Size: 32, Say: func(string, ...any) {}})
	if err == nil {
		err = r.Save(*report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// loadAsLull is «lull load» with the flags that Generators gives.
func loadAsLull(args []string) {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	var c loadgen.Config
	url := flags.String("url", "", "")
	flags.IntVar(&c.Conns, "conns", 0, "")
	flags.Float64Var(&c.Rate, "rate", 0, "")
	flags.IntVar(&c.Active, "active", 0, "")
	flags.IntVar(&c.Size, "size", 0, "")
	flags.DurationVar(&c.Echo, "echo", 0, "")
	flags.DurationVar(&c.Hold, "hold", 0, "")
	_ = flags.Parse(args) // exits on an error
	c.URLs = []string{*url}
	if _, err := loadgen.Run(context.Background(), c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(args []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	listen := flags.String("listen", "", "")
	mode := flags.String("mode", "", "")
	conns := flags.Int("max-conns", 0, "")
	reactors := flags.Int("reactors", 0, "")
	threads := flags.Int("threads", 0, "")
	cert := flags.String("tls-cert", "", "")
	key := flags.String("tls-key", "", "")
	page := flags.String("admin", "", "")
	flags.String("origin", "", "")
	flags.String("status", "", "")
	flags.String("fd-tables", "", "")
	flags.String("tables", "", "")
	flags.Bool("coalesce", false, "")
	flags.String("drain", "", "")
	ticketKeys := flags.String("tls-ticket-keys", "", "")
	flags.String("return", "", "")
	history := flags.Int("history", 0, "")
	flags.String("node-name", "", "")
	peers := flags.String("cluster-peers", "", "")
	clustered := flags.String("cluster", "", "")
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
	o := server.Options{TLS: secure, MaxConns: *conns, Reactors: max(*reactors, *threads), Tables: netpoll.Private}
	var node *cluster.Node
	inRooms := rooms.New(rooms.Options{History: cluster.Limits{Messages: *history}})
	if *mode == "rooms" {
		node = join(inRooms, *clustered, *peers)
		h, o.TopicChanged = inRooms.Handler(node), inRooms.TopicChanged
	}
	s, err := server.Listen([]string{*listen}, h, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if node != nil {
		inRooms.Bind(s)
		node.Bind(s)
		defer node.Leave()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if *page != "" {
		l, err := net.Listen("tcp", *page)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("admin on http://%s/\n", l.Addr())
		go http.Serve(l, admin.New(ctx, s, admin.Options{}))
	}
	fmt.Printf("listening on %s (%s)\n", s.Addrs()[0], *mode)
	if err := s.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// join joins servers that embed their brokers.
func join(inRooms *rooms.Rooms, listen, peers string) *cluster.Node {
	o := cluster.BrokerOptions{Listen: listen}
	if peers != "" {
		o.Routes = []string{peers}
	}
	b, err := cluster.Embed(o)
	if err == nil {
		var node *cluster.Node
		if node, err = cluster.Join(context.Background(), inRooms.Cluster(cluster.Options{Broker: b, Name: "node-" + strconv.Itoa(os.Getpid())})); err == nil {
			return node
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
	return nil
}
