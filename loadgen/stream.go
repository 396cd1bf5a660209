package loadgen

import (
	"time"

	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/netpoll"
)

// stream makes users send messages until its end: in turn, at a rate that they share, or
// each as soon as its window allows.
type stream struct {
	*message
	window int // messages of a user that may be unanswered; 0 is no limit
	pace   pace
	end    time.Duration
	users  []netpoll.Token // those that take turns, at a rate
	turn   int             // index into users
}

const (
	// floodBuffer is a flooding socket's send buffer, in bytes. It is small, as
	// is what waits in the socket of a person who clicks. The kernel would let
	// it grow to megabytes.
	floodBuffer = 8 << 10
	// floodFrames is how many frames are written at a time.
	floodFrames = 32
)

// room is how many messages t may send now.
func (s *stream) room(t *talk) int {
	switch {
	case s.window > 0:
		return s.window - t.unanswered
	case !s.numbered && s.Answer.Kind != plan.AnswerNone: // each of these is remembered
		return plan.WindowMax - t.unanswered
	}
	return floodFrames
}

// startTalk gives a stream to open connections of some groups that have none.
func (w *worker) startTalk(o *order) {
	s := &stream{message: o.message, window: o.window, pace: pace{rate: o.rate, begun: w.now}, end: w.now + o.lasts}
	w.streaming = append(w.streaming, s)
	for i := 0; i < w.slots.High() && o.count > 0; i++ {
		c := w.slots.At(i)
		if c == nil || c.state != open || !o.groups.has(c.group) || c.is(deaf) || w.talking(c) {
			continue
		}
		o.count--
		w.taken++
		w.join(c, s)
	}
}

// join gives a stream to c.
func (w *worker) join(c *client, s *stream) {
	w.busy[c.group]++
	t := w.takeTalk(c)
	w.forgive(t)
	t.stream = s
	if s.window == 0 {
		netpoll.SetSendBuffer(int(c.FD), floodBuffer)
	}
	if s.pace.rate > 0 {
		s.users = append(s.users, w.slots.Token(c))
	} else {
		w.more(c, t)
	}
}

// talking reports whether c has a stream that has not ended.
func (w *worker) talking(c *client) bool {
	t := w.talks.At(c.talk)
	return t != nil && t.stream != nil && w.present(w.now) < t.stream.end
}

// expectAnswer makes c, which has a stream, wait for its answers no longer than their time. There
// is one timer for all of a user's messages: its time begins anew with each answer.
func (w *worker) expectAnswer(c *client, t *talk) {
	if t.stream == nil || t.stream.window == 0 {
		return // a script has its own timer, and a flood does not wait
	}
	if t.unanswered == 1 {
		t.clock = w.now
	}
	if t.timer == 0 {
		w.arm(c, t, t.clock+w.patienceFor(t.stream.message))
	}
}

// lateAnswer makes c, which has a stream, go on if no answer has come in time.
func (w *worker) lateAnswer(c *client, t *talk) {
	t.timer = 0
	if t.unanswered == 0 {
		return
	}
	if until := t.clock + w.patienceFor(t.stream.message); until > w.now {
		w.arm(c, t, until)
		return
	}
	w.forgive(t)
	w.more(c, t)
}

// more sends messages of c's stream, if that has no rate and they fit in its window.
// Several go in one write.
func (w *worker) more(c *client, t *talk) {
	s, now := t.stream, w.run.elapsed()
	if s.pace.rate > 0 || w.paused || now >= s.end || len(t.unsent) > 0 {
		return
	}
	room := s.room(t)
	w.corked = room > 1
	for ; room > 0 && c.state == open; room-- {
		w.say(c, t, s.message, now)
	}
	if !w.corked {
		return
	}
	w.corked = false
	if c.state == open && w.flush(c, t) && s.window == 0 {
		w.resume(c, false, false) // others first
	}
}

// talkSome sends the messages that are due. That of a connection with as many
// unanswered messages as may be is omitted, and counted.
func (w *worker) talkSome() {
	if w.paused {
		return
	}
	for _, s := range w.streaming {
		for n := s.due(w.now); n > 0 && len(s.users) > 0; n-- {
			c := w.takesTurn(s)
			if c == nil {
				break
			}
			meant := s.pace.next(w.now)
			w.measure(measure.Lag, w.now-meant)
			if t := w.talks.At(c.talk); s.room(t) > 0 {
				w.say(c, t, s.message, meant)
			} else {
				w.count(measure.Omitted, 1)
			}
		}
	}
}

// due is how many messages are due of a stream with a rate. A worker that is late sends those
// that were due before the end after it.
func (s *stream) due(now time.Duration) int {
	if s.pace.rate == 0 {
		return 0
	}
	return s.pace.due(min(now, s.end-1))
}

// takesTurn returns the user that sends the next message. Those that have gone leave
// their turns to the others.
func (w *worker) takesTurn(s *stream) *client {
	for len(s.users) > 0 {
		s.turn++
		if s.turn >= len(s.users) {
			s.turn = 0
		}
		if c := w.slots.Get(s.users[s.turn]); c != nil && c.state == open {
			return c
		}
		last := len(s.users) - 1
		s.users[s.turn] = s.users[last]
		s.users = s.users[:last]
	}
	return nil
}

// untilTalk is how long it is until a message is due, -1 if none will be.
func (w *worker) untilTalk(now time.Duration) time.Duration {
	wait := time.Duration(-1)
	for _, s := range w.streaming {
		if !w.paused && s.pace.rate > 0 && len(s.users) > 0 && now < s.end {
			wait = soonest(wait, s.pace.wait(now))
		}
	}
	return wait
}

// dropStreams forgets the streams that have ended. A pause ends none.
func (w *worker) dropStreams() {
	now := w.present(w.now)
	kept := w.streaming[:0]
	for _, s := range w.streaming {
		if now < s.end {
			kept = append(kept, s)
		}
	}
	clear(w.streaming[len(kept):])
	if w.streaming = kept; len(kept) == 0 {
		clear(w.busy)
	}
}
