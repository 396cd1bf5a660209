package tuning

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// warned reports whether a warning about a file's line has certain words.
func warned(all []Warning, file, name, words string) bool {
	return slices.ContainsFunc(all, func(w Warning) bool {
		return w.File == file && w.Name == name && strings.Contains(w.Text, words)
	})
}

func TestFilesWithTooLowValuesAreNamed(t *testing.T) {
	m := mustRead(t, fixture(t, "conntrack"))
	all := m.Warnings(Demand{Conns: 1_000_000, Server: true, Fanout: 32})
	const list = "/etc/sysctl.d/60-million.conf"
	rows := []struct{ file, name, words string }{
		{list, "fs.file-max", "lowers it"},
		{list, "net.ipv4.tcp_mem", "pages, not bytes"},
		{list, "net.ipv4.tcp_tw_recycle", "4.12"},
		{list, "net.ipv4.tcp_timestamps", "tcp_tw_reuse"},
		{list, "net.ipv4.tcp_max_tw_buckets", "half of TCP's hash table"},
		// 8192 is more than 4096, and it comes after the list's 1024.
		{"/usr/lib/sysctl.d/70-backlog.conf", "net.core.somaxconn", "8192; 65,535 are needed"},
		{"/etc/security/limits.d/lull.conf", "nofile", "2000 for lull at login"},
		{"/etc/security/limits.d/lull.conf", "nofile", "2097152 for *, above fs.nr_open"},
		{"/etc/systemd/system/lull.service", "LimitNOFILE", "systemd silently lowers it to 1,048,576"},
		{"/etc/systemd/system/lull.service", "MemoryMax", "2G for lull.service"},
		{"/etc/systemd/system/lull.service.d/memory.conf", "MemoryHigh", "1G for lull.service"},
	}
	for _, r := range rows {
		if !warned(all, r.file, r.name, r.words) {
			t.Errorf("%s: no warning about %s, %q", r.file, r.name, r.words)
		}
	}
	if len(all) != len(rows) {
		t.Errorf("%d warnings, want %d: %q", len(all), len(rows), all)
	}
}

func TestStockMachinesAreNotWarnedOf(t *testing.T) {
	for _, machine := range []string{"amazon", "debian", "cgroup2", "namespace", "garbage", "m4.xlarge", "container"} {
		if all := mustRead(t, fixture(t, machine)).Warnings(Demand{Conns: 1_000_000, Server: true, Private: true, Fanout: 32}); len(all) > 0 {
			t.Errorf("%s: %q", machine, all)
		}
	}
}

// A unit's limit may be a share of the memory: 16 GB here, of which 8 are needed.
func TestAUnitsShareOfTheMemoryIsUnderstood(t *testing.T) {
	const file = "/etc/systemd/system/lull.service"
	d := Demand{Conns: 1_000_000, Server: true, Private: true, Fanout: 32}
	for share, low := range map[string]bool{"80%": false, "10%": true, "100 %": false, "many%": false} {
		m := mustRead(t, fixture(t, "amazon"))
		put(t, m, file, "[Service]\nMemoryHigh="+share+"\n")
		if all := m.Warnings(d); warned(all, file, "MemoryHigh", share+" for lull.service") != low {
			t.Errorf("%s: %q", share, all)
		}
	}
}

// Of files with the same name the first directory's counts. Of all files the one
// with the last name counts.
func TestTheLastAssignmentHolds(t *testing.T) {
	d := Demand{Conns: 10, Server: true, Private: true}
	m := mustRead(t, fixture(t, "amazon"))
	const name = "net.core.somaxconn"
	put(t, m, "usr/lib/sysctl.d/99-last.conf", name+" = 128\n")
	if all := m.Warnings(d); !warned(all, "/usr/lib/sysctl.d/99-last.conf", name, "lowers it from 4,096") {
		t.Errorf("%q", all)
	}
	put(t, m, "etc/sysctl.d/99-last.conf", "# nothing\n") // hides it
	if all := m.Warnings(d); len(all) != 0 {
		t.Errorf("%q", all)
	}
	put(t, m, "run/sysctl.d/10-first.conf", name+" = 128\n")
	put(t, m, "etc/sysctl.d/20-then.conf", name+" = 65535\n")
	if all := m.Warnings(d); len(all) != 0 {
		t.Errorf("%q", all)
	}
	put(t, m, "etc/sysctl.conf", name+"=512\n") // systemd does not read it
	if all := m.Warnings(d); len(all) != 0 {
		t.Errorf("%q", all)
	}
	if err := os.Symlink("../sysctl.conf", filepath.Join(m.root, "etc/sysctl.d/99-sysctl.conf")); err != nil { // as in Debian
		t.Fatal(err)
	}
	if all := m.Warnings(d); !warned(all, "/etc/sysctl.d/99-sysctl.conf", name, "512") || len(all) != 1 {
		t.Errorf("%q", all)
	}
	// Without systemd sysctl --system reads it, and last of all.
	put(t, m, "etc/sysctl.d/99-zz.conf", name+" = 65535\n")
	if err := os.RemoveAll(filepath.Join(m.root, "run/systemd")); err != nil {
		t.Fatal(err)
	}
	if all := m.Warnings(d); !warned(all, "/etc/sysctl.conf", name, "512") || len(all) != 1 {
		t.Errorf("%q", all)
	}
}

// Harmful values of the kernel are found even if no file sets them.
func TestHarmfulKernelValuesAreFound(t *testing.T) {
	m := mustRead(t, fixture(t, "amazon"))
	write(t, m, map[string]string{"net.ipv4.tcp_mem": "94500000 915000000 927000000", "net.ipv4.tcp_timestamps": "0"})
	all := m.Warnings(Demand{Conns: 10, Server: true, Private: true})
	if len(all) != 1 || !warned(all, "/proc/sys", "net.ipv4.tcp_mem", "is 94500000 915000000 927000000") {
		t.Errorf("%q", all)
	}
	write(t, m, map[string]string{"net.ipv4.tcp_tw_reuse": "1"})
	if all := m.Warnings(Demand{Conns: 10, Server: true}); len(all) != 2 || !warned(all, "/proc/sys", "net.ipv4.tcp_timestamps", "needs timestamps") {
		t.Errorf("%q", all)
	}
}

// Logins need fewer descriptors if tables are private.
func TestLimitsOfLoginsDependOnTheTables(t *testing.T) {
	m := mustRead(t, fixture(t, "amazon"))
	put(t, m, "etc/security/limits.conf", "* hard nofile 65535\n* hard nproc 10\nbroken\n* hard nofile many\n")
	if all := m.Warnings(Demand{Conns: 1_000_000, Server: true, Private: true}); len(all) != 0 {
		t.Errorf("private: %q", all)
	}
	if all := m.Warnings(Demand{Conns: 1_000_000, Server: true}); !warned(all, "/etc/security/limits.conf", "nofile", "65535 for *") || len(all) != 1 {
		t.Errorf("shared: %q", all)
	}
	put(t, m, "etc/security/limits.conf", "* - nofile unlimited\n")
	if all := m.Warnings(Demand{Conns: 1_000_000, Server: true}); !warned(all, "/etc/security/limits.conf", "nofile", "logins fail") {
		t.Errorf("unlimited: %q", all)
	}
}
