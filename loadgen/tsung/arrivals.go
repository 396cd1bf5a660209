package tsung

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// arrival is an arrival phase.
type arrival struct {
	name   string
	at     *element
	number int
	length time.Duration
	users  int
	rate   float64   // users a second
	shares []float64 // of each session
	waits  bool      // at its end, until all users have left
}

// load translates how users arrive. room is how many the clients hold.
func (t *translation) load(e *element, sessions []session, room int) {
	arrivals := t.arrivals(e, sessions)
	starts := t.starts(e, sessions)
	if t.err != nil {
		return
	}
	end := t.span(e, "duration")
	if end > 0 {
		starts = t.cut(e, arrivals, starts, end)
	}
	t.bound(arrivals, sessions, room)
	line := timeline{translation: t, end: end, groups: t.groups(arrivals, sessions)}
	t.startGroups(starts, sessions)
	line.lay(arrivals, starts)
	line.finish()
	if len(t.plan.Groups) == 0 {
		t.fail(e, "nobody arrives")
	}
	if n := len(t.plan.Phases); n > plan.PhasesMax {
		t.fail(e, "it makes %d phases, more than %d", n, plan.PhasesMax)
	}
	if n := t.plan.Users(); n > plan.UsersMax {
		t.fail(e, "%d users arrive, more than %d", n, plan.UsersMax)
	}
}

// cut leaves out what comes after end.
func (t *translation) cut(e *element, arrivals []arrival, starts []start, end time.Duration) []start {
	left, late := end, 0
	for i := range arrivals {
		a := &arrivals[i]
		if a.length > left {
			in := min(a.users, int(math.Round(a.rate*left.Seconds())))
			late += a.users - in
			a.users, a.length, a.waits = in, left, false
		}
		left -= a.length
	}
	kept := slices.DeleteFunc(starts, func(s start) bool {
		if s.after >= end {
			late += s.users
		}
		return s.after >= end
	})
	if late > 0 {
		t.note(e, "%d users are left out: they would arrive when the load's duration is over", late)
	}
	return kept
}

// bound leaves out users who find no room, where nobody leaves and makes some.
func (t *translation) bound(arrivals []arrival, sessions []session, room int) {
	if room == 0 || slices.ContainsFunc(sessions, func(s session) bool { return !s.other && !s.stays }) {
		return
	}
	left := max(1, int(math.Round(float64(room)*t.factor)))
	for i := range arrivals {
		if a := &arrivals[i]; a.users > left {
			t.note(a.at, "%d of %d users arrive: the clients' maxusers leave no room for more, and nobody leaves", left, a.users)
			a.users = left
		}
		left -= arrivals[i].users
	}
}

// arrivals are the arrival phases in the order of their numbers, as often as they are repeated.
func (t *translation) arrivals(e *element, sessions []session) (list []arrival) {
	for _, phase := range e.all("arrivalphase") {
		list = append(list, t.arrival(phase, sessions))
	}
	slices.SortStableFunc(list, func(a, b arrival) int { return cmp.Compare(a.number, b.number) })
	for i := 1; i < len(list); i++ {
		if list[i].number == list[i-1].number {
			t.fail(list[i].at, "there is another phase %d", list[i].number)
		}
	}
	if len(list) > plan.PhasesMax {
		t.fail(e, "there are %d phases, more than %d", len(list), plan.PhasesMax)
	}
	once := list
	for i := range t.whole(e, "loop", 0, plan.PhasesMax) {
		if len(list) > plan.PhasesMax {
			break
		}
		for _, a := range once {
			a.name += ", loop " + strconv.Itoa(i+1)
			list = append(list, a)
		}
	}
	return list
}

func (t *translation) arrival(e *element, sessions []session) arrival {
	a := arrival{at: e, number: t.whole(e, "phase", 0, numberMax), length: t.span(e, "duration"), waits: e.attr("wait_all_sessions_end") == "true"}
	a.name = fmt.Sprintf("phase %d", a.number)
	if a.length == 0 {
		t.fail(e, "a phase needs a duration")
	}
	ours, total := 0.0, 0.0
	for i := range sessions {
		share := t.share(e, &sessions[i])
		total += share
		if sessions[i].other {
			share = 0
		}
		ours += share
		a.shares = append(a.shares, share)
	}
	users := e.all("users")
	if len(users) == 0 || total == 0 {
		return a
	}
	last := users[len(users)-1]
	a.rate = t.rate(last) * ours / total * t.factor
	n := a.rate * a.length.Seconds()
	if _, written := last.attrs["maxnumber"]; written {
		n = min(n, t.number(last, "maxnumber", 0)*ours/total*t.factor)
	}
	if n > plan.UsersMax {
		t.fail(e, "%v users arrive, more than %d", n, plan.UsersMax)
	} else if n > 0 {
		a.users = max(1, int(math.Round(n)))
	}
	return a
}

// share is a session's share of the users in a phase.
func (t *translation) share(phase *element, s *session) float64 {
	share := s.share
	for _, setup := range phase.all("session_setup") {
		if s.matches(setup.attr("name")) {
			share = t.number(setup, "weight", t.number(setup, "probability", 0))
		}
	}
	return share
}

// rate is how many users arrive in a second.
func (t *translation) rate(e *element) float64 {
	rate, between := t.number(e, "arrivalrate", 0), t.number(e, "interarrival", 0)
	if (rate > 0) == (between > 0) {
		t.fail(e, "users need an arrivalrate or an interarrival, one of them")
		return 0
	}
	if rate == 0 {
		rate = 1 / between
	}
	return rate / t.unit(e).Seconds()
}
