package loadgen

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// loopback returns n addresses, the first 127.9.0.1.
func loopback(n int) []netip.Addr {
	addrs := make([]netip.Addr, 0, n)
	for a := netip.MustParseAddr("127.9.0.1"); len(addrs) < n; a = a.Next() {
		addrs = append(addrs, a)
	}
	return addrs
}

func TestPickNumbersEveryCombinationOnce(t *testing.T) {
	for _, of := range []Sources{{loopback(1), 1}, {loopback(3), 1}, {loopback(1), 3}, {loopback(2), 3}} {
		t.Run(fmt.Sprintf("%d addresses, %d targets", len(of.addrs), of.targets), func(t *testing.T) {
			if want := len(of.addrs) * (65535 - 1024 + 1) * of.targets; of.Capacity() != want {
				t.Fatalf("capacity %d, want %d", of.Capacity(), want)
			}
			type combination struct {
				from   netip.AddrPort
				target int
			}
			seen := make(map[combination]bool, of.Capacity())
			for i := range of.Capacity() {
				from, target := of.Pick(i)
				switch {
				case !slices.Contains(of.addrs, from.Addr()):
					t.Fatalf("%d: %s is not among the sources", i, from)
				case from.Port() < 1024: // the uint16 cannot exceed the other end
					t.Fatalf("%d: port %d", i, from.Port())
				case target < 0 || target >= of.targets:
					t.Fatalf("%d: target %d", i, target)
				case seen[combination{from, target}]:
					t.Fatalf("%d: %s to target %d again", i, from, target)
				}
				seen[combination{from, target}] = true
			}
		})
	}
}

// The kernel keeps a structure for each port number in use, so a port is used
// from all addresses to all targets before the next one.
func TestPickUsesAPortFromAllAddressesFirst(t *testing.T) {
	s := Sources{loopback(3), 2}
	for i := range 600 {
		from, target := s.Pick(i)
		if want := 1024 + i/6; int(from.Port()) != want {
			t.Fatalf("%d has port %d, want %d", i, from.Port(), want)
		}
		if next, nextTarget := s.Pick(i + 1); next.Addr() == from.Addr() && nextTarget == target {
			t.Fatalf("combinations %d and %d have the same address and target", i, i+1)
		}
	}
}

func TestWithoutAddressesTheKernelChooses(t *testing.T) {
	for i := range 6 {
		if from, target := (Sources{targets: 3}).Pick(i); from != (netip.AddrPort{}) || target != i%3 {
			t.Errorf("%d: from %v to target %d", i, from, target)
		}
	}
}

func targetsAt(addrs ...string) (targets []target) {
	for _, a := range addrs {
		targets = append(targets, target{addr: netip.MustParseAddrPort(a)})
	}
	return targets
}

// An address makes 64,512 connections to a target, and two percent are spare.
func TestLoopbackTargetsGetAsManySourcesAsNeeded(t *testing.T) {
	one, two := targetsAt("127.0.0.1:80"), targetsAt("127.0.0.1:80", "127.0.0.1:81")
	rows := []struct {
		conns   int
		targets []target
		want    int
	}{
		{1, one, 1},
		{63_248, one, 1}, // and 1264 spare are 64,512
		{63_249, one, 2},
		{1_000_000, one, 16}, // 1,020,000 ÷ 64,512 = 15.8
		{126_495, two, 1},    // and 2529 spare are 2 × 64,512
		{126_496, two, 2},
	}
	for _, r := range rows {
		s, err := chooseSources(r.conns, nil, r.targets)
		if err != nil || len(s.addrs) != r.want {
			t.Errorf("%d connections to %d targets: %d addresses, %v; want %d", r.conns, len(r.targets), len(s.addrs), err, r.want)
			continue
		}
		if s.addrs[0].String() != "127.1.0.1" || slices.ContainsFunc(s.addrs, func(a netip.Addr) bool { return !a.IsLoopback() }) {
			t.Errorf("addresses %v", s.addrs)
		}
	}
}

func TestGivenSourcesMustSuffice(t *testing.T) {
	rows := []struct {
		conns, addrs int
		targets      []target
		fails        []string
	}{
		{63_248, 1, targetsAt("10.0.0.1:80"), nil},
		{126_495, 1, targetsAt("10.0.0.1:80", "10.0.0.1:81"), nil},
		{126_495, 2, targetsAt("127.0.0.1:80"), nil},

		{100_000, 1, targetsAt("10.0.0.1:80"), []string{"64512", "100000", "add source addresses", "more ports"}},
		{126_496, 1, targetsAt("10.0.0.1:80", "10.0.0.1:81"), []string{"129024", "2 targets"}},
		{126_496, 2, targetsAt("127.0.0.1:80"), []string{"2 source addresses"}}, // given addresses are not extended
	}
	for _, r := range rows {
		s, err := chooseSources(r.conns, loopback(r.addrs), r.targets)
		switch {
		case (err != nil) != (r.fails != nil):
			t.Errorf("%d connections from %d addresses to %d targets: %v", r.conns, r.addrs, len(r.targets), err)
		case err == nil && len(s.addrs) != r.addrs:
			t.Errorf("%d addresses became %d", r.addrs, len(s.addrs))
		}
		for _, words := range r.fails {
			if err != nil && !strings.Contains(err.Error(), words) {
				t.Errorf("error %v does not contain %q", err, words)
			}
		}
	}
}

func TestOtherTargetsAreReachedFromTheMachinesOwnAddresses(t *testing.T) {
	s, err := chooseSources(1, nil, targetsAt("[::1]:80"))
	if err != nil || !slices.Equal(s.addrs, []netip.Addr{netip.IPv6Loopback()}) {
		t.Errorf("to ::1 from %v, %v", s.addrs, err)
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"192.0.2.1", "2001:db8::1"} { // for documentation: RFC 5737, RFC 3849
		to := netip.MustParseAddr(to)
		own, err := ownAddresses(to)
		if err != nil {
			t.Error(err)
		}
		for _, a := range own {
			if a.Is4() != to.Is4() || a.IsLoopback() || a.IsLinkLocalUnicast() {
				t.Errorf("to %s from %s", to, a)
			}
			if !slices.ContainsFunc(all, func(b net.Addr) bool { return strings.HasPrefix(b.String(), a.String()+"/") }) {
				t.Errorf("%s is not this machine's", a)
			}
		}
	}
}

func TestParseSources(t *testing.T) {
	rows := []struct {
		list  []string
		want  string // addresses, or what the error says
		fails bool
	}{
		{[]string{"auto"}, "[]", false},
		{nil, "[]", false},
		{[]string{"10.0.0.5"}, "[10.0.0.5]", false},
		{[]string{"10.0.0.5-10.0.0.7"}, "[10.0.0.5 10.0.0.6 10.0.0.7]", false},
		{[]string{"127.1.0.255-127.1.1.1", "10.0.0.5"}, "[127.1.0.255 127.1.1.0 127.1.1.1 10.0.0.5]", false},
		{[]string{"fd00::1-fd00::2", "::1"}, "[fd00::1 fd00::2 ::1]", false},
		{[]string{"255.255.255.254-255.255.255.255"}, "[255.255.255.254 255.255.255.255]", false},

		{[]string{"10.0.0.7-10.0.0.5"}, `"10.0.0.7-10.0.0.5"`, true},
		{[]string{"10.0.0.5", "auto"}, `"auto"`, true},
		{[]string{"auto", "10.0.0.5"}, `"auto"`, true},
		{[]string{"10.0.0.5-fd00::1"}, "10.0.0.5-fd00::1", true},
		{[]string{"10.0.0.5-10.0.0.6-10.0.0.7"}, "10.0.0.5", true},
		{[]string{"10.0.0.0/24"}, "10.0.0.0/24", true},
		{[]string{"example.com"}, `"example.com"`, true},
		{[]string{"10.0.0.5-"}, `"10.0.0.5-"`, true},
		{[]string{"-"}, `"-"`, true},
		{[]string{""}, `""`, true},
		{[]string{"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, "more than 65536", true},
		{[]string{"10.0.0.0-10.0.255.255", "10.9.9.9"}, "more than 65536", true},
	}
	for _, r := range rows {
		addrs, err := ParseSources(r.list)
		switch {
		case (err != nil) != r.fails:
			t.Errorf("%q: %v, %v", r.list, addrs, err)
		case r.fails && (!strings.Contains(err.Error(), r.want) || !strings.HasPrefix(err.Error(), "loadgen: ")):
			t.Errorf("%q: error %v does not contain %s", r.list, err, r.want)
		case !r.fails && fmt.Sprint(addrs) != r.want:
			t.Errorf("%q: %v, want %s", r.list, addrs, r.want)
		}
	}
	if addrs, err := ParseSources([]string{"10.0.0.0-10.0.255.255"}); len(addrs) != sourcesMax || err != nil {
		t.Errorf("the most addresses: %d, %v", len(addrs), err)
	}
}
