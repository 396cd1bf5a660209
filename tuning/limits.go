package tuning

import (
	"math"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Demand is what is wanted of a machine.
type Demand struct {
	Conns     int  // connections
	Server    bool // the server's end of each lives here
	Generator bool // the generator's end does
	Private   bool // reactors have descriptor tables of their own
	Sources   int  // the generator's source addresses; 0 if there are as many as it takes
	Targets   int  // the server's addresses × ports
}

// ends is how many sockets of each connection live on the machine.
func (d Demand) ends() float64 {
	n := 0.0
	if d.Server {
		n++
	}
	if d.Generator {
		n++
	}
	return n
}

// Costs that the limits are reckoned with.
const (
	// socketBytes is what the kernel keeps for one idle socket and its epoll
	// item (TCP 2520, sock_inode_cache 861, filp 195, dentry 195, epoll 208,
	// and small change; 64-bit Linux 6), and userBytes what lull adds.
	socketBytes = 4150
	userBytes   = 64
	// memoryReserve is left to everything else.
	memoryReserve = 512 << 20
	// descriptorsKept of each table are not connections.
	descriptorsKept = 128
	// reactorsMax is how many reactors, and private tables, a process has.
	reactorsMax = 1024
	// portsPerSource is what one address offers to each target: 1024 to 65535.
	portsPerSource = 64512
	// unreadPages is what a message that waits to be read counts in tcp_mem.
	unreadPages = 1
)

// Limit is something that stands in the way at some number of connections.
type Limit struct {
	Name    string
	Symptom string // what happens when it is hit
	Fix     string
	// Sysctl is the key where there is one to raise. Of several numbers the
	// one at index Field is what counts; those behind it are not below it.
	Sysctl string
	Field  int
	// Soft limits make things slow, not impossible.
	Soft bool

	have func(Demand, *Machine) int64 // for a limit that is no sysctl
	// cost is what a demand takes of it: a fixed part, and one for each
	// connection.
	cost func(d Demand, m *Machine) (fixed, each float64)
}

// Limits are those that are known, the cheapest to remedy first.
var Limits = []Limit{
	{
		Name:    "RLIMIT_NOFILE",
		Symptom: "accept4 and socket fail with EMFILE",
		Fix:     "ulimit -n, LimitNOFILE= in the systemd unit, or private descriptor tables (--fd-tables private)",
		have:    func(_ Demand, m *Machine) int64 { return m.OpenFiles },
		cost: func(d Demand, m *Machine) (float64, float64) {
			if d.Private {
				n := m.tables()
				return descriptorsKept + n, 1 / n
			}
			return descriptorsKept, 1
		},
	},
	{
		Name:    "fs.file-max",
		Symptom: "accept4 and socket fail with ENFILE; dmesg: VFS: file-max limit reached",
		Fix:     "sysctl fs.file-max",
		Sysctl:  "fs.file-max",
		cost: func(d Demand, m *Machine) (float64, float64) {
			if m.Privileged {
				return 0, 0
			}
			return float64(max(0, m.Files)), d.ends()
		},
	},
	{
		Name:    "fs.epoll.max_user_watches",
		Symptom: "epoll_ctl fails with ENOSPC",
		Fix:     "sysctl fs.epoll.max_user_watches, or different users for server and generator",
		Sysctl:  "fs.epoll.max_user_watches",
		cost:    func(d Demand, _ *Machine) (float64, float64) { return 4 * reactorsMax, d.ends() },
	},
	{
		Name:    "source ports",
		Symptom: "connect fails with EADDRNOTAVAIL, bind with EADDRINUSE",
		Fix:     "more source addresses (--sources), or more ports on the server",
		have: func(d Demand, _ *Machine) int64 {
			if !d.Generator || d.Sources == 0 {
				return Unknown // as many as it takes
			}
			return int64(d.Sources * max(1, d.Targets) * portsPerSource)
		},
		cost: func(d Demand, _ *Machine) (float64, float64) { return 0, 1 },
	},
	{
		Name:    "memory",
		Symptom: "the OOM killer",
		Fix:     "more memory, or fewer connections",
		have:    func(_ Demand, m *Machine) int64 { return m.Available },
		cost: func(d Demand, _ *Machine) (float64, float64) {
			return memoryReserve, d.ends() * (socketBytes + userBytes)
		},
	},
	{
		Name:    "net.core.somaxconn",
		Symptom: "ListenOverflows grows, clients wait for a SYN or ACK to be sent again",
		Fix:     "sysctl net.core.somaxconn",
		Sysctl:  "net.core.somaxconn",
		Soft:    true,
		cost: func(d Demand, _ *Machine) (float64, float64) {
			if !d.Server {
				return 0, 0
			}
			return 65535, 0
		},
	},
	{
		Name:    "net.ipv4.tcp_mem",
		Symptom: "a broadcast to all: TCPMemoryPressures grows; dmesg: TCP: out of memory",
		Fix:     "sysctl net.ipv4.tcp_mem (pages)",
		Sysctl:  "net.ipv4.tcp_mem",
		Field:   1, // pressure
		Soft:    true,
		cost:    func(d Demand, _ *Machine) (float64, float64) { return 0, unreadPages },
	},
}

// Finding is what a limit means for a demand.
type Finding struct {
	Limit *Limit
	Have  int64 // Unknown if it could not be read
	Need  int64
	Conns int // how many connections the limit allows; math.MaxInt for any number
}

// OK reports whether the limit allows what is wanted, as far as is known.
func (f Finding) OK() bool { return f.Have == Unknown || f.Have >= f.Need }

// Check holds the machine against a demand, limit by limit.
func (m *Machine) Check(d Demand) []Finding {
	findings := make([]Finding, len(Limits))
	for i := range Limits {
		findings[i] = m.check(&Limits[i], d)
	}
	return findings
}

func (m *Machine) check(l *Limit, d Demand) Finding {
	f := Finding{Limit: l, Conns: math.MaxInt}
	if l.have != nil {
		f.Have = l.have(d, m)
	} else {
		f.Have = m.sysctlField(l.Sysctl, l.Field)
	}
	fixed, each := l.cost(d, m)
	f.Need = int64(math.Ceil(min(fixed+each*float64(d.Conns), math.MaxInt64/2)))
	if f.Have != Unknown && each > 0 {
		f.Conns = int(max(0, min((float64(f.Have)-fixed)/each, 1<<62)))
	}
	return f
}

// Largest returns the most connections that the hard limits allow of what is
// demanded beside their number, and the limit that stops there; nil when none
// does below d.Conns. Limits that can be raised are taken as raised.
func (m *Machine) Largest(d Demand) (int, *Limit) {
	most, by := d.Conns, (*Limit)(nil)
	for _, f := range m.Check(d) {
		if f.Limit.Soft || f.Limit.Sysctl != "" && m.writable(f.Limit.Sysctl) {
			continue
		}
		if f.Conns < most {
			most, by = f.Conns, f.Limit
		}
	}
	return most, by
}

// tables is how many private descriptor tables hold the most connections: each
// also holds a waker for every reactor, so that more are fewer again.
func (m *Machine) tables() float64 {
	if m.OpenFiles == Unknown {
		return reactorsMax
	}
	return float64(min(reactorsMax, max(1, (m.OpenFiles-descriptorsKept)/2)))
}

// writable reports whether this process may change a sysctl.
func (m *Machine) writable(name string) bool {
	f, err := os.OpenFile(m.path(name), os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}

// Reactors is how many reactors with private descriptor tables it takes for so
// many connections under this process's RLIMIT_NOFILE, and one for each
// processor at the least.
func Reactors(conns int) int {
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) // cannot fail for oneself
	n := runtime.NumCPU()
	for n < reactorsMax && n*(int(min(limit.Cur, math.MaxInt32))-descriptorsKept-n) < conns {
		n++
	}
	return n
}
