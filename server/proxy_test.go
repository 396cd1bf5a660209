package server_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// proxyHead is what a proxy says about a client.
func proxyHead(version byte, client string) string {
	at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client))
	local := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:80"))
	var b bytes.Buffer
	_, err := proxyproto.HeaderProxyFromAddrs(version, at, local).WriteTo(&b)
	must(err)
	return b.String()
}

// seeing is an echo that tells which addresses its clients have.
func seeing() (server.Handler, <-chan netip.AddrPort) {
	seen := make(chan netip.AddrPort, 100)
	h := echo
	h.Upgrade = func(r *server.Request) error {
		seen <- r.RemoteAddr()
		return nil
	}
	return h, seen
}

// A proxy's head tells the client, in pieces or with the request behind it, and
// before TLS.
func TestProxiesTellTheClient(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		o.Trust, o.ProxyProtocol, o.MaxConnsPerAddress = []string{"127.0.0.0/8"}, true, 2
		for _, secured := range []bool{false, true} {
			var config *tls.Config
			if secured {
				config = secure(&o)
			}
			h, seen := seeing()
			s := start(t, h, o)
			for i, version := range []byte{1, 2, 1} {
				client := fmt.Sprintf("203.0.113.%d:4711", i)
				conn, err := net.Dial("tcp", s.address())
				must(err)
				must(conn.SetDeadline(time.Now().Add(patience)))
				head := proxyHead(version, client)
				switch i {
				case 0:
					_, err = (&trickling{conn}).Write([]byte(head))
				case 1:
					_, err = conn.Write([]byte(head))
				case 2:
					if secured {
						_, err = conn.Write([]byte(head))
					} else {
						_, err = conn.Write([]byte(head + request))
					}
				}
				must(err)
				if secured {
					conn = tls.Client(conn, config)
				}
				if i < 2 || secured {
					_, err = conn.Write([]byte(request))
					must(err)
				}
				readHead(t, conn)
				_, err = conn.Write([]byte(message(frame.Text, "hello")))
				must(err)
				readFull(t, conn, frame.Append(nil, frame.Text, []byte("hello")))
				if got := (<-seen).String(); got != client {
					t.Errorf("version %d: the client is %s, want %s", version, got, client)
				}
				conn.Close()
			}
			must(s.stop())
		}
	})
}

// A head that is missing or malformed ends the connection, and limits count
// clients, not their proxy.
func TestWhatProxiesMayNotSay(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		o.Trust, o.ProxyProtocol, o.MaxConnsPerAddress = []string{"127.0.0.1"}, true, 1
		h, _ := seeing()
		s := start(t, h, o)
		for _, wire := range []string{request, "PROXY TCP4 203.0.113.1 nonsense\r\n", "\r\n\r\n\x00\r\nQUIT\nnonsense", strings.Repeat("x", 5000)} {
			c := s.dial()
			c.writing(wire)
			c.expectCut()
		}
		if n := s.Stats().RefusedBy["proxy_head"]; n != 4 {
			t.Errorf("%d heads were refused", n)
		}
		first, second := s.dial(), s.dial()
		first.write(proxyHead(2, "203.0.113.1:1") + request)
		first.accepted()
		second.write(proxyHead(2, "203.0.113.2:1") + request)
		second.accepted()
		third := s.dial()
		third.write(proxyHead(1, "203.0.113.1:2") + request)
		if r, _ := third.response(); r.StatusCode != 429 {
			t.Errorf("the address's second connection was answered %s", r.Status)
		}

		o.Trust, o.MaxConnsPerAddress = []string{"192.0.2.0/24"}, 0 // so that nobody is a proxy
		s = start(t, h, o)
		forger := s.dial()
		forger.write(proxyHead(1, "203.0.113.1:1") + request)
		if r, _ := forger.response(); r.StatusCode != 400 {
			t.Errorf("a forged head was answered %s", r.Status)
		}
		s.open().echoed("without a head")
	})
}

// A header tells the client if a trusted proxy has sent it: the last that no
// trusted proxy has named.
func TestHeadersTellTheClient(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		o.ClientHeader, o.MaxConnsPerAddress = "X-Forwarded-For", 1
		for _, trust := range []string{"127.0.0.1", "192.0.2.0/24"} {
			o.Trust = []string{trust}
			h, seen := seeing()
			s := start(t, h, o)
			site := beside(t, s)
			for i, address := range []string{s.address(), site.Listener.Addr().String()} {
				head := with("X-Forwarded-For: 198.51.100.7, 203.0.113."+fmt.Sprint(i), "Cookie: a=b")
				if i == 1 {
					head = strings.Replace(head, "GET / ", "GET /ws/ ", 1)
				}
				c := dialTo(t, address)
				c.write(head)
				c.accepted()
				want := "203.0.113." + fmt.Sprint(i)
				if trust != "127.0.0.1" {
					want = "127.0.0.1"
				}
				if got := (<-seen).Addr().String(); got != want {
					t.Errorf("the client is %s, want %s", got, want)
				}
				if trust == "127.0.0.1" {
					again := dialTo(t, address)
					again.write(head)
					if r, _ := again.nextResponse(); r.StatusCode != 429 {
						t.Errorf("the address's second connection was answered %s", r.Status)
					}
				}
				c.leave()
				eventually(t, "it is left", func() bool { return s.Stats().Open == 0 })
			}
		}
	})
}

// A proxy's head may name a proxy whose requests name the client. The client is counted
// once, and no proxy is.
func TestAClientBehindTwoProxiesIsCountedOnce(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		o.Trust, o.ProxyProtocol, o.ClientHeader, o.MaxConnsPerAddress = []string{"127.0.0.1", "198.51.100.0/24"}, true, "X-Forwarded-For", 1
		h, seen := seeing()
		s := start(t, h, o)
		for range 3 {
			first := s.dial()
			first.write(proxyHead(2, "198.51.100.9:1") + with("X-Forwarded-For: 203.0.113.1"))
			first.accepted()
			second := s.dial()
			second.write(proxyHead(2, "198.51.100.9:2") + with("X-Forwarded-For: 203.0.113.2"))
			second.accepted()
			if a, b := (<-seen).Addr().String(), (<-seen).Addr().String(); a != "203.0.113.1" || b != "203.0.113.2" {
				t.Errorf("the clients are %s and %s", a, b)
			}
			first.leave()
			second.leave()
			eventually(t, "both are left", func() bool { return s.Stats().Sockets == 0 })
		}
	})
}

// Who comes by way of net/http comes without a PROXY head, so its peer is counted.
func TestAPeerOfNetHTTPIsCountedWhereProxiesSendHeads(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		o.Trust, o.ProxyProtocol, o.MaxConnsPerAddress = []string{"127.0.0.1"}, true, 1
		site := beside(t, start(t, echo, o))
		first, second := dialTo(t, site.Listener.Addr().String()), dialTo(t, site.Listener.Addr().String())
		first.write(besideRequest)
		first.accepted()
		second.write(besideRequest)
		if r, _ := second.nextResponse(); r.StatusCode != 429 {
			t.Errorf("the second was answered %s", r.Status)
		}
	})
}
