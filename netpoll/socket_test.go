package netpoll

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func mustListen(t *testing.T, address string) Listener {
	t.Helper()
	// The backlog has room for every connection of a test. With SYN cookies, a
	// connection that finds it full looks open to its client and is lost.
	l, err := Listen(address, 4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(l.FD) })
	return l
}

// waitFor waits until a socket is ready.
func waitFor(t *testing.T, fd int, want Interest) {
	t.Helper()
	p, _ := newPoller(t)
	mustAdd(t, p, fd, Token{1, 1}, want)
	mustWait(t, p, forever)
}

// connected returns both ends of a TCP connection to l.
func connected(t *testing.T, l Listener, from netip.AddrPort) (client, server int) {
	t.Helper()
	client, err := Connect(from, l.Addr, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(client) })
	waitFor(t, client, Out)
	if err := SocketError(client); err != nil {
		t.Fatal(err)
	}
	waitFor(t, l.FD, In)
	server, ok, err := Accept(l.FD)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	t.Cleanup(func() { Close(server) })
	return client, server
}

func TestListenReturnsThePortThatItChose(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0", ":0"} {
		l := mustListen(t, address)
		if l.Addr.Port() == 0 {
			t.Errorf("%s: %v has no port", address, l.Addr)
		}
	}
}

func TestListenOnAllAddressesTakesIPv4AndIPv6(t *testing.T) {
	l := mustListen(t, ":0")
	for _, ip := range []string{"127.0.0.1", "::1"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(ip), l.Addr.Port())
		client, server := connected(t, Listener{l.FD, to}, netip.AddrPort{})
		if got := RemoteAddr(client); got != to {
			t.Errorf("connected to %v, want %v", got, to)
		}
		if got := RemoteAddr(server).Addr().String(); got != ip {
			t.Errorf("accepted from %s, want %s", got, ip)
		}
	}
}

func TestListenSaysWhatIsWrong(t *testing.T) {
	taken := mustListen(t, "127.0.0.1:0")
	for _, address := range []string{"", "127.0.0.1", "127.0.0.1:99999", "no such host:1", taken.Addr.String()} {
		if l, err := Listen(address, 1); err == nil {
			Close(l.FD)
			t.Errorf("listening on %q", address)
		}
	}
}

func TestAcceptTellsWhenNoConnectionWaits(t *testing.T) {
	l := mustListen(t, "127.0.0.1:0")
	if fd, ok, err := Accept(l.FD); ok || err != nil {
		t.Errorf("Accept = %d, %v, %v", fd, ok, err)
	}
	if _, ok, err := Accept(-1); ok || !errors.Is(err, unix.EBADF) {
		t.Errorf("Accept of nothing = %v, %v", ok, err)
	}
}

func TestAcceptedSocketsDoNotWaitToFillPackets(t *testing.T) {
	_, server := connected(t, mustListen(t, "127.0.0.1:0"), netip.AddrPort{})
	if n, err := unix.GetsockoptInt(server, unix.IPPROTO_TCP, unix.TCP_NODELAY); n == 0 || err != nil {
		t.Errorf("TCP_NODELAY = %d, %v", n, err)
	}
	if flags, _ := unix.FcntlInt(uintptr(server), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
		t.Error("accepted socket blocks")
	}
	if flags, _ := unix.FcntlInt(uintptr(server), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Error("accepted socket is inherited by children")
	}
}

func TestConnectFromAChosenAddress(t *testing.T) {
	l := mustListen(t, "127.0.0.1:0")
	// The port was free a moment ago.
	probe := mustListen(t, "127.1.2.3:0")
	Close(probe.FD)
	_, server := connected(t, l, probe.Addr)
	if got := RemoteAddr(server); got != probe.Addr {
		t.Errorf("connected from %v, want %v", got, probe.Addr)
	}
	if _, err := Connect(probe.Addr, l.Addr, 0); err != ErrTaken {
		t.Errorf("the same pair of addresses twice: %v", err)
	}
	if _, err := Connect(netip.MustParseAddrPort("192.0.2.1:5000"), l.Addr, 0); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("an address that is not ours: %v", err)
	}
}

func TestConnectDoesNotAllocate(t *testing.T) {
	l := mustListen(t, "127.0.0.1:0")
	from := netip.MustParseAddrPort("127.9.8.7:0")
	if n := testing.AllocsPerRun(50, func() {
		fd, err := Connect(from, l.Addr, 0)
		if err != nil {
			t.Fatal(err)
		}
		Reset(fd)
	}); n != 0 {
		t.Errorf("%v allocations for a connection", n)
	}
}

func TestConnectWithoutAListenerIsRefused(t *testing.T) {
	l := mustListen(t, "127.0.0.1:0")
	Close(l.FD)
	fd, err := Connect(netip.AddrPort{}, l.Addr, 0)
	if err == nil {
		defer Close(fd)
		waitFor(t, fd, Out)
		err = SocketError(fd)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("got %v, want ECONNREFUSED", err)
	}
}

func TestReadDistinguishesNothingYetFromTheEnd(t *testing.T) {
	a, b := socketPair(t)
	buf := make([]byte, 8)
	if n, err := Read(a, buf); n != 0 || err != nil {
		t.Errorf("nothing yet: %d, %v", n, err)
	}
	mustWrite(t, b, "hello")
	if n, err := Read(a, buf); string(buf[:n]) != "hello" || err != nil {
		t.Errorf("%q, %v", buf[:n], err)
	}
	ShutdownWrite(b)
	if n, err := Read(a, buf); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if _, err := Read(-1, buf); !errors.Is(err, unix.EBADF) {
		t.Errorf("no socket: %v", err)
	}
}

func TestWriteTakesWhatFits(t *testing.T) {
	a, b := socketPair(t)
	big := make([]byte, 8<<20)
	sent, err := Write(a, big)
	if err != nil || sent == 0 || sent == len(big) {
		t.Fatalf("first write: %d, %v", sent, err)
	}
	for {
		n, err := Write(a, big)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		sent += n
	}
	got := 0
	for {
		n, err := Read(b, big)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		got += n
	}
	if got != sent {
		t.Errorf("sent %d bytes, %d arrived", sent, got)
	}
	unix.Shutdown(b, unix.SHUT_RDWR)
	if _, err := Write(a, big); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write to a closed peer: %v, want EPIPE and no signal", err)
	}
}

// knocked is a listener, and a connection that waits to be accepted.
func knocked(t *testing.T) (Listener, net.Conn) {
	t.Helper()
	l := mustListen(t, "127.0.0.1:0")
	conn, err := net.Dial("tcp", l.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	waitFor(t, l.FD, In)
	return l, conn
}

func TestResetDropsWhatIsOnItsWay(t *testing.T) {
	l, conn := knocked(t)
	fd, _, err := Accept(l.FD)
	if err != nil {
		t.Fatal(err)
	}
	Reset(fd)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the peer sees %v, want ECONNRESET", err)
	}
}
