package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddressFile, below the root, is where AddAddresses saves what RemoveAddresses
// needs.
const AddressFile = "/var/lib/lull/addresses.json"

// AddressesMax is how many addresses can be added at once.
const AddressesMax = 1024

// addressState is on the disk before an address is added.
type addressState struct {
	Version   int            `json:"version"`
	Boot      string         `json:"boot_id"`
	Namespace string         `json:"network_namespace"`
	Addresses []AddedAddress `json:"addresses"`
}

// check returns an error if AddAddresses cannot have written a state.
func (s *addressState) check() error {
	for _, a := range s.Addresses {
		if !a.Prefix.Addr().Is4() || a.Dev == "" || a.Label != label(a.Dev) {
			return fmt.Errorf("it names the address %q on %q with the label %q, which lull does not add", a.Prefix, a.Dev, a.Label)
		}
	}
	return nil
}

// AddedAddress is an address that was added to a device, or is about to be added.
type AddedAddress struct {
	Dev    string       `json:"device"`
	Prefix netip.Prefix `json:"address"`
	Label  string       `json:"label,omitempty"` // marks it as ours in the kernel
}

// Network is what must be known about a device before addresses are added.
type Network struct {
	Dev    string
	MAC    string
	Prefix netip.Prefix        // its primary address, and the subnet
	Own    []netip.Addr        // all addresses of the device
	Taken  map[netip.Addr]bool // in use by this machine, its gateways and known neighbours
}

// ReadNetwork reads a device's Network.
func ReadNetwork(dev string) (*Network, error) {
	n, err := readNetwork(dev)
	if err != nil {
		return nil, fmt.Errorf("tuning: read device %s: %w", dev, err)
	}
	return n, nil
}

func readNetwork(dev string) (*Network, error) {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return nil, err
	}
	n := &Network{Dev: dev, MAC: link.Attrs().HardwareAddr.String(), Taken: map[netip.Addr]bool{}}
	addrs, err := netlink.AddrList(nil, unix.AF_INET)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		p, ok := prefixOf(a)
		if !ok {
			continue
		}
		n.Taken[p.Addr()] = true
		if a.LinkIndex != link.Attrs().Index {
			continue
		}
		n.Own = append(n.Own, p.Addr())
		if !n.Prefix.IsValid() && a.Flags&unix.IFA_F_SECONDARY == 0 {
			n.Prefix = p
		}
	}
	if !n.Prefix.IsValid() {
		return nil, errors.New("it has no IPv4 address")
	}
	routes, err := netlink.RouteList(nil, unix.AF_INET)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		n.take(r.Gw)
	}
	neighbours, err := netlink.NeighList(link.Attrs().Index, unix.AF_INET)
	if err != nil {
		return nil, err
	}
	for _, neighbour := range neighbours {
		if neighbour.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) == 0 { // a failed or incomplete entry is no neighbour
			n.take(neighbour.IP)
		}
	}
	return n, nil
}

func (n *Network) take(ip net.IP) {
	if a, ok := netip.AddrFromSlice(ip); ok {
		n.Taken[a.Unmap()] = true
	}
}

func prefixOf(a netlink.Addr) (netip.Prefix, bool) {
	if a.IPNet == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(a.IP)
	ones, _ := a.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones), ok
}

// Free chooses addresses of the subnet that are not known to be in use, first
// upwards from the device's own address and then from the beginning of the
// subnet. It sends nothing, so a machine that this one has not heard of may have
// such an address. It leaves out the subnet's first and last address, and the
// three after the first, which clouds use for routers and name servers.
func (n *Network) Free(count int) ([]netip.Addr, error) {
	if count < 1 || count > AddressesMax {
		return nil, fmt.Errorf("tuning: %d addresses: 1 to %d can be added at once", count, AddressesMax)
	}
	subnet := n.Prefix.Masked()
	first := subnet.Addr()
	for range 4 { // the subnet's own, and three
		first = first.Next()
	}
	last := lastOf(subnet)
	var free []netip.Addr
	choose := func(from, to netip.Addr) {
		for a := from; len(free) < count && subnet.Contains(a) && a.Compare(to) < 0; a = a.Next() {
			if !n.Taken[a] {
				free = append(free, a)
			}
		}
	}
	own := n.Prefix.Addr()
	choose(maxAddr(own.Next(), first), last)
	choose(first, minAddr(own, last))
	if len(free) < count {
		return nil, fmt.Errorf("tuning: %s has room for %d more addresses, not for %d", subnet, len(free), count)
	}
	return free, nil
}

func maxAddr(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}

func minAddr(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return a
	}
	return b
}

// lastOf is the last address of an IPv4 subnet, its broadcast address.
func lastOf(subnet netip.Prefix) netip.Addr {
	b := subnet.Addr().As4()
	for i := subnet.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// Check returns an error if addresses cannot be added.
func (n *Network) Check(addrs []netip.Addr) error {
	if len(addrs) == 0 || len(addrs) > AddressesMax {
		return fmt.Errorf("tuning: %d addresses: 1 to %d can be added at once", len(addrs), AddressesMax)
	}
	for i, a := range addrs {
		switch {
		case !a.Is4():
			return fmt.Errorf("tuning: address %s: only IPv4 is supported", a)
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
			return fmt.Errorf("tuning: address %s cannot be a device's", a)
		case n.Taken[a]:
			return fmt.Errorf("tuning: address %s is taken", a)
		case slices.Contains(addrs[:i], a):
			return fmt.Errorf("tuning: address %s is listed twice", a)
		}
	}
	return nil
}

// planned adds prefixes and labels to addresses: the subnet's prefix within the
// subnet, a prefix of one address elsewhere.
func (n *Network) planned(addrs []netip.Addr) []AddedAddress {
	added := make([]AddedAddress, len(addrs))
	for i, a := range addrs {
		bits := a.BitLen()
		if n.Prefix.Contains(a) {
			bits = n.Prefix.Bits()
		}
		added[i] = AddedAddress{Dev: n.Dev, Prefix: netip.PrefixFrom(a, bits), Label: label(n.Dev)}
	}
	return added
}

// label marks addresses as ours in the output of "ip addr". If the device's name
// leaves no room for it, the label is the device's name, as for any address.
func label(dev string) string {
	if l := dev + ":lull"; len(l) < unix.IFNAMSIZ {
		return l
	}
	return dev
}

// AddAddresses adds addresses to a device, all of them or none. Before it adds
// any, it saves them in AddressFile.
func (m *Machine) AddAddresses(n *Network, addrs []netip.Addr) error {
	if err := n.Check(addrs); err != nil {
		return err
	}
	if err := m.permitted(filepath.Dir(AddressFile)); err != nil {
		return fmt.Errorf("tuning: nothing was added: %w", err)
	}
	if !mayAdmin() {
		return errors.New("tuning: nothing was added: this needs root, or CAP_NET_ADMIN")
	}
	unlock, err := m.begin()
	if err != nil {
		return err
	}
	defer unlock()
	before, s, err := m.loadAddresses()
	if err != nil {
		return err
	}
	added := n.planned(addrs)
	s.Addresses = append(s.Addresses, added...)
	if err := m.saveState(AddressFile, s); err != nil {
		return fmt.Errorf("tuning: save what will be added: %w", err)
	}
	for i, a := range added {
		if err := add(a); err != nil {
			return m.takeBack(fmt.Errorf("add %s to %s: %w", a.Prefix, a.Dev, err), added[:i], before)
		}
	}
	return nil
}

// mayAdmin reports whether this process may change its network namespace.
func mayAdmin() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	err := unix.Capget(&head, &sets[0])
	return err == nil && sets[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

// loadAddresses returns the saved state, nil if there is none, and a copy to be
// extended. Addresses of an earlier boot are gone.
func (m *Machine) loadAddresses() (before, s *addressState, err error) {
	if before, err = loadState[addressState](m, AddressFile); err != nil {
		return nil, nil, err
	}
	here, err := m.here()
	if err != nil {
		return nil, nil, err
	}
	s = &addressState{Version: here.Version, Boot: here.Boot, Namespace: here.Namespace}
	if before != nil && before.Boot == here.Boot {
		if before.Namespace != here.Namespace {
			return nil, nil, fmt.Errorf("tuning: %s belongs to another network namespace, %s: remove them there first", AddressFile, before.Namespace)
		}
		s.Addresses = slices.Clone(before.Addresses)
	}
	return before, s, nil
}

// takeBack removes the addresses that were added before something failed.
func (m *Machine) takeBack(cause error, added []AddedAddress, before *addressState) error {
	var errs []error
	for _, a := range slices.Backward(added) {
		errs = append(errs, del(a))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tuning: %w; and some addresses that were added could not be removed: %w", cause, err)
	}
	err := error(nil)
	if before != nil {
		err = m.saveState(AddressFile, before)
	} else {
		err = m.forget(AddressFile)
	}
	if err != nil {
		return fmt.Errorf("tuning: %w; the addresses that were added have been removed, but the state file has not: %w", cause, err)
	}
	return fmt.Errorf("tuning: %w; the addresses that were added have been removed", cause)
}

func (a AddedAddress) netlink() *netlink.Addr {
	bits := a.Prefix.Addr().BitLen()
	return &netlink.Addr{
		IPNet: &net.IPNet{IP: a.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), bits)},
		Label: a.Label,
	}
}

func add(a AddedAddress) error {
	if err := step("add " + a.Prefix.String()); err != nil {
		return err
	}
	link, err := netlink.LinkByName(a.Dev)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(link, a.netlink())
}

func del(a AddedAddress) error {
	if err := step("remove " + a.Prefix.String()); err != nil {
		return err
	}
	link, err := netlink.LinkByName(a.Dev)
	if err != nil {
		return err
	}
	return netlink.AddrDel(link, a.netlink())
}

// there reports whether an address is on its device, and whether we added it.
func (a AddedAddress) there() (found, ours bool, err error) {
	link, err := netlink.LinkByName(a.Dev)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	addrs, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil {
		return false, false, err
	}
	for _, b := range addrs {
		if p, ok := prefixOf(b); ok && p == a.Prefix {
			return true, b.Label == a.Label, nil
		}
	}
	return false, false, nil
}

// RemoveAddresses removes the addresses that AddAddresses has added to a device,
// or to all devices if dev is "". It returns what happened to each. After a
// reboot, or in another network namespace, there is nothing to remove.
func (m *Machine) RemoveAddresses(dev string) ([]Reverted, error) {
	if _, err := os.Stat(m.below(filepath.Dir(AddressFile))); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err := m.permitted(filepath.Dir(AddressFile)); err != nil {
		return nil, fmt.Errorf("tuning: remove addresses: %w", err)
	}
	unlock, err := m.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := loadState[addressState](m, AddressFile)
	if err != nil {
		return nil, err
	}
	var all []Reverted
	var rest []AddedAddress
	var errs []error
	if s != nil {
		here, err := m.here()
		if err != nil {
			return nil, err
		}
		for _, a := range slices.Backward(s.Addresses) {
			if dev != "" && a.Dev != dev {
				rest = append(rest, a)
				continue
			}
			r := a.remove(s, here)
			all = append(all, r)
			errs = append(errs, r.Err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return all, fmt.Errorf("tuning: not every address could be removed, so %s stays: %w", AddressFile, err)
	}
	if len(rest) > 0 {
		slices.Reverse(rest)
		s.Addresses = rest
		err = m.saveState(AddressFile, s)
	} else {
		err = m.forget(AddressFile)
	}
	if err != nil {
		return all, fmt.Errorf("tuning: the addresses are removed, but the state file is not: %w", err)
	}
	return all, nil
}

func (a AddedAddress) remove(s *addressState, here *state) Reverted {
	r := Reverted{Name: a.Prefix.String() + " on " + a.Dev}
	if s.Boot != here.Boot {
		r.To = "gone since a reboot"
		return r
	}
	if s.Namespace != here.Namespace {
		r.To = "left: this is another network namespace than " + s.Namespace
		return r
	}
	switch found, ours, err := a.there(); {
	case err != nil:
		r.Err = fmt.Errorf("look for %s: %w", r.Name, err)
	case !found:
		r.To = "gone already"
	case !ours:
		r.To, r.Drift = "left: somebody else has added it", true
	default:
		r.To = "removed"
		if err := del(a); err != nil {
			r.Err = fmt.Errorf("remove %s: %w", r.Name, err)
		}
	}
	return r
}

// AddedAddresses lists the addresses that RemoveAddresses would remove.
func (m *Machine) AddedAddresses(dev string) ([]AddedAddress, error) {
	s, err := loadState[addressState](m, AddressFile)
	if s == nil || err != nil {
		return nil, err
	}
	return slices.DeleteFunc(s.Addresses, func(a AddedAddress) bool { return dev != "" && a.Dev != dev }), nil
}
