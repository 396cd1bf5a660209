package experiment

import (
	"math"
	"strings"
	"testing"
)

// projectable is flatOf with a server that takes 10 MiB and 50 bytes a connection.
func projectable() *Flat {
	f := flatOf()
	for i := range f.Points {
		for j := range f.Points[i].Rounds {
			f.Points[i].Rounds[j].ServerRSS = 10<<20 + 50*int64(f.Points[i].Conns)
		}
	}
	return f
}

func TestAProjectionTakesTheLargeTableAndTheMostConnections(t *testing.T) {
	p, err := projectable().Project()
	if err != nil {
		t.Fatal(err)
	}
	if p.Conns != 1_000_000 || p.Kernel != 4200 || math.Abs(p.User-50) > 1e-6 || math.Abs(p.Base-10<<20) > 1 || p.Handshake != 11 || p.Delivery != 5.5 {
		t.Errorf("%+v", p)
	}
	// (15 GiB − 10 MiB) ÷ 4,250 B, and ÷ 5,347 B
	if idle, unsent := p.holds(16<<30, 0), p.holds(16<<30, 1097); idle != 3_787_209 || unsent != 3_010_219 {
		t.Errorf("%v and %v connections", idle, unsent)
	}
}

func TestAProjectionShowsItsArithmetic(t *testing.T) {
	var b strings.Builder
	if err := projectable().WriteProjection(&b); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"| memory of a connection | kernel 4,200 B + user space 50 B | 4,250 B |",
		"| connections, idle | (16 GiB − 1 GiB − 10 MiB) ÷ 4,250 B | 3,787,209 |",
		"| to connect as many | 3,010,219 × 11 µs ÷ 4 | 8.28 s |",
		"| a broadcast to them: processors | 3,010,219 × 5.5 µs ÷ 4 | 4.14 s |",
		"| the same: network | 3,010,219 × 100 B × 8 ÷ 750 Mbit/s | 3.21 s |",
		"| machines | 10,000,000 ÷ (0.7 × 3,010,219) | 5 |",
		"| on each, when one has failed | 10,000,000 ÷ 4, of 3,010,219 that it holds | 2,500,000 |",
		"| source addresses of all clients together, at least | 2,000,000 ÷ 64,512 ports for each target | 32 |",
	} {
		if !strings.Contains(b.String(), row+"\n") {
			t.Errorf("there is no %q in\n%s", row, &b)
		}
	}
}

func TestAProjectionNeedsTwoNumbers(t *testing.T) {
	f := flatOf()
	f.Points = f.Points[:2]
	if _, err := f.Project(); err == nil {
		t.Error("there is one")
	}
	if err := f.WriteProjection(nil); err == nil {
		t.Error("it is written")
	}
}
