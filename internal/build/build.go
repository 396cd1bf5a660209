// Package build says what this program was built from.
package build

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// module is lull's module. A program that embeds the server has it among its
// dependencies.
const module = "github.com/seed-134acfd0/lull"

// Info is what the Go toolchain has recorded in a program about lull. Fields
// that it has not recorded are empty.
type Info struct {
	Version  string // of the module, "(devel)" if it was built without version control
	Commit   string // the revision; empty in a program that embeds lull
	Modified bool   // whether the work tree had changes that were not committed
	Go       string // the toolchain's version
}

// Read returns what this program was built from. Any goroutine may call it.
var Read = sync.OnceValue(func() Info {
	recorded, ok := debug.ReadBuildInfo()
	if !ok {
		return Info{Go: runtime.Version()}
	}
	return from(recorded)
})

func from(recorded *debug.BuildInfo) Info {
	info := Info{Go: recorded.GoVersion}
	for _, dep := range recorded.Deps {
		if dep.Path == module {
			info.Version = dep.Version
		}
	}
	if recorded.Main.Path != module {
		return info
	}
	info.Version = recorded.Main.Version
	for _, s := range recorded.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Commit = s.Value
		case "vcs.modified":
			info.Modified = s.Value == "true"
		}
	}
	return info
}

// String is a line like "v1.2.3 (commit 0123abc, modified), go1.26.0, linux/amd64".
func (i Info) String() string {
	var of []string
	if i.Commit != "" {
		of = append(of, "commit "+i.Commit)
	}
	if i.Modified {
		of = append(of, "modified")
	}
	text := i.Version
	if text == "" {
		text = "unknown version"
	}
	if len(of) > 0 {
		text += " (" + strings.Join(of, ", ") + ")"
	}
	return fmt.Sprintf("%s, %s, %s/%s", text, i.Go, runtime.GOOS, runtime.GOARCH)
}
