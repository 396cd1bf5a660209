package tuning

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Warning is about a file that sets something to less than it is or should be,
// or to what does harm.
type Warning struct {
	File string `json:"file"`
	Name string `json:"name"`
	Text string `json:"text"`
}

// sysctlDirs hold what is set at boot; of files that are called the same the
// first directory's counts, and of all the last by name, sysctl.d(5).
var sysctlDirs = []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"}

// harmful are lines that people copy from each other.
var harmful = []struct {
	name, why string
	does      func(m *Machine, value string, all map[string]string) bool
}{
	{"net.ipv4.tcp_mem", "it counts pages, not bytes: so many are more than the machine has, and nothing holds TCP back", func(m *Machine, value string, _ map[string]string) bool {
		for field := range 3 {
			if m.Memory != Unknown && fieldOf(value, field) > m.Memory/pageBytes {
				return true
			}
		}
		return false
	}},
	{"net.ipv4.tcp_tw_recycle", "it is gone since Linux 4.12, and broke connections from behind NAT before", func(*Machine, string, map[string]string) bool { return true }},
	{"net.ipv4.tcp_timestamps", "tcp_tw_reuse needs timestamps", func(_ *Machine, value string, all map[string]string) bool {
		return value == "0" && all["net.ipv4.tcp_tw_reuse"] == "1"
	}},
	{"net.ipv4.tcp_max_tw_buckets", "it is less than the kernel's own, half of TCP's hash table", func(m *Machine, value string, _ map[string]string) bool {
		n := fieldOf(value, 0)
		return n != Unknown && n < m.buckets()/2
	}},
	{"fs.file-max", "systemd sets the largest number there is, and this lowers it", func(m *Machine, value string, _ map[string]string) bool {
		n := fieldOf(value, 0)
		return n != Unknown && n < Unlimited && m.exists("run/systemd/system")
	}},
}

// Warnings finds files that contradict what a demand takes, and lines that are
// known to do harm, there and in the kernel as it is.
func (m *Machine) Warnings(d Demand) []Warning {
	findings := m.Check(d)
	harm := m.warnOfHarm()
	lowered := slices.DeleteFunc(m.warnOfSysctls(findings), func(w Warning) bool {
		return slices.ContainsFunc(harm, func(h Warning) bool { return h.File == w.File && h.Name == w.Name })
	})
	return slices.Concat(harm, lowered, m.warnOfLogins(findings), m.warnOfUnits(d, findings))
}

// assignment is a line of a file.
type assignment struct{ file, name, value string }

// assignments are what sysctl files set, in the order in which they do.
func (m *Machine) assignments() []assignment {
	files := m.confs(sysctlDirs...)
	// Debian has a link to it; where there is none, sysctl --system reads it last.
	if !slices.ContainsFunc(files, func(f string) bool { return filepath.Base(f) == "99-sysctl.conf" }) {
		files = append(files, "/etc/sysctl.conf")
	}
	var all []assignment
	for _, file := range files {
		for _, s := range parseSysctls([]byte(m.text(file))) {
			all = append(all, assignment{file, s.Name, s.Want})
		}
	}
	return all
}

// warnOfHarm finds harmful lines. What the kernel has now stands for a file of
// its own.
func (m *Machine) warnOfHarm() []Warning {
	now, inFiles := map[string]string{}, map[string]string{}
	for _, name := range []string{"net.ipv4.tcp_mem", "net.ipv4.tcp_timestamps", "net.ipv4.tcp_tw_reuse"} {
		now[name], _ = m.sysctl(name)
	}
	assignments := m.assignments()
	for _, a := range assignments {
		inFiles[a.name] = a.value
	}
	var all []Warning
	for _, h := range harmful {
		if value := now[h.name]; value != "" && h.does(m, value, now) {
			all = append(all, Warning{"/proc/sys", h.name, fmt.Sprintf("is %s: %s", oneLine(value), h.why)})
		}
		for _, a := range assignments {
			if a.name == h.name && h.does(m, a.value, inFiles) {
				all = append(all, Warning{a.file, h.name, fmt.Sprintf("set to %s: %s", a.value, h.why)})
			}
		}
	}
	return all
}

// warnOfSysctls finds values that the next boot would lower.
func (m *Machine) warnOfSysctls(findings []Finding) []Warning {
	last := map[string]assignment{}
	for _, a := range m.assignments() {
		last[a.name] = a
	}
	var all []Warning
	for _, f := range findings {
		a, found := last[f.Limit.Sysctl]
		n := fieldOf(a.value, f.Limit.Field)
		switch {
		case !found || n == Unknown || f.Need == 0:
		case n < f.Have:
			all = append(all, Warning{a.file, a.name, fmt.Sprintf("set to %s: the next boot lowers it from %s", a.value, plain(f.Have))})
		case n < f.Need:
			all = append(all, Warning{a.file, a.name, fmt.Sprintf("set to %s, and %s are needed", a.value, plain(f.Need))})
		}
	}
	return all
}

// warnOfLogins looks at limits.conf(5), which PAM reads for logins.
func (m *Machine) warnOfLogins(findings []Finding) []Warning {
	need, open := needOf(findings, "RLIMIT_NOFILE"), m.sysctlField("fs.nr_open", 0)
	var all []Warning
	for _, file := range append([]string{"/etc/security/limits.conf"}, m.confs("/etc/security/limits.d")...) {
		for line := range strings.Lines(m.text(file)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || strings.HasPrefix(fields[0], "#") || fields[2] != "nofile" || fields[1] == "soft" {
				continue
			}
			n := loginLimit(fields[3])
			switch {
			case n == Unknown:
			case n < need:
				all = append(all, Warning{file, "nofile", fmt.Sprintf("set to %s for %s at login, and %s are needed", fields[3], fields[0], plain(need))})
			case open != Unknown && n > open:
				all = append(all, Warning{file, "nofile", fmt.Sprintf("set to %s for %s, above fs.nr_open, %s: logins fail", fields[3], fields[0], plain(open))})
			}
		}
	}
	return all
}

func loginLimit(text string) int64 {
	switch text {
	case "unlimited", "infinity", "-1":
		return Unlimited
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return Unknown
	}
	return n
}

// warnOfUnits looks at the units that start lull, where they are installed.
func (m *Machine) warnOfUnits(d Demand, findings []Finding) []Warning {
	need, open := needOf(findings, "RLIMIT_NOFILE"), m.sysctlField("fs.nr_open", 0)
	var all []Warning
	for _, unit := range d.units() {
		limit, from := m.unitLimit(unit, nil)
		switch {
		case from == "": // systemd's own is enough, or the limit's row says so
		case limit < need:
			all = append(all, Warning{from, "LimitNOFILE", fmt.Sprintf("set to %s for %s, and %s are needed", plain(limit), unit, plain(need))})
		case open != Unknown && limit > open:
			all = append(all, Warning{from, "LimitNOFILE", fmt.Sprintf("set to %s for %s, above fs.nr_open: systemd lowers it to %s and says nothing", plain(limit), unit, plain(open))})
		}
		all = append(all, m.warnOfUnitMemory(unit, needOf(findings, "cgroup memory"))...)
	}
	return all
}

// warnOfUnitMemory finds memory limits that a unit's processes would run into.
func (m *Machine) warnOfUnitMemory(unit string, need int64) []Warning {
	var files, dropIns []string
	for _, dir := range unitDirs {
		if path := filepath.Join(dir, unit); m.exists(path) && files == nil {
			files = []string{path}
		}
		dropIns = append(dropIns, filepath.Join(dir, unit+".d"))
	}
	last := map[string]Warning{}
	for _, file := range append(files, m.confs(dropIns...)...) {
		b, _ := os.ReadFile(filepath.Join(m.root, file)) // without it it says nothing
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if name != "MemoryMax" && name != "MemoryHigh" {
				continue
			}
			delete(last, name)
			if n, ok := parseLimit(value); ok && n < need {
				last[name] = Warning{file, name, fmt.Sprintf("set to %s for %s, and %s are needed", value, unit, Bytes.text(need))}
			}
		}
	}
	var all []Warning
	for _, name := range []string{"MemoryHigh", "MemoryMax"} {
		if w, found := last[name]; found {
			all = append(all, w)
		}
	}
	return all
}

func needOf(findings []Finding, name string) int64 {
	for _, f := range findings {
		if f.Limit.Name == name {
			return f.Need
		}
	}
	return 0
}
