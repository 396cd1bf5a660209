package loadgen

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// The ports that a source address offers. The range from which the kernel
// chooses is narrower, but it does not limit programs that choose a port
// themselves.
const (
	portMin  = 1024
	portMax  = 65535
	portsPer = portMax - portMin + 1
)

// sourcesSpare is by how many percent the sources must be able to make more
// connections than wanted, because other programs use some of the ports.
const sourcesSpare = 2

// sourcesMax bounds a list of source addresses.
const sourcesMax = 1 << 16

// Sources numbers all combinations of a source address, a port and a target. Each
// is used once, because TCP tells connections apart by them.
type Sources struct {
	addrs   []netip.Addr
	targets int
}

// Capacity is how many connections the sources can make.
func (s Sources) Capacity() int { return len(s.addrs) * portsPer * s.targets }

// Pick returns the i-th combination. The first ones use one port with all targets
// and addresses, the next ones the next port, because the kernel keeps a structure
// for each port number in use. Without addresses the kernel chooses address and
// port.
func (s Sources) Pick(i int) (from netip.AddrPort, target int) {
	if len(s.addrs) == 0 {
		return netip.AddrPort{}, i % s.targets
	}
	target, i = i%s.targets, i/s.targets
	addr, i := s.addrs[i%len(s.addrs)], i/len(s.addrs)
	return netip.AddrPortFrom(addr, uint16(portMin+i)), target
}

// chooseSources finds addresses for conns connections, unless some are given: for
// a loopback target as many as are needed of 127.0.0.0/8, for any other target
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
		return s, fmt.Errorf("loadgen: %d source addresses × %d ports × %d targets make %d connections; %d and a reserve of %d %% are needed: add source addresses, or let the server listen on more ports",
			len(s.addrs), portsPer, s.targets, s.Capacity(), conns, sourcesSpare)
	}
	return s, nil
}

// ownAddresses lists this machine's addresses from which to can be reached: those
// of its IP version, and loopback addresses only if it is one.
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

// OwnSources returns an error that names the first of some addresses that is none of this
// machine's.
func OwnSources(addrs []netip.Addr) error {
	for _, a := range addrs {
		if a.IsLoopback() {
			continue
		}
		own, err := ownAddresses(a)
		if err != nil {
			return err
		}
		if !slices.Contains(own, a) {
			return fmt.Errorf("loadgen: this machine has no address %s", a)
		}
	}
	return nil
}

// ParseSources reads addresses and ranges of them, such as
// "127.1.0.1-127.1.0.16" and "10.0.0.5". The list "auto" gives none, which lets
// [Run] find as many as it needs. An error names the text that is not an address
// or a range, or that makes more than 65,536 addresses.
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
