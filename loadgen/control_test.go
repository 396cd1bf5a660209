package loadgen

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// pausing pauses a run for a time, once some counters have reached a number in a phase. It is a
// sink.
type pausing struct {
	control  Control
	phase    string
	begins   func(*measure.Counts) bool
	lasts    time.Duration
	began    time.Duration
	over     bool
	paused   int            // snapshots in the pause
	at, last measure.Counts // when all workers know of the pause, and at its end
}

func (p *pausing) Phase(name string) { p.phase = name }

func (p *pausing) Snapshot(s *measure.Snapshot) {
	switch {
	case p.over:
	case !s.Paused && s.Phase == p.phase && p.phase != "ramp" && p.begins(&s.Counts):
		p.control.Pause(true)
	case s.Paused && p.paused == 0:
		p.began, p.paused = s.At, 1
	case s.Paused:
		if p.last = s.Counts; p.paused == 1 {
			p.at = s.Counts
		}
		if p.paused++; s.At-p.began > p.lasts {
			p.control.Pause(false)
			p.over = true
		}
	}
}

// In a pause nothing is begun. Then all goes on as if it had not been: no rush, and no phase that
// gives up or ends early.
func TestAPauseShiftsWhatIsToCome(t *testing.T) {
	const users, pause = 10, 2 * time.Second
	answer := plan.Message{Answer: answered(plan.AnswerEcho)}
	for name, row := range map[string]struct {
		script    []plan.Step
		phase     plan.Phase
		begun     []measure.Counter // what the phase begins
		most      int               // of these
		reconnect bool
	}{
		"streams": {nil, plan.Phase{Kind: plan.Talk, For: time.Second, Streams: []plan.Stream{{Rate: 80, Window: 8, Message: answer}}},
			[]measure.Counter{measure.Asked, measure.Omitted}, 82, false},
		"publish": {nil, plan.Phase{Kind: plan.Publish, Rate: 100, Count: 40}, []measure.Counter{measure.Sent}, 40, false},
		"churn":   {nil, plan.Phase{Kind: plan.Churn, For: time.Second, Rate: 40}, []measure.Counter{measure.Left}, 42, false},
		"drain":   {nil, plan.Phase{Kind: plan.Drain, Rate: 25}, []measure.Counter{measure.Left}, users, true},
		"storm":   {nil, plan.Phase{Kind: plan.Storm, Rate: 25}, []measure.Counter{measure.Returned}, users, false},
		"scripts": {[]plan.Step{{Do: plan.Repeat, Times: 40, Steps: []plan.Step{send(answer), {Do: plan.Pause, Think: plan.Think{Mean: 10 * time.Millisecond}}}}},
			plan.Phase{Kind: plan.Finish}, []measure.Counter{measure.Asked}, 40 * users, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := echoes(t)
			if row.phase.Kind == plan.Publish {
				url = chats(t)
			}
			g := groupOf(users, url)
			g.Script, g.Reconnect = row.script, row.reconnect
			row.phase.Name = "phase"
			p := &pausing{lasts: pause, begins: func(c *measure.Counts) bool { return c.Sum(row.begun...) > 1 }}
			res := runPlan(t, Config{
				Workers: 2, Plan: planOf(g, row.phase), Sinks: []measure.Sink{p}, Control: &p.control, Patience: pause / 2,
			})
			if !p.over {
				t.Fatalf("there was no pause; counts %v", res.Counts)
			}
			if began, ended := p.at.Sum(row.begun...), p.last.Sum(row.begun...); row.phase.Kind != plan.Storm && began != ended {
				t.Errorf("%d were begun in the pause", ended-began)
			}
			n := counted(res, row.begun...)
			if all := row.phase.Kind; n > row.most || (all == plan.Publish || all == plan.Drain || all == plan.Storm || all == plan.Finish) && n != row.most {
				t.Errorf("%d were begun, want %d", n, row.most)
			}
			if n <= int(p.last.Sum(row.begun...)) {
				t.Errorf("all of %d were begun before or in the pause", n)
			}
			if !res.OK() {
				t.Errorf("not OK: %d lost, early %q, counts %v", res.Lost, res.Early, res.Counts)
			}
			for _, k := range []measure.Kind{measure.Echo, measure.Broadcast} {
				if h := res.Histograms.Of(k); h.TotalCount() > 0 && time.Duration(h.ValueAtQuantile(50))*time.Microsecond > pause/2 {
					t.Errorf("half of the %s took %d µs: the pause is in them", k, h.ValueAtQuantile(50))
				}
			}
		})
	}
}

// A phase at a rate of one a second would take minutes. At a new rate it is over soon.
func TestRatesOfAllPhasesCanBeChanged(t *testing.T) {
	const users = 100
	answer := plan.Message{Answer: answered(plan.AnswerEcho)}
	for name, row := range map[string]struct {
		ramp  bool
		phase plan.Phase
		what  measure.Counter
		least int
	}{
		"ramp":    {true, plan.Phase{Kind: plan.Ramp, Rate: 1}, measure.Connected, users},
		"drain":   {false, plan.Phase{Kind: plan.Drain, Rate: 1}, measure.Left, users},
		"storm":   {false, plan.Phase{Kind: plan.Storm, Rate: 1}, measure.Returned, users},
		"churn":   {false, plan.Phase{Kind: plan.Churn, Rate: 1, For: 700 * time.Millisecond}, measure.Returned, 10}, // and not one: a busy machine may be late
		"publish": {false, plan.Phase{Kind: plan.Publish, Rate: 1, Count: users}, measure.Sent, users},
		"talk": {false, plan.Phase{Kind: plan.Talk, For: 700 * time.Millisecond, Streams: []plan.Stream{
			{Users: 1, Rate: 1, Message: answer}, {Users: 5, Rate: 3, Message: answer, Window: 8}, {Users: 20, Message: answer, Window: 1},
		}}, measure.Flooded, 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := echoes(t)
			if row.phase.Kind == plan.Publish {
				url = chats(t)
			}
			row.phase.Name = "phase"
			p := planOf(groupOf(users, url), row.phase)
			if row.ramp {
				p.Phases = p.Phases[1:]
			}
			var control Control
			faster := sync.OnceFunc(func() { control.SetRate(500) })
			res := runPlan(t, Config{Workers: 3, Plan: p, Control: &control, Sinks: []measure.Sink{measure.Funcs{OnSnapshot: func(s *measure.Snapshot) {
				if s.Phase == "phase" {
					faster()
				}
			}}}})
			if n := counted(res, row.what); n < row.least || !res.OK() {
				t.Errorf("OK is %v, %d of %s, want %d; counts %v", res.OK(), n, row.what, row.least, res.Counts)
			}
			for _, why := range res.Limited {
				if strings.Contains(why, "instead of") { // for the rest, this machine may be busy
					t.Errorf("limited: %s", why)
				}
			}
		})
	}
}

// A run that is stopped ends at once, whatever it does, and has its result.
func TestAStoppedRunEnds(t *testing.T) {
	for name, phase := range map[string]plan.Phase{
		"hold":  {Kind: plan.Hold, For: time.Hour},
		"talk":  {Kind: plan.Talk, For: time.Hour, Streams: []plan.Stream{{Window: 1, Rate: 100, Message: plan.Message{Answer: answered(plan.AnswerEcho)}}}},
		"drain": {Kind: plan.Drain, Rate: 0.01},
		"pause": {Kind: plan.Hold, For: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			phase.Name = "phase"
			var control Control
			res := mustRun(t, short(t), Config{Plan: planOf(groupOf(3, echoes(t)), phase), Control: &control, Sinks: []measure.Sink{measure.Funcs{OnSnapshot: func(s *measure.Snapshot) {
				if s.Phase != "phase" {
					return
				}
				if name == "pause" {
					control.Pause(true)
				}
				control.Stop()
			}}}})
			if !res.Interrupted || counted(res, measure.Connected) != 3 {
				t.Errorf("interrupted is %v, counts %v", res.Interrupted, res.Counts)
			}
		})
	}
}

// meeting lets two runs begin each phase together.
type meeting struct {
	mu      sync.Mutex
	arrived map[int]chan struct{}
}

func (m *meeting) barrier(ctx context.Context, phase int) error {
	m.mu.Lock()
	both := m.arrived[phase]
	if both == nil {
		both = make(chan struct{})
		m.arrived[phase] = both
	} else {
		close(both)
	}
	m.mu.Unlock()
	select {
	case <-both:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Two machines carry out one load: one publishes, and the users of both receive. Then each asks
// and has its own answers.
func TestTwoRunsShareALoad(t *testing.T) {
	t.Parallel()
	const users, messages = 6, 30
	url := chats(t)
	talk := plan.Phase{Name: "talk", Kind: plan.Talk, For: 200 * time.Millisecond, Streams: []plan.Stream{
		{Rate: 100, Window: 4, Message: plan.Message{Answer: answered(plan.AnswerEcho)}},
	}}
	m, begin := &meeting{arrived: map[int]chan struct{}{}}, time.Now().Add(50*time.Millisecond)
	results := make([]*Result, 2)
	var running sync.WaitGroup
	for i := range results {
		first := plan.Phase{Name: "first", Kind: plan.Publish, Count: messages, Rate: 200, Listen: i == 1}
		second := plan.Phase{Name: "second", Kind: plan.Publish, Count: messages, Rate: 200, Listen: i == 0}
		p := &plan.Plan{Groups: []plan.Group{groupOf(users, url), groupOf(2, echoes(t))}}
		p.Groups[1].Name = "talkers"
		talk := talk
		talk.Streams = []plan.Stream{talk.Streams[0]}
		talk.Streams[0].Groups = []string{"talkers"}
		first.Groups, second.Groups = []string{"users"}, []string{"users"}
		p.Phases = []plan.Phase{{Name: "ramp", Kind: plan.Ramp}, first, talk, second}
		config := Config{Plan: p, RunID: 7, First: i * (users + 2), Begin: begin, Barrier: m.barrier, Workers: 2, Patience: 5 * time.Second}
		running.Go(func() {
			res, err := Run(short(t), config)
			if err != nil {
				t.Error(err)
				return
			}
			results[i] = res
		})
	}
	running.Wait()
	for i, res := range results {
		if res == nil {
			return
		}
		if !res.OK() || counted(res, measure.Received) != 2*messages*users || counted(res, measure.Sent) != messages || counted(res, measure.Foreign, measure.Strayed, measure.OutOfRange) != 0 {
			t.Errorf("run %d: OK is %v, %d lost, counts %v", i, res.OK(), res.Lost, res.Counts)
		}
		if asked := counted(res, measure.Asked); asked == 0 || asked != counted(res, measure.Echoes) {
			t.Errorf("run %d: %d asked, counts %v", i, asked, res.Counts)
		}
	}
}

// Who watches sees the run also while it waits for other machines.
func TestARunIsSeenAtABarrier(t *testing.T) {
	t.Parallel()
	var snapshots atomic.Int64
	runPlan(t, Config{
		Plan:  planOf(groupOf(2, echoes(t)), plan.Phase{Name: "hold", Kind: plan.Hold, For: time.Millisecond}),
		Sinks: []measure.Sink{measure.Funcs{OnSnapshot: func(*measure.Snapshot) { snapshots.Add(1) }}},
		Barrier: func(_ context.Context, phase int) error {
			if phase == 1 {
				before := snapshots.Load()
				testkit.Eventually(t, "there are snapshots", func() bool { return snapshots.Load() > before+2 })
			}
			return nil
		},
	})
}

// Who listens does not wait for a publisher that is lost.
func TestNobodyWaitsForALostPublisher(t *testing.T) {
	t.Parallel()
	const users = 3
	var control Control
	res := runPlan(t, Config{
		Plan:     planOf(groupOf(users, echoes(t)), plan.Phase{Name: "listen", Kind: plan.Publish, Count: 5, Listen: true}),
		Patience: time.Hour, Control: &control,
		Sinks: []measure.Sink{measure.Funcs{OnPhase: func(name string) {
			if name == "listen" {
				control.LosePublisher(1)
			}
		}}},
	})
	if res.Lost != 5*users || res.Open != users {
		t.Errorf("%d lost, %d open", res.Lost, res.Open)
	}
}

// Nobody gets in, or nobody is left: the run ends at once, and says why.
func TestARunThatNobodyIsInEnds(t *testing.T) {
	hold := plan.Phase{Name: "hold", Kind: plan.Hold, For: time.Hour}
	for name, row := range map[string]struct {
		server    func(*peer)
		early     string
		rampAlone bool // there is no phase after it
	}{
		"refused":                   {func(p *peer) { p.request(); p.send([]byte("HTTP/1.1 503 Busy\r\n\r\n")) }, "nobody got in: 5 × ", false},
		"refused in the last phase": {func(p *peer) { p.request(); p.send([]byte("HTTP/1.1 503 Busy\r\n\r\n")) }, "nobody got in: 5 × ", true},
		"closed":                    {func(p *peer) { p.open(frame.AppendClose(nil, frame.Code(1003), "bad json")); p.rest() }, "nobody is left: 5 × 1003 bad json", false},
		"ended":                     {func(p *peer) { p.open() }, "nobody is left: 5 × ", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := planOf(groupOf(5, fake(t, row.server)), hold)
			if row.rampAlone {
				p = planOf(p.Groups[0])
			}
			res := runPlan(t, Config{Workers: 2, Plan: p})
			if len(res.Early) < len(row.early) || res.Early[:len(row.early)] != row.early || res.OK() {
				t.Errorf("OK is %v, early %q, want %q", res.OK(), res.Early, row.early)
			}
		})
	}
}

// A chat where echoes were expected: each receives the messages of all.
func TestAChatIsNoEcho(t *testing.T) {
	t.Parallel()
	const users = 4
	url := chats(t)
	for kind, wrong := range map[string][]measure.Counter{"generated": {measure.Strayed}, "text": {measure.Mismatched, measure.Foreign}} {
		m := plan.Message{Answer: answered(plan.AnswerEcho)}
		if kind == "text" {
			m.Text = text("{{.Conn}} {{.Seq}}")
		}
		res := runPlan(t, Config{Workers: 1, Plan: planOf(groupOf(users, url), plan.Phase{Name: "talk", Kind: plan.Talk, For: 100 * time.Millisecond, Streams: []plan.Stream{{Rate: 200, Window: 1, Message: m}}})})
		asked, others := counted(res, measure.Asked), counted(res, wrong...)
		if asked == 0 || others != asked*(users-1) || counted(res, measure.Echoes) != asked {
			t.Errorf("%s: %d asked, %d of others; counts %v", kind, asked, others, res.Counts)
		}
	}
}
