package experiment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// trial is a NATS server and nodes, each on a machine of a lab.
type trial struct {
	program string // clusternode
	broker  *labMachine
	nats    *process
	nodes   []*trialNode
}

// trialNode is one of them.
type trialNode struct {
	*process
	machine *labMachine
	name    string
	url     string // of the NATS server
	queue   int    // bytes that may wait for it
}

// Ports of the programs. Each is alone on its machine.
const (
	trialNATS    = "4222"
	trialMonitor = "8222" // the NATS server's page, on the front
	trialClients = "8080"
	trialFigures = "8081"
)

// newTrial starts the NATS server on the lab's first machine. The nodes are to be on the others.
func newTrial(ctx context.Context, l *lab, program string) (*trial, error) {
	t := &trial{program: program, broker: l.machines[0]}
	for i, m := range l.machines[1:] {
		t.nodes = append(t.nodes, &trialNode{machine: m, name: string(rune('a' + i)), url: "nats://" + t.broker.backbone + ":" + trialNATS, queue: trialQueue})
	}
	return t, t.startNATS(ctx)
}

// trialQueue is how many bytes may wait for the NATS server at each node. It is small, so that
// faults of some seconds fill it.
const trialQueue = 1 << 20

func (t *trial) startNATS(ctx context.Context) (err error) {
	t.nats, err = startIn(ctx, t.broker.Namespace, t.program, "-broker", t.broker.backbone+":"+trialNATS, "-monitor", t.broker.front+":"+trialMonitor)
	return err
}

// start starts the node: the program clusternode, which tells what it knows.
func (n *trialNode) start(ctx context.Context, program string) (err error) {
	n.process, err = startIn(ctx, n.machine.Namespace, program, "-nats", n.url, "-name", n.name, "-queue", strconv.Itoa(n.queue),
		"-listen", n.machine.front+":"+trialClients, "-figures", n.machine.front+":"+trialFigures)
	return err
}

// serve starts the node: lull serve.
func (n *trialNode) serve(ctx context.Context, lull string) (err error) {
	n.process, err = startIn(ctx, n.machine.Namespace, lull, "serve", "--mode", "rooms", "--nats", n.url, "--node-name", n.name,
		"--listen", n.machine.front+":"+trialClients, "--admin=", "--status", "0s", "--fd-tables", "private")
	return err
}

// startAll starts the nodes, and waits until each knows the others.
func (t *trial) startAll(ctx context.Context) error {
	for _, n := range t.nodes {
		if err := n.start(ctx, t.program); err != nil {
			return err
		}
	}
	return until(ctx, startTimeout, "the nodes know each other", func() (bool, error) {
		for _, n := range t.nodes {
			f, err := n.figures(ctx)
			if err != nil || len(f.Stats.Nodes) != len(t.nodes)-1 {
				return false, err
			}
		}
		return true, nil
	})
}

// close ends everything.
func (t *trial) close() {
	for _, n := range t.nodes {
		n.kill()
	}
	t.nats.kill()
}

func (n *trialNode) room(name string) string {
	return "ws://" + n.machine.front + ":" + trialClients + "/room/" + name
}

// told is what a node tells (loadgen/clusternode).
type told struct {
	Stats struct {
		Nodes     []string
		Received  uint64
		QueuedMax int
	} `json:"stats"`
	Lost []struct {
		Node, Topic string
		Messages    uint64
		Unsure      bool
	} `json:"lost"`
	Members map[string][]string `json:"members"`
}

// lost is how much of what a node has published in a room is said to be lost.
func (f *told) lost(node, room string) (messages int, unsure bool) {
	for _, l := range f.Lost {
		if l.Node == node && l.Topic == room {
			messages += int(l.Messages)
			unsure = unsure || l.Unsure
		}
	}
	return messages, unsure
}

// figures asks a node what it knows, with the members of rooms.
func (n *trialNode) figures(ctx context.Context, rooms ...string) (f told, err error) {
	err = getJSON(ctx, "http://"+n.machine.front+":"+trialFigures+"/?"+url.Values{"room": rooms}.Encode(), &f)
	return f, err
}

// natsFigures is what the NATS server counts. Bytes are of payloads alone.
type natsFigures struct {
	Subscriptions int   `json:"subscriptions"`
	InMessages    int64 `json:"in_msgs"`
	OutMessages   int64 `json:"out_msgs"`
	InBytes       int64 `json:"in_bytes"`
	OutBytes      int64 `json:"out_bytes"`
}

func (t *trial) natsFigures(ctx context.Context) (f natsFigures, err error) {
	err = getJSON(ctx, "http://"+t.broker.front+":"+trialMonitor+"/varz", &f)
	return f, err
}

var asker = http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func getJSON(ctx context.Context, address string, v any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	response, err := asker.Do(request)
	if err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(v); err != nil {
		return fmt.Errorf("experiment: %s: %w", address, err)
	}
	return nil
}

// subscribed waits until the NATS server has so many subscriptions.
func (t *trial) subscribed(ctx context.Context, n int) error {
	return until(ctx, visitTimeout, fmt.Sprint("NATS has ", n, " subscriptions"), func() (bool, error) {
		f, err := t.natsFigures(ctx)
		return err == nil && f.Subscriptions == n, err
	})
}

// rightMembers waits until nodes have these members in each room, and returns how many seconds
// that is after a time.
func rightMembers(ctx context.Context, since time.Time, nodes []*trialNode, want map[string][]string) (float64, error) {
	var rooms []string
	for room, ids := range want {
		rooms = append(rooms, room)
		slices.Sort(ids)
	}
	err := until(ctx, visitTimeout, "all nodes have the same members", func() (bool, error) {
		for _, n := range nodes {
			f, err := n.figures(ctx, rooms...)
			if err != nil {
				return false, err
			}
			for room, ids := range want {
				if !slices.Equal(f.Members[room], ids) {
					return false, fmt.Errorf("experiment: node %s has %q in %s, not %q", n.name, f.Members[room], room, ids)
				}
			}
		}
		return true, nil
	})
	return time.Since(since).Seconds(), err
}

// leaveAll ends visits.
func leaveAll(visitors []*visitor) {
	for _, v := range visitors {
		v.leave()
	}
}

// errOf is an error that says what a check has found.
func errOf(faults []string) error {
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = errors.New("experiment: " + f)
	}
	return errors.Join(errs...)
}
