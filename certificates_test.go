package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-134acfd0/lull/internal/selfsigned"
	"github.com/seed-134acfd0/lull/internal/testkit"
)

// made is a certificate and its files.
type made struct {
	tls.Certificate
	cert, key string
}

func (m made) flags() []string { return []string{"--tls-cert", m.cert, "--tls-key", m.key} }

// trust is a client's configuration.
func (m made) trust(name string) *tls.Config {
	return &tls.Config{RootCAs: selfsigned.Pool(m.Certificate), ServerName: name}
}

// certify makes a certificate in a directory of its own.
func certify(t *testing.T, until time.Duration, names ...string) made {
	t.Helper()
	c, err := selfsigned.New(time.Now().Add(until), names...)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := selfsigned.Write(t.TempDir(), c)
	if err != nil {
		t.Fatal(err)
	}
	return made{c, cert, key}
}

// replace puts another certificate in m's files.
func (m made) replace(t *testing.T, by made) {
	t.Helper()
	if _, _, err := selfsigned.Write(filepath.Dir(m.cert), by.Certificate); err != nil {
		t.Fatal(err)
	}
}

// secured is a server, and what it has logged.
type secured struct {
	*testing.T
	cmd  *exec.Cmd
	addr string
	log  testkit.Log
}

// logged counts the lines that contain a text.
func (s *secured) logged(text string) int { return strings.Count(s.log.String(), text) }

func serveTLS(t *testing.T, args ...string) *secured {
	t.Helper()
	s := &secured{T: t, cmd: exec.Command(program, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin=", "--mode", "echo", "--status", "0s"}, args...)...)}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v\n%s", err, &s.log)
		}
	})
	line, _ := bufio.NewReader(out).ReadString('\n')
	if _, err := fmt.Sscanf(line, "listening on %s (echo, TLS, ", &s.addr); err != nil {
		t.Fatalf("%q, %v, %s", line, err, &s.log)
	}
	return s
}

// dial opens a connection over crypto/tls.
func (s *secured) dial(config *tls.Config) (net.Conn, error) {
	c, _, _, err := ws.Dialer{TLSConfig: config, Timeout: testkit.Patience}.Dial(context.Background(), "wss://"+s.addr+"/")
	if err == nil {
		s.Cleanup(func() { c.Close() })
	}
	return c, err
}

// talk checks that a message comes back.
func (s *secured) talk(c net.Conn) {
	s.Helper()
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	if err := wsutil.WriteClientText(c, []byte("hello")); err != nil {
		s.Fatal(err)
	}
	if got, err := wsutil.ReadServerText(c); err != nil || string(got) != "hello" {
		s.Fatalf("%q, %v", got, err)
	}
}

// serves reports whether a new client that trusts m alone gets in by a name.
func (s *secured) serves(m made, name string) bool {
	c, err := s.dial(m.trust(name))
	if err != nil {
		return false
	}
	s.talk(c)
	return true
}

func TestTheCertificateIsTheOneForTheName(t *testing.T) {
	chat, shop := certify(t, time.Hour, "chat.test"), certify(t, time.Hour, "shop.test", "127.0.0.1")
	s := serveTLS(t, append(chat.flags(), shop.flags()...)...)
	for _, r := range []struct {
		certificate made
		name        string
		want        bool
	}{
		{chat, "chat.test", true}, {shop, "shop.test", true}, {shop, "127.0.0.1", false}, // no name is sent for an address
		{chat, "shop.test", false}, {shop, "chat.test", false},
	} {
		if got := s.serves(r.certificate, r.name); got != r.want {
			t.Errorf("%s, trusting %v: %v", r.name, r.certificate.Leaf.DNSNames, got)
		}
	}
}

// Files are read again when they change, and on SIGHUP. Open connections stay, and so
// does the old certificate if the new files are bad.
func TestCertificatesAreReadAgain(t *testing.T) {
	first, second, third := certify(t, time.Hour, "localhost"), certify(t, time.Hour, "localhost"), certify(t, time.Hour, "localhost")
	files := certify(t, time.Hour, "localhost")
	files.replace(t, first)
	s := serveTLS(t, files.flags()...)
	old, err := s.dial(first.trust("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	files.replace(t, second)
	testkit.Eventually(t, "the changed files are in force", func() bool { return s.serves(second, "localhost") })

	if err := os.WriteFile(files.key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	const stay = "those from before stay"
	testkit.Eventually(t, "the bad key is logged", func() bool { return s.logged(stay) == 1 })
	if !s.serves(second, "localhost") {
		t.Error("the certificate from before did not stay")
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "SIGHUP is logged", func() bool { return s.logged(stay) == 2 })

	// The times are as they were, so nobody but SIGHUP tells.
	files.replace(t, third)
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	testkit.Eventually(t, "SIGHUP has put the files in force", func() bool { return s.serves(third, "localhost") })
	s.talk(old)
}

func TestClientsMustHaveACertificateIfAsked(t *testing.T) {
	own, client := certify(t, time.Hour, "localhost"), certify(t, time.Hour, "client.test")
	s := serveTLS(t, append(own.flags(), "--tls-client-ca", client.cert)...)
	if s.serves(own, "localhost") {
		t.Error("a client without a certificate got in")
	}
	for _, r := range []struct {
		certificate made
		want        bool
	}{{client, true}, {own, false}} {
		config := own.trust("localhost")
		config.Certificates = []tls.Certificate{r.certificate.Certificate}
		c, err := s.dial(config)
		if (err == nil) != r.want {
			t.Errorf("%v: %v", r.certificate.Leaf.DNSNames, err)
		}
		if err == nil {
			s.talk(c)
		}
	}
}

// A ticket of one server is good at another that has its key, a first or a later one,
// and at no other.
func TestTicketsOutliveTheirServer(t *testing.T) {
	own := certify(t, time.Hour, "localhost")
	keys := func(lines ...string) []string {
		path := filepath.Join(t.TempDir(), "tickets")
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return append(own.flags(), "--tls-ticket-keys", path)
	}
	a, b := strings.Repeat("0a", 32), strings.Repeat("B1", 32)
	first := serveTLS(t, keys(a)...)
	for why, r := range map[string]struct {
		args []string
		want bool
	}{
		"the same key":     {keys(a), true},
		"the key before":   {keys(b, a), true},
		"another key":      {keys(b), false},
		"a key of its own": {own.flags(), false},
	} {
		config := own.trust("localhost")
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i, s := range []*secured{first, first, serveTLS(t, r.args...)} {
			c, err := s.dial(config)
			if err != nil {
				t.Fatal(err)
			}
			s.talk(c)
			if got, want := c.(*tls.Conn).ConnectionState().DidResume, i == 1 || i == 2 && r.want; got != want {
				t.Errorf("%s: handshake %d was resumed: %v", why, i, got)
			}
		}
	}
}

func TestBadCertificatesAreErrorsAtTheStart(t *testing.T) {
	one, other := certify(t, time.Hour, "localhost"), certify(t, time.Hour, "localhost")
	none := filepath.Join(t.TempDir(), "none.pem")
	for _, r := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--tls-cert", none, "--tls-key", one.key}, exitFailed, "--tls-cert=" + none},
		{[]string{"--tls-cert", one.cert, "--tls-key", none}, exitFailed, "no such file"},
		{[]string{"--tls-cert", one.cert, "--tls-key", other.key}, exitFailed, "private key does not match"},
		{[]string{"--tls-cert", one.key, "--tls-key", one.key}, exitFailed, "--tls-cert=" + one.key},
		{append(one.flags(), "--tls-client-ca", none), exitFailed, "--tls-client-ca=" + none},
		{append(one.flags(), "--tls-client-ca", one.key), exitFailed, "it has no certificate in PEM"},
		{[]string{"--tls-cert", one.cert}, exitUsage, "a key for each certificate"},
		{append(one.flags(), "--tls-key", other.key), exitUsage, "not 1 and 2"},
		{[]string{"--tls-client-ca", one.cert}, exitUsage, "--tls-client-ca: needs"},
		{append(one.flags(), "--tls-ticket-keys", none), exitFailed, "--tls-ticket-keys=" + none},
		{append(one.flags(), "--tls-ticket-keys", one.key), exitFailed, "line 1 must have 64 hexadecimal digits"},
		{[]string{"--tls-ticket-keys", one.key}, exitUsage, "--tls-ticket-keys: needs"},
	} {
		_, errs, code := run(t, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin="}, r.args...)...)
		if code != r.code || !strings.Contains(errs, r.says) {
			t.Errorf("%q: exit %d, %s lacks %q", r.args, code, errs, r.says)
		}
	}
	expired := certify(t, -time.Hour, "localhost")
	if s := serveTLS(t, expired.flags()...); s.logged("a certificate has expired") != 1 {
		t.Error("an expired certificate is not warned of")
	}
}

func TestLoadOverTLS(t *testing.T) {
	own := certify(t, time.Hour, "127.0.0.1")
	s := serveTLS(t, own.flags()...)
	load := []string{"load", "--url", "wss://" + s.addr + "/", "--conns", "200", "--active", "10", "--echo", "100ms"}
	for _, r := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--ca", own.cert}, 0, "200 of 200 open"},
		{[]string{"--insecure", "--resume", "--workers", "1"}, 0, "resumed"}, // more than one worker opens at a time
		{nil, exitFailed, "the peer's certificate is not valid"},
		{[]string{"--ca", own.key}, exitFailed, "it has no certificate in PEM"},
		{[]string{"--ca", own.cert, "--insecure"}, exitUsage, "--ca and --insecure"},
		{[]string{"--floor"}, exitUsage, "--floor"},
		{[]string{"--ca", own.cert, "--tls-cert", own.cert}, exitUsage, "must be used together"},
		{[]string{"--ca", own.cert, "--tls-cert", own.cert, "--tls-key", own.cert}, exitFailed, "--tls-cert and --tls-key"},
		{[]string{"--ca", own.cert, "--tls-cert", own.cert, "--tls-key", own.key}, 0, "200 of 200 open"},
	} {
		out, errs, code := run(t, append(load, r.args...)...)
		if code != r.code || !strings.Contains(out+errs, r.says) {
			t.Errorf("%q: exit %d, %s %s lacks %q", r.args, code, out, errs, r.says)
		}
	}
}
