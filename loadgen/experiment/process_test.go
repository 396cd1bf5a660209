package experiment

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shell starts a script in place of a server.
func shell(t *testing.T, script string) (*process, error) {
	t.Helper()
	return start(t.Context(), "/bin/sh", "-c", script)
}

func mustStart(t *testing.T, script string) *process {
	t.Helper()
	p, err := shell(t, script)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// gone checks that a process has ended and was waited for.
func gone(t *testing.T, p *process) {
	t.Helper()
	if err := unix.Kill(p.cmd.Process.Pid, 0); err != unix.ESRCH {
		t.Errorf("process %d is still there: %v", p.cmd.Process.Pid, err)
	}
}

// polite is a script that runs until SIGTERM and then runs end. It kills its sleep,
// which would outlive it otherwise, with SIGKILL: a SIGTERM that came between the
// shell's fork and exec would be lost. The sleep has no pipe open.
func polite(script, end string) string {
	return "trap 'kill -KILL $! 2>/dev/null; " + end + "' TERM; " + script + "; sleep 1000 >/dev/null 2>&1 & wait"
}

func TestStartReturnsTheServersAddress(t *testing.T) {
	for script, want := range map[string]string{
		`echo "listening on 127.0.0.1:7 (chat, 2 reactors)"`:                       "127.0.0.1:7",
		`echo "listening on [::1]:7"`:                                              "[::1]:7",
		`echo hello; echo; echo "listening on 127.0.0.1:7 (chat)"; echo "bye" >&2`: "127.0.0.1:7",
		// Later output is read too, so that the server does not block.
		`echo "listening on 127.0.0.1:7"; head -c 1000000 /dev/zero`: "127.0.0.1:7",
	} {
		p := mustStart(t, polite(script, "exit 0"))
		if p.addr != want {
			t.Errorf("%s: listens on %q, want %q", script, p.addr, want)
		}
		if err := p.stop(); err != nil {
			t.Errorf("%s: %v", script, err)
		}
		gone(t, p)
	}
}

func TestAServerThatDoesNotStartSaysWhy(t *testing.T) {
	rows := []struct{ why, script, error string }{
		{"it fails", "echo the port is taken >&2; exit 3", "exit status 3\nthe port is taken"},
		{"it is killed", "echo poor me >&2; kill -KILL $$", "signal: killed\npoor me"},
		{"it prints something else", "echo 127.0.0.1:7; echo nothing >&2; exit 1", "exit status 1\nnothing"},
		{"it ends without an error", "echo nothing to do >&2", "nothing to do"},
	}
	for _, r := range rows {
		p, err := shell(t, r.script)
		if err == nil {
			p.kill()
			t.Errorf("%s: started", r.why)
			continue
		}
		if !strings.HasPrefix(err.Error(), "experiment: start /bin/sh: ") || !strings.Contains(err.Error(), r.error) {
			t.Errorf("%s: error %v, want %q", r.why, err, r.error)
		}
	}
}

func TestStartOfAMissingProgramFails(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "lull")
	if _, err := start(t.Context(), missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(missing, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := start(t.Context(), missing); err == nil {
		t.Error("a text was started")
	}
}

func TestAServerThatFailedSaysWhyWhenItIsStopped(t *testing.T) {
	rows := []struct{ why, script, error string }{
		{"meanwhile", "echo listening on x; echo out of luck >&2; exit 4", "exit status 4\nout of luck"},
		{"at the end", polite("echo listening on x", "echo cannot >&2; exit 5"), "exit status 5\ncannot"},
		{"by the signal", "echo listening on x; exec sleep 1000", "signal: terminated"},
	}
	for _, r := range rows {
		p, err := shell(t, r.script)
		if err != nil { // it may have ended before start read its line
			if !strings.Contains(err.Error(), r.error) {
				t.Errorf("%s: error %v, want %q", r.why, err, r.error)
			}
			continue
		}
		if r.why == "meanwhile" {
			<-p.exited
		}
		err = p.stop()
		if err == nil || !strings.HasPrefix(err.Error(), "experiment: the server failed: ") || !strings.Contains(err.Error(), r.error) {
			t.Errorf("%s: error %v, want %q", r.why, err, r.error)
		}
		gone(t, p)
	}
}

func TestKillEndsAServerThatIgnoresSIGTERM(t *testing.T) {
	p := mustStart(t, "trap '' TERM; echo listening on x; exec sleep 1000")
	p.kill()
	gone(t, p)
}

func TestOnlyTheEndOfWhatAServerWritesIsKept(t *testing.T) {
	p, err := shell(t, "head -c 100000 /dev/zero | tr '\\0' x >&2; echo; echo the end >&2; exit 1")
	if err == nil {
		p.kill()
		t.Fatal("started")
	}
	if text := err.Error(); !strings.HasSuffix(text, "xthe end") || len(text) > tailMax+200 {
		t.Errorf("%d bytes that end in %q", len(text), text[len(text)-20:])
	}
	var w tail
	for range 3 * tailMax {
		if n, err := w.Write([]byte("abc")); n != 3 || err != nil {
			t.Fatal(n, err)
		}
	}
	if text := w.String(); len(text) != tailMax || !strings.HasSuffix(text, "abcabc") {
		t.Errorf("%d bytes are kept", len(text))
	}
}

// orphan is an environment variable. It names the pipe for leaveOrphan.
const orphan = "LULL_TEST_ORPHAN"

// waits is a script that holds a pipe open until it ends.
const waits = `exec 3>"$0"; echo listening on x; exec sleep 1000`

// leaveOrphan starts a child and returns, which ends this process.
func leaveOrphan(pipe string) {
	if _, err := start(context.Background(), "/bin/sh", "-c", waits, pipe); err != nil {
		panic(err)
	}
}

func TestAServerDiesWithItsExperiment(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), orphan+"="+pipe)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(pipe) // returns when the server has opened its end
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(held); err != nil { // returns when every process that has it open has ended
		t.Error(err)
	}
}

func TestProcessorTimeIsThatOfTheProcess(t *testing.T) {
	before := cpu(os.Getpid())
	for cpu(os.Getpid()) < before+20*time.Millisecond { // two of the kernel's ticks
	}
	if got := cpu(1 << 30); got != 0 {
		t.Errorf("a process that does not exist has used %s", got)
	}
}

func TestSocketsAreCountedInAllTables(t *testing.T) {
	before := sockets(os.Getpid())
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := sockets(os.Getpid()); got != before+2 {
		t.Errorf("%d sockets, want %d", got, before+2)
	}
	for _, fd := range fds {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
	if got := sockets(os.Getpid()); got != before {
		t.Errorf("%d sockets, want %d", got, before)
	}
	if got := sockets(1 << 30); got != 0 {
		t.Errorf("a process that does not exist has %d sockets", got)
	}
}

// If the context ends while start waits, the server has ended when start returns.
func TestAStartThatIsCanceledLeavesNoServer(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for why, wait := range map[string]bool{"before it starts": false, "before it listens": true} {
		pipe := filepath.Join(t.TempDir(), "pipe")
		if err := unix.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		// Both ends, so that opening blocks neither this test nor the server.
		held, err := os.OpenFile(pipe, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		ctx := canceled
		if wait {
			var cancel func()
			ctx, cancel = context.WithCancel(t.Context())
			go func() {
				_, _ = held.Read(make([]byte, 1)) // returns when the server runs
				cancel()
			}()
		}
		_, err = start(ctx, "/bin/sh", "-c", `echo $$ >"$0"; echo not yet >&2; echo $$ >"$0"; exec sleep 1000`, pipe)
		if err == nil || !strings.Contains(err.Error(), "context canceled") {
			t.Errorf("%s: %v", why, err)
		}
		held.Close()
	}
	if children := children(t); len(children) > 0 {
		t.Errorf("children are left: %q", children)
	}
}

// children lists the children of this process.
func children(t *testing.T) (names []string) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		pids, _ := os.ReadFile(list) // the thread may have ended
		names = append(names, strings.Fields(string(pids))...)
	}
	return names
}

// A server that ends at once, without an error, has not started.
func TestAServerThatEndsWithoutListeningFails(t *testing.T) {
	_, err := shell(t, "echo nothing to do >&2")
	if err == nil || strings.Contains(err.Error(), "%!") || !strings.Contains(err.Error(), "without listening\nnothing to do") {
		t.Errorf("got %v", err)
	}
}
