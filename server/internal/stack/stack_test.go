package stack

import (
	"strings"
	"testing"
)

func TestTheStackOfAGoroutineShowsWhereItIs(t *testing.T) {
	ids, leave := make(chan ID), make(chan struct{})
	go waitHere(ids, leave)
	id := <-ids
	if trace := string(Of(id)); !strings.Contains(trace, "waitHere") || id == Self() {
		t.Errorf("%s is at %s", id, trace)
	}
	close(leave)
	if len(Of("goroutine 0")) != 0 {
		t.Error("a goroutine that does not exist has a stack")
	}
}

func waitHere(ids chan<- ID, leave <-chan struct{}) {
	ids <- Self()
	<-leave
}
