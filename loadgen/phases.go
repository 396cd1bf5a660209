package loadgen

import (
	"context"
	"runtime"
	"slices"
	"time"
)

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
		phases = append(phases, phase{"broadcast", r.probed(r.broadcasts)})
	}
	if r.config.Active+r.config.Flood > 0 && r.config.Echo > 0 {
		phases = append(phases, phase{"echo", r.probed(r.echo)})
	}
	return phases
}

// ramp opens the connections. As many workers as there are processors open theirs
// at the same time; more would only compete. When a worker has called connect for
// all of its connections, the next worker starts. It does not wait for the
// answers, so a server that leaves a few unanswered does not delay the rest.
func (r *run) ramp(ctx context.Context) error {
	together := min(runtime.NumCPU(), len(r.workers))
	next := 0
	for ; next < together; next++ {
		r.workers[next].tell(r.share(next, together))
	}
	started, finished := 0, 0
	return r.await(ctx, func(time.Duration) bool {
		for started < next && r.rampStarted(r.workers[started]) {
			started++
			if next < len(r.workers) {
				r.workers[next].tell(r.share(next, together))
				next++
			}
		}
		for finished < started && r.rampDone(r.workers[finished]) {
			finished++
		}
		return finished == len(r.workers)
	})
}

// rampStarted reports whether w has called connect for all of its connections.
func (r *run) rampStarted(w *worker) bool {
	return int(w.public.started.Load()) >= r.share(w.index, 1).count
}

// share is the order to worker i to open its part of the connections. together is how
// many workers share the rate.
func (r *run) share(i, together int) order {
	from := i * r.slots
	return order{
		kind:  orderConnect,
		from:  from,
		count: min(r.slots, max(0, r.config.Conns-from)),
		rate:  r.config.Rate / float64(together),
	}
}

// rampDone reports whether all of w's connections are open or have failed.
func (r *run) rampDone(w *worker) bool {
	done := 0
	for _, c := range append([]Counter{Connected}, openFailures...) {
		done += int(w.public.counts[c].Load())
	}
	done -= int(w.public.counts[Returned].Load())
	return done >= r.share(w.index, 1).count
}

// hold leaves the connections idle. Those that are away at its end may come back, as
// long as some do.
func (r *run) hold(ctx context.Context) error {
	if err := r.wait(ctx, r.config.Hold); err != nil || !r.config.Reconnect {
		return err
	}
	returned, progressed := -1, time.Duration(0)
	return r.await(ctx, func(now time.Duration) bool {
		if n := r.sum(Returned); n != returned {
			returned, progressed = n, now
		}
		return r.sum(stayFailures...) <= returned || now-progressed > r.config.Patience
	})
}

// wait lets time pass.
func (r *run) wait(ctx context.Context, d time.Duration) error {
	until := r.elapsed() + d
	return r.await(ctx, func(now time.Duration) bool { return now >= until })
}

// probed returns the phase with a probe beside it, in the first phase that asks
// for one.
func (r *run) probed(phase func(context.Context) error) func(context.Context) error {
	if r.config.Probe == 0 || r.result.Probe != nil {
		return phase
	}
	result := &Probe{}
	r.result.Probe = result
	return func(ctx context.Context) error {
		p, err := r.startProbe(ctx)
		if err != nil {
			r.result.Probe = nil
			return err
		}
		defer func() { result.Busy = p.stop() }()
		if err := r.wait(ctx, probeIdle); err != nil {
			return err
		}
		result.Idle = latency(p.take())
		return phase(ctx)
	}
}

// broadcasts sends all broadcasts, each burst from one connection, and waits for
// each burst's last receiver. At the end the deaf connections read again.
func (r *run) broadcasts(ctx context.Context) error {
	r.shareOut(order{kind: orderDeafen, count: r.config.Deaf}, 0)
	for number := 0; number < r.config.Broadcasts && r.open() > 0; {
		size := min(r.config.Burst, r.config.Broadcasts-number)
		if err := r.burst(ctx, number, size); err != nil {
			return err
		}
		number += size
	}
	if r.config.Deaf == 0 {
		return r.wait(ctx, settle)
	}
	// The server may still be sending to the deaf connections.
	if err := r.wait(ctx, deafPatience); err != nil {
		return err
	}
	for _, w := range r.workers {
		w.tell(order{kind: orderUndeafen})
	}
	received, progressed := -1, time.Duration(0)
	return r.await(ctx, func(now time.Duration) bool {
		if got := r.sum(DeafReceived, DeafEnded); got != received {
			received, progressed = got, now
		}
		return now-progressed > deafPatience
	})
}

// deafPatience is how long connections stay deaf after the last broadcast. When
// they have then received nothing for this long, they have received everything.
const deafPatience = 2 * time.Second

// reading is how many connections are open and not deaf.
func (r *run) reading() int { return r.open() - (r.config.Deaf - r.sum(DeafEnded)) }

// shareOut divides an order's connections and rate among the workers.
func (r *run) shareOut(o order, rate float64) {
	total, left := o.count, o.count
	for i, w := range slices.Backward(r.workers) { // the last have the fewest connections
		o.count = min(w.open(), (left+i)/(i+1))
		left -= o.count
		if o.count > 0 {
			o.rate = rate * float64(o.count) / float64(total)
			w.tell(o)
		}
	}
}

// burst sends messages from one connection, as close together as it can, and
// waits for the last receiver.
func (r *run) burst(ctx context.Context, first, size int) error {
	r.collect()
	expected, before := r.reading()*size, r.sum(Received)
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

// sender chooses the worker that sends the next burst: one after the other, among
// those with connections.
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

// echo makes the active connections send and wait for the echoes, and the
// flooding ones send without waiting. At the end it waits for the last answers.
func (r *run) echo(ctx context.Context) error {
	r.collect()
	begun, before := r.elapsed(), r.sum(Echoes, Answered)
	end := begun + r.config.Echo
	r.shareOut(order{kind: orderEcho, count: r.config.Active, deadline: end}, r.config.Pace)
	r.shareOut(order{kind: orderFlood, count: r.config.Flood, deadline: end}, r.config.FloodRate)
	err := r.await(ctx, func(now time.Duration) bool { return now >= end })
	took, messages := r.elapsed()-begun, r.sum(Echoes, Answered)-before
	if err == nil {
		got, progressed := 0, end
		err = r.await(ctx, func(now time.Duration) bool {
			if n := r.sum(Echoes, Answered, Abandoned); n != got {
				got, progressed = n, now
			}
			return got >= r.sum(Asked, Flooded) || now-progressed > r.config.Patience
		})
	}
	r.result.addEcho(r, took, messages)
	if err == nil {
		err = r.wait(ctx, settle)
	}
	return err
}

// settle is how long messages that should not come have to come, after the last that
// should.
const settle = 100 * time.Millisecond

// closeTimeout is how long the connections may take to close.
const closeTimeout = 20 * time.Second

// close closes the connections. It stops waiting for them after closeTimeout.
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
