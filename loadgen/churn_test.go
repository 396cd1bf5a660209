package loadgen_test

import (
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// Every slot is in use, and a connection is opened anew in the turn in which it ends. It
// finds a slot nevertheless, and need not try again.
func TestWhoIsReplacedComesBackAtOnce(t *testing.T) {
	const conns = 20
	url, err := plan.ParseText(serve(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	res := mustRun(t, loadgen.Config{Plan: &plan.Plan{
		Groups: []plan.Group{{Name: "users", Users: conns, URLs: []*plan.Text{url}}},
		Phases: []plan.Phase{
			{Name: "ramp", Kind: plan.Ramp},
			{Name: "storm", Kind: plan.Storm},
			{Name: "churn", Kind: plan.Churn, Rate: 100, For: 200 * time.Millisecond},
		},
	}})
	recalled, returned, failed := count(res, measure.Recalled), count(res, measure.Returned), count(res, measure.RetryFailed)
	if recalled <= conns || returned != recalled || failed != 0 {
		t.Errorf("%d of %d came back, after %d tries that failed", returned, recalled, failed)
	}
}
