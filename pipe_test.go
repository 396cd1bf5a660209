package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
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

func TestServeOutlivesTheReadersOfItsOutput(t *testing.T) {
	cmd := exec.Command(program, "serve", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0", "--mode", "echo", "--status", "1ms")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = abandoned(t) // --admin and --status write to it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(stdout)
	var addr string
	for addr == "" && lines.Scan() {
		rest, _ := strings.CutPrefix(lines.Text(), "listening on ")
		if rest != lines.Text() {
			addr, _, _ = strings.Cut(rest, " ")
		}
	}
	stdout.Close()

	conn, _, _, err := ws.Dial(t.Context(), "ws://"+addr+"/")
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
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
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
