package loadgen

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// endless is later than any run lasts, pauses included.
const endless = time.Duration(math.MaxInt64 / 2)

// ramp opens connections. At a rate, all workers open theirs at the same time, each its
// part of them. Without one, as many workers as there are processors do so; more would
// only compete. When a worker has called connect for all of its connections, the next
// worker starts. It does not wait for the answers, so a server that leaves a few
// unanswered does not delay the rest.
func (r *run) ramp(ctx context.Context, p *phase) error {
	orders := r.rampOrders(p)
	together := len(r.workers)
	if p.Rate == 0 {
		together = min(runtime.NumCPU(), len(r.workers))
	}
	next := 0
	start := func(n int) {
		for ; next < min(n, len(orders)); next++ {
			if o := orders[next]; o.count > 0 {
				o.rate = r.rate * r.rates[next]
				r.tell(r.workers[next], o)
			}
		}
	}
	start(together)
	if p.For > 0 {
		r.until = r.elapsed() + p.For
	}
	started, failed := 0, r.sum(measure.OpenFailures...)
	err := r.await(ctx, func(now time.Duration) bool {
		for started < next && r.rampStarted(started, orders[started].count) {
			started++
			start(together + started)
		}
		return started == len(orders) && r.opening() == 0 || p.For > 0 && now >= r.until || r.hopeless(r.sum(measure.OpenFailures...)-failed)
	})
	if err == nil && r.opening() > 0 { // the time is over, or there is no use
		err = r.halt(ctx)
	}
	for i, w := range r.workers[:next] {
		r.take(i, p.groups, min(orders[i].count, int(w.public.started.Load())))
	}
	if p.Rate > 0 && !r.rated && r.sum(measure.Held) == 0 {
		r.checkRamp(p)
	}
	return err
}

// hopelessAfter is after how many connections that failed a ramp ends, if nobody got in and few
// are under way.
const hopelessAfter = 100

// hopeless reports whether a ramp in which so many connections have failed has no use, and nobody
// connects later. Then the run ends early.
func (r *run) hopeless(failed int) bool {
	underWay := -failed
	for _, w := range r.workers {
		underWay += int(w.public.started.Load())
	}
	if failed < max(hopelessAfter, 10*underWay) || r.sum(measure.Connected, measure.HalfOpen) > 0 || r.comes(r.snap.PhaseIndex+1) {
		return false
	}
	r.early = r.whyNobody()
	return true
}

// rampOrders divides a ramp among the workers, each a part that is in proportion to what
// it has left.
func (r *run) rampOrders(p *phase) (orders []order) {
	left := make([]int, len(r.workers))
	all := 0
	for i := range r.workers {
		for g := range r.groups {
			if p.groups.has(uint8(g)) {
				left[i] += r.left[i][g].end - r.left[i][g].next
			}
		}
		all += left[i]
	}
	total := min(usersOr(p.Users), all)
	given, before := 0, 0
	r.rate, r.rates = p.Rate, make([]float64, len(r.workers))
	for i := range r.workers {
		before += left[i]
		count := total*before/max(1, all) - given
		given += count
		r.rates[i] = float64(count) / float64(max(1, total))
		orders = append(orders, order{kind: orderRamp, groups: p.groups, count: count})
	}
	return orders
}

// take takes count users of some groups off those that a worker has left.
func (r *run) take(worker int, groups groupSet, count int) {
	for range count {
		r.left[worker].next(groups) // which of them, the worker decides, in the same way
	}
}

// rampStarted reports whether a worker has called connect for count connections.
func (r *run) rampStarted(worker, count int) bool {
	w := r.workers[worker]
	return w.public.orders.Load() >= r.told[worker] && int(w.public.started.Load()) >= count || count == 0
}

// opening is how many connections are still to be opened for the first time.
func (r *run) opening() (n int) {
	for _, w := range r.workers {
		n += int(w.public.opening.Load())
	}
	return n
}

// limitedRate is by how much a generator may miss the wanted rate while the server
// keeps up, before it counts as the bottleneck.
const limitedRate = 0.05

// checkRamp checks whether workers called connect at the wanted rate. A server
// cannot delay that while as few connections are opening as may be.
func (r *run) checkRamp(p *phase) {
	for i, w := range r.workers {
		took := time.Duration(w.public.lastConnect.Load()).Seconds()
		started, rate := float64(w.public.started.Load()-1), p.Rate*r.rates[i] // the first is due at once
		if took > 1 && started < (1-limitedRate)*rate*took {
			r.limit("%s: worker %d started %.0f connections a second instead of %.0f", p.Name, i, started/took, rate)
		}
	}
}

func (r *run) limit(format string, args ...any) {
	r.limited = append(r.limited, fmt.Sprintf(format, args...))
}

// halt makes the phase begin no more.
func (r *run) halt(ctx context.Context) error {
	r.tellAll(order{kind: orderHalt})
	return r.await(ctx, func(time.Duration) bool { return r.read() })
}

// hold leaves the connections to their scripts. Those that are away at its end may come
// back, as long as some do.
func (r *run) hold(ctx context.Context, p *phase) error {
	if err := r.wait(ctx, p.For); err != nil {
		return err
	}
	return r.allBack(ctx, 0)
}

// allBack waits until all connections that will be opened again are, so many a second.
func (r *run) allBack(ctx context.Context, rate float64) error {
	return r.progress(ctx, r.patience(rate), func() int { return r.sum(measure.Returned) }, func() bool { return r.read() && r.away() == 0 })
}

// churn ends connections and opens each anew.
func (r *run) churn(ctx context.Context, p *phase) error {
	end := r.elapsed() + p.For
	r.rate, r.rates = p.Rate, r.shareOut(order{kind: orderChurn, groups: p.groups, end: end}, math.MaxInt, p.Rate)
	if err := r.wait(ctx, p.For); err != nil {
		return err
	}
	if err := r.halt(ctx); err != nil {
		return err
	}
	return r.allBack(ctx, 0)
}

// storm cuts connections off and has them opened again.
func (r *run) storm(ctx context.Context, p *phase) error {
	r.rate, r.rates = p.Rate, r.shareOut(order{kind: orderStorm, groups: p.groups}, usersOr(p.Users), p.Rate)
	return r.allBack(ctx, p.Rate)
}

// drain ends connections.
func (r *run) drain(ctx context.Context, p *phase) error {
	r.rate, r.rates = p.Rate, r.shareOut(order{kind: orderDrain, groups: p.groups, end: endless}, usersOr(p.Users), p.Rate)
	err := r.progress(ctx, r.patience(p.Rate), func() int { return r.sum(measure.Left) }, func() bool { return r.read() && r.ending() == 0 })
	if err != nil {
		return err
	}
	return r.halt(ctx) // those that are left stay
}

// ending is how many connections are still to be ended.
func (r *run) ending() (n int) {
	for _, w := range r.workers {
		n += int(w.public.ending.Load())
	}
	return n
}

// usersOr is how many users a phase acts on, which is all if it names no number.
func usersOr(users int) int {
	if users == 0 {
		return math.MaxInt
	}
	return users
}

// shareOut gives an order for count connections to the workers, each a part that is in
// proportion to its open connections, for a stream to those that have none yet. It
// returns which parts of the rate they have.
func (r *run) shareOut(o order, count int, rate float64) (parts []float64) {
	open, all := make([]int, len(r.workers)), 0
	for i, w := range r.workers {
		if open[i] = w.openIn(o.groups); o.kind == orderTalk {
			open[i] = max(0, open[i]-w.busyIn(o.groups))
		}
		all += open[i]
	}
	count = min(count, all)
	parts = make([]float64, len(r.workers))
	given, before := 0, 0
	for i, w := range r.workers {
		before += open[i]
		o.count = int(float64(count)*float64(before)/float64(max(1, all))) - given
		given += o.count
		if o.count > 0 {
			parts[i] = float64(o.count) / float64(count)
			o.rate = rate * parts[i]
			r.tell(w, o)
		}
	}
	return parts
}

// openIn is how many connections of some groups are open.
func (r *run) openIn(groups groupSet) (n int) {
	for _, w := range r.workers {
		n += w.openIn(groups)
	}
	return n
}

func (w *worker) openIn(groups groupSet) (n int) {
	for i := range w.run.groups {
		if groups.has(uint8(i)) {
			n += int(w.public.open[i].Load())
		}
	}
	return n
}

// busyIn is how many of these have a stream.
func (w *worker) busyIn(groups groupSet) (n int) {
	for i := range w.run.groups {
		if groups.has(uint8(i)) {
			n += int(w.public.busy[i].Load())
		}
	}
	return n
}

// taken is how many connections orders were for, ever.
func (r *run) taken() (n int) {
	for _, w := range r.workers {
		n += int(w.public.taken.Load())
	}
	return n
}

// finishScripts waits until all scripts of some groups have ended. Those that are away may come back and
// begin theirs anew, as long as some do.
func (r *run) finishScripts(ctx context.Context, p *phase) error {
	if p.For > 0 {
		r.until = r.elapsed() + p.For
	}
	returned := 0
	r.changed = r.elapsed()
	return r.await(ctx, func(now time.Duration) bool {
		busy := r.scripts(p.groups) > 0 || r.opening() > 0 || !r.read()
		if n := r.sum(measure.Returned); busy || n != returned {
			returned, r.changed = n, now
		}
		return !busy && (r.away() == 0 || now-r.changed > r.config.Patience) || r.late(p)
	})
}

// scripts is how many scripts of some groups have not ended.
func (r *run) scripts(groups groupSet) (n int) {
	for _, w := range r.workers {
		for i := range r.groups {
			if groups.has(uint8(i)) {
				n += int(w.public.scripts[i].Load())
			}
		}
	}
	return n
}

// probed returns the phase with a probe beside it, in the first phase that asks for one.
func (r *run) probed(carryOut func(context.Context, *phase) error) func(context.Context, *phase) error {
	return func(ctx context.Context, p *phase) error {
		if p.Probe == 0 || r.probes {
			return carryOut(ctx, p)
		}
		r.probes = true
		probe, err := r.startProbe(ctx, p.Probe)
		if err != nil {
			return err
		}
		if err := r.wait(ctx, probeIdle); err != nil {
			probe.stop()
			return err
		}
		idle := probe.take()
		err = carryOut(ctx, p)
		r.builder.Probe(idle, probe.stop())
		return err
	}
}

// talk makes users send and receive answers. At the end it waits for the last answers.
func (r *run) talk(ctx context.Context, p *phase) error {
	r.collect()
	r.builder.Part()
	begun, before := r.elapsed(), r.sum(measure.Echoes, measure.Answered)
	sum := result.Talk{}
	r.starting, r.rates = true, make([]float64, len(r.workers))
	for i := range p.streams {
		taken, err := r.startStream(ctx, &p.streams[i], p.For)
		if err != nil {
			return err
		}
		if p.streams[i].Window == 0 {
			sum.Flooding += taken
		} else {
			sum.Active += taken
		}
	}
	r.starting, r.until = false, r.elapsed()+p.For // a worker may have had to wait for its processor
	err := r.await(ctx, func(now time.Duration) bool { return now >= r.until || r.deserted() })
	sum.Took, sum.Messages = r.elapsed()-begun, r.sum(measure.Echoes, measure.Answered)-before
	if err == nil {
		err = r.halt(ctx)
	}
	if err == nil {
		err = r.progress(ctx, r.config.Patience, r.owed, func() bool { return r.owed() == 0 })
	}
	r.collect()
	r.builder.Talk(sum)
	if err == nil {
		err = r.wait(ctx, settle)
	}
	return err
}

// owed is how many messages of streams should still be answered.
func (r *run) owed() (n int) {
	for _, w := range r.workers {
		n += int(w.public.owed.Load())
	}
	return n
}

// startStream gives a stream to users, and returns to how many. A rate that Control sets is
// that of all streams together.
func (r *run) startStream(ctx context.Context, s *talkers, lasts time.Duration) (taken int, err error) {
	before := r.taken()
	parts := r.shareOut(order{kind: orderTalk, groups: s.groups, message: s.message, window: s.Window, lasts: lasts}, usersOr(s.Users), s.Rate)
	err = r.await(ctx, func(time.Duration) bool { return r.read() })
	if sum := r.rate + s.Rate; s.Rate > 0 {
		for i := range parts {
			r.rates[i] = (r.rates[i]*r.rate + parts[i]*s.Rate) / sum
		}
		r.rate = sum
	}
	return r.taken() - before, err
}

// settle is how long messages that should not come have to come, after the last that
// should.
const settle = 100 * time.Millisecond

// closeTimeout is how long the connections may take to close.
const closeTimeout = 20 * time.Second

// close closes the connections. It stops waiting for them after closeTimeout.
func (r *run) close(ctx context.Context) error {
	r.tellAll(order{kind: orderClose})
	until := r.elapsed() + closeTimeout
	return r.await(ctx, func(now time.Duration) bool {
		used := int64(0)
		for _, w := range r.workers {
			used += w.public.used.Load()
		}
		return used == 0 || now > until
	})
}
