package netpoll

import (
	"fmt"
	"sort"
)

// Tables says which descriptor table a reactor's thread uses.
type Tables int

const (
	// Auto leaves the choice to the program that runs the reactors. Where
	// nothing else is said it means Shared.
	Auto Tables = iota
	// Shared is the ordinary way: one table for the process.
	Shared
	// Private gives each reactor's thread a table of its own, with its own
	// RLIMIT_NOFILE and fs.nr_open. A process then holds reactors × limit
	// sockets, and no thread waits for another thread's table. A descriptor is
	// valid on its own thread only, so code that opens descriptors for other
	// threads must not run on a reactor.
	Private
)

var tablesNames = [...]string{Auto: "auto", Shared: "shared", Private: "private"}

func (t Tables) String() string { return tablesNames[t] }

// MarshalText returns the name.
func (t Tables) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText accepts "auto", "shared" and "private".
func (t *Tables) UnmarshalText(text []byte) error {
	for i, name := range tablesNames {
		if string(text) == name {
			*t = Tables(i)
			return nil
		}
	}
	return fmt.Errorf("netpoll: descriptor tables are auto, shared or private, not %q", text)
}

// descriptorsKept is how many descriptors of each table are left for everything
// that Room does not count: standard streams, the Go runtime's descriptors, log
// files, an admin port's connections.
const descriptorsKept = 64

// Room returns how many connections so many reactors can have together, if each
// table may hold table descriptors.
//
//	a shared table    connections + listeners + an eventfd and an epoll set for each reactor
//	a private table   its share of them + listeners + an eventfd for each reactor + one epoll set
func Room(t Tables, table, reactors, listeners int) int {
	table = max(0, table-descriptorsKept-listeners)
	if t == Private {
		return reactors * max(0, table-reactors-1)
	}
	return max(0, table-2*reactors)
}

// ReactorsFor returns how many reactors a program should run: one for each
// processor, or with private tables as many as the connections need. If no
// number of reactors has room for them, it is the number that has most.
func ReactorsFor(t Tables, table, conns, listeners, processors int) int {
	if t != Private {
		return processors
	}
	// With each reactor all tables get one eventfd more. Room grows until half
	// of each table is filled with them, and shrinks from there on.
	most := max(processors, (table-descriptorsKept-listeners-1)/2)
	return processors + sort.Search(most-processors, func(more int) bool {
		return Room(t, table, processors+more, listeners) >= conns
	})
}
