package experiment

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// ClusterFault is what became of messages and members in a fault. On each node somebody
// publishes in a room, and one member in each room listens.
type ClusterFault struct {
	Name      string `json:"name"`
	Published int    `json:"published"`
	Expected  int    `json:"expected"` // arrivals on other nodes than the publisher's
	Arrived   int    `json:"arrived"`
	Said      int    `json:"said_to_be_lost"`
	Dead      int    `json:"died_with_the_node"` // had reached the killed node's own clients, and no other node
	Unsaid    int    `json:"neither"`            // neither arrived nor said to be lost
	Wrong     int    `json:"twice_or_out_of_order"`

	Gone  float64 `json:"members_gone_after_s,omitempty"` // of the killed node, on the others
	Right float64 `json:"members_right_after_s"`          // on all nodes, since the fault's end

	Queue int   `json:"longest_queue_bytes"` // for NATS, of the nodes
	Grown int64 `json:"memory_grown_bytes"`  // of the node that has grown most
	Bound int64 `json:"memory_bound_bytes"`

	Failed []string `json:"failed,omitempty"` // what was not as it must be
}

// right says when the members were right.
func (f *ClusterFault) right() string {
	text := fmt.Sprintf("%.1f s", f.Right)
	if f.Gone > 0 {
		text += fmt.Sprintf("; the dead gone after %.1f s", f.Gone)
	}
	return text
}

// Load and limits of the faults.
const (
	faultRate  = 150 // messages a second, on each node
	faultSize  = 600 // bytes of one
	faultFor   = 20 * time.Second
	faultQuiet = 2 * time.Second // before the fault, and after it
	faultRight = 10.0            // seconds until members must be right

	// What package cluster's documentation adds up to beside the queue: answers and tails,
	// and what is read and not handled yet. Go's collector lets garbage grow to as much again.
	faultMemory = 16 << 20
)

// trouble is what happens to a cluster whose second node is b.
type trouble struct {
	name  string
	slow  bool // b is behind a slow link
	bring func(r *faultRun, ctx context.Context) error
}

var troubles = []trouble{
	{name: "a node is killed, and started again", bring: (*faultRun).kill},
	{name: "a node is cut off from NATS for 20 s", bring: (*faultRun).partition},
	{name: "NATS is killed, and started again after 5 s", bring: (*faultRun).restart},
	{name: "a node's way to NATS has 200 ms and 48 KiB/s for 20 s", slow: true, bring: (*faultRun).wait},
}

// The slow link.
const (
	slowDelay = 200 * time.Millisecond
	slowRate  = 48 << 10
)

// faultRun is one fault of one cluster.
type faultRun struct {
	*trial
	row      ClusterFault
	link     *slowLink
	members  map[string]map[string]*visitor // by node and room
	movers   map[string]*visitor            // by node
	speakers map[string]*speaker            // by node
	want     map[string][]string            // members of each room
	ended    time.Time                      // when the fault did
	dead     *speaker                       // of the killed node
	deadSaid map[string]int                 // of what it had published, by node that has said it to be lost
}

// hall is the room in which members come and go.
const hall = "hall"

func roomOf(node string) string { return "from-" + node }

// run has people speak on all nodes, brings the fault about, and settles the accounts.
func (f trouble) run(ctx context.Context, l *lab, config ClusterConfig) (row ClusterFault, err error) {
	t, err := newTrial(ctx, l, config.Node)
	if err != nil {
		return row, err
	}
	defer t.close()
	r := &faultRun{
		trial: t, row: ClusterFault{Name: f.name, Bound: 2 * (trialQueue + faultMemory)}, members: map[string]map[string]*visitor{},
		movers: map[string]*visitor{}, speakers: map[string]*speaker{}, want: map[string][]string{}, deadSaid: map[string]int{},
	}
	if f.slow {
		r.link, err = newSlowLink(labBackbone+labOwn+":0", t.broker.backbone+":"+trialNATS, slowDelay, slowRate)
		if err != nil {
			return row, fmt.Errorf("experiment: %w", err)
		}
		defer r.link.close()
		t.nodes[1].url = "nats://" + r.link.addr()
	}
	if err := t.startAll(ctx); err != nil {
		return row, err
	}
	defer r.leave()
	for _, n := range t.nodes {
		if err := r.enter(ctx, n, "1"); err != nil {
			return row, err
		}
	}
	if _, err := rightMembers(ctx, time.Now(), t.nodes, r.want); err != nil {
		return row, err
	}
	memory := watchMemory(t.nodes)
	for _, n := range t.nodes {
		r.speak(ctx, n, n.name)
	}
	if err := sleep(ctx, faultQuiet); err != nil {
		return row, err
	}
	if err := f.bring(r, ctx); err != nil {
		return row, err
	}
	if r.row.Right, err = rightMembers(ctx, r.ended, t.nodes, r.want); err != nil {
		return row, err
	}
	if err := sleep(ctx, faultQuiet); err != nil {
		return row, err
	}
	if err := r.settle(ctx); err != nil {
		return row, err
	}
	r.row.Grown = memory.end()
	r.check()
	return r.row, nil
}

// enter lets a member of each room, and one who comes and goes, come to a node.
func (r *faultRun) enter(ctx context.Context, n *trialNode, mover string) error {
	r.members[n.name] = map[string]*visitor{}
	for _, of := range r.nodes {
		room := roomOf(of.name)
		v, err := visit(ctx, n.room(room)+"?id="+n.name)
		if err != nil {
			return err
		}
		r.members[n.name][room] = v
		r.come(room, n.name)
	}
	id := n.name + mover
	v, err := visit(ctx, n.room(hall)+"?id="+id)
	if err != nil {
		return err
	}
	r.movers[n.name] = v
	r.come(hall, id)
	return nil
}

func (r *faultRun) come(room, id string) { r.want[room] = append(r.want[room], id) }

// goes has a node's members be gone, by who they are.
func (r *faultRun) goes(is func(id string) bool) {
	for room, ids := range r.want {
		r.want[room] = slices.DeleteFunc(ids, is)
	}
}

// move lets the mover of a node leave, and another one come.
func (r *faultRun) move(ctx context.Context, n *trialNode) error {
	id := n.name + "2"
	v, err := visit(ctx, n.room(hall)+"?id="+id)
	if err != nil {
		return err
	}
	r.movers[n.name].leave()
	r.movers[n.name] = v
	r.goes(func(who string) bool { return who == n.name+"1" })
	r.come(hall, id)
	return nil
}

// speak has a node's member speak in the node's room.
func (r *faultRun) speak(ctx context.Context, n *trialNode, name string) {
	r.speakers[n.name] = r.members[n.name][roomOf(n.name)].speak(ctx, name, faultRate, faultSize)
}

// leave ends all connections.
func (r *faultRun) leave() {
	for _, s := range r.speakers {
		_ = s.hush() // it has said why already
	}
	for node, members := range r.members {
		for _, v := range members {
			v.leave()
		}
		if v := r.movers[node]; v != nil {
			v.leave()
		}
	}
}

// wait is the fault of a link that is slow from the beginning.
func (r *faultRun) wait(ctx context.Context) error {
	err := r.moveDuring(ctx, faultFor)
	r.link.ease()
	r.ended = time.Now()
	return err
}

// partition cuts b off.
func (r *faultRun) partition(ctx context.Context) error {
	b := r.nodes[1].machine
	if err := b.cut(); err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	err := r.moveDuring(ctx, faultFor)
	if e := b.mend(); err == nil && e != nil {
		err = fmt.Errorf("experiment: %w", e)
	}
	r.ended = time.Now()
	return err
}

// restart kills NATS, and starts it again.
func (r *faultRun) restart(ctx context.Context) error {
	r.nats.kill()
	if err := r.moveDuring(ctx, 5*time.Second); err != nil {
		return err
	}
	defer func() { r.ended = time.Now() }()
	return r.startNATS(ctx)
}

// moveDuring waits, and in the middle of that members come and go on all nodes.
func (r *faultRun) moveDuring(ctx context.Context, d time.Duration) error {
	if err := sleep(ctx, d/2); err != nil {
		return err
	}
	for _, n := range r.nodes {
		if err := r.move(ctx, n); err != nil {
			return err
		}
	}
	return sleep(ctx, d/2)
}

// kill kills b, waits until the others know, and starts it again.
func (r *faultRun) kill(ctx context.Context) (err error) {
	b, others := r.nodes[1], []*trialNode{r.nodes[0], r.nodes[2]}
	b.kill()
	died := time.Now()
	r.dead = r.speakers[b.name]
	delete(r.speakers, b.name)
	_ = r.dead.hush() // its connection has ended
	<-r.dead.done
	r.goes(func(id string) bool { return id[:1] == b.name })
	if r.row.Gone, err = rightMembers(ctx, died, others, r.want); err != nil {
		return err
	}
	for _, n := range others {
		if err := r.move(ctx, n); err != nil {
			return err
		}
		f, err := n.figures(ctx)
		if err != nil {
			return err
		}
		r.deadSaid[n.name], _ = f.lost(b.name, roomOf(b.name))
	}
	for _, v := range r.members[b.name] {
		v.leave()
	}
	r.movers[b.name].leave()
	if err := b.start(ctx, r.program); err != nil {
		return err
	}
	r.ended = time.Now()
	if err := r.enter(ctx, b, "2"); err != nil {
		return err
	}
	if err := until(ctx, visitTimeout, "the node is there again", func() (bool, error) {
		f, err := b.figures(ctx)
		return err == nil && len(f.Stats.Nodes) == len(others), err
	}); err != nil {
		return err
	}
	r.speak(ctx, b, b.name+"-again")
	return nil
}
