package server_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/server"
)

// secure makes o's connections wss://, and returns what a client needs.
func secure(o *server.Options) *tls.Config {
	certificate, pool := testkit.Certificate()
	o.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	return &tls.Config{RootCAs: pool, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(8)}
}

// wss is a client over crypto/tls.
func (r *running) wss(config *tls.Config) *tls.Conn {
	r.t.Helper()
	c, err := tls.Dial("tcp", r.address(), config)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	must(c.SetDeadline(time.Now().Add(patience)))
	return c
}

// wssOpen is a client over crypto/tls whose handshakes are over.
func (r *running) wssOpen(config *tls.Config) *tls.Conn {
	r.t.Helper()
	c := r.wss(config)
	_, err := io.WriteString(c, request)
	must(err)
	readHead(r.t, c)
	return c
}

// readFull reads exactly what is wanted.
func readFull(t testing.TB, c io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %.80q, %v, want %.80q", got[:n], err, want)
	}
}

// readHead reads a response that completes the opening handshake.
func readHead(t testing.TB, c io.Reader) {
	t.Helper()
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one[0]) {
		if _, err := io.ReadFull(c, one); err != nil {
			t.Fatalf("%v behind %q", err, head)
		}
	}
	if err := frame.CheckResponse(head, frame.SampleKey); err != nil {
		t.Fatal(err)
	}
}

// A client library notices nothing but the scheme, and comes back with a ticket.
func TestGorillaOverTLS(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		d := gorilla.Dialer{TLSClientConfig: secure(&o), Subprotocols: []string{"talk"}}
		h, told := talkative()
		upgrade := h.Upgrade
		h.Upgrade = func(r *server.Request) error {
			if info := r.TLS(); info == nil || info.ServerName != "localhost" || len(info.PeerCertificates) > 0 {
				t.Errorf("TLS says %+v", info)
			}
			return upgrade(r)
		}
		s := start(t, h, roomy(o))
		for range 2 {
			c, _, err := d.Dial("wss://"+s.address()+"/chat", nil)
			if err != nil {
				t.Fatal(err)
			}
			must(c.SetReadDeadline(time.Now().Add(patience)))
			for _, text := range texts {
				must(c.WriteMessage(gorilla.TextMessage, []byte(text)))
				if _, got, err := c.ReadMessage(); err != nil || string(got) != text {
					t.Fatalf("%.50q, %v, want %.50q", got, err, text)
				}
			}
			must(s.Broadcast(frame.Text, []byte("for all")))
			if _, got, err := c.ReadMessage(); err != nil || string(got) != "for all" {
				t.Fatalf("%q, %v", got, err)
			}
			must(c.WriteMessage(gorilla.CloseMessage, gorilla.FormatCloseMessage(1000, "bye")))
			if _, _, err := c.ReadMessage(); !gorilla.IsCloseError(err, 1000) {
				t.Errorf("closed with %v", err)
			}
			expectEnding(t, told, frame.NormalClosure, nil)
			c.Close()
		}
		s.counted("tls_handshakes", 2)
		s.counted("tls_resumed", 1)
		s.counted("tls_failed", 0)
		eventually(t, "connections are left", func() bool { return s.Stats().Open == 0 && s.Stats().Outbox == 0 && s.Stats().Partial == 0 })
	})
}

// The bytes of handshake, request and messages may come in any pieces, also all
// together.
func TestTLSInPieces(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		config := secure(&o)
		s := start(t, echo, o)
		plain, err := net.Dial("tcp", s.address())
		must(err)
		defer plain.Close()
		must(plain.SetDeadline(time.Now().Add(patience)))
		c := tls.Client(&trickling{plain}, config)
		_, err = io.WriteString(c, request+message(frame.Text, "hello")+message(frame.Text, strings.Repeat("x", 300)))
		must(err)
		readHead(t, c)
		readFull(t, c, frame.Append(frame.Append(nil, frame.Text, []byte("hello")), frame.Text, []byte(strings.Repeat("x", 300))))
	})
}

// trickling writes byte by byte.
type trickling struct{ net.Conn }

func (t *trickling) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := t.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// What a peer does not take for a while comes in order and whole, whatever the
// socket has cut records into.
func TestSlowPeersOverTLSGetTheirMessagesWhole(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		config := secure(&o)
		o.MaxOutbox, o.MaxOutboxMessages = 16<<20, 100_000
		s := start(t, echo, o)
		plain, err := testkit.DeafDialer().Dial("tcp", s.address())
		must(err)
		c := tls.Client(plain, config)
		defer c.Close()
		must(c.SetDeadline(time.Now().Add(patience)))
		_, err = io.WriteString(c, request)
		must(err)
		readHead(t, c)
		const n = 400
		var want []byte
		for i := range n {
			text := strings.Repeat(string(rune('a'+i%26)), 20_000) + fmt.Sprint(i)
			want = frame.Append(want, frame.Text, []byte(text))
			must(s.Broadcast(frame.Text, []byte(text)))
			if i%50 == 0 {
				eventually(t, "broadcasts stay on their way", func() bool { return s.Stats().Broadcast == 0 })
			}
		}
		readFull(t, c, want)
		eventually(t, "bytes are owed", func() bool { return s.Stats().Outbox == 0 })
	})
}

// Whoever does not speak TLS 1.3 is told, and harms nobody.
func TestBadTLS(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		config := secure(&o)
		s := start(t, echo, o)
		bystander := s.wssOpen(config)

		plain := s.dial()
		plain.write(request)
		if r, body := plain.response(); r.StatusCode != 400 || !strings.Contains(body, "TLS") {
			t.Errorf("a plain client got %s %q", r.Status, body)
		}
		s.log.one(t, "WARN TLS handshake failed", "plain HTTP")
		old := config.Clone()
		old.MaxVersion = tls.VersionTLS12
		if _, err := tls.Dial("tcp", s.address(), old); err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("a TLS 1.2 client got %v", err)
		}
		noise := s.dial()
		noise.write(strings.Repeat("noise", 1000))
		noise.expectEnd()
		s.counted("tls_failed", 3)

		broken := s.wssOpen(config)
		_, err := broken.NetConn().Write([]byte("\x17\x03\x03\x00\x20" + strings.Repeat("?", 32)))
		must(err)
		if _, err := broken.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
			t.Errorf("a broken record got %v", err)
		}
		s.counted("closed_tls", 1)

		_, err = io.WriteString(bystander, message(frame.Text, "still here"))
		must(err)
		readFull(t, bystander, frame.Append(nil, frame.Text, []byte("still here")))
	})
}

// A handshake that does not get on ends with its timeout.
func TestTLSHandshakesHaveADeadline(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		secure(&o)
		o.HandshakeTimeout = time.Second
		s := start(t, echo, o)
		silent, halfway := s.dial(), s.dial()
		halfway.write("\x16\x03\x01\x02\x00\x01\x00")
		silent.expectEnd()
		halfway.expectEnd()
		eventually(t, "sockets are left", func() bool { return s.Stats().Sockets == 0 })
	})
}

func TestClientCertificates(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		config := secure(&o)
		o.TLS.ClientAuth, o.TLS.ClientCAs = tls.RequireAndVerifyClientCert, config.RootCAs
		h := echo
		h.Upgrade = func(r *server.Request) error {
			if p := r.TLS().PeerCertificates; len(p) != 1 || p[0].DNSNames[0] != "localhost" {
				t.Errorf("the peer is %v", p)
			}
			return nil
		}
		s := start(t, h, o)
		without := s.wss(config)
		if _, err := without.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("a client without a certificate got %v", err)
		}
		certificate, _ := testkit.Certificate()
		config.Certificates = []tls.Certificate{certificate}
		s.wssOpen(config)
	})
}

// net/http serves requests over TLS too, and gives connections back.
func TestHTTPOverTLSOnTheServersOwnPort(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		config := secure(&o)
		o.HTTP = pages
		s := start(t, echo, o)
		site := http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: patience}
		for _, body := range []string{"", strings.Repeat("x", 200_000)} {
			r, err := site.Post("https://"+s.address()+"/api", "text/plain", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r.Body)
			if want := fmt.Sprintf("POST /api %d", len(body)); err != nil || string(got) != want {
				t.Errorf("answered %q, %v, want %q", got, err, want)
			}
			r.Body.Close()
		}
		s.counted("visits", 1)
		site.CloseIdleConnections()

		c := s.wss(config)
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		must(err)
		answer := make([]byte, 4096)
		n, err := c.Read(answer)
		if err != nil || !strings.Contains(string(answer[:n]), "GET / 0") {
			t.Errorf("answered %q, %v", answer[:n], err)
		}
		_, err = io.WriteString(c, request+message(frame.Text, "behind"))
		must(err)
		readHead(t, c)
		_, err = io.WriteString(c, message(frame.Text, "another"))
		must(err)
		readFull(t, c, slices.Concat(frame.Append(nil, frame.Text, []byte("behind")), frame.Append(nil, frame.Text, []byte("another"))))
	})
}

// The end of a server is announced over TLS as well.
func TestTheEndIsAnnouncedOverTLS(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		config := secure(&o)
		s := start(t, echo, o)
		c := s.wssOpen(config)
		stopped := make(chan error, 1)
		go func() { stopped <- s.stop() }()
		readFull(t, c, frame.AppendClose(nil, frame.GoingAway, "the server is shutting down"))
		_, err := c.Write([]byte(message(frame.Close, string(frame.AppendClosePayload(nil, frame.GoingAway, "")))))
		must(err)
		if _, err := c.Read(make([]byte, 1)); err != io.EOF { // with close_notify
			t.Errorf("ended with %v", err)
		}
		must(<-stopped)
	})
}
