package server

import (
	"errors"
	"io"
	"iter"
	"reflect"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/record"
	"github.com/seed-134acfd0/lull/server/internal/histogram"
)

// Counts is what a server has counted since Listen.
type Counts struct {
	Accepted      uint64 `name:"accepted"`       // sockets accepted
	Opened        uint64 `name:"opened"`         // handshakes answered with 101
	Rejected      uint64 `name:"rejected"`       // handshakes answered with an HTTP error
	TLSHandshakes uint64 `name:"tls_handshakes"` // TLS handshakes completed
	TLSResumed    uint64 `name:"tls_resumed"`    // of these, resumed by a session ticket
	TLSFailed     uint64 `name:"tls_failed"`     // TLS handshakes that failed

	Visits  uint64 `name:"visits"`  // connections passed to Options.HTTP
	Aborted uint64 `name:"aborted"` // sockets that ended before their request was answered
	Evicted uint64 `name:"evicted"` // of these and of closing ones, cut off because every slot was taken

	Compressed uint64 `name:"compressed"` // connections that have agreed to permessage-deflate

	Drained uint64 `name:"drained"` // connections that were asked to leave at the server's end

	ClosedClean          uint64 `name:"closed_clean"`           // closing handshakes completed
	ClosedGone           uint64 `name:"closed_gone"`            // peers that left without a Close frame, or reset
	ClosedProtocol       uint64 `name:"closed_protocol"`        // violations of the protocol, closed with 1002
	ClosedTLS            uint64 `name:"closed_tls"`             // violations of TLS, and alerts of the peer
	ClosedUTF8           uint64 `name:"closed_utf8"`            // text that was not UTF-8, or corrupt compression, closed with 1007
	ClosedTooBig         uint64 `name:"closed_too_big"`         // messages over MaxMessage, closed with 1009
	ClosedOutbox         uint64 `name:"closed_outbox"`          // peers that did not read fast enough
	ClosedWriteTimeout   uint64 `name:"closed_write_timeout"`   // peers that read nothing for WriteTimeout
	ClosedPartial        uint64 `name:"closed_partial"`         // no memory for incomplete messages, closed with 1013
	ClosedMessageTimeout uint64 `name:"closed_message_timeout"` // messages not complete in MessageTimeout, closed with 1008
	ClosedIdle           uint64 `name:"closed_idle"`            // peers silent for IdleTimeout
	ClosedInbox          uint64 `name:"closed_inbox"`           // peers that sent more than was handled, closed with 1013
	ClosedCloseTimeout   uint64 `name:"closed_close_timeout"`   // peers that did not answer our Close frame
	ClosedExpired        uint64 `name:"closed_expired"`         // connections whose time was over, closed with 1008
	ClosedTopics         uint64 `name:"closed_topics"`          // connections for whose topics there was no room any more, closed with 1013
	ClosedRate           uint64 `name:"closed_rate"`            // peers over their rate, closed with 1008
	ClosedPanic          uint64 `name:"closed_panic"`           // handlers that panicked, closed with 1011
	ClosedShutdown       uint64 `name:"closed_shutdown"`        // connections cut off at the server's end

	MessagesIn        uint64 `name:"messages_in"`        // messages received
	MessagesDropped   uint64 `name:"messages_dropped"`   // of these, dropped because the inbox was full
	MessagesDiscarded uint64 `name:"messages_discarded"` // of these, not handled because their connection had ended
	InboxHigh         uint64 `name:"inbox_high"`         // times that an inbox became half full
	InboxLow          uint64 `name:"inbox_low"`          // times that it was at most an eighth full again
	ReadPauses        uint64 `name:"read_pauses"`        // times that a connection was not read because its inbox was full
	ReadBlocks        uint64 `name:"read_blocks"`        // times that it was not read because its peer did not take the answers
	Curbed            uint64 `name:"curbed"`             // times that it was not read because it was over its rate (MessageRate, ByteRate)
	Throttled         uint64 `name:"throttled"`          // times that it was not read because too much was broadcast, or queued in all

	MessagesAccepted     uint64 `name:"messages_accepted"`     // messages to be sent, a broadcast once for each connection
	MessagesOut          uint64 `name:"messages_out"`          // of these, sent
	DroppedNew           uint64 `name:"dropped_new"`           // of these, dropped because the outbox was full
	DroppedOld           uint64 `name:"dropped_old"`           // of these, dropped for a newer one
	Conflated            uint64 `name:"conflated"`             // of these, replaced by a newer one of the same Kind
	Undelivered          uint64 `name:"undelivered"`           // of these, not sent when their connection ended
	BroadcastMessages    uint64 `name:"broadcast_messages"`    // of these, broadcasts and what was published to topics
	BroadcastSends       uint64 `name:"broadcast_sends"`       // system calls for these; one carries several when passes are late
	SendsRefused         uint64 `name:"sends_refused"`         // messages that Send did not accept (ErrBackpressure)
	Published            uint64 `name:"published"`             // messages published to topics
	Subscribed           uint64 `name:"subscribed"`            // subscriptions that began
	Unsubscribed         uint64 `name:"unsubscribed"`          // of these, ended
	SubscriptionsRefused uint64 `name:"subscriptions_refused"` // subscriptions beyond MaxTopics or MaxSubscriptions
	OutboxHigh           uint64 `name:"outbox_high"`           // times that a peer became slow (Handler.Backpressure)
	OutboxLow            uint64 `name:"outbox_low"`            // times that it was slow no more, or ended

	BytesIn          uint64 `name:"bytes_in"`          // bytes received
	BytesOut         uint64 `name:"bytes_out"`         // bytes sent
	BytesUndelivered uint64 `name:"bytes_undelivered"` // bytes in outboxes when their connections ended

	BytesToDeflate uint64 `name:"bytes_to_deflate"` // bytes of messages that were compressed, a broadcast once for all
	BytesDeflated  uint64 `name:"bytes_deflated"`   // what they became
	BytesToInflate uint64 `name:"bytes_to_inflate"` // bytes of compressed messages received
	BytesInflated  uint64 `name:"bytes_inflated"`   // what they became

	AcceptPauses uint64 `name:"accept_pauses"`  // times that accepting had to pause (EMFILE, ENFILE …)
	Stalls       uint64 `name:"stalls"`         // times that a reactor took longer than StallAfter for a turn
	CallsStuck   uint64 `name:"calls_stuck"`    // times that handlers began to take longer than CallTimeout
	LogLinesLost uint64 `name:"log_lines_lost"` // log lines dropped because too many came at once
}

// All iterates over the names and values of all counters. The names are in snake
// case and stable.
func (c Counts) All() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		v := reflect.ValueOf(c)
		for i := range v.NumField() {
			if !yield(v.Type().Field(i).Tag.Get("name"), v.Field(i).Uint()) {
				return
			}
		}
	}
}

// add adds the counts of a reactor.
func (c *Counts) add(part *Counts) {
	sum, other := reflect.ValueOf(c).Elem(), reflect.ValueOf(part).Elem()
	for i := range sum.NumField() {
		sum.Field(i).SetUint(sum.Field(i).Uint() + other.Field(i).Uint())
	}
}

// closed returns the counter for the cause of an open connection's end.
func (c *Counts) closed(cause error) *uint64 {
	switch cause {
	case nil:
		return &c.ClosedClean
	case io.EOF:
		return &c.ClosedGone
	case ErrIdle:
		return &c.ClosedIdle
	case ErrInbox:
		return &c.ClosedInbox
	case ErrOutbox:
		return &c.ClosedOutbox
	case ErrWriteTimeout:
		return &c.ClosedWriteTimeout
	case ErrPartial:
		return &c.ClosedPartial
	case ErrMessageTimeout:
		return &c.ClosedMessageTimeout
	case ErrCloseTimeout:
		return &c.ClosedCloseTimeout
	case ErrExpired:
		return &c.ClosedExpired
	case errRate:
		return &c.ClosedRate
	case ErrTopics, ErrSubscriptions:
		return &c.ClosedTopics
	case ErrPanic:
		return &c.ClosedPanic
	case ErrShutdown:
		return &c.ClosedShutdown
	}
	var alert *record.Error
	if errors.As(cause, &alert) {
		return &c.ClosedTLS
	}
	var violation *frame.Error
	if !errors.As(cause, &violation) {
		return &c.ClosedGone
	}
	switch violation.Code {
	case frame.InvalidPayload:
		return &c.ClosedUTF8
	case frame.MessageTooBig:
		return &c.ClosedTooBig
	}
	return &c.ClosedProtocol
}

// Stats is what a server has now and what it has counted. Reactors bring their
// part up to date whenever they rest, and under load in each tick of 250 ms at
// least.
type Stats struct {
	Counts

	Open       int64 // connections that are open, of at most Options.MaxConns
	Sockets    int   // sockets, those included whose handshake is not complete or that are closing
	SocketsMax int   // sockets that the server has room for

	MemoryShort bool // new connections are refused, because memory is short (Options.MemoryGuard)

	Outbox    int64 // bytes that peers have not taken, of at most Options.MaxOutboxTotal
	Inbox     int64 // bytes that wait for handlers, of at most Options.MaxInboxTotal
	Partial   int64 // bytes of incomplete messages, of at most Options.MaxPartial
	Broadcast int64 // bytes of broadcasts on their way, of at most Options.MaxBroadcast

	Topics        int // topics that somebody subscribes to, of at most Options.MaxTopics
	Subscriptions int // subscriptions

	Calls   int64 // calls of handlers that wait or run
	Busy    int   // handlers that run, of at most Options.Workers
	Stuck   int   // of these, handlers that have run for longer than Options.CallTimeout
	Waiting int   // connections that wait for a worker

	Draining bool          // Server.Drain was called
	DrainFor time.Duration // until all connections have been asked to leave

	RejectedBy map[int]uint64    // handshakes rejected, by HTTP status
	RefusedBy  map[string]uint64 // of these, or closed before TLS, by reason: origin, address_connections, address_rate, prefix_connections, prefix_rate, total_rate, memory, draining

	// In microseconds.
	TurnTime Histogram // what reactors took for a turn of their loop
	PassTime Histogram // what reactors took to send a broadcast to all of theirs
	WaitTime Histogram // how long connections waited for a worker
	CallTime Histogram // what handlers took, on workers
}

// Histogram counts values by their size: bucket i those below 2^i that are not
// below 2^(i-1), the last bucket all larger ones too.
type Histogram struct {
	Buckets [histogram.Buckets]uint64
	Sum     uint64
}

// Count is how many values there are.
func (h *Histogram) Count() (n uint64) {
	for _, b := range h.Buckets {
		n += b
	}
	return n
}

func (h *Histogram) add(v uint64) {
	h.Buckets[histogram.Bucket(v)]++
	h.Sum += v
}

func (h *Histogram) merge(other *Histogram) {
	for i, n := range other.Buckets {
		h.Buckets[i] += n
	}
	h.Sum += other.Sum
}

// Stats returns the sum over all reactors. Any goroutine may call it.
func (s *Server) Stats() Stats {
	stats := Stats{
		Open: s.gate.Open(), SocketsMax: s.slots * len(s.reactors),
		MemoryShort: s.admission.short(),
		Broadcast:   s.throttle.InFlight(), RejectedBy: s.gate.Rejected(), RefusedBy: s.gate.Refused(),
	}
	stats.DrainFor, stats.Draining = s.draining()
	for _, r := range s.reactors {
		stats.Sockets += int(r.public.used.Load())
		r.public.turnTime.AddTo(&stats.TurnTime.Buckets, &stats.TurnTime.Sum)
		r.out.passTime.AddTo(&stats.PassTime.Buckets, &stats.PassTime.Sum)
		r.public.stats.addTo(&stats)
	}
	if p := s.pool; p != nil {
		now := p.Stats()
		stats.Inbox, stats.Calls, stats.Busy, stats.Waiting = now.Bytes, now.Calls, now.Busy, now.Waiting
		stats.InboxHigh, stats.InboxLow = now.Highs, now.Lows
		stats.MessagesDiscarded += now.Discarded
		stats.Stuck = s.late()
		p.WaitTime.AddTo(&stats.WaitTime.Buckets, &stats.WaitTime.Sum)
		p.CallTime.AddTo(&stats.CallTime.Buckets, &stats.CallTime.Sum)
	}
	stats.AcceptPauses += s.pauses.Load()
	stats.Stalls += s.stalls.Load()
	stats.CallsStuck += s.stuck.Load()
	stats.SendsRefused += s.refusals.Load()
	stats.Published += s.published.Load()
	stats.SubscriptionsRefused += s.subscriptionsRefused.Load()
	stats.Topics, stats.Subscriptions = s.directory.Used()
	stats.Rejected += s.rejected.Load()
	stats.BytesToDeflate += s.compress.before.Load()
	stats.BytesDeflated += s.compress.after.Load()
	stats.LogLinesLost += s.journal.lost.Load()
	return stats
}

// sharedStats is a reactor's part of the Stats.
type sharedStats struct {
	mu      sync.Mutex // so that what belongs together is seen together
	counts  Counts     // guarded by mu
	owing   int        // guarded by mu
	partial int        // guarded by mu
}

func (s *sharedStats) addTo(sum *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum.Outbox += int64(s.owing)
	sum.Partial += int64(s.partial)
	sum.Counts.add(&s.counts)
}

// publish lets others see what the reactor has counted. While somebody looks the
// reactor does not wait, unless it is about to rest for long.
func (r *reactor) publish() {
	r.public.used.Store(int64(r.slots.Used()))
	s := &r.public.stats
	if !s.mu.TryLock() {
		if r.slots.Used() > 0 {
			return
		}
		s.mu.Lock()
	}
	s.counts, s.owing = r.counts, r.out.owing
	s.partial = r.sides.held[accountPartial] + r.sides.held[accountRequest]
	s.mu.Unlock()
}
