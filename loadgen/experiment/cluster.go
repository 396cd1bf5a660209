package experiment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/seed-134acfd0/lull/tuning"
)

// ClusterConfig says how to try and measure several nodes that are joined by NATS.
type ClusterConfig struct {
	Node string // the clusternode program
	Say  func(format string, args ...any)
}

// Cluster is what came of it.
type Cluster struct {
	Date    time.Time      `json:"date"`
	Machine Machine        `json:"machine"`
	Order   *ClusterOrder  `json:"order,omitempty"`
	Faults  []ClusterFault `json:"faults,omitempty"`
	Reach   *ClusterReach  `json:"reach,omitempty"`
	Speeds  []ClusterSpeed `json:"speeds,omitempty"`
}

// ClusterOrder is whether what is published on one node reaches members on all, once and in
// order.
type ClusterOrder struct {
	Nodes     int `json:"nodes"`
	Members   int `json:"members"` // on all nodes together
	Published int `json:"published"`
	Received  int `json:"received"`
	Missing   int `json:"missing"`
	Wrong     int `json:"twice_or_out_of_order"`
}

// ClusterReach is how many nodes a publication reaches.
type ClusterReach struct {
	Nodes     int `json:"nodes"`
	Rooms     int `json:"rooms"` // with a member on one of them each
	Published int `json:"published"`
	Heard     int `json:"heard"` // by members
	// Received is how often a node has received a publication of another one.
	Received int   `json:"received_by_nodes"`
	Passed   int64 `json:"passed_on_by_nats"` // messages, hellos and answers among them
}

const clusterNodes = 3

// MeasureCluster runs everything in network namespaces that it makes beside the caller's, where
// it makes two bridges. It needs what NewNamespace needs. On an error it returns what there is.
func MeasureCluster(ctx context.Context, config ClusterConfig) (c *Cluster, err error) {
	machine, err := tuning.Read("/")
	if err != nil {
		return nil, err
	}
	c = &Cluster{Date: time.Now().UTC().Truncate(time.Second), Machine: machineOf(machine)}
	l, err := newLab(1 + clusterNodesMost)
	if err != nil {
		return nil, err
	}
	defer l.close()
	small := &lab{machines: l.machines[:1+clusterNodes]}

	config.Say("order: %d nodes of lull serve, what is published on one, members on all", clusterNodes)
	if c.Order, err = measureOrder(ctx, small, config); err != nil {
		return c, err
	}
	config.Say("  %d of %d messages received, %d twice or out of order", c.Order.Received, c.Order.Published*c.Order.Members, c.Order.Wrong)
	for _, f := range troubles {
		config.Say("fault: %s", f.name)
		row, err := f.run(ctx, small, config)
		if err != nil {
			return c, fmt.Errorf("%s: %w", f.name, err)
		}
		c.Faults = append(c.Faults, row)
		config.Say("  %d of %d have arrived on other nodes, %d said to be lost; members right on all nodes after %.1f s", row.Arrived, row.Expected, row.Said, row.Right)
	}
	config.Say("reach: %d rooms with a member on one of %d nodes each", reachRooms, clusterNodes)
	if c.Reach, err = measureReach(ctx, small, config); err != nil {
		return c, err
	}
	config.Say("  %d publications were received %d times by other nodes", c.Reach.Published, c.Reach.Received)
	for n := 1; n <= clusterNodesMost; n++ {
		config.Say("speed: nodes of lull serve: %d", n)
		row, err := measureSpeed(ctx, &lab{machines: l.machines[:1+n]}, config)
		if err != nil {
			return c, fmt.Errorf("%d nodes: %w", n, err)
		}
		c.Speeds = append(c.Speeds, row)
		config.Say("  %s deliveries/s in one room, %s in %d", count(row.One.Deliveries), count(row.Many.Deliveries), speedRooms)
	}
	return c, c.check()
}

// check is an error if something was not as it must be.
func (c *Cluster) check() error {
	var faults []string
	if o := c.Order; o.Missing+o.Wrong > 0 {
		faults = append(faults, fmt.Sprintf("order: %d messages are missing, %d came twice or out of order", o.Missing, o.Wrong))
	}
	for _, f := range c.Faults {
		for _, text := range f.Failed {
			faults = append(faults, f.Name+": "+text)
		}
	}
	if r := c.Reach; r.Received != r.Published || r.Heard != r.Published {
		faults = append(faults, fmt.Sprintf("reach: nodes have received %d publications %d times, members %d times", r.Published, r.Received, r.Heard))
	}
	return errOf(faults)
}

// The publications of measureOrder.
const (
	orderMembers   = 30 // on each node
	orderPublished = 1000
	orderRate      = 500 // a second
	orderSize      = 100 // bytes
)

// measureOrder publishes on one node of lull serve and listens on all.
func measureOrder(ctx context.Context, l *lab, config ClusterConfig) (*ClusterOrder, error) {
	lull, err := self()
	if err != nil {
		return nil, err
	}
	t, err := newTrial(ctx, l, config.Node)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if err := t.serveAll(ctx, lull); err != nil {
		return nil, err
	}
	before, err := t.natsFigures(ctx)
	if err != nil {
		return nil, err
	}
	var members []*visitor
	defer func() { leaveAll(members) }()
	for _, n := range t.nodes {
		for range orderMembers {
			v, err := visit(ctx, n.room("tea"))
			if err != nil {
				return nil, err
			}
			members = append(members, v)
		}
	}
	if err := t.subscribed(ctx, before.Subscriptions+len(t.nodes)); err != nil {
		return nil, err
	}
	s := &speaker{visitor: members[0], name: "a"}
	began := time.Now()
	for i := range orderPublished {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / orderRate)))
		if err := s.say(orderSize); err != nil {
			return nil, err
		}
	}
	o := &ClusterOrder{Nodes: len(t.nodes), Members: len(members), Published: orderPublished}
	err = until(ctx, visitTimeout, "all have all", func() (bool, error) {
		o.Received, o.Wrong = 0, 0
		for _, m := range members {
			h := m.of("a")
			o.Received, o.Wrong = o.Received+h.count, o.Wrong+h.wrong
		}
		o.Missing = o.Published*o.Members - o.Received
		return o.Missing == 0, nil
	})
	if ctx.Err() != nil {
		return nil, err
	}
	return o, nil
}

// serveAll starts the nodes as lull serve. Each has joined the others before it listens.
func (t *trial) serveAll(ctx context.Context, lull string) error {
	for _, n := range t.nodes {
		if err := n.serve(ctx, lull); err != nil {
			return err
		}
	}
	return nil
}

// The rooms of measureReach.
const reachRooms = 1000

// measureReach publishes in each room on a node that has no member there.
func measureReach(ctx context.Context, l *lab, config ClusterConfig) (*ClusterReach, error) {
	t, err := newTrial(ctx, l, config.Node)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if err := t.startAll(ctx); err != nil {
		return nil, err
	}
	before, err := t.natsFigures(ctx)
	if err != nil {
		return nil, err
	}
	var members []*visitor
	defer func() { leaveAll(members) }()
	for i := range reachRooms {
		v, err := visit(ctx, t.nodes[i%len(t.nodes)].room(fmt.Sprint(i)))
		if err != nil {
			return nil, err
		}
		members = append(members, v)
	}
	if err := t.subscribed(ctx, before.Subscriptions+reachRooms); err != nil {
		return nil, err
	}
	if before, err = t.natsFigures(ctx); err != nil {
		return nil, err
	}
	r := &ClusterReach{Nodes: len(t.nodes), Rooms: reachRooms, Published: reachRooms}
	for i := range reachRooms {
		from := t.nodes[(i+1)%len(t.nodes)]
		v, err := visit(ctx, "ws://"+from.machine.front+":"+trialClients+fmt.Sprint("/to/", i))
		if err != nil {
			return nil, err
		}
		s := &speaker{visitor: v, name: "x"}
		err = s.say(orderSize)
		v.leave()
		if err != nil {
			return nil, err
		}
	}
	heard := func() (bool, error) {
		r.Heard, r.Received = 0, 0
		for _, m := range members {
			r.Heard += m.of("x").count
		}
		for _, n := range t.nodes {
			f, err := n.figures(ctx)
			if err != nil {
				return false, err
			}
			r.Received += int(f.Stats.Received)
		}
		return r.Heard == r.Published, nil
	}
	if err := until(ctx, visitTimeout, "each member has its message", heard); ctx.Err() != nil {
		return nil, err
	}
	after, err := t.natsFigures(ctx)
	r.Passed = after.OutMessages - before.OutMessages
	return r, err
}

// WriteText prints what there is as Markdown, below a line about the machine.
func (c *Cluster) WriteText(w io.Writer) error {
	if c == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "%s · Linux %s · %d processors · %s · %s\nNATS and each node in a network namespace of its own, clients in another one.\n\n",
		c.Date.Format("2006-01-02"), c.Machine.Kernel, c.Machine.Processors, size(float64(c.Machine.Memory)), c.Machine.Go)
	print := func(format string, args ...any) {
		_, e := fmt.Fprintf(w, format, args...)
		err = errors.Join(err, e)
	}
	if o := c.Order; o != nil {
		print("%d members on %d nodes, %d messages published on one: %s of %s received, %d twice or out of order.\n",
			o.Members, o.Nodes, o.Published, count(float64(o.Received)), count(float64(o.Published*o.Members)), o.Wrong)
	}
	if r := c.Reach; r != nil {
		print("%s rooms with a member on one of %d nodes each: %s publications on a node without members were received by nodes **%s** times; NATS passed on %s messages, hellos and answers among them.\n",
			count(float64(r.Rooms)), r.Nodes, count(float64(r.Published)), count(float64(r.Received)), count(float64(r.Passed)))
	}
	if len(c.Faults) > 0 {
		print("\n| fault | published | to other nodes | arrived | said to be lost | neither | twice or out of order | members right after | the longest queue | memory grown by |\n" +
			"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	}
	for _, f := range c.Faults {
		print("| %s | %s | %s | %s | %s | **%d** | **%d** | %s | %s of %s | %s of %s |\n", f.Name, count(float64(f.Published)), count(float64(f.Expected)), count(float64(f.Arrived)),
			count(float64(f.Said)), f.Unsaid, f.Wrong, f.right(), size(float64(f.Queue)), size(trialQueue), size(float64(f.Grown)), size(float64(f.Bound)))
	}
	for _, f := range c.Faults {
		if f.Dead > 0 {
			print("\n%s: messages that had reached clients of the killed node alone: %d.\n", f.Name, f.Dead)
		}
	}
	return errors.Join(err, c.writeSpeeds(w))
}
