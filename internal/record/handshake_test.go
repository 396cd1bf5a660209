package record

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
)

// sizes are those of the messages of a conversation.
var sizes = []int{1, 100, MaxPlain - 1, MaxPlain, MaxPlain + 1, 50_000}

func echo(c *tls.Conn) error {
	_, err := io.Copy(c, c)
	return errors.Join(err, c.Close())
}

// converse sends messages of all sizes to a peer that echoes, and closes.
func converse(e *endpoint) error {
	for _, size := range sizes {
		message := bytes.Repeat([]byte{byte(size)}, size)
		sent := make(chan error, 1)
		sealed := e.layer.Seal(7, &e.state, nil, message[:size/3], nil, message[size/3:])
		if len(sealed) != SealedLen(size) && e.layer.keyLimit == keyLimit {
			return fmt.Errorf("%d bytes were sealed to %d, not %d", size, len(sealed), SealedLen(size))
		}
		go func() { _, err := e.conn.Write(sealed); sent <- err }()
		got := make([]byte, size)
		if _, err := io.ReadFull(e, got); err != nil {
			return err
		}
		if !bytes.Equal(got, message) {
			return fmt.Errorf("the echo of %d bytes differs", size)
		}
		if err := <-sent; err != nil {
			return err
		}
	}
	e.closeNotify()
	if _, err := e.Read(make([]byte, 1)); err != ErrClosed {
		return fmt.Errorf("the end: %v", err)
	}
	return nil
}

// meet lets e, on this package, and crypto/tls talk, and returns e's result.
func meet(t *testing.T, ours *Config, theirs *tls.Config, chunk int) Result {
	t.Helper()
	a, b := pair(t)
	defer b.Close()
	e := newEndpoint(a, chunk)
	defer e.close()
	peer := tls.Server(b, theirs)
	if !ours.client {
		peer = tls.Client(b, theirs)
	}
	echoed := make(chan error, 1)
	go func() { echoed <- echo(peer) }()
	result, err := e.handshake(ours)
	must(t, err)
	must(t, converse(e))
	must(t, <-echoed)
	return result
}

func TestCryptoTLSAsThePeer(t *testing.T) {
	for _, suite := range allSuites {
		for _, role := range []string{"server", "client"} {
			for _, mutual := range []bool{false, true} {
				for _, chunk := range []int{1, 1 << 16} {
					name := fmt.Sprintf("%s/%s/mutual=%v/%d", tls.CipherSuiteName(suite), role, mutual, chunk)
					t.Run(name, func(t *testing.T) {
						force(t, suite)
						server, client := configs(t)
						if mutual {
							server.ClientAuth = tls.RequireAndVerifyClientCert
						}
						ours, theirs := ServerConfig(server), client
						if role == "client" {
							ours, theirs = ClientConfig(client), server
						}
						for _, resumed := range []bool{false, true} {
							r := meet(t, ours, theirs, chunk)
							// With a client's certificate, tickets follow its last
							// flight, too late for our client. So may those in pieces.
							late := mutual && role == "client"
							if chunk == 1<<16 && r.Resumed != (resumed && !late) || r.Protocol != protocol || r.ServerName != "server.test" {
								t.Errorf("the result is %+v", r)
							}
							if known := r.Peer != nil; known != (mutual || role == "client") {
								t.Errorf("the peer's certificate is known: %v", known)
							}
							if r.State.Suite() != suite {
								t.Errorf("the suite is %#x", r.State.Suite())
							}
						}
					})
				}
			}
		}
	}
}

// A client whose key share does not suit is asked for another (RFC 8446 section
// 4.1.4).
func TestHelloRetryRequest(t *testing.T) {
	server, client := configs(t)
	server.CurvePreferences = []tls.CurveID{tls.CurveP384}
	meet(t, ServerConfig(server), client, 50)
	meet(t, ClientConfig(client), server, 50)
}

// What is chosen for a client keeps the tickets of the server, and the bytes of
// secrets go nowhere else.
func TestConfigForClient(t *testing.T) {
	server, client := configs(t)
	var log bytes.Buffer
	special := server.Clone()
	special.KeyLogWriter = &log
	server.KeyLogWriter = &log
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return special, nil }
	ours := ServerConfig(server)
	for _, resumed := range []bool{false, true, true} {
		if r := meet(t, ours, client, 1000); r.Resumed != resumed {
			t.Errorf("resumed: %v", r.Resumed)
		}
	}
	if log.Len() > 0 {
		t.Error("the key log was written")
	}
}

func TestSelfAsThePeer(t *testing.T) {
	server, client := configs(t)
	a, b := pair(t)
	s, c := newEndpoint(a, 5), newEndpoint(b, 3000)
	defer s.close()
	defer c.close()
	echoed := make(chan error, 1)
	go func() {
		_, err := s.handshake(ServerConfig(server))
		if err == nil {
			_, err = io.Copy(s, s)
		}
		s.closeNotify()
		echoed <- err
	}()
	_, err := c.handshake(ClientConfig(client))
	must(t, err)
	err = converse(c)
	if end := <-echoed; err != nil || end != ErrClosed {
		t.Errorf("the client ends with %v, the server with %v", err, end)
	}
}

func TestPeersThatAreRefused(t *testing.T) {
	server, good := configs(t)
	client := func(change func(*tls.Config)) func(net.Conn) error {
		return func(conn net.Conn) error {
			c := good.Clone()
			change(c)
			return tls.Client(conn, c).Handshake()
		}
	}
	say := func(text string) func(net.Conn) error {
		return func(conn net.Conn) error {
			io.WriteString(conn, text)
			answer, _ := io.ReadAll(conn)
			return errors.New(string(answer))
		}
	}
	for name, test := range map[string]struct {
		auth tls.ClientAuthType
		peer func(net.Conn) error
		want error
		text string // in our error
		told string // in the peer's
	}{
		"plain HTTP": {0, say("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ErrPlainHTTP, "plain HTTP", "HTTP/1.1 400"},
		"hangs up": {0, func(conn net.Conn) error {
			_, err := conn.Write([]byte{22, 3, 1, 2, 0, 1})
			return err
		}, ErrHungUp, "hung up", ""},
		"noise":          {0, say("\x00\x01\x02\x03\x04\x05"), ErrNotTLS, `"\x00\x01\x02\x03\x04"`, ""},
		"TLS 1.2":        {0, client(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), ErrVersion, "it offers TLS 1.2", "protocol version"},
		"HTTP/2":         {0, client(func(c *tls.Config) { c.NextProtos = []string{"h2"} }), ErrProtocol, `["h2"]`, "no application protocol"},
		"trusts nobody":  {0, client(func(c *tls.Config) { c.RootCAs = newAuthority(t).pool }), ErrRefused, "bad certificate", "unknown authority"},
		"no certificate": {tls.RequireAndVerifyClientCert, client(func(c *tls.Config) { c.Certificates = nil }), nil, "didn't provide a certificate", ""},
		"foreign certificate": {tls.RequireAndVerifyClientCert, client(func(c *tls.Config) {
			c.Certificates = nil
			foreign := newAuthority(t).issue(t, "client.test")
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &foreign, nil }
		}), ErrCertificate, "unknown authority", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := server.Clone()
			s.ClientAuth = test.auth
			a, b := pair(t)
			e := newEndpoint(a, 1000)
			told := make(chan error, 1)
			go func() { told <- test.peer(b); b.Close() }()
			_, err := e.handshake(ServerConfig(s))
			e.close()
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("the error is %v", err)
			}
			if err := <-told; test.told != "" && (err == nil || !strings.Contains(err.Error(), test.told)) {
				t.Errorf("the peer is told %v", err)
			}
		})
	}
}

func TestServersThatAreRefused(t *testing.T) {
	server, client := configs(t)
	for name, test := range map[string]struct {
		peer func(net.Conn) error
		want error
	}{
		"plain HTTP": {func(c net.Conn) error {
			c.Read(make([]byte, 4096))
			_, err := io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			return err
		}, ErrPlainHTTP},
		"TLS 1.2": {func(c net.Conn) error {
			s := server.Clone()
			s.MaxVersion = tls.VersionTLS12
			return tls.Server(c, s).Handshake()
		}, ErrRefused},
		"foreign certificate": {func(c net.Conn) error {
			s := server.Clone()
			s.Certificates = []tls.Certificate{newAuthority(t).issue(t, "server.test")}
			return tls.Server(c, s).Handshake()
		}, ErrCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			e := newEndpoint(a, 1000)
			ended := make(chan error, 1)
			go func() { ended <- test.peer(b); b.Close() }()
			if _, err := e.handshake(ClientConfig(client)); !errors.Is(err, test.want) {
				t.Errorf("the error is %v", err)
			}
			e.close()
			<-ended
		})
	}
}

// flow is a handshake of ours with itself, a step at a time: the client's and the
// server's, within a bubble of synctest.
type flow struct{ server, client *Handshake }

func newFlow(server, client *Config) flow {
	return flow{server.Start(func() {}), client.Start(func() {})}
}

// step carries at most n bytes to the server, and all that it answers to the
// client, and reports whether anything was carried.
func (f flow) step(toServer *[]byte, n int) bool {
	synctest.Wait()
	out, _ := f.client.Output()
	*toServer = append(*toServer, out...)
	n = min(n, len(*toServer))
	if n > 0 && f.server.Feed((*toServer)[:n]) != nil {
		return false
	}
	*toServer = (*toServer)[n:]
	synctest.Wait()
	back, _ := f.server.Output()
	if len(back) > 0 && f.client.Feed(back) != nil {
		return false
	}
	synctest.Wait()
	return n > 0 || len(back) > 0
}

// A bubble ends only if its goroutines do.
func TestStopLeavesNoGoroutine(t *testing.T) {
	server, client := configs(t)
	server.ClientAuth = tls.RequireAndVerifyClientCert
	s, c := ServerConfig(server), ClientConfig(client)
	whole := false
	for steps := 0; !whole; steps++ {
		synctest.Test(t, func(t *testing.T) {
			f := newFlow(s, c)
			var toServer []byte
			for range steps {
				whole = !f.step(&toServer, 97)
			}
			f.server.Stop()
			f.client.Stop()
			f.server.Stop()
			synctest.Wait()
			if _, err := f.server.Result(); err != ErrStopped {
				t.Errorf("the result of a stopped handshake: %v", err)
			}
			if err := f.server.Feed([]byte("x")); err != ErrStopped {
				t.Errorf("feeding a stopped handshake: %v", err)
			}
			if f.server.result.State != (State{}) || f.server.t.log != (keyLog{}) {
				t.Error("secrets are left")
			}
		})
	}
}

// What is fed behind the handshake comes back, wherever its bytes are cut.
func TestInputBehindTheHandshakeIsGivenBack(t *testing.T) {
	server, client := configs(t)
	s, c := ServerConfig(server), ClientConfig(client)
	for _, size := range []int{1, 50, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			f := newFlow(s, c)
			var toServer []byte
			for !f.client.t.ended {
				f.step(&toServer, 1<<20)
			}
			finished, _ := f.client.Output()
			toServer = append(toServer, finished...)
			r, err := f.client.Result()
			must(t, err)
			layer := NewLayer(1)
			toServer = layer.Seal(0, &r.State, toServer, []byte("early"))
			for len(toServer) > 0 {
				n := min(size, len(toServer))
				must(t, f.server.Feed(toServer[:n]))
				toServer = toServer[n:]
				synctest.Wait()
			}
			r, err = f.server.Result()
			must(t, err)
			plain, rest, _, err := layer.Open(1, &r.State, r.Rest)
			if string(plain) != "early" || len(rest) > 0 || err != nil {
				t.Errorf("behind the handshake: %q, %q, %v", plain, rest, err)
			}
		})
	}
}

func TestInputIsBounded(t *testing.T) {
	server, client := configs(t)
	var block chan struct{}
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { <-block; return nil, nil }
	for name, full := range map[string]func(*Handshake) bool{
		"who feeds more": func(h *Handshake) bool { return h.Feed([]byte{0}) == ErrFull },
		"who asks":       func(h *Handshake) bool { return h.Room() == 0 },
	} {
		synctest.Test(t, func(t *testing.T) {
			block = make(chan struct{})
			notified := 0
			s := ServerConfig(server).Start(func() { notified++ })
			c := ClientConfig(client).Start(func() {})
			synctest.Wait()
			hello, _ := c.Output()
			must(t, s.Feed(hello))
			synctest.Wait() // in the callback
			must(t, s.Feed(make([]byte, MaxInput)))
			if !full(s) {
				t.Errorf("%s: there is room for more than the most", name)
			}
			close(block)
			synctest.Wait()
			if notified == 0 {
				t.Errorf("%s is not told that there is room", name)
			}
			s.Stop()
			c.Stop()
		})
	}
}

func FuzzFeed(f *testing.F) {
	server, client := configs(f)
	s, c := ServerConfig(server), ClientConfig(client)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint8(3), true)
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 0}, uint8(1), true)
	f.Add([]byte{21, 3, 1, 0, 2, 2, 40}, uint8(7), false)
	f.Fuzz(func(t *testing.T, in []byte, chunk uint8, isServer bool) {
		synctest.Test(t, func(t *testing.T) {
			config := c
			if isServer {
				config = s
			}
			h := config.Start(func() {})
			defer h.Stop()
			for len(in) > 0 {
				n := min(int(chunk)+1, len(in))
				if err := h.Feed(in[:n]); err != nil && err != ErrFull {
					t.Fatal(err)
				}
				in = in[n:]
				synctest.Wait()
			}
			if r, err := h.Result(); err == nil {
				t.Errorf("noise made a connection: %+v", r)
			}
		})
	})
}

// crypto/tls follows our key updates, and answers those that ask.
func TestCryptoTLSUpdatesItsKeys(t *testing.T) {
	server, client := configs(t)
	for _, suite := range allSuites {
		force(t, suite)
		a, b := pair(t)
		e := newEndpoint(a, 1<<16)
		e.layer.keyLimit = 2
		echoed := make(chan error, 1)
		go func() { echoed <- echo(tls.Client(b, client)) }()
		r, err := e.handshake(ServerConfig(server))
		must(t, err)
		must(t, converse(e))
		must(t, <-echoed)
		if e.state.read.secret == r.State.read.secret || e.state.write.secret == r.State.write.secret {
			t.Error("the keys were not updated")
		}
		e.close()
	}
}
