package loadgen

import "github.com/seed-134acfd0/lull/loadgen/plan"

// text is a template.
func text(raw string) *plan.Text {
	t, err := plan.ParseText(raw)
	if err != nil {
		panic(err)
	}
	return t
}

// groupOf is a group of users of a server.
func groupOf(users int, url string) plan.Group {
	return plan.Group{Name: "users", Users: users, URLs: []*plan.Text{text(url)}}
}

// planOf is a plan of one group, whose users connect first.
func planOf(g plan.Group, phases ...plan.Phase) *plan.Plan {
	return &plan.Plan{Groups: []plan.Group{g}, Phases: append([]plan.Phase{{Name: "ramp", Kind: plan.Ramp}}, phases...)}
}

// send is a step with a message.
func send(m plan.Message) plan.Step { return plan.Step{Do: plan.Send, Message: m} }

func repeat(times int, steps ...plan.Step) plan.Step {
	return plan.Step{Do: plan.Repeat, Times: times, Steps: steps}
}

func answered(kind plan.AnswerKind) plan.Answer { return plan.Answer{Kind: kind} }

var finish = plan.Phase{Name: "finish", Kind: plan.Finish}
