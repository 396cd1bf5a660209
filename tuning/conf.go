package tuning

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Warning is about a file that sets a value which is too low or does harm.
type Warning struct {
	File string `json:"file"`
	Name string `json:"name"`
	Text string `json:"text"`
}

// sysctlDirs hold the files that are read at boot. If two directories have a file
// of the same name, the first directory's counts; if two files set the same key,
// the one whose name sorts last counts, sysctl.d(5).
var sysctlDirs = []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"}

// harmful are lines that are often copied although they do harm.
var harmful = []struct {
	name, why string
	does      func(m *Machine, value string, all map[string]string) bool
}{
	{"net.ipv4.tcp_mem", "it counts pages, not bytes: this is more than the machine has, so nothing limits TCP", func(m *Machine, value string, _ map[string]string) bool {
		for field := range 3 {
			if m.Memory != Unknown && fieldOf(value, field) > m.Memory/pageBytes {
				return true
			}
		}
		return false
	}},
	{"net.ipv4.tcp_tw_recycle", "Linux 4.12 removed it; before, it broke connections from behind NAT", func(*Machine, string, map[string]string) bool { return true }},
	{"net.ipv4.tcp_timestamps", "tcp_tw_reuse needs timestamps", func(_ *Machine, value string, all map[string]string) bool {
		return value == "0" && all["net.ipv4.tcp_tw_reuse"] == "1"
	}},
	{"net.ipv4.tcp_max_tw_buckets", "it is less than the kernel's default, half of TCP's hash table", func(m *Machine, value string, _ map[string]string) bool {
		n := fieldOf(value, 0)
		return n != Unknown && n < m.buckets()/2
	}},
	{"fs.file-max", "systemd sets the maximum, and this lowers it", func(m *Machine, value string, _ map[string]string) bool {
		n := fieldOf(value, 0)
		return n != Unknown && n < Unlimited && m.systemd()
	}},
}

// Warnings finds files that contradict a demand, and lines and kernel values that
// are known to do harm.
func (m *Machine) Warnings(d Demand) []Warning {
	findings := m.Check(d)
	harm := m.warnOfHarm()
	lowered := slices.DeleteFunc(m.warnOfSysctls(findings), func(w Warning) bool {
		return slices.ContainsFunc(harm, func(h Warning) bool { return h.File == w.File && h.Name == w.Name })
	})
	return slices.Concat(harm, lowered, m.warnOfLogins(findings), m.warnOfUnits(d, findings), warnOfBalancers(d))
}

// warnOfBalancers warns of load balancers that close a connection before it is
// pinged. A network load balancer has a limit of its own; the others cannot be
// seen from here, so they do not count for the verdict.
func warnOfBalancers(d Demand) []Warning {
	if !d.Server || d.Ping.Seconds() <= applicationBalancerIdle {
		return nil
	}
	return []Warning{{
		File: "--idle-timeout", Name: "pings",
		Text: fmt.Sprintf("a silent connection after %.0f s: application load balancers of AWS, nginx and others close it after %d s; use --idle-timeout 100s behind one",
			d.Ping.Seconds(), applicationBalancerIdle),
	}}
}

// assignment is a line that sets a key.
type assignment struct{ file, name, value string }

// assignments are the lines of all sysctl files, in the order in which they take
// effect.
func (m *Machine) assignments() []assignment {
	files := m.confs(sysctlDirs...)
	// systemd-sysctl reads no /etc/sysctl.conf, unless there is a link to it in
	// sysctl.d. Elsewhere sysctl --system sets the values at boot, and reads it last.
	if !m.systemd() {
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

// systemd reports whether the machine was booted by systemd, sd_booted(3).
func (m *Machine) systemd() bool { return m.exists("run/systemd/system") }

// warnOfHarm finds harmful lines, and harmful values that the kernel has now.
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
			all = append(all, Warning{a.file, a.name, fmt.Sprintf("set to %s; %s are needed", a.value, plain(f.Need))})
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
				all = append(all, Warning{file, "nofile", fmt.Sprintf("set to %s for %s at login; %s are needed", fields[3], fields[0], plain(need))})
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

// warnOfUnits checks the units that start lull, if they are installed.
func (m *Machine) warnOfUnits(d Demand, findings []Finding) []Warning {
	need, open := needOf(findings, "RLIMIT_NOFILE"), m.sysctlField("fs.nr_open", 0)
	var all []Warning
	for _, unit := range d.units() {
		limit, from := m.unitLimit(unit, nil)
		switch {
		case from == "": // systemd's default; if that is too low, the limit's own row says so
		case limit < need:
			all = append(all, Warning{from, "LimitNOFILE", fmt.Sprintf("set to %s for %s; %s are needed", plain(limit), unit, plain(need))})
		case open != Unknown && limit > open:
			all = append(all, Warning{from, "LimitNOFILE", fmt.Sprintf("set to %s for %s, above fs.nr_open: systemd silently lowers it to %s", plain(limit), unit, plain(open))})
		}
		all = append(all, m.warnOfUnitMemory(unit, needOf(findings, "cgroup memory"))...)
	}
	return all
}

// warnOfUnitMemory finds memory limits of a unit that are too low.
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
		b, _ := os.ReadFile(filepath.Join(m.root, file)) // a file that cannot be read sets nothing
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if name != "MemoryMax" && name != "MemoryHigh" {
				continue
			}
			delete(last, name)
			if n, ok := m.parseMemory(value); ok && n < need {
				last[name] = Warning{file, name, fmt.Sprintf("set to %s for %s; %s are needed", value, unit, Bytes.text(need))}
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

// parseMemory reads a unit's memory limit: bytes, or a share of the machine's
// memory in percent.
func (m *Machine) parseMemory(value string) (bytes int64, ok bool) {
	percent, share := strings.CutSuffix(strings.TrimSpace(value), "%")
	if !share {
		return parseLimit(value)
	}
	n, err := strconv.ParseFloat(percent, 64)
	if err != nil || n < 0 || m.Memory == Unknown {
		return 0, false
	}
	return int64(float64(m.Memory) * n / 100), true
}

func needOf(findings []Finding, name string) int64 {
	for _, f := range findings {
		if f.Limit.Name == name {
			return f.Need
		}
	}
	return 0
}
