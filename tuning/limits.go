package tuning

import (
	"fmt"
	"math/bits"
	"strconv"

	"github.com/seed-134acfd0/lull/netpoll"
)

// Numbers that the limits are computed with.
const (
	// memoryReserve is memory for everything else.
	memoryReserve = 512 << 20
	// watchesKept is how many descriptors reactors watch besides connections: two
	// each.
	watchesKept = 128
	// reactorsMax is the maximum number of reactors, and of private tables.
	reactorsMax = 1024
	// portMin and portMax are the source ports of one address for each target.
	portMin, portMax = 1024, 65535
	// bucketsAsked is the most buckets of TCP's hash table that are asked for: a
	// network namespace can have no more.
	bucketsAsked = 16 << 20
	// tcpMemoryShare is the share of the memory that unread messages may use.
	tcpMemoryShare = 0.4
	// trackedSpare is by which factor conntrack's table is larger than the number
	// of connections: closed connections stay in it for two minutes.
	trackedSpare = 1.2
	// networkBalancerIdle and applicationBalancerIdle are the number of silent
	// seconds after which AWS's load balancers forget or close a connection, by
	// default.
	networkBalancerIdle     = 350
	applicationBalancerIdle = 60
)

// Scope is what a limit applies to.
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

// Limit is something that limits the number of connections.
type Limit struct {
	Name    string
	Where   string // where it is read
	Formula string // what N connections need
	Scope   Scope
	Unit    Unit
	Symptom string // what happens when it is reached
	Fix     string // how to raise it, with {} for the value
	Risk    string // of the fix
	Source  string // of these statements

	// Sysctl is the key to raise, if there is one. If its value has several
	// numbers, the one at index Field counts, and those after it are at least as
	// high.
	Sysctl string
	Field  int
	// Named sysctls can harm other programs. They are set only if they are named.
	Named bool
	// Soft limits make things slow, not impossible.
	Soft bool

	have func(Demand, *Machine) int64 // for a limit that is not a sysctl
	// cost is what a demand needs: a fixed part, and a part for each connection.
	cost func(d Demand, m *Machine) (fixed, each float64)
	// want is the recommended value of the sysctl, if it is not need.
	want func(d Demand, m *Machine, need int64) string
	// note returns what else the user should know, or "". It may be nil.
	note func(d Demand, m *Machine) string
}

// Where the facts below come from.
const (
	measured = "measured, Linux 6.18"
	source   = "kernel source"
	vendor   = "AWS documentation"
)

// Limits are all known limits.
var Limits = []Limit{
	{
		Name: "memory", Where: "/proc/meminfo: MemTotal − memory that is neither free nor holds pages of files", Formula: "512 MiB + N × (kernel + user + one unread message)",
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
		Symptom: "the OOM killer ends the process, or memory.high slows it down, although the machine has memory left",
		Fix:     "systemctl set-property UNIT MemoryMax={}, or docker run --memory={}",
		Source:  measured + "; sockets, inodes, files, dentries and epoll items are charged to the cgroup, but by version 1 neither accepted sockets nor messages",
		have:    func(_ Demand, m *Machine) int64 { return m.cgroup().Room },
		cost: func(d Demand, m *Machine) (float64, float64) {
			return d.ends() * processBytes, m.chargedEach(d)
		},
		want: func(_ Demand, m *Machine, need int64) string { return strconv.FormatInt(m.cgroup().Used+need, 10) },
		note: cgroupNote,
	},
	{
		Name: "RLIMIT_NOFILE", Where: "/proc/self/limits, hard; in each descriptor table", Formula: "N + 64 + listeners + 2 × processors; with private tables N ÷ tables + 65 + listeners + tables",
		Scope:   Process,
		Symptom: "accept4 and socket fail with EMFILE",
		Fix:     "LimitNOFILE={} in the systemd unit, ulimit -n {}, or --fd-tables private, which needs no change",
		Risk:    "programs that close all descriptors one by one become slow",
		Source:  source + "; limits.conf counts for logins only",
		have:    func(_ Demand, m *Machine) int64 { return m.OpenFiles },
		cost:    tableCost,
		want:    wantDescriptors,
	},
	{
		Name: "fs.nr_open", Where: "/proc/sys/fs/nr_open", Formula: "as RLIMIT_NOFILE",
		Scope:   Host,
		Symptom: "setrlimit fails with EPERM; systemd silently lowers LimitNOFILE= to it",
		Fix:     "sysctl -w fs.nr_open={}",
		Risk:    "programs that close all descriptors one by one become slow",
		Source:  source,
		Sysctl:  "fs.nr_open",
		cost:    tableCost,
		want:    wantDescriptors,
	},
	{
		Name: "private descriptor tables", Where: "unshare(CLONE_FILES), tried on a thread of its own", Formula: "1, if they are wanted",
		Scope:   Process,
		Symptom: "no reactor starts: unshare fails with EPERM",
		Fix:     "--fd-tables shared, or allow unshare in the container's seccomp profile: default profiles deny it without CAP_SYS_ADMIN",
		Source:  "Docker documentation",
		have:    func(d Demand, m *Machine) int64 { return m.privateTables(d) },
		cost: func(d Demand, _ *Machine) (float64, float64) {
			if !d.Private {
				return 0, 0
			}
			return 1, 0
		},
		note: func(d Demand, m *Machine) string {
			switch {
			case !d.Private:
				return "not wanted"
			case m.privateTables(d) == 0:
				return m.tryPrivate().Error()
			}
			return ""
		},
	},
	{
		Name: "fs.file-max", Where: "/proc/sys/fs/file-max, file-nr", Formula: "what is open + N for each end",
		Scope:   Host,
		Symptom: "accept4 and socket fail with ENFILE; dmesg: VFS: file-max limit reached",
		Fix:     "sysctl -w fs.file-max={}",
		Source:  source + "; systemd sets the maximum, so values that are often copied lower it",
		Sysctl:  "fs.file-max",
		cost: func(d Demand, m *Machine) (float64, float64) {
			if m.Privileged {
				return 0, 0
			}
			return float64(max(0, m.Files)), d.ends()
		},
		note: func(_ Demand, m *Machine) string {
			if m.Privileged {
				return "does not apply to root"
			}
			return ""
		},
	},
	{
		Name: "fs.epoll.max_user_watches", Where: "/proc/sys/fs/epoll/max_user_watches", Formula: "128 + N for each end; of one user",
		Scope:   Host,
		Symptom: "epoll_ctl fails with ENOSPC",
		Fix:     "sysctl -w fs.epoll.max_user_watches={}, or different users for server and generator",
		Risk:    "208 bytes of unswappable memory for each watch in use",
		Source:  measured + ": RAM ÷ 25 ÷ 184 bytes",
		Sysctl:  "fs.epoll.max_user_watches",
		cost:    func(d Demand, _ *Machine) (float64, float64) { return watchesKept, d.ends() },
	},
	{
		Name: "net.core.somaxconn", Where: "/proc/sys/net/core/somaxconn", Formula: "connections a second × the longest stall: 65535",
		Scope:   Namespace,
		Symptom: "ListenOverflows and ListenDrops grow, clients wait for a SYN or ACK to be sent again",
		Fix:     "sysctl -w net.core.somaxconn={}, and restart the server",
		Source:  source,
		Sysctl:  "net.core.somaxconn",
		Soft:    true,
		cost:    forServer(65535),
	},
	{
		Name: "net.ipv4.tcp_syncookies", Where: "/proc/sys/net/ipv4/tcp_syncookies", Formula: "1",
		Scope:   Namespace,
		Symptom: "if many connections come at once, SYNs are dropped: tcp_max_syn_backlog, which otherwise does nothing, is full",
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
		Name: bucketName, Where: "/proc/sys/net/ipv4/tcp_ehash_entries, or one for each 128 KiB of RAM", Formula: "a bucket for each socket: N for each end, at most 16,777,216",
		Scope:   Host,
		Symptom: bucketSymptom,
		Fix:     "thash_entries={} on the kernel's command line, which lull tune apply writes for GRUB; for a container or another network namespace, sysctl -w net.ipv4.tcp_child_ehash_entries={} outside before it is made (Linux 6.1)",
		Risk:    "8 bytes for each bucket",
		Source:  measured + ", both ends on one machine; Documentation/networking/ip-sysctl.rst",
		Soft:    true,
		have:    func(_ Demand, m *Machine) int64 { return m.buckets() },
		cost: func(d Demand, _ *Machine) (float64, float64) {
			if d.ends()*float64(d.Conns) > bucketsAsked {
				return bucketsAsked, 0
			}
			return 0, d.ends()
		},
		want: func(_ Demand, _ *Machine, need int64) string {
			return strconv.FormatInt(1<<bits.Len64(uint64(max(1, need)-1)), 10) // tables have a power of two
		},
		note: func(d Demand, m *Machine) string { return m.chains(d) },
	},
	{
		Name: "net.ipv4.tcp_mem", Where: "/proc/sys/net/ipv4/tcp_mem, pressure", Formula: "N × pages of one unread message",
		Scope: Host, Unit: Pages,
		Symptom: "a broadcast to all: TCPMemoryPressures and TCPAbortOnMemory grow; dmesg: TCP: out of memory",
		Fix:     "sysctl -w net.ipv4.tcp_mem='{}', in pages; or slower broadcasts",
		Risk:    "unread messages may use up the memory; the setting itself reserves nothing",
		Source:  measured + "; idle connections take none",
		Sysctl:  "net.ipv4.tcp_mem",
		Field:   1, // pressure
		Named:   true,
		Soft:    true,
		cost:    func(d Demand, _ *Machine) (float64, float64) { return 0, d.unreadPages() },
		want:    wantTCPMemory,
	},
	{
		Name: "source ports", Where: "addresses × (1024–65535 − /proc/sys/net/ipv4/ip_local_reserved_ports) × targets", Formula: "N, and 2 % to spare",
		Scope:   Namespace,
		Symptom: "connect fails with EADDRNOTAVAIL, bind with EADDRINUSE; the generator says that no source port is left",
		Fix:     "more source addresses (--sources), or more ports on the server (--listen-ports)",
		Source:  measured + "; lull chooses address and port itself, so ip_local_port_range does not matter",
		have: func(d Demand, m *Machine) int64 {
			switch {
			case !d.Generator || d.Sources == 0:
				return Unlimited
			case d.Sources == SourcesUnknown:
				return Unknown
			}
			return connsOf(int64(d.Sources) * int64(d.targets()) * int64(m.ports()))
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
			return fmt.Sprintf("%d × %d × %d, less 2 %%", d.Sources, m.ports(), d.targets())
		},
	},
	{
		Name: "net.ipv4.tcp_tw_reuse", Where: "/proc/sys/net/ipv4/tcp_tw_reuse", Formula: "1, or 2 where both ends are here",
		Scope:   Namespace,
		Symptom: "for a minute after a run, connect fails with EADDRNOTAVAIL, because the ports are in TIME_WAIT",
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
		want: func(d Demand, _ *Machine, need int64) string {
			if d.Server && d.Generator {
				return "2"
			}
			return strconv.FormatInt(need, 10)
		},
	},
	{
		Name: "net.netfilter.nf_conntrack_max", Where: "/proc/sys/net/netfilter/nf_conntrack_max, nf_conntrack_count", Formula: "what is tracked + N, if a rule looks at connections",
		Scope:   Host,
		Symptom: "new connections fail; dmesg: nf_conntrack: table full, dropping packet",
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
				return "loaded, but no rule tracks connections"
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
		Symptom: "beyond a number that AWS does not publish, new connections hang; with ENA, conntrack_allowance_exceeded grows",
		Fix:     "allow 0.0.0.0/0 to the port, and 0.0.0.0/0 on all ports in the other direction: AWS does not track such connections, unless they pass an NLB, NAT or TGW",
		Source:  vendor,
		Soft:    true,
		have:    func(_ Demand, m *Machine) int64 { return m.allowance() },
		cost: func(d Demand, _ *Machine) (float64, float64) {
			if d.ends() != 1 { // connections within the machine pass no security group
				return 0, 0
			}
			return 0, 1
		},
		note: func(_ Demand, m *Machine) string {
			switch {
			case !m.cloud().EC2:
				return "not on EC2"
			case len(m.ena()) == 0:
				return "only the ENA driver shows it, and this machine has another"
			}
			return ""
		},
	},
	{
		Name: "idle, behind a load balancer", Where: "350 s, AWS's network load balancer; its application load balancer takes 60 s", Formula: "silence before a ping (--idle-timeout ÷ 2)",
		Scope: Cloud, Unit: Seconds,
		Symptom: "silent connections are dropped, and the server notices late",
		Fix:     "--idle-timeout 10m, which sends a ping every 5 minutes; --idle-timeout 100s behind an application load balancer",
		Source:  vendor,
		Soft:    true,
		have: func(d Demand, _ *Machine) int64 {
			if !d.Server {
				return Unlimited
			}
			return networkBalancerIdle
		},
		cost: func(d Demand, _ *Machine) (float64, float64) {
			if !d.Server {
				return 0, 0
			}
			return d.Ping.Seconds(), 0
		},
	},
	{
		Name: "transparent huge pages", Where: "/sys/kernel/mm/transparent_hugepage/enabled, khugepaged/max_ptes_none", Formula: "madvise, or max_ptes_none = 0",
		Scope:   Host,
		Symptom: "processes take more memory than they use: pages of 2 MiB where 4 KiB would be enough",
		Fix:     "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
		Source:  source,
		Soft:    true,
		have:    func(_ Demand, m *Machine) int64 { return m.smallPages() },
		cost:    func(Demand, *Machine) (float64, float64) { return 1, 0 },
	},
	{
		Name: "GOMEMLIMIT", Where: "the environment", Formula: "(memory − the kernel's bytes) − 10 %",
		Scope: Process, Unit: Bytes,
		Symptom: "the OOM killer acts before the garbage collector, because GOMEMLIMIT does not include the kernel's memory",
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
		Risk:    "up to 64 KB of unswappable memory for each",
		Source:  source,
		Sysctl:  "net.ipv4.tcp_max_orphans",
		Soft:    true,
		cost:    halfTheBuckets,
		note:    func(d Demand, m *Machine) string { return m.batches(d, "net.ipv4.tcp_max_orphans") },
	},
	{
		Name: "net.ipv4.tcp_max_tw_buckets", Where: "/proc/sys/net/ipv4/tcp_max_tw_buckets", Formula: "N, at most the kernel's own: half of TCP's hash table",
		Scope:   Namespace,
		Symptom: "a mass close: TCPTimeWaitOverflow grows, ports are reused too early",
		Fix:     "sysctl -w net.ipv4.tcp_max_tw_buckets={}, and close in batches",
		Risk:    "about 250 bytes for each, for a minute",
		Source:  source,
		Sysctl:  "net.ipv4.tcp_max_tw_buckets",
		Soft:    true,
		cost:    halfTheBuckets,
		note:    func(d Demand, m *Machine) string { return m.batches(d, "net.ipv4.tcp_max_tw_buckets") },
	},
}

const (
	bucketName = "TCP hash table"
	// bucketSymptom is what a bucket with many sockets costs: the kernel walks a chain
	// for each packet.
	bucketSymptom = "each packet takes longer: with 8 sockets in a bucket, a million connections took 37 to 46 s to open and a broadcast 7.9 s to its last receiver; with one in two buckets 14.8 s and 4.4 s"
)

// tableCost is what a demand needs of each of a process's descriptor tables.
func tableCost(d Demand, m *Machine) (fixed, each float64) {
	const table = 1 << 30 // any size will do: the number of other descriptors does not depend on it
	if d.Private {
		n := m.tables(d)
		room := netpoll.Room(netpoll.Private, table, n, d.listeners())
		return float64(table - room/n), 1 / float64(n)
	}
	return float64(table - netpoll.Room(netpoll.Shared, table, m.Processors, d.listeners())), 1
}

// forServer is a number that a server needs for any number of connections.
func forServer(n float64) func(Demand, *Machine) (float64, float64) {
	return func(d Demand, _ *Machine) (float64, float64) {
		if !d.Server {
			return 0, 0
		}
		return n, 0
	}
}

// halfTheBuckets is how many closing connections the kernel allows by default.
// Close more than that in batches; a higher limit costs more than it helps.
func halfTheBuckets(d Demand, m *Machine) (fixed, each float64) {
	return float64(min(int64(d.Conns), max(0, m.buckets()/2))), 0
}

// batches says whether connections should be closed in batches.
func (m *Machine) batches(d Demand, sysctl string) string {
	if n := m.sysctlField(sysctl, 0); n != Unknown && n < int64(d.Conns) {
		return "close in batches"
	}
	return ""
}

// wantDescriptors is the recommended limit of descriptors. The doctor, the
// kernel's settings and the units' limits all have it from here.
func wantDescriptors(d Demand, m *Machine, _ int64) string {
	return strconv.FormatInt(m.descriptors(d), 10)
}

// descriptors is enough for one table that holds all connections, or, with
// private tables, for each of as many tables as there may be.
func (m *Machine) descriptors(d Demand) int64 {
	if !d.Private {
		return Descriptors(d.Conns)
	}
	fixed, each := tableCost(d, m)
	return whole(fixed + each*float64(d.Conns))
}

// wantTCPMemory keeps the lowest of the three numbers, and limits the others to a
// share of the memory.
func wantTCPMemory(_ Demand, m *Machine, need int64) string {
	if m.Memory != Unknown {
		need = min(need, int64(tcpMemoryShare*float64(m.Memory)/float64(pageBytes)))
	}
	low := m.sysctlField("net.ipv4.tcp_mem", 0)
	if low == Unknown {
		low = need
	}
	return fmt.Sprint(low, max(low, need), max(low, need))
}

// wantTracked leaves room in conntrack's table for closing connections.
func wantTracked(d Demand, _ *Machine, need int64) string {
	return strconv.FormatInt(max(need, whole(trackedSpare*float64(d.Conns))), 10)
}

// tunable are the sysctls of all limits: Apply and Raise set no others, and Revert
// restores no others.
var tunable = func() []string {
	var names []string
	for _, l := range Limits {
		if l.Sysctl != "" {
			names = append(names, l.Sysctl)
		}
	}
	return names
}()
