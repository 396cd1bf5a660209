package agent

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

func TestAgentsAreOneGenerator(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	const ahead = time.Hour
	agents := []*agentPart{
		p.add("a", nil),
		p.add("a", func(c *Config) { c.Machine.Cores = 2 }),
		p.add("b", func(c *Config) { c.Clock = func() time.Time { return time.Now().Add(ahead) } }),
	}
	r := p.end(p.start(t.Context(), load(100), len(agents)))

	if !r.OK() || !r.Valid {
		t.Errorf("it is not well: %+v", r)
	}
	for counter, want := range map[measure.Counter]int{measure.Connected: 100, measure.Sent: 7, measure.Received: 700, measure.Asked: 300, measure.Echoes: 300} {
		if got := r.Counts[counter.String()]; got != want {
			t.Errorf("%d %s, not %d", got, counter, want)
		}
	}
	if r.Conns != 100 || r.Open != 100 || r.Lost != 0 || r.Processors != 4 {
		t.Errorf("%d of %d open, %d lost, %d processors", r.Open, r.Conns, r.Lost, r.Processors)
	}
	for kind, want := range map[measure.Kind]int64{measure.Handshake: 100, measure.Broadcast: 700, measure.Echo: 300} {
		if got := r.Histograms.Of(kind).TotalCount(); got != want {
			t.Errorf("%d times of %s, not %d", got, kind, want)
		}
		if got := p.watch.times.Of(kind).TotalCount(); got != want {
			t.Errorf("the sink was told of %d times of %s, not %d", got, kind, want)
		}
	}
	if len(r.Broadcasts) != 1 || r.Broadcasts[0].Expected != 700 || r.Broadcasts[0].Received != 700 || r.Broadcasts[0].Latency.Count != 700 {
		t.Errorf("broadcasts %+v", r.Broadcasts)
	}
	phases, last := p.watch.look()
	if want := []string{"ramp", "hold", "publish", "talk", "close"}; !slices.Equal(phases, want) || p.watch.fell {
		t.Errorf("phases %v; a count fell: %v", phases, p.watch.fell)
	}
	if last.Users != 100 || last.Counts[measure.Echoes] != 300 {
		t.Errorf("the last snapshot is %+v", last)
	}
	// What belongs to a phase is there when the next one begins.
	for i, kind := range []measure.Kind{0: measure.Handshake, 2: measure.Broadcast, 3: measure.Echo} {
		if i == 1 {
			continue
		}
		if got, want := r.Phases[i].Times[kind.String()].Count, r.Histograms.Of(kind).TotalCount(); got != want {
			t.Errorf("phase %s has %d of %d times of %s", r.Phases[i].Name, got, want, kind)
		}
	}
	checkTasks(t, agents)
	var names []string
	for _, a := range r.Agents {
		names = append(names, a.Name)
		if wrong := a.Name == "b"; (a.ClockAhead > 1e6) != wrong {
			t.Errorf("the clock of %s is %.0f ms ahead", a.Name, a.ClockAhead)
		}
	}
	if slices.Sort(names); !slices.Equal(names, []string{"a", "a-2", "b"}) {
		t.Errorf("agents %v", names)
	}
}

// checkTasks checks that the machines have different users, and begin the same run at the
// same time whatever their clocks show.
func checkTasks(t *testing.T, agents []*agentPart) {
	t.Helper()
	seen := map[int]bool{}
	for _, a := range agents {
		task := a.got()
		if task.RunID == 0 || task.RunID != agents[0].got().RunID {
			t.Errorf("the run is %d for one and %d for another", task.RunID, agents[0].got().RunID)
		}
		if apart := task.Begin.Sub(agents[0].got().Begin).Abs(); apart > time.Minute {
			t.Errorf("agents begin %v apart", apart)
		}
		for i := range task.Plan.Users() {
			if seen[task.First+i] {
				t.Errorf("user %d is there twice", task.First+i)
			}
			seen[task.First+i] = true
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d users", len(seen))
	}
}

func TestALostAgentIsReportedAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	agents := []*agentPart{p.add("a", nil), p.add("b", nil), p.add("c", nil)}
	hold := make(chan struct{})
	for _, a := range agents {
		a.hold = hold
	}
	done := p.start(t.Context(), load(99), len(agents))
	p.connected(99)
	agents[1].conn.Close() // as if its machine had gone
	testkit.Eventually(t, "it is lost", func() bool { return p.log.Has("agent b was lost") })
	close(hold)
	r := p.end(done)

	if r.OK() || r.Valid || r.Open != 66 || r.Conns != 99 {
		t.Errorf("%d of %d open; valid %v", r.Open, r.Conns, r.Valid)
	}
	for counter, want := range map[measure.Counter]int{measure.Connected: 99, measure.Vanished: 33, measure.Received: 66 * 7} {
		if got := r.Counts[counter.String()]; got != want {
			t.Errorf("%d %s, not %d", got, counter, want)
		}
	}
	if got := r.Histograms.Of(measure.Handshake).TotalCount(); got != 99 {
		t.Errorf("%d handshakes were timed", got)
	}
	if len(r.Errors) != 1 || r.Errors[0].Count != 33 || !strings.Contains(r.Errors[0].Text, "nothing was heard of it") {
		t.Errorf("errors %+v", r.Errors)
	}
	lost := slices.IndexFunc(r.Agents, func(a result.Agent) bool { return a.Lost != "" })
	if lost < 0 || r.Agents[lost].Name != "b" || !slices.ContainsFunc(r.Limited, func(l string) bool { return strings.Contains(l, "its 33 users count as lost") }) {
		t.Errorf("agents %+v, limited %q", r.Agents, r.Limited)
	}
	testkit.Eventually(t, "the agent says so", func() bool { return agents[1].log.Has("the coordinator is lost") })
	testkit.Eventually(t, "its engine ends", agents[1].cut)
}

func TestAnAgentThatIsEndedSaysSo(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	agents := []*agentPart{p.add("a", nil), p.add("b", nil)}
	hold := make(chan struct{})
	for _, a := range agents {
		a.hold = hold
	}
	done := p.start(t.Context(), load(10), len(agents))
	p.connected(10)
	agents[0].stop()
	testkit.Eventually(t, "it is said", func() bool { return p.log.Has("this agent was ended") })
	close(hold)
	if r := p.end(done); r.Open != 5 || r.Counts[measure.Vanished.String()] != 5 {
		t.Errorf("%d open, %v", r.Open, r.Counts)
	}
}

// Those who listen wait for nothing of a publisher that is lost, and the run goes on.
func TestNobodyWaitsForAPublisherThatIsLost(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	agents := []*agentPart{p.add("a", nil), p.add("b", nil)}
	for _, a := range agents {
		a.orphan = make(chan int, 1)
	}
	done := p.start(t.Context(), load(10), len(agents))
	publisher, listener := agents[0], agents[1]
	testkit.Eventually(t, "one publishes", func() bool {
		if listener.notes() == "publishes" {
			publisher, listener = listener, publisher
		}
		return publisher.notes() == "publishes"
	})
	publisher.stop()
	r := p.end(done)
	if notes := listener.notes(); !strings.Contains(notes, "waits no longer in 2") || len(r.Agents) != 2 || r.Open != 5 {
		t.Errorf("%q; %d open, agents %+v", notes, r.Open, r.Agents)
	}
}

func TestAgentsOfAnotherVersionAreRefused(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	other := p.add("old", func(c *Config) { c.Machine.Version = "v0" })
	p.add("new", nil)
	r := p.end(p.start(t.Context(), load(10), 1))
	if len(r.Agents) != 1 || r.Agents[0].Name != "new" {
		t.Errorf("agents %+v", r.Agents)
	}
	if !p.log.Has("agent old is of version v0 and this coordinator of version v1, so it takes no part: install the same version") {
		t.Error("the coordinator does not say so")
	}
	testkit.Eventually(t, "the agent says so", func() bool {
		return other.log.Has("this agent is of version v0 and the coordinator of version v1: install the same version")
	})
}

func TestPauseRateAndStopReachAll(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	agents := []*agentPart{p.add("a", nil), p.add("b", func(c *Config) { c.Machine.Cores = 3 })}
	for _, a := range agents {
		a.hold = make(chan struct{})
	}
	done := p.start(t.Context(), load(100), len(agents))
	p.connected(100)
	all := func(what, a, b string) {
		testkit.Eventually(t, what, func() bool {
			return strings.HasSuffix(agents[0].notes(), a) && strings.HasSuffix(agents[1].notes(), b)
		})
	}
	p.remote.Pause(true)
	all("all pause", "pause true", "pause true")
	p.remote.Pause(false)
	all("all go on", "pause false", "pause false")
	p.remote.SetRate(40)
	all("all have their part of the rate", "rate 10", "rate 30")
	p.remote.Stop()
	all("all stop", "stop", "stop")
	if r := p.end(done); !r.Interrupted || r.Open != 100 {
		t.Errorf("interrupted %v, %d open", r.Interrupted, r.Open)
	}
}

func TestAnInterruptedRunHasAResult(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := p.add("a", nil)
	a.hold = make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	done := p.start(ctx, load(100), 1)
	p.connected(100)
	stop()
	if r := p.end(done); !r.Interrupted || r.Counts["connected"] != 100 {
		t.Errorf("interrupted %v, %v", r.Interrupted, r.Counts)
	}
}

func TestAgentsEndTheirPartWithoutACoordinator(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := p.add("a", nil)
	a.hold = make(chan struct{})
	p.start(t.Context(), load(100), 1)
	p.connected(100)
	p.server.Close()
	testkit.Eventually(t, "it says so", func() bool { return a.log.Has("the coordinator is lost: it has not answered") })
	testkit.Eventually(t, "its engine ends", a.cut)
}

func TestAnAgentServesOneRunAfterTheOther(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := p.add("a", nil)
	if r := p.end(p.start(t.Context(), load(10), 1)); !r.OK() {
		t.Errorf("%+v", r)
	}
	*a.fake = *newFake()
	p.watch = &watch{}
	if r := p.end(p.start(t.Context(), load(20), 1)); !r.OK() || r.Conns != 20 {
		t.Errorf("%+v", r)
	}
}

func TestPlansThatAnAgentRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*Config)
		plan   func(*plan.Plan)
		want   string
	}{
		"another host": {func(c *Config) { c.Allow = Allow{"10.0.0.0/8", "chat.example.com"} }, nil, `"127.0.0.1" is not among the hosts that this agent allows`},
		"not valid":    {nil, func(p *plan.Plan) { p.Phases[0].Name = "hold" }, `is there twice`},
		"too many":     {nil, func(p *plan.Plan) { p.Groups[0].Users = 2 << 20 }, "more machines are needed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.add("a", test.change)
			l := load(10)
			if test.plan != nil {
				test.plan(l)
			}
			if o := <-p.start(t.Context(), l, 1); o.err == nil || !strings.Contains(o.err.Error(), test.want) {
				t.Errorf("%v", o.err)
			}
		})
	}
}

func TestTextsAreNotPublishedBySeveralAgents(t *testing.T) {
	t.Parallel()
	l := load(10)
	l.Phases[2].Message.Text = plan.Plain("news")
	for _, agents := range []int{1, 2} { // that are waited for; two are there
		p := newPlace(t)
		p.add("a", nil)
		p.add("b", nil)
		if o := <-p.start(t.Context(), l, agents); o.err == nil || !strings.Contains(o.err.Error(), `phase "publish" publishes a text`) {
			t.Errorf("%v", o.err)
		}
	}
}

func TestALargePlanArrives(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a := p.add("a", nil)
	l := load(10)
	file := slices.Repeat([]string{strings.Repeat("x", 1000)}, 5000)
	l.Files = map[string][]string{"names.txt": file}
	if r := p.end(p.start(t.Context(), l, 1)); !r.OK() {
		t.Errorf("%+v", r)
	}
	if got := a.got().Plan.Files["names.txt"]; !slices.Equal(got, file) {
		t.Errorf("%d lines have come", len(got))
	}
}

func TestMoreAgentsThanUsers(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for range 3 {
		p.add("a", nil)
	}
	l := load(2)
	l.Phases = l.Phases[:2]
	if r := p.end(p.start(t.Context(), l, 3)); !r.OK() || len(r.Agents) != 2 {
		t.Errorf("%+v", r)
	}
}

func TestTooFewAgentsAreSaid(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.add("a", nil)
	conn, err := p.server.Connect(logTo(p.log))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = Coordinate(t.Context(), conn, Options{Plan: load(1), Version: "v1", Min: 2, Wait: 2 * time.Second, Log: logTo(p.log)})
	if err == nil || !strings.Contains(err.Error(), "1 of 2 agents came within 2s") {
		t.Errorf("%v", err)
	}
}
