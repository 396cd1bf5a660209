package agent

import "time"

// roster is the agents that have said hello. The zero value is empty.
type roster struct {
	entries []entry
	news    time.Time // when the last one came that takes part
}

// entry is one agent.
type entry struct {
	machine Machine
	fits    bool // it has the right version
	heard   time.Time
}

// enter notes that an agent has said hello, and reports whether it is a new one.
func (r *roster) enter(m Machine, version string, now time.Time) bool {
	for i := range r.entries {
		if r.entries[i].machine.ID == m.ID {
			r.entries[i].heard = now
			return false
		}
	}
	if len(r.entries) == agentsMax {
		return false
	}
	fits := m.Version == version
	r.entries = append(r.entries, entry{m, fits, now})
	if fits {
		r.news = now
	}
	return true
}

// present lists the agents that can take part and have said hello lately.
func (r *roster) present(now time.Time) (machines []Machine) {
	for _, e := range r.entries {
		if e.fits && now.Sub(e.heard) < 2*settle {
			machines = append(machines, e.machine)
		}
	}
	return machines
}

// settled reports whether no new agent has come for a while.
func (r *roster) settled(now time.Time) bool { return now.Sub(r.news) >= settle }

// coresMax is the most processors of a machine that are believed.
const coresMax = 1 << 16

// sound reports whether a machine's figures can be used.
func (m *Machine) sound() bool {
	return m.ID != "" && len(m.ID) <= nameMax && isWord(m.ID) && m.Name != "" && m.Cores >= 1 && m.Cores <= coresMax && m.Users > 0 && m.Ports >= 0 && m.Addresses >= 0
}

// isWord reports whether s can be a part of a subject.
func isWord(s string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
			return false
		}
	}
	return s != ""
}
