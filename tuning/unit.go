package tuning

import (
	"fmt"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The units in tuning/deploy.
const (
	ServerUnit    = "lull.service"
	GeneratorUnit = "lull-load.service"
)

// DropInPath is the drop-in file that sets a unit's limits.
func DropInPath(unit string) string {
	return filepath.Join("/etc/systemd/system", unit+".d", "limits.conf")
}

// limitSetting is the units' limit, as a Choice names it.
var limitSetting = Setting{Name: "LimitNOFILE", Why: "accept4 and socket fail with EMFILE where descriptor tables are shared"}

// limitDefault is the limit of a unit that sets none, since systemd 240.
const limitDefault = 524288

// Descriptors is the recommended RLIMIT_NOFILE of a process that holds conns
// connections in one descriptor table. It has room for 65,536 other descriptors,
// and it is a power of two, because tables double.
func Descriptors(conns int) int64 {
	const others = 1 << 16
	return 1 << bits.Len64(uint64(conns)+others-1)
}

// UnitDropIn is a drop-in that sets a systemd unit's limit of descriptors.
func UnitDropIn(descriptors int64) []byte {
	return fmt.Appendf(nil, `# Made by "lull tune"; "lull tune revert" removes it.
[Service]
# Without it: %s.
# If fs.nr_open is lower, systemd silently uses that.
LimitNOFILE=%d
`, limitSetting.Why, descriptors)
}

func (d Demand) units() []string {
	var units []string
	if d.Server {
		units = append(units, ServerUnit)
	}
	if d.Generator {
		units = append(units, GeneratorUnit)
	}
	return units
}

// planUnits plans drop-ins for those units of a demand whose limit is too low, if
// the machine has systemd.
func (m *Machine) planUnits(p *Plan, d Demand, applied *state) error {
	if info, err := os.Stat(m.below("/etc/systemd/system")); err != nil || !info.IsDir() {
		return nil
	}
	want := m.descriptors(d)
	for _, unit := range d.units() {
		now, _ := m.unitLimit(unit, nil)
		r := Row{Setting: limitSetting, Now: descriptors(now), After: descriptors(now), Skip: skipEnough}
		r.Name, r.Want = r.Name+" of "+unit, descriptors(want)
		if now >= want {
			p.Units = append(p.Units, r)
			continue
		}
		path := DropInPath(unit)
		had, err := m.contentOf(path)
		if err != nil {
			return fmt.Errorf("tuning: plan a file: %w", err)
		}
		text := applied.after(path, had, UnitDropIn(want))
		p.Files = append(p.Files, PlannedFile{path, text})
		after, from := m.unitLimit(unit, text)
		r.After, r.Skip = descriptors(after), ""
		p.Units = append(p.Units, r)
		if after < want {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s sets LimitNOFILE of %s to %s: it is read after %s",
				from, unit, descriptors(after), path))
		}
	}
	m.warnNrOpen(p, want)
	return nil
}

// warnNrOpen warns if fs.nr_open is lower than the units' limit.
func (m *Machine) warnNrOpen(p *Plan, want int64) {
	most := m.sysctlField("fs.nr_open", 0)
	for _, r := range p.Rows {
		if n, err := numbers(r.After); r.Name == "fs.nr_open" && err == nil {
			most = n[0]
		}
	}
	if len(p.Files) > 0 && most != Unknown && most < want {
		p.Warnings = append(p.Warnings, fmt.Sprintf("fs.nr_open is %d: systemd will silently lower LimitNOFILE=%d to it", most, want))
	}
}

// unitDirs are the directories in which systemd looks for units, in order.
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// unitLimit returns a unit's hard RLIMIT_NOFILE and the file that sets it, "" for
// the default. If ours is not nil, it replaces the content of limits.conf.
func (m *Machine) unitLimit(unit string, ours []byte) (limit int64, from string) {
	limit = limitDefault
	read := func(path, key string, text []byte) {
		if text == nil {
			text, _ = os.ReadFile(m.below(path)) // without it it says nothing
		}
		for line := range strings.Lines(string(text)) {
			name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
			if !ok || strings.TrimSpace(name) != key {
				continue
			}
			if n, ok := parseLimit(value); ok {
				limit, from = n, path
			}
		}
	}
	read("/etc/systemd/system.conf", "DefaultLimitNOFILE", nil)
	for _, path := range m.confs("/etc/systemd/system.conf.d") {
		read(path, "DefaultLimitNOFILE", nil)
	}
	for _, dir := range unitDirs {
		path := filepath.Join(dir, unit)
		if _, err := os.Stat(m.below(path)); err == nil {
			read(path, "LimitNOFILE", nil)
			break
		}
	}
	dropIns := make([]string, len(unitDirs))
	for i, dir := range unitDirs {
		dropIns[i] = filepath.Join(dir, unit+".d")
	}
	paths := m.confs(dropIns...)
	if ours != nil && !slices.Contains(paths, DropInPath(unit)) {
		paths = append(paths, DropInPath(unit))
		slices.SortFunc(paths, byBase)
	}
	for _, path := range paths {
		if path == DropInPath(unit) {
			read(path, "LimitNOFILE", ours)
		} else {
			read(path, "LimitNOFILE", nil)
		}
	}
	return limit, from
}

// parseLimit reads the hard limit of a value as in systemd.exec(5): one number or
// soft:hard, infinity, or a number followed by K, M or G.
func parseLimit(text string) (int64, bool) {
	text = strings.TrimSpace(text)
	if _, hard, both := strings.Cut(text, ":"); both {
		text = hard
	}
	if text == "infinity" {
		return math.MaxInt64, true
	}
	scale := int64(1)
	for i, suffix := range []string{"K", "M", "G", "T"} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, scale = rest, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/scale {
		return 0, false
	}
	return n * scale, true
}

func descriptors(n int64) string {
	if n == math.MaxInt64 {
		return "infinity"
	}
	return strconv.FormatInt(n, 10)
}
