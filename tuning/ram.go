package tuning

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
)

// pageBytes is the unit of tcp_mem and of slabs: 4 KiB, on some ARM and POWER machines
// 16 or 64 KiB. Tests replace it.
var pageBytes = int64(os.Getpagesize())

// A slab is one of the kernel's objects for an idle connection.
type slab struct {
	name  string
	bytes float64 // measured on Linux 6.18, with slabs rounded to pages
}

var (
	tcpSlab = slab{"TCP", 2520.6} // 13 in 32 KiB
	slabs   = []slab{
		tcpSlab,
		{"sock_inode_cache", 862.3}, // 19 in 16 KiB
		{"filp", 195},               // 21 in a page
		{"dentry", 195},
	}
)

const (
	// securityBytes is what security modules and memory cgroups attach to a socket.
	securityBytes = 92
	// epollBytes is epoll's item, its wait queue entry and the head of its list.
	epollBytes = 128 + 64 + 16
	// tableBytes is a descriptor's place in its table: 8 to 17, because tables
	// double.
	tableBytes = 12
	// bindBytes is what the kernel keeps for a source address and port, which
	// the connections to several targets share.
	bindBytes = 128
	// trackedBytes is conntrack's entry and its place in the hash table.
	trackedBytes = 256 + 16
	// userBytes is lull's own memory for its end of a connection: the server's is
	// 42, the generator's 31.
	userBytes = 45
	// tlsBytes is what TLS adds to it: a table's cell.
	tlsBytes = 108
	// processBytes is the memory of a process without connections.
	processBytes = 12 << 20
	// unreadBytes is the overhead of a message that waits to be read. A small
	// message takes 1097 bytes in all.
	unreadBytes = 1064
)

// RAM predicts the memory of a demand's connections while they are idle: the
// kernel's and the processes'. Unread messages are not included.
func (m *Machine) RAM(d Demand) (kernel, user int64) {
	each := d.ends() * (m.socketBytes() + epollBytes + tableBytes)
	if d.Generator {
		each += bindBytes / float64(d.targets())
	}
	if m.tracks() {
		each += trackedBytes
	}
	n, own := float64(d.Conns), float64(userBytes)
	if d.TLS {
		own += tlsBytes
	}
	return whole(each * n), whole(d.ends() * (processBytes + own*n))
}

// ramEach is the memory of one more connection, with an unread message.
func (m *Machine) ramEach(d Demand) float64 {
	const many = 1 << 20
	d.Conns = many
	kernel, user := m.RAM(d)
	return (float64(kernel+user)-d.ends()*processBytes)/many + d.unread()
}

// unread is the memory of an unread broadcast for one connection. If both ends are
// on this machine, it waits only at the generator's.
func (d Demand) unread() float64 {
	if d.Fanout == 0 {
		return 0
	}
	return unreadBytes + float64(d.Fanout)
}

// unreadPages is the same in pages, as tcp_mem and memory cgroups count it.
func (d Demand) unreadPages() float64 { return math.Ceil(d.unread() / float64(pageBytes)) }

// socketBytes is the memory of a socket that no epoll set watches.
func (m *Machine) socketBytes() float64 {
	sum := float64(securityBytes)
	for _, s := range slabs {
		sum += m.slabCost(s)
	}
	return sum
}

// slabCost is the memory of an object: the running kernel's if that can be read, which
// needs root, otherwise the measured one.
func (m *Machine) slabCost(s slab) float64 {
	if bytes := m.slabBytes(s.name); bytes > 0 {
		return bytes
	}
	return s.bytes
}

// slabBytes is the memory of an object of a slab, with its share of the unused
// rest of the pages; 0 if it cannot be read.
func (m *Machine) slabBytes(name string) float64 {
	dir := filepath.Join("sys/kernel/slab", name)
	perSlab, order := m.number(filepath.Join(dir, "objs_per_slab")), m.number(filepath.Join(dir, "order"))
	if perSlab < 1 || order < 0 || order > 10 {
		return 0
	}
	return float64(pageBytes<<order) / float64(perSlab)
}

// number reads a file that holds one number.
func (m *Machine) number(path string) int64 {
	n, err := strconv.ParseInt(m.text(path), 10, 64)
	if err != nil {
		return Unknown
	}
	return n
}

// whole rounds up, to at most half of what an int64 holds, so that sums fit.
func whole(n float64) int64 { return int64(math.Ceil(min(n, math.MaxInt64/2))) }
