package conformance

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/internal/selfsigned"
	"github.com/seed-134acfd0/lull/internal/testkit"
)

// maxMessage is the servers' --max-message.
const maxMessage = 256 << 10

// server is a running lull serve.
type server struct {
	name     string
	address  string
	tls      *tls.Config // of its clients; nil without TLS
	compress bool
	ways     []*delivery // in which it is sent everything
}

// servers are those that every case meets.
var servers []*server

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "lull")
		must(err)
		defer os.RemoveAll(dir)
		program := filepath.Join(dir, "lull")
		build := exec.Command("go", "build", "-o", program, "..")
		if race {
			build.Args = append(build.Args[:2:2], "-race", "-o", program, "..")
		}
		if out, err := build.CombinedOutput(); err != nil {
			panic(string(out))
		}
		own, pool := testkit.Certificate()
		cert, key, err := selfsigned.Write(dir, own)
		must(err)
		secure := &tls.Config{
			RootCAs: pool, ServerName: "localhost",
			// Thousands of handshakes had better be cheap.
			ClientSessionCache: tls.NewLRUClientSessionCache(0), CurvePreferences: []tls.CurveID{tls.X25519},
		}
		for _, s := range []*server{
			{name: "ws", ways: []*delivery{whole, early, single, odd}},
			{name: "ws, compress", ways: []*delivery{odd}, compress: true},
			{name: "wss", ways: []*delivery{early, odd}, tls: secure},
			{name: "wss, compress", ways: []*delivery{whole, early}, tls: secure, compress: true},
		} {
			var flags []string
			if s.tls != nil {
				flags = append(flags, "--tls-cert", cert, "--tls-key", key)
			}
			if s.compress {
				flags = append(flags, "--compress")
			}
			defer s.start(program, flags)()
			servers = append(servers, s)
		}
		return m.Run()
	}())
}

// start starts the program, and returns a function that ends it. Whatever it says
// about itself (a data race, a panic) fails the tests by the status it ends with.
func (s *server) start(program string, flags []string) (stop func()) {
	cmd := exec.Command(program, append([]string{"serve", "--mode", "echo", "--listen", "127.0.0.1:0", "--admin=", "--status", "0",
		"--max-message", "262144", "--max-outbox", "8388608", "--grace", "0"}, flags...)...)
	out, err := cmd.StdoutPipe()
	must(err)
	var log bytes.Buffer
	cmd.Stderr = &log
	must(cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		panic(log.String())
	}
	s.address = strings.Fields(line)[2]
	return func() {
		must(cmd.Process.Signal(os.Interrupt))
		if err := cmd.Wait(); err != nil {
			panic(s.name + ": " + err.Error() + "\n" + log.String())
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
