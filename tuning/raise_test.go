package tuning

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

// million is a million connections, with both ends on one machine.
var million = Demand{Conns: 1_000_000, Server: true, Generator: true, Private: true, Fanout: 32}

func sysctls(t *testing.T, m *Machine) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, l := range Limits {
		if l.Sysctl == "" {
			continue
		}
		if value, err := m.sysctl(l.Sysctl); err == nil {
			values[l.Sysctl] = strings.Join(strings.Fields(value), " ")
		}
	}
	return values
}

func expectSysctls(t *testing.T, m *Machine, want map[string]string) {
	t.Helper()
	got := sysctls(t, m)
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("there are %v, want %v", got, want)
	}
}

func TestRaiseRaisesWhatIsTooLow(t *testing.T) {
	rows := []struct {
		machine       string
		demand        Demand
		before, after map[string]string
	}{
		{
			"m4.xlarge", million,
			map[string]string{"fs.epoll.max_user_watches": "500000"},
			map[string]string{
				"fs.file-max":               "9223372036854775807", // systemd's
				"fs.epoll.max_user_watches": "2000128",             // 4096 + 2 × 1,000,000
				"net.core.somaxconn":        "65535",
				"net.ipv4.tcp_mem":          "190473 1000000 1000000", // the first stays
			},
		},
		{
			"container", Demand{Conns: 300_000, Server: true},
			nil,
			map[string]string{
				"fs.file-max":               "302336", // 2336 + 300,000
				"fs.epoll.max_user_watches": "435814", // more than enough
				"net.core.somaxconn":        "65535",
			},
		},
		{
			"m4.xlarge", Demand{Conns: 10, Generator: true}, // that is small
			nil,
			map[string]string{
				"fs.file-max": "9223372036854775807", "fs.epoll.max_user_watches": "3663543",
				"net.core.somaxconn": "4096", "net.ipv4.tcp_mem": "190473 253965 380946",
			},
		},
		{
			"m4.xlarge", million,
			map[string]string{"net.core.somaxconn": "100000", "net.ipv4.tcp_mem": "1 2000000 3000000"}, // nothing is lowered
			map[string]string{
				"fs.file-max": "9223372036854775807", "fs.epoll.max_user_watches": "3663543",
				"net.core.somaxconn": "100000", "net.ipv4.tcp_mem": "1 2000000 3000000",
			},
		},
	}
	for _, r := range rows {
		m := mustRead(t, fixture(t, r.machine))
		write(t, m, r.before)
		before := sysctls(t, m)
		changes, err := m.Raise(r.demand)
		if err != nil {
			t.Error(err)
		}
		expectSysctls(t, m, r.after)
		for _, c := range changes {
			if strings.Join(strings.Fields(c.Old), " ") != before[c.Name] || c.New != r.after[c.Name] || c.New == before[c.Name] {
				t.Errorf("%+v, from %q to %q", c, before[c.Name], r.after[c.Name])
			}
			delete(before, c.Name)
		}
		for name, value := range before {
			if r.after[name] != value {
				t.Errorf("%s was raised, and Raise did not return it", name)
			}
		}
		for _, f := range m.Check(r.demand) {
			if f.Limit.Sysctl != "" && !f.OK() {
				t.Errorf("%s is still too low: %+v", f.Limit.Name, f)
			}
		}
		if again, err := m.Raise(r.demand); len(again) > 0 || err != nil {
			t.Errorf("raised again: %+v, %v", again, err)
		}
	}
}

func TestRestorePutsBackTheOldValues(t *testing.T) {
	for _, machine := range []string{"m4.xlarge", "container", "garbage"} {
		m := mustRead(t, fixture(t, machine))
		before := sysctls(t, m)
		changes, err := m.Raise(million)
		if err != nil {
			t.Error(err)
		}
		// The kernel formats the value in its own way.
		for _, c := range changes {
			write(t, m, map[string]string{c.Name: strings.ReplaceAll(c.New, " ", "\t")})
		}
		if err := m.Restore(changes); err != nil {
			t.Error(err)
		}
		expectSysctls(t, m, before)
	}
}

// A value that was raised twice gets its first value back.
func TestRestoreUndoesTheLastChangeFirst(t *testing.T) {
	m := mustRead(t, fixture(t, "container"))
	before := sysctls(t, m)
	first, err := m.Raise(Demand{Conns: 300_000, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	second, err := m.Raise(million)
	if err != nil {
		t.Fatal(err)
	}
	if len(first) == 0 || len(second) == 0 {
		t.Fatalf("raised %v, then %v", first, second)
	}
	if err := m.Restore(slices.Concat(first, second)); err != nil {
		t.Error(err)
	}
	expectSysctls(t, m, before)
}

func TestRestoreLeavesWhatSomebodyElseHasChanged(t *testing.T) {
	m := mustRead(t, fixture(t, "m4.xlarge"))
	write(t, m, map[string]string{"fs.epoll.max_user_watches": "500000"})
	want := sysctls(t, m)
	changes, err := m.Raise(million)
	if err != nil || len(changes) != 3 {
		t.Fatalf("%+v, %v", changes, err)
	}
	write(t, m, map[string]string{"net.core.somaxconn": "32768"})
	want["net.core.somaxconn"] = "32768"
	err = m.Restore(changes)
	if err == nil {
		t.Fatal("nobody was told")
	}
	for _, words := range []string{"tuning: restore net.core.somaxconn", `"4096"`, `"32768"`, `"65535"`} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("error %v does not speak of %s", err, words)
		}
	}
	if strings.Contains(err.Error(), "epoll") || strings.Contains(err.Error(), "tcp_mem") {
		t.Errorf("error %v speaks of what went well", err)
	}
	expectSysctls(t, m, want)
}

func TestRaiseReportsFailuresAndRaisesTheRest(t *testing.T) {
	m := mustRead(t, fixture(t, "container"))
	for _, name := range []string{"fs.file-max", "net.core.somaxconn"} {
		if err := os.Chmod(m.path(name), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	want := sysctls(t, m)
	asAnybody(t, func() {
		changes, err := m.Raise(million)
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("got %v", err)
		}
		for _, words := range []string{"tuning: raise fs.file-max to 2002336", "tuning: raise net.core.somaxconn to 65535"} {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("error %v does not say %q", err, words)
			}
		}
		if len(changes) != 1 || changes[0] != (Change{"fs.epoll.max_user_watches", "435814", "2000128"}) {
			t.Errorf("changes %+v", changes)
		}
		if err := m.Restore(changes); err != nil {
			t.Error(err)
		}
	})
	expectSysctls(t, m, want)
}

func TestRestoreReportsFailuresAndRestoresTheRest(t *testing.T) {
	m := mustRead(t, fixture(t, "container"))
	want := sysctls(t, m)
	changes, err := m.Raise(million)
	if err != nil || len(changes) != 3 {
		t.Fatalf("%+v, %v", changes, err)
	}
	if err := os.Remove(m.path("fs.epoll.max_user_watches")); err != nil {
		t.Fatal(err)
	}
	delete(want, "fs.epoll.max_user_watches")
	if err := os.Chmod(m.path("net.core.somaxconn"), 0o444); err != nil {
		t.Fatal(err)
	}
	want["net.core.somaxconn"] = "65535"
	asAnybody(t, func() {
		err := m.Restore(changes)
		if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("got %v", err)
		}
		for _, words := range []string{`tuning: restore fs.epoll.max_user_watches to "435814"`, `tuning: restore net.core.somaxconn to "128"`} {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("error %v does not say %s", err, words)
			}
		}
	})
	expectSysctls(t, m, want)
}

func TestNothingToRestore(t *testing.T) {
	if err := (&Machine{root: t.TempDir()}).Restore(nil); err != nil {
		t.Error(err)
	}
}

func TestRaisedRaisesFromOneNumberOn(t *testing.T) {
	rows := []struct {
		value string
		field int
		want  string
	}{
		{"4096", 0, "65535"},
		{"100000", 0, "100000"},
		{"1\t2\t3", 0, "65535 65535 65535"},
		{"1\t2\t3", 1, "1 65535 65535"},
		{"1\t2\t100000", 1, "1 65535 100000"},
		{"1\t2\tgarbage", 1, "1 65535 garbage"},
	}
	for _, r := range rows {
		if got := raised(r.value, r.field, 65535); got != r.want {
			t.Errorf("field %d of %q: %q, want %q", r.field, r.value, got, r.want)
		}
	}
}
