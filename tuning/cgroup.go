package tuning

import (
	"bufio"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/prometheus/procfs"
)

// cgroup is what control groups leave to this process.
type cgroup struct {
	Version int    // 1 or 2; 0 if there is none
	Path    string // of this process's, as it sees it
	Limit   int64  // the lowest of its own and of those above, Unlimited if there is none
	Room    int64  // what is left below all of them
	Of      string // the one that leaves least
	OfUsed  int64  // what is used of that one
}

// cgroupFiles are the names of what both versions tell. In the first a limit
// that is none is a number, the largest that pages can make.
var cgroupFiles = map[int]struct {
	limits []string
	used   string
	cached []string // in memory.stat: a file's pages, which can be given back
}{
	1: {[]string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", []string{"total_active_file", "total_inactive_file"}},
	2: {[]string{"memory.max", "memory.high"}, "memory.current", []string{"active_file", "inactive_file"}},
}

// cgroupNoLimit is above every limit that is one.
const cgroupNoLimit = 1 << 62

// cgroup reads the limits of this process's control group and of all above it.
func (m *Machine) cgroup() cgroup {
	c := cgroup{Limit: Unknown, Room: Unknown}
	mount, own, version := m.memoryMount()
	if version == 0 {
		return c
	}
	c = cgroup{Version: version, Path: own, Limit: Unlimited, Room: Unlimited}
	for level := own; ; level = path.Dir(level) {
		m.cgroupLevel(&c, mount, level)
		if level == "/" || level == "." {
			return c
		}
	}
}

// cgroupLevel takes one level's limits into account.
func (m *Machine) cgroupLevel(c *cgroup, mount, level string) {
	names := cgroupFiles[c.Version]
	dir := filepath.Join(mount, level)
	limit := Unlimited
	for _, name := range names.limits {
		if n := m.number(filepath.Join(dir, name)); n != Unknown && n < cgroupNoLimit {
			limit = min(limit, n)
		}
	}
	if limit == Unlimited {
		return
	}
	used := max(0, m.number(filepath.Join(dir, names.used)))
	for line := range strings.Lines(m.text(filepath.Join(dir, "memory.stat"))) {
		if fields := strings.Fields(line); len(fields) == 2 && slices.Contains(names.cached, fields[0]) {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			used -= n
		}
	}
	c.Limit = min(c.Limit, limit)
	used = max(0, used)
	if room := max(0, limit-used); room < c.Room {
		c.Room, c.Of, c.OfUsed = room, level, used
	}
}

// memoryMount finds where the control groups that limit memory are mounted, and
// this process's among them. Some machines mount both versions; memory belongs
// to one.
func (m *Machine) memoryMount() (mount, own string, version int) {
	paths := m.cgroupPaths()
	for _, info := range m.mounts() {
		_, memory := info.SuperOptions["memory"]
		switch {
		case info.FSType == "cgroup" && memory:
			return info.MountPoint, m.cgroupPath(info, paths[1]), 1
		case info.FSType == "cgroup2" && version == 0:
			mount, own, version = info.MountPoint, m.cgroupPath(info, paths[2]), 2
		}
	}
	return mount, own, version
}

// cgroupPath is the process's path below a mount. A container may see its own
// group at the top of the mount while /proc still tells the whole path.
func (m *Machine) cgroupPath(info *procfs.MountInfo, own string) string {
	if info.Root != "/" {
		if rest, found := strings.CutPrefix(own, info.Root); found {
			own = rest
		}
	}
	own = path.Clean("/" + own)
	if own != "/" && !m.exists(filepath.Join(info.MountPoint, own)) {
		return "/"
	}
	return own
}

// cgroupPaths are this process's paths, by the version that has them.
func (m *Machine) cgroupPaths() map[int]string {
	paths := map[int]string{}
	lines := bufio.NewScanner(strings.NewReader(m.text("proc/self/cgroup")))
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), ":", 3)
		switch {
		case len(fields) != 3:
		case fields[0] == "0":
			paths[2] = fields[2]
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			paths[1] = fields[2]
		}
	}
	return paths
}

// says names the group that leaves least.
func (c cgroup) says() string {
	switch {
	case c.Version == 0:
		return ""
	case c.Room == Unlimited:
		return fmt.Sprintf("cgroup v%d sets none", c.Version)
	case c.Of == c.Path:
		return fmt.Sprintf("%s, of %s", c.Of, humanize.IBytes(uint64(c.Limit)))
	}
	return fmt.Sprintf("%s, which is above %s", c.Of, c.Path)
}
