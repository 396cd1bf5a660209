package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// The agent's times.
const (
	reportEvery         = time.Second
	reportTimeout       = 2 * time.Second // of a report's reply
	coordinatorPatience = 7 * time.Second // without a reply, until the coordinator is lost; one more reply may take reportTimeout
)

// Config says what an agent offers.
type Config struct {
	Machine Machine // its ID is chosen at random if it is empty
	Allow   Allow   // hosts that it may connect to
	// Engine makes the engine of a run.
	Engine func() Engine
	Log    *slog.Logger
	// Clock is the machine's clock. It is for tests of wrong clocks; nil is time.Now.
	Clock func() time.Time
}

// agent waits for runs, and takes part in one at a time.
type agent struct {
	Config
	conn *nats.Conn

	mu   sync.Mutex
	duty *duty // nil if it takes part in no run
}

// Serve offers this machine to coordinators that are connected to the same NATS server,
// and takes part in their runs, one at a time, until ctx ends. It then ends a run
// that goes on, and returns when its connections are closed.
func Serve(ctx context.Context, conn *nats.Conn, c Config) error {
	c.Machine.ID = cmp.Or(c.Machine.ID, randomID())
	c.Machine.Name = cmp.Or(printable(c.Machine.Name), c.Machine.ID)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if err := c.Allow.Check(); err != nil {
		return err
	}
	a := &agent{Config: c, conn: conn}
	own, err := conn.Subscribe(agentPrefix+c.Machine.ID, func(m *nats.Msg) { a.answer(ctx, m) })
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	calls, err := conn.Subscribe(helloSubject, a.hello)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	<-ctx.Done()
	_, _ = own.Unsubscribe(), calls.Unsubscribe() // they fail only if the connection has ended
	a.wait()
	return nil
}

// hello tells a coordinator that the agent is there, unless it takes part in a run.
func (a *agent) hello(m *nats.Msg) {
	a.mu.Lock()
	busy := a.duty != nil
	a.mu.Unlock()
	if b, err := encode(a.Machine); err == nil && !busy && m.Reply != "" {
		_ = m.Respond(b) // the coordinator calls again
	}
}

// wait waits for the end of a run that goes on.
func (a *agent) wait() {
	a.mu.Lock()
	d := a.duty
	a.mu.Unlock()
	if d != nil {
		<-d.ended
	}
}

// answer answers a request. NATS calls it for one at a time.
func (a *agent) answer(ctx context.Context, m *nats.Msg) {
	var r request
	clock := a.Clock()
	err := decode(m.Data, &r)
	if err == nil {
		err = a.do(ctx, &r)
	}
	if m.Reply == "" {
		return
	}
	answer := reply{Clock: clock.UnixNano()}
	if err != nil {
		answer.Error = shorten(err.Error())
	}
	if b, err := encode(answer); err == nil {
		_ = m.Respond(b) // the coordinator asks again
	}
}

func (a *agent) do(ctx context.Context, r *request) error {
	switch r.Op {
	case opClock:
		return nil
	case opJoin:
		return a.join(ctx, r)
	}
	a.mu.Lock()
	d := a.duty
	a.mu.Unlock()
	switch {
	case d == nil || d.run != r.Run:
		return errors.New("this agent takes no part in that run")
	case r.Op == opJob && r.Part != nil:
		return d.receive(*r.Part)
	case r.Op == opOrders && r.Orders != nil:
		d.obey(*r.Orders)
		return nil
	}
	return fmt.Errorf("this agent does not know what %.40q is", r.Op)
}

// join begins to take part in a run.
func (a *agent) join(ctx context.Context, r *request) error {
	if r.Version != a.Machine.Version {
		err := fmt.Errorf("this agent is of version %.100s and the coordinator of version %.100s: install the same version of lull on both", a.Machine.Version, r.Version)
		a.Log.Warn(err.Error())
		return err
	}
	if len(r.Run) > nameMax || !isWord(r.Run) {
		return errors.New("that is no name of a run")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.duty != nil {
		if a.duty.run == r.Run {
			return nil // it was asked again, because the answer was lost
		}
		return errors.New("this agent takes part in another run")
	}
	a.Log.Info("takes part in a run", "run", r.Run)
	d := newDuty(a, r.Run)
	a.duty = d
	go func() {
		d.serve(ctx)
		a.mu.Lock()
		a.duty = nil
		a.mu.Unlock()
		close(d.ended)
	}()
	return nil
}

// last follows the plan's phases, so that all machines close their connections at the same
// time, after its barrier.
var last = plan.Phase{Name: "end", Kind: plan.Finish, For: plan.TimeMin}

// read reads a job and checks it.
func (a *agent) read(b []byte) (*job, plan.Share, error) {
	var j job
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, plan.Share{}, fmt.Errorf("the job cannot be read: %w", err)
	}
	if j.Plan == nil || len(j.Machines) > agentsMax || j.Index < 0 || j.Index >= len(j.Machines) {
		return nil, plan.Share{}, errors.New("the job has no plan, or none for this agent")
	}
	if err := errors.Join(j.Plan.Validate(), a.Allow.plan(j.Plan)); err != nil {
		return nil, plan.Share{}, err
	}
	shares, err := plan.Split(j.Plan, j.Machines)
	if err != nil {
		return nil, plan.Share{}, err
	}
	share := shares[j.Index]
	share.Plan.Phases = append(share.Plan.Phases, last)
	if most := a.Machine.Users; share.Users > most {
		return nil, plan.Share{}, fmt.Errorf("%d users are more than the %d that this agent offers", share.Users, most)
	}
	return &j, share, nil
}

func randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// printableText is a text from elsewhere without what a terminal would obey.
func printableText(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}

// printable is a name from elsewhere, not too long and without what a terminal would obey.
func printable(name string) string {
	name = printableText(name)
	if len(name) > nameMax {
		name = strings.ToValidUTF8(name[:nameMax], "")
	}
	return name
}

// shorten is an error's text in one line of bounded length.
func shorten(text string) string {
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\n", "; "), "")
	if len(text) > errorMax {
		text = strings.ToValidUTF8(text[:errorMax], "") + "…"
	}
	return text
}
