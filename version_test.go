package main

import (
	"debug/buildinfo"
	"strings"
	"testing"
)

// Both ways to ask for the version give what the toolchain recorded.
func TestLullKnowsItsVersion(t *testing.T) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{"version", "--version"} {
		out, errs, code := run(t, arg)
		if code != 0 || errs != "" || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "lull "+info.Main.Version) || !strings.Contains(out, info.GoVersion) {
			t.Errorf("lull %s: exit %d, %q%s", arg, code, out, errs)
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && !strings.Contains(out, "commit "+s.Value) {
				t.Errorf("lull %s: %q lacks the commit %s", arg, out, s.Value)
			}
		}
	}
}
