package loadgen

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/record"
	"github.com/seed-134acfd0/lull/internal/selfsigned"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/wire"
)

// trusting trusts the tests' certificate.
func trusting() *tls.Config {
	_, pool := testkit.Certificate()
	return &tls.Config{RootCAs: pool}
}

// fakeTLS is fake with crypto/tls. config changes the server's configuration, and
// wrap its socket; both may be nil.
func fakeTLS(t *testing.T, config func(*tls.Config), wrap func(net.Conn) net.Conn, script func(*peer, *tls.Conn)) (url string) {
	t.Helper()
	certificate, _ := testkit.Certificate()
	c := &tls.Config{Certificates: []tls.Certificate{certificate}}
	if config != nil {
		config(c)
	}
	url = fake(t, func(p *peer) {
		socket := net.Conn(p.TCPConn)
		if wrap != nil {
			socket = wrap(socket)
		}
		secured := tls.Server(socket, c)
		if secured.Handshake() == nil {
			p.in, p.out = bufio.NewReader(secured), secured
			script(p, secured)
		}
	})
	return "wss" + strings.TrimPrefix(url, "ws")
}

// cutting writes a few bytes at a time, so that a reader gets records in pieces.
type cutting struct{ net.Conn }

func (c cutting) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = c.Conn.Write(p[n:min(n+7, len(p))])
		n += k
	}
	return n, err
}

// Records may come in pieces, and frames in pieces of records. At the end crypto/tls
// sees close_notify.
func TestRecordsMayComeInPieces(t *testing.T) {
	const conns = 3
	m := func(n uint32, size int) []byte {
		payload := make([]byte, size)
		wire.Message{Number: n, Kind: wire.Published}.Encode(payload)
		return whole(payload)
	}
	for _, size := range []int{16, 20_000} {
		for why, wrap := range map[string]func(net.Conn) net.Conn{
			"whole": nil, "in pieces": func(c net.Conn) net.Conn { return cutting{c} },
		} {
			t.Run(why, func(t *testing.T) {
				var pongs atomic.Int64
				url := fakeTLS(t, nil, wrap, func(p *peer, c *tls.Conn) {
					p.send([]byte(accept(p.request())))
					for _, b := range m(0, size)[:10] {
						p.send([]byte{b})
					}
					p.send(append(m(0, size)[10:], m(1, size)...))
					p.send(frame.Append(nil, frame.Ping, []byte("there?")))
					if op, payload, _ := p.next(); op != frame.Pong || string(payload) != "there?" {
						p.Errorf("%s %q", op, payload)
					}
					pongs.Add(1)
					p.rest()
					if n, err := c.Read(make([]byte, 1)); err != io.EOF {
						p.Errorf("at the end: %d bytes, %v, want close_notify", n, err)
					}
				})
				res := runUntil(t, Config{URLs: []string{url}, Conns: conns, Size: size, TLS: trusting(), Hold: time.Minute}, func(s *measure.Snapshot) bool {
					return received(s) == 2*conns && pongs.Load() == conns
				})
				if res.Open != conns || len(res.Errors) > 0 || res.Counts[measure.Missed.String()] > 0 {
					t.Errorf("%+v", res)
				}
			})
		}
	}
}

func TestTLSFailuresAreCounted(t *testing.T) {
	const conns = 3
	opens := func(p *peer, _ *tls.Conn) { p.open(); p.rest() }
	other, err := selfsigned.New(time.Now().Add(time.Hour), "other.test")
	if err != nil {
		t.Fatal(err)
	}
	expired, err := selfsigned.New(time.Now().Add(-time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	with := func(c tls.Certificate) func(*tls.Config) {
		return func(config *tls.Config) { config.Certificates = []tls.Certificate{c} }
	}
	mine, pool := testkit.Certificate()
	verifying := func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, pool }
	showing := func(c tls.Certificate) *tls.Config {
		config := trusting()
		config.Certificates = []tls.Certificate{c}
		return config
	}
	plain := func(script func(*peer)) string { return "wss" + strings.TrimPrefix(fake(t, script), "ws") }
	rows := []struct {
		why   string
		url   string
		trust *tls.Config
		want  measure.Counter
		error string
	}{
		{"a certificate of an authority", fakeTLS(t, nil, nil, opens), trusting(), measure.Connected, ""},
		{"any certificate, insecurely", fakeTLS(t, with(expired), nil, opens), &tls.Config{InsecureSkipVerify: true}, measure.Connected, ""},
		{"a certificate of nobody", fakeTLS(t, nil, nil, opens), nil, measure.Rejected, "the peer's certificate is not valid"},
		{"another's certificate", fakeTLS(t, with(other), nil, opens), &tls.Config{RootCAs: selfsigned.Pool(other)}, measure.Rejected, "the peer's certificate is not valid"},
		{"an expired certificate", fakeTLS(t, with(expired), nil, opens), &tls.Config{RootCAs: selfsigned.Pool(expired)}, measure.Rejected, "expired"},
		{"TLS 1.2 alone", fakeTLS(t, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, nil, opens), trusting(), measure.Rejected, "protocol version"},
		{"a server that wants certificates", fakeTLS(t, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, nil, opens), trusting(), measure.Rejected, "certificate required"},
		{"a server that verifies certificates", fakeTLS(t, verifying, nil, opens), showing(mine), measure.Connected, ""},
		{"a server that verifies certificates, and another's", fakeTLS(t, verifying, nil, opens), showing(other), measure.Rejected, "unknown certificate authority"},
		{"no TLS", plain(func(p *peer) { p.send([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); _, _ = io.Copy(io.Discard, p.in) }), trusting(), measure.Rejected, "plain HTTP"},
		{"the end at once", plain(func(*peer) {}), trusting(), measure.Reset, ""},
		{"the end in place of the handshake", plain(func(p *peer) { _, _ = p.in.ReadByte() }), trusting(), measure.Reset, ""},
		{"the end in place of an answer", fakeTLS(t, nil, nil, func(p *peer, c *tls.Conn) { p.request(); _ = c.CloseWrite(); _, _ = io.Copy(io.Discard, p.in) }), trusting(), measure.Reset, errEnded.Error()},
		{"a refusal", fakeTLS(t, nil, nil, func(p *peer, c *tls.Conn) { p.request(); p.send([]byte("HTTP/1.1 503 Busy\r\n\r\n")); p.rest() }), trusting(), measure.Rejected, "503"},
		{"a record of another key", fakeTLS(t, nil, nil, func(p *peer, c *tls.Conn) {
			p.request()
			_, _ = p.TCPConn.Write([]byte("\x17\x03\x03\x00\x20" + strings.Repeat("?", 32)))
			if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
				p.Errorf("the server is told %v", err)
			}
		}), trusting(), measure.Rejected, "does not open"},
	}
	for _, r := range rows {
		t.Run(r.why, func(t *testing.T) {
			res := mustRun(t, short(t), Config{URLs: []string{r.url}, Conns: conns, Workers: 1, TLS: r.trust})
			// A server that wants certificates may refuse before or after the request.
			expect(t, res, map[measure.Counter]int{r.want: conns})
			if r.want != measure.Connected {
				expectError(t, res, r.error, conns)
			}
		})
	}
}

// An open connection ends as a plain one does.
func TestOpenTLSConnectionsMayEnd(t *testing.T) {
	const conns = 3
	for _, r := range []struct {
		why   string
		end   func(p *peer, c *tls.Conn)
		want  measure.Counter
		error string
	}{
		{"close_notify", func(p *peer, c *tls.Conn) { _ = c.CloseWrite(); _, _ = io.Copy(io.Discard, p.in) }, measure.Dropped, errEnded.Error()},
		{"end of stream", func(p *peer, c *tls.Conn) {}, measure.Dropped, errEnded.Error()},
		{"reset", func(p *peer, c *tls.Conn) { p.reset() }, measure.Dropped, "reset"},
		{"bytes that are no record", func(p *peer, c *tls.Conn) {
			_, _ = p.TCPConn.Write([]byte("GET / HTTP/1.1\r\n"))
			_, _ = io.Copy(io.Discard, p.in)
		}, measure.Broken, "not encrypted"},
		{"a frame that is none", func(p *peer, c *tls.Conn) { p.send(bytes.Repeat([]byte{0xff}, 20)); _, _ = io.Copy(io.Discard, p.in) }, measure.Broken, ""},
	} {
		t.Run(r.why, func(t *testing.T) {
			url := fakeTLS(t, nil, nil, func(p *peer, c *tls.Conn) { p.open(); r.end(p, c) })
			res := runUntil(t, Config{URLs: []string{url}, Conns: conns, Workers: 1, TLS: trusting(), Hold: time.Minute}, func(s *measure.Snapshot) bool { return s.Failed() == conns })
			expect(t, res, map[measure.Counter]int{measure.Connected: conns, r.want: conns})
			expectError(t, res, r.error, conns)
		})
	}
}

// While a server answers no ClientHello, a worker begins inFlightTLS handshakes and
// no more.
func TestFewTLSHandshakesAreUnderWayAtATime(t *testing.T) {
	const conns = inFlightTLS + 50
	waiting, full := make(chan struct{}, conns), make(chan struct{})
	go func() {
		for range inFlightTLS {
			<-waiting
		}
		close(full)
	}()
	certificate, _ := testkit.Certificate()
	url := fakeTLS(t, func(c *tls.Config) {
		c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			waiting <- struct{}{}
			if n := len(waiting); n > inFlightTLS {
				t.Errorf("%d handshakes are under way", n)
			}
			<-full
			return &certificate, nil
		}
		c.Certificates = nil
	}, nil, func(p *peer, _ *tls.Conn) { p.open(); p.rest() })
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: conns, Workers: 1, TLS: trusting()})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns})
	if res.Counts[measure.Held.String()] == 0 {
		t.Error("no connection had to wait")
	}
}

func TestASilentTLSServerTimesOut(t *testing.T) {
	url := "wss" + strings.TrimPrefix(fake(t, func(p *peer) { _, _ = io.Copy(io.Discard, p.in) }), "ws")
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 5, ConnectTimeout: 50 * time.Millisecond})
	expect(t, res, map[measure.Counter]int{measure.TimedOut: 5})
}

// openssl asks for new keys, and is answered with them.
func TestKeyUpdatesAreAnswered(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	certificate, _ := testkit.Certificate()
	cert, key, err := selfsigned.Write(t.TempDir(), certificate)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "openssl", "s_server", "-msg", "-tls1_3", "-accept", "127.0.0.1:0", "-cert", cert, "-key", key, "-naccept", "1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	address := until(t, out, "ACCEPT ", "\n")
	var updated atomic.Bool
	talked := make(chan error, 1)
	go func() {
		key := strings.TrimSpace(until(t, out, "Sec-WebSocket-Key: ", "\r\n"))
		say := func(text string) { _, _ = io.WriteString(stdin, text) }
		// openssl takes the first byte of what it reads for a command, so it has to
		// read each piece alone.
		say(acceptKey(key) + "\x89\x00") // a Ping
		until(t, out, "\x8a\x80", "")
		for _, update := range []string{"k\n", "K\n", "K\n"} { // k updates the server's keys, K asks for the client's too
			say(update)
			until(t, out, "KeyUpdate", "\n")
			say("\x89\x00")
			until(t, out, "\x8a\x80", "")
		}
		updated.Store(true)
		until(t, out, "\x88\x82", "") // the Close frame
		say("\x88\x02\x03\xe8")
		_, _ = io.Copy(io.Discard, out)
		talked <- cmd.Wait()
	}()
	c := Config{URLs: []string{"wss://" + strings.TrimSpace(address) + "/"}, Conns: 1, TLS: trusting(), Hold: time.Minute}
	res := runUntil(t, c, func(*measure.Snapshot) bool { return updated.Load() })
	expect(t, res, map[measure.Counter]int{measure.Connected: 1})
	if err := <-talked; err != nil {
		t.Error(err)
	}
}

// until reads until a text, and returns what stands between it and the end that is
// given.
func until(t *testing.T, r *bufio.Reader, text, end string) string {
	read := func(text string) string {
		var b strings.Builder
		for !strings.HasSuffix(b.String(), text) {
			c, err := r.ReadByte()
			if err != nil {
				t.Errorf("no %q in %q", text, b.String())
				return b.String()
			}
			b.WriteByte(c)
		}
		return strings.TrimSuffix(b.String(), text)
	}
	read(text)
	return read(end)
}

func TestATLSConnectionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(client{}) + unsafe.Sizeof(record.State{}); size > 160 {
		t.Errorf("a TLS connection takes %d bytes", size)
	}
}
