package result

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// keys adds the JSON keys of a type, and of those in it.
func keys(of reflect.Type, add func(string)) {
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		keys(of.Elem(), add)
	case reflect.Struct:
		if of == reflect.TypeFor[time.Time]() {
			return
		}
		for f := range of.Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				add(name)
			}
			keys(f.Type, add)
		}
	}
}

func TestEachFieldIsDescribed(t *testing.T) {
	page, err := os.ReadFile("../../docs/results.md")
	if err != nil {
		t.Fatal(err)
	}
	described := func(name string) {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/results.md does not describe %s", name)
		}
	}
	n := 0
	keys(reflect.TypeFor[Result](), func(name string) { n++; described(name) })
	for c := range measure.Counters {
		described(c.String())
	}
	for k := range measure.Kinds {
		described(k.String())
	}
	if n < 50 {
		t.Errorf("only %d fields were found", n)
	}
}

// Each figure that the page has can be written, and each rate is on it.
func TestTheThresholdsOfThePageAreRead(t *testing.T) {
	page, err := os.ReadFile("../../docs/results.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "## Thresholds\n")
	section, _, _ := strings.Cut(rest, "\n## ")
	figures := regexp.MustCompile("`([a-z0-9.]+(?:\\([a-zA-Z]+\\))?)`").FindAllStringSubmatch(section, -1)
	read := 0
	for _, m := range figures {
		figure, value := strings.ReplaceAll(m[1], "KIND", "echo"), "=1"
		if strings.HasSuffix(figure, "(echo)") {
			value += "ms"
		}
		if _, err := plan.ParseThreshold(figure + value); err == nil {
			read++
		} else if strings.Contains(figure, "(") {
			t.Errorf("%s: %v", figure, err)
		}
	}
	if read < 10 {
		t.Errorf("only %d figures are read", read)
	}
}
