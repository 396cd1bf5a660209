package loadgen_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// serve runs the real server until the test's end.
func serve(t *testing.T, h server.Handler) (url string) {
	t.Helper()
	s, err := server.Listen([]string{"127.0.0.1:0"}, h, server.Options{Reactors: 2, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, context.Background(), s)
	return fmt.Sprintf("ws://%s/", s.Addrs()[0])
}

var chat = server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) { _ = c.Server().Broadcast(op, data) }}

var echo = server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) { _ = c.Send(op, data) }}

func mustRun(t *testing.T, c loadgen.Config) *loadgen.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := loadgen.Run(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if !res.OK() || len(res.Errors) > 0 {
		t.Errorf("OK is %v: %d of %d open, %d lost, errors %v", res.OK(), res.Open, res.Conns, res.Lost, res.Errors)
	}
	return res
}

func count(res *loadgen.Result, c loadgen.Counter) int { return res.Counts[c.String()] }

func TestTheServersChatLosesNothing(t *testing.T) {
	const conns, messages = 200, 12
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		for _, size := range []int{16, 1000} {
			t.Run(fmt.Sprintf("%s, %d bytes", tables, size), func(t *testing.T) {
				res := mustRun(t, loadgen.Config{
					URLs: []string{serve(t, chat)}, Conns: conns, Tables: tables, Broadcasts: messages, Burst: 5, Size: size,
				})
				if got := count(res, loadgen.Received); got != conns*messages || count(res, loadgen.Foreign) != 0 {
					t.Errorf("%d received, want %d; counts %v", got, conns*messages, res.Counts)
				}
				for i, b := range res.Broadcasts {
					if want := conns * min(5, messages-5*i); b.Expected != want || b.Received != want {
						t.Errorf("burst %d: %d of %d received, want %d", i, b.Received, b.Expected, want)
					}
				}
			})
		}
	}
}

func TestTheServersEchoesComeBack(t *testing.T) {
	res := mustRun(t, loadgen.Config{
		URLs: []string{serve(t, echo)}, Conns: 100, Active: 50, Echo: 200 * time.Millisecond, Workers: 2,
	})
	if res.Echo.Messages < 50 || res.Echo.Messages > count(res, loadgen.Echoes) || count(res, loadgen.Foreign) != 0 {
		t.Errorf("%+v, counts %v", res.Echo, res.Counts)
	}
}

func TestTheProbeMeasuresIdleAndBusyTimes(t *testing.T) {
	t.Parallel() // it does nothing for probeIdle
	res := mustRun(t, loadgen.Config{
		URLs: []string{serve(t, chat)}, Conns: 50, Broadcasts: 20, Probe: time.Millisecond,
	})
	for name, l := range map[string]loadgen.Latency{"idle": res.Probe.Idle, "busy": res.Probe.Busy} {
		if l.Count == 0 || l.First <= 0 || l.Last < l.First {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

func TestSeveralServersShareTheConnections(t *testing.T) {
	urls := []string{serve(t, chat), serve(t, chat)}
	res := mustRun(t, loadgen.Config{URLs: urls, Conns: 100, Workers: 3})
	if res.Open != 100 || res.Workers != 3 {
		t.Errorf("%+v", res)
	}
}
