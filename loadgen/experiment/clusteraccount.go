package experiment

import (
	"context"
	"fmt"
	"time"
)

// settle has all be silent, waits until each message has arrived or is said to be lost, and
// writes down what became of them.
func (r *faultRun) settle(ctx context.Context) error {
	said := map[string]int{}
	for node, s := range r.speakers {
		if err := s.hush(); err != nil {
			return err
		}
		said[node] = int(s.said.Load())
		r.row.Published += said[node]
	}
	for node, members := range r.members {
		for room, v := range members {
			select {
			case <-v.done:
				r.fail("the connection of %s in %s has ended: %v", node, room, v.end)
			default:
			}
		}
	}
	for node, s := range r.speakers {
		if err := until(ctx, visitTimeout, "a node's own clients hear all", func() (bool, error) {
			return s.of(s.name).count == said[node], nil
		}); err != nil {
			return err
		}
	}
	var accounts []account
	all := func() (bool, error) {
		var err error
		accounts, err = r.accounts(ctx, said)
		for _, a := range accounts {
			if a.arrived+a.said < a.expected {
				return false, err
			}
		}
		return err == nil, err
	}
	if err := until(ctx, time.Minute, "each message has arrived or is said to be lost", all); ctx.Err() != nil {
		return err
	}
	if err := sleep(ctx, faultQuiet); err != nil { // nothing comes later
		return err
	}
	accounts, err := r.accounts(ctx, said)
	if err != nil {
		return err
	}
	for _, a := range accounts {
		r.row.Expected, r.row.Arrived, r.row.Said, r.row.Wrong = r.row.Expected+a.expected, r.row.Arrived+a.arrived, r.row.Said+a.said, r.row.Wrong+a.wrong
		unsaid := a.expected - a.arrived - a.said
		r.row.Unsaid += unsaid
		if unsaid != 0 || a.wrong > 0 || a.unsure {
			r.fail("of %d messages of %s %d have arrived at %s, %d are said to be lost (and perhaps more: %v), %d came twice or out of order",
				a.expected, a.from, a.arrived, a.to, a.said, a.unsure, a.wrong)
		}
	}
	r.buryDead()
	return nil
}

// account is what became of one node's messages on another one.
type account struct {
	from, to                       string
	expected, arrived, said, wrong int
	unsure                         bool
}

// accounts are those of all nodes that have published to the end.
func (r *faultRun) accounts(ctx context.Context, published map[string]int) (all []account, err error) {
	for _, to := range r.nodes {
		f, err := to.figures(ctx)
		if err != nil {
			return nil, err
		}
		r.row.Queue = max(r.row.Queue, f.Stats.QueuedMax)
		for _, from := range r.nodes {
			if from == to {
				continue
			}
			room := roomOf(from.name)
			h := r.members[to.name][room].of(r.speakers[from.name].name)
			a := account{from: from.name, to: to.name, expected: published[from.name], arrived: h.count, wrong: h.wrong}
			if r.dead != nil && to == r.nodes[1] {
				a.expected -= h.first - 1 // it has come late
			}
			a.said, a.unsure = f.lost(from.name, room)
			if r.dead != nil && from == r.nodes[1] {
				a.said -= r.deadSaid[to.name]
			}
			all = append(all, a)
		}
	}
	return all, nil
}

// buryDead accounts for what the killed node had published.
func (r *faultRun) buryDead() {
	if r.dead == nil {
		return
	}
	room, own := roomOf(r.nodes[1].name), r.dead.of(r.dead.name)
	r.row.Published += own.count
	for _, to := range []*trialNode{r.nodes[0], r.nodes[2]} {
		h := r.members[to.name][room].of(r.dead.name)
		said := r.deadSaid[to.name]
		r.row.Expected, r.row.Arrived, r.row.Said, r.row.Wrong = r.row.Expected+max(own.count, h.count), r.row.Arrived+h.count, r.row.Said+said, r.row.Wrong+h.wrong
		r.row.Dead += max(0, own.count-h.count-said)
	}
}

func (r *faultRun) fail(format string, args ...any) {
	r.row.Failed = append(r.row.Failed, fmt.Sprintf(format, args...))
}

// check notes what was not as it must be, beside the accounts.
func (r *faultRun) check() {
	row := &r.row
	if row.Right > faultRight || row.Gone > faultRight {
		r.fail("members were right after %s, and must be within %.0f s", row.right(), faultRight)
	}
	if row.Queue > trialQueue {
		r.fail("%d bytes have waited for NATS, of at most %d", row.Queue, trialQueue)
	}
	if row.Grown > row.Bound {
		r.fail("a node has grown by %s, and may by %s", size(float64(row.Grown)), size(float64(row.Bound)))
	}
}

// memoryWatch looks how much nodes grow.
type memoryWatch struct {
	stop context.CancelFunc
	most chan int64
}

// watchMemory looks at nodes until end, those that are killed until then.
func watchMemory(nodes []*trialNode) *memoryWatch {
	ctx, stop := context.WithCancel(context.Background())
	w := &memoryWatch{stop, make(chan int64, 1)}
	before := map[int]int64{}
	for _, n := range nodes {
		pid := n.cmd.Process.Pid
		before[pid] = resident(pid)
	}
	go func() {
		most := int64(0)
		for sleep(ctx, sampleEvery) == nil {
			for pid, was := range before {
				most = max(most, resident(pid)-was)
			}
		}
		w.most <- most
	}()
	return w
}

// end is by how many bytes one of them has grown at most.
func (w *memoryWatch) end() int64 {
	w.stop()
	return <-w.most
}

// sleep waits, and returns an error if ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
