package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// The coordinator's times.
const (
	callEvery      = 250 * time.Millisecond // for agents
	settle         = time.Second            // without a new agent, when there are enough
	requestTimeout = 2 * time.Second        // of one request to an agent
	requestTries   = 5
	snapshotEvery  = time.Second
	driftTimeout   = 5 * time.Second // of measuring the clocks at the end
	// endPatience is how long the agents may take to end a run that was stopped.
	endPatience = time.Minute
)

// reportsWaiting is how many reports may wait for the coordinator. One that is dropped is
// sent again.
const reportsWaiting = 4 * agentsMax

// Options say what a coordinator does.
type Options struct {
	Plan     *plan.Plan // valid
	Settings Settings
	Version  string        // only agents of the same version take part
	Min      int           // how many agents are waited for; 0 is 1
	Wait     time.Duration // how long; 0 is for ever
	Sinks    []measure.Sink
	Control  *Remote // may be nil
	Log      *slog.Logger
}

// coordinator carries out one run.
type coordinator struct {
	Options
	conn    *nats.Conn
	name    string // of the run
	run     *run
	reports chan *nats.Msg
	builder *result.Builder
	stopped bool // because ctx has ended
}

// Coordinate carries out a plan on the agents that are connected to the same NATS server,
// and returns what came of it in all. The Sinks see all agents as if they were one
// generator, about once a second. When ctx ends, the agents end the run, and the result is
// what there is until then. An error means that the run could not begin, or that
// every agent was lost.
func Coordinate(ctx context.Context, conn *nats.Conn, o Options) (*result.Result, error) {
	o.Min = max(1, o.Min)
	o.Control = cmp.Or(o.Control, NewRemote())
	c := &coordinator{Options: o, conn: conn, name: randomID(), reports: make(chan *nats.Msg, reportsWaiting)}
	sub, err := conn.ChanSubscribe(runPrefix+c.name, c.reports)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only if the connection has ended
	c.run = newRun(c.name, o.Plan, nil)
	defer c.dismiss()
	if err := c.assemble(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, errors.New("agent: the run was ended before it began")
		}
		return nil, err
	}
	return c.carryOut(ctx)
}

// assemble brings the agents together and gives each its job.
func (c *coordinator) assemble(ctx context.Context) error {
	if err := tellable(c.Plan, c.Min); err != nil {
		return err
	}
	machines, err := c.gather(ctx)
	if err != nil {
		return err
	}
	if err := c.join(ctx, machines); err != nil {
		return err
	}
	return c.prepare(ctx)
}

// gather waits until enough agents are there, and no new one comes.
func (c *coordinator) gather(ctx context.Context) ([]Machine, error) {
	hellos := make(chan *nats.Msg, agentsMax)
	inbox := c.conn.NewRespInbox()
	sub, err := c.conn.ChanSubscribe(inbox, hellos)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	var found roster
	deadline := make(<-chan time.Time)
	if c.Wait > 0 {
		deadline = time.After(c.Wait)
	}
	c.Log.Info("waits for agents", "wanted", c.Min)
	tick := time.NewTicker(callEvery)
	defer tick.Stop()
	for {
		select {
		case m := <-hellos:
			c.meet(&found, m)
		case <-tick.C:
			_ = c.conn.PublishRequest(helloSubject, inbox, nil) // without a connection the next call may be heard
			if all := found.present(time.Now()); len(all) >= c.Min && found.settled(time.Now()) {
				return all, nil
			}
		case <-deadline:
			return nil, fmt.Errorf("agent: %d of %d agents came within %s: start \"lull agent\" on the others, with the same NATS server", len(found.present(time.Now())), c.Min, c.Wait)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// meet enters an agent that says hello.
func (c *coordinator) meet(found *roster, m *nats.Msg) {
	var machine Machine
	if err := decode(m.Data, &machine); err != nil || !machine.sound() {
		return // of another version, or no agent at all
	}
	machine.Name, machine.Version = printable(machine.Name), printable(machine.Version)
	if !found.enter(machine, c.Version, time.Now()) {
		return
	}
	if machine.Version != c.Version {
		c.Log.Warn(fmt.Sprintf("agent %s is of version %s and this coordinator of version %s, so it takes no part: install the same version of lull on both", machine.Name, machine.Version, c.Version))
		_ = c.send(machine.ID, request{Op: opJoin, Run: c.name, Version: c.Version}) // so that it says so too
		return
	}
	c.Log.Info("an agent is there", "name", machine.Name, "processors", machine.Cores, "memory", humanize.IBytes(uint64(max(0, machine.Memory))), "source_addresses", machine.Addresses, "users_at_most", machine.Users)
}

// join asks the agents to take part, and measures their clocks.
func (c *coordinator) join(ctx context.Context, machines []Machine) error {
	now := time.Now()
	for _, m := range machines {
		c.run.members = append(c.run.members, newMember(m, now))
	}
	label(c.run.members)
	clocks := make([]Clock, len(machines))
	errs := c.each(ctx, func(ctx context.Context, i int) (err error) {
		if _, err = c.ask(ctx, machines[i].ID, request{Op: opJoin, Run: c.name, Version: c.Version}); err == nil {
			clocks[i], err = c.clock(ctx, machines[i].ID, joinSamples)
		}
		return err
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var joined []*member
	for i, m := range c.run.members {
		if errs[i] != nil {
			c.Log.Warn("an agent takes no part", "name", m.label, "error", errs[i])
			continue
		}
		m.clock = clocks[i]
		joined = append(joined, m)
	}
	c.run.members = joined
	if len(joined) < c.Min {
		return fmt.Errorf("agent: %d of %d agents take part", len(joined), c.Min)
	}
	return nil
}

// tellable refuses to publish texts on several machines. What the generator makes has a
// number by which every machine knows it; a text is known to the one that has sent it.
func tellable(p *plan.Plan, machines int) error {
	for _, phase := range p.Phases {
		if machines > 1 && phase.Kind == plan.Publish && phase.Message.Text != nil {
			return fmt.Errorf("agent: phase %q publishes a text, which users of other agents cannot tell from other messages: leave its message out, so that lull makes one, or use one agent", phase.Name)
		}
	}
	return nil
}

// prepare divides the plan and sends each agent its job.
func (c *coordinator) prepare(ctx context.Context) error {
	if err := tellable(c.Plan, len(c.run.members)); err != nil {
		return err
	}
	var capacities []plan.Machine
	for _, m := range c.run.members {
		capacities = append(capacities, m.Machine.Machine)
	}
	shares, err := plan.Split(c.Plan, capacities)
	if err != nil {
		return err
	}
	id := uint16(1 + rand.IntN(1<<16-1)) // 0 would be another one for each
	members := c.run.members
	for i, m := range members {
		m.share = shares[i]
		c.Log.Info("an agent takes part", "name", m.label, "users", m.share.Users, "first", m.share.First,
			"clock_ahead", m.clock.Offset.String(), "clock_exact_to", (m.clock.Trip / 2).String())
	}
	errs := c.each(ctx, func(ctx context.Context, i int) error {
		b, err := json.Marshal(job{Plan: c.Plan, Machines: capacities, Index: i, RunID: id, Settings: c.Settings})
		if err == nil && len(b) > jobMax {
			err = fmt.Errorf("the plan has %d bytes in JSON, more than %d", len(b), jobMax)
		}
		if err != nil {
			return err
		}
		for _, p := range cut(b) {
			if _, err := c.ask(ctx, members[i].ID, request{Op: opJob, Run: c.name, Part: &p}); err != nil {
				return fmt.Errorf("agent %s: %w", members[i].label, err)
			}
		}
		return nil
	})
	// There may be fewer users than agents.
	c.run.members = slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m.share.Users == 0 })
	return errors.Join(errs...)
}

// each does something with each member at the same time, and answers reports meanwhile.
func (c *coordinator) each(ctx context.Context, do func(ctx context.Context, i int) error) []error {
	errs := make([]error, len(c.run.members))
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = do(ctx, i) })
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for {
		select {
		case m := <-c.reports:
			c.hear(m)
		case <-done:
			return errs
		}
	}
}

// ask sends an agent a request, several times if it does not answer, and returns its
// answer. What a request does, it does once, however often it arrives.
func (c *coordinator) ask(ctx context.Context, id string, r request) (reply, error) {
	b, err := encode(r)
	if err != nil {
		return reply{}, err
	}
	for range requestTries {
		var m *nats.Msg
		m, err = c.request(ctx, id, b)
		if ctx.Err() != nil {
			return reply{}, ctx.Err()
		}
		if err != nil {
			continue
		}
		var answer reply
		if err = decode(m.Data, &answer); err == nil && answer.Error != "" {
			return answer, errors.New(printableText(shorten(answer.Error)))
		}
		return answer, err
	}
	return reply{}, fmt.Errorf("it does not answer: %w", err)
}

func (c *coordinator) request(ctx context.Context, id string, b []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.conn.RequestWithContext(ctx, agentPrefix+id, b)
}

// clock measures an agent's clock: the shortest of several round trips counts.
func (c *coordinator) clock(ctx context.Context, id string, samples int) (best Clock, err error) {
	for range samples {
		sent := time.Now()
		answer, err := c.ask(ctx, id, request{Op: opClock})
		if err != nil {
			return best, err
		}
		best = better(best, sample(sent, time.Now(), time.Unix(0, answer.Clock)))
	}
	return best, nil
}

// send sends an agent a request without an answer.
func (c *coordinator) send(id string, r request) error {
	b, err := encode(r)
	if err != nil {
		return err
	}
	return c.conn.Publish(agentPrefix+id, b)
}

// carryOut lets the run begin, and returns its result.
func (c *coordinator) carryOut(ctx context.Context) (*result.Result, error) {
	c.run.start(time.Now())
	c.builder = result.NewBuilder(c.run.about())
	c.Sinks = append([]measure.Sink{c.builder}, c.Sinks...)
	c.command()
	tick := time.NewTicker(snapshotEvery)
	defer tick.Stop()
	interrupted := ctx.Done()
	var giveUp <-chan time.Time
	for !c.run.done() {
		select {
		case m := <-c.reports:
			c.hear(m)
		case <-tick.C:
			c.lookAround()
		case <-c.Control.changed:
			c.Control.copyTo(c.run)
			c.command()
		case <-interrupted:
			interrupted, c.stopped = nil, true
			giveUp = time.After(endPatience)
			c.Control.Stop()
		case <-giveUp:
			for _, m := range c.run.working() {
				c.lose(m, "it did not end its part within "+endPatience.String())
			}
		}
	}
	return c.end()
}

// end returns the result of all.
func (c *coordinator) end() (*result.Result, error) {
	c.show()
	c.measureDrift()
	if c.run.phase < 0 {
		var errs []error
		for _, m := range c.run.members {
			errs = append(errs, fmt.Errorf("agent %s: %s", m.label, m.lost))
		}
		return nil, fmt.Errorf("the run could not begin: %w", errors.Join(errs...))
	}
	return c.run.merge(c.builder.Result(result.End{Interrupted: c.stopped})), nil
}

// measureDrift measures the clocks again.
func (c *coordinator) measureDrift() {
	ctx, cancel := context.WithTimeout(context.Background(), driftTimeout)
	defer cancel()
	members := c.run.members
	drifts := make([]*time.Duration, len(members))
	c.each(ctx, func(ctx context.Context, i int) error {
		if members[i].lost != "" {
			return nil
		}
		now, err := c.clock(ctx, members[i].ID, driftSamples)
		if err == nil {
			drift := now.Offset - members[i].clock.Offset
			drifts[i] = &drift
		}
		return err
	})
	for i, m := range members {
		m.drift = drifts[i]
	}
}

// hear takes a report, answers it, and lets the next phase begin if it was the last one
// that was missing.
func (c *coordinator) hear(msg *nats.Msg) {
	var r report
	if err := decode(msg.Data, &r); err != nil {
		return // it is no agent
	}
	m := c.run.find(r.Agent)
	if m != nil && !m.ended() {
		if err := m.take(&r, time.Now()); err != nil {
			c.lose(m, err.Error())
		}
		if m.result != nil {
			c.Log.Info("an agent's result is here", "name", m.label)
			c.run.changed()
			c.command() // if it was to publish, the others wait for nothing
		}
	}
	if b, err := encode(c.run.orders(m)); err == nil {
		_ = msg.Respond(b) // the agent reports again
	}
	c.advance()
}

// advance lets the next phase begin if all are there.
func (c *coordinator) advance() {
	if c.run.begin.IsZero() || !c.run.ready() {
		return
	}
	if c.run.phase >= 0 {
		c.show() // what belongs to the phase before
	}
	c.run.advance(time.Now())
	if c.run.phase == len(c.Plan.Phases) {
		c.builder.Settle()
	}
	c.command()
	for _, s := range c.Sinks {
		s.Phase(c.run.phaseName())
	}
}

// lookAround finds agents that are silent, and shows how far the run is.
func (c *coordinator) lookAround() {
	for _, m := range c.run.silent(time.Now()) {
		c.lose(m, "nothing was heard of it for "+agentPatience.String())
	}
	c.advance()
	if c.run.phase >= 0 {
		c.show()
	}
}

func (c *coordinator) lose(m *member, why string) {
	c.run.lose(m, why)
	c.Log.Error(m.obituary())
	c.command()
}

// show tells the sinks how far the run is.
func (c *coordinator) show() {
	now := c.run.snapshot(time.Now())
	for _, s := range c.Sinks {
		s.Snapshot(now)
	}
}

// command sends all members their orders at once. What is lost comes with the answer to
// their next report.
func (c *coordinator) command() {
	for _, m := range c.run.members {
		o := c.run.orders(m)
		_ = c.send(m.ID, request{Op: opOrders, Run: c.name, Orders: &o})
	}
}

// dismiss tells all members that the run is over.
func (c *coordinator) dismiss() {
	c.run.over = "the coordinator has ended it"
	c.run.changed()
	c.command()
	_ = c.conn.FlushTimeout(requestTimeout) // those that do not hear of it notice that nobody answers
}
