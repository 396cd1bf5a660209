package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/procfs"
)

// listenHint says what to do about an error of listening on the addresses of a
// flag; "" if that is not known.
func listenHint(err error, flag string, addresses []string) string {
	var ports []int
	for _, address := range addresses {
		_, port, _ := net.SplitHostPort(address)
		if n, err := net.LookupPort("tcp", port); err == nil {
			ports = append(ports, n)
		}
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return inUse(flag, ports)
	case errors.Is(err, syscall.EACCES):
		return privileged(flag, ports)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf(": this machine has no such address; \"ip address\" shows those that it has, and %s=0.0.0.0:PORT means all of them", flag)
	}
	return ""
}

// inUse names the process that has one of the ports, as far as /proc shows it.
func inUse(flag string, ports []int) string {
	for _, port := range ports {
		holder, ok := listenerOf(port)
		switch {
		case !ok:
		case holder.PID == os.Getpid():
			return fmt.Sprintf(": --listen and --admin name port %d twice", port)
		default:
			name, _ := holder.Comm() // it may have ended
			return fmt.Sprintf(": port %d is in use by %s (process %d); end it, or choose another port with %s; port 0 picks a free one", port, name, holder.PID, flag)
		}
	}
	return fmt.Sprintf(": another program has the port, and \"ss -ltnp\", as root, shows which; choose another port with %s; port 0 picks a free one", flag)
}

// privileged says how to get a port that not everybody may have.
func privileged(flag string, ports []int) string {
	const setting = "net.ipv4.ip_unprivileged_port_start"
	first := 1024
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		first, _ = strconv.Atoi(strings.TrimSpace(string(text))) // the kernel writes a number
	}
	i := slices.IndexFunc(ports, func(port int) bool { return port < first })
	if i < 0 {
		return ""
	}
	program, err := os.Executable()
	if err != nil {
		program = "lull"
	}
	return fmt.Sprintf(": ports below %d need CAP_NET_BIND_SERVICE: setcap cap_net_bind_service=+ep %s, or AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit;"+
		" or sysctl -w %s=%d; or choose another port with %s", first, program, setting, ports[i], flag)
}

// listenerOf finds a process of this network namespace that listens on a port.
func listenerOf(port int) (procfs.Proc, bool) {
	sockets := append(listening("/proc/net/tcp", port), listening("/proc/net/tcp6", port)...)
	if len(sockets) == 0 {
		return procfs.Proc{}, false
	}
	all, err := procfs.AllProcs()
	if err != nil {
		return procfs.Proc{}, false
	}
	for _, p := range all {
		open, _ := p.FileDescriptorTargets() // none, if it is somebody else's
		if slices.ContainsFunc(open, func(target string) bool { return slices.Contains(sockets, target) }) {
			return p, true
		}
	}
	return procfs.Proc{}, false
}

// listening returns the sockets that listen on a port, as links to them in
// /proc name them. The kernel lists listening sockets first, so the rest, which
// may be a million lines, is not read.
func listening(table string, port int) (sockets []string) {
	file, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer file.Close()
	const (
		local, state, inode = 1, 3, 9 // columns
		listen              = "0A"    // TCP_LISTEN
	)
	lines := bufio.NewScanner(file)
	lines.Scan() // the heading
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		if len(columns) <= inode || columns[state] != listen {
			break
		}
		if strings.HasSuffix(columns[local], fmt.Sprintf(":%04X", port)) {
			sockets = append(sockets, "socket:["+columns[inode]+"]")
		}
	}
	return sockets
}
