package loadgen

import (
	"fmt"
	"sync"
	"testing"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// stall is how long the servers of these tests stop, and rate what is asked of them meanwhile.
const (
	stall     = 500 * time.Millisecond
	stallRate = 200 // a second
)

// stalling runs a server's steps one after the other, and once stops them all.
type stalling struct {
	mu    sync.Mutex
	after int // steps
	n     int // steps until now
}

// do does a step.
func (s *stalling) do(step func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n++; s.n == s.after {
		time.Sleep(stall) // the server stops on purpose
	}
	step()
}

// echo is an answer.
func (s *stalling) echo(n int, op frame.Op, payload []byte) (wire []byte, goesOn bool) {
	s.do(func() { wire, goesOn = same(n, op, payload) })
	return wire, goesOn
}

// expectStall checks what a stall does to times: who was due at a time in it waited until its end.
// So of the stall's length × rate, nine tenths waited longer than a tenth of it, half of them
// longer than half, and a tenth longer than nine tenths. A busy machine makes
// times longer, so only that is checked, and that the longest is not twice as long.
func expectStall(t *testing.T, h *hdr.Histogram, each int) {
	t.Helper()
	due := int(stall.Seconds()*stallRate) * each
	for _, tenths := range []int{1, 5, 9} {
		over, got := stall*time.Duration(tenths)/10, 0
		for _, bar := range h.Distribution() {
			if time.Duration(bar.To)*time.Microsecond >= over {
				got += int(bar.Count)
			}
		}
		if want := due*(10-tenths)/10 - 2*each; got < want {
			t.Errorf("%d of %d took %s or longer, want %d or more", got, h.TotalCount(), over, want)
		}
	}
	if last := time.Duration(h.Max()) * time.Microsecond; last < stall*9/10 {
		t.Errorf("the longest took %s, in a stall of %s", last, stall)
	}
	// The one that was due when the stall began waited for all of it.
	tail := 100 * (1 - float64(each)*0.1*stall.Seconds()*stallRate/float64(h.TotalCount()))
	if q := time.Duration(h.ValueAtQuantile(tail)) * time.Microsecond; q < stall*8/10 {
		t.Errorf("p%.1f is %s, as calculated it is %s", tail, q, stall*9/10)
	}
}

// A stall of the server shows in the times of all that was due in it, though the generator
// could not send it.
func TestAStallShowsInStreams(t *testing.T) {
	for _, window := range []int{1, 0} {
		t.Run(fmt.Sprint("window ", window), func(t *testing.T) {
			t.Parallel()
			s := &stalling{after: 40}
			url := answers(t, func() answer { return s.echo })
			// Each message of a stall is another user's, so window 1 omits none.
			users := 2 * int(stall.Seconds()*stallRate)
			res := runPlan(t, Config{Plan: planOf(groupOf(users, url), plan.Phase{
				Name: "talk", Kind: plan.Talk, For: 2 * stall,
				Streams: []plan.Stream{{Rate: stallRate, Window: window, Message: plan.Message{Answer: plan.Answer{Kind: plan.AnswerEcho}}}},
			})})
			if !res.OK() {
				t.Errorf("not OK: counts %v, errors %v", res.Counts, res.Errors)
			}
			if window == 0 {
				expectStall(t, res.Histograms.Of(measure.Flood), 1)
			} else {
				expectStall(t, res.Histograms.Of(measure.Echo), 1)
			}
		})
	}
}

// With one user, which waits for each answer, what is due in a stall is not sent, and is
// counted.
func TestAStallOmitsWhatHasNoRoom(t *testing.T) {
	t.Parallel()
	s := &stalling{after: 40}
	url := answers(t, func() answer { return s.echo })
	res := runPlan(t, Config{Plan: planOf(groupOf(1, url), plan.Phase{
		Name: "talk", Kind: plan.Talk, For: 2 * stall,
		Streams: []plan.Stream{{Rate: stallRate, Window: 1, Message: plan.Message{Answer: plan.Answer{Kind: plan.AnswerEcho}}}},
	})})
	asked, omitted := counted(res, measure.Asked), counted(res, measure.Omitted)
	if least, all := int(stall.Seconds()*stallRate)-2, int(2*stall.Seconds()*stallRate); omitted < least || asked+omitted > all+1 || asked+omitted < all*9/10 {
		t.Errorf("%d sent, %d omitted, of about %d", asked, omitted, all)
	}
}

// A script whose rounds begin every so often counts from when they were meant to begin.
func TestAStallShowsInScripts(t *testing.T) {
	t.Parallel()
	const users = 10
	s := &stalling{after: 40}
	url := answers(t, func() answer { return s.echo })
	g := groupOf(users, url)
	every := users * time.Second / stallRate
	g.Script = []plan.Step{{Do: plan.Repeat, Times: int(2 * stall / every), Every: every, Steps: []plan.Step{
		{Do: plan.Send, Message: plan.Message{Text: text("{{.Seq}}"), Answer: plan.Answer{Kind: plan.AnswerEcho}}},
	}}}
	res := runPlan(t, Config{Plan: planOf(g, plan.Phase{Name: "finish", Kind: plan.Finish})})
	if asked := counted(res, measure.Asked); !res.OK() || asked != users*g.Script[0].Times || counted(res, measure.Finished) != users {
		t.Errorf("OK is %v, counts %v", res.OK(), res.Counts)
	}
	expectStall(t, res.Histograms.Of(measure.Echo), 1)
}

func TestAStallShowsInPublishedMessages(t *testing.T) {
	for kind, m := range map[string]plan.Message{"generated": {}, "a text": {Text: text("{{.Seq}}")}, "the same text": {Text: text("hello")}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			const users = 4
			s := &stalling{after: 40 * users}
			url := hubOf(t, func(_, _ int, op frame.Op, payload []byte) (wire []byte, goesOn bool) {
				s.do(func() { wire = frame.Append(nil, op, payload) })
				return wire, true
			})
			res := runPlan(t, Config{Workers: 2, Plan: planOf(groupOf(users, url), plan.Phase{
				Name: "publish", Kind: plan.Publish, Count: int(2 * stall.Seconds() * stallRate), Rate: stallRate, Message: m,
			})})
			if !res.OK() {
				t.Errorf("not OK: counts %v, errors %v", res.Counts, res.Errors)
			}
			expectStall(t, res.Histograms.Of(measure.Broadcast), users)
		})
	}
}

func TestAStallShowsInHandshakes(t *testing.T) {
	t.Parallel()
	s := &stalling{after: 40}
	url := fake(t, func(p *peer) {
		r := p.request()
		s.do(func() { p.send([]byte(accept(r))) })
		p.rest()
	})
	users := int(2 * stall.Seconds() * stallRate)
	g := planOf(groupOf(users, url))
	g.Phases[0].Rate = stallRate
	res := runPlan(t, Config{Workers: 2, Plan: g})
	if !res.OK() {
		t.Errorf("not OK: counts %v, errors %v", res.Counts, res.Errors)
	}
	expectStall(t, res.Histograms.Of(measure.Handshake), 1)
}
