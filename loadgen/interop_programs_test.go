//go:build interop

package loadgen_test

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/internal/selfsigned"
	"github.com/seed-134acfd0/lull/internal/testkit"
)

func interopFile(name string) string { return filepath.Join("testdata", "interop", name) }

// interopProgram starts a program, which ends with the test. A shell watches over it: when
// the shell's standard input ends, at the latest with this process, it ends the program.
// The output ends with the program.
func interopProgram(t *testing.T, cmd *exec.Cmd) (output *bufio.Reader) {
	t.Helper()
	if _, err := exec.LookPath(cmd.Path); err != nil {
		t.Fatalf("a server is missing: %v; server/testdata/interop/install, run as root, installs it", err)
	}
	const watch = `"$@" & exec >&-; read -r _; kill $!; wait`
	shell := exec.Command("sh", append([]string{"-c", watch, "sh"}, cmd.Args...)...)
	shell.Env, shell.ExtraFiles = cmd.Env, cmd.ExtraFiles
	var stderr bytes.Buffer
	shell.Stderr = &stderr
	stdin, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = shell.Wait()
		if t.Failed() {
			t.Logf("%s printed:\n%s", cmd.Path, stderr.String())
		}
	})
	return bufio.NewReader(stdout)
}

// interopPort is the address of a program that prints its port.
func interopPort(t *testing.T, cmd *exec.Cmd) (addr string) {
	t.Helper()
	port, err := interopProgram(t, cmd).ReadString('\n')
	if err != nil {
		t.Fatalf("%s printed no port: %v", cmd.Path, err)
	}
	return "127.0.0.1:" + strings.TrimSpace(port)
}

// interopNode starts a script that needs Node's ws, which install has put into a folder.
func interopNode(t *testing.T, script string, args ...string) (addr string) {
	t.Helper()
	dir := os.Getenv("LULL_INTEROP_DIR")
	if dir == "" {
		dir = "/var/cache/lull-interop"
	}
	cmd := exec.Command("node", append([]string{interopFile(script)}, args...)...)
	cmd.Env = append(os.Environ(), "LULL_INTEROP_DIR="+dir)
	return interopPort(t, cmd)
}

// interopPython starts Debian's Python, which has Debian's websockets.
func interopPython(t *testing.T) (addr string) {
	return interopPort(t, exec.Command("/usr/bin/python3", interopFile("server.py")))
}

// interopKeys are files with the certificate that loads trust, and its key.
func interopKeys(t *testing.T) (folder, cert, key string) {
	t.Helper()
	certificate, _ := testkit.Certificate()
	folder = t.TempDir()
	cert, key, err := selfsigned.Write(folder, certificate)
	if err != nil {
		t.Fatal(err)
	}
	return folder, cert, key
}

// interopNginx starts nginx in front of a server. It listens on sockets that it is given,
// as when it replaces itself, so that it needs no port that is known to be free.
func interopNginx(t *testing.T, backend string) (secure, impatient string) {
	t.Helper()
	config, err := os.ReadFile(interopFile("nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	folder, _, _ := interopKeys(t)
	cmd := exec.Command("nginx", "-c", filepath.Join(folder, "nginx.conf"), "-e", "stderr")
	cmd.Env = append(os.Environ(), "NGINX=3;4;")
	var addrs [2]string
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
		addrs[i] = l.Addr().String()
	}
	text := strings.NewReplacer("127.0.0.1:8443", addrs[0], "127.0.0.1:8080", addrs[1], "127.0.0.1:8081", backend, "FOLDER", folder).Replace(string(config))
	if err := os.WriteFile(filepath.Join(folder, "nginx.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	interopProgram(t, cmd)
	return "wss://" + addrs[0] + "/", "ws://" + addrs[1] + "/"
}
