package loadgen

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
)

// run is the coordinator's state.
type run struct {
	// constant once the workers run
	config  Config
	targets []target
	sources Sources
	slots   int // of each worker
	keys    keys
	id      uint16 // in each message
	begun   time.Time
	workers []*worker

	spares atomic.Int64 // spare combinations of Sources in use, after the first config.Conns

	// the coordinator's own
	ended    chan error // what ended workers returned
	running  sync.WaitGroup
	phase    string
	result   *Result
	reported time.Duration // when progress was last reported
}

// Progress is how far a run is.
type Progress struct {
	Phase     string
	Elapsed   time.Duration // since the run began
	Open      int           // connections open now
	Opening   int           // connections still to be opened
	Failed    int           // connections that could not be opened, or ended
	Received  int           // messages
	Connected int           // handshakes complete, ever
	Resumed   int           // of these, with a TLS session ticket
}

// pollEvery is how often the coordinator looks at the workers.
const pollEvery = 20 * time.Millisecond

// progressEvery is how often Config.Progress is called.
const progressEvery = 100 * time.Millisecond

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
	r.result = newResult(r)
	for _, phase := range r.phases() {
		if err = r.do(ctx, phase); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		r.result.Interrupted = true
		err = nil
	}
	return r.result, errors.Join(err, r.finish())
}

// elapsed is the time since the run began.
func (r *run) elapsed() time.Duration { return time.Since(r.begun) }

// key is the handshake's key for a connection.
func (r *run) key(index uint32) frame.Key {
	if r.config.Floor {
		return frame.SampleKey
	}
	return r.keys.of(index)
}

// spare returns a combination of Sources that no connection has, or -1.
func (r *run) spare() int {
	i := r.config.Conns + int(r.spares.Add(1)) - 1
	if i >= r.sources.Capacity() {
		return -1
	}
	return i
}

// do runs a phase and records how long it took and what it cost.
func (r *run) do(ctx context.Context, p phase) error {
	r.phase = p.name
	if r.config.Phase != nil {
		r.config.Phase(p.name)
	}
	before := usageNow()
	err := p.do(ctx)
	r.result.addPhase(p.name, before, usageNow())
	return err
}

// await waits until done returns true, a worker fails or ctx ends. It calls done
// every pollEvery.
func (r *run) await(ctx context.Context, done func(now time.Duration) bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		now := r.elapsed()
		if now-r.reported >= progressEvery {
			r.reported = now
			r.report(r.progress(now))
		}
		if done(now) {
			return nil
		}
		select {
		case <-tick.C:
		case err := <-r.ended:
			return fmt.Errorf("loadgen: a worker has failed: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sum adds a counter up over the workers.
func (r *run) sum(counters ...Counter) int {
	var n uint64
	for _, w := range r.workers {
		for _, c := range counters {
			n += w.public.counts[c].Load()
		}
	}
	return int(n)
}

// The counters of connections that did not open, and of those that did not stay
// open.
var (
	openFailures = []Counter{Refused, Reset, TimedOut, Rejected, Failed}
	stayFailures = []Counter{Dropped, Closed, Broken, Stalled, DeafEnded}
)

// open is the number of connections that are open.
func (r *run) open() int { return r.sum(Connected) - r.sum(stayFailures...) }

// open is the number of the worker's connections that are open.
func (w *worker) open() int {
	n := int(w.public.counts[Connected].Load())
	for _, c := range stayFailures {
		n -= int(w.public.counts[c].Load())
	}
	return n
}

func (r *run) progress(now time.Duration) Progress {
	p := Progress{
		Phase:     r.phase,
		Elapsed:   now,
		Open:      r.open(),
		Failed:    r.sum(openFailures...) + r.sum(stayFailures...),
		Received:  r.sum(Received, Echoes),
		Connected: r.sum(Connected),
		Resumed:   r.sum(Resumed),
	}
	for _, w := range r.workers {
		p.Opening += int(w.public.opening.Load())
	}
	return p
}

// report adds p to the result and passes it to Config.Progress.
func (r *run) report(p Progress) {
	r.result.Timeline = append(r.result.Timeline, Point{p.Elapsed.Seconds(), p.Open})
	if r.config.Progress != nil {
		r.config.Progress(p)
	}
}

// tell gives an order to a worker. A worker that has ended ignores it; await has
// returned its error.
func (w *worker) tell(o order) { _ = w.mail.Force(o, nil) }

// collect returns what the workers have measured since the last collect.
func (r *run) collect() report {
	reports := make(chan report, len(r.workers))
	for _, w := range r.workers {
		w.tell(order{kind: orderReport, report: reports})
	}
	all := newReport()
	for range r.workers {
		select {
		case one := <-reports:
			all.merge(one)
		case err := <-r.ended: // a worker has failed, so that there is no use in waiting
			r.ended <- err // for await
			return all
		case <-time.After(r.config.Patience):
		}
	}
	r.result.addReport(all)
	return all
}

// finish closes all connections and ends the workers.
func (r *run) finish() error {
	var err error
	if r.result != nil {
		r.result.complete(r)
		err = r.do(context.Background(), phase{"close", r.close})
	}
	for _, w := range r.workers {
		w.tell(order{kind: orderEnd})
	}
	r.running.Wait()
	return err
}
