package tuning

import (
	"math"
	"path/filepath"
	"strconv"
)

// pageBytes is what tcp_mem, meminfo and the slabs below count in.
const pageBytes = 4096

// The kernel's bytes of an idle connection, measured on Linux 6.18 with slabs
// rounded to pages. The sizes of the running kernel are used where they can be
// read, which takes root.
var slabs = []struct {
	name  string
	bytes float64
}{
	{"TCP", 2520.6},             // 13 in 32 KiB
	{"sock_inode_cache", 862.3}, // 19 in 16 KiB
	{"filp", 195},               // 21 in a page
	{"dentry", 195},
}

const (
	// securityBytes is what security modules and memory cgroups hang on a socket.
	securityBytes = 92
	// epollBytes is epoll's item, its wait queue entry and the head of its list.
	epollBytes = 128 + 64 + 16
	// tableBytes is a descriptor's place in its table, which doubles: 8 to 17.
	tableBytes = 12
	// bindBytes is what the kernel keeps for a source address and port, which
	// the connections to several targets share.
	bindBytes = 128
	// trackedBytes is conntrack's entry and its place in the hash table.
	trackedBytes = 256 + 16
	// userBytes is what lull keeps for its end: 42 are the server's, 31 the
	// generator's.
	userBytes = 45
	// processBytes is what a process with no connection takes.
	processBytes = 12 << 20
	// unreadBytes is what a message takes while it waits to be read, beside
	// itself: a small one 1097 bytes in all.
	unreadBytes = 1064
)

// RAM predicts what the connections of a demand take while they are idle: of
// the kernel, and of the processes. Messages that wait to be read are not in it.
func (m *Machine) RAM(d Demand) (kernel, user int64) {
	each := d.ends() * (m.socketBytes() + epollBytes + tableBytes)
	if d.Generator {
		each += bindBytes / float64(d.targets())
	}
	if m.tracks() {
		each += trackedBytes
	}
	n := float64(d.Conns)
	return whole(each * n), whole(d.ends() * (processBytes + userBytes*n))
}

// ramEach is what one more connection takes, with its unread message.
func (m *Machine) ramEach(d Demand) float64 {
	const many = 1 << 20
	d.Conns = many
	kernel, user := m.RAM(d)
	return (float64(kernel+user)-d.ends()*processBytes)/many + d.unread()
}

// unread is what a message to all takes of memory for one connection. With
// both ends on one machine it waits at the generator's only.
func (d Demand) unread() float64 {
	if d.Fanout == 0 {
		return 0
	}
	return unreadBytes + float64(d.Fanout)
}

// unreadPages is the same as tcp_mem and memory cgroups count it.
func (d Demand) unreadPages() float64 { return math.Ceil(d.unread() / pageBytes) }

// socketBytes is what a socket takes with nobody watching it.
func (m *Machine) socketBytes() float64 {
	sum := float64(securityBytes)
	for _, s := range slabs {
		if bytes := m.slabBytes(s.name); bytes > 0 {
			sum += bytes
		} else {
			sum += s.bytes
		}
	}
	return sum
}

// slabBytes is what an object of a slab takes, with its share of the pages that
// are not filled; 0 if that cannot be read.
func (m *Machine) slabBytes(name string) float64 {
	dir := filepath.Join("sys/kernel/slab", name)
	perSlab, order := m.number(filepath.Join(dir, "objs_per_slab")), m.number(filepath.Join(dir, "order"))
	if perSlab < 1 || order < 0 || order > 10 {
		return 0
	}
	return float64(int64(pageBytes)<<order) / float64(perSlab)
}

// number reads a file that holds one number.
func (m *Machine) number(path string) int64 {
	n, err := strconv.ParseInt(m.text(path), 10, 64)
	if err != nil {
		return Unknown
	}
	return n
}

// whole rounds up to what an int64 holds with room to add.
func whole(n float64) int64 { return int64(math.Ceil(min(n, math.MaxInt64/2))) }
