package loadgen_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"strings"
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
	return serveWith(t, h, server.Options{})
}

func serveWith(t *testing.T, h server.Handler, o server.Options) (url string) {
	t.Helper()
	o.Reactors, o.Log = 2, slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := server.Listen([]string{"127.0.0.1:0"}, h, o)
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

// Over TLS everything is as it is without, for the generator and the server.
func TestTheServersTLS(t *testing.T) {
	certificate, pool := testkit.Certificate()
	serve := func(t *testing.T, h server.Handler) string {
		return "wss" + strings.TrimPrefix(serveWith(t, h, server.Options{TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}}), "ws")
	}
	trusting := &tls.Config{RootCAs: pool}
	const conns = 300 // more than may be under way at a time
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		for _, size := range []int{16, 64 << 10} {
			t.Run(fmt.Sprintf("chat, %s, %d bytes", tables, size), func(t *testing.T) {
				t.Parallel()
				res := mustRun(t, loadgen.Config{
					URLs: []string{serve(t, chat)}, TLS: trusting, Conns: conns, Tables: tables, Workers: 2, Broadcasts: 4, Burst: 2, Size: size,
				})
				if got := count(res, loadgen.Received); got != conns*4 || count(res, loadgen.Foreign) != 0 || count(res, loadgen.Resumed) != 0 {
					t.Errorf("%d received; counts %v", got, res.Counts)
				}
			})
		}
	}
	t.Run("echo and flood, with tickets", func(t *testing.T) {
		t.Parallel()
		res := mustRun(t, loadgen.Config{
			URLs: []string{serve(t, echo)}, TLS: trusting, Resume: true, Conns: conns, Workers: 2,
			Active: 50, Flood: 20, Size: 1000, Echo: 2 * time.Second, Probe: 10 * time.Millisecond,
		})
		if res.Echo.Messages < 50 || res.Echo.Flood.Answered != res.Echo.Flood.Sent || res.Probe.Busy.Count == 0 {
			t.Errorf("%+v", res.Echo)
		}
		if n := count(res, loadgen.Resumed); n == 0 || n >= conns {
			t.Errorf("%d of %d handshakes were resumed", n, conns)
		}
	})
}

// Messages are compressed both ways, whoever sends them, and all arrive.
func TestCompressedMessagesArrive(t *testing.T) {
	for _, size := range []int{16, 1000, 40_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			o := server.Options{Compress: true, CompressFrom: 1, MaxOutbox: 4 << 20}
			config := loadgen.Config{Conns: 100, Compress: true, Size: size}
			config.URLs, config.Broadcasts, config.Burst = []string{serveWith(t, chat, o)}, 10, 5
			res := mustRun(t, config)
			if got := count(res, loadgen.Received); got != 1000 {
				t.Errorf("%d of 1000 broadcasts were received", got)
			}
			if got := count(res, loadgen.BytesIn); size > 100 && got > 1000*(size/2) {
				t.Errorf("%d bytes came", got)
			}
			config.URLs, config.Broadcasts = []string{serveWith(t, echo, o)}, 0
			config.Active, config.Pace, config.Flood, config.FloodRate, config.Echo = 10, 100, 2, 100, time.Second
			res = mustRun(t, config)
			if count(res, loadgen.Echoes) == 0 || count(res, loadgen.Answered) == 0 || count(res, loadgen.Foreign) != 0 {
				t.Errorf("counts %v", res.Counts)
			}
		})
	}
	res, err := loadgen.Run(t.Context(), loadgen.Config{URLs: []string{serve(t, echo)}, Conns: 3, Compress: true})
	if err != nil || count(res, loadgen.Rejected) != 3 {
		t.Errorf("a server that does not compress: %v, counts %v", err, res.Counts)
	}
}
