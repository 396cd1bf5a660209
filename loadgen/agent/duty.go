package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// duty is an agent's part in a run:
//
//	joined → has the job → begun → has a result → the result is sent → over
//
// At any time it can become over: because the coordinator says so, or is lost, or the
// agent ends. Three goroutines work on it: serve reports to the coordinator, conduct
// tells the engine what the coordinator wants, and work runs the engine. NATS'
// goroutine brings the job and orders.
type duty struct {
	agent *agent
	run   string
	poke  chan struct{} // report at once
	ended chan struct{} // closed when all three have ended

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when something that is waited for has changed
	orders  orders
	job     whole
	ready   *job  // nil until all of it has come
	refused error // why the job was not accepted
	share   plan.Share
	waiting int    // the phase at whose barrier the engine waits, or -1
	over    string // why it is over, or empty
	report  report // the last one

	// What the engine has told.
	latest    *measure.Snapshot  // without times
	times     measure.Histograms // that are in no batch yet
	batch     measure.Histograms // that are in the last report
	batches   uint64
	confirmed bool   // the last report has arrived, and with it the batch
	result    []part // those that are still to be sent
	failure   string // why there is no result, or empty
}

func newDuty(a *agent, run string) *duty {
	return &duty{
		agent: a, run: run, poke: make(chan struct{}, 1), ended: make(chan struct{}), changed: make(chan struct{}),
		orders: orders{Go: -1}, job: whole{max: jobMax}, waiting: -1, confirmed: true,
	}
}

// receive takes a part of the job. When it has all, it checks it.
func (d *duty) receive(p part) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.job.add(p); err != nil || !d.job.done || d.ready != nil || d.refused != nil {
		return cmp.Or(err, d.refused)
	}
	j, share, err := d.agent.read(d.job.bytes)
	d.job.bytes = nil
	if err != nil {
		d.agent.Log.Warn("refuses a plan", "run", d.run, "error", err)
		d.refused = err
		return err
	}
	d.ready, d.share = j, share
	d.agent.Log.Info("has its part of the plan", "run", d.run, "plan", printable(j.Plan.Name), "users", share.Users, "first", share.First)
	return nil
}

// obey notes what the coordinator wants.
func (d *duty) obey(o orders) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o.Run != d.run || o.Number <= d.orders.Number {
		return
	}
	d.orders = o
	if o.Over != "" {
		d.endLocked(shorten(o.Over))
	}
	d.wake()
}

// wake wakes those who wait for a change. d.mu is held.
func (d *duty) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// end makes the duty over.
func (d *duty) end(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endLocked(why)
}

func (d *duty) endLocked(why string) {
	if d.over == "" {
		d.over = why
	}
	d.reportSoon()
}

// reportSoon makes serve look at once.
func (d *duty) reportSoon() {
	select {
	case d.poke <- struct{}{}:
	default: // it will
	}
}

// serve reports until the duty is over, and then ends the engine.
func (d *duty) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var conducting sync.WaitGroup
	conducting.Go(func() { d.conduct(ctx) })
	heard := time.Now()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	over := ""
	for {
		err := d.tell(ctx)
		switch {
		case err == nil:
			heard = time.Now()
		case ctx.Err() != nil:
			d.end(endsText)
		case time.Since(heard) > coordinatorPatience:
			d.end("the coordinator is lost: it has not answered for " + coordinatorPatience.String())
			d.agent.Log.Error("the coordinator is lost: this agent ends its part", "run", d.run, "error", err)
		}
		d.mu.Lock()
		unsaid := err == nil && d.unsaid()
		over = d.over
		d.mu.Unlock()
		if over != "" {
			break
		}
		if unsaid {
			continue
		}
		select {
		case <-d.poke:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	cancel()
	conducting.Wait()
	d.leave(ctx)
	d.agent.Log.Info("the run is over", "run", d.run, "why", over)
}

// leave tells the coordinator that this agent ends, if ctx has ended because it does.
func (d *duty) leave(ctx context.Context) {
	d.mu.Lock()
	ends := d.over == endsText
	d.failure, d.result = endsText, nil
	d.mu.Unlock()
	for try := 0; ends && try < leaveTries; try++ {
		_ = d.tell(context.WithoutCancel(ctx)) // otherwise it is missed after a while
		d.mu.Lock()
		ends = d.report.Error == ""
		d.mu.Unlock()
	}
}

// endsText is why an agent takes no part any more that was told to end.
const endsText = "this agent was ended"

// leaveTries is how many reports an agent sends that ends: one for a batch that was not
// confirmed, one for what was timed since, and one more.
const leaveTries = 3

// tell sends a report, and obeys the reply.
func (d *duty) tell(ctx context.Context) error {
	r := d.next()
	b, err := encode(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	m, err := d.agent.conn.RequestWithContext(ctx, runPrefix+d.run, b)
	if err != nil && !d.agent.conn.IsConnected() {
		return errNoConnection
	}
	if err != nil {
		return err
	}
	var o orders
	if err := decode(m.Data, &o); err != nil {
		return err
	}
	d.confirm(r)
	d.obey(o)
	return nil
}

var errNoConnection = errors.New("there is no connection to the NATS server")

// next is the next report. What was timed goes into it when the report before has
// arrived; otherwise the same is sent again. That the engine waits or has ended is said
// when nothing that was timed before remains to be sent.
func (d *duty) next() report {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.confirmed {
		d.batch = d.times.Take()
		d.batches++
		d.confirmed = false
	}
	d.report = report{Agent: d.agent.Machine.ID, Number: d.report.Number + 1, Batch: d.batches, Waiting: -1}
	if d.latest != nil {
		now := *d.latest
		now.Times = d.batch
		d.report.Snapshot = &now
	}
	if d.times == (measure.Histograms{}) {
		d.report.Waiting, d.report.Error = d.waiting, d.failure
		if len(d.result) > 0 {
			d.report.Part = &d.result[0]
		}
	}
	return d.report
}

// confirm notes that a report has arrived.
func (d *duty) confirm(r report) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.confirmed = true
	if r.Part != nil {
		d.result = d.result[1:]
	}
}

// unsaid reports whether the last report, which has arrived, had not all that the
// coordinator waits for. d.mu is held.
func (d *duty) unsaid() bool {
	return len(d.result) > 0 || d.report.Waiting != d.waiting || d.report.Error != d.failure
}

// conduct begins the engine's run, and passes on what the coordinator wants.
func (d *duty) conduct(ctx context.Context) {
	var engine Engine // nil until the run begins
	var working sync.WaitGroup
	defer working.Wait()
	before := orders{}
	for {
		d.mu.Lock()
		now, changed, ready := d.orders, d.changed, d.ready
		d.mu.Unlock()
		if engine == nil && now.Begin != 0 && ready != nil {
			engine = d.agent.Engine()
			working.Go(func() { d.work(ctx, engine, now.Begin) })
		}
		if engine != nil {
			pass(engine, before, now)
			before = now
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// pass tells an engine what has changed.
func pass(to Control, before, now orders) {
	if now.Paused != before.Paused {
		to.Pause(now.Paused)
	}
	if now.Rates != before.Rates && now.Rate != rateOfOthers {
		to.SetRate(now.Rate)
	}
	if now.Orphaned && (!before.Orphaned || now.Go != before.Go) {
		to.LosePublisher(now.Go)
	}
	if now.Stop && !before.Stop {
		to.Stop()
	}
}

// work runs the engine and keeps its result.
func (d *duty) work(ctx context.Context, engine Engine, begin int64) {
	task := Task{
		Plan: d.share.Plan, Settings: d.ready.Settings, First: d.share.First, RunID: d.ready.RunID,
		Begin: d.at(begin), Sink: sink{d}, Barrier: d.barrier,
	}
	result, err := engine.Run(ctx, task)
	var text []byte
	if err == nil {
		text, err = json.Marshal(result)
	}
	if err == nil && len(text) > resultMax {
		err = fmt.Errorf("the result of %d bytes is longer than %d", len(text), resultMax)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = -1
	if err != nil {
		d.agent.Log.Error("the run has failed", "run", d.run, "error", err)
		d.failure = shorten(err.Error())
	} else {
		d.result = cut(text)
	}
	d.reportSoon()
}

// at is a time by this machine's clock, as time.Now would give it.
func (d *duty) at(nanoseconds int64) time.Time {
	return time.Now().Add(time.Unix(0, nanoseconds).Sub(d.agent.Clock()))
}

// barrier waits until all machines may begin a phase, and until the time at which they
// do.
func (d *duty) barrier(ctx context.Context, phase int) error {
	d.mu.Lock()
	d.waiting = phase
	d.reportSoon()
	for d.orders.Go < phase && !d.orders.Stop { // an engine that is stopped goes on to its end
		changed := d.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		d.mu.Lock()
	}
	d.waiting = -1
	at := d.at(d.orders.At)
	if d.orders.Stop {
		at = time.Time{}
	}
	publisher := d.orders.Publisher
	d.mu.Unlock()
	if phase < len(d.ready.Plan.Phases) && publisher != "" {
		d.publish(&d.share.Plan.Phases[phase], &d.ready.Plan.Phases[phase], publisher)
	}
	wait := time.NewTimer(time.Until(at))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publish makes the engine publish in a phase that begins, or listen. part is this machine's
// part of the phase.
func (d *duty) publish(part, whole *plan.Phase, publisher string) {
	if part.Kind != plan.Publish {
		return
	}
	part.Listen, part.Probe = true, 0
	if publisher == d.agent.Machine.ID {
		part.Listen, part.Probe = false, whole.Probe
	}
}

// sink takes what the engine counts and times.
type sink struct{ *duty }

func (s sink) Phase(string) {}

func (s sink) Snapshot(now *measure.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times.Merge(&now.Times)
	kept := *now
	kept.Times = measure.Histograms{}
	kept.Limited, kept.Errors = slices.Clone(now.Limited), slices.Clone(now.Errors)
	s.latest = &kept
}
