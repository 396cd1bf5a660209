package loadgen

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"go4.org/netipx"
)

// The ports that a source address offers. The kernel's own range is narrower,
// but does not bind those who choose for themselves.
const (
	portMin  = 1024
	portMax  = 65535
	portsPer = portMax - portMin + 1
)

// sourcesSpare is how many more connections than wanted the sources must be
// able to make, in percent: some ports are taken by others.
const sourcesSpare = 2

// sourcesMax bounds a list of source addresses.
const sourcesMax = 1 << 16

// Sources numbers all (source address, port, target) combinations. TCP needs
// them distinct, and each is used once.
type Sources struct {
	addrs   []netip.Addr
	targets int
}

// Capacity is how many connections the sources can make.
func (s Sources) Capacity() int { return len(s.addrs) * portsPer * s.targets }

// Pick returns the i-th combination. Neighbours differ in address and target
// before they differ in port, because the kernel keeps a structure for every
// port number in use: the fewer, the better.
func (s Sources) Pick(i int) (from netip.AddrPort, target int) {
	if len(s.addrs) == 0 {
		return netip.AddrPort{}, i % s.targets
	}
	target, i = i%s.targets, i/s.targets
	addr, i := s.addrs[i%len(s.addrs)], i/len(s.addrs)
	return netip.AddrPortFrom(addr, uint16(portMin+i)), target
}

// chooseSources finds addresses for conns connections. A loopback target is
// reached from as many addresses of 127.0.0.0/8 as it takes, any other from
// the machine's own.
func chooseSources(conns int, given []netip.Addr, targets []target) (Sources, error) {
	s := Sources{addrs: given, targets: len(targets)}
	wanted := conns + conns*sourcesSpare/100
	if len(given) == 0 {
		to := targets[0].addr.Addr()
		if to.IsLoopback() && to.Is4() {
			for a := netip.AddrFrom4([4]byte{127, 1, 0, 1}); s.Capacity() < wanted; a = a.Next() {
				s.addrs = append(s.addrs, a)
			}
			return s, nil
		}
		var err error
		if s.addrs, err = ownAddresses(to); err != nil {
			return s, err
		}
	}
	if s.Capacity() < wanted {
		return s, fmt.Errorf("loadgen: %d source addresses × %d ports × %d targets make %d connections, not %d and %d %% to spare: add source addresses, or let the server listen on more ports",
			len(s.addrs), portsPer, s.targets, s.Capacity(), conns, sourcesSpare)
	}
	return s, nil
}

// ownAddresses lists this machine's addresses of to's kind.
func ownAddresses(to netip.Addr) ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("loadgen: list addresses: %w", err)
	}
	var own []netip.Addr
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := p.Addr()
		if ip.Is4() == to.Is4() && ip.IsLoopback() == to.IsLoopback() && !ip.IsLinkLocalUnicast() {
			own = append(own, ip)
		}
	}
	return own, nil
}

// ParseSources reads addresses and ranges of them, such as
// "127.1.0.1-127.1.0.16" and "10.0.0.5". "auto", alone, is none: as many are
// found as it takes.
func ParseSources(list []string) ([]netip.Addr, error) {
	if len(list) == 1 && list[0] == "auto" {
		return nil, nil
	}
	var addrs []netip.Addr
	for _, text := range list {
		from, to, isRange := strings.Cut(text, "-")
		if !isRange {
			to = from
		}
		r, err := netipx.ParseIPRange(from + "-" + to)
		if err != nil {
			return nil, fmt.Errorf("loadgen: source addresses %q: %w", text, err)
		}
		for a := r.From(); r.Contains(a); a = a.Next() {
			if addrs = append(addrs, a); len(addrs) > sourcesMax {
				return nil, fmt.Errorf("loadgen: source addresses %q: more than %d", text, sourcesMax)
			}
		}
	}
	return addrs, nil
}
