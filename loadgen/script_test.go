package loadgen

import (
	"container/heap"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// A script may mix messages and answers of all kinds.
func TestScriptsMixMessagesAndAnswers(t *testing.T) {
	t.Parallel()
	const users, times = 5, 3
	var digits plan.Pattern
	if err := digits.UnmarshalText([]byte(`^\{"n":[0-9]+\}$`)); err != nil {
		t.Fatal(err)
	}
	g := groupOf(users, echoes(t))
	number := text(`{"n":{{.Seq}}}`)
	g.Script = []plan.Step{repeat(times,
		send(plan.Message{Text: text("nobody answers"), Answer: plan.Answer{}}),
		send(plan.Message{Answer: answered(plan.AnswerAny)}), // and the echo of the first is that
		send(plan.Message{Answer: answered(plan.AnswerEcho)}),
		send(plan.Message{Text: number, Answer: answered(plan.AnswerEcho)}),
		send(plan.Message{Text: number, Answer: plan.Answer{Kind: plan.AnswerContains, Contains: text("{{.Seq}}")}}),
		send(plan.Message{Text: number, Answer: plan.Answer{Kind: plan.AnswerMatch, Match: &digits}}),
		send(plan.Message{Size: 100, Answer: answered(plan.AnswerEcho)}),
	)}
	res := runPlan(t, Config{Workers: 2, Plan: planOf(g, finish)})
	expect(t, res, map[measure.Counter]int{
		measure.Connected: users, measure.Finished: users, measure.Told: users * times, measure.Asked: users * times * 6, measure.Echoes: users * times * 6,
		measure.Foreign: users * times, // an echo that nobody waits for any more
	})
	if !res.OK() || res.Lost != 0 {
		t.Errorf("OK is %v, %d lost", res.OK(), res.Lost)
	}
}

// What should not be answered may be, and is no answer to anything.
func TestAnswersThatNobodyWantsAreForeign(t *testing.T) {
	t.Parallel()
	g := groupOf(3, echoes(t))
	g.Script = []plan.Step{send(plan.Message{}), send(plan.Message{Text: text("x")}), send(plan.Message{Answer: answered(plan.AnswerEcho)})}
	res := runPlan(t, Config{Plan: planOf(g, finish)})
	expect(t, res, map[measure.Counter]int{
		measure.Connected: 3, measure.Finished: 3, measure.Told: 6, measure.Asked: 3, measure.Echoes: 3, measure.Foreign: 6,
	})
}

// A script goes on without an answer that does not come in time. One that comes later is
// none, and is counted.
func TestScriptsGoOnWithoutAnAnswer(t *testing.T) {
	for kind, row := range map[string]struct {
		message plan.Message
		late    measure.Counter
	}{
		"generated": {plan.Message{}, measure.Repeated},
		"text":      {plan.Message{Text: text("message {{.Seq}}")}, measure.Mismatched},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			const users = 3
			url := answers(t, func() func(int, frame.Op, []byte) ([]byte, bool) {
				var late []byte
				return func(n int, op frame.Op, payload []byte) ([]byte, bool) {
					f := frame.Append(nil, op, payload)
					if n == 1 {
						late = f
						return nil, true
					}
					return append(late, f...), true
				}
			})
			g := groupOf(users, url)
			row.message.Answer = plan.Answer{Kind: plan.AnswerEcho, Within: 100 * time.Millisecond}
			last := row.message
			last.Answer.Within = 0
			g.Script = []plan.Step{send(last), send(row.message), send(last), {Do: plan.Close}}
			// The late answer is sent before that to the third message.
			res := runPlan(t, Config{Plan: planOf(g, finish)})
			expectCounts(t, res, map[measure.Counter]int{
				measure.Connected: users, measure.Finished: users, measure.Left: users, measure.Asked: 3 * users, measure.Echoes: 2 * users,
				measure.Unanswered: users, row.late: users,
			})
			if res.OK() || res.Lost != users || res.Gone != users {
				t.Errorf("OK is %v, %d lost, %d gone", res.OK(), res.Lost, res.Gone)
			}
		})
	}
}

// Repeats may be in repeats. Who has closed its connection is gone, also in a group that
// reconnects, and the run has come to its end.
func TestScriptsRepeatAndClose(t *testing.T) {
	for _, reconnect := range []bool{false, true} {
		const users = 4
		g := groupOf(users, echoes(t))
		g.Reconnect = reconnect
		ask := send(plan.Message{Text: text("{{.Seq}}"), Answer: answered(plan.AnswerEcho)})
		g.Script = []plan.Step{repeat(2, ask, repeat(3, ask, repeat(2, ask))), repeat(2, ask), {Do: plan.Close}}
		res := runPlan(t, Config{Workers: 2, Plan: planOf(g, finish)})
		const each = 2*(1+3*(1+2)) + 2
		expectCounts(t, res, map[measure.Counter]int{
			measure.Connected: users, measure.Finished: users, measure.Left: users, measure.Asked: each * users, measure.Echoes: each * users,
		})
		if !res.OK() || res.Open != 0 || res.Gone != users {
			t.Errorf("OK is %v, %d open, %d gone, early %q", res.OK(), res.Open, res.Gone, res.Early)
		}
	}
}

// A script that waits for nothing leaves its worker time for others, and waits when the server reads slowly.
func TestScriptsThatDoNotWaitLeaveTimeForOthers(t *testing.T) {
	t.Parallel()
	const asked = 20
	var served atomic.Bool
	busy := groupOf(1, fake(t, func(p *peer) {
		p.open()
		for !served.Load() { // a slow reader, so that the socket is full
			time.Sleep(5 * time.Millisecond)
			if _, _, ok := p.next(); !ok {
				return
			}
		}
		p.rest()
	}))
	busy.Name = "busy"
	busy.Script = []plan.Step{repeat(1_000_000_000, send(plan.Message{Size: 1000}))}
	polite := groupOf(1, echoes(t))
	polite.Name = "polite"
	polite.Script = []plan.Step{{Do: plan.Pause, Think: plan.Think{Mean: 20 * time.Millisecond}}, repeat(asked, send(plan.Message{Answer: answered(plan.AnswerEcho)}))}
	p := &plan.Plan{Groups: []plan.Group{busy, polite}, Phases: []plan.Phase{{Name: "ramp", Kind: plan.Ramp}, {Name: "hold", Kind: plan.Hold, For: time.Hour}}}
	res := runUntil(t, Config{Workers: 1, Plan: p, Control: &Control{}}, func(s *measure.Snapshot) bool {
		done := received(s) == asked
		if done {
			served.Store(true)
		}
		return done
	})
	if counted(res, measure.Told) == 0 || counted(res, measure.Stalled) != 0 || counted(res, measure.Echoes) != asked {
		t.Errorf("counts %v, errors %v", res.Counts, res.Errors)
	}
}

// Think times pass, and are no part of answers' times.
func TestThinkTimesPass(t *testing.T) {
	t.Parallel()
	g := groupOf(3, echoes(t))
	g.Script = []plan.Step{repeat(3, plan.Step{Do: plan.Pause, Think: plan.Think{Mean: 100 * time.Millisecond}}, send(plan.Message{Answer: answered(plan.AnswerEcho)}))}
	begun := time.Now()
	res := runPlan(t, Config{Plan: planOf(g, finish)})
	if took := time.Since(begun); took < 300*time.Millisecond {
		t.Errorf("three times 100 ms took %s", took)
	}
	if n := counted(res, measure.Echoes); n != 9 || !res.OK() {
		t.Errorf("OK is %v, %d answers", res.OK(), n)
	}
	if h := res.Histograms.Of(measure.Echo); h.Min() > 90_000 {
		t.Errorf("the quickest answer took %d µs", h.Min())
	}
}

// Scripts that go on beside a talk do not keep it from its end, and take no part in it.
func TestATalkEndsThoughScriptsGoOn(t *testing.T) {
	t.Parallel()
	scripted := groupOf(20, echoes(t))
	scripted.Name = "scripted"
	scripted.Script = []plan.Step{repeat(0, send(plan.Message{Answer: answered(plan.AnswerEcho)}))}
	talking := groupOf(3, echoes(t))
	talking.Name = "talking"
	p := &plan.Plan{Groups: []plan.Group{scripted, talking}, Phases: []plan.Phase{
		{Name: "ramp", Kind: plan.Ramp},
		{Name: "talk", Kind: plan.Talk, For: 100 * time.Millisecond, Streams: []plan.Stream{{Window: 1, Rate: 100, Message: plan.Message{Answer: answered(plan.AnswerEcho)}}}},
	}}
	res := runPlan(t, Config{Workers: 2, Plan: p})
	if res.Echo == nil || res.Echo.Active != 3 {
		t.Errorf("%+v take part, want 3", res.Echo)
	}
}

// However often a user asks and thinks, it has few timers, though each answer may take a minute.
func TestAUserHasFewTimers(t *testing.T) {
	w, c := reader(t)
	talk := w.takeTalk(c)
	most := 0
	for range 1000 {
		w.now += 10 * time.Second
		for len(w.timers) > 0 && w.timers[0].at <= w.now {
			next := heap.Pop(&w.timers).(timer)
			if w.disarmed(c, talk, next.at) && next.at != talk.timer {
				t.Fatalf("it goes on at %s, and should at %s", next.at, talk.timer)
			}
		}
		w.arm(c, talk, w.now+time.Minute)    // no answer in time
		w.arm(c, talk, w.now+10*time.Second) // it was answered, and thinks
		most = max(most, len(w.timers))
	}
	if most > 3 {
		t.Errorf("%d timers", most)
	}
}
