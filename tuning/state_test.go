package tuning

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hostile are states that Apply cannot have written, with the errors.
var hostile = map[string]struct{ text, says string }{
	"garbage":         {`{`, "unexpected end of JSON"},
	"another version": {`{"version": 7}`, "version 7 is not 1"},
	"a foreign file":  {`{"version": 1, "files": [{"path": "/etc/passwd", "old": {"text": "eA=="}, "new": ["eA=="]}]}`, `the file "/etc/passwd", which lull does not write`},
	"a file by a detour": {`{"version": 1, "files": [{"path": "/etc/sysctl.d/../passwd", "new": ["eA=="]}]}`,
		`the file "/etc/sysctl.d/../passwd", which lull does not write`},
	"a foreign sysctl": {`{"version": 1, "values": [{"name": "kernel.core_pattern", "old": "|/tmp/x", "new": ["core"]}]}`,
		`the sysctl "kernel.core_pattern", which lull does not set`},
	"a path for a sysctl": {`{"version": 1, "values": [{"name": "../../etc/passwd", "old": "x", "new": ["x"]}]}`,
		`the sysctl "../../etc/passwd", which lull does not set`},
	"slashes for dots":    {`{"version": 1, "values": [{"name": "net/core/somaxconn", "old": "1", "new": ["4096"]}]}`, "which lull does not set"},
	"no new value":        {`{"version": 1, "values": [{"name": "net.core.somaxconn", "old": "1"}]}`, "what net.core.somaxconn was set to"},
	"a foreign directory": {`{"version": 1, "directories": ["/var/empty"]}`, `the directory "/var/empty", which lull does not make`},
	"no directory":        {`{"version": 1, "directories": [""]}`, `the directory "", which lull does not make`},
	"one good, one bad": {`{"version": 1, "values": [{"name": "net.core.somaxconn", "old": "1", "new": ["4096"]}, {"name": "kernel.panic", "old": "1", "new": ["10"]}]}`,
		`the sysctl "kernel.panic"`},
}

// expectRefused checks that revert, apply and show refuse a machine's state, and that
// nothing changes.
func expectRefused(t *testing.T, name string, m *Machine, says string) {
	t.Helper()
	before := snapshot(t, m.root)
	_, revert := m.Revert()
	_, apply := m.plan(bothRoles, Choice{}, wishes)
	_, show := m.Applied()
	for _, err := range []error{revert, apply, show} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	expectSnapshot(t, name, snapshot(t, m.root), before)
}

func TestAStateThatApplyCannotHaveWrittenIsRefused(t *testing.T) {
	for name, row := range hostile {
		m := host(t)
		put(t, m, "/etc/passwd", "x")
		write(t, m, map[string]string{"kernel.core_pattern": "core", "kernel.panic": "10"})
		if err := os.MkdirAll(m.below("/var/empty"), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, m, StateFile, row.text)
		expectRefused(t, name, m, row.says)
	}
}

func TestAStateThatIsNotAnOrdinaryFileIsRefused(t *testing.T) {
	m := host(t)
	mustApply(t, m, wishes, Choice{})
	elsewhere := m.below("/var/lib/elsewhere")
	if err := errors.Join(os.Rename(m.below(StateFile), elsewhere), os.Symlink(elsewhere, m.below(StateFile))); err != nil {
		t.Fatal(err)
	}
	expectRefused(t, "a symbolic link", m, StateFile+" is not an ordinary file")
	if err := errors.Join(os.Remove(m.below(StateFile)), unix.Mkfifo(m.below(StateFile), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Revert(); err == nil || !strings.Contains(err.Error(), "is not an ordinary file") { // and it does not wait for a writer
		t.Errorf("a FIFO: %v", err)
	}
}

func TestAStateThatOthersMayWriteIsRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o666, 0o602, 0o620} {
		m := host(t)
		mustApply(t, m, wishes, Choice{})
		if err := os.Chmod(m.below(StateFile), mode); err != nil {
			t.Fatal(err)
		}
		expectRefused(t, mode.String(), m, "other users may write to it")
	}
}

func TestAddressesThatAreNotOursAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"a foreign label": `{"device": "lo", "address": "127.0.0.1/8", "label": "lo"}`,
		"no device":       `{"device": "", "address": "10.0.0.1/8", "label": ":lull"}`,
		"no address":      `{"device": "lo", "address": "", "label": "lo:lull"}`,
		"IPv6":            `{"device": "lo", "address": "::1/128", "label": "lo:lull"}`,
	} {
		m := host(t)
		put(t, m, AddressFile, `{"version": 1, "addresses": [`+text+`]}`)
		_, remove := m.RemoveAddresses("")
		_, list := m.AddedAddresses("")
		for _, err := range []error{remove, list} {
			if err == nil || !strings.Contains(err.Error(), "which lull does not add") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// The server's user may own the directory, but must not decide which values root
// restores.
func TestAStateOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this needs root, to change a file's owner")
	}
	m := host(t)
	mustApply(t, m, wishes, Choice{})
	if err := os.Chown(m.below(StateFile), 1000, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Revert(); err == nil || !strings.Contains(err.Error(), "belongs to user 1000") {
		t.Errorf("%v", err)
	}
	if _, err := m.plan(bothRoles, Choice{}, wishes); err == nil || !strings.Contains(err.Error(), "belongs to user 1000") {
		t.Errorf("%v", err)
	}
}

// A value that the kernel has rounded still counts as ours.
func TestAValueThatWasReadBackIsOurs(t *testing.T) {
	v := value{Name: "x", Old: "1", New: []string{"5", "10"}, Read: "16"}
	for now, want := range map[string]bool{"5": true, "10": true, "16": true, " 016": true, "1": false, "11": false, "": false} {
		if v.ours(now) != want {
			t.Errorf("%q: ours is %t", now, !want)
		}
	}
	if (value{New: []string{"5"}}).ours("") {
		t.Error("an empty value counts as ours although nothing was read back")
	}
}

func TestStatesAreForTheirOwnerAlone(t *testing.T) {
	m := host(t)
	mustApply(t, m, wishes, Choice{})
	info, err := os.Stat(m.below(StateFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	lines, err := m.Applied()
	if err != nil || len(lines) != 7 || lines[0] != "fs.nr_open: 1048576 → 2097152" || lines[4] != SysctlPath+": new" {
		t.Errorf("%q, %v", lines, err)
	}
}

// While a name stands for an ordinary file and for a symbolic link in turns, what
// is read is the file.
func TestAFileIsNotReadThroughALinkThatTakesItsPlace(t *testing.T) {
	m := host(t)
	const path, own, foreign = "/etc/swapped", "own", "foreign"
	put(t, m, "etc/foreign", foreign)
	file, link, name := m.below("/etc/a"), m.below("/etc/b"), m.below(path)
	done, ended := make(chan struct{}), make(chan error)
	go func() {
		var err error
		for err == nil {
			select {
			case <-done:
				close(ended)
				return
			default:
				err = errors.Join(os.WriteFile(file, []byte(own), 0o600), os.Rename(file, name), os.Symlink("foreign", link), os.Rename(link, name))
			}
		}
		ended <- err
	}()
	reads := 0
	for range 50_000 {
		if c, err := m.contentOf(path); err == nil && c != nil {
			if reads++; string(c.Text) != own {
				t.Errorf("read %d gave %q", reads, c.Text)
				break
			}
		}
	}
	close(done)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if reads == 0 {
		t.Error("nothing was read")
	}
}
