package netpoll

import (
	"testing"
	"time"
)

func TestTicksRoundUp(t *testing.T) {
	for d, want := range map[time.Duration]Tick{
		0: 0, 1: 1, TickLength: 1, TickLength + 1: 2, time.Minute: 240,
	} {
		if got := Ticks(d); got != want {
			t.Errorf("Ticks(%s) = %d, want %d", d, got, want)
		}
	}
}

func TestNextTickIsAhead(t *testing.T) {
	start := time.Now()
	c := Clock{start.Add(-10*TickLength - TickLength/2)}
	tick, next := c.Now()
	if tick < 10 || next <= 0 || next > TickLength {
		t.Errorf("tick %d, next in %s", tick, next)
	}
}
