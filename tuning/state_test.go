package tuning

import (
	"os"
	"strings"
	"testing"
)

// What has become of a state is not guessed at.
func TestAStateThatIsNotOursIsRefused(t *testing.T) {
	rows := map[string]string{
		"garbage":     "unexpected end of JSON",
		"another":     "version 7 is not 1",
		"other files": "/etc/passwd, which is no file of ours",
	}
	texts := map[string]string{
		"garbage": "{", "another": `{"version": 7}`,
		"other files": `{"version": 1, "files": [{"path": "/etc/passwd", "old": {"text": "eA=="}, "new": ["eA=="]}]}`,
	}
	for name, says := range rows {
		m := host(t)
		put(t, m, "/etc/passwd", "x")
		put(t, m, StateFile, texts[name])
		before := snapshot(t, m.root)
		if _, err := m.Revert(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
		expectSnapshot(t, name, snapshot(t, m.root), before)
	}
}

// The server's user may own the directory, but does not decide what root puts
// back.
func TestAStateOfSomebodyElseIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
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

// What the kernel rounded is ours, too.
func TestWhatWasReadBackIsOurs(t *testing.T) {
	v := value{Name: "x", Old: "1", New: []string{"5", "10"}, Read: "16"}
	for now, want := range map[string]bool{"5": true, "10": true, "16": true, " 016": true, "1": false, "11": false, "": false} {
		if v.ours(now) != want {
			t.Errorf("%q: ours is %t", now, !want)
		}
	}
	if (value{New: []string{"5"}}).ours("") {
		t.Error("nothing is ours where nothing was read back")
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
