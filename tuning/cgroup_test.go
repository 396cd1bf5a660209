package tuning

import (
	"testing"
)

func TestTheTightestGroupCounts(t *testing.T) {
	m := mustRead(t, fixture(t, "cgroup2"))
	c := m.cgroup()
	// The pod's 1536 MiB, of which 500 are used, 200 of those for files.
	if want := (cgroup{Version: 2, Path: "/kubepods/pod7/lull", Limit: 1536 << 20, Room: 1236 << 20, Of: "/kubepods/pod7", OfUsed: 300 << 20}); c != want {
		t.Errorf("%+v, want %+v", c, want)
	}
	// Its own leaves 2048 − 300 = 1748 MiB; memory.high makes that 900 − 300.
	put(t, m, "sys/fs/cgroup/kubepods/pod7/lull/memory.high", "943718400\n")
	if c := m.cgroup(); c.Room != 600<<20 || c.Of != "/kubepods/pod7/lull" {
		t.Errorf("%+v", c)
	}
	// More used than allowed is no room, not less.
	put(t, m, "sys/fs/cgroup/kubepods/memory.max", "1000\n")
	if c := m.cgroup(); c.Room != 0 || c.Limit != 1000 || c.Of != "/kubepods" {
		t.Errorf("%+v", c)
	}
}

// What a group should have is what it uses, too.
func TestAGroupIsGivenWhatItUsesToo(t *testing.T) {
	m := mustRead(t, fixture(t, "cgroup2"))
	f := finding(t, m, Demand{Conns: 300_000, Server: true, Fanout: 32}, "cgroup memory")
	if m.cgroup().OfUsed+f.Need != fieldOf(f.Want, 0) {
		t.Errorf("%d are needed, and %s would be given", f.Need, f.Want)
	}
}

func TestGroupsOfTheFirstVersion(t *testing.T) {
	m := mustRead(t, fixture(t, "namespace"))
	put(t, m, "proc/1/cgroup", "9:memory:/docker/abc\n4:cpu,cpuacct:/other\n0::/\n")
	const mounts = "22 1 0:1 / / rw - ext4 /dev/vda rw\n" +
		"30 22 0:2 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
		"31 22 0:3 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	put(t, m, "proc/1/mountinfo", mounts)
	none := "9223372036854771712\n"
	put(t, m, "sys/fs/cgroup/memory/memory.limit_in_bytes", none)
	put(t, m, "sys/fs/cgroup/memory/docker/memory.limit_in_bytes", none)
	put(t, m, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", none)
	if c := m.cgroup(); c.Version != 1 || c.Path != "/docker/abc" || c.Room != Unlimited {
		t.Errorf("%+v", c)
	}
	put(t, m, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1000000\n")
	put(t, m, "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "400000\n")
	put(t, m, "sys/fs/cgroup/memory/docker/abc/memory.stat", "cache 300000\ntotal_inactive_file 200000\ntotal_active_file 100000\n")
	if c := m.cgroup(); c.Room != 900_000 || c.Limit != 1_000_000 || c.Of != "/docker/abc" {
		t.Errorf("%+v", c)
	}
	// Inside, its own group may be the top of what is mounted.
	put(t, m, "proc/1/mountinfo", "31 22 0:3 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
	put(t, m, "sys/fs/cgroup/memory/memory.limit_in_bytes", "500000\n")
	if c := m.cgroup(); c.Room != 500_000 || c.Path != "/" {
		t.Errorf("%+v", c)
	}
}

func TestGroupsThatCannotBeSeen(t *testing.T) {
	c := mustRead(t, fixture(t, "garbage")).cgroup()
	if c.Version != 0 || c.Room != Unknown {
		t.Errorf("%+v", c)
	}
	// A path that leads out of what is mounted is not followed.
	m := mustRead(t, fixture(t, "cgroup2"))
	put(t, m, "proc/1/cgroup", "0::/../../elsewhere\n")
	put(t, m, "sys/fs/cgroup/memory.max", "1000\n")
	if c := m.cgroup(); c.Path != "/" || c.Room != 1000 {
		t.Errorf("%+v", c)
	}
}

func TestWhereAProcessRuns(t *testing.T) {
	rows := []struct{ machine, name, want string }{
		{"amazon", "machine", "EC2 m4.xlarge, 4 interfaces × 15 addresses, Xen"},
		{"amazon", "network namespace", "the first"},
		{"amazon", "capabilities", "none that let limits be raised"},
		{"cgroup2", "machine", "EC2 m5.xlarge, 4 interfaces × 15 addresses"},
		{"cgroup2", "sysctls", "read-only: set them outside"},
		{"namespace", "machine", "not on EC2, as far as it says"},
		{"namespace", "user namespace", "not the first: root here is not root outside, and fs.* cannot be set"},
		{"namespace", "network namespace", "not the first: tcp_mem, tcp_max_orphans and netdev_max_backlog are set outside, conntrack's maximum too"},
		{"conntrack", "capabilities", "CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_RESOURCE"},
		{"garbage", "cgroup", "cannot be seen"},
	}
	for _, r := range rows {
		found := false
		for _, f := range mustRead(t, fixture(t, r.machine)).Facts() {
			if f.Name == r.name {
				found = true
				if f.Value != r.want {
					t.Errorf("%s: %s is %q, want %q", r.machine, r.name, f.Value, r.want)
				}
			}
		}
		if !found {
			t.Errorf("%s: no %s", r.machine, r.name)
		}
	}
}

// On Xen only cloud-init knows the type.
func TestAnInstanceThatDoesNotSayItsType(t *testing.T) {
	m := mustRead(t, fixture(t, "amazon"))
	put(t, m, "run/cloud-init/instance-data.json", "{")
	if c := m.cloud(); !c.EC2 || !c.Xen || c.Type != "" {
		t.Errorf("%+v", c)
	}
}
