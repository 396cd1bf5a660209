package record

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
	_ "unsafe" // for linkname
)

// crypto/tls has no setting for the suites of TLS 1.3, but lets others see them.
//
//go:linkname suitesOfTLS13 crypto/tls.defaultCipherSuitesTLS13
var suitesOfTLS13 []uint16

//go:linkname suitesOfTLS13NoAES crypto/tls.defaultCipherSuitesTLS13NoAES
var suitesOfTLS13NoAES []uint16

var allSuites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}

// force makes crypto/tls use one suite until the test ends.
func force(t testing.TB, suite uint16) {
	a, b := suitesOfTLS13, suitesOfTLS13NoAES
	suitesOfTLS13, suitesOfTLS13NoAES = []uint16{suite}, []uint16{suite}
	t.Cleanup(func() { suitesOfTLS13, suitesOfTLS13NoAES = a, b })
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

func (a *authority) issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotAfter:    time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// configs are a server's and a client's that trust one another.
func configs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	a := newAuthority(t)
	server = &tls.Config{
		Certificates: []tls.Certificate{a.issue(t, "server.test")},
		ClientCAs:    a.pool,
		NextProtos:   protocols,
	}
	client = &tls.Config{
		Certificates:       []tls.Certificate{a.issue(t, "client.test")},
		RootCAs:            a.pool,
		ServerName:         "server.test",
		NextProtos:         protocols,
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
	return server, client
}

// pair are the two ends of a connection that holds what nobody reads.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	a, err = net.Dial("tcp", l.Addr().String())
	must(t, err)
	b, err = l.Accept()
	must(t, err)
	return a, b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// endpoint is a connection on this package: what a reactor is in miniature.
type endpoint struct {
	conn  net.Conn
	input chan []byte // what conn brought, in chunks
	layer *Layer
	state State
	rest  []byte // behind what was opened
	plain []byte // opened, and not read
	err   error
}

// newEndpoint reads conn until it fails, in chunks of at most so many bytes as
// long as the handshake may last.
func newEndpoint(conn net.Conn, chunk int) *endpoint {
	e := &endpoint{conn: conn, input: make(chan []byte, 1<<14), layer: NewLayer(2)}
	go func() {
		defer close(e.input)
		for total := 0; ; {
			if total > 8<<10 {
				chunk = 1 << 16
			}
			p := make([]byte, chunk)
			n, err := conn.Read(p)
			if err != nil {
				return
			}
			e.input <- p[:n]
			total += n
		}
	}()
	return e
}

// close ends the connection and waits for its reader.
func (e *endpoint) close() {
	e.conn.Close()
	for range e.input {
	}
}

// handshake runs a handshake over the connection.
func (e *endpoint) handshake(c *Config) (Result, error) {
	notified := make(chan struct{}, 1)
	h := c.Start(func() {
		select {
		case notified <- struct{}{}:
		default:
		}
	})
	defer h.Stop()
	input := e.input
	for {
		select {
		case p, open := <-input:
			if !open {
				input = nil
				h.FeedEOF()
			} else if err := h.Feed(p); err != nil {
				return Result{}, err
			}
		case <-notified:
		}
		out, ended := h.Output()
		if len(out) > 0 {
			if _, err := e.conn.Write(out); err != nil {
				return Result{}, err
			}
		}
		if !ended {
			continue
		}
		r, err := h.Result()
		e.state, e.rest = r.State, r.Rest
		return r, err
	}
}

// Read is an io.Reader of the plain bytes.
func (e *endpoint) Read(p []byte) (int, error) {
	for len(e.plain) == 0 {
		if e.err != nil {
			return 0, e.err
		}
		e.open()
		if len(e.plain) > 0 || e.err != nil {
			continue
		}
		in, open := <-e.input
		if !open {
			return 0, io.ErrUnexpectedEOF
		}
		e.rest = append(e.rest, in...)
	}
	n := copy(p, e.plain)
	e.plain = e.plain[n:]
	return n, nil
}

func (e *endpoint) open() {
	plain, rest, reply, err := e.layer.Open(7, &e.state, e.rest)
	e.plain, e.rest, e.err = plain, rest, err
	if len(reply) > 0 {
		e.conn.Write(reply)
	}
}

func (e *endpoint) Write(p []byte) (int, error) {
	_, err := e.conn.Write(e.layer.Seal(7, &e.state, nil, p))
	return len(p), err
}

func (e *endpoint) closeNotify() { e.conn.Write(e.layer.CloseNotify(7, &e.state, nil)) }
