package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"time"
)

// watch notices reactors that do not get on, because a handler blocks on them
// for instance. It logs each stall once, with what held the reactor, and
// counts it. It looks twice in StallAfter.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(max(1, s.options.StallAfter/2))
	defer tick.Stop()
	type sight struct {
		turn  uint64
		again int // times that it was the same
	}
	seen := make([]sight, len(s.reactors))
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, r := range s.reactors {
			turn, last := r.public.turn.Load(), &seen[i]
			if turn%2 == 0 || turn != last.turn {
				*last = sight{turn: turn}
				continue
			}
			if last.again++; last.again == 2 {
				s.stalled(r)
			}
		}
	}
}

func (s *Server) stalled(r *reactor) {
	s.stalls.Add(1)
	stack := r.stack()
	in := "the reactor itself"
	for _, f := range []struct{ function, handler string }{
		{"(*reactor).pressed(", "Handler.Slow or Drained"},
		{"(*reactor).message(", "Handler.Message"},
		{"(*reactor).decide(", "Handler.Upgrade"},
		{"(*reactor).opened(", "Handler.Open"},
		{"(*reactor).closed(", "Handler.Close"},
	} {
		if bytes.Contains(stack, []byte(f.function)) {
			in = f.handler
			break
		}
	}
	s.journal.add(slog.LevelError, "a reactor stalls, and its connections wait", "reactor", r.index, "longer_than", s.options.StallAfter.String(),
		"in", in, "stack", string(stack), "do", "use server.Workers, or do not block")
}

// stackMax bounds what is looked through for one goroutine's stack, in bytes:
// some ten thousand goroutines.
const stackMax = 16 << 20

// stack returns the stack of r's goroutine, empty if it is not among the first.
func (r *reactor) stack() []byte {
	var all []byte
	for size := 1 << 20; len(all) == cap(all) && size <= stackMax; size *= 4 {
		all = make([]byte, size)
		all = all[:runtime.Stack(all, true)]
	}
	loop := fmt.Appendf(nil, "(*reactor).run(%p", r)
	for one := range bytes.SplitSeq(all, []byte("\n\n")) {
		if bytes.Contains(one, loop) {
			return one
		}
	}
	return nil
}
