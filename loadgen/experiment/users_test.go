package experiment

import (
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// What the heap has while connections come is not the connections'.
func TestUsersAreMeasuredWhileTheyAreIdle(t *testing.T) {
	const conns, each, garbage = 1000, 117, 1 << 20
	url, err := plan.ParseText("ws://127.0.0.1:1/")
	if err != nil {
		t.Fatal(err)
	}
	o := &observer{begun: time.Now(), samples: []Sample{{}}}
	at, open := 0.0, 0
	for _, p := range usersPlan(url, conns).Phases {
		o.starts = append(o.starts, phaseStart{phase: p.Name, at: o.begun.Add(time.Duration(at * float64(time.Second)))})
		rest := garbage
		if open += p.Users; p.Kind == plan.Hold {
			rest = 0
		}
		o.samples = append(o.samples, Sample{Seconds: at + 0.9, Open: open, Server: int64(open*each + rest)})
		at++
	}
	o.starts = append(o.starts, phaseStart{phase: "end", at: o.begun.Add(time.Duration(at * float64(time.Second)))})
	row := usersKinds[0].row(o, conns, open)
	s := row.Memory.ServerSlope
	if open != conns || s == nil || s.Samples != usersSteps || s.Bytes < each-0.01 || s.Bytes > each+0.01 {
		t.Errorf("of %d connections the slope is %+v, want %d", open, s, each)
	}
	if want := float64(each) + float64(garbage)/conns; row.Memory.ServerPerConn != each || row.Most != want || row.Handshakes != conns/usersSteps {
		t.Errorf("in all %v, at the most %v, want %v, %v/s", row.Memory.ServerPerConn, row.Most, want, row.Handshakes)
	}
}
