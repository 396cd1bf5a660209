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
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
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
	o.HandshakeTimeout = time.Minute // this machine may be busy
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
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c.ConnectTimeout = time.Minute // this machine may be busy
	res, err := loadgen.Run(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if !res.OK() || len(res.Errors) > 0 {
		t.Errorf("OK is %v: %d of %d open, %d lost, errors %v", res.OK(), res.Open, res.Conns, res.Lost, res.Errors)
	}
	return res
}

func count(res *loadgen.Result, c measure.Counter) int { return res.Counts[c.String()] }

func TestTheServersChatLosesNothing(t *testing.T) {
	const conns, messages = 200, 12
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		for _, size := range []int{16, 1000} {
			t.Run(fmt.Sprintf("%s, %d bytes", tables, size), func(t *testing.T) {
				res := mustRun(t, loadgen.Config{
					URLs: []string{serve(t, chat)}, Conns: conns, Tables: tables, Broadcasts: messages, Burst: 5, Size: size,
				})
				if got := count(res, measure.Received); got != conns*messages || count(res, measure.Foreign) != 0 {
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
	if res.Echo.Messages < 50 || res.Echo.Messages > count(res, measure.Echoes) || count(res, measure.Foreign) != 0 {
		t.Errorf("%+v, counts %v", res.Echo, res.Counts)
	}
}

func TestTheProbeMeasuresIdleAndBusyTimes(t *testing.T) {
	t.Parallel() // it does nothing for probeIdle
	res := mustRun(t, loadgen.Config{
		URLs: []string{serve(t, chat)}, Conns: 50, Broadcasts: 20, Probe: time.Millisecond,
	})
	for name, l := range map[string]result.Latency{"idle": res.Probe.Idle, "busy": res.Probe.Busy} {
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
		o := server.Options{TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}, MaxOutbox: 4 << 20} // for a generator that is late
		return "wss" + strings.TrimPrefix(serveWith(t, h, o), "ws")
	}
	trusting := &tls.Config{RootCAs: pool}
	const conns = 150 // more than one worker may have under way
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		for _, size := range []int{16, 64 << 10} {
			t.Run(fmt.Sprintf("chat, %s, %d bytes", tables, size), func(t *testing.T) {
				t.Parallel()
				res := mustRun(t, loadgen.Config{
					URLs: []string{serve(t, chat)}, TLS: trusting, Conns: conns, Tables: tables, Workers: 1, Broadcasts: 4, Burst: 2, Size: size,
				})
				if got := count(res, measure.Received); got != conns*4 || count(res, measure.Foreign) != 0 || count(res, measure.Resumed) != 0 {
					t.Errorf("%d received; counts %v", got, res.Counts)
				}
			})
		}
	}
	t.Run("echo and flood, with tickets", func(t *testing.T) {
		t.Parallel()
		res := mustRun(t, loadgen.Config{
			URLs: []string{serve(t, echo)}, TLS: trusting, Resume: true, Conns: 2 * conns, Workers: 2,
			Active: 50, Flood: 20, Size: 1000, Echo: 2 * time.Second, Probe: 10 * time.Millisecond,
		})
		if res.Echo.Messages < 50 || res.Echo.Flood.Answered != res.Echo.Flood.Sent || res.Probe.Busy.Count == 0 {
			t.Errorf("%+v", res.Echo)
		}
		if n := count(res, measure.Resumed); n == 0 || n >= 2*conns {
			t.Errorf("%d of %d handshakes were resumed", n, 2*conns)
		}
	})
}

// Messages are compressed both ways, whoever sends them, and all arrive.
func TestCompressedMessagesArrive(t *testing.T) {
	t.Parallel()
	for _, size := range []int{16, 1000, 40_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			o := server.Options{Compress: true, CompressFrom: 1, MaxOutbox: 4 << 20}
			config := loadgen.Config{Conns: 100, Compress: true, Size: size}
			config.URLs, config.Broadcasts, config.Burst = []string{serveWith(t, chat, o)}, 10, 5
			res := mustRun(t, config)
			if got := count(res, measure.Received); got != 1000 {
				t.Errorf("%d of 1000 broadcasts were received", got)
			}
			if got := count(res, measure.BytesIn); size > 100 && got > 1000*(size/2) {
				t.Errorf("%d bytes came", got)
			}
			config.URLs, config.Broadcasts = []string{serveWith(t, echo, o)}, 0
			config.Active, config.Pace, config.Flood, config.FloodRate, config.Echo = 10, 100, 2, 100, time.Second
			res = mustRun(t, config)
			if count(res, measure.Echoes) == 0 || count(res, measure.Answered) == 0 || count(res, measure.Foreign) != 0 {
				t.Errorf("counts %v", res.Counts)
			}
		})
	}
	res, err := loadgen.Run(t.Context(), loadgen.Config{URLs: []string{serve(t, echo)}, Conns: 3, Compress: true})
	if err != nil || count(res, measure.Rejected) != 3 {
		t.Errorf("a server that does not compress: %v, counts %v", err, res.Counts)
	}
}

// Of two groups one compresses, on the same server, and the other does not.
func TestOneOfTwoGroupsCompresses(t *testing.T) {
	t.Parallel()
	const users, size = 10, 20_000
	url, err := plan.ParseText(serveWith(t, echo, server.Options{Compress: true, CompressFrom: 1, MaxOutbox: 4 << 20}))
	if err != nil {
		t.Fatal(err)
	}
	group := func(name string, compress bool) plan.Group {
		return plan.Group{Name: name, Users: users, URLs: []*plan.Text{url}, Compress: compress}
	}
	talk := func(name string) plan.Phase {
		return plan.Phase{Name: name, Kind: plan.Talk, For: 200 * time.Millisecond, Streams: []plan.Stream{{
			Groups: []string{name}, Rate: 100, Window: 4, Message: plan.Message{Size: size, Answer: plan.Answer{Kind: plan.AnswerEcho}},
		}}}
	}
	res := mustRun(t, loadgen.Config{Workers: 2, Plan: &plan.Plan{
		Groups: []plan.Group{group("deflated", true), group("plain", false)},
		Phases: []plan.Phase{{Name: "ramp", Kind: plan.Ramp}, talk("deflated"), talk("plain")},
	}})
	for _, p := range res.Phases[1:3] {
		echoes, each := p.Counts[measure.Echoes], 0
		if echoes > 0 {
			each = int(p.Counts[measure.BytesIn] / echoes)
		}
		if echoes == 0 || (each < size) != (p.Name == "deflated") {
			t.Errorf("%s: %d echoes of %d bytes", p.Name, echoes, each)
		}
	}
}
