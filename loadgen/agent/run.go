package agent

import (
	"fmt"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// agentPatience is how long nothing may be heard of an agent before it is lost. It
// reports once a second.
const agentPatience = 5 * time.Second

// lead is how much earlier than a phase begins the agents are told when, beside the
// longest round trip to one of them.
const lead = 50 * time.Millisecond

// publishLead is how much later than the others the member begins that publishes, beside the
// longest round trip, so that all expect its messages when they come.
const publishLead = 250 * time.Millisecond

// run is what a coordinator knows of a run, and what it wants of the members. It belongs
// to the coordinator's goroutine, and does no input or output.
type run struct {
	name    string
	plan    *plan.Plan
	members []*member

	number uint64    // of the orders; each change makes new ones
	begin  time.Time // zero until all members have their job
	phase  int       // the last one that may begin, or -1
	at     time.Time // when it begins
	// publisher is the ID of the member that publishes in it, or empty.
	publisher  string
	publishers map[int]string // of the phases until now
	paused     bool
	rate       float64
	rates      int // how often the rate was changed
	stop       bool
	over       string // why the run is over for all, or empty
}

func newRun(name string, p *plan.Plan, members []*member) *run {
	return &run{name: name, plan: p, members: members, number: 1, phase: -1, publishers: map[int]string{}}
}

// changed makes new orders.
func (r *run) changed() { r.number++ }

// find returns a member, or nil.
func (r *run) find(id string) *member {
	for _, m := range r.members {
		if m.ID == id {
			return m
		}
	}
	return nil
}

// working lists the members that have not ended.
func (r *run) working() (those []*member) {
	for _, m := range r.members {
		if !m.ended() {
			those = append(those, m)
		}
	}
	return those
}

// start lets the run begin.
func (r *run) start(now time.Time) {
	r.begin = now.Add(r.lead())
	r.changed()
}

func (r *run) lead() time.Duration {
	trip := time.Duration(0)
	for _, m := range r.working() {
		trip = max(trip, m.clock.Trip)
	}
	return trip + lead
}

// ready reports whether all members wait for the next phase.
func (r *run) ready() bool {
	working := r.working()
	for _, m := range working {
		if m.waiting != r.phase+1 {
			return false
		}
	}
	return len(working) > 0
}

// advance lets the next phase begin.
func (r *run) advance(now time.Time) {
	r.phase++
	r.publisher = ""
	if r.phase < len(r.plan.Phases) {
		for _, m := range r.working() {
			m.begin(m.part(r.phase))
		}
		r.choosePublisher()
		r.publishers[r.phase] = r.publisher
	}
	r.at = now.Add(r.lead())
	r.changed()
}

// choosePublisher makes another member publish in the phase that begins, if the one that
// was to do so is lost: the one with most users.
func (r *run) choosePublisher() {
	var best *member
	for _, m := range r.working() {
		switch p := m.part(r.phase); {
		case p.Kind != plan.Publish:
		case !p.Listen:
			r.publisher = m.ID
			return
		case best == nil || m.share.Users > best.share.Users:
			best = m
		}
	}
	if best != nil {
		best.part(r.phase).Listen = false
		r.publisher = best.ID
	}
}

// phaseName is the name of the phase that may have begun.
func (r *run) phaseName() string {
	if r.phase < len(r.plan.Phases) {
		return r.plan.Phases[r.phase].Name
	}
	return "close"
}

// lose takes a member out of the run.
func (r *run) lose(m *member, why string) {
	m.lost = why
	r.changed()
}

// silent lists the members that have not ended, and of which nothing was heard for too
// long.
func (r *run) silent(now time.Time) (those []*member) {
	for _, m := range r.working() {
		if now.Sub(m.heard) > agentPatience {
			those = append(those, m)
		}
	}
	return those
}

// orders are what is wanted of a member.
func (r *run) orders(m *member) orders {
	o := orders{Run: r.name, Number: r.number, Go: r.phase, Publisher: r.publisher, Paused: r.paused, Stop: r.stop, Over: r.over}
	if m == nil {
		o.Over = "this agent is not among those of the run"
		return o
	}
	if !r.begin.IsZero() {
		o.Begin = m.clock.show(r.begin)
	}
	if r.phase >= 0 {
		at := r.at
		if m.ID == r.publisher {
			at = at.Add(r.lead() + publishLead)
		}
		o.At = m.clock.show(at)
	}
	if publisher := r.find(r.publisher); publisher != nil {
		o.Orphaned = publisher.ended()
	}
	if part := r.rateOf(m); part > 0 {
		o.Rate, o.Rates = r.rate*part, r.rates
	} else {
		o.Rate, o.Rates = rateOfOthers, r.rates
	}
	if m.lost != "" {
		o.Over = "the coordinator goes on without this agent: " + m.lost
	}
	return o
}

// rateOf is a member's part of the rate of the phase that goes on.
func (r *run) rateOf(m *member) float64 {
	if r.phase < 0 || r.phase >= len(r.plan.Phases) {
		return 0
	}
	whole, own := &r.plan.Phases[r.phase], m.part(r.phase)
	switch {
	case own.Kind != whole.Kind || own.Listen:
		return 0
	case whole.Kind == plan.Publish:
		return 1
	case whole.Rate > 0:
		return own.Rate / whole.Rate
	}
	if all, rate := streams(whole), streams(own); all > 0 {
		return rate / all
	}
	return float64(m.share.Users) / float64(max(1, r.plan.Users()))
}

// streams is the rate of a phase's streams together.
func streams(p *plan.Phase) (rate float64) {
	for _, s := range p.Streams {
		rate += s.Rate
	}
	return rate
}

// snapshot is what all members know together. It takes what was timed since the last one.
func (r *run) snapshot(now time.Time) *measure.Snapshot {
	s := &measure.Snapshot{At: max(0, now.Sub(r.begin)), PhaseIndex: r.phase, PhaseCount: len(r.plan.Phases), Phase: r.phaseName(), Paused: r.paused}
	var errors measure.Errors
	cores := 0
	for _, m := range r.members {
		s.Users += m.share.Users
		cores += m.Cores
		counts := m.counts()
		s.Counts.Add(&counts)
		times := m.fresh.Take()
		s.Times.Merge(&times)
		if m.lost != "" {
			s.Limited = append(s.Limited, m.obituary())
			errors.Add(measure.Error{Counter: measure.Vanished.String(), Phase: s.Phase, Text: m.label + " was lost: " + m.lost}, int(counts[measure.Vanished]))
		}
		if m.latest == nil {
			continue
		}
		s.Limited = append(s.Limited, m.latest.Limited...)
		errors.Merge(m.latest.Errors)
		if m.lost == "" {
			s.Open += m.latest.Open
			s.Opening += m.latest.Opening
			s.Expected = max(s.Expected, m.latest.Expected)
			s.CPU += m.latest.CPU * float64(m.Cores)
			s.Busy += m.latest.Busy * float64(m.Cores)
		}
	}
	s.CPU /= float64(max(1, cores))
	s.Busy /= float64(max(1, cores))
	s.Errors = errors.List()
	return s
}

// obituary says what it means that a member was lost.
func (m *member) obituary() string {
	return fmt.Sprintf("agent %s was lost, so its %d users count as lost: %s", m.label, m.share.Users, m.lost)
}

// done reports whether nothing more is expected of any member.
func (r *run) done() bool { return len(r.working()) == 0 }
