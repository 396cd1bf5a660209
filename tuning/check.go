package tuning

import (
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Finding is what a limit means for a demand.
type Finding struct {
	Limit *Limit
	Have  int64 // Unknown if it could not be read, Unlimited if there is no limit
	Need  int64
	Conns int    // how many connections the limit allows; math.MaxInt for any number
	Want  string // what the sysctl, or what {} in Fix stands for, is best set to
	Note  string // what else there is to know
}

// State is how a finding is.
type State string

// States, the best first.
const (
	OK     State = "ok"
	Raise  State = "raise" // slow as it is
	Stops  State = "will not reach"
	Unseen State = "cannot be seen"
)

// OK reports whether the limit allows what is wanted, as far as is known.
func (f Finding) OK() bool { return f.Have == Unknown || f.Have >= f.Need }

// State is what the limit does to what is wanted.
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

// Fix is what to do about it.
func (f Finding) Fix() string { return strings.ReplaceAll(f.Limit.Fix, "{}", f.Want) }

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
	f.Need = whole(fixed + each*float64(d.Conns))
	if f.Have != Unknown && f.Have != Unlimited && each > 0 {
		f.Conns = int(max(0, min((float64(f.Have)-fixed)/each, 1<<62)))
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

// Settings are the sysctls that a demand takes something of, in the limits'
// order, and what each should be at the least.
func (m *Machine) Settings(d Demand) []Setting {
	var settings []Setting
	for _, f := range m.Check(d) {
		l := f.Limit
		if l.Sysctl == "" || f.Need == 0 {
			continue
		}
		settings = append(settings, Setting{
			Name: l.Sysctl, Want: f.Want, Named: l.Named,
			Why: l.Symptom,
		})
	}
	return settings
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
