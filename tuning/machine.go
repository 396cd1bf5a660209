package tuning

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/procfs"

	"github.com/seed-134acfd0/lull/netpoll"
)

// Values that are not figures.
const (
	Unknown   int64 = -1            // it could not be read
	Unlimited int64 = math.MaxInt64 // there is no limit
)

// capSysAdmin is CAP_SYS_ADMIN's bit in a capability set, capabilities(7).
const capSysAdmin = 1 << 21

// Machine is what was read from a machine. A figure that could not be read is
// Unknown.
type Machine struct {
	Kernel       string // release
	Processors   int
	Memory       int64  // bytes of RAM
	Used         int64  // bytes of RAM that are neither free nor hold pages of files
	OpenFiles    int64  // this process's hard RLIMIT_NOFILE; Go raises the soft one to it
	Files        int64  // files open on the whole machine
	Capabilities uint64 // this process's effective ones
	Privileged   bool   // has CAP_SYS_ADMIN, so fs.file-max does not apply

	root  string
	first *os.File                                       // the first network namespace, to be entered for settings that this process's does not have; or nil
	stats func(device string) (map[string]uint64, error) // if set, used instead of ethtool
	// tryPrivate returns why this process may not have private descriptor
	// tables, or nil. It is nil itself for a machine that is not this one.
	tryPrivate func() error
}

// Read reads the machine whose file systems are mounted below root, "/" for this
// one. It fails only if there is no /proc.
func Read(root string) (*Machine, error) {
	fs, err := procfs.NewFS(filepath.Join(root, "proc"))
	if err != nil {
		return nil, fmt.Errorf("tuning: read the machine: %w", err)
	}
	m := &Machine{
		root: root, Processors: runtime.NumCPU(),
		Memory: Unknown, Used: Unknown, OpenFiles: Unknown, Files: Unknown,
	}
	m.Kernel, _ = m.sysctl("kernel.osrelease")
	if info, err := fs.Meminfo(); err == nil {
		m.Memory, m.Used = number(info.MemTotalBytes), used(info)
	}
	if nr, err := fs.SysctlInts("fs.file-nr"); err == nil && len(nr) > 0 {
		m.Files = int64(nr[0])
	}
	m.OpenFiles = openFiles(m.text("proc/self/limits"))
	if self, err := fs.Self(); err == nil {
		if status, err := self.NewStatus(); err == nil {
			m.Capabilities = status.CapEff
			m.Privileged = status.CapEff&capSysAdmin != 0
		}
	}
	if filepath.Clean(root) == "/" {
		m.tryPrivate = sync.OnceValue(netpoll.PrivateTables)
	}
	return m, nil
}

// used is the memory that connections cannot use. It includes all of the kernel's
// memory, even what the kernel calls reclaimable: the inodes and dentries of open
// sockets cannot be reclaimed.
func used(info procfs.Meminfo) int64 {
	total, free := number(info.MemTotalBytes), number(info.MemFreeBytes)
	if total == Unknown || free == Unknown {
		return Unknown
	}
	pages := max(0, number(info.BuffersBytes)) + max(0, number(info.CachedBytes)) - max(0, number(info.ShmemBytes))
	return max(0, total-free-max(0, pages))
}

// FilesMax is how many files may be open on the whole machine, fs.file-max.
func (m *Machine) FilesMax() int64 { return m.sysctlField("fs.file-max", 0) }

// free is the memory that connections can use.
func (m *Machine) free() int64 {
	if m.Memory == Unknown || m.Used == Unknown {
		return Unknown
	}
	return m.Memory - m.Used
}

func number(n *uint64) int64 {
	if n == nil {
		return Unknown
	}
	return int64(*n)
}

// openFiles finds the hard limit of open files in the text of /proc/self/limits.
func openFiles(limits string) int64 {
	for line := range strings.Lines(limits) {
		values, found := strings.CutPrefix(line, "Max open files")
		fields := strings.Fields(values)
		if !found || len(fields) < 2 {
			continue
		}
		if fields[1] == "unlimited" {
			return Unlimited
		}
		if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil && n >= 0 {
			return n
		}
	}
	return Unknown
}

// text reads a file below the root; "" if it cannot be read.
func (m *Machine) text(path string) string {
	b, _ := os.ReadFile(filepath.Join(m.root, path))
	return strings.TrimSpace(string(b))
}

// path is the file of a sysctl.
func (m *Machine) path(name string) string {
	return filepath.Join(m.root, "proc/sys", strings.ReplaceAll(name, ".", "/"))
}

// sysctl reads a sysctl as text.
func (m *Machine) sysctl(name string) (string, error) {
	var b []byte
	err := m.at(name, func() (err error) {
		b, err = os.ReadFile(m.path(name))
		return err
	})
	return strings.TrimSpace(string(b)), err
}

// write gives a sysctl a value. It makes no file where there is none.
func (m *Machine) write(name, value string) error {
	if err := step("set " + name); err != nil {
		return err
	}
	return m.at(name, func() error {
		f, err := os.OpenFile(m.path(name), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(value + "\n")
		return errors.Join(err, f.Close())
	})
}

// writable returns an error if this process may not change a sysctl.
func (m *Machine) writable(name string) error {
	return m.at(name, func() error {
		f, err := os.OpenFile(m.path(name), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

// sysctlField reads one of a sysctl's numbers.
func (m *Machine) sysctlField(name string, field int) int64 {
	text, err := m.sysctl(name)
	if err != nil {
		return Unknown
	}
	return fieldOf(text, field)
}

// fieldOf is one of a sysctl's numbers.
func fieldOf(text string, field int) int64 {
	fields := strings.Fields(text)
	if field >= len(fields) {
		return Unknown
	}
	n, err := strconv.ParseInt(fields[field], 10, 64)
	if err != nil {
		return Unknown
	}
	return n
}
