package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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

// raisable is a machine from testdata on which Raise can leave a note.
func raisable(t *testing.T, name string) *Machine {
	t.Helper()
	m := mustRead(t, fixture(t, name))
	write(t, m, map[string]string{"kernel.random.boot_id": bootID})
	put(t, m, "/var/lib/other", "other")
	if err := os.MkdirAll(m.below("/proc/1/ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	namespace(t, m, "net:[4026531833]")
	return m
}

func mustRaise(t *testing.T, m *Machine, d Demand) *Raised {
	t.Helper()
	r, err := m.Raise(d)
	if err != nil {
		t.Fatal(err)
	}
	return r
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
				"fs.epoll.max_user_watches": "2000128",             // 128 + 2 × 1,000,000
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
		{
			// What tune raises only by name. Its rule tracks connections, one now: 1.2 for each.
			"conntrack", Demand{Conns: 1_000_000, Server: true, Private: true, Fanout: 32},
			map[string]string{"net.core.somaxconn": "65535", "net.ipv4.tcp_child_ehash_entries": "0"},
			map[string]string{
				"net.netfilter.nf_conntrack_max": "1200000", "net.netfilter.nf_conntrack_buckets": "1200128",
				"net.ipv4.tcp_mem": "190473 1000000 1000000", "net.core.somaxconn": "65535",
			},
		},
		{
			// tcp_mem gets no more than 40 % of 15.7 GiB: 16,463,508 KiB × 0.4 ÷ 4.
			"m4.xlarge", Demand{Conns: 3_000_000, Server: true, Private: true, Fanout: 32},
			map[string]string{"net.core.somaxconn": "65535"},
			map[string]string{"net.core.somaxconn": "65535", "net.ipv4.tcp_mem": "190473 1646350 1646350"},
		},
	}
	for i, r := range rows {
		m := raisable(t, r.machine)
		write(t, m, r.before)
		before := sysctls(t, m)
		raised, err := m.Raise(r.demand)
		if err != nil {
			t.Error(err)
		}
		got := sysctls(t, m)
		for name, value := range r.after {
			if got[name] != value {
				t.Errorf("row %d: %s is %q, want %q", i, name, got[name], value)
			}
		}
		for _, c := range raised.Changes {
			if strings.Join(strings.Fields(c.Old), " ") != before[c.Name] || c.New != got[c.Name] || c.New == before[c.Name] {
				t.Errorf("row %d: %+v, from %q to %q", i, c, before[c.Name], got[c.Name])
			}
			delete(before, c.Name)
		}
		for name, value := range before {
			if got[name] != value {
				t.Errorf("row %d: %s was raised, and Raise did not return it", i, name)
			}
		}
		if err := raised.Restore(); err != nil {
			t.Error(err)
		}
	}
}

// A note of what there was is on the disk during a run and gone afterwards. What does
// not have to be raised leaves none.
func TestRaiseLeavesANoteForTheTimeOfTheRun(t *testing.T) {
	for _, machine := range []string{"m4.xlarge", "container", "conntrack"} {
		m := raisable(t, machine)
		before := snapshot(t, m.root)
		raised := mustRaise(t, m, million)
		s, err := loadState[state](m, RunFile)
		if err != nil || s == nil || len(s.Values) != len(raised.Changes) || len(raised.Changes) == 0 || len(s.Files) > 0 {
			t.Errorf("%s: the note is %+v, %v, of %+v", machine, s, err, raised.Changes)
		}
		// The kernel formats the value in its own way.
		for _, c := range raised.Changes {
			write(t, m, map[string]string{c.Name: strings.ReplaceAll(c.New, " ", "\t")})
		}
		for range 2 { // the second time there is nothing to do
			if err := raised.Restore(); err != nil {
				t.Error(err)
			}
		}
		expectSnapshot(t, machine, snapshot(t, m.root), before)
	}
	m := raisable(t, "garbage")
	before := snapshot(t, m.root)
	raised := mustRaise(t, m, Demand{Conns: 1})
	expectSnapshot(t, "nothing to raise", snapshot(t, m.root), before)
	if err := raised.Restore(); err != nil || len(raised.Changes) > 0 {
		t.Errorf("%+v, %v", raised.Changes, err)
	}
}

// While a run has raised limits, nobody takes them for the machine's own.
func TestDuringARunNobodyElseRaisesAppliesOrReverts(t *testing.T) {
	m := host(t)
	before := snapshot(t, m.root)
	raised := mustRaise(t, m, million)
	during := sysctls(t, m)
	if other, err := m.Raise(million); !errors.Is(err, errBusy) || len(other.Changes) > 0 || other.Restore() != nil {
		t.Errorf("another run: %+v, %v", other, err)
	}
	p := mustPlan(t, m, wishes, Choice{})
	if len(p.Warnings) == 0 || !strings.Contains(p.Warnings[0], RunFile) {
		t.Errorf("warnings %q", p.Warnings)
	}
	if err := m.Apply(p); !errors.Is(err, errBusy) {
		t.Errorf("apply: %v", err)
	}
	if _, err := m.Revert(); !errors.Is(err, errBusy) {
		t.Errorf("revert: %v", err)
	}
	expectSysctls(t, m, during)
	if err := raised.Restore(); err != nil {
		t.Error(err)
	}
	expectSnapshot(t, "afterwards", snapshot(t, m.root), before)
}

// Wherever a run was killed, everything is put back: by the next run, by an apply, or
// by revert.
func TestARunKilledAtAnyStepIsPutBack(t *testing.T) {
	next := map[string]func(*testing.T, *Machine){
		"the next run": func(t *testing.T, m *Machine) {
			if err := mustRaise(t, m, million).Restore(); err != nil {
				t.Error(err)
			}
		},
		"revert": func(t *testing.T, m *Machine) { mustRevert(t, m) },
		"apply and revert": func(t *testing.T, m *Machine) {
			p := mustPlan(t, m, wishes, Choice{})
			if m.Apply(p) != nil { // the plan was of a machine with the run's values
				mustApply(t, m, wishes, Choice{})
			}
			mustRevert(t, m)
		},
	}
	for name, then := range next {
		for n := 1; ; n++ {
			m := host(t)
			before := snapshot(t, m.root)
			was := killed(t, m, "run", n)
			then(t, m)
			expectSnapshot(t, fmt.Sprintf("killed at step %d, then %s", n, name), snapshot(t, m.root), before)
			if !was {
				if n < 8 {
					t.Errorf("%d steps", n)
				}
				break
			}
		}
	}
}

// A run after an apply that a kill ends gives apply's values back, and revert gives back
// those from before apply.
func TestARunThatIsKilledAfterAnApply(t *testing.T) {
	m := host(t)
	before := snapshot(t, m.root)
	mustApply(t, m, wishes, Choice{})
	applied := sysctls(t, m)
	mustRaise(t, m, million).done() // as the kernel does
	lines, err := m.Applied()
	if err != nil || !strings.Contains(strings.Join(lines, "\n"), "net.ipv4.tcp_mem: 190473 253965 380946 → 190473 1000000 1000000") {
		t.Errorf("%q, %v", lines, err)
	}
	if err := mustRaise(t, m, million).Restore(); err != nil {
		t.Error(err)
	}
	expectSysctls(t, m, applied)
	mustRaise(t, m, million).done()
	mustRevert(t, m)
	expectSnapshot(t, "reverted", snapshot(t, m.root), before)
}

func TestAfterARebootANoteIsForgotten(t *testing.T) {
	m := host(t)
	mustRaise(t, m, million).done()
	live := sysctls(t, m)
	write(t, m, map[string]string{"kernel.random.boot_id": "8f1f0f38-0000-4000-8000-000000000002"})
	if all := mustRevert(t, m); len(all) == 0 || all[0].To != "left: this is another boot" {
		t.Errorf("%+v", all)
	}
	expectSysctls(t, m, live)
	if m.exists(RunFile) {
		t.Error("the note is still there")
	}
}

func TestRestoreLeavesWhatSomebodyElseHasChanged(t *testing.T) {
	m := raisable(t, "m4.xlarge")
	write(t, m, map[string]string{"fs.epoll.max_user_watches": "500000"})
	want := sysctls(t, m)
	raised := mustRaise(t, m, million)
	if len(raised.Changes) != 3 {
		t.Fatalf("%+v", raised.Changes)
	}
	write(t, m, map[string]string{"net.core.somaxconn": "32768"})
	want["net.core.somaxconn"] = "32768"
	err := raised.Restore()
	if err == nil {
		t.Fatal("nobody was told")
	}
	for _, words := range []string{"tuning: restore net.core.somaxconn", "left at 32768", "it was 4096", "set it to 65535"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("error %v does not speak of %s", err, words)
		}
	}
	if strings.Contains(err.Error(), "epoll") || strings.Contains(err.Error(), "tcp_mem") {
		t.Errorf("error %v speaks of what went well", err)
	}
	expectSysctls(t, m, want)
}

func TestRaiseReportsWhatItMayNotAndRaisesTheRest(t *testing.T) {
	m := raisable(t, "container")
	for _, name := range []string{"fs.file-max", "net.core.somaxconn"} {
		if err := os.Chmod(m.path(name), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	want := sysctls(t, m)
	asAnybody(t, func() {
		raised, err := m.Raise(million)
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("got %v", err)
		}
		for _, words := range []string{"tuning: raise fs.file-max to 2002336", "tuning: raise net.core.somaxconn to 65535"} {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("error %v does not say %q", err, words)
			}
		}
		if len(raised.Changes) != 1 || raised.Changes[0] != (Change{"fs.epoll.max_user_watches", "435814", "2000128"}) {
			t.Errorf("changes %+v", raised.Changes)
		}
		if err := raised.Restore(); err != nil {
			t.Error(err)
		}
	})
	expectSysctls(t, m, want)
}

// Without a note nothing is raised.
func TestRaiseThatMayNotLeaveANoteRaisesNothing(t *testing.T) {
	m := raisable(t, "container")
	chmod(t, m, "/var/lib", 0o555)
	before := snapshot(t, m.root)
	asAnybody(t, func() {
		if raised, err := m.Raise(million); !errors.Is(err, fs.ErrPermission) || len(raised.Changes) > 0 {
			t.Errorf("%+v, %v", raised.Changes, err)
		}
	})
	expectSnapshot(t, "refused", snapshot(t, m.root), before)
}

// What cannot be restored stays in the note.
func TestRestoreReportsFailuresAndRestoresTheRest(t *testing.T) {
	m := raisable(t, "container")
	want := sysctls(t, m)
	raised := mustRaise(t, m, million)
	if len(raised.Changes) != 3 {
		t.Fatalf("%+v", raised.Changes)
	}
	if err := os.Chmod(m.path("net.core.somaxconn"), 0o444); err != nil {
		t.Fatal(err)
	}
	during := want["net.core.somaxconn"]
	want["net.core.somaxconn"] = "65535"
	asAnybody(t, func() {
		err := raised.Restore()
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "set net.core.somaxconn to "+during) || !strings.Contains(err.Error(), RunFile+" stays") {
			t.Errorf("got %v", err)
		}
	})
	expectSysctls(t, m, want)
	if err := os.Chmod(m.path("net.core.somaxconn"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustRevert(t, m)
	want["net.core.somaxconn"] = during
	expectSysctls(t, m, want)
}

// A run that was killed in a network namespace of its own has raised the machine's
// settings too. They are put back from any other.
func TestARunThatWasKilledInANamespaceOfItsOwn(t *testing.T) {
	m := host(t)
	before := sysctls(t, m)
	namespace(t, m, "net:[4026532000]")
	mustRaise(t, m, million).done() // as the kernel does
	namespace(t, m, "net:[4026533000]")
	before["net.core.somaxconn"] = "65535" // of the other namespace
	if err := mustRaise(t, m, Demand{Conns: 1}).Restore(); err != nil {
		t.Error(err)
	}
	expectSysctls(t, m, before)
}

// In a network namespace of its own, a process reads and sets there what is the
// namespace's, and in the first one what is not.
func TestWhatIsNotANamespacesOwnIsOutside(t *testing.T) {
	if os.Getenv("LULL_IN_NAMESPACE") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "LULL_IN_NAMESPACE=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, unix.EPERM) {
			t.Skip("this needs root, to make a network namespace")
		}
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		return
	}
	m := mustRead(t, "/")
	wide, done := m.outside()
	defer done()
	if wide.first == nil {
		t.Skip("the first network namespace is that of no ancestor")
	}
	const theirs = "net.ipv4.tcp_mem"
	if m.sysctlField(theirs, 0) != Unknown {
		t.Fatal("a namespace has tcp_mem of its own")
	}
	if wide.sysctlField(theirs, 0) < 1 || wide.writable(theirs) != nil {
		t.Errorf("%s is %d, %v", theirs, wide.sysctlField(theirs, 0), wide.writable(theirs))
	}
	const own = "net.core.somaxconn"
	value := fmt.Sprint(m.sysctlField(own, 0) + 1)
	if err := wide.write(own, value); err != nil {
		t.Error(err)
	}
	if now, err := m.sysctl(own); err != nil || now != value {
		t.Errorf("it is %s, %v", now, err)
	}
}

// The list of a namespace's settings is that of the table.
func TestANamespacesSettingsAreThoseOfItsScope(t *testing.T) {
	for _, l := range Limits {
		if l.Sysctl != "" && namespaced[l.Sysctl] != (l.Scope == Namespace) {
			t.Errorf("%s has the scope %s", l.Sysctl, l.Scope)
		}
	}
}
