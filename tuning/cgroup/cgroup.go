// Package cgroup reads how much memory control groups allow this process. It
// knows both versions of control groups, and nothing but files below /proc and
// /sys, so that any package may import it.
package cgroup

import (
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Unlimited is the limit of a group that has none.
const Unlimited int64 = math.MaxInt64

// Memory is what control groups allow this process, in bytes.
type Memory struct {
	Version int    // of control groups, 1 or 2
	Path    string // of this process's group, as the process sees it
	Limit   int64  // the lowest of its group's limits and of those above it; Unlimited if there is none
	Room    int64  // what is left below all of these limits
	Tight   string // the group that leaves least
	Used    int64  // of Tight's limit, without what can be given back
	Dir     string // where the files of this process's group are
}

// MemoryLimit returns the smallest of the machine's memory and of the limits of
// all groups that this process is in. root is where the machine's file systems
// are, "/" for this one. ok is false if neither can be read.
func MemoryLimit(root string) (bytes int64, ok bool) {
	bytes = Unlimited
	if m, found := Read(root); found {
		bytes = m.Limit
	}
	if total, found := memTotal(root); found {
		bytes = min(bytes, total)
	}
	return bytes, bytes != Unlimited
}

// memTotal is the machine's memory.
func memTotal(root string) (bytes int64, ok bool) {
	for line := range strings.Lines(text(root, "proc/meminfo")) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err == nil && kib > 0
		}
	}
	return 0, false
}

// Read reads the limits of this process's group and of all groups above it. ok
// is false if they cannot be read.
func Read(root string) (m Memory, ok bool) {
	mount, own, version := find(root)
	if version == 0 {
		return Memory{}, false
	}
	m = Memory{Version: version, Path: own, Dir: filepath.Join(root, mount, own), Limit: Unlimited, Room: Unlimited}
	for group := own; ; group = path.Dir(group) {
		m.restrict(group, filepath.Join(root, mount, group))
		if group == "/" || group == "." {
			return m, true
		}
	}
}

// files are the names of a group's files, by version.
var files = map[int]struct {
	limits []string
	used   string
	cached []string // in memory.stat: pages of files, which can be given back
}{
	1: {[]string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", []string{"total_active_file", "total_inactive_file"}},
	2: {[]string{"memory.max", "memory.high"}, "memory.current", []string{"active_file", "inactive_file"}},
}

// noLimit is above every real limit. Version 1 has no word for "none": it shows
// the largest number of pages, in bytes.
const noLimit = 1 << 62

// restrict takes the limits of one group into account, whose files are in dir.
func (m *Memory) restrict(group, dir string) {
	names := files[m.Version]
	limit := Unlimited
	for _, name := range names.limits {
		if n, ok := number(dir, name); ok && n < noLimit {
			limit = min(limit, n)
		}
	}
	if limit == Unlimited {
		return
	}
	used, _ := number(dir, names.used)
	for line := range strings.Lines(text(dir, "memory.stat")) {
		if fields := strings.Fields(line); len(fields) == 2 && slices.Contains(names.cached, fields[0]) {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			used -= n
		}
	}
	used = max(0, used)
	m.Limit = min(m.Limit, limit)
	if room := max(0, limit-used); room < m.Room {
		m.Room, m.Tight, m.Used = room, group, used
	}
}

// find returns where the groups that limit memory are mounted, and which of
// them this process is in. Some machines mount both versions; memory belongs to
// one of them.
func find(root string) (mount, own string, version int) {
	groups := ownGroups(root)
	for line := range strings.Lines(text(root, "proc/self/mountinfo")) {
		head, tail, _ := strings.Cut(line, " - ") // proc_pid_mountinfo(5)
		left, right := strings.Fields(head), strings.Fields(tail)
		if len(left) < 5 || len(right) < 3 {
			continue
		}
		top, point := left[3], left[4]
		switch kind, options := right[0], strings.Split(right[2], ","); {
		case kind == "cgroup" && slices.Contains(options, "memory"):
			return point, below(root, point, top, groups[1]), 1
		case kind == "cgroup2" && version == 0:
			mount, own, version = point, below(root, point, top, groups[2]), 2
		}
	}
	return mount, own, version
}

// ownGroups are the groups of this process, by the version that has them.
func ownGroups(root string) map[int]string {
	groups := map[int]string{}
	for line := range strings.Lines(text(root, "proc/self/cgroup")) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(fields) != 3:
		case fields[0] == "0":
			groups[2] = fields[2]
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			groups[1] = fields[2]
		}
	}
	return groups
}

// below returns a group's path below a mount whose top is another group. In a
// container the process's own group may be the top, while /proc still shows the
// whole path.
func below(root, mount, top, group string) string {
	if top != "/" {
		if rest, found := strings.CutPrefix(group, top); found {
			group = rest
		}
	}
	group = path.Clean("/" + group)
	if _, err := os.Stat(filepath.Join(root, mount, group)); err != nil {
		return "/"
	}
	return group
}

// text reads a file; "" if it cannot be read.
func text(dir, name string) string {
	b, _ := os.ReadFile(filepath.Join(dir, name))
	return string(b)
}

// number reads a file that holds one number.
func number(dir, name string) (n int64, ok bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(text(dir, name)), 10, 64)
	return n, err == nil
}
