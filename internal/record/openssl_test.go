package record

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// command starts openssl, which ends with the test.
func command(t *testing.T, args ...string) (io.WriteCloser, *bufio.Reader) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	c := exec.CommandContext(t.Context(), "openssl", args...)
	stdin, err := c.StdinPipe()
	must(t, err)
	r, w, err := os.Pipe()
	must(t, err)
	c.Stdout, c.Stderr = w, w
	must(t, c.Start())
	w.Close()
	t.Cleanup(func() { stdin.Close(); c.Process.Kill(); c.Wait(); r.Close() })
	return stdin, bufio.NewReader(r)
}

// until reads lines until one contains the text.
func until(t *testing.T, r *bufio.Reader, text string) string {
	t.Helper()
	var all strings.Builder
	for {
		line, err := r.ReadString('\n')
		all.WriteString(line)
		if strings.Contains(line, text) {
			return line
		}
		if err != nil {
			t.Fatalf("no %q in:\n%s", text, all.String())
		}
	}
}

// openssl as the client speaks each suite, updates keys, and closes; k updates
// its own, K asks for ours too.
func TestOpenSSLAsTheClient(t *testing.T) {
	server, _ := configs(t)
	for _, suite := range allSuites {
		t.Run(tls.CipherSuiteName(suite), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer l.Close()
			stdin, out := command(t, "s_client", "-tls1_3", "-connect", l.Addr().String(),
				"-ciphersuites", tls.CipherSuiteName(suite), "-alpn", protocol)
			conn, err := l.Accept()
			must(t, err)
			e := newEndpoint(conn, 1000)
			defer e.close()
			r, err := e.handshake(ServerConfig(server))
			must(t, err)
			if r.State.Suite() != suite || r.Protocol != protocol {
				t.Errorf("%+v", r)
			}
			before := r.State
			lines := bufio.NewReader(e)
			for _, update := range []string{"", "k\n", "K\n"} {
				io.WriteString(stdin, update)
				if update != "" {
					until(t, out, "KEYUPDATE")
				}
				io.WriteString(stdin, "hello\n")
				line, err := lines.ReadString('\n')
				if line != "hello\n" || err != nil {
					t.Fatalf("after %q: %q, %v", update, line, err)
				}
				fmt.Fprintf(e, "welcome after %q\n", update)
				until(t, out, fmt.Sprintf("welcome after %q", update))
			}
			if e.state.read.secret == before.read.secret || e.state.write.secret == before.write.secret {
				t.Error("the keys were not updated")
			}
			io.WriteString(stdin, "Q\n")
			if _, err := io.ReadAll(e); err != ErrClosed {
				t.Errorf("the end: %v", err)
			}
		})
	}
}

func TestOpenSSLAsTheServer(t *testing.T) {
	server, client := configs(t)
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(server.Certificates[0].PrivateKey)
	must(t, err)
	file := filepath.Join(dir, "server.pem")
	must(t, os.WriteFile(file, append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificates[0].Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), 0o600))
	for _, suite := range allSuites {
		t.Run(tls.CipherSuiteName(suite), func(t *testing.T) {
			_, out := command(t, "s_server", "-rev", "-tls1_3", "-accept", "127.0.0.1:0",
				"-cert", file, "-ciphersuites", tls.CipherSuiteName(suite))
			_, address, _ := strings.Cut(strings.TrimSpace(until(t, out, "ACCEPT ")), "ACCEPT ")
			conn, err := net.Dial("tcp", address)
			must(t, err)
			e := newEndpoint(conn, 1<<16)
			defer e.close()
			e.layer.keyLimit = 2
			r, err := e.handshake(ClientConfig(client))
			must(t, err)
			if r.State.Suite() != suite || r.Peer == nil {
				t.Errorf("%+v", r)
			}
			lines := bufio.NewReader(e)
			for i := range 5 {
				text := []byte(fmt.Sprintf("%d abc", i))
				must(t, second(e.Write(append(text, '\n'))))
				line, err := lines.ReadString('\n')
				must(t, err)
				if want := []byte(fmt.Sprintf("cba %d", i)); !bytes.Equal(bytes.TrimSpace([]byte(line)), want) {
					t.Fatalf("%q, not %q", line, want)
				}
			}
			if e.state.read.secret == r.State.read.secret || e.state.write.secret == r.State.write.secret {
				t.Error("the keys were not updated")
			}
		})
	}
}

func second(_ int, err error) error { return err }
