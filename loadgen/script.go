package loadgen

import (
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// script is what each user of a group does, as a list without nesting: a repeat's steps
// are followed by an again, which leads back to them.
type script []instruction

type instruction struct {
	do      plan.Do
	message *message      // of plan.Send
	think   plan.Think    // of plan.Pause
	times   int           // of again; 0 is for ever
	every   time.Duration // of plan.Repeat and again
	depth   int           // of plan.Repeat and again: how many repeats they are in
	first   int           // of again: index of the repeat's first step
}

// again ends a round of a repeat.
const again plan.Do = "again"

// compileScript lists the steps.
func (r *run) compileScript(steps []plan.Step, depth int) (s script) {
	for i := range steps {
		step := &steps[i]
		switch step.Do {
		case plan.Send:
			s = append(s, instruction{do: plan.Send, message: r.compileMessage(&step.Message)})
		case plan.Repeat:
			s = append(s, instruction{do: plan.Repeat, every: step.Every, depth: depth})
			first := len(s)
			for _, inner := range r.compileScript(step.Steps, depth+1) {
				if inner.do == again {
					inner.first += first
				}
				s = append(s, inner)
			}
			s = append(s, instruction{do: again, times: step.Times, every: step.Every, depth: depth, first: first})
		default:
			s = append(s, instruction{do: step.Do, think: step.Think})
		}
	}
	return s
}

// startScript begins the script of c's group, if it has one.
func (w *worker) startScript(c *client) {
	if len(w.group(c).script) == 0 {
		return
	}
	t := w.takeTalk(c)
	t.clock = w.present(w.now)
	t.scripted = true
	w.scripts[c.group]++
	w.step(c, t)
}

// stepsMost is how many steps of a script are done in a row. A script that does not wait
// goes on after that in the next turn.
const stepsMost = 64

// step goes on with c's script until it has to wait: for an answer, for a time, or until its
// socket takes more. t.clock is when the next step is meant to be done, which may be past.
func (w *worker) step(c *client, t *talk) {
	s := w.group(c).script
	t.timer = 0
	for range stepsMost {
		switch {
		case w.paused:
			w.arm(c, t, t.clock)
			return
		case len(t.unsent) > 0:
			return // pour goes on
		}
		if t.at == len(s) {
			w.finishScript(c, t)
			return
		}
		i := &s[t.at]
		t.at++
		switch i.do {
		case plan.Send:
			w.say(c, t, i.message, t.clock)
			if c.state != open {
				return
			}
			if t.unanswered > 0 {
				w.arm(c, t, w.present(w.now)+w.patienceFor(i.message))
				return
			}
		case plan.Pause:
			t.clock += i.think.Draw(w.random)
		case plan.Repeat:
			t.enter(i.depth)
		case again:
			t.again(i)
		case plan.Close:
			w.finishScript(c, t)
			w.dismiss(c)
			return
		}
		if t.clock > w.now {
			break
		}
	}
	w.arm(c, t, max(t.clock, w.now+1)) // not in this turn
}

// finishScript takes note that a script has ended.
func (w *worker) finishScript(c *client, t *talk) {
	if t.scripted {
		t.scripted = false
		w.scripts[c.group]--
		w.count(measure.Finished, 1)
	}
}

// patienceFor is how long an answer to m may take.
func (w *worker) patienceFor(m *message) time.Duration {
	if m.Answer.Within > 0 {
		return m.Answer.Within
	}
	return w.run.config.Patience
}

// unanswered goes on with a script whose message was not answered in time.
func (w *worker) unanswered(c *client, t *talk) {
	w.forgive(t)
	t.clock = w.now
	w.step(c, t)
}

// round is a repeat that is under way.
type round struct {
	done  int           // rounds
	begun time.Duration // when the first was meant to begin
}

// enter begins a repeat within depth others.
func (t *talk) enter(depth int) {
	t.rounds = append(t.rounds[:depth], round{begun: t.clock})
}

// again begins the next round of a repeat, if there is one.
func (t *talk) again(i *instruction) {
	r := &t.rounds[i.depth]
	r.done++
	if i.times > 0 && r.done == i.times {
		return
	}
	t.at = i.first
	if i.every > 0 {
		t.clock = r.begun + time.Duration(r.done)*i.every
	}
}
