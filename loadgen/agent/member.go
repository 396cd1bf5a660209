package agent

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// member is an agent in a run, as its coordinator knows it.
type member struct {
	Machine
	label string // its name, which no other member has
	clock Clock
	drift *time.Duration // of its clock during the run; nil if it was not measured
	share plan.Share

	heard   time.Time // when it last reported
	number  uint64    // of that report
	batch   uint64    // the last one that was counted
	waiting int       // the phase at whose barrier it waits, or -1

	latest *measure.Snapshot  // without times; nil before the first
	fresh  measure.Histograms // timed since the last merged snapshot
	all    measure.Histograms // timed since the run began

	before     measure.Counts // when the phase began
	due        int            // messages that it should receive in the phase
	unreceived int            // those of earlier phases that it did not receive

	whole  whole          // the result, as far as it has come
	result *result.Result // nil until all of it has come
	lost   string         // why it takes no part any more, or empty
}

func newMember(m Machine, now time.Time) *member {
	return &member{Machine: m, label: m.Name, heard: now, waiting: -1, whole: whole{max: resultMax}}
}

// ended reports whether nothing more is expected of it.
func (m *member) ended() bool { return m.result != nil || m.lost != "" }

// limitedMax is how many sentences of a member's are passed on.
const limitedMax = 20

// take adds a report. An error means that the member can take no part any more.
func (m *member) take(r *report, now time.Time) error {
	m.heard = now
	if r.Number <= m.number {
		return nil // a later one came before
	}
	m.number, m.waiting = r.Number, r.Waiting
	if s := r.Snapshot; s != nil {
		if r.Batch > m.batch {
			m.fresh.Merge(&s.Times)
			m.all.Merge(&s.Times)
			m.batch = r.Batch
		}
		s.Times = measure.Histograms{}
		m.latest = m.clean(s)
	}
	if r.Error != "" {
		return fmt.Errorf("its run has failed: %s", printableText(r.Error))
	}
	if r.Part == nil {
		return nil
	}
	if err := m.whole.add(*r.Part); err != nil || !m.whole.done {
		return err
	}
	var err error
	m.result, err = result.Read(bytes.NewReader(m.whole.bytes))
	m.whole.bytes = nil
	return err
}

// clean makes a snapshot's texts fit for a terminal, and names their machine.
func (m *member) clean(s *measure.Snapshot) *measure.Snapshot {
	s.Limited = s.Limited[:min(len(s.Limited), limitedMax)]
	for i, text := range s.Limited {
		s.Limited[i] = m.label + ": " + printableText(text)
	}
	for i := range s.Errors {
		s.Errors[i].Text = printableText(s.Errors[i].Text)
	}
	return s
}

// counts are what it has counted. The connections of a member that is lost count as
// vanished.
func (m *member) counts() (c measure.Counts) {
	if m.latest == nil {
		return c
	}
	c = m.latest.Counts
	if m.lost != "" {
		c[measure.Vanished] += uint64(max(0, c.Open()))
	}
	return c
}

// part is its part of a phase of the plan.
func (m *member) part(phase int) *plan.Phase { return &m.share.Plan.Phases[phase] }

// begin notes that a phase begins, of which p is the member's part.
func (m *member) begin(p *plan.Phase) {
	m.unreceived, m.due = m.missing(), 0
	if m.latest == nil {
		return
	}
	m.before = m.latest.Counts
	if p.Kind == plan.Publish {
		users := 0
		for _, g := range m.share.Plan.Groups {
			if len(p.Groups) == 0 || slices.Contains(p.Groups, g.Name) {
				users += g.Users
			}
		}
		m.due = max(0, min(users, m.latest.Open)-p.Deaf) * p.Count
	}
}

// missing is how many published messages it should have received and has not.
func (m *member) missing() int {
	if m.latest == nil {
		return m.unreceived
	}
	got := m.latest.Counts.Sub(&m.before)
	return m.unreceived + max(0, m.due-int(got[measure.Received]))
}

// label gives members with the same name different labels.
func label(members []*member) {
	var seen []string
	for _, m := range members {
		m.label = m.Name
		for i := 2; slices.Contains(seen, m.label); i++ {
			m.label = fmt.Sprintf("%s-%d", m.Name, i)
		}
		seen = append(seen, m.label)
	}
}
