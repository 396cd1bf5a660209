package server

import "time"

// Stalled counts the reactors that do not get on: those that are still in the
// turn in which they were StallAfter ago, 200 ms if that is off. It waits for so
// long, but not once all have been seen to get on. Any goroutine may call it.
func (s *Server) Stalled() int {
	patience := s.options.StallAfter
	if patience <= 0 {
		patience = 200 * time.Millisecond
	}
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
