//go:build interop

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

const installsInterop = "server/testdata/interop/install, run as root, installs what is missing"

// AWS's clients for API Gateway's @connections post, get and delete, and learn that a
// connection is gone, with another endpoint and otherwise as they are.
func TestInteropAPIGateway(t *testing.T) {
	const token = "0123456789abcdef"
	var id atomic.Value
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Lull-Event") == "connect" {
			id.Store(r.Header.Get("Lull-Connection"))
		}
	}))
	defer backend.Close()
	h := serveHooks(t, []string{"LULL_API_TOKEN=" + token}, "--hook", backend.URL)
	dir := cmp.Or(os.Getenv("LULL_INTEROP_DIR"), "/var/cache/lull-interop")
	for name, client := range map[string][]string{
		"Python":     {"/usr/bin/python3", "server/testdata/interop/apigateway.py"},
		"JavaScript": {"node", "server/testdata/interop/apigateway.mjs", dir},
	} {
		for _, endpoint := range []string{h.api, h.api + "/prod"} {
			conn := visit(t, h.url, "")
			ask := func(token string) string {
				args := append(client[1:len(client):len(client)], endpoint, token, id.Load().(string))
				cmd := exec.Command(client[0], args...)
				var log strings.Builder
				cmd.Stderr = &log
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%s: %v; %s: %s", name, err, installsInterop, &log)
				}
				return strings.TrimSpace(string(out))
			}
			if got := ask("another token"); got != "forbidden" {
				t.Errorf("%s with another token: %s", name, got)
			}
			go func() {
				conn.hears("from " + name + ": é")
				for {
					if _, _, err := conn.ReadMessage(); err != nil { // answers the Close frame
						return
					}
				}
			}()
			if got := ask(token); got != "127.0.0.1\ngone" {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

// The examples of docs/hooks.md are chats with login.
func TestInteropHookExamples(t *testing.T) {
	dir := t.TempDir()
	chat := filepath.Join(dir, "chat")
	if out, err := exec.Command("go", "build", "-o", chat, "./docs/hooks/go").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	socket := func(name string) string { return filepath.Join(dir, name) }
	for name, backend := range map[string][]string{
		"django": {"gunicorn", "--workers", "2", "--chdir", "docs/hooks/django", "--bind", "unix:" + socket("django"), "chat:application"},
		"node":   {"node", "docs/hooks/node/chat.mjs"},
		"go":     {chat},
	} {
		t.Run(name, func(t *testing.T) {
			secret := []string{"LULL_HOOK_SECRET=0123456789abcdef"}
			h := serveHooks(t, secret, "--hook", "unix:"+socket(name)+":/lull", "--hook-concurrency", "2", "--origin", "http://chat.example.com")
			cmd := exec.Command(backend[0], backend[1:]...)
			cmd.Env = append(os.Environ(), append(secret, "LULL_API="+h.api, "PORT="+socket(name), "LISTEN="+socket(name))...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			var log strings.Builder
			cmd.Stdout, cmd.Stderr = &log, &log
			if err := cmd.Start(); err != nil {
				t.Fatalf("%v; %s", err, installsInterop)
			}
			t.Cleanup(func() {
				h.stop() // tells the backend of the ends
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				if _ = cmd.Wait(); t.Failed() {
					t.Log(log.String())
				}
			})
			testkit.Eventually(t, "the backend listens", func() bool {
				c, err := net.Dial("unix", socket(name))
				if err == nil {
					c.Close()
				}
				return err == nil
			})
			if status, body := turnedAway(t, h.url, ""); status != http.StatusForbidden || !strings.HasPrefix(body, "log in first") {
				t.Errorf("a stranger is answered %d %q", status, body)
			}
			ann, bob := logIn(t, socket(name), "Ann", h.url), logIn(t, socket(name), "Bob & Zoë", h.url)
			ann.says("hello")
			for _, g := range []guest{ann, bob} {
				g.hears("Ann: hello")
			}
			bob.says("é, <b>hi</b>")
			for _, g := range []guest{ann, bob} {
				g.hears("Bob & Zoë: é, <b>hi</b>")
			}
			bob.Close()
			ann.hears("Bob & Zoë has left")
			forged, err := http.NewRequest("POST", "http://chat.example.com/lull", strings.NewReader("forged"))
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range map[string]string{"Event": "message", "User": "Ann", "Id": "1", "Connection": "2", "Timestamp": fmt.Sprint(time.Now().Unix()), "Signature": "v1=00"} {
				forged.Header.Set("Lull-"+name, value)
			}
			if r, err := over(socket(name)).Do(forged); err != nil || r.StatusCode != http.StatusForbidden {
				t.Errorf("a forged message is answered %v, %v", r, err)
			}
		})
	}
}

// over is a client of whoever listens to a unix socket.
func over(socket string) *http.Client {
	jar, _ := cookiejar.New(nil) // it never fails
	return &http.Client{Jar: jar, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

// logIn logs in at a backend and connects.
func logIn(t *testing.T, socket, name, lull string) guest {
	t.Helper()
	const site = "http://chat.example.com/"
	c := over(socket)
	r, err := c.PostForm(site, url.Values{"name": {name}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || r.StatusCode != http.StatusOK || !strings.Contains(string(body), "new WebSocket") {
		t.Fatalf("%s is answered %s %s, %v", name, r.Status, body, err)
	}
	at, _ := url.Parse(site)
	header := http.Header{"Origin": {"http://chat.example.com"}}
	for _, cookie := range c.Jar.Cookies(at) {
		header.Add("Cookie", cookie.String())
	}
	conn, _, err := websocket.DefaultDialer.Dial(lull, header)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return guest{conn, t}
}
