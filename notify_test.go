package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

// manager is a service manager's end of the notifications.
func manager(t *testing.T, watchdog time.Duration) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "")
	if watchdog > 0 {
		t.Setenv("WATCHDOG_USEC", strconv.FormatInt(watchdog.Microseconds(), 10))
	}
	return c
}

// hear returns the next notification, and "" if none comes in time.
func hear(t *testing.T, c *net.UnixConn, patience time.Duration) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, _ := c.Read(b)
	return string(b[:n])
}

const longEnough = 10 * time.Second

func TestTheServiceManagerIsNotifiedOfReadyAndStopping(t *testing.T) {
	c := manager(t, 0)
	ctx, end := context.WithCancel(t.Context())
	go notify(ctx, func() int { return 0 }, slog.New(slog.DiscardHandler))
	if got := hear(t, c, longEnough); got != "READY=1" {
		t.Errorf("got %q", got)
	}
	end()
	if got := hear(t, c, longEnough); got != "STOPPING=1" {
		t.Errorf("got %q", got)
	}
}

func TestTheWatchdogIsNotNotifiedWhileAReactorIsStuck(t *testing.T) {
	c := manager(t, 40*time.Millisecond)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var stalled, looks atomic.Int64
	go notify(ctx, func() int { looks.Add(1); return int(stalled.Load()) }, slog.New(slog.DiscardHandler))
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := hear(t, c, longEnough); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	stalled.Store(1)
	at := looks.Load()
	testkit.Eventually(t, "a look has begun and ended since", func() bool { return looks.Load() >= at+2 })
	for hear(t, c, time.Millisecond) != "" { // notifications from before
	}
	at = looks.Load()
	testkit.Eventually(t, "the watchdog has looked three times", func() bool { return looks.Load() >= at+3 })
	if got := hear(t, c, time.Millisecond); got != "" {
		t.Errorf("got %q while a reactor is stuck", got)
	}
	stalled.Store(0)
	if got := hear(t, c, longEnough); got != "WATCHDOG=1" {
		t.Errorf("got %q after the reactor went on", got)
	}
}

func TestAServiceManagerIsOptional(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	var log bytes.Buffer
	ctx, end := context.WithCancel(t.Context())
	end()
	notify(ctx, func() int { return 0 }, slog.New(slog.NewTextHandler(&log, nil)))
	if log.Len() > 0 {
		t.Errorf("it logs %s", &log)
	}
}

func TestAServiceManagerThatCannotBeNotifiedIsLogged(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	t.Setenv("WATCHDOG_USEC", "often")
	var log bytes.Buffer
	ctx, end := context.WithCancel(t.Context())
	end()
	notify(ctx, func() int { return 0 }, slog.New(slog.NewTextHandler(&log, nil)))
	for _, want := range []string{"READY=1", "STOPPING=1", "watchdog is off"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("it does not log %s:\n%s", want, &log)
		}
	}
}
