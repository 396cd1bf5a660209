// Command clusternode is a node of a cluster that tells what it knows, or the NATS server that
// the nodes meet at; `lull bench cluster` needs both.
//
//	clusternode -broker 10.0.0.9:4222 -monitor 10.0.0.9:8222
//	clusternode -nats nats://10.0.0.9:4222 -name a -listen 10.0.0.1:8080 -figures 10.0.0.1:8081
//
// Who connects to /room/NAME?id=ID is in the room NAME as the member ID, and what it sends is
// published there. Who connects to /to/NAME publishes to the room and is not in it. Both print
// the same "listening on" line as `lull serve`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	nats "github.com/nats-io/nats-server/v2/server"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/natsd"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
)

func main() {
	broker := flag.String("broker", "", "run the NATS server at this address, and nothing else")
	monitor := flag.String("monitor", "", "address of the NATS server's own page")
	var c config
	flag.StringVar(&c.nats, "nats", "", "URL of the NATS server")
	flag.StringVar(&c.name, "name", "", "the node's name")
	flag.StringVar(&c.listen, "listen", "127.0.0.1:0", "address for clients")
	flag.StringVar(&c.figures, "figures", "127.0.0.1:0", "address at which the node tells what it knows, as JSON")
	flag.IntVar(&c.queue, "queue", 8<<20, "bytes that may wait for the NATS server")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *broker != "" {
		err = runBroker(ctx, *broker, *monitor, os.Stdout)
	} else {
		err = c.run(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "clusternode:", err)
		os.Exit(1)
	}
}

// runBroker runs a NATS server until ctx ends.
func runBroker(ctx context.Context, address, monitor string, out io.Writer) error {
	var o nats.Options
	var err error
	if o.Host, o.Port, err = hostPort(address); err != nil {
		return err
	}
	if monitor != "" {
		if o.HTTPHost, o.HTTPPort, err = hostPort(monitor); err != nil {
			return err
		}
	}
	s, err := natsd.Start(&o)
	if err != nil {
		return err
	}
	defer natsd.Stop(s)
	fmt.Fprintf(out, "listening on %s (NATS)\n", s.Addr())
	<-ctx.Done()
	return nil
}

// hostPort takes an address apart that can be listened on.
func hostPort(address string) (host string, port int, err error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err = natsd.FreePort(address)
	return a.Addr().String(), port, err
}

// config is what the flags say of a node.
type config struct {
	nats, name, listen, figures string
	queue                       int
}

// outbox is how many bytes may wait for a client. After a fault a node gets at once what had
// waited at others; no client is to be closed because it reads that too slowly.
const outbox = 16 << 20

// run serves until ctx ends.
func (c config) run(ctx context.Context, out io.Writer) error {
	var losses losses
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	node, err := cluster.Join(ctx, cluster.Options{
		URL: c.nats, Name: c.name, Queue: c.queue, Present: func(string) bool { return true }, Lost: losses.add, Log: log,
	})
	if err != nil {
		return err
	}
	defer node.Leave()
	s, err := server.Listen([]string{c.listen}, node.Handler(rooms(node)), server.Options{
		TopicChanged: node.TopicChanged, MaxOutbox: outbox, MaxOutboxMessages: outbox / 100, Grace: 100 * time.Millisecond, Log: log,
	})
	if err != nil {
		return err
	}
	node.Bind(s)
	page, err := net.Listen("tcp", c.figures)
	if err != nil {
		return err
	}
	h := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(figures(node, losses.list(), r.URL.Query()["room"])) // fails if the asker has gone
	}), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = h.Serve(page) }() // until Close
	defer h.Close()
	fmt.Fprintf(out, "admin on http://%s/\nlistening on %s (node)\n", page.Addr(), s.Addrs()[0])
	return s.Run(ctx)
}

// visit is what a connection's path says.
type visit struct{ room, id string }

// rooms has connections publish to the rooms that their paths name, and be in them.
func rooms(node *cluster.Node) server.Handler {
	return server.Handler{
		Upgrade: func(r *server.Request) error {
			if room, ok := strings.CutPrefix(r.Path(), "/to/"); ok {
				r.Value = visit{room: room}
				return nil
			}
			room, ok := strings.CutPrefix(r.Path(), "/room/")
			if !ok {
				return &server.Reject{Status: http.StatusNotFound, Reason: "there are /room/NAME and /to/NAME"}
			}
			r.Value, r.Topics = visit{room, r.Query().Get("id")}, []string{room}
			return nil
		},
		Open: func(c server.Conn) {
			if v, ok := c.Value().(visit); ok && v.id != "" {
				if err := node.Enter(c, v.room, v.id, nil); err != nil {
					_ = c.Close(frame.PolicyViolation, err.Error()) // it has gone already
				}
			}
		},
		Message: func(c server.Conn, op frame.Op, data []byte) {
			if v, ok := c.Value().(visit); ok {
				if err := node.PublishFrom(c, v.room, op, data); err != nil && !errors.Is(err, cluster.ErrAway) {
					_ = c.Close(frame.PolicyViolation, err.Error())
				}
			}
		},
	}
}

// losses are what the node has said to be lost, added up by publisher and topic.
type losses struct {
	mu  sync.Mutex
	all []cluster.Loss
}

func (ls *losses) add(l cluster.Loss) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for i := range ls.all {
		if a := &ls.all[i]; a.Node == l.Node && a.Topic == l.Topic && a.Shard == l.Shard {
			a.Messages += l.Messages
			a.Unsure = a.Unsure || l.Unsure
			return
		}
	}
	ls.all = append(ls.all, l)
}

func (ls *losses) list() []cluster.Loss {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return slices.Clone(ls.all)
}

// told is what a node tells.
type told struct {
	Stats   cluster.Stats       `json:"stats"`
	Away    string              `json:"away,omitempty"` // why the node is not ready
	Lost    []cluster.Loss      `json:"lost"`
	Members map[string][]string `json:"members"` // of the rooms that were asked for, in order
}

func figures(node *cluster.Node, lost []cluster.Loss, rooms []string) told {
	t := told{Stats: node.Stats(), Lost: lost, Members: map[string][]string{}}
	if err := node.Ready(); err != nil {
		t.Away = err.Error()
	}
	for _, room := range rooms {
		ids := []string{}
		for _, m := range node.Members(room) {
			ids = append(ids, m.ID)
		}
		slices.Sort(ids)
		t.Members[room] = ids
	}
	return t
}
