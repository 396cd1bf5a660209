package tuning

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Preflight is for programs that are about to open connections. It raises this
// process's soft limit of descriptors to the hard one, and compares this machine
// with a demand. The refusal names the limit that would stop the program, the
// warnings name limits that would make it slow. If the machine cannot be read,
// there is no refusal.
func Preflight(d Demand) (warnings []string, refusal error) {
	if err := raiseOpenFiles(); err != nil {
		warnings = append(warnings, fmt.Sprintf("RLIMIT_NOFILE cannot be raised: %v", err))
	}
	m, err := Read("/")
	if err != nil {
		return append(warnings, err.Error()), nil
	}
	more, refusal := m.preflight(d)
	return append(warnings, more...), refusal
}

// warnFrom is the number of connections from which on soft limits matter.
const warnFrom = 10_000

func (m *Machine) preflight(d Demand) (warnings []string, refusal error) {
	findings := m.Check(d)
	for _, f := range findings {
		if f.State() == Raise && d.Conns >= warnFrom {
			warnings = append(warnings, fmt.Sprintf("%s is %s and should be %s, or else: %s; %s",
				f.Limit.Name, f.Limit.Unit.text(f.Have), f.Limit.Unit.text(f.Need), f.Limit.Symptom, f.Fix()))
		}
	}
	if verdictOf(findings) != NotReached {
		return warnings, nil
	}
	stops := stopsOf(findings)
	for _, f := range findings {
		if f.Limit.Name == stops[0].Name {
			return warnings, fmt.Errorf("tuning: %s connections: %s; then %s; %s", count(d.Conns), lineOf(stops, nil), f.Limit.Symptom, f.Fix())
		}
	}
	return warnings, nil
}

// raiseOpenFiles raises this process's soft limit to the hard one.
func raiseOpenFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur == limit.Max {
		return nil
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}
