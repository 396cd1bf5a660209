package tuning

import (
	"maps"
	"path/filepath"
	"slices"

	"github.com/prometheus/procfs"
)

// Counters are what the kernel has counted since it started, by name. They show
// which limit was reached.
type Counters map[string]uint64

// tcpCounters are TCP's counters of what was dropped, refused or aborted.
var tcpCounters = []struct {
	name string
	of   func(*procfs.ProcNetstat) *float64
}{
	{"ListenOverflows", func(n *procfs.ProcNetstat) *float64 { return n.ListenOverflows }},
	{"ListenDrops", func(n *procfs.ProcNetstat) *float64 { return n.ListenDrops }},
	{"TCPReqQFullDoCookies", func(n *procfs.ProcNetstat) *float64 { return n.TCPReqQFullDoCookies }},
	{"TCPReqQFullDrop", func(n *procfs.ProcNetstat) *float64 { return n.TCPReqQFullDrop }},
	{"TCPMemoryPressures", func(n *procfs.ProcNetstat) *float64 { return n.TCPMemoryPressures }},
	{"TCPAbortOnMemory", func(n *procfs.ProcNetstat) *float64 { return n.TCPAbortOnMemory }},
	{"TCPBacklogDrop", func(n *procfs.ProcNetstat) *float64 { return n.TCPBacklogDrop }},
	{"TCPRcvQDrop", func(n *procfs.ProcNetstat) *float64 { return n.TCPRcvQDrop }},
	{"PruneCalled", func(n *procfs.ProcNetstat) *float64 { return n.PruneCalled }},
	{"TCPTimeWaitOverflow", func(n *procfs.ProcNetstat) *float64 { return n.TCPTimeWaitOverflow }},
}

// Counters reads all counters that can be read.
func (m *Machine) Counters() Counters {
	all := Counters{}
	fs, err := procfs.NewFS(filepath.Join(m.root, "proc"))
	if err != nil {
		return all
	}
	if self, err := fs.Self(); err == nil {
		if stat, err := self.Netstat(); err == nil {
			for _, c := range tcpCounters {
				if n := c.of(&stat); n != nil {
					all[c.name] = uint64(*n)
				}
			}
		}
	}
	if processors, err := fs.NetSoftnetStat(); err == nil {
		for _, p := range processors {
			all["softnet dropped"] += uint64(p.Dropped)
			all["softnet squeezed"] += uint64(p.TimeSqueezed)
		}
	}
	if processors, err := fs.ConntrackStat(); err == nil {
		for _, p := range processors {
			all["conntrack insert failed"] += p.InsertFailed
			all["conntrack drop"] += p.Drop
			all["conntrack early drop"] += p.EarlyDrop
		}
	}
	maps.Copy(all, m.exceeded())
	return all
}

// Since returns how much each counter has grown since an earlier reading.
func (c Counters) Since(earlier Counters) Counters {
	moved := Counters{}
	for name, n := range c {
		if before, found := earlier[name]; found && n > before {
			moved[name] = n - before
		}
	}
	return moved
}

// Names are the names of the counters that are not zero, sorted.
func (c Counters) Names() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if c[name] > 0 {
			names = append(names, name)
		}
	}
	return names
}
