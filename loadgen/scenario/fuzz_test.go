package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// allocatedMax is how many bytes are allocated for a scenario at the most, most of them by
// the YAML library for one that is full of small values.
const allocatedMax = 256 << 20

// allocated is how many bytes a function allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// However a file is made, reading it takes bounded memory.
func TestScenariosTakeBoundedMemory(t *testing.T) {
	fill := func(unit string) string { return strings.Repeat(unit, FileMax/len(unit)) }
	script := "url: ws://h/\nphases: [{ramp: all}]\ngroups: {a: {users: 1, script: ["
	most := strings.Repeat("{{.Seq}}", 900)
	for name, text := range map[string]string{
		"values in a list":   "a: [" + fill("a,")[:FileMax-10] + "]",
		"lists in lists":     fill("["),
		"mappings":           fill("{a: "),
		"indented lists":     fill("- "),
		"keys":               fill("? "),
		"anchors":            "[" + fill("&a a,")[:FileMax-10] + "]",
		"steps":              script + strings.Repeat("close,", FileMax/7) + "]}}",
		"aliases of a text":  script + "{send: &a '" + most + "'}," + strings.Repeat("{send: *a},", FileMax/16) + "]}}",
		"aliases of a match": script + "{send: a, answer: {match: &a '(a{1000}b{1000})'}}," + strings.Repeat("{send: a, answer: {match: *a}},", FileMax/40) + "]}}",
		"matches":            script + matches(FileMax/40) + "]}}",
		"long text":          script + "{send: '" + fill("x")[:FileMax-200] + "'}]}}",
	} {
		if n := allocated(func() { parse(text) }); n > allocatedMax {
			t.Errorf("%s: %d MiB are allocated", name, n>>20)
		}
	}
}

// matches are steps with different regular expressions that are large.
func matches(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{send: a, answer: {match: '%da{1000}b{1000}'}},", i)
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	for _, path := range []string{"../../docs/scenarios/chat.yaml", "../../docs/scenarios/slow-readers.yaml", "../../docs/scenarios/json-server.yaml", "testdata/everything.yaml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parse(text)
		if e := (*Error)(nil); err != nil && !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		if err != nil {
			return
		}
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var again plan.Plan
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if err := again.Validate(); err != nil {
			t.Errorf("%s: %v", data, err)
		}
	})
}
