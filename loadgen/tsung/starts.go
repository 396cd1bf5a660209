package tsung

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// start is when some users of one session start, whatever the arrival phases are.
type start struct {
	at      *element
	after   time.Duration // since the beginning
	session int
	users   int
	group   string
}

// starts are the users that start at a time of their own, the first ones first.
func (t *translation) starts(e *element, sessions []session) (list []start) {
	for _, user := range e.all("user") {
		found := false
		for i := range sessions {
			if !sessions[i].matches(user.attr("session")) {
				continue
			}
			found = true
			if !sessions[i].other {
				list = append(list, start{at: user, after: t.span(user, "start_time"), session: i, users: 1})
			}
		}
		if !found {
			t.fail(user, "there is no session %.40q", user.attr("session"))
		}
	}
	slices.SortStableFunc(list, func(a, b start) int {
		return cmp.Or(cmp.Compare(a.after, b.after), cmp.Compare(a.session, b.session))
	})
	// Those of one session at one time are one start.
	merged := list[:0]
	for _, s := range list {
		if last := len(merged) - 1; last >= 0 && merged[last].after == s.after && merged[last].session == s.session {
			merged[last].users++
		} else {
			merged = append(merged, s)
		}
	}
	for i := range merged {
		merged[i].users = max(1, int(math.Round(float64(merged[i].users)*t.factor)))
	}
	return merged
}
