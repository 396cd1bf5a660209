package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// wishes are the settings that the tests want to change, one of each kind.
var wishes = []Setting{
	{Name: "fs.nr_open", Want: "2097152", Why: "descriptors"},
	{Name: "net.core.somaxconn", Want: "65535", Why: "a rush"},
	{Name: "net.ipv4.tcp_rmem", Want: "4096 65536 8388608", Why: "three numbers"},
	{Name: "net.ipv4.ip_local_port_range", Want: "1024 65535", Why: "a range"},
	{Name: "net.ipv4.tcp_mem", Want: "1 1000000 1000000", Why: "a broadcast", Named: true},
	{Name: "net.netfilter.nf_conntrack_max", Want: "1200000", Why: "a table", Named: true},
}

// The tests also set these two, which are in no row of the table of limits.
func init() { tunable = append(tunable, "net.ipv4.tcp_rmem", "net.ipv4.ip_local_port_range") }

const bootID = "8f1f0f38-0000-4000-8000-000000000001"

// host is a machine whose settings are too low, with systemd, and with files that
// are not ours.
func host(t *testing.T) *Machine {
	t.Helper()
	root := fixture(t, "m4.xlarge")
	m := mustRead(t, root)
	write(t, m, map[string]string{
		"kernel.random.boot_id": bootID,
		"fs.nr_open":            "1048576", "net.core.somaxconn": "4096",
		"net.ipv4.tcp_rmem": "4096\t131072\t6291456", "net.ipv4.ip_local_port_range": "32768\t60999",
		"net.ipv4.tcp_mem": "190473\t253965\t380946",
	})
	files := map[string]string{
		"/etc/sysctl.d/10-other.conf":                     "kernel.panic = 10\n",
		"/etc/systemd/system/lull.service":                "[Service]\nExecStart=/usr/bin/lull serve\n",
		"/etc/systemd/system/lull-load.service.d/my.conf": "[Service]\nNice=5\n",
		"/var/lib/other":                                  "other",
	}
	for path, text := range files {
		put(t, m, path, text)
	}
	if err := os.MkdirAll(m.below("/proc/1/ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	namespace(t, m, "net:[4026531833]")
	return m
}

// namespace puts the machine into a network namespace.
func namespace(t *testing.T, m *Machine, id string) {
	t.Helper()
	link := m.below("/proc/1/ns/net")
	_ = os.Remove(link)
	if err := os.Symlink(id, link); err != nil {
		t.Fatal(err)
	}
}

// snapshot is everything below a root: names, modes, owners and contents.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		entry := fmt.Sprintf("%v %d:%d", info.Mode(), stat.Uid, stat.Gid)
		switch {
		case info.Mode().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			entry += " " + string(text)
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			entry += " " + to
		}
		all[strings.TrimPrefix(path, root)] = entry
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func expectSnapshot(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for path := range want {
		if got[path] != want[path] {
			t.Errorf("%s: %s is %.300q, was %.300q", what, path, got[path], want[path])
		}
	}
	for path := range got {
		if _, was := want[path]; !was {
			t.Errorf("%s: %s is new, %.300q", what, path, got[path])
		}
	}
}

var bothRoles = Demand{Conns: 1_000_000, Server: true, Generator: true}

func mustPlan(t *testing.T, m *Machine, settings []Setting, c Choice) *Plan {
	t.Helper()
	p, err := m.plan(bothRoles, c, settings)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustApply(t *testing.T, m *Machine, settings []Setting, c Choice) {
	t.Helper()
	if err := m.Apply(mustPlan(t, m, settings, c)); err != nil {
		t.Fatal(err)
	}
}

func mustRevert(t *testing.T, m *Machine) []Reverted {
	t.Helper()
	all, err := m.Revert()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func values(t *testing.T, m *Machine, names ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range names {
		value, err := m.sysctl(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = oneLine(value)
	}
	return all
}

func TestAPlanChangesNothing(t *testing.T) {
	m := host(t)
	before := snapshot(t, m.root)
	p := mustPlan(t, m, wishes, Choice{})
	expectSnapshot(t, "planned", snapshot(t, m.root), before)
	var files []string
	for _, f := range p.Files {
		files = append(files, f.Path)
	}
	want := []string{SysctlPath, DropInPath(ServerUnit), DropInPath(GeneratorUnit)}
	if !slices.Equal(files, want) || p.Empty() {
		t.Errorf("files %v", files)
	}
}

func TestApplyRaisesAndWritesFiles(t *testing.T) {
	m := host(t)
	mustApply(t, m, wishes, Choice{})
	got := values(t, m, "fs.nr_open", "net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_mem")
	want := map[string]string{
		"fs.nr_open": "2097152", "net.core.somaxconn": "65535",
		"net.ipv4.tcp_rmem": "4096 131072 8388608", "net.ipv4.ip_local_port_range": "1024 65535",
		"net.ipv4.tcp_mem": "190473 253965 380946", // not named
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	file, err := os.ReadFile(m.below(SysctlPath))
	if err != nil {
		t.Fatal(err)
	}
	inFile := []Setting{
		{Name: "fs.nr_open", Want: "2097152", Why: "descriptors"},
		{Name: "net.core.somaxconn", Want: "65535", Why: "a rush"},
		{Name: "net.ipv4.tcp_rmem", Want: "4096 131072 8388608", Why: "three numbers"},
		{Name: "net.ipv4.ip_local_port_range", Want: "1024 65535", Why: "a range"},
	}
	if string(file) != string(SysctlFile(inFile)) {
		t.Errorf("%s", file)
	}
	for _, unit := range []string{ServerUnit, GeneratorUnit} {
		text, err := os.ReadFile(m.below(DropInPath(unit)))
		if err != nil || string(text) != string(UnitDropIn(2097152)) {
			t.Errorf("%s: %s, %v", unit, text, err)
		}
	}
	if again := mustPlan(t, m, wishes, Choice{}); !again.Empty() {
		t.Errorf("a second plan changes %+v and %+v", again.Changes(), again.Files)
	}
}

func TestRevertPutsBackEverything(t *testing.T) {
	withOwn := func(t *testing.T, m *Machine) {
		put(t, m, SysctlPath, "# mine\nnet.core.somaxconn = 70000\nvm.swappiness = 1")
		put(t, m, DropInPath(ServerUnit), "[Service]\nLimitNOFILE=1000\nNice=1")
		if err := os.Chmod(m.below(SysctlPath), 0o640); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(m.below(SysctlPath), 12, 34); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(m.below(filepath.Dir(StateFile)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, prepare := range map[string]func(*testing.T, *Machine){"new files": nil, "files that were there": withOwn} {
		m := host(t)
		if prepare != nil {
			prepare(t, m)
		}
		before := snapshot(t, m.root)
		mustApply(t, m, wishes, Choice{With: []string{"net.ipv4.tcp_mem"}})
		if v := values(t, m, "net.ipv4.tcp_mem")["net.ipv4.tcp_mem"]; v != "190473 1000000 1000000" {
			t.Errorf("%s: tcp_mem is %s", name, v)
		}
		all := mustRevert(t, m)
		if len(all) != 8 {
			t.Errorf("%s: %+v", name, all)
		}
		for _, r := range all {
			if r.Drift || r.Err != nil || (r.To == "removed") != (prepare == nil && strings.HasPrefix(r.Name, "/") || r.Name == DropInPath(GeneratorUnit)) {
				t.Errorf("%s: %+v", name, r)
			}
		}
		expectSnapshot(t, name, snapshot(t, m.root), before)
		if again := mustRevert(t, m); len(again) > 0 {
			t.Errorf("%s: reverted twice: %+v", name, again)
		}
		expectSnapshot(t, name+", twice", snapshot(t, m.root), before)
	}
}

// Lines that a file had before are still there, byte for byte but for values that are
// too low, in the line that counts.
func TestApplyKeepsTheLinesOfItsFiles(t *testing.T) {
	m := host(t)
	mine := "; mine\n\n# the queue\n-net/core/somaxconn=  1 \t\r\nnet.core.somaxconn = 70000\n\n\nnonsense\n-net.ipv4.conf.*.rp_filter\n vm.swappiness = 1\n" +
		"# twice\nfs.nr_open=5\n-fs.nr_open =  6 \n# the last word"
	put(t, m, SysctlPath, mine)
	put(t, m, DropInPath(ServerUnit), "[Service]\nLimitNOFILE=1000\nNice=1")
	if err := os.Chmod(m.below(SysctlPath), 0o640); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, m.root)
	mustApply(t, m, wishes[:3], Choice{})
	if info, err := os.Stat(m.below(SysctlPath)); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(m.below(SysctlPath))
	want := strings.Replace(mine, "-fs.nr_open =  6 \n", "-fs.nr_open =  2097152 \n", 1) + "\n\n# three numbers\nnet.ipv4.tcp_rmem = 4096 131072 8388608\n"
	if err != nil || string(text) != want {
		t.Errorf("%q, %v\nwant %q", text, err, want)
	}
	text, err = os.ReadFile(m.below(DropInPath(ServerUnit)))
	if err != nil || string(text) != "[Service]\nLimitNOFILE=1000\nNice=1\n"+string(UnitDropIn(2097152)) {
		t.Errorf("%s, %v", text, err)
	}
	if again := mustPlan(t, m, wishes[:3], Choice{}); !again.Empty() {
		t.Errorf("a second plan changes %+v and %+v", again.Changes(), again.Files)
	}
	mustRevert(t, m)
	expectSnapshot(t, "reverted", snapshot(t, m.root), before)
}

func TestAChoiceDecides(t *testing.T) {
	rows := []struct {
		choice Choice
		names  []string
		files  int
	}{
		{Choice{}, []string{"fs.nr_open", "net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.ip_local_port_range"}, 3},
		{Choice{With: []string{"net/ipv4/tcp_mem"}}, []string{"fs.nr_open", "net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_mem"}, 3},
		{Choice{Only: []string{"net.core.somaxconn"}}, []string{"net.core.somaxconn"}, 1},
		{Choice{Only: []string{"net.ipv4.tcp_mem"}}, []string{"net.ipv4.tcp_mem"}, 1},
		{Choice{Only: []string{"LimitNOFILE"}}, nil, 2},
	}
	for _, r := range rows {
		p := mustPlan(t, host(t), wishes, r.choice)
		var names []string
		for _, c := range p.Changes() {
			names = append(names, c.Name)
		}
		if !slices.Equal(names, r.names) || len(p.Files) != r.files {
			t.Errorf("%+v: %v and %d files", r.choice, names, len(p.Files))
		}
	}
	if err := (Choice{Only: []string{"net.core.somaxcon"}}).Check(); err == nil || !strings.Contains(err.Error(), "net.core.somaxconn") {
		t.Errorf("%v", err)
	}
}

func TestRevertLeavesWhatSomebodyElseHasChanged(t *testing.T) {
	m := host(t)
	mustApply(t, m, wishes, Choice{})
	write(t, m, map[string]string{
		"net.core.somaxconn": "32768",
		"net.ipv4.tcp_rmem":  "4096\t131072\t8388608", // ours, as the kernel writes it
		"fs.nr_open":         "1048576",               // back already
	})
	put(t, m, SysctlPath, "net.core.somaxconn = 32768\n")
	drift := map[string]bool{}
	for _, r := range mustRevert(t, m) {
		drift[r.Name] = r.Drift
	}
	for name, want := range map[string]bool{
		"net.core.somaxconn": true, SysctlPath: true,
		"net.ipv4.tcp_rmem": false, "fs.nr_open": false, DropInPath(ServerUnit): false,
	} {
		if got, told := drift[name]; !told || got != want {
			t.Errorf("%s: drift is %t, told %t", name, got, told)
		}
	}
	got := values(t, m, "net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.ip_local_port_range")
	want := map[string]string{"net.core.somaxconn": "32768", "net.ipv4.tcp_rmem": "4096 131072 6291456", "net.ipv4.ip_local_port_range": "32768 60999"}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if text, err := os.ReadFile(m.below(SysctlPath)); err != nil || string(text) != "net.core.somaxconn = 32768\n" {
		t.Errorf("%s, %v", text, err)
	}
	if again := mustRevert(t, m); len(again) > 0 {
		t.Errorf("reverted twice: %+v", again)
	}
}

// After a reboot the kernel's values come from the file, and those that each namespace
// has for itself are not ours in another one. These are left.
func TestAfterARebootOrInAnotherNamespaceOnlyTheRestIsRestored(t *testing.T) {
	names := []string{"fs.nr_open", "net.core.somaxconn", "net.ipv4.tcp_mem"}
	elsewhere := map[string]struct {
		move func(*testing.T, *Machine)
		left []string
	}{
		"another boot": {func(t *testing.T, m *Machine) {
			write(t, m, map[string]string{"kernel.random.boot_id": "8f1f0f38-0000-4000-8000-000000000002"})
		}, names},
		"another network namespace": {func(t *testing.T, m *Machine) { namespace(t, m, "net:[4026532000]") }, []string{"net.core.somaxconn"}},
	}
	for name, r := range elsewhere {
		m := host(t)
		before := snapshot(t, m.root)
		want := values(t, m, names...)
		mustApply(t, m, wishes, Choice{Only: append(names, "LimitNOFILE")})
		r.move(t, m)
		maps.Copy(want, values(t, m, r.left...))
		for _, one := range mustRevert(t, m) {
			if one.Drift || strings.Contains(one.To, name) != slices.Contains(r.left, one.Name) {
				t.Errorf("%s: %+v", name, one)
			}
		}
		if got := values(t, m, names...); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		after := snapshot(t, m.root)
		for path := range before {
			if strings.HasPrefix(path, "/proc/") {
				delete(before, path)
			}
		}
		for path := range after {
			if strings.HasPrefix(path, "/proc/") {
				delete(after, path)
			}
		}
		expectSnapshot(t, name, after, before)
	}
}

// moreWishes are the settings of a second apply on the same machine.
var moreWishes = []Setting{
	{Name: "fs.nr_open", Want: "4194304", Why: "descriptors"},
	{Name: "net.ipv4.tcp_mem", Want: "1 2000000 2000000", Why: "a broadcast"},
}

func TestASecondApplyKeepsTheOldestValues(t *testing.T) {
	m := host(t)
	before := snapshot(t, m.root)
	mustApply(t, m, wishes, Choice{})
	mustApply(t, m, moreWishes, Choice{})
	if got := values(t, m, "fs.nr_open", "net.core.somaxconn"); got["fs.nr_open"] != "4194304" || got["net.core.somaxconn"] != "65535" {
		t.Errorf("%v", got)
	}
	text, err := os.ReadFile(m.below(SysctlPath))
	if err != nil || !strings.Contains(string(text), "net.core.somaxconn = 65535\n") || !strings.Contains(string(text), "fs.nr_open = 4194304\n") {
		t.Errorf("%s, %v", text, err)
	}
	// A drop-in is replaced, not extended.
	larger := Demand{Conns: 3_000_000, Server: true}
	p, err := m.plan(larger, Choice{}, nil)
	if err != nil || len(p.Files) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := m.Apply(p); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(m.below(DropInPath(ServerUnit))); err != nil || string(text) != string(UnitDropIn(4194304)) {
		t.Errorf("%s, %v", text, err)
	}
	// The value that the first apply set still counts as ours.
	write(t, m, map[string]string{"fs.nr_open": "2097152"})
	mustRevert(t, m)
	expectSnapshot(t, "reverted", snapshot(t, m.root), before)
}

// After a reboot the old values of the kernel are gone, so the values that a second
// apply finds are restored. Files are restored to before the first apply.
func TestASecondApplyAfterAReboot(t *testing.T) {
	m := host(t)
	before := snapshot(t, m.root)
	mustApply(t, m, wishes, Choice{})
	const other = "8f1f0f38-0000-4000-8000-000000000002"
	write(t, m, map[string]string{"kernel.random.boot_id": other})
	mustApply(t, m, moreWishes, Choice{})
	mustRevert(t, m)
	if got := values(t, m, "fs.nr_open", "net.core.somaxconn"); got["fs.nr_open"] != "2097152" || got["net.core.somaxconn"] != "65535" {
		t.Errorf("%v", got)
	}
	write(t, m, map[string]string{
		"kernel.random.boot_id": bootID, "fs.nr_open": "1048576", "net.core.somaxconn": "4096",
		"net.ipv4.tcp_rmem": "4096\t131072\t6291456", "net.ipv4.ip_local_port_range": "32768\t60999",
	})
	expectSnapshot(t, "reverted", snapshot(t, m.root), before)
}

func TestASecondApplyInAnotherNamespaceIsRefused(t *testing.T) {
	m := host(t)
	mustApply(t, m, wishes, Choice{})
	namespace(t, m, "net:[4026532000]")
	before := snapshot(t, m.root)
	err := m.Apply(mustPlan(t, m, moreWishes, Choice{}))
	if err == nil || !strings.Contains(err.Error(), "another network namespace") {
		t.Errorf("%v", err)
	}
	expectSnapshot(t, "refused", snapshot(t, m.root), before)
}

// Apply notices what it cannot write before it writes anything.
func TestApplyChangesEverythingOrNothing(t *testing.T) {
	rows := map[string]func(*testing.T, *Machine){
		"/fs/nr_open":         func(t *testing.T, m *Machine) { protect(t, m) },
		"/etc/sysctl.d":       func(t *testing.T, m *Machine) { chmod(t, m, "/etc/sysctl.d", 0o555) },
		"/etc/systemd/system": func(t *testing.T, m *Machine) { chmod(t, m, "/etc/systemd/system", 0o555) },
		"/var/lib":            func(t *testing.T, m *Machine) { chmod(t, m, "/var/lib", 0o555) },
	}
	for says, spoil := range rows {
		m := host(t)
		spoil(t, m)
		before := snapshot(t, m.root)
		asAnybody(t, func() {
			err := m.Apply(mustPlan(t, m, wishes, Choice{}))
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "nothing was changed") {
				t.Errorf("%s: %v", says, err)
			}
		})
		expectSnapshot(t, says, snapshot(t, m.root), before)
	}
}

func chmod(t *testing.T, m *Machine, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(m.below(path), mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(m.below(path), 0o755) })
}

func TestPathsThatAreNoFilesAreRefused(t *testing.T) {
	for _, path := range []string{SysctlPath, DropInPath(ServerUnit), StateFile} {
		m := host(t)
		if err := os.MkdirAll(filepath.Dir(m.below(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/null", m.below(path)); err != nil {
			t.Fatal(err)
		}
		if _, err := m.plan(bothRoles, Choice{}, wishes); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// atStep calls f in place of the n-th step, until the test ends. names returns the
// steps so far.
func atStep(t *testing.T, n int, f func() error) (names func() []string) {
	var asked []string
	step = func(name string) error {
		asked = append(asked, name)
		if len(asked) == n {
			return f()
		}
		return nil
	}
	t.Cleanup(endSteps)
	return func() []string { return asked }
}

func endSteps() { step = func(string) error { return nil } }

var errTest = errors.New("out of luck")

// Each step fails once. The steps before it are undone, even if there is a state of
// an earlier apply.
func TestAStepThatFailsIsRolledBack(t *testing.T) {
	for _, earlier := range []bool{false, true} {
		prepared := func() (*Machine, *Plan) {
			m := host(t)
			if earlier {
				mustApply(t, m, wishes[1:3], Choice{})
			}
			return m, mustPlan(t, m, wishes, Choice{})
		}
		m, p := prepared()
		names := atStep(t, 0, nil)
		if err := m.Apply(p); err != nil || len(names()) < 10 {
			t.Fatalf("%v, %v", names(), err)
		}
		// The last step would remove the directory, which is kept for the state.
		for n, name := range names()[:len(names())-1] {
			m, p := prepared()
			before := snapshot(t, m.root)
			atStep(t, n+1, func() error { return errTest })
			err := m.Apply(p)
			endSteps()
			if !errors.Is(err, errTest) || strings.Contains(err.Error(), "not all that was done") {
				t.Errorf("fails to %s: %v", name, err)
			}
			expectSnapshot(t, "fails to "+name, snapshot(t, m.root), before)
		}
	}
}

// If a step that was done cannot be undone, the state stays, and Revert undoes it
// later.
func TestWhatCannotBeRolledBackIsReverted(t *testing.T) {
	m := host(t)
	before := snapshot(t, m.root)
	failing := false
	step = func(name string) error {
		if failing = failing || name == "write "+temporary(SysctlPath); failing {
			return errTest
		}
		return nil
	}
	t.Cleanup(endSteps)
	err := m.Apply(mustPlan(t, m, wishes, Choice{}))
	if !errors.Is(err, errTest) || !strings.Contains(err.Error(), "lull tune revert") {
		t.Errorf("%v", err)
	}
	if all, err := m.Revert(); !errors.Is(err, errTest) || !strings.Contains(err.Error(), "so /var/lib/lull/tune.json stays") {
		t.Errorf("%+v, %v", all, err)
	}
	endSteps()
	mustRevert(t, m)
	expectSnapshot(t, "reverted", snapshot(t, m.root), before)
}

// The kernel may set a lower value than was written. Then nothing is raised.
func TestAValueThatTheKernelDoesNotTakeIsRolledBack(t *testing.T) {
	m := host(t)
	before := snapshot(t, m.root)
	step = func(name string) error {
		if name == "write "+temporary(SysctlPath) {
			t.Error("files are written before the kernel's values were read back")
		}
		return nil
	}
	t.Cleanup(endSteps)
	// This file accepts the value, and then holds another one.
	p := mustPlan(t, m, wishes, Choice{})
	if err := os.Remove(m.path("net.ipv4.ip_local_port_range")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", m.path("net.ipv4.ip_local_port_range")); err != nil {
		t.Fatal(err)
	}
	p.again = func() (*Plan, error) { return p, nil }
	if err := m.Apply(p); err == nil || !strings.Contains(err.Error(), "the kernel made it") || !strings.Contains(err.Error(), "were undone") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(m.path("net.ipv4.ip_local_port_range")); err != nil {
		t.Fatal(err)
	}
	write(t, m, map[string]string{"net.ipv4.ip_local_port_range": "32768\t60999"})
	expectSnapshot(t, "rolled back", snapshot(t, m.root), before)
}

func TestAMachineThatChangesMeanwhileIsLeftAlone(t *testing.T) {
	m := host(t)
	p := mustPlan(t, m, wishes, Choice{})
	write(t, m, map[string]string{"net.core.somaxconn": "5000"})
	before := snapshot(t, m.root)
	if err := m.Apply(p); err == nil || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("%v", err)
	}
	expectSnapshot(t, "refused", snapshot(t, m.root), before)
}

func TestApplyAndRevertExcludeEachOther(t *testing.T) {
	m := host(t)
	p := mustPlan(t, m, wishes, Choice{})
	unlock, err := m.begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(p); !errors.Is(err, errBusy) {
		t.Errorf("apply: %v", err)
	}
	if _, err := m.Revert(); !errors.Is(err, errBusy) {
		t.Errorf("revert: %v", err)
	}
	unlock()
	if err := m.Apply(p); err != nil {
		t.Error(err)
	}
}

func TestWithoutABootOrNamespaceNothingIsApplied(t *testing.T) {
	for _, path := range []string{"/proc/sys/kernel/random/boot_id", "/proc/1/ns/net"} {
		m := host(t)
		if err := os.Remove(m.below(path)); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, m.root)
		if err := m.Apply(mustPlan(t, m, wishes, Choice{})); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
		expectSnapshot(t, path, snapshot(t, m.root), before)
	}
}

func TestFilesThatOverrideOursAreWarnedOf(t *testing.T) {
	m := host(t)
	put(t, m, "/usr/lib/sysctl.d/99-low.conf", "net/core/somaxconn = 128\nfs.nr_open = 9000000\n")
	put(t, m, "/usr/lib/sysctl.d/98-hidden.conf", "net.core.somaxconn = 1\n")
	put(t, m, "/etc/sysctl.d/98-hidden.conf", "")
	put(t, m, "/usr/lib/sysctl.d/50-earlier.conf", "net.core.somaxconn = 1\n")
	put(t, m, "/etc/sysctl.conf", "net.ipv4.ip_local_port_range = 30000 40000\n")
	put(t, m, "/etc/systemd/system/lull.service.d/override.conf", "[Service]\nLimitNOFILE=65536\n")
	text := strings.Join(mustPlan(t, m, wishes, Choice{}).Warnings, "\n")
	for _, says := range []string{
		"/usr/lib/sysctl.d/99-low.conf sets net.core.somaxconn to 128", "/etc/sysctl.conf sets net.ipv4.ip_local_port_range to 30000 40000",
		"/etc/systemd/system/lull.service.d/override.conf sets LimitNOFILE of lull.service to 65536",
	} {
		if !strings.Contains(text, says) {
			t.Errorf("no warning says %q:\n%s", says, text)
		}
	}
	if strings.Count(text, "\n") != 2 {
		t.Errorf("%s", text)
	}
}

// TestKilledChild is the child that is killed. It does what the environment says,
// and kills itself before one of its steps.
func TestKilledChild(t *testing.T) {
	root := os.Getenv("LULL_KILL_ROOT")
	if root == "" {
		t.Skip("LULL_KILL_ROOT is not set: this is the child of the tests below")
	}
	at, err := strconv.Atoi(os.Getenv("LULL_KILL_AT"))
	if err != nil {
		t.Fatal(err)
	}
	atStep(t, at, func() error {
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives
	})
	m := mustRead(t, root)
	switch what := os.Getenv("LULL_KILL_WHAT"); what {
	case "apply":
		mustApply(t, m, killWishes(os.Getenv("LULL_KILL_NET") != ""), Choice{With: []string{"net.ipv4.tcp_mem"}})
	case "apply more":
		mustApply(t, m, moreWishes, Choice{})
	case "revert":
		mustRevert(t, m)
	case "run":
		if err := mustRaise(t, m, million).Restore(); err != nil {
			t.Fatal(err)
		}
	case "addresses":
		n, err := ReadNetwork("a-device-of-15c")
		if err != nil {
			t.Fatal(err)
		}
		free, err := n.Free(3)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.AddAddresses(n, free); err != nil {
			t.Fatal(err)
		}
	case "no addresses":
		if _, err := m.RemoveAddresses(""); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatal(what)
	}
}

// killWishes are the wishes, or only those that exist in a network namespace.
func killWishes(net bool) []Setting {
	if !net {
		return wishes
	}
	return []Setting{wishes[1], {Name: "net.ipv4.tcp_rmem", Want: "1 1 67108864", Why: "three numbers"}, wishes[3]}
}

// killed runs a child that is killed before its n-th step. It returns false if the
// child has fewer steps and was not killed.
func killed(t *testing.T, m *Machine, what string, n int, env ...string) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), "LULL_KILL_ROOT="+m.root, "LULL_KILL_WHAT="+what, "LULL_KILL_AT="+strconv.Itoa(n))
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%s, step %d: %v\n%s", what, n, err, out)
	}
	return true
}

// stepsLeast is the least number of steps of each action. With fewer, the tests
// below would prove little.
const stepsLeast = 12

func TestApplyKilledAtAnyStepCanBeReverted(t *testing.T) {
	for n := 1; ; n++ {
		m := host(t)
		put(t, m, DropInPath(ServerUnit), "[Service]\nNice=1\n")
		before := snapshot(t, m.root)
		was := killed(t, m, "apply", n)
		mustRevert(t, m)
		expectSnapshot(t, fmt.Sprintf("killed at step %d", n), snapshot(t, m.root), before)
		if !was {
			if n < stepsLeast {
				t.Errorf("%d steps", n)
			}
			return
		}
	}
}

func TestRevertKilledAtAnyStepCanBeRepeated(t *testing.T) {
	for n := 1; ; n++ {
		m := host(t)
		put(t, m, DropInPath(ServerUnit), "[Service]\nNice=1\n")
		before := snapshot(t, m.root)
		mustApply(t, m, wishes, Choice{With: []string{"net.ipv4.tcp_mem"}})
		was := killed(t, m, "revert", n)
		mustRevert(t, m)
		expectSnapshot(t, fmt.Sprintf("killed at step %d", n), snapshot(t, m.root), before)
		if !was {
			if n < stepsLeast {
				t.Errorf("%d steps", n)
			}
			return
		}
	}
}

// After a second apply was killed, Revert restores the state before the first one,
// and a repeated apply completes it.
func TestASecondApplyKilledAtAnyStepCanBeRevertedOrRepeated(t *testing.T) {
	for n := 1; ; n++ {
		m := host(t)
		before := snapshot(t, m.root)
		mustApply(t, m, wishes, Choice{})
		was := killed(t, m, "apply more", n)
		if n%2 == 0 {
			mustApply(t, m, moreWishes, Choice{})
			text, err := os.ReadFile(m.below(SysctlPath))
			if err != nil || !strings.Contains(string(text), "fs.nr_open = 4194304\n") || !strings.Contains(string(text), "net.ipv4.tcp_mem = 190473 2000000 2000000\n") {
				t.Errorf("killed at step %d and repeated: %s, %v", n, text, err)
			}
		}
		mustRevert(t, m)
		expectSnapshot(t, fmt.Sprintf("killed at step %d", n), snapshot(t, m.root), before)
		if !was {
			if n < 6 {
				t.Errorf("%d steps", n)
			}
			return
		}
	}
}
