package server

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/seed-134acfd0/lull/frame"
)

// Counter names something that a server counts.
type Counter int

// What is counted, since Listen.
const (
	Accepted         Counter = iota // sockets accepted
	Opened                          // handshakes answered with 101
	Refused                         // handshakes answered with an HTTP error
	Aborted                         // sockets that ended before their request did
	ClosedClean                     // closing handshakes completed
	ClosedGone                      // peers that left without a Close frame, or reset
	ClosedBreach                    // breaches of the protocol, closed with 1002
	ClosedUTF8                      // text that was not UTF-8, closed with 1007
	ClosedTooBig                    // messages over MaxMessage, closed with 1009
	ClosedOutbox                    // peers that did not read, closed with 1013
	ClosedPartial                   // no memory for incomplete messages, closed with 1013
	ClosedIdle                      // peers silent for IdleTimeout
	ClosedQueue                     // peers that sent more than was handled, closed with 1013
	ClosedTimeout                   // peers that did not answer our Close frame
	ClosedPanic                     // handlers that panicked, closed with 1011
	ClosedShutdown                  // connections cut at the server's end
	MessagesIn                      // messages received
	MessagesDropped                 // of these, dropped because the handler had too many before them
	Paused                          // times that a connection was not read because its handler had too many messages
	MessagesOut                     // messages sent, each broadcast once for each connection
	BytesIn                         // bytes received
	BytesOut                        // bytes sent
	Undelivered                     // messages that Send took for connections that then closed
	BytesUndelivered                // bytes owed to connections when they closed
	AcceptRests                     // times that accepting had to rest (EMFILE, ENFILE …)
	Stalls                          // times that a reactor took longer than StallAfter for a turn
	LinesLost                       // log lines dropped because too many came at once
	counters
)

var counterNames = [counters]string{
	"accepted", "opened", "refused", "aborted",
	"closed_clean", "closed_gone", "closed_breach", "closed_utf8", "closed_too_big", "closed_outbox",
	"closed_partial", "closed_idle", "closed_queue", "closed_timeout", "closed_panic", "closed_shutdown",
	"messages_in", "messages_dropped", "paused", "messages_out", "bytes_in", "bytes_out", "undelivered", "bytes_undelivered",
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
	Open   int64 // connections that are open now
	Queued int64 // bytes of messages that handlers have yet to hear
	Busy   int   // handlers that run now, of at most Options.Workers
	counts counts
}

// Count returns one counter.
func (s Stats) Count(c Counter) uint64 { return s.counts[c] }

// Stats returns the sum over all reactors. Any goroutine may call it.
func (s *Server) Stats() Stats {
	stats := Stats{Open: s.open.Load()}
	if s.pool != nil {
		stats.Queued, stats.Busy = s.pool.bytes.Load(), int(s.pool.busy.Load())
	}
	for _, r := range s.reactors {
		for i := range stats.counts {
			stats.counts[i] += r.public.counts[i].Load()
		}
	}
	stats.counts[AcceptRests] += s.rests.Load()
	stats.counts[Stalls] += s.stalls.Load()
	stats.counts[LinesLost] += s.journal.lost.Load()
	return stats
}

// published is the part of a reactor that others read.
type published struct {
	used   atomic.Int64  // slots
	turn   atomic.Uint64 // odd while a turn is taken
	counts [counters]atomic.Uint64
}

// publish lets others see the counts.
func (r *reactor) publish() {
	r.public.used.Store(int64(r.slots.Used()))
	for i, n := range r.count {
		if p := &r.public.counts[i]; p.Load() != n {
			p.Store(n)
		}
	}
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
