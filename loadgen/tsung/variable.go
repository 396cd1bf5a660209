package tsung

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// variable is what <setdynvars> or <for> sets.
type variable struct {
	field string // what stands for it in a template
	// changes says what a plan does where tsung keeps the value for later. It matters
	// if the variable is used twice, or in another loop than the one where it is set.
	changes string
	set     *element // where it is set
	loop    *element // in which loop that is; nil in none
	uses    int

	value    string // if it is constant
	from, to int    // if it is a random number
}

// setVariables translates <setdynvars>.
func (s *script) setVariables(e *element) {
	source := e.attr("sourcetype", "erlang")
	for i, named := range e.all("var") {
		v := &variable{set: e, loop: s.loop}
		switch source {
		case "value":
			if i > 0 {
				continue // tsung sets the first one alone
			}
			s.setConstant(v, e.attr("value"))
		case "server":
			s.setServer(v, i)
		case "random_number":
			v.from, v.to = s.whole(e, "start", 1, numberMax), s.whole(e, "end", 10, numberMax)
			if v.to < v.from {
				s.fail(e, "end has to be at least start")
			}
			v.field = fmt.Sprintf("{{random %d %d}}", v.from, v.to)
			v.changes = "it is another random number each time"
		case "random_string", "urandom_string":
			v.field = fmt.Sprintf("{{hex %d}}", max(1, s.whole(e, "length", 20, plan.TextMax)))
			v.changes = "it is other random digits each time"
		case "file":
			s.setColumn(v, i)
		}
		if v.field == "" && source != "value" {
			s.note(e, "%s gets no value, because it comes from %s", named.attr("name"), source)
			continue
		}
		s.variables[named.attr("name")] = v
	}
}

func (s *script) setConstant(v *variable, value string) {
	v.value, v.field = value, s.literal(value)
}

// setServer makes v the server's host or port, if there is one server alone.
func (s *script) setServer(v *variable, i int) {
	servers := slices.Compact(slices.Sorted(slices.Values(s.urls)))
	if len(servers) != 1 || i > 1 {
		return
	}
	_, address, _ := strings.Cut(servers[0], "://")
	host, port, _ := net.SplitHostPort(address)
	s.setConstant(v, []string{host, port}[i])
}

// setColumn makes v a column of a file's lines.
func (s *script) setColumn(v *variable, column int) {
	id := v.set.attr("fileid", "default")
	lines, known := s.options.files[id]
	if !known {
		s.fail(v.set, "fileid is %.40q, and no option file_server has it as its id", id)
		return
	}
	if v.set.attr("order") == "random" && column == 0 {
		s.note(v.set, "lines of the file are taken in turn, and not at random")
	}
	cells := make([]string, len(lines))
	for i, line := range lines {
		if all := strings.Split(line, v.set.attr("delimiter", ";")); column < len(all) {
			cells[i] = all[column]
		}
	}
	name := id + ":" + strconv.Itoa(column+1)
	s.keep(name, cells)
	v.field = "{{line " + strconv.Quote(name) + "}}"
	v.changes = "its line is the next one with each message"
}
