package tsung

import (
	"fmt"
	"strconv"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// timeline lays the plan's phases, one after the other.
type timeline struct {
	*translation
	end    time.Duration // tsung stops everything then; 0 is never
	groups [][]string    // of each arrival
	now    time.Duration // when the next phase begins, if all goes as planned
	names  map[string]int
	opened bool // somebody has connected
}

// lay makes a Ramp of each arrival. Where users of starts come, it is cut in two.
func (l *timeline) lay(arrivals []arrival, starts []start) {
	for i := range arrivals {
		a, begin, done := &arrivals[i], l.now, 0
		for len(starts) > 0 && starts[0].after < begin+a.length {
			users := min(a.users, int(a.rate*(starts[0].after-begin).Seconds()))
			l.ramp(a, l.groups[i], users-done, starts[0].after-l.now)
			l.start(starts[0])
			done, starts = users, starts[1:]
		}
		l.ramp(a, l.groups[i], a.users-done, begin+a.length-l.now)
		if a.waits && l.opened {
			l.phase(plan.Phase{Name: a.name + " ends", Kind: plan.Finish, For: l.left(), Line: a.at.line})
		}
	}
	for _, s := range starts {
		l.hold("wait", s.at, s.after-l.now)
		l.start(s)
	}
}

// ramp lets users of an arrival connect, for a time.
func (l *timeline) ramp(a *arrival, groups []string, users int, length time.Duration) {
	if users > 0 {
		l.phase(plan.Phase{Name: a.name, Kind: plan.Ramp, Groups: groups, Users: users, Rate: a.rate, For: max(length, plan.TimeMin), Line: a.at.line})
		spent := time.Duration(min(float64(users)/a.rate, length.Seconds()) * float64(time.Second))
		l.now += spent
		length -= spent
	}
	l.hold(a.name+" waits", a.at, length)
}

// hold lets time pass.
func (l *timeline) hold(name string, at *element, length time.Duration) {
	if length >= plan.TimeMin {
		l.phase(plan.Phase{Name: name, Kind: plan.Hold, For: length, Line: at.line})
	}
	l.now += max(0, length)
}

// start lets users connect at once.
func (l *timeline) start(s start) {
	l.phase(plan.Phase{Name: fmt.Sprintf("start at %v", s.after), Kind: plan.Ramp, Groups: []string{s.group}, Users: s.users, Line: s.at.line})
}

// finish ends the plan: when all have left, or at the end that the file sets. Users that stay
// are waited for only where it sets one.
func (l *timeline) finish() {
	// tsung waits for nothing after the last arrival but for the users.
	for n := len(l.plan.Phases); n > 0 && l.plan.Phases[n-1].Kind == plan.Hold; n-- {
		l.now -= l.plan.Phases[n-1].For
		l.plan.Phases = l.plan.Phases[:n-1]
	}
	last := plan.Phase{Name: "end", Kind: plan.Finish, For: l.left()}
	if l.end > 0 && l.stay {
		last.Kind = plan.Hold
	}
	if l.end == 0 || last.For > 0 {
		l.phase(last)
	}
}

// left is the time until tsung stops everything. It is 0 if it never does, or if there is
// none left.
func (l *timeline) left() time.Duration {
	if left := l.end - l.now; left >= plan.TimeMin {
		return left
	}
	return 0
}

// phase adds a phase, with a name that no other has.
func (l *timeline) phase(p plan.Phase) {
	if l.names == nil {
		l.names = map[string]int{}
	}
	if l.names[p.Name]++; l.names[p.Name] > 1 {
		p.Name += ", part " + strconv.Itoa(l.names[p.Name])
	}
	l.opened = l.opened || p.Kind == plan.Ramp
	l.plan.Phases = append(l.plan.Phases, p)
}
