package tsung

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// scenario is a file, by those of its parts that matter for a test.
type scenario struct{ clients, servers, load, options, sessions string }

const (
	oneServer  = `<server host="host" port="80" type="tcp"/>`
	tenUsers   = `<arrivalphase phase="1" duration="10" unit="second"><users arrivalrate="1" unit="second"/></arrivalphase>`
	connect    = `<request><websocket type="connect" path="/"/></request>`
	oneSession = `<session name="a" probability="100" type="ts_websocket">` + connect + `</session>`
)

// doing is a session that does something once it has connected.
func doing(steps string) string {
	return `<session name="a" probability="100" type="ts_websocket">` + connect + steps + `</session>`
}

func (s scenario) String() string {
	or := func(text, otherwise string) string {
		if text == "" {
			return otherwise
		}
		return text
	}
	return fmt.Sprintf("<tsung>\n<clients>%s</clients>\n<servers>%s</servers>\n<load>%s</load>\n<options>%s</options>\n<sessions>%s</sessions></tsung>",
		s.clients, or(s.servers, oneServer), or(s.load, tenUsers), s.options, or(s.sessions, oneSession))
}

// load reads a file with a text.
func load(t *testing.T, text string) (*Import, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.xml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	people, err := os.ReadFile("testdata/people.csv")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "people.csv"), people, 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

func loaded(t *testing.T, s scenario) *Import {
	t.Helper()
	i, err := load(t, s.String())
	if err != nil {
		t.Fatalf("%v\n%v", err, s)
	}
	return i
}

// show is a script in short.
func show(steps []plan.Step) string {
	var words []string
	for _, s := range steps {
		word := string(s.Do)
		switch s.Do {
		case plan.Send:
			if word = "text"; s.Message.Binary {
				word = "binary"
			}
			word += " " + s.Message.Text.String()
			if a := s.Message.Answer; a != (plan.Answer{}) {
				word += " → " + string(a.Kind)
				if a.Within > 0 {
					word += " in " + a.Within.String()
				}
			}
		case plan.Pause:
			word = strings.TrimSpace(strings.TrimSpace(fmt.Sprintf("%s %v", s.Think.Shape, s.Think.Mean)))
			if s.Think.Shape == plan.Uniform {
				word = fmt.Sprintf("%v–%v", s.Think.From, s.Think.To)
			}
		case plan.Repeat:
			word = fmt.Sprintf("%d × (%s)", s.Times, show(s.Steps))
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// showPhases is the phases in short.
func showPhases(phases []plan.Phase) string {
	var words []string
	for _, p := range phases {
		word := string(p.Kind)
		if p.Users > 0 {
			word += fmt.Sprintf(" %d", p.Users)
		}
		if p.Rate > 0 {
			word += fmt.Sprintf(" at %v/s", p.Rate)
		}
		if p.For > 0 {
			word += " for " + p.For.Round(time.Millisecond).String()
		}
		if len(p.Groups) > 0 {
			word += " of " + strings.Join(p.Groups, "+")
		}
		words = append(words, word)
	}
	return strings.Join(words, "; ")
}

// showGroups is the groups and their users.
func showGroups(groups []plan.Group) string {
	var words []string
	for _, g := range groups {
		words = append(words, fmt.Sprintf("%s %d", g.Name, g.Users))
	}
	return strings.Join(words, ", ")
}
