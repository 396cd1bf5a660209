package loadgen

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/seed-134acfd0/lull/netpoll"
)

// newID makes a run's id.
var newID = func() uint16 { return uint16(mathrand.Uint32()) }

func newRun(ctx context.Context, config Config) (*run, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &run{config: config, begun: time.Now()}
	for _, url := range config.URLs {
		t, err := config.resolve(ctx, url)
		if err != nil {
			return nil, err
		}
		r.targets = append(r.targets, t)
	}
	if r.sources, err = chooseSources(config.Conns, config.Sources, r.targets); err != nil {
		return nil, err
	}
	if err := r.chooseWorkers(netpoll.Processors()); err != nil {
		return nil, err
	}
	var seed [16]byte
	_, _ = rand.Read(seed[:]) // never fails
	r.keys = newKeys(seed)
	r.id = newID()
	return r, nil
}

// chooseWorkers decides how many workers there are and how many connections each
// can have. Unless the number is configured, there is one for each processor, or
// more if so many connections need more private tables.
func (r *run) chooseWorkers(processors int) error {
	table, err := netpoll.DescriptorLimit()
	if err != nil {
		return fmt.Errorf("loadgen: %w", err)
	}
	conns, workers := r.config.Conns, r.config.Workers
	if workers == 0 {
		workers = netpoll.ReactorsFor(r.config.Tables, table, conns, 0, processors)
	}
	if room := netpoll.Room(r.config.Tables, table, workers, 0); room < conns {
		return fmt.Errorf("loadgen: with RLIMIT_NOFILE = %d, %d workers with %s descriptor tables can have %d connections, not %d: raise the limit, or use private tables and more workers",
			table, workers, r.config.Tables, room, conns)
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
		r.running.Add(1)
		err := threads.Start(func() {
			defer r.running.Done()
			r.ended <- w.loop()
		})
		if err != nil {
			r.running.Done()
			return errors.Join(err, r.finish())
		}
	}
	return nil
}
