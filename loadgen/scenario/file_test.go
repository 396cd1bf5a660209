package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

var update = flag.Bool("update", false, "write what the tests compare with")

// compare compares with a file, or writes it.
func compare(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what go test ./loadgen/scenario -update makes of it: %v", path, err)
	}
}

// Each key arrives where it belongs.
func TestAFileBecomesAPlan(t *testing.T) {
	p, err := Load("testdata/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "testdata/everything.json", append(got, '\n'))
}

// parse reads a scenario that is beside some files.
func parse(text string) (*plan.Plan, error) { return parseWith(text, "names.txt") }

// parseWith is parse, where a file of names has another name.
func parseWith(text, names string) (*plan.Plan, error) {
	return Parse(fstest.MapFS{
		"x.yaml":     {Data: []byte(text)},
		names:        {Data: []byte("anna\nben\n")},
		"empty.txt":  {},
		"binary.txt": {Data: []byte("\xff\n")},
		"large.txt":  {Data: bytes.Repeat([]byte("x"), plan.TextMax+1)},
		"wrong.json": {Data: []byte("{{.Nobody}}")},
		"folder/x":   {},
	}, "x.yaml")
}

// A scenario that is right but for a part, which stands at the line and column.
const (
	above    = "url: ws://127.0.0.1:1/\ngroups: {a: {users: 10}}\n"
	oneRamp  = "phases: [{ramp: all}]\n"
	nobodyIn = oneRamp + "url: ws://h/\ngroups:"
)

func inFile(more string) string { return above + oneRamp + more }      // 4:1
func inPhases(p string) string  { return above + "phases:\n  - " + p } // 4:5
func inGroup(g string) string {
	return "url: ws://h/\n" + oneRamp + "groups:\n  a:\n    users: 10\n    " + g
}                              // 6:5
func inScript(s string) string { return inGroup("script:\n      - " + s) } // 7:9

// mistaken is a scenario with a mistake, and part of what is said of it.
type mistaken struct{ text, says string }

func (m mistaken) check(t *testing.T) {
	t.Helper()
	_, err := parse(m.text)
	if e := (*Error)(nil); !errors.As(err, &e) || !strings.Contains(err.Error(), m.says) || !strings.HasPrefix(err.Error(), "x.yaml:") {
		t.Errorf("%.300s\n  gives %v\n  not   %s", m.text, err, m.says)
	}
}

// Editors find these by the schema, too.
func TestMistakesInFormNameLineAndColumn(t *testing.T) {
	bySchema := editor(t)
	for _, m := range []mistaken{
		{"", "x.yaml: it is empty: a scenario needs url, groups and phases"},
		{"# nothing\n", "x.yaml: it is empty"},
		{"just a text", "x.yaml:1:1: must have keys with values"},
		{"a: b: c", "x.yaml: it is no YAML: mapping values are not allowed in this context"},
		{"a: [1\nb: 2\n", "x.yaml:1: it is no YAML: "},
		{"\x00", "x.yaml: it is no YAML: control characters are not allowed"},
		{strings.Repeat("#", FileMax+1), `x.yaml: is too large: it may have 262144 bytes`},
		{"phases: []\n", "x.yaml:1:1: scenario needs the key groups"},
		{"groups: {}\n", "x.yaml:1:1: scenario needs the key phases"},
		{inFile("grups: 1"), "x.yaml:4:1: scenario has no key \"grups\": did you mean groups?"},
		{inFile("colour: 1"), "x.yaml:4:1: scenario has no key \"colour\": it can have name, url"},
		{inFile("url: ws://x/"), "x.yaml:4:1: \"url\" is there twice"},
		{inFile("? [a]\n: 1"), "x.yaml:4:3: a key must be a name"},
		{inFile("~: 1"), "x.yaml:4:1: a key must be a name"},
		{inFile("timeout: 10"), `x.yaml:4:10: timeout must be a time with its unit, as 500ms, 30s, 10m or 2h; 1ms to 8760h, and is "10"`},
		{inFile("timeout: -10s"), `x.yaml:4:10: timeout must be a time`},
		{inFile("timeout: 1e3s"), `x.yaml:4:10: timeout must be a time`},
		{inFile("timeout:"), "x.yaml:4:9: timeout must be a time"},
		{inFile("timeout: [1s]"), "x.yaml:4:10: timeout must be a time"},
		{inFile("timeout: &a 1s\nping: *b"), "x.yaml: it is no YAML: unknown anchor 'b'"},
		{inFile("compress: yes"), `x.yaml:4:11: compress must be true or false, and is "yes"`},
		{inFile("read-rate: 10k"), `x.yaml:4:12: read-rate must be a number of bytes, 1 to 1GiB, and is "10k"`},
		{inFile("read-rate: 0"), `read-rate must be a number of bytes`},
		{inFile("read_rate: 1"), "scenario has no key \"read_rate\": did you mean read-rate?"},
		{inFile("headers: [a]"), "x.yaml:4:10: headers must have keys with values"},
		{inFile("headers:\n  X: {a: b}"), "x.yaml:5:6: X must be a text"},
		{inFile("expect: {lost: 0}"), "x.yaml:4:9: expect must be a text"},
		{inGroup("user: 3"), `x.yaml:6:5: group has no key "user": did you mean users?`},
		{nobodyIn + "\n  a: {}", `x.yaml:4:6: group needs the key users`},
		{nobodyIn + " [{users: 1}]", `x.yaml:3:9: groups must have keys with values`},
		{nobodyIn + " {a: {users: many}}", `x.yaml:3:21: users must be a whole number, 1 to 1_073_741_824; thousands may be written as 10_000, and is "many"`},
		{nobodyIn + " {a: {users: 10k}}", `and is "10k"`},
		{nobodyIn + " {a: {users: 0}}", `and is "0"`},
		{nobodyIn + " {a: &a {users: 1, script: [{repeat: 2, steps: [*a]}]}}", `step "users" is not known`},
		{nobodyIn + " {a: {users: 1, script: &s [{repeat: 2, steps: *s}]}}", `it contains itself`},
		{inScript("wait: 1s"), `x.yaml:7:9: step "wait" is not known: it can have send, think, repeat`},
		{inScript("thnk: 1s"), `x.yaml:7:9: step "thnk" is not known: did you mean think?`},
		{inScript("stop"), "x.yaml:7:9: a step must have one of the keys send, think, repeat, or be close"},
		{inScript("send: x\n        answr: echo"), `x.yaml:8:9: send has no key "answr": did you mean answer?`},
		{inScript("send: x\n        answer: all"), `x.yaml:8:17: answer must be none, echo`},
		{inScript("send: x\n        answer: {contain: a}"), `answer "contain" is not known: did you mean contains?`},
		{inScript("send:"), "x.yaml:7:14: send must be a text"},
		{inScript("send: {size: 15}"), "x.yaml:7:22: size must be a number of bytes, 16 to 64KiB, and is 15"},
		{inScript("think: often"), "x.yaml:7:16: think must be a time"},
		{inScript("think: {uniform: 1s}"), "x.yaml:7:26: uniform must be two times"},
		{inScript("think: {uniform: [2s, x]}"), "x.yaml:7:31: uniform must be a time"},
		{inScript("think: {pareto: 1s}"), `x.yaml:7:17: distribution "pareto" is not known: it can have uniform`},
		{inScript("think: {normal: {mean: 1s}}"), "normal needs the key dev: Its standard deviation."},
		{inScript("think: {}"), "x.yaml:7:16: a distribution must have one of the keys uniform, exponential, normal"},
		{inScript("repeat: 2"), "x.yaml:7:9: repeat needs the key steps"},
		{inScript("repeat: often\n        steps: [close]"), "x.yaml:7:17: repeat must be forever or a whole number"},
		{inGroup("script: []"), "x.yaml:6:13: script must be a list of steps"},
		{inGroup("script: {send: x}"), "x.yaml:6:13: script must be a list of steps"},
		{inPhases("rest: 1m"), `x.yaml:4:5: phase "rest" is not known: it can have ramp, hold, churn`},
		{inPhases("rampp: all"), `phase "rampp" is not known: did you mean ramp?`},
		{inPhases("hold"), "x.yaml:4:5: a phase must have one of the keys ramp, hold"},
		{inPhases("ramp: 0"), `x.yaml:4:11: ramp must be all or a whole number, 1 to 1_073_741_824; thousands may be written as 10_000, and is "0"`},
		{inPhases("ramp: all\n    rate: 0"), `x.yaml:5:11: rate must be a number, 0.001 to 10_000_000 a second, and is "0"; leave it out`},
		{inPhases("ramp: all\n    hold: 1m"), `x.yaml:5:5: ramp has no key "hold"`},
		{inPhases("ramp: all\n  - churn: 1m"), "x.yaml:5:5: churn needs the key rate"},
		{inPhases("ramp: all\n  - talk: 1m\n    streams: []"), "streams must be a list of streams"},
	} {
		m.check(t)
		if bySchema([]byte(m.text)) == nil {
			t.Errorf("%s\nis right by the schema", m.text)
		}
	}
}

func TestMistakesInMeaningNameLineAndColumn(t *testing.T) {
	for _, m := range []mistaken{
		{inFile("---\n" + above), "x.yaml:4:1: it must have one document"},
		{inFile("---\na: b: c"), "it is no YAML"},
		{inFile("<<: {timeout: 1s}"), "x.yaml:4:1: << is not known here"},
		{inFile("timeout: !!str 1s"), "x.yaml:4:10: has the tag !!str"},
		{inFile("timeout: !mine 1s"), "x.yaml:4:10: has the tag !mine"},
		{inFile("timeout: 1us"), `x.yaml:4:10: timeout must be a time`},
		{inFile("timeout: 99999999999999h"), `x.yaml:4:10: timeout must be a time`},
		{inFile("read-rate: 2GiB"), `read-rate must be a number of bytes, 1 to 1GiB, and is 2GiB`},
		{inFile("read-rate: 99999999999999999999KiB"), `read-rate must be a number of bytes`},
		{inFile("headers: {Host: x}"), `x.yaml:2:13: group "a": headers has Host, which is made from url`}, // inherited, so the group is named
		{inFile("query: {a: '{{.User}}'}"), "x.yaml:4:12: a template has no {{.User}}"},
		{inFile("query: {a: '{{line \"nobody.txt\"}}'}"), `x.yaml:4:12: "nobody.txt" cannot be read: file does not exist`},
		{inFile("query: {a: '{{line \"../names.txt\"}}'}"), `x.yaml:4:12: "../names.txt": files are named from the scenario's folder`},
		{inFile("query: {a: '{{line \"/etc/passwd\"}}'}"), `files are named from the scenario's folder`},
		{inFile("query: {a: '{{line \"folder\"}}'}"), `"folder" is no file`},
		{inFile("query: {a: '{{line \"empty.txt\"}}'}"), `"empty.txt" is empty`},
		{inFile("query: {a: '{{line \"binary.txt\"}}'}"), `file "binary.txt": line 1 must be one line of UTF-8`},
		{inFile("expect: [lost]"), `x.yaml:4:10: "lost" is no threshold`},
		{inFile("name: \"a\\tb\""), `x.yaml: name is "a\tb": it must be`},
		{inGroup("half-open: true\n    ping: 1s"), `x.yaml:7:11: group "a": ping is not for half-open users`},
		{inGroup("url: http://127.0.0.1/"), `x.yaml:6:10: group "a": url has "http://127.0.0.1/": it must begin with ws:// or wss://`},
		{inGroup("basic-auth: user"), "x.yaml:6:17: basic-auth must be user:password"},
		{inGroup("headers: {\"a b\": c}"), `x.yaml:6:14: group "a": headers has "a b": a header's name has`},
		{inGroup("cookies: {a: \"b\\n\"}"), `x.yaml:6:14: group "a": cookies has "\n"`},
		{oneRamp + "groups:\n  a: {users: 1}", `x.yaml:3:3: group "a" needs a url`},
		{nobodyIn + "\n  a b: {users: 1}", `x.yaml:4:8: group "a b": name must be`},
		{nobodyIn + " {a: {users: 1_0}}", `and is "1_0"`},
		{nobodyIn + " {a: {users: 010}}", `and is "010"`},
		{inScript(strings.Repeat("{repeat: 2, steps: [", 60) + "close" + strings.Repeat("]}", 60)), "it is more than 100 mappings and lists deep"},
		{inScript("close\n      - send: x"), `x.yaml:7:9: group "a": step close: it must be the script's last step`},
		{inScript("send: x\n        answer: {match: '('}"), "x.yaml:8:25: match must be a regular expression: error parsing regexp"},
		{inScript("send: x\n        answer: {match: '((a{100}){10}){9}'}"), "match must be a regular expression:"},
		{inScript("send: x\n        answer: {contains: '{{uuid}}'}"), `x.yaml:7:9: group "a": step send: contains must not be random`},
		{inScript("send: x\n        within: 1s"), `x.yaml:8:17: group "a": step send: within is for messages with an answer`},
		{inScript("send: {size: 1MiB}"), "size must be a number of bytes, 16 to 64KiB"},
		{inScript("send: {size: 20, text: a}"), "x.yaml:7:15: a message must have one of text, file and size"},
		{inScript("send: {file: nobody.txt}"), `x.yaml:7:22: "nobody.txt" cannot be read`},
		{inScript("send: {file: large.txt}"), `x.yaml:7:22: "large.txt" is too large`},
		{inScript("send: {file: wrong.json}"), `x.yaml:7:22: a template has no {{.Nobody}}`},
		{inScript("think: {uniform: [2s, 1s]}"), "x.yaml:7:26: uniform must have the shorter time first"},
		{inScript("repeat: forever\n        steps: [{send: x}]"), `x.yaml:7:9: group "a": step repeat: it has no end, and nothing in it waits`},
		{inPhases("ramp: 11"), `x.yaml:4:11: phase "ramp": ramp is 11: 10 are left for it`},
		{inPhases("ramp: all\n    rate: 0x10"), `rate must be a number`},
		{inPhases("ramp: all\n    groups: b"), `x.yaml:5:13: phase "ramp": groups has "b": there is no such group`},
		{inPhases("ramp: all\n  - ramp: all"), `x.yaml:5:5: phase "ramp 2": all users of its groups are taken`},
		{inPhases("ramp: all\n  - publish: 1\n    deaf: 10"), `x.yaml:6:11: phase "publish": deaf is 10: at least one`},
		{inPhases("ramp: all\n  - talk: 1m"), `x.yaml:5:5: phase "talk": stream 1: message is missing`},
		{inPhases("ramp: all\n  - talk: 1m\n    message: a\n    window: 2"), `x.yaml:7:13: phase "talk": stream 1: window counts unanswered messages`},
		{inPhases("ramp: all\n  - talk: 1m\n    message: a\n    streams: [{message: b}]"), "x.yaml:5:5: a talk must have streams, or the keys of one stream, not both"},
		{inPhases("ramp: all\n    name: hold\n  - hold: 1s\n    name: hold"), `x.yaml:7:11: phase "hold": name is there twice`},
		{inPhases("ramp: all\n    rate: .inf"), `rate must be a number`},
	} {
		m.check(t)
	}
}

func TestLoadNamesTheFileAsItWasGiven(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.yaml")
	if err := os.WriteFile(path, []byte("a: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, says := range map[string]string{path: path + `:1:1: scenario has no key "a"`, path + "x": path + `x: cannot be read: no such file`, dir: dir + ": "} {
		if _, err := Load(name); err == nil || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("%v does not begin with %s", err, says)
		}
	}
}

// Aliases repeat what is in the file, which costs no more than a large file does.
func TestAliasesAreBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("url: ws://h/\nphases: [{ramp: all}]\ngroups: {a: {users: 1, script: [")
	text.WriteString("{repeat: 2, steps: &a0 [{send: x}, {send: x}]}")
	for i := range 20 {
		name := func(n int) string { return "a" + string(rune('A'+n)) }
		last := name(i - 1)
		if i == 0 {
			last = "a0"
		}
		text.WriteString(", {repeat: 2, steps: &" + name(i) + " [{repeat: 2, steps: *" + last + "}, {repeat: 2, steps: *" + last + "}]}")
	}
	text.WriteString("]}}")
	if _, err := parse(text.String()); err == nil || !strings.Contains(err.Error(), "aliases repeat too much") {
		t.Error(err)
	}
}

func TestPhasesWithoutNamesGetTheirKinds(t *testing.T) {
	phases := []plan.Phase{{Kind: plan.Hold}, {Kind: plan.Hold}, {Name: "hold 2"}, {Kind: plan.Hold}, {Kind: plan.Ramp}}
	namePhases(phases)
	var names []string
	for _, p := range phases {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, ","); got != "hold,hold 3,hold 2,hold 4,ramp" {
		t.Error(got)
	}
}
