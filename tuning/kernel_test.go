package tuning

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBucketsOfTheHashTable(t *testing.T) {
	rows := []struct {
		told   string
		memory int64
		want   int64
	}{
		{"131072", 1 << 40, 131072},
		{"-262144", 1 << 30, 262144}, // of the first namespace
		{"", 16463508 << 10, 131072}, // 15.7 GiB ÷ 128 KiB, a power of two
		{"", 16 << 30, 131072},
		{"", 1 << 30, 8192},
		{"", 1 << 40, 524288}, // the default maximum
		{"", 128 << 10, 1},
		{"", 1000, Unknown},
		{"", Unknown, Unknown},
	}
	for _, r := range rows {
		m := &Machine{root: t.TempDir(), Memory: r.memory}
		if r.told != "" {
			write(t, m, map[string]string{"net.ipv4.tcp_ehash_entries": r.told})
		}
		if got := m.buckets(); got != r.want {
			t.Errorf("%q, %d bytes: %d buckets, want %d", r.told, r.memory, got, r.want)
		}
	}
}

// The row of TCP's hash table says whose table it is, how many sockets share a
// bucket, and what to set: a power of two.
func TestTheHashTablesRow(t *testing.T) {
	rows := []struct {
		told, note, want string
		demand           Demand
		state            State
	}{
		{"262144", "7.6 sockets in a bucket", "2097152", million, Raise},
		{"2097152", "", "2097152", million, OK},
		{"-262144", "3.8 sockets in a bucket; the first network namespace's", "1048576", Demand{Conns: 1_000_000, Server: true}, Raise},
		{"-262144", "the first network namespace's", "262144", Demand{Conns: 131_072, Server: true, Generator: true}, OK},
		{"262144", "", "128", Demand{Conns: 65, Server: true, Generator: false}, OK},
		{"262144", "64.0 sockets in a bucket", "16777216", Demand{Conns: 16 << 20, Server: true}, Raise},
		{"", "15.3 sockets in a bucket; estimated: this kernel does not show it, and namespaces have none of their own", "2097152", million, Raise}, // 16 GiB: 131,072
	}
	for _, r := range rows {
		m := &Machine{root: t.TempDir(), Memory: 16 << 30}
		if r.told != "" {
			write(t, m, map[string]string{"net.ipv4.tcp_ehash_entries": r.told})
		}
		f := finding(t, m, r.demand, "TCP hash table")
		if f.State() != r.state || f.Note != r.note || f.Want != r.want {
			t.Errorf("%q for %d: %s, %q, %s", r.told, r.demand.Conns, f.State(), f.Note, f.Want)
		}
		if fix := f.Fix(); !strings.Contains(fix, "thash_entries="+r.want) || !strings.Contains(fix, "tcp_child_ehash_entries="+r.want) {
			t.Errorf("%s", fix)
		}
	}
}

func TestReservedPortsAreNotOffered(t *testing.T) {
	for reserved, want := range map[string]int{
		"": 64512, "1024": 64511, "1-1023": 64512, "1000-1030,65535": 64504, "0-65535": 0, "garbage": 64512, "9-8": 64512,
	} {
		m := &Machine{root: t.TempDir()}
		write(t, m, map[string]string{"net.ipv4.ip_local_reserved_ports": reserved})
		if got := m.ports(); got != want {
			t.Errorf("%q: %d ports, want %d", reserved, got, want)
		}
	}
}

// An interface has 15 addresses that count. Loopback, network and link-local addresses
// do not.
func TestSourcesAreTheMachinesOwn(t *testing.T) {
	if got := mustRead(t, fixture(t, "debian")).Sources(); got != 15 {
		t.Errorf("%d addresses", got)
	}
	if got := mustRead(t, fixture(t, "amazon")).Sources(); got != SourcesUnknown {
		t.Errorf("%d addresses without a table of them", got)
	}
	m := &Machine{root: t.TempDir()}
	put(t, m, "proc/net/fib_trie", "Local:\n  +-- 127.0.0.0/8 2 0 2\n   |-- 127.0.0.1\n      /32 host LOCAL\n")
	if got := m.Sources(); got != 0 {
		t.Errorf("%d addresses of loopback alone", got)
	}
}

func TestSourcesThatCannotBeCountedCannotBeSeen(t *testing.T) {
	f := finding(t, plenty(t), Demand{Conns: 10, Generator: true, Sources: SourcesUnknown}, "source ports")
	if f.State() != Unseen || verdictOf([]Finding{f}) != CannotTell {
		t.Errorf("%+v is %s", f, f.State())
	}
}

func TestHugePages(t *testing.T) {
	for _, r := range []struct {
		enabled, none string
		want          int64
	}{
		{"[always] madvise never", "511", 0},
		{"[always] madvise never", "0", 1},
		{"always [madvise] never", "511", 1},
		{"always madvise [never]", "511", 1},
		{"", "", Unknown},
	} {
		m := &Machine{root: t.TempDir()}
		put(t, m, "sys/kernel/mm/transparent_hugepage/enabled", r.enabled+"\n")
		put(t, m, "sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none", r.none+"\n")
		if got := m.smallPages(); got != r.want {
			t.Errorf("%q, %q: %d", r.enabled, r.none, got)
		}
	}
}

func TestGOMEMLIMITIsReadAsGoDoes(t *testing.T) {
	for value, want := range map[string]int64{
		"":                    Unlimited,
		"1000":                1000,
		"1000B":               1000,
		"2KiB":                2048,
		"3MiB":                3 << 20,
		"12GiB":               12 << 30,
		"1TiB":                1 << 40,
		"off":                 Unlimited,
		"-5":                  Unlimited,
		"9999999TiB":          Unlimited,
		"9223372036854775807": Unlimited,
	} {
		m := &Machine{root: t.TempDir()}
		put(t, m, "proc/self/environ", "HOME=/root\x00GOMEMLIMIT="+value+"\x00PATH=/bin\x00")
		if got := m.goMemory(); got != want {
			t.Errorf("%q: %d, want %d", value, got, want)
		}
	}
}

// A million connections take 4.08 GB of the kernel's memory. Go may have nine tenths
// of the rest of 16 GiB.
func TestGOMEMLIMITLeavesTheKernelItsOwn(t *testing.T) {
	m := &Machine{root: t.TempDir(), Memory: 16 << 30}
	d := Demand{Conns: 1_000_000, Server: true}
	for value, want := range map[string]State{"11GiB": OK, "13GiB": Raise} { // (17.18 − 4.08) × 0.9 = 10.98 GiB
		put(t, m, "proc/self/environ", "GOMEMLIMIT="+value+"\x00")
		if f := finding(t, m, d, "GOMEMLIMIT"); value == "11GiB" && f.Have != (16<<30-4_084_900_000)/10*9 || value == "13GiB" && f.State() != want {
			t.Errorf("%s: %+v is %s", value, f, f.State())
		}
	}
}

func TestENAShowsHowManyConnectionsAreTracked(t *testing.T) {
	m := mustRead(t, fixture(t, "cgroup2")) // an m5.xlarge
	d := Demand{Conns: 100_000, Server: true}
	if f := finding(t, m, d, "security groups"); f.State() != Unseen {
		t.Errorf("without ENA: %+v", f)
	}
	for device, driver := range map[string]string{"eth0": "ena", "eth1": "ena", "eth2": "ixgbevf"} {
		dir := filepath.Join(m.root, "sys/class/net", device, "device")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../../../bus/pci/drivers/"+driver, filepath.Join(dir, "driver")); err != nil {
			t.Fatal(err)
		}
	}
	left := map[string]uint64{"eth0": 90_000, "eth1": 136_000, "eth2": 1}
	m.stats = func(device string) (map[string]uint64, error) {
		return map[string]uint64{"conntrack_allowance_available": left[device], "pps_allowance_exceeded": 4, "rx_packets": 9}, nil
	}
	if f := finding(t, m, d, "security groups"); f.Have != 90_000 || f.State() != Raise || f.Conns != 90_000 {
		t.Errorf("%+v is %s", f, f.State())
	}
	// Connections within the machine pass no security group.
	d.Generator = true
	if f := finding(t, m, d, "security groups"); f.State() != OK {
		t.Errorf("%+v is %s", f, f.State())
	}
	if c := m.Counters(); c["ena pps_allowance_exceeded"] != 8 || c["ena rx_packets"] != 0 {
		t.Errorf("counted %v", c)
	}
	m.stats = func(string) (map[string]uint64, error) { return nil, errors.New("not permitted") }
	if f := finding(t, m, Demand{Conns: 1, Server: true}, "security groups"); f.State() != Unseen {
		t.Errorf("without its counters: %+v", f)
	}
}

func TestCountersThatMove(t *testing.T) {
	m := mustRead(t, fixture(t, "conntrack"))
	before := m.Counters()
	if before["ListenOverflows"] != 345 || before["conntrack drop"] != 17 || before["softnet squeezed"] != 4 {
		t.Errorf("%v", before)
	}
	if moved := m.Counters().Since(before); len(moved) != 0 {
		t.Errorf("moved: %v", moved)
	}
	put(t, m, "proc/1/net/netstat", "TcpExt: ListenOverflows ListenDrops TCPAbortOnMemory\nTcpExt: 350 300 7\n")
	// Counters that are lower than before, or new, do not count as grown.
	if moved := m.Counters().Since(before); len(moved) != 1 || moved["ListenOverflows"] != 5 {
		t.Errorf("moved: %v", moved)
	}
	if c := (&Machine{root: t.TempDir()}).Counters(); len(c) != 0 {
		t.Errorf("counted %v on no machine", c)
	}
}

func TestCountersOfThisMachine(t *testing.T) {
	c := mustRead(t, "/").Counters()
	for _, name := range []string{"ListenOverflows", "TCPTimeWaitOverflow", "softnet dropped"} {
		if _, found := c[name]; !found {
			t.Errorf("no %s in %v", name, c)
		}
	}
}
