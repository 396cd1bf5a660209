package loadgen

import (
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// A chat sends to everybody what one group should receive. The others' messages neither
// count as received, nor do they end the wait too early.
func TestWhatOtherGroupsReceiveIsOverheard(t *testing.T) {
	url := []*plan.Text{plan.Plain(hub(t, relayed))}
	res := mustRun(t, short(t), Config{Workers: 2, Plan: &plan.Plan{
		Groups: []plan.Group{{Name: "readers", Users: 5, URLs: url}, {Name: "others", Users: 3, URLs: url}},
		Phases: []plan.Phase{
			{Name: "ramp", Kind: plan.Ramp},
			{Name: "one group", Kind: plan.Publish, Groups: []string{"readers"}, Count: 4},
			{Name: "all", Kind: plan.Publish, Count: 1},
		},
	}})
	if n := res.Counts; n["received"] != 4*5+8 || n["overheard"] != 4*3 || n["missed"] != 0 || n["repeated"] != 0 || !res.OK() {
		t.Errorf("OK is %v, counts %v", res.OK(), n)
	}
}

// A finish waits for the scripts of its groups alone.
func TestAFinishWaitsForItsGroupsAlone(t *testing.T) {
	url := []*plan.Text{plan.Plain(fake(t, func(p *peer) { p.open(); p.rest() }))}
	thinks := func(d time.Duration) []plan.Step {
		return []plan.Step{{Do: plan.Pause, Think: plan.Think{Mean: d}}}
	}
	res := mustRun(t, short(t), Config{Plan: &plan.Plan{
		Groups: []plan.Group{
			{Name: "brief", Users: 2, URLs: url, Script: thinks(time.Millisecond)},
			{Name: "long", Users: 2, URLs: url, Script: thinks(time.Hour)},
		},
		Phases: []plan.Phase{{Name: "ramp", Kind: plan.Ramp}, {Name: "finish", Kind: plan.Finish, Groups: []string{"brief"}, For: time.Hour}},
	}})
	if res.Counts[measure.Finished.String()] != 2 || !res.OK() {
		t.Errorf("OK is %v, counts %v", res.OK(), res.Counts)
	}
}
