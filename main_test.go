package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-134acfd0/lull/loadgen"
)

// program is the lull command, built once.
var program string

func TestMain(m *testing.M) {
	if ahead := os.Getenv(clockAhead); ahead != "" {
		agentWithWrongClock(ahead)
		return
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "lull")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // for the test that runs as another user
			panic(err)
		}
		program = filepath.Join(dir, "lull")
		if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// run runs lull and waits for its end.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return runCommand(t, exec.Command(program, args...))
}

func runCommand(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// serve starts a server and returns its URL and a function that ends it with
// SIGTERM and checks that it exits with 0.
func serve(t *testing.T, args ...string) (url string, stop func()) {
	t.Helper()
	url, process, wait := serving(t, args...)
	return url, func() {
		t.Helper()
		_ = process.Signal(syscall.SIGTERM)
		wait()
	}
}

// serving starts a server. wait waits for its end and checks that it exits with 0.
func serving(t *testing.T, args ...string) (url string, process *os.Process, wait func()) {
	t.Helper()
	addr, process, ended := launched(t, "listening on ", append([]string{"--admin="}, args...)...)
	return "ws://" + addr + "/", process, func() { t.Helper(); ended() }
}

// launched starts a server whose first line says an address behind a text. wait waits for its
// end, checks that it exits with 0, and returns its log.
func launched(t *testing.T, says string, args ...string) (addr string, process *os.Process, wait func() string) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
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
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), says)
	if err != nil || !ok {
		t.Fatalf("%q, %v", line, err)
	}
	addr, _, _ = strings.Cut(rest, " ")
	return addr, cmd.Process, func() string {
		t.Helper()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v\n%s", err, &log)
		}
		return log.String()
	}
}

// documented are all commands.
var documented = []string{"serve", "load", "agent", "compare", "experiment", "bench", "doctor", "tune", "tune show", "tune apply", "tune revert", "tune addresses", "config", "completion", "version"}

func TestUsageErrorsExitWith64(t *testing.T) {
	for _, line := range []string{"", "frobnicate", "serve --nothing", "serve now", "completion tcsh"} {
		if _, errs, code := run(t, strings.Fields(line)...); code != exitUsage || !strings.Contains(errs, "--help") {
			t.Errorf("lull %s: exit %d, %s", line, code, errs)
		}
	}
}

func TestHelpHasExamples(t *testing.T) {
	for _, command := range documented {
		if out, _, code := run(t, append(strings.Fields(command), "--help")...); code != 0 || !strings.Contains(out, "Examples:") {
			t.Errorf("lull %s --help: exit %d, %s", command, code, out)
		}
	}
}

func TestFailuresExitWith1AndAMessage(t *testing.T) {
	for want, args := range map[string][]string{
		"address already in use": nil, // filled in below
		"RLIMIT_NOFILE":          {"serve", "--fd-tables", "shared", "--max-conns", "100000000"},
		"make build":             {"bench", "echo", "--floor", filepath.Join(t.TempDir(), "none")},
	} {
		if args == nil {
			url, stop := serve(t)
			defer stop()
			args = []string{"serve", "--listen", strings.Trim(strings.TrimPrefix(url, "ws:"), "/")}
		}
		if _, errs, code := run(t, args...); code != exitFailed || !strings.Contains(errs, want) {
			t.Errorf("lull %v: exit %d, %q lacks %q", args, code, errs, want)
		}
	}
}

func TestChatAndLoadGetAlong(t *testing.T) {
	url, stop := serve(t)
	file := filepath.Join(t.TempDir(), "result.json")
	out, errs, code := run(t, "load", "--url", url, "--conns", "500", "--broadcasts", "6", "--burst", "3", "--json", file)
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	stop()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var result loadgen.Result
	if err := json.Unmarshal(data, &result); err != nil {
		t.Fatal(err)
	}
	if result.Open != 500 || result.Lost != 0 || len(result.Broadcasts) != 2 || result.Broadcasts[1].Received != 1500 {
		t.Errorf("%d open, %d lost, broadcasts %+v", result.Open, result.Lost, result.Broadcasts)
	}
}

func TestEchoAndLoadGetAlong(t *testing.T) {
	url, stop := serve(t, "--mode", "echo", "--fd-tables", "shared", "--reactors", "1")
	defer stop()
	out, errs, code := run(t, "load", "--url", url, "--conns", "50", "--active", "10", "--echo", "200ms", "--fd-tables", "shared")
	if code != 0 || !strings.Contains(out, "echo") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// With handlers on workers, a client that sends faster than they work has to wait, gets
// all answers in order, and is not closed.
func TestWorkersAnswerAFloodInOrder(t *testing.T) {
	const messages = 30_000
	url, stop := serve(t, "--mode", "echo", "--handlers", "workers", "--workers", "2")
	defer stop()
	conn, _, _, err := ws.Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var flood bytes.Buffer
	for i := range messages {
		if err := wsutil.WriteClientText(&flood, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	go conn.Write(flood.Bytes())
	in := bufio.NewReader(conn)
	for i := range messages {
		h, err := ws.ReadHeader(in)
		if err != nil {
			t.Fatalf("%v after %d messages", err, i)
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(in, payload); err != nil || string(payload) != fmt.Sprint(i) {
			t.Fatalf("got %v %.50q, %v, want %d", h.OpCode, payload, err, i)
		}
	}
}

func TestLoadFailsWithoutAServer(t *testing.T) {
	url, stop := serve(t)
	stop()
	out, _, code := run(t, "load", "--url", url, "--conns", "5")
	if code != exitFailed || !strings.Contains(out, "0 of 5 open") || !strings.Contains(out, "refused") {
		t.Errorf("exit %d, %s", code, out)
	}
}

func TestSIGTERMClosesAllConnections(t *testing.T) {
	url, stop := serve(t, "--grace", "30s")
	conn, _, _, err := ws.Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	told := make(chan error, 1)
	go func() {
		_, _, err := wsutil.ReadServerData(conn) // answers the Close frame
		told <- err
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}()
	stop()
	var closed wsutil.ClosedError
	if err := <-told; !errors.As(err, &closed) || closed.Code != ws.StatusGoingAway {
		t.Errorf("the client is told %v, want 1001", err)
	}
}

func TestExperimentWritesItsReport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "report")
	out, errs, code := run(t, "experiment", "--conns", "300", "--hold", "200ms", "--broadcasts", "2", "--report", dir)
	if code != 0 || !strings.Contains(out, "300 of 300") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	for _, name := range []string{"report.md", "report.json", "report.html"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// In rooms each message reaches those in its room, whether the server is in a cluster or not.
func TestExperimentsInRooms(t *testing.T) {
	for _, args := range [][]string{{"--rooms", "30"}, {"--rooms", "30", "--cluster"}} {
		out, errs, code := run(t, append([]string{"experiment", "--conns", "300", "--hold", "200ms", "--broadcasts", "2", "--report", t.TempDir()}, args...)...)
		if code != 0 || !strings.Contains(out, "300 of 300") {
			t.Errorf("%q: exit %d\n%s%s", args, code, out, errs)
		}
	}
	if _, errs, code := run(t, "experiment", "--cluster"); code != exitUsage || !strings.Contains(errs, "--cluster: needs --rooms") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

// An experiment runs even if limits cannot be raised.
func TestExperimentRunsForAnOrdinaryUser(t *testing.T) {
	cmd := exec.Command(program, "experiment", "--conns", "300", "--hold", "200ms", "--broadcasts", "1", "--report", "report")
	cmd.Dir = t.TempDir()
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		cmd.Dir = filepath.Dir(program)
		if err := os.Chmod(cmd.Dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if out, errs, code := runCommand(t, cmd); code != 0 || !strings.Contains(out, "300 of 300") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// helpPage is the page with the help texts of all commands.
const helpPage = "docs/commands.md"

var update = flag.Bool("update", false, "write the generated parts of docs")

func TestTheCommandsPageShowsTheHelp(t *testing.T) {
	page, err := os.ReadFile(helpPage)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(page), "```")
	want := head
	for i, command := range documented {
		help, _, code := run(t, append(strings.Fields(command), "--help")...)
		if code != 0 {
			t.Fatalf("lull %s --help: exit %d", command, code)
		}
		if i > 0 {
			want += "\n"
		}
		want += "```text\n$ lull " + command + " --help\n" + strings.TrimSpace(help) + "\n```\n"
	}
	if *update {
		if err := os.WriteFile(helpPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(page) != want {
		t.Errorf("%s is not what go test . -run Page -update makes of it", helpPage)
	}
}

func TestLoadKnowsWhetherTheServerIsHere(t *testing.T) {
	for url, want := range map[string]bool{
		"ws://127.0.0.1:8080/": true, "ws://[::1]:8080/": true, "ws://localhost/": true, "ws://127.9.0.1/": true,
		"ws://10.0.0.1:8080/": false, "ws://example.org/": false, "ws://127.0.0.1/{{.Conn}}": true,
	} {
		if got := isHere([]string{url}); got != want {
			t.Errorf("%s: %v", url, got)
		}
	}
	if isHere([]string{"ws://127.0.0.1/", "ws://10.0.0.1/"}) {
		t.Error("one of two is elsewhere")
	}
}

// Commas between URLs separate them, and those within one do not.
func TestURLsMayHaveCommas(t *testing.T) {
	c := loadCommand{URL: []string{"ws://a/?x=1,2,ws://b/,wss://c/d,e"}, Addresses: []string{"ws://f/,"}}
	if got := strings.Join(c.urls(), " "); got != "ws://a/?x=1,2 ws://b/ wss://c/d,e ws://f/," {
		t.Error(got)
	}
}
