package loadgen_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// While a handler is slow, connections flood it. Each of their messages is
// answered once and in order, and the active connections get their echoes too.
func TestEveryMessageOfAFloodIsAnswered(t *testing.T) {
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		for name, rate := range map[string]float64{"as fast as it goes": 0, "at a rate": 2000} {
			t.Run(tables.String()+" "+name, func(t *testing.T) {
				t.Parallel()
				var handled sync.WaitGroup
				handled.Add(200)
				slow := 200
				var mu sync.Mutex
				url := serve(t, server.Handler{Message: func(c server.Conn, op frame.Op, data []byte) {
					mu.Lock()
					if slow > 0 {
						slow--
						time.Sleep(time.Millisecond) // the handler is slow on purpose, so that the flood fills buffers
						handled.Done()
					}
					mu.Unlock()
					_ = c.Send(op, data)
				}})
				res := mustRun(t, loadgen.Config{
					URLs: []string{url}, Conns: 30, Tables: tables, Active: 10, Pace: 100, Flood: 20, FloodRate: rate,
					Echo: 500 * time.Millisecond, Size: 200, Workers: 2,
				})
				handled.Wait()
				f := res.Echo.Flood
				if f.Sent == 0 || f.Answered != f.Sent || f.Abandoned != 0 || f.Conns != 20 {
					t.Errorf("flood: %+v", f)
				}
				if rate > 0 && f.Sent > int(rate*0.5)+2*2 {
					t.Errorf("%d messages were sent at %v a second", f.Sent, rate)
				}
				if n := count(res, measure.Asked); n == 0 || n > 100 || count(res, measure.Echoes) != n {
					t.Errorf("the active connections sent %d messages and received %d echoes", n, count(res, measure.Echoes))
				}
			})
		}
	}
}

// The generator notices messages that the server drops, answers twice, or leaves
// unanswered when it closes.
func TestAFloodWithWrongAnswersIsNotOK(t *testing.T) {
	rows := map[string]struct {
		answer func(c server.Conn, n int, data []byte)
		wrong  measure.Counter
	}{
		"one is lost": {func(c server.Conn, n int, data []byte) {
			if n != 5 {
				_ = c.Send(frame.Binary, data)
			}
		}, measure.Missed},
		"one comes twice": {func(c server.Conn, n int, data []byte) {
			_ = c.Send(frame.Binary, data)
			if n == 5 {
				_ = c.Send(frame.Binary, data)
			}
		}, measure.Repeated},
		"the connection is closed": {func(c server.Conn, n int, data []byte) {
			if n == 5 {
				_ = c.Close(frame.TryAgainLater, "enough")
			}
		}, measure.Abandoned},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 0
			url := serve(t, server.Handler{Message: func(c server.Conn, _ frame.Op, data []byte) {
				n++ // there is one connection, and its calls are serial
				row.answer(c, n, data)
			}})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			res, err := loadgen.Run(ctx, loadgen.Config{
				URLs: []string{url}, Conns: 1, Flood: 1, FloodRate: 200, Echo: 200 * time.Millisecond, Patience: time.Second,
			})
			if err != nil {
				t.Fatal(err)
			}
			if res.OK() || count(res, row.wrong) == 0 {
				t.Errorf("OK is %v, counts %v", res.OK(), res.Counts)
			}
			var text strings.Builder
			res.WriteText(&text)
			if !strings.Contains(text.String(), "flood         1 connections") {
				t.Errorf("the text does not mention the flood:\n%s", &text)
			}
		})
	}
}

// Deaf connections receive nothing during the broadcasts, and everything after
// them, if the server drops nothing.
func TestDeafConnectionsReadAfterTheBroadcasts(t *testing.T) {
	const conns, deaf, messages = 40, 10, 20
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		t.Run(tables.String(), func(t *testing.T) {
			t.Parallel()
			res := mustRun(t, loadgen.Config{
				URLs: []string{serve(t, chat)}, Conns: conns, Deaf: deaf, Broadcasts: messages, Burst: 5,
				Size: 1000, Segment: 1460, Tables: tables, Workers: 3,
			})
			for i, b := range res.Broadcasts {
				if want := (conns - deaf) * 5; b.Expected != want || b.Received != want {
					t.Errorf("burst %d: %d of %d received, want %d", i, b.Received, b.Expected, want)
				}
			}
			if got, missed := count(res, measure.DeafReceived), count(res, measure.DeafMissed); got != deaf*messages || missed != 0 {
				t.Errorf("deaf connections received %d and missed %d, want %d and 0", got, missed, deaf*messages)
			}
		})
	}
}

// Deaf connections that the server has closed are counted when they read again.
func TestTheServerMayCloseDeafConnections(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := loadgen.Run(ctx, loadgen.Config{
		URLs: []string{serve(t, chat)}, Conns: 10, Deaf: 2, Broadcasts: 150, Size: 8 << 10, Segment: 1460, Workers: 1, Patience: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.OK() || count(res, measure.DeafEnded) != 2 || res.Open != 8 || res.Lost != 0 {
		t.Errorf("OK is %v, %d open, %d lost, counts %v", res.OK(), res.Open, res.Lost, res.Counts)
	}
}

// Who was deaf in a phase is like others in later ones: it talks, receives, and may be deaf again.
func TestWhoWasDeafTakesPartInLaterPhases(t *testing.T) {
	t.Parallel()
	const users, deaf, messages = 12, 4, 5
	url, err := plan.ParseText(serve(t, chat))
	if err != nil {
		t.Fatal(err)
	}
	res := mustRun(t, loadgen.Config{Workers: 3, Plan: &plan.Plan{
		Groups: []plan.Group{{Name: "users", Users: users, URLs: []*plan.Text{url}}},
		Phases: []plan.Phase{
			{Name: "ramp", Kind: plan.Ramp},
			{Name: "deaf", Kind: plan.Publish, Count: messages, Deaf: deaf},
			{Name: "talk", Kind: plan.Talk, For: 50 * time.Millisecond, Streams: []plan.Stream{{Rate: 100, Message: plan.Message{Size: 16}}}},
			{Name: "all", Kind: plan.Publish, Count: messages},
			{Name: "again", Kind: plan.Publish, Count: messages, Deaf: deaf},
		},
	}})
	received := map[string]int{}
	for _, b := range res.Broadcasts {
		received[b.Phase] += b.Received
	}
	for phase, want := range map[string]int{"deaf": (users - deaf) * messages, "all": users * messages, "again": (users - deaf) * messages} {
		if received[phase] != want {
			t.Errorf("%d received in %q, want %d", received[phase], phase, want)
		}
	}
	if n := count(res, measure.DeafReceived); n != 2*deaf*messages {
		t.Errorf("the deaf received %d", n)
	}
	if f := res.Echo.Flood; f == nil || f.Conns != users {
		t.Errorf("%+v talk, want %d", f, users)
	}
}
