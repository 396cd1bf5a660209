package tuning

import (
	"fmt"
	"strconv"
)

// Numbers that limits are reckoned with.
const (
	// memoryReserve is left to everything else.
	memoryReserve = 512 << 20
	// descriptorsKept of each table are not connections.
	descriptorsKept = 128
	// watchesKept are what reactors watch beside connections: two each.
	watchesKept = 128
	// reactorsMax is how many reactors, and private tables, a process has.
	reactorsMax = 1024
	// portMin and portMax are what one address offers to each target.
	portMin, portMax = 1024, 65535
	// bucketConns is how many sockets one bucket of TCP's hash table may hold:
	// 7 cost 8.9 µs a packet on loopback, 15 cost 7.9 to 10.6, 117 cost 20 to 27.
	bucketConns = 16
	// tcpMemoryShare is how much of the memory unread messages may be allowed.
	tcpMemoryShare = 0.4
	// trackedSpare is how many more connections than wanted conntrack is given
	// room for: those that were closed stay for two minutes.
	trackedSpare = 1.2
	// balancerIdle is after how many silent seconds AWS's network load balancer
	// forgets a connection. Its application load balancer takes 60.
	balancerIdle = 350
)

// Scope is how far a limit reaches.
type Scope string

// Scopes, the narrowest first.
const (
	Process   Scope = "process"
	Namespace Scope = "netns" // the network namespace
	Host      Scope = "host"
	Cloud     Scope = "cloud"
)

// Unit is what a limit counts.
type Unit string

// Units other than plain numbers.
const (
	Bytes   Unit = "bytes"
	Pages   Unit = "pages"
	Seconds Unit = "seconds"
)

// Limit is something that stands in the way at some number of connections.
type Limit struct {
	Name    string
	Where   string // what it is read from
	Formula string // what N connections take
	Scope   Scope
	Unit    Unit
	Symptom string // what happens when it is hit
	Fix     string // with {} for the value that it takes
	Risk    string // of the fix
	Source  string // of what is said here

	// Sysctl is the key where there is one to raise. Of several numbers the
	// one at index Field is what counts; those behind it are not below it.
	Sysctl string
	Field  int
	// Named sysctls can do harm elsewhere: they are set only by their names.
	Named bool
	// Soft limits make things slow, not impossible.
	Soft bool

	have func(Demand, *Machine) int64 // for a limit that is no sysctl
	// cost is what a demand takes of it: a fixed part, and one for each
	// connection.
	cost func(d Demand, m *Machine) (fixed, each float64)
	// want is what the sysctl is best set to, if that is not what is needed.
	want func(d Demand, m *Machine, need int64) string
	// note is what else a person should know; nil and "" are nothing.
	note func(d Demand, m *Machine) string
}

// Where the facts below are from.
const (
	measured = "measured, Linux 6.18"
	source   = "kernel source"
	vendor   = "AWS documentation"
)

// Limits are those that are known, the cheapest to look at first.
var Limits = []Limit{
	{
		Name: "memory", Where: "/proc/meminfo: MemTotal − what neither is free nor holds a file's pages", Formula: "512 MiB + N × (kernel + user + one unread message)",
		Scope: Host, Unit: Bytes,
		Symptom: "the OOM killer ends the process",
		Fix:     "more memory, or fewer connections",
		Source:  measured + "; MemAvailable is not used: it counts the inodes and dentries of open sockets as free",
		have:    func(_ Demand, m *Machine) int64 { return m.free() },
		cost: func(d Demand, m *Machine) (float64, float64) {
			return memoryReserve + d.ends()*processBytes, m.ramEach(d)
		},
	},
	{
		Name: "cgroup memory", Where: "memory.max and memory.high of the cgroup and of all above it − what they use", Formula: "N × (kernel + user + one unread message in pages)",
		Scope: Process, Unit: Bytes,
		Symptom: "the OOM killer ends the process, or memory.high makes it crawl, while the machine has memory left",
		Fix:     "systemctl set-property UNIT MemoryMax={}, or docker run --memory={}",
		Source:  measured + "; sockets, inodes, files, dentries and epoll items are charged to the cgroup",
		have:    func(_ Demand, m *Machine) int64 { return m.cgroup().Room },
		cost: func(d Demand, m *Machine) (float64, float64) {
			return d.ends() * processBytes, m.ramEach(d) - d.unread() + d.unreadPages()*pageBytes
		},
		want: func(_ Demand, m *Machine, need int64) string { return strconv.FormatInt(m.cgroup().OfUsed+need, 10) },
		note: func(_ Demand, m *Machine) string { return m.cgroup().says() },
	},
	{
		Name: "RLIMIT_NOFILE", Where: "/proc/self/limits, hard; in each descriptor table", Formula: "N + 128; with private tables N ÷ tables + tables + 128",
		Scope:   Process,
		Symptom: "accept4 and socket fail with EMFILE",
		Fix:     "LimitNOFILE={} in the systemd unit, ulimit -n {}, or --fd-tables private, which needs no change",
		Risk:    "programs that close all descriptors one by one take long",
		Source:  source + "; limits.conf counts for logins only",
		have:    func(_ Demand, m *Machine) int64 { return m.OpenFiles },
		cost:    tableCost,
		want:    wantDescriptors,
	},
	{
		Name: "fs.nr_open", Where: "/proc/sys/fs/nr_open", Formula: "as RLIMIT_NOFILE",
		Scope:   Host,
		Symptom: "setrlimit fails with EPERM; systemd cuts LimitNOFILE= down to it and says nothing",
		Fix:     "sysctl -w fs.nr_open={}",
		Risk:    "programs that close all descriptors one by one take long",
		Source:  source,
		Sysctl:  "fs.nr_open",
		cost:    tableCost,
		want:    wantDescriptors,
	},
	{
		Name: "fs.file-max", Where: "/proc/sys/fs/file-max, file-nr", Formula: "what is open + N for each end",
		Scope:   Host,
		Symptom: "accept4 and socket fail with ENFILE; dmesg: VFS: file-max limit reached",
		Fix:     "sysctl -w fs.file-max={}",
		Source:  source + "; systemd sets the maximum, so that the values often copied lower it",
		Sysctl:  "fs.file-max",
		cost: func(d Demand, m *Machine) (float64, float64) {
			if m.Privileged {
				return 0, 0
			}
			return float64(max(0, m.Files)), d.ends()
		},
		note: func(_ Demand, m *Machine) string {
			if m.Privileged {
				return "does not bind root"
			}
			return ""
		},
	},
	{
		Name: "fs.epoll.max_user_watches", Where: "/proc/sys/fs/epoll/max_user_watches", Formula: "128 + N for each end; of one user",
		Scope:   Host,
		Symptom: "epoll_ctl fails with ENOSPC",
		Fix:     "sysctl -w fs.epoll.max_user_watches={}, or different users for server and generator",
		Risk:    "208 bytes that cannot be swapped for each that is used",
		Source:  measured + ": RAM ÷ 25 ÷ 184 bytes",
		Sysctl:  "fs.epoll.max_user_watches",
		cost:    func(d Demand, _ *Machine) (float64, float64) { return watchesKept, d.ends() },
	},
	{
		Name: "net.core.somaxconn", Where: "/proc/sys/net/core/somaxconn", Formula: "connections a second × the longest stall: 65535",
		Scope:   Namespace,
		Symptom: "ListenOverflows and ListenDrops grow, clients wait for a SYN or ACK to be sent again",
		Fix:     "sysctl -w net.core.somaxconn={}, and listen again",
		Source:  source,
		Sysctl:  "net.core.somaxconn",
		Soft:    true,
		cost:    forServer(65535),
	},
	{
		Name: "net.ipv4.tcp_syncookies", Where: "/proc/sys/net/ipv4/tcp_syncookies", Formula: "1",
		Scope:   Namespace,
		Symptom: "in a rush of connections SYNs are dropped: tcp_max_syn_backlog, which does nothing otherwise, is full",
		Fix:     "sysctl -w net.ipv4.tcp_syncookies={}",
		Source:  source,
		Sysctl:  "net.ipv4.tcp_syncookies",
		Soft:    true,
		cost:    forServer(1),
	},
	{
		Name: "net.core.netdev_max_backlog", Where: "/proc/sys/net/core/netdev_max_backlog", Formula: "16384 a processor",
		Scope:   Host,
		Symptom: "packets are dropped on loopback and with RPS: the second column of /proc/net/softnet_stat grows",
		Fix:     "sysctl -w net.core.netdev_max_backlog={}",
		Source:  source,
		Sysctl:  "net.core.netdev_max_backlog",
		Soft:    true,
		cost: func(d Demand, _ *Machine) (float64, float64) {
			if d.Server && d.Generator {
				return 16384, 0
			}
			return 0, 0
		},
	},
	{
		Name: "TCP hash table", Where: "/proc/sys/net/ipv4/tcp_ehash_entries, or one for each 128 KiB of RAM", Formula: "N for each end ÷ 16",
		Scope:   Host,
		Symptom: "each packet takes longer: 5 to 7 µs with one connection in a bucket, 20 to 27 with 117",
		Fix:     "sysctl -w net.ipv4.tcp_child_ehash_entries=2097152, and run in a new network namespace (Linux 6.1); or thash_entries= for the kernel at boot",
		Risk:    "16 MB that stay with the namespace",
		Source:  measured,
		Soft:    true,
		have:    func(_ Demand, m *Machine) int64 { return m.buckets() },
		cost:    func(d Demand, _ *Machine) (float64, float64) { return 0, d.ends() / bucketConns },
	},
	{
		Name: "net.ipv4.tcp_mem", Where: "/proc/sys/net/ipv4/tcp_mem, pressure", Formula: "N × pages of one unread message",
		Scope: Host, Unit: Pages,
		Symptom: "a broadcast to all: TCPMemoryPressures and TCPAbortOnMemory grow; dmesg: TCP: out of memory",
		Fix:     "sysctl -w net.ipv4.tcp_mem='{}', in pages; and a broadcast that takes its time",
		Risk:    "unread messages may take so much memory that none is left; it reserves nothing",
		Source:  measured + "; idle connections take none",
		Sysctl:  "net.ipv4.tcp_mem",
		Field:   1, // pressure
		Named:   true,
		Soft:    true,
		cost:    func(d Demand, _ *Machine) (float64, float64) { return 0, d.unreadPages() },
		want:    wantTCPMemory,
	},
	{
		Name: "source ports", Where: "addresses × (1024–65535 − /proc/sys/net/ipv4/ip_local_reserved_ports) × targets", Formula: "N",
		Scope:   Namespace,
		Symptom: "connect fails with EADDRNOTAVAIL, bind with EADDRINUSE",
		Fix:     "more source addresses (--sources), or more ports on the server (--listen-ports)",
		Source:  measured + "; lull chooses address and port itself, so that ip_local_port_range does not count",
		have: func(d Demand, m *Machine) int64 {
			switch {
			case !d.Generator || d.Sources == 0:
				return Unlimited
			case d.Sources == SourcesUnknown:
				return Unknown
			}
			return int64(d.Sources) * int64(d.targets()) * int64(m.ports())
		},
		cost: func(d Demand, _ *Machine) (float64, float64) {
			if !d.Generator {
				return 0, 0
			}
			return 0, 1
		},
		note: func(d Demand, m *Machine) string {
			if !d.Generator || d.Sources < 1 {
				return ""
			}
			return fmt.Sprintf("%d × %d × %d", d.Sources, m.ports(), d.targets())
		},
	},
	{
		Name: "net.ipv4.tcp_tw_reuse", Where: "/proc/sys/net/ipv4/tcp_tw_reuse", Formula: "1, or 2 where both ends are here",
		Scope:   Namespace,
		Symptom: "for a minute after a run connect fails with EADDRNOTAVAIL: its ports are in TIME_WAIT",
		Fix:     "sysctl -w net.ipv4.tcp_tw_reuse={}, on generators only",
		Risk:    "needs tcp_timestamps = 1",
		Source:  source,
		Sysctl:  "net.ipv4.tcp_tw_reuse",
		Soft:    true,
		have: func(d Demand, m *Machine) int64 {
			n := m.sysctlField("net.ipv4.tcp_tw_reuse", 0)
			if n == 2 && d.Server { // 2 is for loopback alone
				return 1
			}
			return n % 2
		},
		cost: func(d Demand, _ *Machine) (float64, float64) {
			if !d.Generator {
				return 0, 0
			}
			return 1, 0
		},
	},
	{
		Name: "net.netfilter.nf_conntrack_max", Where: "/proc/sys/net/netfilter/nf_conntrack_max, nf_conntrack_count", Formula: "what is tracked + N, if a rule looks at connections",
		Scope:   Host,
		Symptom: "no more connections, and dmesg: nf_conntrack: table full, dropping packet",
		Fix:     "notrack rules for the port, both ways; or sysctl -w net.netfilter.nf_conntrack_max={}",
		Risk:    "272 bytes for each connection",
		Source:  measured,
		Sysctl:  "net.netfilter.nf_conntrack_max",
		Named:   true,
		cost: func(d Demand, m *Machine) (float64, float64) {
			if !m.tracks() {
				return 0, 0
			}
			return float64(m.tracked()), 1
		},
		want: wantTracked,
		note: func(_ Demand, m *Machine) string {
			switch {
			case m.tracked() == Unknown:
				return "not loaded"
			case !m.tracks():
				return "loaded, and tracks nothing: no rule looks at connections"
			}
			return ""
		},
	},
	{
		Name: "net.netfilter.nf_conntrack_buckets", Where: "/proc/sys/net/netfilter/nf_conntrack_buckets", Formula: "N, if a rule looks at connections",
		Scope:   Host,
		Symptom: "each packet takes longer: the chains of conntrack's hash table grow",
		Fix:     "sysctl -w net.netfilter.nf_conntrack_buckets={}",
		Risk:    "16 bytes for each",
		Source:  source,
		Sysctl:  "net.netfilter.nf_conntrack_buckets",
		Named:   true,
		Soft:    true,
		cost: func(_ Demand, m *Machine) (float64, float64) {
			if !m.tracks() {
				return 0, 0
			}
			return 0, 1
		},
		want: wantTracked,
	},
	{
		Name: "security groups", Where: "ethtool -S: conntrack_allowance_available", Formula: "N, unless they let everything through both ways",
		Scope:   Cloud,
		Symptom: "new connections hang at a number that AWS does not publish; where there is ENA, conntrack_allowance_exceeded grows",
		Fix:     "rules that admit 0.0.0.0/0 to the port, and 0.0.0.0/0 on all ports the other way, are not tracked; connections through NLB, NAT or TGW always are",
		Source:  vendor,
		Soft:    true,
		have:    func(_ Demand, m *Machine) int64 { return m.allowance() },
		cost: func(d Demand, _ *Machine) (float64, float64) {
			if d.ends() != 1 { // what stays on the machine passes none
				return 0, 0
			}
			return 0, 1
		},
		note: func(_ Demand, m *Machine) string {
			switch {
			case !m.cloud().EC2:
				return "not on EC2"
			case len(m.ena()) == 0:
				return "no ENA here, whose counters would tell"
			}
			return ""
		},
	},
	{
		Name: "idle, behind a load balancer", Where: "350 s, AWS's network load balancer; its application load balancer takes 60 s", Formula: "silence before a ping (--idle-timeout ÷ 2)",
		Scope: Cloud, Unit: Seconds,
		Symptom: "connections that are silent are gone, and the server learns it late",
		Fix:     "--idle-timeout 10m, so that a ping goes out each 5 minutes; --idle-timeout 100s behind an application load balancer",
		Source:  vendor,
		Soft:    true,
		have: func(d Demand, _ *Machine) int64 {
			if !d.Server {
				return Unlimited
			}
			return balancerIdle
		},
		cost: func(d Demand, _ *Machine) (float64, float64) {
			if !d.Server {
				return 0, 0
			}
			return d.Ping.Seconds(), 0
		},
		note: func(d Demand, _ *Machine) string {
			if d.Server && d.Ping.Seconds() > 60 {
				return "too long for an application load balancer, 60 s"
			}
			return ""
		},
	},
	{
		Name: "transparent huge pages", Where: "/sys/kernel/mm/transparent_hugepage/enabled, khugepaged/max_ptes_none", Formula: "madvise, or max_ptes_none = 0",
		Scope:   Host,
		Symptom: "processes take more memory than they use: a page of 2 MiB where 4 KiB would do",
		Fix:     "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
		Source:  source,
		Soft:    true,
		have:    func(_ Demand, m *Machine) int64 { return m.smallPages() },
		cost:    func(Demand, *Machine) (float64, float64) { return 1, 0 },
	},
	{
		Name: "GOMEMLIMIT", Where: "the environment", Formula: "(memory − the kernel's bytes) − 10 %",
		Scope: Process, Unit: Bytes,
		Symptom: "the OOM killer comes before the collector: GOMEMLIMIT does not know what the kernel takes",
		Fix:     "a GOMEMLIMIT of memory − 4.2 KB × N − 10 %, or none",
		Source:  measured,
		Soft:    true,
		have: func(d Demand, m *Machine) int64 {
			if m.goMemory() == Unlimited {
				return Unlimited
			}
			return m.goMemoryMost(d)
		},
		cost: func(_ Demand, m *Machine) (float64, float64) {
			if m.goMemory() == Unlimited {
				return 0, 0
			}
			return float64(m.goMemory()), 0
		},
		note: func(_ Demand, m *Machine) string {
			if m.goMemory() == Unlimited {
				return "not set"
			}
			return ""
		},
	},
	{
		Name: "net.ipv4.tcp_max_orphans", Where: "/proc/sys/net/ipv4/tcp_max_orphans", Formula: "N, at most the kernel's own: half of TCP's hash table",
		Scope:   Host,
		Symptom: "a mass close: connections are reset; dmesg: too many orphaned sockets",
		Fix:     "sysctl -w net.ipv4.tcp_max_orphans={}, and close in batches",
		Risk:    "64 KB that cannot be swapped for each, at the worst",
		Source:  source,
		Sysctl:  "net.ipv4.tcp_max_orphans",
		Soft:    true,
		cost:    halfTheBuckets,
		note:    func(d Demand, m *Machine) string { return m.batches(d, "net.ipv4.tcp_max_orphans") },
	},
	{
		Name: "net.ipv4.tcp_max_tw_buckets", Where: "/proc/sys/net/ipv4/tcp_max_tw_buckets", Formula: "N, at most the kernel's own: half of TCP's hash table",
		Scope:   Namespace,
		Symptom: "a mass close: TCPTimeWaitOverflow grows, ports are used again too early",
		Fix:     "sysctl -w net.ipv4.tcp_max_tw_buckets={}, and close in batches",
		Risk:    "about 250 bytes for each, for a minute",
		Source:  source,
		Sysctl:  "net.ipv4.tcp_max_tw_buckets",
		Soft:    true,
		cost:    halfTheBuckets,
		note:    func(d Demand, m *Machine) string { return m.batches(d, "net.ipv4.tcp_max_tw_buckets") },
	},
}

// tableCost is what a demand takes of a process's descriptor tables.
func tableCost(d Demand, m *Machine) (fixed, each float64) {
	if d.Private {
		n := m.tables()
		return descriptorsKept + n, 1 / n
	}
	return descriptorsKept, 1
}

// forServer is a number that a server needs whatever its connections.
func forServer(n float64) func(Demand, *Machine) (float64, float64) {
	return func(d Demand, _ *Machine) (float64, float64) {
		if !d.Server {
			return 0, 0
		}
		return n, 0
	}
}

// halfTheBuckets is what the kernel itself allows of connections that are going.
// More are closed in batches; a higher limit costs more than it helps.
func halfTheBuckets(d Demand, m *Machine) (fixed, each float64) {
	return float64(min(int64(d.Conns), max(0, m.buckets()/2))), 0
}

// batches says how many connections may be closed at once.
func (m *Machine) batches(d Demand, sysctl string) string {
	if n := m.sysctlField(sysctl, 0); n != Unknown && n < int64(d.Conns) {
		return "close in batches"
	}
	return ""
}

// wantDescriptors is enough for one table to hold all connections.
func wantDescriptors(d Demand, _ *Machine, _ int64) string {
	return strconv.FormatInt(Descriptors(d.Conns), 10)
}

// wantTCPMemory leaves the lowest number as it is and the others within a share
// of the memory.
func wantTCPMemory(_ Demand, m *Machine, need int64) string {
	if m.Memory != Unknown {
		need = min(need, int64(tcpMemoryShare*float64(m.Memory)/pageBytes))
	}
	low := m.sysctlField("net.ipv4.tcp_mem", 0)
	if low == Unknown {
		low = need
	}
	return fmt.Sprint(low, max(low, need), max(low, need))
}

// wantTracked is room in conntrack's table for those that are closing, too.
func wantTracked(d Demand, _ *Machine, need int64) string {
	return strconv.FormatInt(max(need, whole(trackedSpare*float64(d.Conns))), 10)
}
