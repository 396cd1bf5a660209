package experiment

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
)

// A lab is several machines made of one. Each has a network namespace of its own, which has
// an interface on each of two bridges in the caller's:
//
//	clients ── front ──┬─ node a ─┬── backbone ── NATS
//	                   ├─ node b ─┤
//	                   └─ node c ─┘
//
// So a node that is cut off from the others still has its clients. The namespaces and what is
// in them end with this process, however that ends; the bridges are deleted by close, and end
// with the caller's namespace.
type lab struct {
	backbone, front *netlink.Bridge
	machines        []*labMachine
}

// labMachine is one of them.
type labMachine struct {
	*Namespace
	backbone, front string       // its addresses
	port            netlink.Link // of the backbone, to the machine
}

// Networks of the lab, without the last number of an address. The caller has the last
// address of each.
const (
	labBackbone = "10.213.1."
	labFront    = "10.213.2."
	labOwn      = "254"
)

// newLab makes a lab of n machines.
func newLab(n int) (l *lab, err error) {
	l = &lab{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.backbone, err = newBridge("lull-backbone", labBackbone+labOwn); err != nil {
		return l, err
	}
	if l.front, err = newBridge("lull-front", labFront+labOwn); err != nil {
		return l, err
	}
	for i := range n {
		if err := l.add(i + 1); err != nil {
			return l, err
		}
	}
	return l, nil
}

func newBridge(name, address string) (*netlink.Bridge, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	b := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(b); err != nil {
		return nil, fmt.Errorf("experiment: make the bridge %s: %w", name, err)
	}
	if err := raise(name, address); err != nil {
		_ = netlink.LinkDel(b)
		return nil, err
	}
	return b, nil
}

// raise gives an interface an address and brings it up.
func raise(name, address string) error {
	link, err := netlink.LinkByName(name)
	var a *netlink.Addr
	if err == nil {
		a, err = netlink.ParseAddr(address + "/24")
	}
	if err == nil {
		err = netlink.AddrAdd(link, a)
	}
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("experiment: bring up %s: %w", name, err)
	}
	return nil
}

// add adds a machine.
func (l *lab) add(number int) error {
	space, err := NewNamespace(1 << 14)
	if err != nil {
		return err
	}
	m := &labMachine{Namespace: space, backbone: fmt.Sprint(labBackbone, number), front: fmt.Sprint(labFront, number)}
	l.machines = append(l.machines, m)
	var own *os.File
	if err := m.do(func() (err error) {
		own, err = os.Open("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	defer own.Close()
	if m.port, err = connect(own, fmt.Sprint("backbone-", number), "backbone", l.backbone); err != nil {
		return err
	}
	if _, err := connect(own, fmt.Sprint("front-", number), "front", l.front); err != nil {
		return err
	}
	return m.do(func() error {
		if err := raise("backbone", m.backbone); err != nil {
			return err
		}
		return raise("front", m.front)
	})
}

// connect connects a namespace to a bridge.
func connect(space *os.File, port, name string, bridge *netlink.Bridge) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = port, bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsFd(space.Fd())}
	err := netlink.LinkAdd(veth)
	if err == nil {
		err = netlink.LinkSetUp(veth)
	}
	if err != nil {
		return nil, fmt.Errorf("experiment: connect %s: %w", port, err)
	}
	return veth, nil
}

// cut cuts the machine off the backbone: nothing comes through, and nobody is told.
func (m *labMachine) cut() error { return netlink.LinkSetDown(m.port) }

// mend ends that.
func (m *labMachine) mend() error { return netlink.LinkSetUp(m.port) }

// traffic is how many bytes have come from the machine over the backbone, and gone to it,
// with all headers.
func (m *labMachine) traffic() (from, to uint64, err error) {
	link, err := netlink.LinkByIndex(m.port.Attrs().Index)
	if err != nil {
		return 0, 0, fmt.Errorf("experiment: %w", err)
	}
	s := link.Attrs().Statistics
	return s.RxBytes, s.TxBytes, nil
}

// close ends the lab. The machines' processes have ended.
func (l *lab) close() {
	for _, m := range l.machines {
		m.Leave()
	}
	for _, b := range []*netlink.Bridge{l.backbone, l.front} {
		if b != nil {
			_ = netlink.LinkDel(b) // it ends with the namespace otherwise
		}
	}
}
