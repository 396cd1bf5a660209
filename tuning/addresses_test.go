package tuning

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestFreeAddressesAreUnusedAndNearby(t *testing.T) {
	rows := []struct {
		prefix, taken string
		count         int
		want          string // "" is an error
	}{
		{"10.0.0.20/24", "", 3, "10.0.0.21 10.0.0.22 10.0.0.23"},
		{"10.0.0.20/24", "10.0.0.21 10.0.0.23", 3, "10.0.0.22 10.0.0.24 10.0.0.25"},
		// The first four and the last are never chosen.
		{"10.0.0.253/24", "", 3, "10.0.0.254 10.0.0.4 10.0.0.5"},
		{"10.0.0.1/28", "", 11, "10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.7 10.0.0.8 10.0.0.9 10.0.0.10 10.0.0.11 10.0.0.12 10.0.0.13 10.0.0.14"},
		{"10.0.0.20/28", "", 11, ""}, // .16 to .31: ten beside its own
		{"10.0.0.20/32", "", 1, ""},
		{"10.0.0.20/31", "", 1, ""},
		{"255.255.255.254/29", "", 1, "255.255.255.252"},
		{"10.0.0.20/24", "", 0, ""},
		{"10.0.0.20/8", "", AddressesMax + 1, ""},
	}
	for _, r := range rows {
		n := &Network{Prefix: netip.MustParsePrefix(r.prefix), Taken: map[netip.Addr]bool{}}
		n.Taken[n.Prefix.Addr()] = true
		for _, a := range strings.Fields(r.taken) {
			n.Taken[netip.MustParseAddr(a)] = true
		}
		free, err := n.Free(r.count)
		if got := strings.Trim(fmt.Sprint(free), "[]"); got != r.want || (err == nil) != (r.want != "") {
			t.Errorf("%d of %s: %q, %v, want %q", r.count, r.prefix, got, err, r.want)
		}
	}
}

func TestImpossibleAddressesAreRefused(t *testing.T) {
	n := &Network{Prefix: netip.MustParsePrefix("10.0.0.20/24"), Taken: map[netip.Addr]bool{netip.MustParseAddr("10.0.0.20"): true}}
	for text, says := range map[string]string{
		"": "0 addresses", "10.0.0.20": "taken", "10.0.0.21 10.0.0.21": "twice", "fe80::1": "only IPv4",
		"0.0.0.0": "cannot be", "224.0.0.1": "cannot be", "127.0.0.1": "cannot be",
	} {
		var addrs []netip.Addr
		for _, a := range strings.Fields(text) {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		if err := n.Check(addrs); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := n.Check([]netip.Addr{netip.MustParseAddr("10.0.0.21"), netip.MustParseAddr("10.9.0.1")}); err != nil {
		t.Error(err)
	}
}

func TestInstanceTypesAreKnown(t *testing.T) {
	for name, want := range map[string]InstanceType{
		"m4.xlarge":  {"m4.xlarge", 4, 15, "xen"},
		"a1.2xlarge": {"a1.2xlarge", 4, 15, "nitro"},
		"z1d.xlarge": {"z1d.xlarge", 4, 15, "nitro"},
	} {
		if got, ok := FindInstanceType(name); !ok || got != want {
			t.Errorf("%s: %+v, %t", name, got, ok)
		}
	}
	for _, name := range []string{"", "type", "m4.huge", "m4", "#"} {
		if got, ok := FindInstanceType(name); ok {
			t.Errorf("%q: %+v", name, got)
		}
	}
}

func TestAdvice(t *testing.T) {
	m4, _ := FindInstanceType("m4.xlarge")
	c5, _ := FindInstanceType("c5.xlarge")
	rows := []struct {
		kind          InstanceType
		addrs, target int
		want          string
	}{
		{m4, 15, 1_000_000, "m4.xlarge: 4 interfaces × 15; you have 1 × 15, for 948,706 connections per server port; for 1,000,000 use two ports on the server, or two interfaces, with an ip rule for each source address"},
		{m4, 1, 1_000_000, "m4.xlarge: 4 interfaces × 15; you have 1 × 1, for 63,248 connections per server port; for 1,000,000 use 16 ports on the server, or two interfaces, with an ip rule for each source address"},
		{m4, 15, 900_000, "m4.xlarge: 4 interfaces × 15; you have 1 × 15, for 948,706 connections per server port: enough for 900,000"},
		{m4, 16, 900_000, "m4.xlarge: 4 interfaces × 15; you have 1 × 16, for 1,011,953 connections per server port; but AWS assigns at most 15 addresses to one interface: enough for 900,000"},
		{m4, 15, 10_000_000, "m4.xlarge: 4 interfaces × 15; you have 1 × 15, for 948,706 connections per server port; for 10,000,000 use 11 ports on the server"},
		{c5, 15, 1_000_000, "c5.xlarge: 4 interfaces × 15; you have 1 × 15, for 948,706 connections per server port; for 1,000,000 use two ports on the server, or two interfaces, with an ip rule for each source address, or prefix delegation, up to 225 addresses on one interface"},
		{c5, 1, 500_000, "c5.xlarge: 4 interfaces × 15; you have 1 × 1, for 63,248 connections per server port; for 500,000 use 8 ports on the server, or have 8 addresses"},
		{InstanceType{}, 1, 1_000_000, "you have 1 × 1, for 63,248 connections per server port; for 1,000,000 use 16 ports on the server, or have 16 addresses"},
	}
	for _, r := range rows {
		if got := r.kind.Advice(r.addrs, r.target); got != r.want {
			t.Errorf("%s\nwant\n%s", got, r.want)
		}
	}
}

func TestAWSCommandsNameTheAddresses(t *testing.T) {
	n := &Network{Dev: "eth0", MAC: "06:00:00:00:00:01"}
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.21"), netip.MustParseAddr("10.0.0.22")}
	xen, _ := FindInstanceType("m4.xlarge")
	commands := strings.Join(xen.AWSCommands(n, addrs), "\n")
	if !strings.Contains(commands, "Values=06:00:00:00:00:01 ") || !strings.HasSuffix(commands, "--private-ip-addresses 10.0.0.21 10.0.0.22") || strings.Contains(commands, "prefix") {
		t.Errorf("%s", commands)
	}
	nitro, _ := FindInstanceType("c5.xlarge")
	if commands := strings.Join(nitro.AWSCommands(n, addrs), "\n"); !strings.HasSuffix(commands, "--ipv4-prefix-count 1") {
		t.Errorf("%s", commands)
	}
}

// inNamespace runs a test again in a process with a network namespace of its own.
// It returns true in that process, and false in the first one.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("LULL_IN_NAMESPACE") == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), "LULL_IN_NAMESPACE="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil && os.IsPermission(err) {
		t.Skip("this needs CAP_SYS_ADMIN, to create a network namespace: ", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// thisKernel is a machine with the real /proc, whose other files are in a directory.
func thisKernel(t *testing.T) *Machine {
	t.Helper()
	root := t.TempDir()
	if err := os.Symlink("/proc", filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	m := mustRead(t, root)
	put(t, m, "/etc/systemd/system/lull.service", "[Service]\n")
	put(t, m, "/var/lib/other", "other")
	return m
}

// files is everything below a root that is not the kernel's.
func files(t *testing.T, m *Machine) map[string]string {
	t.Helper()
	return snapshot(t, m.root) // a link is not followed
}

func TestARealKernelIsAsBeforeWhereverApplyIsKilled(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	m := thisKernel(t)
	var names []string
	for _, s := range killWishes(true) {
		names = append(names, s.Name)
	}
	raw := func() map[string]string {
		all := map[string]string{}
		for _, name := range names {
			text, err := os.ReadFile(m.path(name))
			if err != nil {
				t.Fatal(err)
			}
			all[name] = string(text)
		}
		return all
	}
	values, before := raw(), files(t, m)
	for _, what := range []string{"apply", "revert"} {
		for n, more := 1, true; more; n++ {
			if what == "revert" {
				mustApply(t, m, killWishes(true), Choice{})
				if now := raw(); now["net.core.somaxconn"] != "65535\n" || now["net.ipv4.ip_local_port_range"] != "1024\t65535\n" || !strings.HasSuffix(now["net.ipv4.tcp_rmem"], "\t67108864\n") {
					t.Fatalf("applied: %q", now)
				}
			}
			more = killed(t, m, what, n, "LULL_KILL_NET=1")
			for _, r := range mustRevert(t, m) {
				if r.Drift {
					t.Errorf("%s killed at step %d: %+v", what, n, r)
				}
			}
			expectSnapshot(t, fmt.Sprintf("%s killed at step %d", what, n), raw(), values)
			expectSnapshot(t, fmt.Sprintf("%s killed at step %d", what, n), files(t, m), before)
			if !more && n < 8 {
				t.Errorf("%s has %d steps", what, n)
			}
		}
	}
}

// device makes a device with an address.
func device(t *testing.T, name, prefix string) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: "p" + name[1:]}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	return link
}

// onDevice lists a device's addresses.
func onDevice(t *testing.T, link netlink.Link) []string {
	t.Helper()
	addrs, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, a := range addrs {
		all = append(all, a.IPNet.String()+" "+a.Label)
	}
	return all
}

func TestAddressesAreAddedAndRemoved(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	m := thisKernel(t)
	link := device(t, "lull0", "10.7.0.20/24")
	gateway := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IPv4(10, 7, 0, 22)}
	if err := netlink.RouteAdd(gateway); err != nil {
		t.Fatal(err)
	}
	neighbour := &netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.IPv4(10, 7, 0, 24), State: unix.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	if err := netlink.NeighAdd(neighbour); err != nil {
		t.Fatal(err)
	}
	before, filesBefore := onDevice(t, link), files(t, m)

	n, err := ReadNetwork("lull0")
	if err != nil {
		t.Fatal(err)
	}
	free, err := n.Free(3)
	if want := "[10.7.0.21 10.7.0.23 10.7.0.25]"; err != nil || fmt.Sprint(free) != want {
		t.Fatalf("%v, %v, want %s", free, err, want)
	}
	if err := m.AddAddresses(n, free); err != nil {
		t.Fatal(err)
	}
	want := []string{"10.7.0.20/24 lull0", "10.7.0.21/24 lull0:lull", "10.7.0.23/24 lull0:lull", "10.7.0.25/24 lull0:lull"}
	if got := onDevice(t, link); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// Sockets can be bound to them.
	l, err := net.Listen("tcp", "10.7.0.25:0")
	if err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	// A second time: an address of another subnet is added, and none is added if one
	// of them is taken.
	if n, err = ReadNetwork("lull0"); err != nil {
		t.Fatal(err)
	}
	if err := m.AddAddresses(n, []netip.Addr{netip.MustParseAddr("10.9.0.1")}); err != nil {
		t.Fatal(err)
	}
	if err := m.AddAddresses(n, []netip.Addr{netip.MustParseAddr("10.7.0.26"), free[0]}); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("%v", err)
	}
	if got := onDevice(t, link); len(got) != 5 || !slices.Contains(got, "10.9.0.1/32 lull0:lull") {
		t.Errorf("%q", got)
	}
	// One is removed and one is replaced by another program.
	for _, text := range []string{"10.7.0.21/24", "10.7.0.23/24"} {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrDel(link, addr); err != nil {
			t.Fatal(err)
		}
	}
	theirs, err := netlink.ParseAddr("10.7.0.23/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, theirs); err != nil {
		t.Fatal(err)
	}
	if all, err := m.RemoveAddresses("other0"); err != nil || len(all) != 0 {
		t.Errorf("of another device: %+v, %v", all, err)
	}
	all, err := m.RemoveAddresses("lull0")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, r := range all {
		said[r.Name] = r.To
	}
	for name, says := range map[string]string{
		"10.9.0.1/32 on lull0": "removed", "10.7.0.25/24 on lull0": "removed",
		"10.7.0.23/24 on lull0": "left: somebody else has added it", "10.7.0.21/24 on lull0": "gone already",
	} {
		if said[name] != says {
			t.Errorf("%s: %q, want %q", name, said[name], says)
		}
	}
	if got := onDevice(t, link); !slices.Equal(got, append(before, "10.7.0.23/24 lull0")) {
		t.Errorf("%q", got)
	}
	expectSnapshot(t, "removed", files(t, m), filesBefore)
	if again, err := m.RemoveAddresses(""); err != nil || len(again) != 0 {
		t.Errorf("removed twice: %+v, %v", again, err)
	}
}

// Each step fails once. Then neither addresses nor state are left.
func TestAddressesAreAddedAllOrNone(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	m := thisKernel(t)
	link := device(t, "lull0", "10.7.0.20/24")
	n, err := ReadNetwork("lull0")
	if err != nil {
		t.Fatal(err)
	}
	free, err := n.Free(3)
	if err != nil {
		t.Fatal(err)
	}
	names := atStep(t, 0, nil)
	if err := m.AddAddresses(n, free); err != nil {
		t.Fatal(err)
	}
	steps := names()
	if _, err := m.RemoveAddresses(""); err != nil || len(steps) < 6 {
		t.Fatalf("%q, %v", steps, err)
	}
	before, filesBefore := onDevice(t, link), files(t, m)
	for i, name := range steps[:len(steps)-1] {
		atStep(t, i+1, func() error { return errTest })
		err := m.AddAddresses(n, free)
		endSteps()
		if err == nil || !strings.Contains(err.Error(), errTest.Error()) {
			t.Errorf("fails to %s: %v", name, err)
		}
		if got := onDevice(t, link); !slices.Equal(got, before) {
			t.Errorf("fails to %s: %q", name, got)
		}
		expectSnapshot(t, "fails to "+name, files(t, m), filesBefore)
	}
}

// Each step of a removal fails once, the error is returned, and a second removal
// completes the first.
func TestARemovalThatFailsCanBeRepeated(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	m := thisKernel(t)
	link := device(t, "lull0", "10.7.0.20/24")
	other := device(t, "lull1", "10.8.0.20/24")
	before, otherBefore, filesBefore := onDevice(t, link), onDevice(t, other), files(t, m)
	for i := 1; ; i++ {
		for _, dev := range []string{"lull0", "lull1"} {
			n, err := ReadNetwork(dev)
			if err != nil {
				t.Fatal(err)
			}
			free, err := n.Free(2)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.AddAddresses(n, free); err != nil {
				t.Fatal(err)
			}
		}
		names := atStep(t, i, func() error { return errTest })
		_, err := m.RemoveAddresses("lull0")
		endSteps()
		more := len(names()) >= i
		last := more && strings.HasPrefix(names()[i-1], "remove /var/lib/lull") // stays while there is a state
		if failed := errors.Is(err, errTest); failed != (more && !last) {
			t.Errorf("step %d of %q: %v", i, names(), err)
		}
		if _, err := m.RemoveAddresses("lull0"); err != nil {
			t.Error(err)
		}
		if got := onDevice(t, link); !slices.Equal(got, before) {
			t.Errorf("step %d: %q", i, got)
		}
		if got := onDevice(t, other); len(got) != 3 {
			t.Errorf("step %d: the other device has %q", i, got)
		}
		if _, err := m.RemoveAddresses(""); err != nil {
			t.Error(err)
		}
		if got := onDevice(t, other); !slices.Equal(got, otherBefore) {
			t.Errorf("step %d: %q", i, got)
		}
		expectSnapshot(t, fmt.Sprintf("step %d", i), files(t, m), filesBefore)
		if !more {
			if i < 5 {
				t.Errorf("%d steps", i)
			}
			return
		}
	}
}

// Adding is killed before each step. RemoveAddresses then removes what was added.
func TestAddingKilledAtAnyStepIsRemoved(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	m := thisKernel(t)
	link := device(t, "a-device-of-15c", "10.7.0.20/24") // whose name has no room for a label
	before, filesBefore := onDevice(t, link), files(t, m)
	for _, what := range []string{"addresses", "no addresses"} {
		for n, more := 1, true; more; n++ {
			if what == "no addresses" {
				network, err := ReadNetwork("a-device-of-15c")
				if err != nil {
					t.Fatal(err)
				}
				free, err := network.Free(3)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.AddAddresses(network, free); err != nil {
					t.Fatal(err)
				}
			}
			more = killed(t, m, what, n)
			if _, err := m.RemoveAddresses(""); err != nil {
				t.Fatal(err)
			}
			if got := onDevice(t, link); !slices.Equal(got, before) {
				t.Errorf("%s killed at step %d: %q", what, n, got)
			}
			expectSnapshot(t, fmt.Sprintf("%s killed at step %d", what, n), files(t, m), filesBefore)
		}
	}
}

func TestUnknownDevicesAreAnError(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "bare0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer0"}); err != nil {
		t.Fatal(err)
	}
	for dev, says := range map[string]string{"nowhere0": "not found", "bare0": "no IPv4 address"} {
		if _, err := ReadNetwork(dev); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), dev) {
			t.Errorf("%s: %v", dev, err)
		}
	}
}
