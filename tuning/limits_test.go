package tuning

import (
	"math"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/netpoll"
)

// plenty is a machine without a limit that matters, whose sysctls this process
// may not change unless they are made writable.
func plenty(t *testing.T) *Machine {
	m := &Machine{root: t.TempDir(), Memory: 1 << 50, OpenFiles: 1 << 40, Processors: processors}
	write(t, m, map[string]string{
		"fs.nr_open": "1000000000000", "fs.file-max": "1000000000000", "fs.epoll.max_user_watches": "1000000000000",
		"net.core.somaxconn": "65535", "net.ipv4.tcp_mem": "1 1000000000000 1000000000000",
	})
	return m
}

func finding(t *testing.T, m *Machine, d Demand, name string) Finding {
	t.Helper()
	for _, f := range m.Check(d) {
		if f.Limit.Name == name {
			return f
		}
	}
	t.Fatalf("no limit is called %s", name)
	panic("unreachable")
}

// Each row makes one thing scarce. It is enough for the number of connections in the
// row, and stops one connection more.
func TestEachLimitStopsSomewhere(t *testing.T) {
	server, generator := Demand{Server: true}, Demand{Generator: true}
	both := Demand{Server: true, Generator: true}
	private := Demand{Server: true, Private: true}
	sources := Demand{Generator: true, Sources: 16, Targets: 2}
	someSources := Demand{Generator: true, Sources: 1}
	rows := []struct {
		name, why string
		scarce    func(*testing.T, *Machine)
		demand    Demand
		allows    int
	}{
		// A server keeps 64 descriptors for itself, one for its listener, and two
		// for each of four reactors: 73.
		{"RLIMIT_NOFILE", "one table", func(_ *testing.T, m *Machine) { m.OpenFiles = 10_073 }, server, 10_000},
		{"RLIMIT_NOFILE", "server and generator are two processes", func(_ *testing.T, m *Machine) { m.OpenFiles = 10_073 }, both, 10_000},
		{"RLIMIT_NOFILE", "no room at all", func(_ *testing.T, m *Machine) { m.OpenFiles = 70 }, server, 0},
		// 1024 tables, of which each keeps 66 and everybody's wakers: 2000 × 1024.
		{"RLIMIT_NOFILE", "private tables", func(_ *testing.T, m *Machine) { m.OpenFiles = 66 + 1024 + 2000 }, private, 2_048_000},
		// Of 100,000 files 20,000 are open.
		{"fs.file-max", "one end", func(t *testing.T, m *Machine) {
			m.Files = 20_000
			write(t, m, map[string]string{"fs.file-max": "100000"})
		}, generator, 80_000},
		{"fs.file-max", "both ends: 80,000 ÷ 2", func(t *testing.T, m *Machine) {
			m.Files = 20_000
			write(t, m, map[string]string{"fs.file-max": "100000"})
		}, both, 40_000},
		// Reactors watch some: 128.
		{"fs.epoll.max_user_watches", "one end", func(t *testing.T, m *Machine) {
			write(t, m, map[string]string{"fs.epoll.max_user_watches": "100128"})
		}, server, 100_000},
		{"fs.epoll.max_user_watches", "both ends, one user: 100,000 ÷ 2", func(t *testing.T, m *Machine) {
			write(t, m, map[string]string{"fs.epoll.max_user_watches": "100128"})
		}, both, 50_000},
		// 64,512 from each address to each target, and 2 % are spare.
		{"source ports", "16 × 2 × 64,512", func(*testing.T, *Machine) {}, sources, 2_023_906},
		{"source ports", "a target at the least", func(*testing.T, *Machine) {}, someSources, 63_248},
		// A socket is 3864.9 bytes, epoll's 208 and a descriptor 12 beside it:
		// 4084.9, and 45 are lull's. The generator's end has 128 more for its port.
		// A process takes 12 MiB; half a gibibyte is everybody else's.
		{"memory", "one end", func(_ *testing.T, m *Machine) { m.Memory = 512<<20 + 12<<20 + 1000*4130 }, server, 1000},
		{"memory", "both ends", func(_ *testing.T, m *Machine) { m.Memory = 512<<20 + 24<<20 + 1000*8388 }, both, 1000},
		{"memory", "what is used", func(_ *testing.T, m *Machine) { m.Memory, m.Used = 3<<30+524<<20+1000*4130, 3<<30 }, server, 1000},
		{"memory", "less than the reserve", func(_ *testing.T, m *Machine) { m.Memory = 100 << 20 }, server, 0},
		// A small message that waits takes 1064 bytes and itself: 32 make 1096.
		{"memory", "with a message", func(_ *testing.T, m *Machine) { m.Memory = 524<<20 + 1000*5226 }, Demand{Server: true, Fanout: 32}, 1000},
		// Conntrack's entry and its place are 272.
		{"memory", "tracked", func(t *testing.T, m *Machine) {
			m.Memory = 524<<20 + 1000*4402
			write(t, m, map[string]string{"net.netfilter.nf_conntrack_count": "5"})
		}, server, 1000},
		{"fs.nr_open", "one table", func(t *testing.T, m *Machine) { write(t, m, map[string]string{"fs.nr_open": "1048576"}) }, server, 1_048_503},
		// 7 of conntrack's 262,144 are somebody else's.
		{"net.netfilter.nf_conntrack_max", "rules that look", func(t *testing.T, m *Machine) {
			write(t, m, map[string]string{"net.netfilter.nf_conntrack_max": "262144", "net.netfilter.nf_conntrack_count": "7"})
		}, both, 262_137},
		// 64,512 less 8080 and 9000 to 9009; 80 was none of them.
		{"source ports", "reserved", func(t *testing.T, m *Machine) {
			write(t, m, map[string]string{"net.ipv4.ip_local_reserved_ports": "80,8080,9000-9009"})
		}, someSources, 63_237},
	}
	for _, r := range rows {
		t.Run(r.name+", "+r.why, func(t *testing.T) {
			m := plenty(t)
			r.scarce(t, m)
			protect(t, m)
			asAnybody(t, func() {
				d := r.demand
				d.Conns = r.allows
				if most, by := m.Largest(d); most != r.allows || by != nil {
					t.Errorf("%d connections: %d, stopped by %+v", d.Conns, most, by)
				}
				if f := finding(t, m, d, r.name); f.Conns != r.allows {
					t.Errorf("allows %d, want %d", f.Conns, r.allows)
				}
				d.Conns++
				if most, by := m.Largest(d); most != r.allows || by == nil || by.Name != r.name {
					t.Errorf("%d connections: %d, stopped by %+v", d.Conns, most, by)
				}
			})
		})
	}
}

// If private tables are not allowed, they allow no connection.
func TestPrivateTablesThatAreDeniedStopEverything(t *testing.T) {
	const name = "private descriptor tables"
	for denial, want := range map[error]Finding{
		unix.EPERM: {Have: 0, Conns: 0, Note: unix.EPERM.Error()},
		nil:        {Have: 1, Conns: math.MaxInt},
	} {
		m := plenty(t)
		m.tryPrivate = func() error { return denial }
		d := Demand{Conns: 1000, Server: true, Private: true}
		if f := finding(t, m, d, name); f.Have != want.Have || f.Conns != want.Conns || f.Note != want.Note || f.OK() != (denial == nil) {
			t.Errorf("denied with %v: %+v", denial, f)
		}
		if _, refusal := m.preflight(d); (refusal != nil) != (denial != nil) {
			t.Errorf("denied with %v: refused with %v", denial, refusal)
		} else if denial != nil && (!strings.Contains(refusal.Error(), name) || !strings.Contains(refusal.Error(), "--fd-tables shared")) {
			t.Errorf("%v does not say what to do", refusal)
		}
		if m.Private(netpoll.Auto) != (denial == nil) || !m.Private(netpoll.Private) || m.Private(netpoll.Shared) {
			t.Errorf("denied with %v: auto means private: %v", denial, m.Private(netpoll.Auto))
		}
		if d.Private = false; finding(t, m, d, name).State() != OK {
			t.Errorf("denied with %v: shared tables are %+v", denial, finding(t, m, d, name))
		}
	}
}

// A limit that is exactly as high as needed is OK, and one below it is not.
func TestFindingsCompareNeedAndHave(t *testing.T) {
	server := Demand{Server: true, Conns: 1000}
	both := Demand{Server: true, Generator: true, Conns: 1000}
	rows := []struct {
		name   string
		demand Demand
		need   int64
	}{
		{"RLIMIT_NOFILE", server, 1073},                                  // 73 + 1000
		{"RLIMIT_NOFILE", Demand{Private: true, Conns: 1_000_000}, 2066}, // 65 + 1024 + 976.6
		{"fs.file-max", both, 2000},                                      // none open yet
		{"fs.epoll.max_user_watches", both, 2128},                        // 128 + 2 × 1000
		{"memory", server, 524<<20 + 4_129_901},                          // 1000 × 4129.9, above, rounded up
		{"fs.nr_open", server, 1073},
		{"net.core.somaxconn", server, 65_535},                          // whatever their number
		{"net.core.somaxconn", Demand{Generator: true, Conns: 1000}, 0}, // only for servers
		{"net.ipv4.tcp_mem", Demand{Conns: 1000, Fanout: 32}, 1000},     // a page each
		{"net.ipv4.tcp_mem", Demand{Conns: 1000, Fanout: 4096}, 2000},   // 1064 + 4096 bytes are two
		{"net.ipv4.tcp_mem", server, 0},                                 // no message
		{"TCP hash table", server, 1000},                                // one for each socket
		{"TCP hash table", both, 2000},
		{"net.ipv4.tcp_tw_reuse", server, 0},
		{"net.ipv4.tcp_tw_reuse", both, 1},
	}
	for _, r := range rows {
		m := plenty(t)
		f := finding(t, m, r.demand, r.name)
		if f.Need != r.need || !f.OK() {
			t.Errorf("%s for %+v: need %d, want %d; OK is %v", r.name, r.demand, f.Need, r.need, f.OK())
		}
		for have, ok := range map[int64]bool{r.need: true, r.need + 1: true, r.need - 1: false, Unknown: true} {
			if f.Have = have; f.OK() != (ok || r.need == 0) {
				t.Errorf("%s: OK is %v with %d of %d", r.name, f.OK(), have, f.Need)
			}
		}
	}
}

func TestSoftLimitsStopNoConnection(t *testing.T) {
	m := plenty(t)
	write(t, m, map[string]string{"net.core.somaxconn": "128", "net.ipv4.tcp_mem": "100 50000 90000"})
	protect(t, m)
	d := Demand{Conns: 1_000_000, Server: true, Fanout: 32}
	asAnybody(t, func() {
		if most, by := m.Largest(d); most != d.Conns || by != nil {
			t.Errorf("%d, stopped by %+v", most, by)
		}
	})
	for name, conns := range map[string]int{"net.core.somaxconn": math.MaxInt, "net.ipv4.tcp_mem": 50_000} {
		if f := finding(t, m, d, name); f.OK() || f.Conns != conns {
			t.Errorf("%s: OK is %v, for %d connections", name, f.OK(), f.Conns)
		}
	}
}

// Limits that Raise can raise do not count.
func TestSysctlsThatCanBeRaisedStopNoConnection(t *testing.T) {
	m := plenty(t)
	write(t, m, map[string]string{"fs.file-max": "1000", "fs.epoll.max_user_watches": "900"})
	d := Demand{Conns: 1_000_000, Server: true}
	if most, by := m.Largest(d); most != d.Conns || by != nil {
		t.Errorf("%d, stopped by %+v", most, by)
	}
	protect(t, m)
	asAnybody(t, func() {
		if most, by := m.Largest(d); most != 772 || by == nil || by.Name != "fs.epoll.max_user_watches" { // 900 − 128
			t.Errorf("%d, stopped by %+v", most, by)
		}
	})
}

func TestTheLowestLimitIsNamed(t *testing.T) {
	rows := []struct {
		machine string
		demand  Demand
		most    int
		by      string
	}{
		// 65,535 − 73 descriptors.
		{"m4.xlarge", Demand{Conns: 1_000_000, Server: true}, 65_462, "RLIMIT_NOFILE"},
		// 3,663,543 − 128 watches; memory would do for
		// (14.99 GiB − 524 MiB) ÷ 4129.9 = 3,764,402.
		{"m4.xlarge", Demand{Conns: 4_000_000, Server: true, Private: true}, 3_663_415, "fs.epoll.max_user_watches"},
		{"m4.xlarge", Demand{Conns: 1_000_000, Server: true, Private: true}, 1_000_000, ""},
		// 3,663,415 watches ÷ 2, where memory would do for 1,851,978.
		{"m4.xlarge", Demand{Conns: 2_000_000, Server: true, Generator: true, Private: true}, 1_831_707, "fs.epoll.max_user_watches"},
		// 10 × 64,512 ÷ 1.02.
		{"m4.xlarge", Demand{Conns: 1_000_000, Generator: true, Private: true, Sources: 10, Targets: 1}, 632_471, "source ports"},
		// 4096 − 73 descriptors.
		{"container", Demand{Conns: 100_000, Server: true}, 4023, "RLIMIT_NOFILE"},
		// (1 GiB − 512 MiB − 12 MiB) ÷ 4129.9.
		{"container", Demand{Conns: 1_000_000, Server: true, Private: true}, 126_949, "memory"},
		// (197,318 − 2336) ÷ 2 = 97,491 files, but memory ends first.
		{"container", Demand{Conns: 1_000_000, Server: true, Generator: true, Private: true}, 61_005, "memory"},
		{"container", Demand{Conns: 0, Server: true}, 0, ""},
		{"garbage", Demand{Conns: 1_000_000, Server: true, Generator: true}, 1_000_000, ""},
	}
	for _, r := range rows {
		m := mustRead(t, fixture(t, r.machine))
		protect(t, m)
		asAnybody(t, func() {
			most, by := m.Largest(r.demand)
			name := ""
			if by != nil {
				name = by.Name
			}
			if most != r.most || name != r.by {
				t.Errorf("%s, %+v: %d by %q, want %d by %q", r.machine, r.demand, most, name, r.most, r.by)
			}
		})
	}
}

func TestUnknownLimitsStopNoConnection(t *testing.T) {
	m := &Machine{root: t.TempDir(), Memory: Unknown, Used: Unknown, OpenFiles: Unknown, Files: Unknown}
	d := Demand{Conns: 2_000_000_000, Server: true, Generator: true}
	if most, by := m.Largest(d); most != d.Conns || by != nil {
		t.Errorf("%d, stopped by %+v", most, by)
	}
	for _, f := range m.Check(d) {
		if !f.OK() || f.Conns < d.Conns || f.Need > 0 && f.Have != Unknown && f.Have != Unlimited && f.Limit.Name != "idle, behind a load balancer" {
			t.Errorf("%s: %+v", f.Limit.Name, f)
		}
	}
}

// Ports are scarce only for a generator, and only if its addresses are given.
func TestSourcePortsLimitOnlyGivenAddresses(t *testing.T) {
	for _, d := range []Demand{
		{Server: true, Conns: 1_000_000, Sources: 1}, {Generator: true, Conns: 1_000_000},
	} {
		if f := finding(t, plenty(t), d, "source ports"); !f.OK() || f.Conns < d.Conns {
			t.Errorf("%+v: %+v", d, f)
		}
	}
}

// fs.file-max does not apply to root.
func TestThePrivilegedOpenAsManyFilesAsTheyLike(t *testing.T) {
	m := plenty(t)
	write(t, m, map[string]string{"fs.file-max": "10"})
	d := Demand{Conns: 1000, Server: true}
	if f := finding(t, m, d, "fs.file-max"); f.OK() {
		t.Errorf("without privileges: %+v", f)
	}
	m.Privileged = true
	if f := finding(t, m, d, "fs.file-max"); !f.OK() || f.Conns != math.MaxInt {
		t.Errorf("root: %+v", f)
	}
}

// Impossibly large numbers neither overflow nor become negative.
func TestAbsurdDemandsAreJudged(t *testing.T) {
	for _, conns := range []int{1_000_000_000_000, math.MaxInt} {
		for _, d := range []Demand{
			{Server: true, Generator: true},
			{Server: true, Private: true},
			{Generator: true, Sources: 1, Targets: 1},
			{Generator: true, Sources: 1 << 20, Targets: 1 << 10},
		} {
			d.Conns = conns
			m := mustRead(t, fixture(t, "m4.xlarge"))
			for _, f := range m.Check(d) {
				if f.Need < 0 || f.Conns < 0 {
					t.Errorf("%+v: %s needs %d, allows %d", d, f.Limit.Name, f.Need, f.Conns)
				}
				if f.Limit.Name == "memory" && (f.OK() || f.Need < 1_000_000_000_000) {
					t.Errorf("%+v: memory needs %d", d, f.Need)
				}
			}
			if most, by := m.Largest(d); most < 0 || most >= 4_000_000 || by == nil {
				t.Errorf("%+v: %d, stopped by %+v", d, most, by)
			}
		}
	}
}

func TestLimitsSayWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range Limits {
		if l.Name == "" || seen[l.Name] || l.Symptom == "" || l.Fix == "" || l.Where == "" || l.Formula == "" || l.Scope == "" || l.Source == "" || l.have == nil && l.Sysctl == "" {
			t.Errorf("%+v", l)
		}
		if l.Sysctl != "" && !strings.Contains(l.Fix, l.Sysctl) {
			t.Errorf("%s: %q does not name %s", l.Name, l.Fix, l.Sysctl)
		}
		seen[l.Name] = true
	}
}

func TestReactorsAreAsManyAsTablesDemand(t *testing.T) {
	before := keepDescriptors(t)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	// Of 1024 descriptors a table keeps 66, and a waker for each reactor.
	for conns, want := range map[int]int{
		0:             1,
		957:           1, // 1024 − 66 − 1
		958:           2,
		5000:          6,   // 5 × 953 = 4765 < 5000 ≤ 6 × 952
		229_000:       458, // 457 × 501 = 228,957 < 229,000 = 458 × 500
		1_000_000_000: 479, // 479 × 479 is the most there can be
	} {
		if got := Reactors(conns); got != max(want, runtime.NumCPU()) {
			t.Errorf("%d reactors for %d connections, want %d", got, conns, want)
		}
	}
}

// Too few source ports are not OK.
func TestPortsThatDoNotSufficeAreNotOK(t *testing.T) {
	d := Demand{Conns: 63_249, Generator: true, Sources: 1, Targets: 1}
	if f := finding(t, plenty(t), d, "source ports"); f.OK() || f.Conns != 63_248 {
		t.Errorf("OK is %v: have %d, need %d, for %d connections", f.OK(), f.Have, f.Need, f.Conns)
	}
	d.Conns--
	if f := finding(t, plenty(t), d, "source ports"); !f.OK() {
		t.Errorf("%+v", f)
	}
}

// Source ports are counted exactly as the generator counts them: N and 2 % of N must not
// be more than there are.
func TestPortsAreCountedToTheLast(t *testing.T) {
	m := plenty(t)
	for sources := 1; sources <= 1000; sources++ {
		needs := func(conns int) int { return conns + conns*2/100 }
		f := finding(t, m, Demand{Conns: 1, Generator: true, Sources: sources, Targets: 1}, "source ports")
		if needs(f.Conns) > sources*64_512 || needs(f.Conns+1) <= sources*64_512 {
			t.Fatalf("%d addresses: %d connections", sources, f.Conns)
		}
	}
}

// A limit that is OK stops no connection.
func TestLimitsThatAreOKStopNoConnection(t *testing.T) {
	m := plenty(t)
	const all = "9223372036854775807" // systemd's fs.file-max
	m.OpenFiles, m.Memory = 1<<62, 1<<62
	write(t, m, map[string]string{"fs.nr_open": all, "fs.file-max": all, "fs.epoll.max_user_watches": all, "net.ipv4.tcp_mem": "1 " + all + " " + all})
	protect(t, m)
	asAnybody(t, func() {
		d := Demand{Conns: 1_000_000_000_000, Server: true}
		for _, f := range m.Check(d) {
			if f.OK() && f.Conns < d.Conns {
				t.Errorf("%s is OK but allows %d", f.Limit.Name, f.Conns)
			}
		}
		if most, by := m.Largest(d); by != nil {
			t.Errorf("%d, stopped by %s", most, by.Name)
		}
	})
}

// With few descriptors in a table there are fewer tables, not none.
func TestSmallPrivateTablesHoldSome(t *testing.T) {
	for limit, want := range map[int64]int{
		1024: 229_441, // 479 tables with 1024 − 66 − 479 connections
		256:  9025,    // 95 tables with 256 − 66 − 95
		64:   0,       // less than each keeps
	} {
		m := plenty(t)
		m.OpenFiles = limit
		d := Demand{Conns: 1_000_000, Server: true, Private: true}
		if most, by := m.Largest(d); most != want || by == nil || by.Name != "RLIMIT_NOFILE" {
			t.Errorf("limit %d: %d, want %d", limit, most, want)
		}
	}
}

// An unknown number of open files counts as zero.
func TestUnknownFilesAreNone(t *testing.T) {
	m := plenty(t)
	m.Files = Unknown
	if f := finding(t, m, Demand{Conns: 10, Server: true}, "fs.file-max"); f.Need != 10 {
		t.Errorf("need %d", f.Need)
	}
}

// Where both ends are here, reuse over loopback alone is enough: doctor and tune agree.
func TestPortsInTIMEWAITAreReusedWhereThatMatters(t *testing.T) {
	const name = "net.ipv4.tcp_tw_reuse"
	rows := []struct {
		now    string
		server bool
		state  State
		after  string
	}{
		{"2", true, OK, "2"}, {"0", true, Raise, "2"}, {"1", true, OK, "1"},
		{"2", false, Raise, "1"}, {"0", false, Raise, "1"}, {"1", false, OK, "1"},
	}
	for _, r := range rows {
		m := plenty(t)
		write(t, m, map[string]string{name: r.now})
		f := finding(t, m, Demand{Conns: 1, Server: r.server, Generator: true}, name)
		after, err := f.setting().raise(r.now)
		if f.State() != r.state || after != r.after || err != nil {
			t.Errorf("%+v: %s, to %s, %v", r, f.State(), after, err)
		}
	}
}
