package tuning

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestReadMachines(t *testing.T) {
	rows := []struct {
		name string
		want Machine
	}{
		{"m4.xlarge", Machine{
			Kernel: "6.1.112-122.189.amzn2023.x86_64",
			Memory: 16463508 << 10, Used: 744700 << 10, OpenFiles: 65535, Files: 1504,
		}},
		{"container", Machine{
			Kernel: "5.10.0-28-cloud-amd64",
			Memory: 2010240 << 10, Used: 961664 << 10, OpenFiles: 4096, Files: 2336, Capabilities: 0xa80425fb,
		}},
		{"garbage", Machine{Memory: Unknown, Used: Unknown, OpenFiles: Unknown, Files: Unknown}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			root := fixture(t, r.name)
			got := mustRead(t, root)
			r.want.root, r.want.Processors = root, processors
			if !reflect.DeepEqual(*got, r.want) {
				t.Errorf("got %+v\nwant %+v", *got, r.want)
			}
		})
	}
}

func TestReadSysctls(t *testing.T) {
	rows := []struct {
		machine, name string
		field         int
		want          int64
	}{
		{"m4.xlarge", "fs.file-max", 0, 1<<63 - 1},
		{"m4.xlarge", "net.ipv4.tcp_mem", 0, 190473},
		{"m4.xlarge", "net.ipv4.tcp_mem", 1, 253965},
		{"m4.xlarge", "net.ipv4.tcp_mem", 2, 380946},
		{"container", "fs.epoll.max_user_watches", 0, 435814},

		{"m4.xlarge", "net.ipv4.tcp_mem", 3, Unknown},
		{"container", "net.ipv4.tcp_mem", 1, Unknown}, // another network namespace has none
		{"container", "net.core", 0, Unknown},         // a folder
		{"garbage", "fs.file-max", 0, Unknown},
		{"garbage", "fs.epoll.max_user_watches", 0, Unknown},
		{"garbage", "net.core.somaxconn", 0, Unknown},
		{"garbage", "net.ipv4.tcp_mem", 2, Unknown},
	}
	for _, r := range rows {
		m := mustRead(t, fixture(t, r.machine))
		if got := m.sysctlField(r.name, r.field); got != r.want {
			t.Errorf("%s: field %d of %s is %d, want %d", r.machine, r.field, r.name, got, r.want)
		}
	}
}

// If one figure cannot be read, the others still are.
func TestFiguresThatAreMissingAreUnknown(t *testing.T) {
	rows := []struct {
		remove string
		want   func(*Machine) bool
	}{
		{"meminfo", func(m *Machine) bool { return m.Memory == Unknown && m.Used == Unknown && m.OpenFiles == 65535 }},
		{"self", func(m *Machine) bool { return m.OpenFiles == Unknown && !m.Privileged && m.Files == 1504 }},
		{"1/limits", func(m *Machine) bool { return m.OpenFiles == Unknown && m.Used > 0 }},
		{"1/status", func(m *Machine) bool { return !m.Privileged && m.OpenFiles == 65535 }},
		{"sys/fs/file-nr", func(m *Machine) bool { return m.Files == Unknown && m.Kernel != "" }},
		{"sys/kernel/osrelease", func(m *Machine) bool { return m.Kernel == "" && m.Files == 1504 }},
	}
	for _, r := range rows {
		root := fixture(t, "m4.xlarge")
		if err := os.Remove(filepath.Join(root, "proc", r.remove)); err != nil {
			t.Fatal(err)
		}
		if m := mustRead(t, root); !r.want(m) {
			t.Errorf("without %s: %+v", r.remove, m)
		}
	}
}

// Memory that the kernel calls reclaimable counts as used, because it contains the
// inodes and dentries of open sockets. Pages of files count as free, unless the file
// is in memory only.
func TestUsedMemoryIncludesReclaimableSlabs(t *testing.T) {
	rows := []struct {
		meminfo string
		used    int64 // KiB
	}{
		{"MemTotal: 1000 kB\nMemFree: 600 kB\n", 400},
		{"MemTotal: 1000 kB\nMemFree: 600 kB\nMemAvailable: 990 kB\nSReclaimable: 300 kB\n", 400},
		{"MemTotal: 1000 kB\nMemFree: 600 kB\nBuffers: 50 kB\nCached: 150 kB\nShmem: 100 kB\n", 300},
		{"MemTotal: 1000 kB\nMemFree: 600 kB\nCached: 50 kB\nShmem: 100 kB\n", 400},
		{"MemTotal: 1000 kB\nMemFree: 600 kB\nCached: 500 kB\n", 0},
	}
	for _, r := range rows {
		root := fixture(t, "m4.xlarge")
		if err := os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte(r.meminfo), 0o644); err != nil {
			t.Fatal(err)
		}
		if m := mustRead(t, root); m.Memory != 1000<<10 || m.Used != r.used<<10 {
			t.Errorf("%q: %d of %d bytes used", r.meminfo, m.Used, m.Memory)
		}
	}
}

func TestMemoryThatIsTotalOnly(t *testing.T) {
	root := fixture(t, "m4.xlarge")
	if err := os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte("MemTotal: 1024 kB\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if m := mustRead(t, root); m.Memory != 1<<20 || m.Used != Unknown || m.free() != Unknown {
		t.Errorf("%+v", m)
	}
}

func TestPrivilegeIsAdminsCapability(t *testing.T) {
	for caps, want := range map[string]bool{
		"000001ffffffffff": true,  // root
		"0000000000200000": true,  // CAP_SYS_ADMIN alone, bit 21
		"00000000a80425fb": false, // root in a container
		"0000000000000000": false,
	} {
		root := fixture(t, "m4.xlarge")
		if err := os.WriteFile(filepath.Join(root, "proc/1/status"), []byte("CapEff:\t"+caps+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if m := mustRead(t, root); m.Privileged != want {
			t.Errorf("%s: privileged is %v", caps, m.Privileged)
		}
	}
}

func TestNoLimitOnOpenFilesIsALargeOne(t *testing.T) {
	root := fixture(t, "m4.xlarge")
	limits := "Limit  Soft Limit  Hard Limit  Units\nMax open files            unlimited            unlimited            files     \n"
	if err := os.WriteFile(filepath.Join(root, "proc/1/limits"), []byte(limits), 0o644); err != nil {
		t.Fatal(err)
	}
	if m := mustRead(t, root); m.OpenFiles != Unlimited {
		t.Errorf("%d open files", m.OpenFiles)
	}
}

func TestReadNeedsAProc(t *testing.T) {
	empty := t.TempDir()
	file := t.TempDir()
	if err := os.WriteFile(filepath.Join(file, "proc"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{empty, file, filepath.Join(empty, "nowhere")} {
		m, err := Read(root)
		if err == nil {
			t.Errorf("%s: %+v", root, m)
			continue
		}
		if text := err.Error(); !strings.HasPrefix(text, "tuning: read the machine: ") || !strings.Contains(text, filepath.Join(root, "proc")) {
			t.Errorf("error %v", err)
		}
	}
}

func TestReadThisMachine(t *testing.T) {
	m := mustRead(t, "/")
	if m.Kernel == "" || m.Processors < 1 || m.Memory < 64<<20 || m.Used < 1<<20 || m.Used > m.Memory || m.OpenFiles < 1 || m.Files < 1 {
		t.Errorf("%+v", m)
	}
}
