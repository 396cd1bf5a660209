package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

// hooked is a server with hooks.
type hooked struct {
	url, api string
	stop     func() (log string)
}

// serveHooks starts a server with hooks, and its API on a free port.
func serveHooks(t *testing.T, env []string, args ...string) *hooked {
	t.Helper()
	cmd := exec.Command(program, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin=", "--api", "127.0.0.1:0", "--status", "0s", "--mode", "hooks"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &hooked{stop: sync.OnceValue(func() string {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v\n%s", err, &log)
		}
		return log.String()
	})}
	t.Cleanup(func() { h.stop() })
	for in := bufio.NewReader(out); h.url == ""; {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%q, %v, %s", line, err, h.stop())
		}
		if rest, ok := strings.CutPrefix(line, "API on "); ok {
			h.api = strings.TrimSuffix(strings.TrimSpace(rest), "/")
		}
		if rest, ok := strings.CutPrefix(line, "listening on "); ok {
			h.url = "ws://" + strings.Fields(rest)[0] + "/"
		}
	}
	return h
}

func TestServeWithHooks(t *testing.T) {
	var mu sync.Mutex
	var told []string
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		event := r.Header.Get("Lull-Event")
		mu.Lock()
		told = append(told, event+" "+r.URL.Path)
		mu.Unlock()
		switch event {
		case "connect":
			fmt.Fprint(w, `{"user": "ann", "topics": ["room"]}`)
		case "message":
			w.Header().Set("Lull-Topic", "room")
			fmt.Fprintf(w, "%s: %s %d", r.Header.Get("Lull-User"), body, len(r.Header.Get("Lull-Signature")))
		}
	}))
	defer backend.Close()
	h := serveHooks(t, []string{"LULL_HOOK_SECRET=0123456789abcdef", "LULL_API_TOKEN=fedcba9876543210"}, "--hook", "/chat="+backend.URL+"/lull", "--hook-concurrency", "2")
	first, second := visit(t, h.url, "chat"), visit(t, h.url, "chat/2")
	first.says("hello")
	first.hears("ann: hello 67")
	second.hears("ann: hello 67")
	if status, _ := turnedAway(t, h.url, "elsewhere"); status != http.StatusNotFound {
		t.Errorf("elsewhere is answered %d", status)
	}
	for authorization, want := range map[string]int{"": 401, "Bearer fedcba9876543210": 202} {
		if got := answered(t, "POST", h.api+"/users/ann", "to ann", authorization); got != want {
			t.Errorf("%q: %d, want %d", authorization, got, want)
		}
	}
	first.hears("to ann")
	second.hears("to ann")
	first.Close()
	second.Close()
	h.stop()
	if got, want := strings.Join(told, ", "), "connect /lull, connect /lull, message /lull, disconnect /lull, disconnect /lull"; got != want {
		t.Errorf("the backend was told %s, want %s", got, want)
	}
}

func TestHooksThatCannotBe(t *testing.T) {
	for text, args := range map[string][]string{
		"--mode=hooks: needs a backend":  {"--mode", "hooks"},
		"only be used with --mode=hooks": {"--hook", "http://127.0.0.1:1/"},
		`it is no URL`:                   {"--mode", "hooks", "--hook", "127.0.0.1:8000"},
		"two for path":                   {"--mode", "hooks", "--hook", "http://a/", "--hook", "http://b/"},
		"--api=unix:":                    {"--mode", "hooks", "--hook", "http://a/", "--api", "unix:"},
		"--api=8081":                     {"--mode", "hooks", "--hook", "http://a/", "--api", "8081"},
		"--api-socket-mode=rw":           {"--mode", "hooks", "--hook", "http://a/", "--api-socket-mode", "rw"},
		"--api-peers=two":                {"--mode", "hooks", "--hook", "http://a/", "--api-peers", "two"},
		`"Host"`:                         {"--mode", "hooks", "--hook", "http://a/", "--hook-headers", "host"},
		"from 1 to 10,000":               {"--mode", "hooks", "--hook", "http://a/", "--hook-concurrency", "0"},
	} {
		if _, errs, code := run(t, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...); code != exitUsage || !strings.Contains(errs, text) {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
	for text, args := range map[string][]string{
		"other machines can reach":     {"--api", "0.0.0.0:0"},
		"--api-token-file":             {"--api-token-file", filepath.Join(t.TempDir(), "none")},
		"--hook-secret-file":           {"--hook-secret-file", os.DevNull},
		"is no socket: choose another": {"--api", "unix:" + program},
	} {
		args = append([]string{"serve", "--listen", "127.0.0.1:0", "--admin=", "--mode", "hooks", "--hook", "http://127.0.0.1:1/", "--api", "127.0.0.1:0"}, args...)
		if _, errs, code := run(t, args...); code != exitFailed || !strings.Contains(errs, text) {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
}

// The admin page shows the backends.
func TestTheAdminPageShowsBackends(t *testing.T) {
	url, stop := watched(t, "127.0.0.1:0", "--mode", "hooks", "--hook", "http://127.0.0.1:1/", "--api=")
	defer stop()
	for path, says := range map[string]string{"api/status": `"backends":[{"path":"","url":"http://127.0.0.1:1/"`, "metrics": `lull_hook_calls_limit{backend="http://127.0.0.1:1/"} 16`} {
		r, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !strings.Contains(string(body), says) {
			t.Errorf("%s: %v, %.300s", path, err, body)
		}
	}
}

// The API may be on a unix socket.
func TestTheAPIOnAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	h := serveHooks(t, nil, "--hook", "http://127.0.0.1:1/", "--api", "unix:"+path, "--api-socket-mode", "0660")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 || h.api != "unix:"+path {
		t.Errorf("%s is %v, %v", h.api, info, err)
	}
}

// On several servers with one NATS server topics and users are the same, and the API of each
// reaches the connections of all.
func TestHooksOnSeveralServers(t *testing.T) {
	b := newBroker(t, "")
	ids := make(chan string, 2)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Lull-Event") {
		case "connect":
			ids <- r.Header.Get("Lull-Connection")
			fmt.Fprint(w, `{"user": "ann", "topics": ["room"]}`)
		case "message":
			w.Header().Set("Lull-Topic", "room")
			_, _ = io.Copy(w, r.Body)
		}
	}))
	defer backend.Close()
	args := []string{"--hook", backend.URL, "--nats", b.ClientURL(), "--node-name"}
	two := serveHooks(t, nil, append(args, "server-2")...)
	one := serveHooks(t, nil, append(args, "server-1", "--api-peers", "server-2="+two.api)...)
	first, second := visit(t, one.url, ""), visit(t, two.url, "")
	<-ids
	id := <-ids
	const own = 4 // subscriptions by which a node hears others
	testkit.Eventually(t, "the topics are followed", func() bool { return b.NumSubscriptions() == 2*(own+2) })
	ask := func(method, path, body string) {
		t.Helper()
		if got := answered(t, method, one.api+path, body, ""); got != http.StatusAccepted {
			t.Fatalf("%s %s: %d", method, path, got)
		}
	}
	for _, say := range []func(string){first.says, second.says, func(text string) { ask("POST", "/topics/room", text) }, func(text string) { ask("POST", "/users/ann", text) }} {
		say("to both")
		first.hears("to both")
		second.hears("to both")
	}
	if !strings.HasPrefix(id, "server-2.") {
		t.Errorf("its ID is %s", id)
	}
	ask("POST", "/connections/"+id, "to the second")
	second.hears("to the second")
}
