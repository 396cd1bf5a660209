package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// watched starts a server. It returns the URL of its admin page, and a function that ends
// the server and returns its log.
func watched(t *testing.T, admin string, args ...string) (url string, stop func() string) {
	t.Helper()
	url, process, wait := launched(t, "admin on ", append([]string{"--admin", admin, "--status", "0s"}, args...)...)
	return url, func() string {
		t.Helper()
		_ = process.Signal(syscall.SIGTERM)
		return wait()
	}
}

// answered is the status that a request with an authorization, empty for none, is answered with.
func answered(t *testing.T, method, url, body, authorization string) int {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
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

// An address that other machines can reach needs a token, or a flag, and then the log
// warns once.
func TestServeRefusesToShowItselfToOthersWithoutAToken(t *testing.T) {
	_, errs, code := run(t, "serve", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0")
	if code != exitFailed || !strings.Contains(errs, "--admin=0.0.0.0:0: other machines can reach this address") || !strings.Contains(errs, "--admin-token-file") {
		t.Errorf("exit %d, %s", code, errs)
	}
	_, stop := watched(t, "0.0.0.0:0", "--admin-without-token")
	if log := stop(); strings.Count(log, "WARN") != 1 || !strings.Contains(log, "no authentication") {
		t.Errorf("it logs %s", log)
	}
}

// With a token others may reach the address, and it asks for the token.
func TestServeAsksForTheToken(t *testing.T) {
	const secret = "0123456789abcdef"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url, stop := watched(t, "0.0.0.0:0", "--admin-token-file", file)
	url = strings.Replace(url, "[::]", "127.0.0.1", 1)
	for authorization, want := range map[string]int{"": 401, "Bearer " + secret: 200} {
		if got := answered(t, "GET", url+"metrics", "", authorization); got != want {
			t.Errorf("%q: %d, want %d", authorization, got, want)
		}
	}
	if log := stop(); log != "" {
		t.Errorf("it logs %s", log)
	}
	for _, bad := range []string{"", "short", "with spaces in between"} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errs, code := run(t, "serve", "--listen", "127.0.0.1:0", "--admin-token-file", file); code != exitFailed || !strings.Contains(errs, "--admin-token-file="+file) {
			t.Errorf("%q: exit %d, %s", bad, code, errs)
		}
	}
}

// The admin page may be on a unix socket that only its owner may open, also where a
// server has left one behind.
func TestTheAdminPageOnAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	for mode, args := range map[os.FileMode][]string{0o600: nil, 0o660: {"--admin-socket-mode=0660"}} {
		_, stop := watched(t, "unix:"+path, args...)
		info, err := os.Lstat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%v, %v, want %v", info.Mode(), err, mode)
		}
		client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
		r, err := client.Get("http://localhost/readyz")
		if err != nil {
			t.Fatal(err)
		}
		if r.Body.Close(); r.StatusCode != http.StatusOK {
			t.Error(r.Status)
		}
		client.CloseIdleConnections()
		if _, errs, code := run(t, "serve", "--listen", "127.0.0.1:0", "--admin", "unix:"+path); code != exitFailed || !strings.Contains(errs, "is in use") {
			t.Errorf("a second server: exit %d, %s", code, errs)
		}
		if log := stop(); log != "" {
			t.Errorf("it logs %s", log)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is left behind: %v", err)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := run(t, "serve", "--listen", "127.0.0.1:0", "--admin", "unix:"+path); code != exitFailed || !strings.Contains(errs, "is no socket") {
		t.Errorf("a file: exit %d, %s", code, errs)
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

// SIGHUP reads certificates again, and a server that has none goes on too.
func TestSIGHUPEndsNoServer(t *testing.T) {
	cmd, address := serveInto(t, full(t), "--admin=", "--status", "0s")
	for range 3 {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	echoesAndEnds(t, cmd, address)
}
