package tsung

import (
	"strconv"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// uniqueID is tsung's function for a number that each user has for itself.
const uniqueID = "ts_user_server:get_unique_id"

// brace names a file with one line, "{", from which templates take it where it would
// begin a field.
const brace = "{"

// template translates a text. If substitutes is true, what stands between %% and %% is a
// variable, or an Erlang function.
func (s *script) template(e *element, raw string, substitutes bool) *plan.Text {
	var b strings.Builder
	for rest := raw; rest != ""; {
		before, after, found := strings.Cut(rest, "%%")
		name, tail, closed := strings.Cut(after, "%%")
		if !substitutes || !found || !closed {
			b.WriteString(s.literal(rest))
			break
		}
		b.WriteString(s.literal(before))
		b.WriteString(s.field(e, name))
		rest = tail
	}
	text, err := plan.ParseText(b.String())
	if err != nil {
		s.fail(e, "%v", err)
		return plan.Plain("")
	}
	return text
}

// literal is a text in a template.
func (s *script) literal(text string) string {
	if !strings.Contains(text, "{{") && !strings.HasSuffix(text, "{") {
		return text
	}
	s.keep(brace, []string{"{"})
	return strings.ReplaceAll(text, "{", "{{line "+strconv.Quote(brace)+"}}")
}

// keep makes lines known to the plan's templates.
func (s *script) keep(name string, lines []string) {
	if s.plan.Files == nil {
		s.plan.Files = map[string][]string{}
	}
	s.plan.Files[name] = lines
}

// field is what stands in a template for %%name%%.
func (s *script) field(e *element, name string) string {
	if name == uniqueID {
		return "{{.Conn}}"
	}
	if v := s.variables[strings.TrimPrefix(name, "_")]; v != nil && strings.HasPrefix(name, "_") {
		v.uses++
		if v.changes != "" && (v.uses > 1 || v.loop != s.loop) {
			s.note(v.set, "%s: %s", name[1:], v.changes)
			v.changes = ""
		}
		return v.field
	}
	s.note(e, "%%%%%s%%%% is sent as it is written: its value is not known here", name)
	return s.literal("%%" + name + "%%")
}
