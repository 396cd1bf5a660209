package tuning

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The machines of testdata have pages of 4 KiB, whatever this one has.
func init() { pageBytes = 4096 }

var thisPage = pageBytes // before init

// fixture copies a machine from testdata, so that the test may change it. It also makes
// the symbolic link /proc/self, with which Read finds its own limits, because modules
// cannot contain links.
func fixture(t *testing.T, name string) (root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.CopyFS(root, os.DirFS(filepath.Join("testdata", name))); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("1", filepath.Join(root, "proc/self")); err != nil {
		t.Fatal(err)
	}
	return root
}

// mustRead reads a fixture. Its number of processors does not depend on this machine.
func mustRead(t *testing.T, root string) *Machine {
	t.Helper()
	m, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	m.Processors = processors
	return m
}

const processors = 4 // of an m4.xlarge

// write gives a machine's sysctls values.
func write(t *testing.T, m *Machine, sysctls map[string]string) {
	t.Helper()
	for name, value := range sysctls {
		if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.path(name), []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// protect makes all of a machine's files read-only.
func protect(t *testing.T, m *Machine) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(m.root, "proc/sys"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = os.Chmod(path, 0o444)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// asAnybody runs f without the privilege to write to read-only files, so that a test has
// the same result as root and as another user.
func asAnybody(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread() // capabilities are a thread's
	defer runtime.UnlockOSThread()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before [2]unix.CapUserData
	if err := unix.Capget(&head, &before[0]); err != nil {
		t.Fatal(err)
	}
	without := before
	without[0].Effective &^= 1 << unix.CAP_DAC_OVERRIDE
	if err := unix.Capset(&head, &without[0]); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Capset(&head, &before[0]); err != nil {
			panic(err) // the thread would go on without
		}
	}()
	f()
}

// put writes a file below a machine's root.
func put(t *testing.T, m *Machine, path, text string) {
	t.Helper()
	full := filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
