package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

// abandoned is the writing end of a pipe whose reading end is closed.
func abandoned(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close() })
	return w
}

// full is a pipe that takes nothing more.
func full(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	for err == nil {
		_ = w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		_, err = w.Write(make([]byte, 4096))
	}
	return w
}

// serveInto starts an echo server whose stderr is a pipe that nobody reads.
func serveInto(t *testing.T, stderr *os.File, args ...string) (cmd *exec.Cmd, address string) {
	t.Helper()
	cmd = exec.Command(program, append([]string{"serve", "--listen", "127.0.0.1:0", "--mode", "echo"}, args...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	defer stdout.Close()
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			address, _, _ = strings.Cut(rest, " ")
			return cmd, address
		}
	}
	t.Fatalf("the server ended with %v before it listened", cmd.Wait())
	return nil, ""
}

// echoesAndEnds checks that a server answers, and that SIGTERM ends it.
func echoesAndEnds(t *testing.T, cmd *exec.Cmd, address string) {
	t.Helper()
	conn, _, _, err := ws.Dial(t.Context(), "ws://"+address+"/")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 100 { // meanwhile the server writes status lines
		if err := wsutil.WriteClientText(conn, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got, err := wsutil.ReadServerText(conn); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	conn.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(testkit.Patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

func TestServeOutlivesTheReadersOfItsOutput(t *testing.T) {
	// --admin has something to say on stderr, as has --status.
	cmd, address := serveInto(t, abandoned(t), "--admin", "0.0.0.0:0", "--admin-without-token", "--status", "1ms")
	echoesAndEnds(t, cmd, address)
}

func TestServeWaitsForNobodyWhoReadsItsOutput(t *testing.T) {
	cmd, address := serveInto(t, full(t), "--admin=", "--status", "0s")
	for range 500 { // each is logged, and the log has room for fewer
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "nonsense\r\n\r\n")
		if _, err := conn.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	echoesAndEnds(t, cmd, address)
}

func TestACommandWithoutAReaderEndsQuietly(t *testing.T) {
	for _, args := range [][]string{{"doctor"}, {"doctor", "--json"}, {"doctor", "--help"}, {"tune", "show"}} {
		var errs bytes.Buffer
		cmd := exec.Command(program, args...)
		cmd.Stdout, cmd.Stderr = abandoned(t), &errs
		_ = cmd.Run()
		if !cmd.ProcessState.Exited() || errs.Len() > 0 {
			t.Errorf("lull %v: %v, %s", args, cmd.ProcessState, &errs)
		}
	}
}
