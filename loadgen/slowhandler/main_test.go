package main

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-134acfd0/lull/server"
)

// begin runs the program and returns its two addresses and a function that
// ends it.
func begin(t *testing.T, c config) (url, admin string, end func()) {
	t.Helper()
	c.listen, c.admin = "127.0.0.1:0", "127.0.0.1:0"
	c.options.Reactors, c.options.Log = 1, slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- run(ctx, c, write) }()
	lines := bufio.NewScanner(read)
	for _, at := range []struct {
		prefix string
		to     *string
	}{{"admin on ", &admin}, {"listening on ", &url}} {
		if !lines.Scan() {
			t.Fatal("it ended early")
		}
		rest, ok := strings.CutPrefix(lines.Text(), at.prefix)
		if !ok {
			t.Fatalf("it prints %q, want %q", lines.Text(), at.prefix)
		}
		*at.to, _, _ = strings.Cut(rest, " ")
	}
	return "ws://" + url + "/", admin, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// echo sends a message and returns how long its echo took.
func echo(t *testing.T, url string) time.Duration {
	t.Helper()
	conn, _, _, err := ws.Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := time.Now()
	if err := wsutil.WriteClientText(conn, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got, err := wsutil.ReadServerText(conn); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	return time.Since(sent)
}

func TestEchoesAfterTheDelayAndShowsMetrics(t *testing.T) {
	const delay = 30 * time.Millisecond
	for _, mode := range []server.Mode{server.Inline, server.Serial, server.Workers} {
		url, admin, end := begin(t, config{delay: delay, options: server.Options{Mode: mode}})
		if took := echo(t, url); took < delay {
			t.Errorf("%v: the echo came after %s", mode, took)
		}
		r, err := http.Get(admin + "metrics")
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatal(r, err)
		}
		r.Body.Close()
		end()
	}
}

func TestTheDelayEnds(t *testing.T) {
	url, _, end := begin(t, config{delay: time.Hour, delayFor: time.Nanosecond})
	defer end()
	echo(t, url)
}
