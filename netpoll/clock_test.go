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
	for now, want := range map[time.Duration]Tick{0: 0, TickLength - 1: 0, TickLength: 1, 10*TickLength + TickLength/2: 10} {
		tick, next := TickAt(now), UntilTick(now)
		if tick != want || next <= 0 || next > TickLength || TickAt(now+next) != want+1 {
			t.Errorf("at %s: tick %d, next in %s", now, tick, next)
		}
	}
}

func TestAClockGoesOn(t *testing.T) {
	c := NewClock()
	if then := c.Now(); c.Now() < then {
		t.Error("the clock went back")
	}
}
