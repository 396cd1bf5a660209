package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/result"
)

// fake is an engine whose server is perfect: each user connects at once, each message
// arrives. It does a plan's phases as the engine does, and no input or output.
type fake struct {
	hold   chan struct{} // Hold phases wait until it is closed or the run is stopped; nil is not at all
	orphan chan int      // phases that listen wait until they have lost their publisher; nil is not at all

	mu      sync.Mutex
	task    Task
	changed []string // what Control did
	stopped chan struct{}
	ended   error // of the context of Run
	counts  measure.Counts
	builder *result.Builder
	sinks   []measure.Sink
	phase   int
}

func newFake() *fake { return &fake{stopped: make(chan struct{})} }

func (f *fake) Pause(paused bool)         { f.note(fmt.Sprintf("pause %v", paused)) }
func (f *fake) SetRate(perSecond float64) { f.note(fmt.Sprintf("rate %g", perSecond)) }
func (f *fake) Stop()                     { f.note("stop"); close(f.stopped) }

func (f *fake) LosePublisher(phase int) {
	f.note(fmt.Sprintf("publisher of %d lost", phase))
	if f.orphan != nil {
		f.orphan <- phase
	}
}

func (f *fake) note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changed = append(f.changed, text)
}

func (f *fake) notes() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.changed, ", ")
}

// cut reports whether the context of Run ended before the plan did.
func (f *fake) cut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended != nil
}

func (f *fake) got() Task {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.task
}

func (f *fake) Run(ctx context.Context, t Task) (*result.Result, error) {
	f.mu.Lock()
	f.task = t
	f.mu.Unlock()
	f.builder = result.NewBuilder(result.Run{Conns: t.Plan.Users(), Begun: t.Begin, Workers: 1, Sources: 1, Processors: 1})
	f.sinks = []measure.Sink{f.builder, t.Sink}
	end := result.End{}
	for i := range t.Plan.Phases {
		p := &t.Plan.Phases[i]
		if err := t.Barrier(ctx, i); err != nil {
			break
		}
		f.phase = i
		for _, s := range f.sinks {
			s.Phase(p.Name)
		}
		if err := f.do(ctx, p); err != nil {
			break
		}
	}
	select {
	case <-f.stopped:
		end.Interrupted = true
	default:
		end.Interrupted = ctx.Err() != nil
	}
	f.mu.Lock()
	f.ended = ctx.Err()
	f.mu.Unlock()
	return f.builder.Result(end), nil
}

func (f *fake) do(ctx context.Context, p *plan.Phase) error {
	users := uint64(f.task.Plan.Users())
	var times measure.Histograms
	switch p.Kind {
	case plan.Ramp:
		f.counts[measure.Connected] = users
		for range users {
			times.Record(measure.Handshake, time.Millisecond)
		}
	case plan.Hold:
		f.show(measure.Histograms{})
		if f.hold != nil {
			select {
			case <-f.hold:
			case <-f.stopped:
				return errors.New("stopped")
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	case plan.Publish:
		if p.Listen && f.orphan != nil {
			select {
			case phase := <-f.orphan:
				f.note(fmt.Sprintf("waits no longer in %d", phase))
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		n := users * uint64(p.Count)
		f.counts[measure.Received] += n
		if !p.Listen {
			f.note("publishes")
			f.counts[measure.Sent] += uint64(p.Count)
		}
		for range n {
			times.Record(measure.Broadcast, 2*time.Millisecond)
		}
		f.show(times)
		f.builder.Burst(result.Burst{Messages: p.Count, Expected: int(n), Received: int(n), Took: time.Second})
		return nil
	case plan.Talk:
		for _, s := range p.Streams {
			for range s.Users * 10 {
				f.counts[measure.Asked]++
				f.counts[measure.Echoes]++
				times.Record(measure.Echo, 3*time.Millisecond)
			}
		}
	}
	f.show(times)
	return nil
}

func (f *fake) show(times measure.Histograms) {
	s := &measure.Snapshot{
		At: time.Since(f.task.Begin), Phase: f.task.Plan.Phases[f.phase].Name, PhaseIndex: f.phase, PhaseCount: len(f.task.Plan.Phases),
		Users: f.task.Plan.Users(), Open: f.counts.Open(), Counts: f.counts, Times: times,
	}
	for _, sink := range f.sinks {
		sink.Snapshot(s)
	}
}

// watch is a sink that keeps what it is told.
type watch struct {
	mu     sync.Mutex
	phases []string
	last   measure.Snapshot
	times  measure.Histograms
	fell   bool // a count was smaller than before
}

func (w *watch) Phase(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phases = append(w.phases, name)
}

func (w *watch) Snapshot(s *measure.Snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, n := range s.Counts {
		w.fell = w.fell || n < w.last.Counts[i]
	}
	w.times.Merge(&s.Times)
	w.last = *s
}

func (w *watch) look() (phases []string, last measure.Snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.phases...), w.last
}

// foreignServer starts a NATS server as others run it; port -1 is a free one.
func foreignServer(t *testing.T, port int, payload int32) *server.Server {
	t.Helper()
	return startNATS(t, &server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true, MaxPayload: payload})
}

func startNATS(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(testkit.Patience) {
		t.Fatal("it does not start")
	}
	return s
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// place is a NATS server, agents with fake engines, and their coordinator.
type place struct {
	t      *testing.T
	server *Server
	broker Broker       // for agents
	log    *testkit.Log // the coordinator's
	watch  *watch
	remote *Remote
}

const testToken = "a token for tests"

func newPlace(t *testing.T) *place {
	t.Helper()
	s, err := NewServer("127.0.0.1:0", testToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &place{t: t, server: s, broker: Broker{URL: "nats://" + s.Addr(), Token: testToken}, log: new(testkit.Log), watch: &watch{}, remote: NewRemote()}
}

// part is an agent of a place.
type agentPart struct {
	*fake
	log  *testkit.Log
	conn *nats.Conn
	stop func() // ends it as a signal does
}

// add starts an agent. change may change what it offers.
func (p *place) add(name string, change func(*Config)) *agentPart {
	p.t.Helper()
	part := &agentPart{fake: newFake(), log: new(testkit.Log)}
	log := logTo(part.log)
	conn, err := Connect(p.t.Context(), p.broker, false, log)
	if err != nil {
		p.t.Fatal(err)
	}
	c := Config{
		Machine: Machine{Name: name, Version: "v1", Machine: plan.Machine{Cores: 1, Users: 1 << 20}},
		Engine:  func() Engine { return part.fake }, Log: log,
	}
	if change != nil {
		change(&c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, conn, c) }()
	part.conn = conn
	part.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Error(err)
		}
	})
	p.t.Cleanup(func() {
		part.stop()
		conn.Close()
	})
	return part
}

// outcome is what Coordinate returns.
type outcome struct {
	*result.Result
	err error
}

// start starts a coordinator.
func (p *place) start(ctx context.Context, plan *plan.Plan, agents int) <-chan outcome {
	p.t.Helper()
	log := logTo(p.log)
	conn, err := Connect(ctx, p.broker, false, log)
	if p.server != nil {
		conn, err = p.server.Connect(log)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(conn.Close)
	done := make(chan outcome, 1)
	go func() {
		r, err := Coordinate(ctx, conn, Options{
			Plan: plan, Version: "v1", Min: agents, Wait: testkit.Patience, Sinks: []measure.Sink{p.watch}, Control: p.remote, Log: log,
		})
		done <- outcome{r, err}
	}()
	return done
}

// connected waits until all users are connected.
func (p *place) connected(users int) {
	p.t.Helper()
	testkit.Eventually(p.t, "all are connected", func() bool {
		_, last := p.watch.look()
		return last.Open == users && last.Phase == "hold"
	})
}

func (p *place) end(done <-chan outcome) *result.Result {
	p.t.Helper()
	select {
	case o := <-done:
		if o.err != nil {
			p.t.Fatal(o.err)
		}
		return o.Result
	case <-time.After(2 * testkit.Patience):
		p.t.Fatal("the run does not end")
		return nil
	}
}

// load is a plan with all that the fake can do.
func load(users int) *plan.Plan {
	return &plan.Plan{
		Name:   "test",
		Groups: []plan.Group{{Name: "all", Users: users, URLs: []*plan.Text{plan.Plain("ws://127.0.0.1:9/")}}},
		Phases: []plan.Phase{
			{Name: "ramp", Kind: plan.Ramp, Rate: 1000},
			{Name: "hold", Kind: plan.Hold, For: time.Second},
			{Name: "publish", Kind: plan.Publish, Count: 7},
			{Name: "talk", Kind: plan.Talk, For: time.Second, Streams: []plan.Stream{{Users: min(30, users), Window: 1, Message: plan.Message{Answer: plan.Answer{Kind: plan.AnswerEcho}}}}},
		},
	}
}
