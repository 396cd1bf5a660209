package server

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/seed-134acfd0/lull/frame"
)

// Counter names something that a server counts.
type Counter int

// What is counted, since Listen.
const (
	Accepted          Counter = iota // sockets accepted
	Opened                           // handshakes answered with 101
	Refused                          // handshakes answered with an HTTP error
	Aborted                          // sockets that ended before their request did
	ClosedClean                      // closing handshakes completed
	ClosedGone                       // peers that left without a Close frame, or reset
	ClosedBreach                     // breaches of the protocol, closed with 1002
	ClosedUTF8                       // text that was not UTF-8, closed with 1007
	ClosedTooBig                     // messages over MaxMessage, closed with 1009
	ClosedOutbox                     // peers that did not read, closed with 1013
	ClosedPartial                    // no memory for incomplete messages, closed with 1013
	ClosedIdle                       // peers silent for IdleTimeout
	ClosedQueue                      // peers that sent more than was handled, closed with 1013
	ClosedTimeout                    // peers that did not answer our Close frame
	ClosedPanic                      // handlers that panicked, closed with 1011
	ClosedShutdown                   // connections cut at the server's end
	MessagesIn                       // messages received
	MessagesDropped                  // of these, dropped because the handler had too many before them
	QueueBegins                      // times that a connection's handler had half of QueueMessages or QueueBytes before it
	QueueEnds                        // times that it had at most an eighth again, or the connection closed
	Paused                           // times that a connection was not read because its handler had too many messages
	MessagesTaken                    // messages to be sent, each broadcast once for each connection
	MessagesOut                      // of these, sent
	DroppedNew                       // of these, dropped because the peer was slow
	DroppedOld                       // of these, dropped for a newer one
	Conflated                        // of these, dropped for a newer one of the same Kind
	Undelivered                      // of these, owed to connections that closed
	BroadcastMessages                // of these, broadcasts
	BroadcastSends                   // system calls that carried them: several leave together while passes are late
	SendsRefused                     // messages that Send did not take (ErrSlow)
	SlowBegins                       // times that a peer became slow (Handler.Slow)
	SlowEnds                         // times that it was so no more, or closed
	Held                             // times that a connection was not read because it broadcast too much
	BytesIn                          // bytes received
	BytesOut                         // bytes sent
	BytesUndelivered                 // bytes owed to connections when they closed
	AcceptRests                      // times that accepting had to rest (EMFILE, ENFILE …)
	Stalls                           // times that a reactor took longer than StallAfter for a turn
	LinesLost                        // log lines dropped because too many came at once
	counters
)

var counterNames = [counters]string{
	"accepted", "opened", "refused", "aborted",
	"closed_clean", "closed_gone", "closed_breach", "closed_utf8", "closed_too_big", "closed_outbox",
	"closed_partial", "closed_idle", "closed_queue", "closed_timeout", "closed_panic", "closed_shutdown",
	"messages_in", "messages_dropped", "queue_begins", "queue_ends", "paused",
	"messages_taken", "messages_out", "dropped_new", "dropped_old", "conflated", "undelivered", "broadcast_messages", "broadcast_sends",
	"sends_refused", "slow_begins", "slow_ends", "held",
	"bytes_in", "bytes_out", "bytes_undelivered",
	"accept_rests", "stalls", "lines_lost",
}

func (c Counter) String() string { return counterNames[c] }

// Counters lists all counters.
func Counters() []Counter {
	all := make([]Counter, counters)
	for i := range all {
		all[i] = Counter(i)
	}
	return all
}

type counts [counters]uint64

// Stats is what a server has counted. Reactors bring their part up to date
// whenever they rest, and under load at least in each tick of 250 ms.
type Stats struct {
	Open      int64 // connections that are open now
	Published int64 // bytes of broadcasts on their way, of at most Options.MaxPublished
	Owed      int64 // bytes that peers have not taken, of at most Options.MaxOwed
	Queued    int64 // bytes of messages that handlers have yet to hear
	Calls     int64 // calls that handlers have yet to get or to return from
	Busy      int   // handlers that run now, of at most Options.Workers
	Waiting   int   // connections that wait for a worker

	RefusedBy map[int]uint64 // handshakes refused, by HTTP status

	// In microseconds.
	TurnTime   Histogram // what reactors took for a turn
	PassTime   Histogram // what reactors took to send a broadcast to all of theirs
	WaitTime   Histogram // how long connections waited for a worker
	HandleTime Histogram // what handlers took, on workers

	counts counts
}

// Count returns one counter.
func (s Stats) Count(c Counter) uint64 { return s.counts[c] }

// Stats returns the sum over all reactors. Any goroutine may call it.
func (s *Server) Stats() Stats {
	stats := Stats{Open: s.open.Load(), Published: s.published.Load(), RefusedBy: map[int]uint64{}}
	if p := s.pool; p != nil {
		stats.Queued, stats.Calls = p.bytes.Load(), p.calls.Load()
		stats.Busy, stats.Waiting = int(p.busy.Load()), int(p.waiting.Load())
		p.waitTime.addTo(&stats.WaitTime)
		p.handleTime.addTo(&stats.HandleTime)
		stats.counts[QueueEnds] += p.ends.Load()
	}
	for i := range s.refused {
		if n := s.refused[i].Load(); n > 0 {
			stats.RefusedBy[i] = n
		}
	}
	for _, r := range s.reactors {
		r.public.turnTime.addTo(&stats.TurnTime)
		r.public.passTime.addTo(&stats.PassTime)
		r.public.mu.Lock()
		stats.Owed += int64(r.public.owing)
		for i := range stats.counts {
			stats.counts[i] += r.public.counts[i]
		}
		r.public.mu.Unlock()
	}
	stats.counts[AcceptRests] += s.rests.Load()
	stats.counts[Stalls] += s.stalls.Load()
	stats.counts[SendsRefused] += s.refusals.Load()
	stats.counts[LinesLost] += s.journal.lost.Load()
	return stats
}

// published is the part of a reactor that others read.
type published struct {
	used atomic.Int64  // slots
	turn atomic.Uint64 // odd while a turn is taken

	turnTime, passTime histogram
	census             atomic.Pointer[Census]

	mu     sync.Mutex // so that what belongs together is seen together
	counts counts     // guarded by mu
	owing  int        // guarded by mu
}

// publish lets others see the counts. While somebody looks at them the reactor
// does not wait, unless it is about to rest for long.
func (r *reactor) publish() {
	p := &r.public
	p.used.Store(int64(r.slots.Used()))
	if !p.mu.TryLock() {
		if r.slots.Used() > 0 {
			return
		}
		p.mu.Lock()
	}
	p.counts, p.owing = r.count, r.owing
	p.mu.Unlock()
}

// closeCounter finds the counter for the cause of a connection's end.
func closeCounter(cause error) Counter {
	switch cause {
	case nil:
		return ClosedClean
	case io.EOF:
		return ClosedGone
	case ErrIdle:
		return ClosedIdle
	case ErrQueue:
		return ClosedQueue
	case ErrOutbox:
		return ClosedOutbox
	case ErrPartial:
		return ClosedPartial
	case ErrCloseTimeout:
		return ClosedTimeout
	case ErrPanic:
		return ClosedPanic
	case ErrShutdown:
		return ClosedShutdown
	}
	var breach *frame.Error
	if !errors.As(cause, &breach) {
		return ClosedGone
	}
	switch breach.Code {
	case frame.InvalidPayload:
		return ClosedUTF8
	case frame.MessageTooBig:
		return ClosedTooBig
	}
	return ClosedBreach
}
