package loadgen

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// The outcome of a run, and parts of it.
type (
	Result    = result.Result
	Phase     = result.Phase
	Latency   = result.Latency
	Broadcast = result.Broadcast
	Bar       = result.Bar
	Point     = result.Point
	Probe     = result.Probe
	Returns   = result.Returns
	Echo      = result.Echo
	Flood     = result.Flood
)

// run is the coordinator's state.
type run struct {
	// constant once the workers run
	config  Config
	plan    *plan.Plan
	groups  []*group
	ports   []*ports
	phases  []phase
	talkers int // the most users that send at a time
	largest int // bytes of the largest message that the generator makes
	slots   int // of each worker
	keys    keys
	id      uint16 // in each message
	random  uint64 // seed
	begun   time.Time
	workers []*worker

	announced announced // any goroutine may use it

	// the coordinator's own
	ended    chan error // what ended workers returned
	failed   error      // the first of these
	running  sync.WaitGroup
	told     []int64 // orders given to each worker
	builder  *result.Builder
	snap     measure.Snapshot // the latest
	errors   measure.Errors
	used     usage         // of processors, at the latest snapshot with times
	timed    time.Duration // when that was
	seen     time.Duration // when progress was last reported
	early    string        // why the run ends before its last phase
	limited  []string      // where the generator was the bottleneck
	paused   time.Duration // when the pause began, -1 if there is none
	until    time.Duration // when the phase ends; pauses move it
	rates    []float64     // each worker's part of the phase's rate
	rate     float64       // of the phase, now; 0 is no limit
	rated    bool          // Control has changed it
	starting bool          // the phase's orders are not all given, so its rate cannot be changed yet
	changed  time.Duration // when the phase last made progress; pauses move it
	left     []spans       // of each worker, users that have not connected yet
	bursts   int           // that were published
	probes   bool          // a phase had a probe
	pinged   bool          // no Pong comes any more
	number   uint32        // of the next published message
	received int           // published messages, before the phase
}

// pollEvery is how often the coordinator looks at the workers.
const pollEvery = 20 * time.Millisecond

// progressEvery is how often the sinks are called, and timesEvery how often they are given
// what was timed.
const (
	progressEvery = 100 * time.Millisecond
	timesEvery    = time.Second
)

// Run puts the load on the server and returns the result. An error means that the
// run itself failed; connections that fail are counted in the Result. When ctx
// ends, Run closes its connections and returns the result until then.
func Run(ctx context.Context, config Config) (*Result, error) {
	r, err := newRun(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := r.start(); err != nil {
		return nil, err
	}
	r.used, r.paused = usageNow(), -1
	err = r.await(ctx, func(now time.Duration) bool { return now >= 0 }) // messages carry no time before the beginning
	for i := 0; i < len(r.phases) && err == nil && r.early == ""; i++ {
		err = r.do(ctx, i)
	}
	if r.snap.PhaseIndex = len(r.phases); err == nil && r.early == "" {
		r.deserted() // if nobody came in the last ramp, that is why the result is as it is
	}
	end := result.End{Gone: r.sum(measure.Left) - r.sum(measure.Recalled), Early: r.early, Interrupted: errors.Is(err, errStopped) || ctx.Err() != nil}
	if end.Interrupted {
		err = nil
	}
	if ended := r.finish(); err == nil {
		err = ended
	}
	return r.builder.Result(end), err
}

// errStopped ends a run that Control has stopped.
var errStopped = errors.New("loadgen: the run was stopped")

// elapsed is the time since the run began.
func (r *run) elapsed() time.Duration { return time.Since(r.begun) }

// do runs a phase.
func (r *run) do(ctx context.Context, index int) error {
	p := &r.phases[index]
	if err := r.expect(ctx, p); err != nil {
		return err
	}
	if err := r.meet(ctx, index); err != nil {
		return err
	}
	r.snap.PhaseIndex = index
	if r.deserted() {
		return nil
	}
	r.begin(p.Name, index)
	err := map[plan.Kind]func(context.Context, *phase) error{
		plan.Ramp: r.ramp, plan.Hold: r.hold, plan.Churn: r.churn, plan.Publish: r.probed(r.publish), plan.Talk: r.probed(r.talk),
		plan.Storm: r.storm, plan.Drain: r.drain, plan.Finish: r.finishScripts,
	}[p.Kind](ctx, p)
	r.collect()
	return err
}

// meet waits at a phase's barrier, and shows meanwhile how far the run is.
func (r *run) meet(ctx context.Context, index int) error {
	if r.config.Barrier == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends a barrier at which nobody waits any more
	var refused error
	passed := make(chan struct{})
	go func() {
		refused = r.config.Barrier(ctx, index)
		close(passed)
	}()
	err := r.awaitOr(ctx, passed, func(time.Duration) bool {
		select {
		case <-passed:
			return true
		default:
			return false
		}
	})
	if err != nil {
		return err
	}
	return refused
}

// deserted reports whether nobody is left, and nobody comes in this phase or later. Then
// there is nothing to wait for, and the run ends early, unless all have left because they
// were to.
func (r *run) deserted() bool {
	if !r.nobody() || r.comes(r.snap.PhaseIndex) {
		return false
	}
	r.early = r.whyNobody()
	return true
}

// whyNobody says why nobody is connected. It is empty if all have left because they were
// to: then the phases that are left have nothing to do.
func (r *run) whyNobody() string {
	switch {
	case r.sum(measure.Connected, measure.HalfOpen) == 0:
		return "nobody got in"
	case r.sum(measure.OpenFailures...)+r.sum(measure.StayFailures...)+r.sum(measure.HalfEnded) > 0:
		return "nobody is left"
	}
	return ""
}

// comes reports whether users connect in a phase or in a later one.
func (r *run) comes(index int) bool {
	return slices.ContainsFunc(r.phases[index:], func(p phase) bool { return p.Kind == plan.Ramp })
}

// nobody reports whether no connection is open or will be.
func (r *run) nobody() bool {
	return !slices.ContainsFunc(r.workers, func(w *worker) bool { return w.public.present.Load() > 0 })
}

// begin says that a phase begins.
func (r *run) begin(name string, index int) {
	r.snap.Phase, r.snap.PhaseIndex, r.snap.PhaseCount = name, index, len(r.phases)
	r.until, r.rates, r.rate, r.rated, r.starting = 0, nil, 0, false, false
	r.builder.Phase(name)
	for _, s := range r.config.Sinks {
		s.Phase(name)
	}
}

// await waits until done returns true, a worker fails, ctx ends or Control stops the run. It
// calls done every pollEvery, with a time that stands still while the run is paused.
func (r *run) await(ctx context.Context, done func(now time.Duration) bool) error {
	return r.awaitOr(ctx, nil, done)
}

// awaitOr is await, which calls done also when a channel is closed.
func (r *run) awaitOr(ctx context.Context, soon <-chan struct{}, done func(now time.Duration) bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		now := r.elapsed()
		r.obey(now)
		r.report(now)
		switch {
		case r.failed != nil:
			return r.failed
		case r.config.Control.stopped.Load():
			return errStopped
		case r.paused < 0 && done(now):
			return nil
		}
		select {
		case <-tick.C:
		case <-soon:
			soon = nil // a closed channel is ready for ever
		case err := <-r.ended:
			r.fail(err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fail takes note that a worker has ended.
func (r *run) fail(err error) {
	if r.failed == nil {
		r.failed = fmt.Errorf("loadgen: a worker has failed: %w", err)
	}
}

// wait lets time pass, without pauses, as long as somebody is left.
func (r *run) wait(ctx context.Context, d time.Duration) error {
	r.until = r.elapsed() + d
	return r.await(ctx, func(now time.Duration) bool { return now >= r.until || r.deserted() })
}

// progress waits until done, or until what count returns has not changed for longer than
// patience, or nobody is left.
func (r *run) progress(ctx context.Context, patience time.Duration, count func() int, done func() bool) error {
	last := count()
	r.changed = r.elapsed()
	return r.await(ctx, func(now time.Duration) bool {
		if n := count(); n != last {
			last, r.changed = n, now
		}
		return done() || now-r.changed > patience || r.deserted()
	})
}

// patience is how long a phase waits for the next event, of which there are so many a
// second.
func (r *run) patience(rate float64) time.Duration {
	if rate == 0 {
		return r.config.Patience
	}
	return r.config.Patience + time.Duration(min(float64(time.Second)/rate, float64(plan.TimeMax)))
}

// obey does what Control wants.
func (r *run) obey(now time.Duration) {
	c := r.config.Control
	switch pause := c.paused.Load(); {
	case pause && r.paused < 0:
		r.paused = now
		r.tellAll(order{kind: orderPause})
	case !pause && r.paused >= 0:
		r.until += now - r.paused
		r.changed += now - r.paused
		r.tellAll(order{kind: orderResume, paused: now - r.paused})
		r.paused = -1
	}
	if r.starting {
		return
	}
	if rate, ok := c.newRate(); ok {
		r.rate, r.rated = rate, true
		for i, part := range r.rates {
			if part > 0 {
				r.tell(r.workers[i], order{kind: orderRate, rate: rate * part})
			}
		}
	}
}

// tell gives an order to a worker. A worker that has ended ignores it; await has
// returned its error.
func (r *run) tell(w *worker, o order) {
	r.told[w.index]++
	_ = w.mail.Force(o, nil)
}

func (r *run) tellAll(o order) {
	for _, w := range r.workers {
		r.tell(w, o)
	}
}

// read reports whether all workers have read their orders.
func (r *run) read() bool {
	for i, w := range r.workers {
		if w.public.orders.Load() < r.told[i] {
			return false
		}
	}
	return true
}

// sum adds counters up over the workers.
func (r *run) sum(counters ...measure.Counter) int {
	var n uint64
	for _, w := range r.workers {
		for _, c := range counters {
			n += w.public.counts[c].Load()
		}
	}
	return int(n)
}

// counts are the counters of all workers.
func (r *run) counts() (all measure.Counts) {
	for _, w := range r.workers {
		for c := range all {
			all[c] += w.public.counts[c].Load()
		}
	}
	if r.pinged {
		all[measure.Unponged] = all[measure.Pinged] - min(all[measure.Pinged], all[measure.Ponged])
	}
	return all
}

// away is how many connections are opened again, or will be.
func (r *run) away() (n int) {
	for _, w := range r.workers {
		n += int(w.public.away.Load())
	}
	return n
}

// lastPongs waits for the Pongs that are under way. Pings that then have none count as
// unanswered.
func (r *run) lastPongs() error {
	r.tellAll(order{kind: orderPause}) // of the Pings too
	until := r.elapsed() + settle
	err := r.await(context.Background(), func(now time.Duration) bool {
		return r.read() && r.sum(measure.Ponged) >= r.sum(measure.Pinged) || now >= until
	})
	r.pinged = true
	return err
}

// finish closes all connections and ends the workers.
func (r *run) finish() error {
	r.paused = -1
	r.config.Control = &Control{}
	_ = r.lastPongs() // an error is a worker's, and close returns it too
	r.collect()
	r.builder.Settle()
	r.begin("close", len(r.phases)-1)
	err := r.close(context.Background())
	r.collect()
	r.tellAll(order{kind: orderEnd})
	r.running.Wait()
	return err
}
