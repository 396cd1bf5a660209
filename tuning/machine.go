package tuning

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// Unknown is a figure that could not be read.
const Unknown int64 = -1

// capSysAdmin is CAP_SYS_ADMIN's bit in a capability set, capabilities(7).
const capSysAdmin = 1 << 21

// Machine is what was read of one. A figure that could not be read is Unknown.
type Machine struct {
	Kernel     string // release
	Processors int
	Memory     int64 // bytes of RAM
	Available  int64 // bytes that the kernel thinks could be used now
	OpenFiles  int64 // this process's RLIMIT_NOFILE, which Go raises to the hard limit
	Files      int64 // files open on the whole machine
	Privileged bool  // has CAP_SYS_ADMIN, which fs.file-max does not bind

	root string
}

// Read takes stock of the machine whose file systems are mounted below root,
// "/" for this one. It fails only if there is no /proc.
func Read(root string) (*Machine, error) {
	fs, err := procfs.NewFS(filepath.Join(root, "proc"))
	if err != nil {
		return nil, fmt.Errorf("tuning: read the machine: %w", err)
	}
	m := &Machine{
		root: root, Processors: runtime.NumCPU(),
		Memory: Unknown, Available: Unknown, OpenFiles: Unknown, Files: Unknown,
	}
	m.Kernel, _ = m.sysctl("kernel.osrelease")
	if info, err := fs.Meminfo(); err == nil {
		m.Memory, m.Available = number(info.MemTotalBytes), number(info.MemAvailableBytes)
	}
	if nr, err := fs.SysctlInts("fs.file-nr"); err == nil && len(nr) > 0 {
		m.Files = int64(nr[0])
	}
	if self, err := fs.Self(); err == nil {
		if limits, err := self.Limits(); err == nil {
			m.OpenFiles = int64(min(limits.OpenFiles, 1<<62))
		}
		if status, err := self.NewStatus(); err == nil {
			m.Privileged = status.CapEff&capSysAdmin != 0
		}
	}
	return m, nil
}

func number(n *uint64) int64 {
	if n == nil {
		return Unknown
	}
	return int64(*n)
}

// path is where a sysctl stands.
func (m *Machine) path(name string) string {
	return filepath.Join(m.root, "proc/sys", strings.ReplaceAll(name, ".", "/"))
}

// sysctl reads a sysctl as it is written.
func (m *Machine) sysctl(name string) (string, error) {
	b, err := os.ReadFile(m.path(name))
	return strings.TrimSpace(string(b)), err
}

// sysctlField reads one of a sysctl's numbers.
func (m *Machine) sysctlField(name string, field int) int64 {
	text, err := m.sysctl(name)
	fields := strings.Fields(text)
	if err != nil || field >= len(fields) {
		return Unknown
	}
	n, err := strconv.ParseInt(fields[field], 10, 64)
	if err != nil {
		return Unknown
	}
	return n
}
