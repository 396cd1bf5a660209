package tuning

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/tuning/cgroup"
)

// cgroup is what control groups leave to this process. If they cannot be read
// its Version is 0, and its Limit and Room are Unknown.
func (m *Machine) cgroup() cgroup.Memory {
	c, ok := cgroup.Read(m.root)
	if !ok {
		c.Limit, c.Room = Unknown, Unknown
	}
	return c
}

// chargedEach is what a cgroup is charged for one more connection with an unread
// message. Messages count in pages. Version 1 is charged neither for them nor for the
// TCP sockets that a server accepts, with what security modules attach to them: the
// kernel makes these while it handles a packet.
func (m *Machine) chargedEach(d Demand) float64 {
	each := m.ramEach(d) - d.unread()
	switch {
	case m.cgroup().Version != 1:
		return each + d.unreadPages()*float64(pageBytes)
	case d.Server:
		return each - m.slabCost(tcpSlab) - securityBytes
	}
	return each
}

// cgroupNote names the group that leaves least.
func cgroupNote(_ Demand, m *Machine) string {
	switch c := m.cgroup(); {
	case c.Version == 0:
		return ""
	case c.Room == Unlimited:
		return fmt.Sprintf("cgroup v%d sets none", c.Version)
	case c.Tight == c.Path:
		return fmt.Sprintf("%s, of %s", c.Tight, humanize.IBytes(uint64(c.Limit)))
	default:
		return fmt.Sprintf("%s, which is above %s", c.Tight, c.Path)
	}
}
