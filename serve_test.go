package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// watched starts a server and returns the URL that it gives its admin address,
// and a function that ends it and returns what it has logged.
func watched(t *testing.T, admin string, args ...string) (url string, stop func() string) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", admin, "--status", "0s"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "admin on ")
	if err != nil || !ok {
		t.Fatalf("%q, %v", line, err)
	}
	return url, func() string {
		t.Helper()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v\n%s", err, &log)
		}
		return log.String()
	}
}

func TestServeShowsItself(t *testing.T) {
	url, stop := watched(t, "127.0.0.1:0")
	for path, says := range map[string]string{
		"": "<title>lull</title>", "metrics": `lull_connections{state="open"} 0`, "healthz": "ok", "readyz": "ready", "api/status": `"open":0`,
	} {
		r, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusOK || !strings.Contains(string(body), says) {
			t.Errorf("%s%s: %s, %v, %.200s", url, path, r.Status, err, body)
		}
	}
	if log := stop(); log != "" {
		t.Errorf("it logs %s", log)
	}
}

func TestServeServesProfilesIfAsked(t *testing.T) {
	for want, args := range map[int][]string{http.StatusNotFound: nil, http.StatusOK: {"--pprof"}} {
		url, stop := watched(t, "127.0.0.1:0", args...)
		r, err := http.Get(url + "debug/pprof/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != want {
			t.Errorf("%v: %s, want %d", args, r.Status, want)
		}
		stop()
	}
}

// The admin address is for this machine. If it is not, that is said, once.
func TestServeWarnsIfOthersReachTheAdminAddress(t *testing.T) {
	_, stop := watched(t, "0.0.0.0:0")
	if log := stop(); strings.Count(log, "WARN") != 1 || !strings.Contains(log, "no authentication") {
		t.Errorf("it logs %s", log)
	}
}

func TestAnAdminAddressThatCannotBeSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for admin, says := range map[string]string{
		taken.Addr().String(): "address already in use: is another lull running? Choose another address with --admin",
	} {
		if _, errs, code := run(t, "serve", "--listen", "127.0.0.1:0", "--admin", admin); code != exitFailed || !strings.Contains(errs, says) {
			t.Errorf("exit %d, %s", code, errs)
		}
	}
}
