package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// watched starts a server. It returns the URL of its admin page, and a function that ends
// the server and returns its log.
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

func TestServeHasAnAdminPage(t *testing.T) {
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

// If other machines can reach the admin address, the log says so once.
func TestServeWarnsIfOthersReachTheAdminAddress(t *testing.T) {
	_, stop := watched(t, "0.0.0.0:0")
	if log := stop(); strings.Count(log, "WARN") != 1 || !strings.Contains(log, "no authentication") {
		t.Errorf("it logs %s", log)
	}
}

// An address that cannot be had says why, who has it, and what to do.
func TestAddressesThatCannotBeHadSayWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	mine := fmt.Sprintf("address already in use: port %s is in use by lull.test (process %d); end it, or choose another port with ", port, os.Getpid())
	for _, r := range []struct {
		listen, admin string
		says          []string
	}{
		{address, "", []string{mine + "--listen; port 0"}},
		{"127.0.0.1:0", address, []string{mine + "--admin; port 0", "--admin= turns the admin page off"}},
		{"192.0.2.1:0", "", []string{"cannot assign requested address: this machine has no such address", "--listen=0.0.0.0:PORT"}},
	} {
		_, errs, code := run(t, "serve", "--listen", r.listen, "--admin", r.admin)
		for _, says := range r.says {
			if code != exitFailed || !strings.Contains(errs, says) {
				t.Errorf("%s, %s: exit %d, %s lacks %s", r.listen, r.admin, code, errs, says)
			}
		}
	}
}

func TestPrivilegedPortsSayHowToGetThem(t *testing.T) {
	first, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil || strings.TrimSpace(string(first)) == "0" {
		t.Skip("everybody may have all ports here")
	}
	cmd := asNobody(exec.Command(program, "serve", "--listen", "127.0.0.1:1", "--admin="))
	_, errs, code := runCommand(t, cmd)
	for _, says := range []string{"permission denied: ports below ", "setcap cap_net_bind_service=+ep " + program, "net.ipv4.ip_unprivileged_port_start=1;"} {
		if code != exitFailed || !strings.Contains(errs, says) {
			t.Errorf("exit %d, %s lacks %s", code, errs, says)
		}
	}
}
