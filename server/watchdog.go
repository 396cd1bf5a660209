package server

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"github.com/seed-134acfd0/lull/server/internal/stack"
)

// watch notices reactors that stay in one turn of their loop for longer than
// StallAfter, because a handler blocks them for instance, and handlers that do not
// return within CallTimeout. It logs each stall once, with its stack, and counts
// it. It looks twice in StallAfter.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(max(1, s.stallAfter()/2))
	defer tick.Stop()
	type sight struct {
		turn  uint64
		again int // times that it was the same
	}
	seen := make([]sight, len(s.reactors))
	stuck := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, r := range s.reactors {
			turn, last := r.public.turn.Load(), &seen[i]
			if s.options.StallAfter <= 0 {
				break
			}
			if turn%2 == 0 || turn != last.turn {
				*last = sight{turn: turn}
				continue
			}
			if last.again++; last.again == 2 {
				s.stalled(r)
			}
		}
		was := stuck
		if stuck = s.callStuck(); stuck && !was {
			s.logStuck()
		}
	}
}

// stallAfter is StallAfter, or its default if that is off.
func (s *Server) stallAfter() time.Duration {
	if s.options.StallAfter > 0 {
		return s.options.StallAfter
	}
	return 200 * time.Millisecond
}

// stalled logs what holds a reactor.
func (s *Server) stalled(r *reactor) {
	s.stalls.Add(1)
	trace := stack.Of(r.public.goroutine.Load().(stack.ID))
	in := "the reactor itself"
	for _, f := range []struct{ function, handler string }{
		{"(*calls).backpressure(", "Handler.Backpressure"},
		{"(*calls).message(", "Handler.Message"},
		{".callLater(", "Handler.Deliver"},
		{"(*calls).decide(", "Handler.Upgrade"},
		{"(*calls).open(", "Handler.Open"},
		{"(*calls).close(", "Handler.Close"},
	} {
		if bytes.Contains(trace, []byte(f.function)) {
			in = f.handler
			break
		}
	}
	s.journal.add(slog.LevelError, "a reactor stalls, and its connections wait", "reactor", r.index, "longer_than", s.options.StallAfter.String(),
		"in", in, "stack", string(trace), "do", "use server.Workers, or do not block")
}

// callStuck reports whether a call of a handler takes longer than CallTimeout.
func (s *Server) callStuck() bool {
	return s.pool != nil && s.options.CallTimeout > 0 && s.pool.Oldest() >= s.options.CallTimeout
}

// late is how many calls of handlers take longer than CallTimeout.
func (s *Server) late() int {
	if s.pool == nil || s.options.CallTimeout <= 0 {
		return 0
	}
	return s.pool.Late(s.options.CallTimeout)
}

// logStuck logs the call that began first.
func (s *Server) logStuck() {
	s.stuck.Add(1)
	call := s.pool.Stuck()
	s.journal.add(slog.LevelError, "a handler does not return, and its worker is lost to the others", "in", "Handler."+call.Kind.String(),
		"for", call.For.Round(time.Millisecond).String(), "workers_stuck", s.late(), "workers", s.options.Workers,
		"stack", string(call.Stack), "do", "give the handler a deadline")
}

// Stalled counts the reactors that do not get on: those that are still in the
// turn of their loop in which they were StallAfter ago, 200 ms if that is off. It
// waits for so long, but not once all reactors have been seen to get on. Any
// goroutine may call it.
func (s *Server) Stalled() int {
	patience := s.stallAfter()
	const looks = 8
	before := make([]uint64, len(s.reactors))
	for i, r := range s.reactors {
		before[i] = r.public.turn.Load()
	}
	stalled := s.sameTurn(before)
	for range looks {
		if stalled == 0 {
			break
		}
		time.Sleep(patience / looks)
		stalled = s.sameTurn(before)
	}
	return stalled
}

// sameTurn counts the reactors that are in the turn they were in before.
func (s *Server) sameTurn(before []uint64) (n int) {
	for i, r := range s.reactors {
		if turn := before[i]; turn%2 == 1 && turn == r.public.turn.Load() {
			n++
		}
	}
	return n
}
