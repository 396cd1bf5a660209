package cgroup

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine makes a tree of files, by path and content.
func machine(t *testing.T, sets ...map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for _, files := range sets {
		for path, text := range files {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

const (
	mib  = 1 << 20
	none = "9223372036854771712\n" // version 1's
)

var (
	sixteenGiB = map[string]string{"proc/meminfo": "MemTotal:       16777216 kB\nMemFree:        1000 kB\n"}

	// A pod of version 2 may have 1536 MiB: 500 are used, 200 of those for files.
	nested = map[string]string{
		"proc/self/cgroup":                                "0::/kubepods/pod7/lull\n",
		"proc/self/mountinfo":                             "22 1 0:1 / / rw - ext4 /dev/vda rw\n30 22 0:2 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
		"sys/fs/cgroup/kubepods/memory.max":               "max\n",
		"sys/fs/cgroup/kubepods/pod7/memory.max":          "1610612736\n",
		"sys/fs/cgroup/kubepods/pod7/memory.current":      "524288000\n",
		"sys/fs/cgroup/kubepods/pod7/memory.stat":         "anon 1\nactive_file 104857600\ninactive_file 104857600\n",
		"sys/fs/cgroup/kubepods/pod7/lull/memory.max":     "2147483648\n",
		"sys/fs/cgroup/kubepods/pod7/lull/memory.high":    "max\n",
		"sys/fs/cgroup/kubepods/pod7/lull/memory.current": "314572800\n",
	}

	// Both versions are mounted, and memory belongs to the first.
	v1 = map[string]string{
		"proc/self/cgroup": "9:memory:/docker/abc\n4:cpu,cpuacct:/other\n0::/\n",
		"proc/self/mountinfo": "22 1 0:1 / / rw - ext4 /dev/vda rw\n30 22 0:2 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
			"31 22 0:3 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n",
		"sys/fs/cgroup/memory/memory.limit_in_bytes":            none,
		"sys/fs/cgroup/memory/docker/memory.limit_in_bytes":     none,
		"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "1000000\n",
		"sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": "400000\n",
		"sys/fs/cgroup/memory/docker/abc/memory.stat":           "cache 300000\ntotal_inactive_file 200000\ntotal_active_file 100000\n",
	}
)

// with returns a copy of a set in which some files are others.
func with(files map[string]string, others map[string]string) map[string]string {
	files = maps.Clone(files)
	maps.Copy(files, others)
	return files
}

func TestTheSmallestLimitCounts(t *testing.T) {
	unlimited := map[string]string{"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": none}
	rows := []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"no groups", nil, 16384 * mib},
		{"version 2, the pod's", nested, 1536 * mib},
		{"version 2, its own memory.high", with(nested, map[string]string{"sys/fs/cgroup/kubepods/pod7/lull/memory.high": "943718400\n"}), 900 * mib},
		{"version 2, the topmost", with(nested, map[string]string{"sys/fs/cgroup/kubepods/memory.max": "1000\n"}), 1000},
		{"version 2, more than the machine has", with(nested, map[string]string{"sys/fs/cgroup/kubepods/pod7/memory.max": "max",
			"sys/fs/cgroup/kubepods/pod7/lull/memory.max": "99999999999999\n"}), 16384 * mib},
		{"version 1", v1, 1_000_000},
		{"version 1, none", with(v1, unlimited), 16384 * mib},
		{"version 1, one above", with(with(v1, unlimited), map[string]string{"sys/fs/cgroup/memory/docker/memory.limit_in_bytes": "700000\n"}), 700_000},
	}
	for _, r := range rows {
		if got, ok := MemoryLimit(machine(t, sixteenGiB, r.files)); got != r.want || !ok {
			t.Errorf("%s: %d, %t, want %d", r.name, got, ok, r.want)
		}
	}
}

func TestALimitIsFoundWithoutMeminfo(t *testing.T) {
	if got, ok := MemoryLimit(machine(t, nested)); got != 1536*mib || !ok {
		t.Errorf("%d, %t", got, ok)
	}
}

func TestAMachineThatCannotBeReadHasNoLimit(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"nothing": {}, "garbage": {"proc/meminfo": "MemTotal: much kB\n", "proc/self/mountinfo": "1 2 - \n\n - cgroup2", "proc/self/cgroup": "::\n0\n"},
	} {
		root := machine(t, files)
		if bytes, ok := MemoryLimit(root); ok {
			t.Errorf("%s: %d", name, bytes)
		}
		if m, ok := Read(root); ok {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestTheTightestGroupIsNamed(t *testing.T) {
	rows := []struct {
		files map[string]string
		want  Memory
	}{
		{nested, Memory{2, "/kubepods/pod7/lull", 1536 * mib, 1236 * mib, "/kubepods/pod7", 300 * mib, "sys/fs/cgroup/kubepods/pod7/lull"}},
		// Its own leaves 2048 − 300 MiB; memory.high makes that 900 − 300.
		{with(nested, map[string]string{"sys/fs/cgroup/kubepods/pod7/lull/memory.high": "943718400\n"}),
			Memory{2, "/kubepods/pod7/lull", 900 * mib, 600 * mib, "/kubepods/pod7/lull", 300 * mib, "sys/fs/cgroup/kubepods/pod7/lull"}},
		// More used than allowed is no room, not less.
		{with(nested, map[string]string{"sys/fs/cgroup/kubepods/memory.max": "1000\n", "sys/fs/cgroup/kubepods/memory.current": "2000\n"}),
			Memory{2, "/kubepods/pod7/lull", 1000, 0, "/kubepods", 2000, "sys/fs/cgroup/kubepods/pod7/lull"}},
		{v1, Memory{1, "/docker/abc", 1_000_000, 900_000, "/docker/abc", 100_000, "sys/fs/cgroup/memory/docker/abc"}},
		{with(v1, map[string]string{"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": none}), Memory{1, "/docker/abc", Unlimited, Unlimited, "", 0, "sys/fs/cgroup/memory/docker/abc"}},
		// In a container its own group may be the top of what is mounted.
		{with(v1, map[string]string{"proc/self/mountinfo": "31 22 0:3 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "500000\n"}), Memory{1, "/", 500_000, 500_000, "/", 0, "sys/fs/cgroup/memory"}},
		// A path that leads out of what is mounted is not followed.
		{with(nested, map[string]string{"proc/self/cgroup": "0::/../../elsewhere\n", "sys/fs/cgroup/memory.max": "1000\n"}),
			Memory{2, "/", 1000, 1000, "/", 0, "sys/fs/cgroup"}},
	}
	for _, r := range rows {
		root := machine(t, r.files)
		r.want.Dir = filepath.Join(root, r.want.Dir)
		if got, ok := Read(root); got != r.want || !ok {
			t.Errorf("%+v, %t, want %+v", got, ok, r.want)
		}
	}
}

func TestThisMachineHasALimit(t *testing.T) {
	if bytes, ok := MemoryLimit("/"); !ok || bytes < mib {
		t.Errorf("%d, %t", bytes, ok)
	}
}

// server imports this package, and with it everything that it imports.
func TestOnlyTheStandardLibraryIsImported(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if own := strings.Fields(string(out)); len(own) != 1 {
		t.Errorf("it imports %q", own)
	}
}
