//go:build interop

package main

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

// interopDir is where Node's packages are.
func interopDir() string { return cmp.Or(os.Getenv("LULL_INTEROP_DIR"), "/var/cache/lull-interop") }

// pusherApps is a file with the app of pusher.mjs and of docs/pusher/chat.mjs.
func pusherApps(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "apps.yaml")
	app := "apps:\n  - {id: '1', key: app-key, secret: app-secret, client_events: true, subscription_count: true}\n"
	if err := os.WriteFile(path, []byte(app), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pusherClients runs pusher-js, laravel-echo and pusher against servers.
func pusherClients(t *testing.T, urls ...string) {
	t.Helper()
	var hosts []string
	for _, url := range urls {
		hosts = append(hosts, strings.Trim(strings.TrimPrefix(url, "ws://"), "/"))
	}
	cmd := exec.Command("node", "server/testdata/interop/pusher.mjs", interopDir(), strings.Join(hosts, ","))
	out, err := cmd.CombinedOutput()
	if t.Logf("%s", out); err != nil {
		t.Errorf("%v; %s", err, installsInterop)
	}
}

// Clients and publishers of Pusher Channels work as they are, with another host.
func TestInteropPusher(t *testing.T) {
	url, stop := serve(t, "--mode", "pusher", "--pusher-apps", pusherApps(t))
	defer stop()
	pusherClients(t, url)
}

// With three servers clients are on all of them, and publishers ask any.
func TestInteropPusherOnThreeNodes(t *testing.T) {
	broker := newBroker(t, "").ClientURL()
	apps := pusherApps(t)
	var urls []string
	for i := range 3 {
		url, stop := serve(t, "--mode", "pusher", "--pusher-apps", apps, "--nats", broker, "--node-name", fmt.Sprint("node-", i))
		defer stop()
		urls = append(urls, url)
	}
	pusherClients(t, urls...)
}

// The page of docs/pusher.md is a chat, with pusher-js in a browser.
func TestInteropPusherPage(t *testing.T) {
	url, stop := serve(t, "--mode", "pusher", "--pusher-apps", pusherApps(t))
	defer stop()
	backend := exec.Command("node", "docs/pusher/chat.mjs")
	backend.Env = append(os.Environ(), "PORT=0", "LULL="+strings.TrimSuffix(url, "/"),
		"PUSHER_JS="+filepath.Join(interopDir(), "node_modules/pusher-js/dist/web/pusher.min.js"))
	backend.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := backend.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := backend.Start(); err != nil {
		t.Fatalf("%v; %s", err, installsInterop)
	}
	defer func() {
		_ = syscall.Kill(-backend.Process.Pid, syscall.SIGKILL)
		_ = backend.Wait()
	}()
	page, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	page = strings.TrimSpace(page)
	ann := testkit.StartBrowser(t, page)
	ann.Shows("#state", "1 here; you are guest")
	bob := testkit.StartBrowser(t, page)
	bob.Shows("#state", "2 here; you are guest")
	ann.Shows("#messages", "has come")
	ann.Eval(`text.value = "<b>hello</b>"; form.requestSubmit()`, nil)
	bob.Shows("#messages", ": <b>hello</b>")
	ann.Shows("#messages", ": <b>hello</b>")
	bob.Eval("pusher.disconnect()", nil)
	ann.Shows("#messages", "has left")
	ann.Shows("#state", "1 here")
	for _, b := range []*testkit.Browser{ann, bob} {
		if len(b.Faults) > 0 {
			t.Errorf("the page: %q", b.Faults)
		}
	}
}
