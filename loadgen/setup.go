package loadgen

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/netpoll"
)

// newID makes a run's id.
var newID = func() uint16 { return uint16(mathrand.Uint32()) }

func newRun(ctx context.Context, config Config) (*run, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &run{config: config, plan: config.Plan, begun: config.Begin, id: config.RunID, random: mathrand.Uint64()}
	if r.begun.IsZero() {
		r.begun = time.Now()
	}
	if r.id == 0 {
		r.id = newID()
	}
	if err := r.newGroups(ctx); err != nil {
		return nil, err
	}
	r.compilePhases()
	if err := r.chooseWorkers(netpoll.Processors()); err != nil {
		return nil, err
	}
	var seed [16]byte
	_, _ = rand.Read(seed[:]) // never fails
	r.keys = newKeys(seed)
	return r, nil
}

// phase is a plan's phase, prepared.
type phase struct {
	*plan.Phase
	groups  groupSet
	message *message
	streams []talkers
}

// talkers is a plan's stream, prepared.
type talkers struct {
	*plan.Stream
	groups  groupSet
	message *message
}

// compilePhases prepares the phases, and finds the largest message and the most users that
// talk at a time.
func (r *run) compilePhases() {
	for _, g := range r.groups {
		if len(g.script) > 0 {
			r.talkers += g.Users
		}
		for _, i := range g.script {
			if i.message != nil {
				r.largest = max(r.largest, i.message.Size)
			}
		}
	}
	scripted := r.talkers
	for i := range r.plan.Phases {
		p := &r.plan.Phases[i]
		ph := phase{Phase: p, groups: r.groupsNamed(p.Groups), message: r.compileMessage(&p.Message)}
		r.largest = max(r.largest, ph.message.Size)
		talking := scripted
		for j := range p.Streams {
			s := &p.Streams[j]
			t := talkers{Stream: s, groups: r.talkersNamed(s.Groups), message: r.compileMessage(&s.Message)}
			if ph.streams = append(ph.streams, t); s.Users == 0 {
				talking += r.usersOf(t.groups)
			}
			talking += s.Users
			r.largest = max(r.largest, t.message.Size)
		}
		r.talkers = max(r.talkers, talking)
		r.phases = append(r.phases, ph)
	}
}

// groupsNamed is the set of the groups with these names; all, if there are none.
func (r *run) groupsNamed(names []string) (s groupSet) {
	for _, g := range r.groups {
		if len(names) == 0 {
			s |= 1 << g.index
		}
		for _, name := range names {
			if g.Name == name {
				s |= 1 << g.index
			}
		}
	}
	return s
}

// talkersNamed is the set of the groups with these names; if there are none, of all that are
// neither half-open nor have a script.
func (r *run) talkersNamed(names []string) (s groupSet) {
	s = r.groupsNamed(names)
	for _, g := range r.groups {
		if g.HalfOpen || len(g.script) > 0 {
			s &^= 1 << g.index
		}
	}
	return s
}

// usersOf is how many users some groups have.
func (r *run) usersOf(groups groupSet) (n int) {
	for _, g := range r.groups {
		if groups.has(g.index) {
			n += g.Users
		}
	}
	return n
}

// span is the part of a group's users that are a worker's.
func (r *run) span(worker, group int) span {
	users, workers := r.groups[group].Users, r.config.Workers
	from, to := users*worker/workers, users*(worker+1)/workers
	return span{next: from, end: to, size: users}
}

// chooseWorkers decides how many workers there are and how many connections each
// can have. Unless the number is configured, there is one for each processor, or
// more if so many connections need more private tables.
func (r *run) chooseWorkers(processors int) error {
	table, err := netpoll.DescriptorLimit()
	if err != nil {
		return fmt.Errorf("loadgen: %w", err)
	}
	conns, workers := r.plan.Users(), r.config.Workers
	if workers == 0 {
		workers = netpoll.ReactorsFor(r.config.Tables, table, conns, 0, processors)
	}
	if room := netpoll.Room(r.config.Tables, table, workers, 0); room < conns {
		return fmt.Errorf("loadgen: with RLIMIT_NOFILE = %d, %d workers with %s descriptor tables can have %d connections, not %d: raise the limit, or use private tables and more workers",
			table, workers, r.config.Tables, room, conns)
	}
	r.config.Workers = workers
	for w := range workers { // the groups' parts are rounded each by itself
		n := 0
		for g := range r.groups {
			s := r.span(w, g)
			n += s.end - s.next
		}
		r.slots = max(r.slots, n)
	}
	return nil
}

func (r *run) start() error {
	for i := range r.config.Workers {
		w, err := newWorker(r, i)
		if err != nil {
			return err
		}
		r.workers = append(r.workers, w)
		r.left = append(r.left, slices.Clone(w.spans))
	}
	r.builder = result.NewBuilder(r.about())
	threads, err := netpoll.NewThreads(r.config.Tables, r.config.Workers)
	if err != nil {
		return err
	}
	if !threads.Private() {
		netpoll.Reserve(r.plan.Users())
	}
	r.told = make([]int64, len(r.workers))
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
