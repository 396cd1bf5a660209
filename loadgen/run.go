package loadgen

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// run is one load: the coordinator's side.
type run struct {
	// constant once the workers run
	config  Config
	targets []target
	sources Sources
	slots   int // each worker's
	keys    keys
	begun   time.Time
	workers []*worker

	spares atomic.Int64 // combinations of Sources used beyond the first config.Conns

	// the coordinator's own
	ended  chan error // workers that have ended
	left   sync.WaitGroup
	phase  string
	result *Result

	reported time.Duration // when progress was last reported
}

// Progress is how far a run is.
type Progress struct {
	Phase     string
	Elapsed   time.Duration // since the run began
	Open      int           // connections open now
	Opening   int           // connections on their way
	Failed    int           // connections that could not be opened, or ended
	Received  int           // messages
	Connected int           // handshakes complete, ever
}

// pollEvery is how often the coordinator looks at the workers.
const pollEvery = 20 * time.Millisecond

// progressEvery is how often Config.Progress is told.
const progressEvery = 100 * time.Millisecond

// Run puts the load on the server and returns what came of it. An error means
// that it could not be done, not that connections failed: Result tells that.
// When ctx ends, Run closes its connections and returns what there is.
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

// phase is a part of a run.
type phase struct {
	name string
	do   func(context.Context) error
}

func (r *run) phases() []phase {
	phases := []phase{{"ramp", r.ramp}}
	if r.config.Hold > 0 {
		phases = append(phases, phase{"hold", r.hold})
	}
	if r.config.Broadcasts > 0 {
		phases = append(phases, phase{"broadcast", r.broadcasts})
	}
	if r.config.Active > 0 && r.config.Echo > 0 {
		phases = append(phases, phase{"echo", r.echo})
	}
	return phases
}

func newRun(ctx context.Context, config Config) (*run, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &run{config: config, begun: time.Now()}
	for _, url := range config.URLs {
		t, err := resolve(ctx, url)
		if err != nil {
			return nil, err
		}
		r.targets = append(r.targets, t)
	}
	if r.sources, err = chooseSources(config.Conns, config.Sources, r.targets); err != nil {
		return nil, err
	}
	if err := r.chooseWorkers(); err != nil {
		return nil, err
	}
	var seed [16]byte
	_, _ = rand.Read(seed[:]) // never fails
	r.keys = newKeys(seed)
	return r, nil
}

// descriptorsKept is how many descriptors of a table are left to everything
// that is not a connection.
const descriptorsKept = 64

// chooseWorkers settles how many workers there are and how many connections
// each can have.
func (r *run) chooseWorkers() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("loadgen: read RLIMIT_NOFILE: %w", err)
	}
	table := int(min(limit.Cur, math.MaxInt32)) - descriptorsKept
	conns, workers := r.config.Conns, r.config.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
		for r.config.Tables == netpoll.Private && workers*(table-workers) < conns && workers < conns {
			workers++
		}
	}
	room := table - 2*workers
	if r.config.Tables == netpoll.Private {
		room = workers * (table - workers)
	}
	if room < conns {
		return fmt.Errorf("loadgen: RLIMIT_NOFILE = %d allows %d workers with %s descriptor tables %d connections, not %d: raise it, or use private tables and more workers",
			limit.Cur, workers, r.config.Tables, room, conns)
	}
	r.config.Workers = workers
	r.slots = (conns + workers - 1) / workers
	return nil
}

func (r *run) start() error {
	for i := range r.config.Workers {
		w, err := newWorker(r, i)
		if err != nil {
			return err
		}
		r.workers = append(r.workers, w)
	}
	threads, err := netpoll.NewThreads(r.config.Tables, r.config.Workers)
	if err != nil {
		return err
	}
	if !threads.Private() {
		netpoll.Reserve(r.config.Conns)
	}
	r.ended = make(chan error, len(r.workers))
	for _, w := range r.workers {
		r.left.Add(1)
		err := threads.Start(func() {
			defer r.left.Done()
			r.ended <- w.loop()
		})
		if err != nil {
			r.left.Done()
			return errors.Join(err, r.finish())
		}
	}
	return nil
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

// await looks at the workers until done is true.
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

// failures are the ways in which a connection can fail to open, and to stay
// open.
var (
	openFailures = []Counter{Refused, Reset, TimedOut, Rejected, Failed}
	stayFailures = []Counter{Dropped, Closed, Broken, Stalled}
)

// open is the number of connections that are open.
func (r *run) open() int { return r.sum(Connected) - r.sum(stayFailures...) }

func (r *run) progress(now time.Duration) Progress {
	p := Progress{
		Phase:     r.phase,
		Elapsed:   now,
		Open:      r.open(),
		Failed:    r.sum(openFailures...) + r.sum(stayFailures...),
		Received:  r.sum(Received, Echoes),
		Connected: r.sum(Connected),
	}
	for _, w := range r.workers {
		p.Opening += int(w.public.opening.Load())
	}
	return p
}

// report lets the result and the caller know how far the run is.
func (r *run) report(p Progress) {
	r.result.Timeline = append(r.result.Timeline, Point{p.Elapsed.Seconds(), p.Open})
	if r.config.Progress != nil {
		r.config.Progress(p)
	}
}

// tell gives an order to a worker. It is never refused: a worker that has
// ended has told why.
func (w *worker) tell(o order) { _ = w.mail.Force(o, nil) }

// ramp opens the connections. As many workers as there are processors do so
// at a time: more would only take turns.
func (r *run) ramp(ctx context.Context) error {
	together := min(runtime.NumCPU(), len(r.workers))
	next := 0
	for ; next < together; next++ {
		r.workers[next].tell(r.share(next, together))
	}
	finished := 0
	return r.await(ctx, func(time.Duration) bool {
		for finished < next && r.rampDone(r.workers[finished]) {
			finished++
			if next < len(r.workers) {
				r.workers[next].tell(r.share(next, together))
				next++
			}
		}
		return finished == len(r.workers)
	})
}

// share is the part of the connections that worker i opens.
func (r *run) share(i, together int) order {
	from := i * r.slots
	return order{
		kind:  orderConnect,
		from:  from,
		count: min(r.slots, max(0, r.config.Conns-from)),
		rate:  r.config.Rate / float64(together),
	}
}

func (r *run) rampDone(w *worker) bool {
	done := 0
	for _, c := range append([]Counter{Connected}, openFailures...) {
		done += int(w.public.counts[c].Load())
	}
	return done >= r.share(w.index, 1).count
}

// hold lets the connections be.
func (r *run) hold(ctx context.Context) error { return r.wait(ctx, r.config.Hold) }

// wait lets time pass.
func (r *run) wait(ctx context.Context, d time.Duration) error {
	until := r.elapsed() + d
	return r.await(ctx, func(now time.Duration) bool { return now >= until })
}

// broadcasts sends them, each burst from one connection, and waits for the
// last receiver of each burst.
func (r *run) broadcasts(ctx context.Context) error {
	if r.config.Probe > 0 {
		p, err := r.startProbe(ctx)
		if err != nil {
			return err
		}
		felt := &Probe{}
		r.result.Probe = felt
		defer func() { felt.Busy = p.stop() }()
		if err := r.wait(ctx, probeIdle); err != nil {
			return err
		}
		felt.Idle = latency(p.take())
	}
	for number := 0; number < r.config.Broadcasts && r.open() > 0; {
		size := min(r.config.Burst, r.config.Broadcasts-number)
		if err := r.burst(ctx, number, size); err != nil {
			return err
		}
		number += size
	}
	return nil
}

// burst sends messages from one connection, as close together as it can, and
// waits for the last receiver.
func (r *run) burst(ctx context.Context, first, size int) error {
	r.collect()
	expected, before := r.open()*size, r.sum(Received)
	w := r.sender()
	meant := r.elapsed()
	for i := range size {
		w.tell(order{kind: orderBroadcast, number: uint32(first + i), meant: meant})
	}
	received, progressed := 0, meant
	err := r.await(ctx, func(now time.Duration) bool {
		if got := r.sum(Received) - before; got != received {
			received, progressed = got, now
		}
		return received >= expected || now-progressed > r.config.Patience
	})
	r.result.addBroadcast(r, meant, size, expected, received)
	return err
}

// sender chooses the worker that broadcasts: each in its turn, among those
// with open connections.
func (r *run) sender() *worker {
	n := len(r.result.Broadcasts)
	for i := range r.workers {
		w := r.workers[(n+i)%len(r.workers)]
		if w.public.used.Load() > 0 {
			return w
		}
	}
	return r.workers[0]
}

// echo keeps the active connections busy.
func (r *run) echo(ctx context.Context) error {
	r.collect()
	begun, before := r.elapsed(), r.sum(Echoes)
	end := begun + r.config.Echo
	share := (r.config.Active + len(r.workers) - 1) / len(r.workers)
	left := r.config.Active
	for _, w := range r.workers {
		n := min(share, left)
		left -= n
		w.tell(order{kind: orderEcho, count: n, deadline: end})
	}
	err := r.await(ctx, func(now time.Duration) bool { return now >= end })
	r.result.addEcho(r, r.elapsed()-begun, r.sum(Echoes)-before)
	return err
}

// collect gathers what the workers have measured since the last time.
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
		case <-time.After(r.config.Patience):
		}
	}
	r.result.addReport(all)
	return all
}

// closeTimeout is how long the connections may take to close.
const closeTimeout = 20 * time.Second

// finish closes all connections and ends the workers.
func (r *run) finish() error {
	var err error
	if r.result != nil {
		r.result.takeStock(r)
		err = r.do(context.Background(), phase{"close", r.close})
	}
	for _, w := range r.workers {
		w.tell(order{kind: orderEnd})
	}
	r.left.Wait()
	return err
}

// close closes the connections, and gives those up that do not close in time.
func (r *run) close(ctx context.Context) error {
	for _, w := range r.workers {
		w.tell(order{kind: orderClose})
	}
	until := r.elapsed() + closeTimeout
	return r.await(ctx, func(now time.Duration) bool {
		used := int64(0)
		for _, w := range r.workers {
			used += w.public.used.Load()
		}
		return used == 0 || now > until
	})
}
