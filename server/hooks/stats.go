package hooks

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/server"
)

// counter is something that is counted: for each backend, or for the API.
type counter uint8

const (
	connectsAccepted counter = iota
	connectsRefused
	connectsBusy
	connectsFailed
	connectsAgain
	messagesAnswered
	messagesRefused
	messagesHeld
	messagesAgain
	messagesLost
	answersBad
	answersUndelivered
	disconnectsTold
	disconnectsRefused
	disconnectsAgain
	disconnectsLost
	parkings
	trips
	probes
	faultUnreachable
	faultUnavailable
	faultGateway
	faultLate
	faultCut
	faultGarbage
	faultLarge
	counters
)

// CounterNames are the names of what is counted for each backend, with what they mean.
var CounterNames = [...]struct{ Name, Help string }{
	connectsAccepted:   {"connects_accepted", "handshakes that the backend has accepted"},
	connectsRefused:    {"connects_refused", "handshakes that the backend has refused"},
	connectsBusy:       {"connects_busy", "handshakes that were refused because too many waited for the backend"},
	connectsFailed:     {"connects_failed", "handshakes that were refused because the backend did not answer"},
	connectsAgain:      {"connects_again", "times that the backend was asked again about a handshake"},
	messagesAnswered:   {"messages_answered", "messages that the backend has handled"},
	messagesRefused:    {"messages_refused", "messages that the backend has answered with an error"},
	messagesHeld:       {"messages_held", "times that the backend has not taken a message, which was held to be sent later"},
	messagesAgain:      {"messages_again", "times that a message was sent again of which nobody knew whether the backend had seen it"},
	messagesLost:       {"messages_lost", "messages of which nobody knows whether the backend has seen them"},
	answersBad:         {"answers_bad", "answers that cannot be: wrong JSON, names, codes or text"},
	answersUndelivered: {"answers_undelivered", "answers whose connection had ended or did not take them"},
	disconnectsTold:    {"disconnects_told", "ends of connections that the backend was told of"},
	disconnectsRefused: {"disconnects_refused", "ends of connections that the backend has answered with an error"},
	disconnectsAgain:   {"disconnects_again", "times that the backend was told again of an end"},
	disconnectsLost:    {"disconnects_lost", "ends of connections that the backend was not told of"},
	parkings:           {"parkings", "times that a connection's messages had to wait, because the backend was down or had all that it could do"},
	trips:              {"trips", "times that the backend went down"},
	probes:             {"probes", "times that it was asked whether it is back"},
	faultUnreachable:   {"fault_unreachable", "calls that the backend has not seen, because it could not be reached"},
	faultUnavailable:   {"fault_unavailable", "calls that were answered 503"},
	faultGateway:       {"fault_gateway", "calls that were answered 502 or 504"},
	faultLate:          {"fault_late", "calls that were not answered in time"},
	faultCut:           {"fault_cut", "calls whose answer did not arrive to its end"},
	faultGarbage:       {"fault_garbage", "calls that were answered with something that is no HTTP"},
	faultLarge:         {"fault_large", "calls whose answer was larger than Options.MaxAnswer"},
}

// fault is the counter of a failure.
func fault(err error) counter {
	for _, row := range []struct {
		of error
		is counter
	}{
		{errUnavailable, faultUnavailable}, {errGateway, faultGateway}, {errTimeout, faultLate},
		{errGarbage, faultGarbage}, {errLarge, faultLarge},
	} {
		if errors.Is(err, row.of) {
			return row.is
		}
	}
	if not := (unsent{}); errors.As(err, &not) {
		return faultUnreachable
	}
	return faultCut
}

// Stats is how the backends are, and what was counted.
type Stats struct {
	Backends []BackendStats
	API      map[string]uint64 // calls of the API, by what came of them
	NoPath   uint64            // handshakes for whose path there is no backend
}

// BackendStats is how a backend is.
type BackendStats struct {
	Path, URL string

	Down  bool
	Since time.Time // when it went down, if it is
	Cause string    // of the last failure, as long as it is down

	Busy, Limit int // calls that it has to answer, of at most Limit
	Turns       int // calls that wait until it has fewer

	Parked      int           // connections whose messages wait for it
	ParkedSince time.Duration // for how long there have been such connections without a pause
	Longest     []Waiting     // those that wait for longest
	Held        int           // messages that it has not taken
	Ends        int           // ended connections of which it is not told yet

	Counts map[string]uint64 // by CounterNames

	// In microseconds.
	TurnTime   server.Histogram // how long calls waited for their turn
	AnswerTime server.Histogram // how long the backend took to answer
}

// Waiting is a connection whose messages wait.
type Waiting struct {
	ID, User string
	For      time.Duration
}

// Advice says in a few words what there is to do, empty if nothing is: the backend is down,
// or it is the backend that everybody waits for, and not lull.
func (b *BackendStats) Advice() string {
	switch {
	case b.Down:
		return "start the backend: it is down"
	case b.ParkedSince >= time.Second, b.Busy >= b.Limit && (b.Parked > 0 || b.Turns > 0):
		return "scale the backend: all of its workers are busy, and messages wait"
	}
	return ""
}

// longestMost is how many waiting connections are named.
const longestMost = 10

// Stats returns them. Any goroutine may call it.
func (h *Hooks) Stats() Stats {
	s := Stats{API: map[string]uint64{}, NoPath: h.noPath.Load()}
	for code, n := range h.api {
		s.API[code] = n.Load()
	}
	for _, b := range h.backends {
		s.Backends = append(s.Backends, b.stats(h, time.Now()))
	}
	return s
}

func (b *backend) stats(h *Hooks, now time.Time) BackendStats {
	s := BackendStats{Path: b.path, URL: b.url, Busy: len(b.turns), Limit: b.limit, Counts: map[string]uint64{}}
	s.Down, s.Since, s.Cause = b.breaker.state()
	b.mu.Lock()
	s.Turns = b.line.len + int(b.waiting.Load())
	s.Parked, s.Held, s.Ends = b.parked.len(), len(b.held), len(b.queue)
	if s.Parked > 0 {
		s.ParkedSince = now.Sub(b.parked.since)
	}
	waiting := b.parked.first(longestMost)
	b.mu.Unlock()
	for _, p := range waiting {
		n := h.names.get(p.conn.Tag())
		s.Longest = append(s.Longest, Waiting{h.externalID(p.conn, &n), n.user, now.Sub(p.since)})
	}
	for i, c := range CounterNames {
		s.Counts[c.Name] = b.counts[i].Load()
	}
	b.turnTime.AddTo(&s.TurnTime.Buckets, &s.TurnTime.Sum)
	b.answerTime.AddTo(&s.AnswerTime.Buckets, &s.AnswerTime.Sum)
	return s
}

// apiCounts are what came of the API's requests, by the code of an error.
type apiCounts map[string]*atomic.Uint64

func newAPICounts() apiCounts {
	c := apiCounts{countOK: new(atomic.Uint64), countRepeated: new(atomic.Uint64), countForwarded: new(atomic.Uint64), errOther.code: new(atomic.Uint64)}
	for _, e := range apiErrors {
		c[e.code] = new(atomic.Uint64)
	}
	return c
}

func (c apiCounts) add(code string) { c[code].Add(1) }

// counts are what was counted.
type counts [counters]atomic.Uint64

func (c *counts) add(of counter) { c[of].Add(1) }
