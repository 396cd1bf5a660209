package tuning

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// namespaced are the sysctls of which each network namespace has its own value: those
// of Limits with the scope Namespace, and those that are only read. The rest of net.*
// is the first namespace's.
var namespaced = map[string]bool{
	"net.core.somaxconn":               true,
	"net.ipv4.ip_local_reserved_ports": true,
	"net.ipv4.tcp_ehash_entries":       true,
	"net.ipv4.tcp_max_tw_buckets":      true,
	"net.ipv4.tcp_syncookies":          true,
	"net.ipv4.tcp_tw_reuse":            true,
	"net.netfilter.nf_conntrack_count": true,
}

// outside returns the machine as Raise finds it: where this process is in a network
// namespace that is not the first, what is not the namespace's own is read and set in
// the first, if this process may enter it. The caller calls done when the result is
// not used any more.
func (m *Machine) outside() (all *Machine, done func()) {
	if m.isFirst(nil) {
		return m, func() {}
	}
	for _, pid := range m.ancestors() {
		ns, err := os.Open(m.below(filepath.Join("/proc", strconv.Itoa(pid), "ns/net")))
		if err != nil {
			continue // of another user, for instance
		}
		if m.isFirst(ns) {
			wide := *m
			wide.first = ns
			return &wide, func() { _ = ns.Close() }
		}
		_ = ns.Close()
	}
	return m, func() {}
}

// isFirst reports whether a network namespace, or this process's if ns is nil, is the
// first: only that has tcp_mem.
func (m *Machine) isFirst(ns *os.File) bool {
	look := func() error {
		_, err := os.Stat(m.path("net.ipv4.tcp_mem"))
		return err
	}
	if ns == nil {
		return look() == nil
	}
	return within(ns, look) == nil
}

// ancestors are processes that may be in the first network namespace: the first one,
// this one's parent, the parent's parent and so on.
func (m *Machine) ancestors() []int {
	pids := []int{1}
	fs, err := procfs.NewFS(m.below("/proc"))
	if err != nil {
		return pids
	}
	p, err := fs.Self()
	for err == nil && p.PID > 1 {
		var stat procfs.ProcStat
		if stat, err = p.Stat(); err == nil {
			pids = append(pids, stat.PPID)
			p, err = fs.Proc(stat.PPID)
		}
	}
	return pids
}

// at runs f where a sysctl is.
func (m *Machine) at(sysctl string, f func() error) error {
	if m.first == nil || !strings.HasPrefix(sysctl, "net.") || namespaced[sysctl] {
		return f()
	}
	return within(m.first, f)
}

// within runs f on a thread that is in another network namespace for so long: what
// is below /proc/sys/net depends on the thread that opens it.
func within(ns *os.File, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Without UnlockOSThread a goroutine's thread ends with it, so nobody else
		// runs in the namespace should the way back fail.
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer own.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		err = f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
