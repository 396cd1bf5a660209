package scenario

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const manual = "../../docs/scenarios.md"

// table is a table of keys as the manual has it, without those of some names.
func table[T any](keys []key[T], but ...string) string {
	var b strings.Builder
	b.WriteString("| key | what it is | value | default |\n|---|---|---|---|\n")
	for _, k := range keys {
		without := k.without
		if without == "" {
			without = "must be there"
		}
		if !slices.Contains(but, k.name) {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.name, k.what, k.limits, without)
		}
	}
	return b.String()
}

// tables are the manual's tables by the comments above them.
func tables() map[string]string {
	all := map[string]string{
		"keys of scenario": table(fileObject.keys, groupObject.names()...), // these come below
		"keys of group":    table(groupObject.keys),
		"keys of message":  table(messageObject.keys),
	}
	for _, o := range stepVariants().objects {
		all["keys of "+o.name] = table(o.keys)
	}
	var phases []string
	for _, o := range phaseVariants.objects {
		phases = append(phases, fmt.Sprintf("### %s\n\n%s\n\n%s", o.name, o.what, table(o.keys, "name")))
	}
	all["phases"] = strings.Join(phases, "\n")
	return all
}

// The manual's tables are those of the decoder.
func TestTheManualHasEveryKey(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	used := 0
	place := regexp.MustCompile(`(?s)<!-- ([a-z ]+) -->\n.*?<!-- end -->`)
	got := place.ReplaceAllStringFunc(string(text), func(old string) string {
		name := place.FindStringSubmatch(old)[1]
		table, known := tables()[name]
		if !known {
			t.Errorf("there is no table of %s", name)
		}
		used++
		return "<!-- " + name + " -->\n\n" + table + "\n<!-- end -->"
	})
	if used != len(tables()) {
		t.Errorf("%d of %d tables are there", used, len(tables()))
	}
	compare(t, manual, []byte(got))
}

// Each example in the manual is a scenario, or becomes one with what is missing around it.
func TestTheManualsExamplesAreValid(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	const url, group, ramp = "url: ws://127.0.0.1:1/\n", "groups: {users: {users: 1000}}\n", "phases: [{ramp: all}]\n"
	indented := func(s string) string { return strings.ReplaceAll("\n"+s, "\n", "\n    ") }
	examples := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllStringSubmatch(string(text), -1)
	if len(examples) < 8 {
		t.Fatalf("there are %d", len(examples))
	}
	for _, e := range examples {
		whole := e[1]
		switch {
		case strings.Contains(whole, "phases:"):
		case strings.HasPrefix(whole, "script:"):
			whole = url + ramp + "groups:\n  users:\n    users: 1000" + indented(whole)
		case strings.HasPrefix(whole, "groups:"):
			whole = url + ramp + whole
		case strings.HasPrefix(whole, "- "):
			whole = url + group + "phases:\n- ramp: all\n" + whole
		default:
			whole = url + group + ramp + whole
		}
		if _, err := parseWith(whole, "tokens.txt"); err != nil {
			t.Errorf("%v in\n%s", err, whole)
		}
	}
}

func TestTheManualDescribesEachExample(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range exampleFiles(t) {
		name := path[strings.LastIndex(path, "/")+1:]
		if !strings.Contains(string(text), "| ["+name+"](scenarios/"+name+") |") {
			t.Errorf("it does not have %s", name)
		}
	}
}
