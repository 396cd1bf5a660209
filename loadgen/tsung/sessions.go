package tsung

import (
	"cmp"
	"path"
	"strconv"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// session is what some of the users do.
type session struct {
	name  string
	at    *element
	share float64 // of the users: a probability in percent, or a weight
	group plan.Group
	stays bool // its users do not leave
	other bool // it is no WebSocket session
}

// sessions translates the sessions. There is at least one for WebSocket, or an error.
func (t *translation) sessions(e *element) (list []session) {
	ours, total, weighted := 0, 0.0, false
	all := e.all("session")
	if len(all) > plan.GroupsMax {
		t.fail(e, "there are more than %d sessions", plan.GroupsMax)
		return nil
	}
	for _, one := range all {
		s := t.session(one)
		s.share = t.number(one, "weight", t.number(one, "probability", 0))
		_, has := one.attrs["weight"]
		weighted = weighted || has
		total += s.share
		if !s.other {
			ours++
		}
		list = append(list, s)
	}
	if ours == 0 {
		t.fail(e, `no session is of type ts_websocket, and others are not run here`)
	}
	if !weighted && len(list) > 1 && (total < 99.95 || total > 100.05) {
		t.note(e, "probabilities add up to %v, and tsung wants 100: here they are shares", total)
	}
	if len(list) == 1 {
		list[0].share = 1
	}
	return list
}

func (t *translation) session(e *element) session {
	s := session{name: e.attr("name"), at: e}
	if kind := e.attr("type"); kind != "ts_websocket" {
		t.note(e, "session %.40s is left out with its users: its type is %.40s, and not ts_websocket", s.name, kind)
		s.other = true
		return s
	}
	s.group = plan.Group{Line: e.line, ReadRate: t.options.readRate}
	script := script{translation: t, group: &s.group, variables: map[string]*variable{}}
	steps, how := script.steps(e.children)
	if !script.connected {
		t.fail(e, `session %.40s needs a <websocket type="connect">`, s.name)
	}
	s.stays = how == stays
	if !s.stays {
		steps = append(steps, plan.Step{Do: plan.Close, Line: e.line})
	}
	s.group.Script = steps
	return s
}

// matches reports whether a session has a name that another element gives. It may have
// wildcards.
func (s *session) matches(pattern string) bool {
	matched, _ := path.Match(pattern, s.name)
	return matched || pattern == s.name
}

// add adds a group of users to the plan, and returns its name.
func (t *translation) add(s *session, suffix string, users int) string {
	if len(t.plan.Groups) == plan.GroupsMax {
		t.fail(s.at, "it makes more than %d groups: one for each session, or more where phases have a <session_setup>", plan.GroupsMax)
		return ""
	}
	t.stay = t.stay || s.stays
	g := s.group
	g.Users = users
	g.Name = t.unused(s.name + suffix)
	t.plan.Groups = append(t.plan.Groups, g)
	return g.Name
}

// unused is a name that no group has yet.
func (t *translation) unused(wanted string) string {
	candidate := name(wanted)
	for i := 2; t.taken(candidate); i++ {
		candidate = name(wanted) + "-" + strconv.Itoa(i)
	}
	return candidate
}

// nameMax leaves room for a number behind a name, in bytes.
const nameMax = plan.NameMax - len("-1000")

// name makes a name that plans can have of another one.
func name(of string) string {
	of = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '-'
	}, of)
	return cmp.Or(of[:min(len(of), nameMax)], "-")
}

func (t *translation) taken(name string) bool {
	for i := range t.plan.Groups {
		if t.plan.Groups[i].Name == name {
			return true
		}
	}
	return false
}
