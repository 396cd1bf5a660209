package tuning

import (
	"testing"
)

// The recommended limit of a group includes what the group uses already.
func TestAGroupsRecommendedLimitIncludesWhatItUses(t *testing.T) {
	m := mustRead(t, fixture(t, "cgroup2"))
	f := finding(t, m, Demand{Conns: 300_000, Server: true, Fanout: 32}, "cgroup memory")
	if m.cgroup().Used+f.Need != fieldOf(f.Want, 0) {
		t.Errorf("%d are needed, and %s would be given", f.Need, f.Want)
	}
}

func TestGroupsThatCannotBeSeen(t *testing.T) {
	if c := mustRead(t, fixture(t, "garbage")).cgroup(); c.Version != 0 || c.Room != Unknown || c.Limit != Unknown {
		t.Errorf("%+v", c)
	}
}

func TestTheGroupThatLeavesLeastIsNamed(t *testing.T) {
	d := Demand{Conns: 1, Server: true}
	m := mustRead(t, fixture(t, "cgroup2"))
	if got := cgroupNote(d, m); got != "/kubepods/pod7, which is above /kubepods/pod7/lull" {
		t.Errorf("%q", got)
	}
	put(t, m, "sys/fs/cgroup/kubepods/pod7/lull/memory.high", "943718400\n")
	if got := cgroupNote(d, m); got != "/kubepods/pod7/lull, of 900 MiB" {
		t.Errorf("%q", got)
	}
	if got := cgroupNote(d, mustRead(t, fixture(t, "amazon"))); got != "cgroup v2 sets none" {
		t.Errorf("%q", got)
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
		{"namespace", "user namespace", "not the first: root here is not root outside, and cannot set fs.*"},
		{"namespace", "network namespace", "not the first: tcp_mem, tcp_max_orphans, netdev_max_backlog and conntrack's maximum are set outside"},
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

// Version 1 charges a server neither for the sockets that it accepts nor for messages
// that wait, version 2 for both.
func TestWhatAGroupIsChargedForAConnection(t *testing.T) {
	one := Demand{Conns: 1, Server: true, Fanout: 32}
	other := Demand{Conns: 1, Generator: true, Fanout: 32}
	v2 := mustRead(t, fixture(t, "cgroup2"))
	v1 := mustRead(t, fixture(t, "cgroup2"))
	put(t, v1, "proc/1/mountinfo", "30 23 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
	put(t, v1, "proc/1/cgroup", "4:memory:/lull\n")
	put(t, v1, "sys/fs/cgroup/memory/lull/memory.limit_in_bytes", "1000000\n")
	put(t, v1, "sys/fs/cgroup/memory/lull/memory.usage_in_bytes", "0\n")
	if got := v1.cgroup().Version; got != 1 {
		t.Fatalf("version %d", got)
	}
	const accepted, page = 2520.6 + 92, 4096
	for d, less := range map[Demand]float64{one: accepted + page, other: page} {
		if got := v2.chargedEach(d) - v1.chargedEach(d); !near(got, less, 0.001) {
			t.Errorf("%+v: %f bytes less, want %f", d, got, less)
		}
	}
}
