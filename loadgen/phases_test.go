package loadgen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
	"github.com/seed-134acfd0/lull/netpoll"
)

// forever is longer than any test runs.
const forever = 1000 * time.Hour

func relayed(_, _ int, payload []byte) []byte { return whole(payload) }

func TestBroadcastsReachEverybody(t *testing.T) {
	const conns = 12
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		for _, workers := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d workers", tables, workers), func(t *testing.T) {
				res := mustRun(t, short(t), Config{
					URLs: []string{hub(t, relayed)}, Conns: conns, Workers: workers, Tables: tables, Broadcasts: 7, Burst: 3,
				})
				expect(t, res, map[measure.Counter]int{measure.Connected: conns, measure.Sent: 7, measure.Received: 7 * conns})
				if !res.OK() || res.Workers != workers || res.Lost != 0 {
					t.Errorf("%+v", res)
				}
				var sizes []int
				for i, b := range res.Broadcasts {
					sizes = append(sizes, b.Messages)
					if b.Expected != conns*b.Messages || b.Received != b.Expected || b.Latency.Count != int64(b.Expected) {
						t.Errorf("burst %d: %+v", i, b)
					}
					if b.Latency.First <= 0 || b.Latency.First > b.Latency.P50 || b.Latency.P50 > b.Latency.P99 || b.Latency.P99 > b.Latency.Last {
						t.Errorf("burst %d: latency %+v", i, b.Latency)
					}
					bars := int64(0)
					for _, bar := range b.Histogram {
						bars += bar.Count
					}
					if b.Deliveries <= 0 || b.Lag.Count == 0 || bars != b.Latency.Count {
						t.Errorf("burst %d: %v a second, lag %+v, %d in the histogram", i, b.Deliveries, b.Lag, bars)
					}
				}
				if !slices.Equal(sizes, []int{3, 3, 1}) {
					t.Errorf("bursts of %v", sizes)
				}
			})
		}
	}
}

func TestABroadcastReceivedTwiceIsNotOK(t *testing.T) {
	const conns = 4
	res := mustRun(t, short(t), Config{
		URLs: []string{hub(t, func(_, _ int, payload []byte) []byte { return append(whole(payload), whole(payload)...) })},
		// With one worker, each repetition is counted before the run ends.
		Conns: conns, Workers: 1, Broadcasts: 1,
	})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns, measure.Sent: 1, measure.Received: conns, measure.Repeated: conns})
	if res.OK() || res.Lost != 0 {
		t.Errorf("OK is %v, %d lost", res.OK(), res.Lost)
	}
}

// A connection that does not receive the second of three broadcasts notices when
// the third arrives.
func TestABroadcastThatIsSkippedIsLost(t *testing.T) {
	const conns, skipped = 4, 2
	url := hub(t, func(to, n int, payload []byte) []byte {
		if to < skipped && n == 1 {
			return nil
		}
		return whole(payload)
	})
	res := runUntil(t, Config{URLs: []string{url}, Conns: conns, Broadcasts: 3, Burst: 3}, func(s *measure.Snapshot) bool {
		return received(s) == 3*conns-skipped
	})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns, measure.Sent: 3, measure.Received: 3*conns - skipped, measure.Missed: skipped})
	if res.Lost != skipped || res.OK() {
		t.Errorf("OK is %v, %d lost", res.OK(), res.Lost)
	}
}

func TestABroadcastThatNobodyReceivesIsLostAfterPatience(t *testing.T) {
	const conns = 3
	url := hub(t, func(int, int, []byte) []byte { return nil })
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: conns, Broadcasts: 2, Patience: 50 * time.Millisecond})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns, measure.Sent: 2})
	if len(res.Broadcasts) != 2 || res.Lost != 2*conns || res.OK() {
		t.Errorf("OK is %v, %d lost, broadcasts %+v", res.OK(), res.Lost, res.Broadcasts)
	}
	for _, b := range res.Broadcasts {
		if b.Expected != conns || b.Received != 0 || b.Deliveries != 0 || b.Latency != (result.Latency{}) {
			t.Errorf("%+v", b)
		}
	}
}

// The generator does not queue for a server that does not read. It ends the
// connection when the socket is full.
func TestAServerThatDoesNotReadStalls(t *testing.T) {
	end := make(chan struct{})
	url := fake(t, func(p *peer) {
		if err := p.SetReadBuffer(4 << 10); err != nil {
			p.Error(err)
		}
		p.open()
		<-end
	})
	defer close(end)
	// 600 × 64 KiB are more than all socket buffers hold.
	res := runUntil(t, Config{
		URLs: []string{url}, Conns: 1, Size: 64 << 10, Broadcasts: 600, Burst: 600, Patience: forever,
	}, func(s *measure.Snapshot) bool { return s.Failed() == 1 })
	if res.Counts[measure.Stalled.String()] != 1 || res.Open != 0 || res.Lost != 600 {
		t.Errorf("%d lost, counts %v", res.Lost, res.Counts)
	}
	expectError(t, res, "stalled: ", 1)
}

// A connection that ends during a broadcast counts as one that did not receive it.
func TestAConnectionThatEndsDuringABroadcastLosesIt(t *testing.T) {
	const conns = 5
	url := hub(t, func(to, _ int, payload []byte) []byte {
		if to == 0 {
			return append(whole(payload[:7]), frame.AppendClose(nil, frame.GoingAway, "")...)
		}
		return whole(payload)
	})
	res := runUntil(t, Config{URLs: []string{url}, Conns: conns, Broadcasts: 1, Patience: forever}, func(s *measure.Snapshot) bool {
		return received(s) == conns-1 && s.Failed() == 1
	})
	expect(t, res, map[measure.Counter]int{measure.Connected: conns, measure.Sent: 1, measure.Received: conns - 1, measure.Foreign: 1, measure.Closed: 1})
	if res.Lost != 1 || res.OK() {
		t.Errorf("OK is %v, %d lost", res.OK(), res.Lost)
	}
}

func TestEchoesKeepTheActiveBusy(t *testing.T) {
	const conns, active = 8, 5
	for _, tables := range []netpoll.Tables{netpoll.Shared, netpoll.Private} {
		t.Run(tables.String(), func(t *testing.T) {
			silent := make(chan int, conns)
			url := fake(t, func(p *peer) {
				p.open()
				silent <- p.answer(same)
			})
			res := mustRun(t, short(t), Config{
				URLs: []string{url}, Conns: conns, Workers: 2, Tables: tables, Active: active, Echo: 100 * time.Millisecond, Size: 16,
			})
			e := res.Echo
			if e == nil || e.Active != active || e.Messages < active || e.Rate <= 0 || e.Latency.Count < int64(e.Messages) || e.Lag.Count == 0 {
				t.Errorf("%+v", e)
			}
			if !res.OK() || res.Open != conns || res.Counts[measure.Foreign.String()] != 0 {
				t.Errorf("OK is %v, counts %v, errors %v", res.OK(), res.Counts, res.Errors)
			}
			idle, messages := 0, 0
			for range conns {
				n := <-silent
				if messages += n; n == 0 {
					idle++
				}
			}
			if idle != conns-active {
				t.Errorf("%d connections were silent, want %d", idle, conns-active)
			}
			// Each connection has one message on its way.
			if got := res.Counts[measure.Echoes.String()]; got > messages || got < messages-active {
				t.Errorf("%d echoes of %d messages", got, messages)
			}
		})
	}
}

func TestSinksSeeARun(t *testing.T) {
	var phases []string
	var last measure.Snapshot
	res := mustRun(t, short(t), Config{
		URLs: []string{hub(t, relayed)}, Conns: 3, Hold: 250 * time.Millisecond, Broadcasts: 1,
		Active: 1, Echo: time.Millisecond,
		Sinks: []measure.Sink{measure.Funcs{
			OnPhase: func(name string) { phases = append(phases, name) },
			OnSnapshot: func(s *measure.Snapshot) {
				if s.At < last.At || s.Open > 3 || s.Counts[measure.Connected] > 3 || !slices.Contains(phases, s.Phase) || s.Failed() != 0 {
					t.Errorf("%+v after %+v", s, last)
				}
				last = *s
			},
		}},
	})
	want := []string{"ramp", "hold", "broadcast", "echo", "close"}
	if !slices.Equal(phases, want) {
		t.Errorf("phases %v, want %v", phases, want)
	}
	for i, p := range res.Phases {
		if p.Name != want[i] || p.Seconds < 0 || p.CPUSeconds < 0 || i > 0 && p.Begun.Before(res.Phases[i-1].Begun) {
			t.Errorf("%+v", res.Phases)
		}
	}
	if res.Phases[1].Seconds < 0.25 {
		t.Errorf("held for %v s", res.Phases[1].Seconds)
	}
	if len(res.Timeline) == 0 || last.Open != 3 || last.Opening != 0 {
		t.Errorf("timeline %v, the last snapshot %+v", res.Timeline, last)
	}
}

func TestPhasesAreLeftOut(t *testing.T) {
	rows := []struct {
		config Config
		want   string
	}{
		{Config{}, "[ramp]"},
		{Config{Hold: 1}, "[ramp hold]"},
		{Config{Broadcasts: 1}, "[ramp broadcast]"},
		{Config{Active: 1}, "[ramp]"},
		{Config{Echo: 1}, "[ramp]"},
		{Config{Active: 1, Echo: 1, Hold: 1, Broadcasts: 1}, "[ramp hold broadcast echo]"},
	}
	for _, r := range rows {
		var names []string
		r.config.URLs, r.config.Conns = []string{"ws://127.0.0.1/"}, 1
		p, err := r.config.MakePlan()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range p.Phases {
			names = append(names, p.Name)
		}
		if fmt.Sprint(names) != r.want {
			t.Errorf("%+v: %v, want %s", r.config, names, r.want)
		}
	}
}

// coordinator is a run without workers.
func coordinator() *run {
	return &run{
		begun: time.Now(), ended: make(chan error, 1), plan: &plan.Plan{}, builder: result.NewBuilder(result.Run{}),
		config: Config{Control: &Control{}}, paused: -1,
	}
}

func TestAWorkersFailureEndsThePhase(t *testing.T) {
	failed := errors.New("epoll is gone")
	r := coordinator()
	r.ended <- failed
	err := r.await(t.Context(), func(time.Duration) bool { return false })
	if !errors.Is(err, failed) || !strings.Contains(err.Error(), "a worker has failed") {
		t.Errorf("got %v", err)
	}
}

func TestAPhaseEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := coordinator()
	if err := r.await(ctx, func(time.Duration) bool { return false }); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	if err := r.await(ctx, func(time.Duration) bool { return true }); err != nil {
		t.Errorf("done already: %v", err)
	}
}

// The workers' users follow each other, and together are all of them. Each ramp is
// divided so that all workers have the same part of it.
func TestUsersAreDividedAmongWorkers(t *testing.T) {
	for _, conns := range []int{1, 2, 5, 9, 100} {
		for workers := 1; workers <= 7; workers++ {
			r := &run{config: Config{Workers: workers}, plan: users(conns), groups: []*group{{Group: &plan.Group{Users: conns}}}}
			next := 0
			for i := range workers {
				r.workers = append(r.workers, &worker{run: r, index: i})
				s := r.span(i, 0)
				if r.left = append(r.left, spans{s}); s.next != next {
					t.Errorf("%d users, worker %d of %d: %+v, not from %d on", conns, i, workers, s, next)
				}
				next = s.end
			}
			if next != conns {
				t.Errorf("%d workers have %d of %d users", workers, next, conns)
			}
			for opened, ramps := 0, []int{conns / 3, conns / 2, 0}; len(ramps) > 0; ramps = ramps[1:] {
				want, rate, all := ramps[0], 0.0, 0
				if want == 0 && len(ramps) > 1 {
					continue
				}
				for i, o := range r.rampOrders(&phase{Phase: &plan.Phase{Users: want, Rate: 12}, groups: 1}) {
					r.take(i, 1, o.count)
					rate += r.rates[i]
					all += o.count
				}
				if opened += all; want > 0 && all != want || want == 0 && opened != conns {
					t.Errorf("%d users, %d workers: a ramp of %d opens %d", conns, workers, want, all)
				}
				if all > 0 && math.Abs(rate-1) > 1e-9 {
					t.Errorf("%d users, %d workers: the parts of the rate are %v together", conns, workers, rate)
				}
			}
		}
	}
}

// users is a plan with one group.
func users(n int) *plan.Plan { return &plan.Plan{Groups: []plan.Group{{Users: n}}} }

func TestChooseWorkers(t *testing.T) {
	// A limit of 1024 leaves 960 descriptors in a table. A private table holds
	// one epoll set and all workers' wakers; the shared table holds all epoll
	// sets and all wakers.
	const limit, processors = 1024, 2
	lowerLimit(t, limit)
	rows := []struct {
		why            string
		conns, workers int
		tables         netpoll.Tables
		want, slots    int
		fails          string
	}{
		{"one for each processor", 10, 0, netpoll.Private, 2, 5, ""},
		{"one connection", 1, 0, netpoll.Private, 2, 1, ""},
		{"two tables are enough", 1914, 0, netpoll.Private, 2, 957, ""},                     // 2 × (959 − 2)
		{"two tables are not", 1915, 0, netpoll.Private, 3, 639, ""},                        // 3 × (959 − 3) = 2868
		{"six tables", 5000, 0, netpoll.Private, 6, 834, ""},                                // 5 × 954 = 4770 < 5000 ≤ 6 × 953
		{"the most that tables can hold", 229_920, 0, netpoll.Private, 479, 480, ""},        // 479 × (959 − 479)
		{"as many as wanted", 10, 4, netpoll.Private, 4, 3, ""},                             //
		{"three tables, full", 2868, 3, netpoll.Private, 3, 956, ""},                        //
		{"one table, full", 956, 0, netpoll.Shared, 2, 478, ""},                             // 960 − 2 × 2
		{"one worker, one table", 958, 1, netpoll.Shared, 1, 958, ""},                       //
		{"three tables too small", 2869, 3, netpoll.Private, 0, 0, "2868 connections"},      //
		{"one table too small", 957, 0, netpoll.Shared, 0, 0, "956 connections, not 957"},   //
		{"more than tables can hold", 229_921, 0, netpoll.Private, 0, 0, "raise the limit"}, //
	}
	for _, r := range rows {
		run := &run{config: Config{Workers: r.workers, Tables: r.tables}, plan: users(r.conns), groups: []*group{{Group: &plan.Group{Users: r.conns}}}}
		err := run.chooseWorkers(processors)
		switch {
		case (err != nil) != (r.fails != ""):
			t.Errorf("%s: %v", r.why, err)
		case err != nil && (!strings.Contains(err.Error(), r.fails) || !strings.Contains(err.Error(), "RLIMIT_NOFILE = 1024")):
			t.Errorf("%s: error %v does not contain %q", r.why, err, r.fails)
		case err == nil && (run.config.Workers != r.want || run.slots != r.slots):
			t.Errorf("%s: %d workers with %d slots, want %d with %d", r.why, run.config.Workers, run.slots, r.want, r.slots)
		}
	}
}

// lowerLimit lowers the soft RLIMIT_NOFILE for a test.
func lowerLimit(t *testing.T, to uint64) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: to, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	})
}

func TestAServerThatDoesNotEchoIsNotOK(t *testing.T) {
	url := fake(t, func(p *peer) { p.open(); p.rest() })
	res := mustRun(t, short(t), Config{
		URLs: []string{url}, Conns: 3, Active: 3, Echo: 20 * time.Millisecond, Patience: 50 * time.Millisecond,
	})
	if res.OK() || res.Lost != 3 || res.Echo.Messages != 0 {
		t.Errorf("OK is %v, %d lost, %+v", res.OK(), res.Lost, res.Echo)
	}
}

// An echo that comes twice counts as repeated, and the second one does not make
// the connection send again.
func TestEchoesThatComeTwiceAreCounted(t *testing.T) {
	url := answers(t, func() answer {
		return func(_ int, _ frame.Op, payload []byte) ([]byte, bool) {
			return append(whole(payload), whole(payload)...), true
		}
	})
	res := mustRun(t, short(t), Config{URLs: []string{url}, Conns: 1, Active: 1, Echo: 20 * time.Millisecond})
	if res.OK() || res.Counts[measure.Repeated.String()] == 0 {
		t.Errorf("OK is %v, counts %v", res.OK(), res.Counts)
	}
}

// The number of active connections is as configured, however few a worker has.
func TestTheActiveConnectionsAreAsManyAsConfigured(t *testing.T) {
	for _, active := range []int{1, 3, 4, 5} {
		const conns = 5 // four workers have 2, 2, 1 and none
		sent := make(chan int, conns)
		url := fake(t, func(p *peer) { p.open(); sent <- len(p.rest()) })
		mustRun(t, short(t), Config{
			URLs: []string{url}, Conns: conns, Active: active, Workers: 4, Echo: 150 * time.Millisecond, Patience: 50 * time.Millisecond,
		})
		busy := 0
		for range conns {
			if <-sent > 0 {
				busy++
			}
		}
		if busy != active {
			t.Errorf("%d connections are active, want %d", busy, active)
		}
	}
}

func TestTheErrorAboutWorkersHasNoNegativeNumber(t *testing.T) {
	lowerLimit(t, 1024)
	r := &run{config: Config{Tables: netpoll.Private}, plan: users(229_921), groups: []*group{{Group: &plan.Group{Users: 229_921}}}}
	if err := r.chooseWorkers(2); err == nil || strings.Contains(err.Error(), "-") || !strings.Contains(err.Error(), "229920 connections") {
		t.Errorf("got %v", err)
	}
}

// Without broadcasts the probe measures during the echoes.
func TestEchoesAreProbed(t *testing.T) {
	t.Parallel()
	res := mustRun(t, short(t), Config{
		URLs: []string{echoes(t)}, Conns: 2, Active: 1, Echo: 100 * time.Millisecond, Probe: time.Millisecond, Workers: 1,
	})
	if res.Probe == nil || res.Probe.Idle.Count == 0 || res.Probe.Busy.Count == 0 || res.Echo.Messages == 0 {
		t.Errorf("probe %+v, echo %+v", res.Probe, res.Echo)
	}
}
