//go:build linux

package netpoll

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listener is a listening socket.
type Listener struct {
	FD   int
	Addr netip.AddrPort // with the real port where 0 was asked for
}

// Listen opens a listening TCP socket on address, as "host:port" with a
// numeric port. An empty host means all addresses, of IPv6 and IPv4 where the
// machine has both. The kernel cuts backlog to net.core.somaxconn.
//
// TCP_NODELAY is set here, because accepted sockets inherit it without a system
// call of their own.
func Listen(address string, backlog int) (Listener, error) {
	l, err := listen(address, backlog)
	if err != nil {
		return Listener{}, fmt.Errorf("netpoll: listen on %s: %w", address, err)
	}
	return l, nil
}

func listen(address string, backlog int) (Listener, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return Listener{}, err
	}
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return Listener{}, err
	}
	addr := unmap(tcp.AddrPort())
	everywhere := tcp.IP == nil
	if everywhere {
		addr = netip.AddrPortFrom(netip.IPv6Unspecified(), addr.Port())
	}
	fd, err := streamSocket(addr)
	if errors.Is(err, unix.EAFNOSUPPORT) && everywhere {
		addr = netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port())
		fd, err = streamSocket(addr)
	}
	if err != nil {
		return Listener{}, err
	}
	fail := func(err error) (Listener, error) {
		_ = unix.Close(fd)
		return Listener{}, err
	}
	options := [][3]int{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	}
	if addr.Addr().Is6() {
		options = append(options, [3]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, boolInt(!everywhere)})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return fail(err)
		}
	}
	if err := addressCall(unix.SYS_BIND, fd, addr); err != nil {
		return fail(err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fail(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return fail(err)
	}
	return Listener{FD: fd, Addr: addrPort(sa)}, nil
}

// Accept takes a waiting connection, non-blocking and close-on-exec. ok is
// false if none waits.
func Accept(listener int) (fd int, ok bool, err error) {
	for {
		r, errno := accept4(listener)
		switch errno {
		case 0:
			return int(r), true, nil
		case unix.EAGAIN:
			return -1, false, nil
		case unix.EINTR, unix.ECONNABORTED, unix.EPROTO: // the peer left while it waited
		default:
			return -1, false, errno
		}
	}
}

func accept4(listener int) (fd uintptr, errno unix.Errno) {
	if Fault != nil {
		if _, errno = Fault(CallAccept, listener, 0); errno != 0 {
			return 0, errno
		}
	}
	fd, _, errno = unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return fd, errno
}

// ErrTaken says that another socket uses the address and port.
var ErrTaken = errors.New("netpoll: the address and port are taken")

// Connect opens a socket, binds it to from unless that is the zero AddrPort,
// and starts to connect it to to. When the socket becomes writable the attempt is
// over, and SocketError tells whether it succeeded. Connect returns ErrTaken if
// from is in use, or was in use a moment ago.
//
// If from has a port, every port costs the same. If the kernel has to choose the
// port, it becomes slow when many ports of an address are taken.
//
// segment is the longest TCP segment to receive, in bytes (tcp(7):
// TCP_MAXSEG); 0 is the kernel's choice, which over loopback is 64 KiB.
func Connect(from, to netip.AddrPort, segment int) (fd int, err error) {
	fd, err = streamSocket(to)
	if err != nil {
		return -1, fmt.Errorf("netpoll: socket: %w", err)
	}
	if segment > 0 {
		if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, segment); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("netpoll: TCP_MAXSEG %d: %w", segment, err)
		}
	}
	if from.IsValid() {
		if err = bind(fd, from); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
	}
	switch err = addressCall(unix.SYS_CONNECT, fd, to); err {
	case nil, unix.EINPROGRESS:
		return fd, nil
	case unix.EADDRINUSE, unix.EADDRNOTAVAIL: // bind does not see all conflicts
		err = ErrTaken
	default:
		err = fmt.Errorf("netpoll: connect to %s: %w", to, err)
	}
	_ = unix.Close(fd)
	return -1, err
}

func bind(fd int, from netip.AddrPort) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("netpoll: SO_REUSEADDR: %w", err)
	}
	switch err := addressCall(unix.SYS_BIND, fd, from); err {
	case nil:
		return nil
	case unix.EADDRINUSE:
		return ErrTaken
	default:
		return fmt.Errorf("netpoll: bind to %s: %w", from, err)
	}
}

// addressCall is bind or connect. Neither waits, and a generator makes a million of both: unix.Bind
// and unix.Connect allocate an address for each.
func addressCall(call uintptr, fd int, a netip.AddrPort) error {
	var sa unix.RawSockaddrInet6 // whose beginning is a RawSockaddrInet4's
	size := uintptr(unix.SizeofSockaddrInet6)
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], a.Port())
	if a.Addr().Is4() {
		size = unix.SizeofSockaddrInet4
		sa.Family, (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa)).Addr = unix.AF_INET, a.Addr().As4()
	} else {
		sa.Family, sa.Addr, sa.Scope_id = unix.AF_INET6, a.Addr().As16(), zone(a.Addr())
	}
	if _, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size); errno != 0 {
		return errno
	}
	return nil
}

// zone is the index of the interface that an address names, 0 for none.
func zone(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	i, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0
	}
	return uint32(i.Index)
}

// Read reads what has arrived, at most len(p) bytes. It returns 0 and no error
// if nothing has arrived, and io.EOF at the stream's end.
func Read(fd int, p []byte) (int, error) {
	for {
		size := len(p)
		var errno unix.Errno
		if Fault != nil {
			size, errno = Fault(CallRead, fd, len(p))
		}
		var n uintptr
		if errno == 0 {
			n, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
				uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(size), 0, 0, 0)
		}
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return 0, nil
		case errno != 0:
			return 0, errno
		case n == 0 && size > 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

// Write sends as much of p as the socket takes. A result less than len(p) means
// that its send buffer is full.
func Write(fd int, p []byte) (int, error) {
	for {
		size := len(p)
		var errno unix.Errno
		if Fault != nil {
			size, errno = Fault(CallWrite, fd, len(p))
		}
		var n uintptr
		if errno == 0 {
			n, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
				uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(size), unix.MSG_NOSIGNAL, 0, 0)
		}
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
}

// ShutdownWrite sends FIN after what was written. What the peer still sends can
// be read.
func ShutdownWrite(fd int) { _ = unix.Shutdown(fd, unix.SHUT_WR) }

// StopListening makes a listening socket refuse connections, in all descriptor
// tables that have it.
func StopListening(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RD) }

// SetSendBuffer limits the bytes that a socket holds until its peer acknowledges
// them, to about twice n. Without it the kernel lets them grow to megabytes
// (tcp(7), socket(7): SO_SNDBUF).
func SetSendBuffer(fd, n int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, n) }

// NoKeepAlive turns TCP keep-alive off, which net/http turns on.
func NoKeepAlive(fd int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0) }

// Close closes a socket. The kernel still delivers what was written.
func Close(fd int) { _ = unix.Close(fd) }

// Reset closes a socket at once: the kernel drops what was not delivered, sends
// RST to the peer, and keeps no TIME_WAIT state.
func Reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// Unacknowledged is how many bytes a socket holds that its peer has not
// acknowledged, 0 if that cannot be found out.
func Unacknowledged(fd int) int {
	n, _ := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return n
}

// SocketError returns and clears a socket's pending error, nil if there is none.
func SocketError(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return err
	case n != 0:
		return unix.Errno(n)
	}
	return nil
}

// RemoteAddr returns the peer's address, or the zero AddrPort if the socket is
// not connected any more. It takes one system call; unix.Getpeername takes two.
func RemoteAddr(fd int) netip.AddrPort {
	var sa unix.RawSockaddrInet6 // whose beginning is a RawSockaddrInet4's
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	switch sa.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&sa)).Addr), port)
	case unix.AF_INET6:
		return unmap(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), port))
	}
	return netip.AddrPort{}
}

func streamSocket(addr netip.AddrPort) (int, error) {
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return unmap(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
	}
	return netip.AddrPort{}
}

// unmap turns an IPv4-mapped IPv6 address into the IPv4 address.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
