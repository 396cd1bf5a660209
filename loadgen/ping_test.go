package loadgen

import (
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

func TestPingsWithoutAPongAreCounted(t *testing.T) {
	url := fake(t, func(p *peer) {
		p.open()
		p.rest() // and no Pong
	})
	text, err := plan.ParseText(url)
	if err != nil {
		t.Fatal(err)
	}
	res, err := Run(t.Context(), Config{Plan: &plan.Plan{
		Groups: []plan.Group{{Name: "users", Users: 1, URLs: []*plan.Text{text}, Ping: 10 * time.Millisecond}},
		Phases: []plan.Phase{{Name: "ramp", Kind: plan.Ramp}, {Name: "hold", Kind: plan.Hold, For: 300 * time.Millisecond}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	pinged, unponged := res.Counts[measure.Pinged.String()], res.Counts[measure.Unponged.String()]
	if pinged == 0 || unponged != pinged {
		t.Errorf("%d of %d Pings count as unanswered", unponged, pinged)
	}
}
