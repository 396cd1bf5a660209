package tuning

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// grubHost is a host that starts with GRUB as Debian sets it up, with 131,072 buckets.
func grubHost(t *testing.T) *Machine {
	t.Helper()
	m := host(t)
	write(t, m, map[string]string{"net.ipv4.tcp_ehash_entries": "131072"})
	put(t, m, "/etc/default/grub", "GRUB_CMDLINE_LINUX=\"quiet\"\n")
	put(t, m, "/usr/sbin/update-grub", "#!/bin/sh\n")
	return m
}

var bootOnly = Choice{Only: []string{bootSetting.Name}}

func bootPlan(t *testing.T, m *Machine, d Demand) (Row, []PlannedFile) {
	t.Helper()
	p, err := m.plan(d, bootOnly, nil)
	if err != nil || len(p.Boot) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	return p.Boot[0], p.Files
}

func TestTheHashTableOfTheNextBoot(t *testing.T) {
	m := grubHost(t)
	before := snapshot(t, m.root)
	r, files := bootPlan(t, m, bothRoles)
	if r.Now != "131072" || r.Want != "2097152" || r.After != "2097152" || r.Skip != "" || len(files) != 1 || files[0].Path != BootPath {
		t.Errorf("%+v, %+v", r, files)
	}
	mustApply(t, m, nil, bootOnly)
	text, err := os.ReadFile(m.below(BootPath))
	if err != nil || string(text) != string(BootDropIn(2097152)) {
		t.Errorf("%s, %v", text, err)
	}
	for _, line := range []string{"# Made by \"lull tune\"; \"lull tune revert\" removes it. After either, run update-grub.\n", "\nGRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX thash_entries=2097152\"\n"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("%s lacks %q", text, line)
		}
	}
	// It is written, and the machine has not been restarted yet. More is added, less is not.
	if r, files := bootPlan(t, m, bothRoles); len(files) > 0 || !strings.Contains(r.Skip, "after update-grub and a restart") {
		t.Errorf("%+v, %+v", r, files)
	}
	if r, files := bootPlan(t, m, Demand{Conns: 500_000, Server: true}); len(files) > 0 || !strings.Contains(r.Skip, "already") {
		t.Errorf("less: %+v, %+v", r, files)
	}
	if _, files := bootPlan(t, m, Demand{Conns: 3_000_000, Server: true}); len(files) != 1 || string(files[0].Text) != string(BootDropIn(4194304)) {
		t.Errorf("more: %+v", files)
	}
	if f := finding(t, m, bothRoles, bucketName); f.Note != "15.3 sockets in a bucket; 2097152 buckets from the next boot on, if update-grub has run" {
		t.Errorf("%q", f.Note)
	}
	for _, one := range mustRevert(t, m) {
		if one.Drift || one.Err != nil || one.Name != BootPath || !strings.HasPrefix(one.To, "removed; run update-grub") {
			t.Errorf("%+v", one)
		}
	}
	expectSnapshot(t, "reverted", snapshot(t, m.root), before)
	// A table that is large enough.
	write(t, m, map[string]string{"net.ipv4.tcp_ehash_entries": "2097152"})
	if r, files := bootPlan(t, m, bothRoles); len(files) > 0 || r.Skip != skipEnough {
		t.Errorf("%+v, %+v", r, files)
	}
}

// What somebody else has written stays, and a larger table of theirs is enough.
func TestAHashTableThatSomebodyElseAsksFor(t *testing.T) {
	for theirs, more := range map[string]bool{
		"GRUB_CMDLINE_LINUX=\"quiet thash_entries=4194304\"\n": false,
		"# thash_entries=4194304\nGRUB_TIMEOUT=1\n":            true,
		"GRUB_CMDLINE_LINUX=\"thash_entries=1024\"":            true,
	} {
		m := grubHost(t)
		put(t, m, BootPath, theirs)
		before := snapshot(t, m.root)
		_, files := bootPlan(t, m, bothRoles)
		if len(files) > 0 != more {
			t.Errorf("%q: %+v", theirs, files)
		}
		if !more {
			continue
		}
		mustApply(t, m, nil, bootOnly)
		if text, _ := os.ReadFile(m.below(BootPath)); string(text) != theirs+"\n"+string(BootDropIn(2097152)) {
			t.Errorf("%s", text)
		}
		mustRevert(t, m)
		expectSnapshot(t, theirs, snapshot(t, m.root), before)
	}
}

// Where GRUB is not known, or the command line is not this machine's, nothing is
// written, and the plan says what to do.
func TestACommandLineThatLullDoesNotWrite(t *testing.T) {
	rows := map[string]func(*testing.T, *Machine){
		"add thash_entries=2097152 to the kernel's command line": func(t *testing.T, m *Machine) {
			if err := os.Remove(m.below("/usr/sbin/update-grub")); err != nil { // as in Fedora
				t.Fatal(err)
			}
		},
		"not the first network namespace": func(t *testing.T, m *Machine) {
			if err := os.Remove(m.path("net.ipv4.tcp_mem")); err != nil {
				t.Fatal(err)
			}
		},
	}
	for says, spoil := range rows {
		m := grubHost(t)
		spoil(t, m)
		if r, files := bootPlan(t, m, bothRoles); len(files) > 0 || !strings.Contains(r.Skip, says) {
			t.Errorf("%s: %+v, %+v", says, r, files)
		}
	}
	p, err := grubHost(t).plan(bothRoles, Choice{Only: []string{"net.core.somaxconn"}}, wishes)
	if err != nil || slices.ContainsFunc(p.Files, func(f PlannedFile) bool { return f.Path == BootPath }) || p.Boot[0].Skip != skipChoice {
		t.Errorf("%+v, %v", p, err)
	}
}
