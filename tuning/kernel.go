package tuning

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// This file reads what the limits need from the kernel besides sysctls.

// ramPerBucket is how much memory a machine has for each bucket of TCP's hash
// table. By default the table has at most bucketsMax buckets.
const (
	ramPerBucket = 128 << 10
	bucketsMax   = 512 << 10
)

// buckets is the number of buckets of the TCP hash table that this network namespace
// uses, its own or the first namespace's. Linux before 6.1 does not show it, and has
// no others than the first one's; there it follows from the memory.
func (m *Machine) buckets() int64 {
	if n := m.sysctlField("net.ipv4.tcp_ehash_entries", 0); n != Unknown {
		return max(n, -n)
	}
	if m.Memory < ramPerBucket {
		return Unknown
	}
	return min(bucketsMax, int64(1)<<bits.Len64(uint64(m.Memory/ramPerBucket-1)))
}

// chains says how many sockets are in a bucket of TCP's hash table where that is more
// than one, whose table it is, and whether the next boot makes a larger one.
func (m *Machine) chains(d Demand) string {
	have, sockets := m.buckets(), d.ends()*float64(d.Conns)
	var notes []string
	if have > 0 && sockets > float64(have) {
		notes = append(notes, fmt.Sprintf("%.1f sockets in a bucket", sockets/float64(have)))
	}
	switch n := m.sysctlField("net.ipv4.tcp_ehash_entries", 0); {
	case n == Unknown && have != Unknown:
		notes = append(notes, "estimated: this kernel does not show it, and namespaces have none of their own")
	case n < 0 && n != Unknown:
		notes = append(notes, "the first network namespace's")
	}
	if n := bootBuckets([]byte(m.text(BootPath))); have > 0 && n > have {
		notes = append(notes, fmt.Sprintf("%d buckets from the next boot on, if update-grub has run", n))
	}
	return strings.Join(notes, "; ")
}

// ports is how many source ports an address has, without those that are reserved
// for listeners.
func (m *Machine) ports() int {
	reserved, _ := m.sysctl("net.ipv4.ip_local_reserved_ports")
	n := portMax - portMin + 1
	for text := range strings.SplitSeq(reserved, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(text), "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 == nil && err2 == nil {
			n -= max(0, min(last, portMax)-max(first, portMin)+1)
		}
	}
	return n
}

// portsSpare is how many spare combinations of source address, port and target a
// generator keeps, in percent of its connections: other programs use some of the ports.
const portsSpare = 2

// connsOf is how many connections a generator opens with so many combinations, the
// largest number that leaves it the spare ones.
func connsOf(combinations int64) int64 {
	n := combinations * 100 / (100 + portsSpare)
	for n+1+(n+1)*portsSpare/100 <= combinations { // at most once: the spare ones are rounded down
		n++
	}
	return n
}

// Sources is how many addresses the machine can connect from to somewhere else,
// SourcesUnknown if they cannot be read. The kernel shows its table of addresses as
// a tree: one line has the address, and the next line has its kind.
func (m *Machine) Sources() int {
	own := map[netip.Addr]bool{}
	var last netip.Addr
	for line := range strings.Lines(m.text("proc/net/fib_trie")) {
		line = strings.TrimSpace(line)
		if text, found := strings.CutPrefix(line, "|-- "); found {
			last, _ = netip.ParseAddr(text)
		}
		if line == "/32 host LOCAL" && last.IsGlobalUnicast() {
			own[last] = true
		}
	}
	if !last.IsValid() {
		return SourcesUnknown
	}
	return len(own)
}

// tracked is how many connections conntrack holds, Unknown if it is not loaded.
func (m *Machine) tracked() int64 {
	return m.sysctlField("net.netfilter.nf_conntrack_count", 0)
}

// tracks reports whether a rule makes conntrack track connections. Often it is
// loaded but tracks nothing. If it tracks connections it has at least one, for
// instance the one over which this program was started.
func (m *Machine) tracks() bool { return m.tracked() > 0 }

// smallPages is 1 if the kernel uses pages of 4 KiB unless a program asks for
// larger ones, and 0 if it does not.
func (m *Machine) smallPages() int64 {
	const dir = "sys/kernel/mm/transparent_hugepage/"
	enabled := m.text(dir + "enabled")
	switch {
	case enabled == "":
		return Unknown
	case strings.Contains(enabled, "[always]") && m.number(dir+"khugepaged/max_ptes_none") != 0:
		return 0
	}
	return 1
}

// goMemory is GOMEMLIMIT as runtime/debug reads it; Unlimited if it is not set.
func (m *Machine) goMemory() int64 {
	var text string
	for entry := range strings.SplitSeq(m.text("proc/self/environ"), "\x00") {
		if value, found := strings.CutPrefix(entry, "GOMEMLIMIT="); found {
			text = value
		}
	}
	text = strings.TrimSuffix(text, "B")
	shift := 0
	for i, unit := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if value, found := strings.CutSuffix(text, unit); found {
			text, shift = value, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > Unlimited>>shift {
		return Unlimited
	}
	return n << shift
}

// goMemoryMost is the largest GOMEMLIMIT that leaves enough for the kernel.
func (m *Machine) goMemoryMost(d Demand) int64 {
	room := m.Memory
	if limit := m.cgroup().Limit; limit != Unknown {
		room = min(room, limit)
	}
	if room == Unknown {
		return Unknown
	}
	kernel, _ := m.RAM(d)
	return max(0, (room-kernel)/10*9)
}
