package build

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestFromWhatTheToolchainRecords(t *testing.T) {
	lull := debug.Module{Path: module, Version: "v1.2.3+dirty"}
	for name, r := range map[string]struct {
		recorded debug.BuildInfo
		want     Info
		line     string
	}{
		"from a repository": {
			debug.BuildInfo{GoVersion: "go1.26.0", Main: lull, Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}},
			Info{Version: "v1.2.3+dirty", Commit: "abc", Modified: true, Go: "go1.26.0"}, "v1.2.3+dirty (commit abc, modified), go1.26.0, ",
		},
		"without one": {
			debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Path: module, Version: "(devel)"}},
			Info{Version: "(devel)", Go: "go1.26.0"}, "(devel), go1.26.0, ",
		},
		// The revision is the other program's.
		"embedded": {
			debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Path: "example.org/chat"}, Deps: []*debug.Module{&lull}, Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}}},
			Info{Version: "v1.2.3+dirty", Go: "go1.26.0"}, "v1.2.3+dirty, go1.26.0, ",
		},
		"nothing": {debug.BuildInfo{}, Info{}, "unknown version, "},
	} {
		if got := from(&r.recorded); got != r.want || !strings.HasPrefix(got.String(), r.line) {
			t.Errorf("%s: %+v, %q", name, got, got)
		}
	}
}
