package tuning

import (
	"math"
	"strings"
	"testing"
)

func TestDescriptorsLeaveRoomForOthers(t *testing.T) {
	for conns, want := range map[int]int64{1: 131_072, 65_536: 131_072, 65_537: 262_144, 1_000_000: 2_097_152, 2_000_000: 2_097_152, 2_100_000: 4_194_304} {
		if got := Descriptors(conns); got != want {
			t.Errorf("%d connections: %d, want %d", conns, got, want)
		}
	}
}

func TestADropInSaysWhatAndWhy(t *testing.T) {
	text := string(UnitDropIn(2_097_152))
	if !strings.Contains(text, "\n[Service]\n") || !strings.HasSuffix(text, "\nLimitNOFILE=2097152\n") || !strings.Contains(text, "EMFILE") {
		t.Errorf("%s", text)
	}
}

func TestAUnitsLimitIsTheLastThatIsRead(t *testing.T) {
	rows := []struct {
		files map[string]string
		limit int64
		from  string
	}{
		{nil, limitDefault, ""},
		{map[string]string{"/etc/systemd/system.conf": "DefaultLimitNOFILE=1024:infinity"}, math.MaxInt64, "/etc/systemd/system.conf"},
		{map[string]string{
			"/etc/systemd/system.conf": "DefaultLimitNOFILE=1024:infinity", "/usr/lib/systemd/system/lull.service": "[Service]\n LimitNOFILE = 4K\n",
		}, 4096, "/usr/lib/systemd/system/lull.service"},
		{map[string]string{
			"/usr/lib/systemd/system/lull.service": "LimitNOFILE=1M", "/etc/systemd/system/lull.service": "LimitNOFILE=2M",
		}, 2 << 20, "/etc/systemd/system/lull.service"},
		{map[string]string{
			"/etc/systemd/system/lull.service.d/a.conf": "LimitNOFILE=1", "/run/systemd/system/lull.service.d/b.conf": "LimitNOFILE=2",
			"/usr/lib/systemd/system/lull.service.d/b.conf": "LimitNOFILE=3", "/usr/lib/systemd/system/lull.service.d/z.txt": "LimitNOFILE=4",
		}, 2, "/run/systemd/system/lull.service.d/b.conf"},
		{map[string]string{"/etc/systemd/system/lull.service.d/a.conf": "#LimitNOFILE=1\nLimitNOFILE=many\nLimitNOFILESoft=2"}, limitDefault, ""},
	}
	for _, r := range rows {
		m := &Machine{root: t.TempDir()}
		for path, text := range r.files {
			put(t, m, path, text)
		}
		if limit, from := m.unitLimit(ServerUnit, nil); limit != r.limit || from != r.from {
			t.Errorf("%v: %d from %q, want %d from %q", r.files, limit, from, r.limit, r.from)
		}
	}
}

func TestLimitsAreReadAsSystemdReadsThem(t *testing.T) {
	for text, want := range map[string]int64{"1024": 1024, " 1024:524288 ": 524288, "infinity": math.MaxInt64, "1:infinity": math.MaxInt64, "64K": 64 << 10, "1G": 1 << 30} {
		if got, ok := parseLimit(text); !ok || got != want {
			t.Errorf("%q: %d, %t", text, got, ok)
		}
	}
	for _, text := range []string{"", "many", "-1", "1:", "1KK", "9999999999T"} {
		if got, ok := parseLimit(text); ok {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// A unit whose limits are high enough is not changed, and neither is a machine without
// systemd.
func TestUnitsAreOnlyRaised(t *testing.T) {
	m := host(t)
	put(t, m, "/etc/systemd/system/lull.service", "[Service]\nLimitNOFILE=infinity\n")
	p := mustPlan(t, m, nil, Choice{})
	if len(p.Files) != 1 || p.Files[0].Path != DropInPath(GeneratorUnit) {
		t.Errorf("%v", paths(p.Files))
	}
	small, err := host(t).plan(Demand{Conns: 1000, Server: true}, Choice{}, nil)
	if err != nil || !small.Empty() {
		t.Errorf("for 1000 connections, which is less than systemd gives: %v, %v", paths(small.Files), err)
	}
	bare := &Machine{root: t.TempDir()}
	if p := mustPlan(t, bare, nil, Choice{}); !p.Empty() {
		t.Errorf("without systemd: %v", paths(p.Files))
	}
}

// systemd would lower the limit to fs.nr_open without a warning.
func TestALimitAboveNrOpenIsWarnedOf(t *testing.T) {
	for nrOpen, warnings := range map[string]int{"1048576": 1, "2097152": 0} {
		m := host(t)
		write(t, m, map[string]string{"fs.nr_open": nrOpen})
		if p := mustPlan(t, m, nil, Choice{}); len(p.Warnings) != warnings {
			t.Errorf("fs.nr_open %s: %q", nrOpen, p.Warnings)
		}
	}
	if p := mustPlan(t, host(t), wishes, Choice{}); len(p.Warnings) != 0 {
		t.Errorf("fs.nr_open is raised: %q", p.Warnings)
	}
}
