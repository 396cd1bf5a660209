package agent

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/internal/testkit"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

func TestPartsMakeTheWhole(t *testing.T) {
	for _, n := range []int{0, 1, partMax, partMax + 1, 3 * partMax} {
		b := bytes.Repeat([]byte("x"), n)
		w := whole{max: 4 * partMax}
		parts := cut(b)
		for i, p := range parts {
			for range 2 { // the answer to the first was lost
				if w.done && i < len(parts)-1 {
					t.Errorf("%d bytes: done after part %d", n, i)
				}
				if err := w.add(p); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !w.done || !bytes.Equal(w.bytes, b) {
			t.Errorf("%d bytes became %d", n, len(w.bytes))
		}
	}
}

func TestPartsOutOfBoundsAreRefused(t *testing.T) {
	for name, p := range map[string]part{
		"none":      {},
		"negative":  {Index: -1, Count: 2},
		"too many":  {Count: 1000},
		"too long":  {Count: 1, Data: make([]byte, partMax+1)},
		"a gap":     {Index: 1, Count: 2},
		"beyond it": {Index: 2, Count: 2},
	} {
		w := whole{max: 4 * partMax}
		if w.add(p) == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestClocksAreMeasuredByTheShortestTrip(t *testing.T) {
	ahead := 90 * time.Minute
	var best Clock
	for _, trip := range []time.Duration{900 * time.Millisecond, 20 * time.Millisecond, 400 * time.Millisecond} {
		// The way there takes all of the time: the worst case.
		best = better(best, sample(noon, noon.Add(trip), noon.Add(trip).Add(ahead)))
	}
	if best.Trip != 20*time.Millisecond || (best.Offset-ahead).Abs() > best.Trip/2 {
		t.Errorf("%+v", best)
	}
	if got := best.show(noon); time.Duration(got-noon.Add(ahead).UnixNano()).Abs() > best.Trip/2 {
		t.Errorf("it shows %v", time.Unix(0, got))
	}
}

func TestHostsThatAreAllowed(t *testing.T) {
	allow := Allow{"chat.example.com", "10.0.0.0/8", "::1", "192.168.1.7"}
	if err := allow.Check(); err != nil {
		t.Fatal(err)
	}
	for raw, want := range map[string]bool{
		"ws://chat.example.com/":                true,
		"wss://CHAT.example.com.:443/{{hex 3}}": true,
		"ws://10.1.2.3:8080/?x=1":               true,
		"ws://[::1]:8080/":                      true,
		"ws://[::ffff:10.0.0.1]/":               true,
		"ws://192.168.1.7":                      true,
		"ws://192.168.1.8/":                     false,
		"ws://chat.example.com.evil.com/":       false,
		"ws://chat.example.com@evil.com/":       false,
		"ws://evil.com?chat.example.com/":       false,
		"ws://evil.com#@chat.example.com/":      false,
		"ws://{{line \"hosts\"}}/":              false,
		"{{line \"hosts\"}}://10.0.0.1/":        false,
		"ws:{{line \"hosts\"}}":                 false,
		"ws://11.0.0.1/":                        false,
		"ws:///":                                false,
		"ws://10.0.0.1\\@evil.com/":             false,
	} {
		text, err := plan.ParseText(raw)
		if err != nil {
			t.Fatal(err)
		}
		p := &plan.Plan{Groups: []plan.Group{{URLs: []*plan.Text{text}}}}
		if err := allow.plan(p); (err == nil) != want {
			t.Errorf("%s: %v", raw, err)
		}
		if err := Allow(nil).plan(p); err != nil {
			t.Errorf("%s: without a list: %v", raw, err)
		}
	}
	for _, wrong := range []string{"", "10.0.0.0/99", "host:80", "ws://host", "a b"} {
		if (Allow{wrong}).Check() == nil {
			t.Errorf("%q is no host", wrong)
		}
	}
}

func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"op":"clock"}`))
	f.Add([]byte(`{"op":"job","run":"r","part":{"count":1,"data":"e30="}}`))
	f.Add([]byte(`{"op":"job","run":"r","part":{"count":1,"data":"eyJwbGFuIjp7fX0="}}`))
	f.Add([]byte(`{"op":"orders","run":"r","orders":{"run":"r","number":1,"over":"x"}}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		a := &agent{Config: Config{Log: logTo(new(testkit.Log))}}
		a.duty = newDuty(a, "r")
		var r request
		if decode(b, &r) == nil && r.Op != opJoin {
			_ = a.do(context.Background(), &r)
		}
	})
}
