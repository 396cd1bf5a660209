package tuning

import (
	"math"
	"runtime"
	"strconv"
	"strings"

	"github.com/seed-134acfd0/lull/netpoll"
)

// Finding is the result of comparing a limit with a demand.
type Finding struct {
	Limit *Limit
	Have  int64 // Unknown if it could not be read, Unlimited if there is no limit
	Need  int64
	Conns int    // how many connections the limit allows; math.MaxInt for any number
	Want  string // the recommended value of the sysctl, or of {} in Fix
	Note  string // more to know, or ""
}

// State says whether a limit is high enough.
type State string

// The states, the best first.
const (
	OK     State = "ok"
	Raise  State = "raise" // high enough, but things will be slow
	Stops  State = "will not reach"
	Unseen State = "cannot be seen"
)

// OK reports whether the limit is high enough, or unknown.
func (f Finding) OK() bool { return f.Have == Unknown || f.Have >= f.Need }

// State returns the state of the limit.
func (f Finding) State() State {
	switch {
	case f.Need == 0:
		return OK
	case f.Have == Unknown:
		return Unseen
	case f.OK():
		return OK
	case f.Limit.Soft:
		return Raise
	}
	return Stops
}

// Fix says how to raise the limit.
func (f Finding) Fix() string { return strings.ReplaceAll(f.Limit.Fix, "{}", f.Want) }

// Check compares each limit of the machine with a demand.
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
	f.Need = whole(fixed + each*float64(d.Conns))
	switch {
	case f.Have == Unknown || f.Have == Unlimited:
	case each > 0:
		f.Conns = int(max(0, min((float64(f.Have)-fixed)/each, 1<<62)))
	case float64(f.Have) < fixed && !l.Soft: // whatever their number
		f.Conns = 0
	}
	f.Want = strconv.FormatInt(f.Need, 10)
	if l.want != nil {
		f.Want = l.want(d, m, f.Need)
	}
	if l.note != nil {
		f.Note = l.note(d, m)
	}
	return f
}

// setting is the sysctl of the limit, with the value that it should have.
func (f Finding) setting() Setting {
	return Setting{Name: f.Limit.Sysctl, Want: f.Want, Why: f.Limit.Symptom, Named: f.Limit.Named}
}

// Settings are the sysctls that matter for a demand, in the order of Limits, and
// the lowest value that each should have.
func (m *Machine) Settings(d Demand) []Setting {
	var settings []Setting
	for _, f := range m.Check(d) {
		l := f.Limit
		if l.Sysctl == "" || f.Need == 0 {
			continue
		}
		settings = append(settings, f.setting())
	}
	return settings
}

// Largest returns how many of d.Conns connections the hard limits allow, and the
// limit that allows no more; nil if they allow all. Limits that this process can
// raise do not count.
func (m *Machine) Largest(d Demand) (int, *Limit) {
	most, by := d.Conns, (*Limit)(nil)
	for _, f := range m.Check(d) {
		if f.Limit.Soft || f.Limit.Sysctl != "" && m.writable(f.Limit.Sysctl) == nil {
			continue
		}
		if f.Conns < most {
			most, by = f.Conns, f.Limit
		}
	}
	return most, by
}

// tables is how many private descriptor tables hold the most connections.
func (m *Machine) tables(d Demand) int {
	if m.OpenFiles == Unknown {
		return reactorsMax
	}
	return min(reactorsMax, netpoll.ReactorsFor(netpoll.Private, int(min(m.OpenFiles, math.MaxInt32)), math.MaxInt, d.listeners(), 1))
}

// Private reports whether descriptor tables are private on this machine: auto means so
// unless the system does not allow it.
func (m *Machine) Private(t netpoll.Tables) bool {
	return t == netpoll.Private || t == netpoll.Auto && (m.tryPrivate == nil || m.tryPrivate() == nil)
}

// privateTables is 1 if this process may have private descriptor tables, 0 if
// it may not, and Unknown if nobody wants them.
func (m *Machine) privateTables(d Demand) int64 {
	switch {
	case !d.Private:
		return Unknown
	case m.tryPrivate != nil && m.tryPrivate() != nil:
		return 0
	}
	return 1
}

// Reactors returns how many reactors with private descriptor tables and one
// listener are needed for a number of connections under this process's
// RLIMIT_NOFILE. It is at least one for each processor.
func Reactors(conns int) int {
	limit, _ := netpoll.DescriptorLimit() // cannot fail for the own process
	return min(reactorsMax, netpoll.ReactorsFor(netpoll.Private, limit, conns, 1, runtime.NumCPU()))
}
