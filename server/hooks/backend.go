package hooks

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/internal/histogram"
)

// backend is an HTTP application that is told of the connections of one path.
//
// Messages do not wait for it on workers: while it is down, or messages enough are on their
// way, connections are parked (Handler.Ready), and a message that could not be handed over is
// held, and comes before all others of its connection.
type backend struct {
	// constant
	index                   uint8
	path, url               string
	limit                   int // calls at once
	transport               transport
	timeout, connectTimeout time.Duration
	retries                 int       // of a message that the backend may have seen
	batch                   int       // messages in one call, at most
	publisher               Publisher // nil without one
	log                     *slog.Logger
	ctx                     context.Context // ends with Hooks.Close

	breaker breaker
	turns   chan struct{} // has one for each call that runs

	mu      sync.Mutex
	running int                 // messages that are on their way and not held; guarded by mu
	asking  int                 // calls of Upgrade; guarded by mu
	granted map[uint64]struct{} // places of connections that are asked again; guarded by mu
	parked  lot                 // guarded by mu
	held    map[uint64]*message // by the connection's ID; guarded by mu
	queue   []disconnect        // guarded by mu
	senders int                 // goroutines that send them; guarded by mu
	emptier sync.Cond           // the queue has become shorter, or the backend is down

	line          line      // guarded by mu, as all here
	gathering     bool      // a caller is about to take messages of the line
	callers, idle int       // goroutines, and those of them that wait for messages
	called        sync.Cond // an idle caller has to gather, or it is the end

	counts     counts
	waiting    atomic.Int64     // calls that wait for their turn, but for messages
	answerTime histogram.Atomic // what answers took
	turnTime   histogram.Atomic // what calls waited for their turn
	complained atomic.Int64     // when something was logged last, in nanoseconds since 1970
}

// Bounds of what is kept for a backend, beside its connections' inboxes.
const (
	queueMost = 64 << 10 // disconnects that wait to be told
)

// turnsMost is how many calls may be made or wait for their turn: half as many wait as are
// made, so that it is never nobody's.
func (b *backend) turnsMost() int { return b.limit + max(1, b.limit/2) }

// messagesMost is how many messages may be on their way, or wait for their turn.
func (b *backend) messagesMost() int { return b.batch * b.turnsMost() }

// ready reports whether a message of c can be sent now, and gives it a place then. Otherwise
// c is parked. Who is parked comes before who is not, in the order of coming.
func (b *backend) ready(c server.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, granted := b.granted[c.ID()]
	delete(b.granted, c.ID())
	if b.takes() && b.held[c.ID()] == nil && (granted || b.free() > 0 && b.parked.len() == 0) {
		b.running++
		return true
	}
	if b.parked.add(c, time.Now()) {
		b.counts.add(parkings)
	}
	return false
}

// takes reports whether messages may be sent at all. It needs mu.
func (b *backend) takes() bool { return !b.breaker.down() && len(b.held) < b.limit*b.batch }

// free is how many more messages may be on their way. It needs mu.
func (b *backend) free() int { return b.messagesMost() - b.running - len(b.granted) }

// resume gives free places to those that have been parked for longest. It needs mu.
func (b *backend) resume() {
	for b.takes() && b.free() > 0 {
		c, ok := b.parked.next(func(id uint64) bool { return b.held[id] == nil })
		if !ok {
			return
		}
		b.granted[c.ID()] = struct{}{}
		c.Resume()
	}
}

// leave forgets a connection that has ended, but for a message that is held.
func (b *backend) leave(id uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.parked.remove(id)
	if _, granted := b.granted[id]; granted {
		delete(b.granted, id)
		b.resume()
	}
}

// fate says what became of a call.
type fate uint8

const (
	fateAnswered fate = iota // there is an answer
	fateUnsent               // the backend has not taken it: it can be made again
	fateUnknown              // nobody knows whether the backend has seen it
)

// do makes a call when it is its turn, for which it waits as long as patience says, for ever
// if that is zero, and calls use with the answer. It returns what became of it, and why it is
// not fateAnswered.
func (b *backend) do(c *call, patience, timeout time.Duration, use func(answer)) (fate, error) {
	asked := time.Now()
	b.waiting.Add(1)
	at, err := b.turn(patience)
	b.waiting.Add(-1)
	if err != nil {
		return fateUnsent, err
	}
	b.turnTime.AddTime(at.Sub(asked))
	return b.make(c, at, timeout, use)
}

// make makes a call whose turn it is, and ends the turn.
func (b *backend) make(c *call, at time.Time, timeout time.Duration, use func(answer)) (fate, error) {
	if b.breaker.down() { // since it has waited
		<-b.turns
		return fateUnsent, errDown
	}
	a, give, err := b.transport.do(c, at, timeout)
	<-b.turns
	if err == nil {
		defer give()
		b.answerTime.AddTime(time.Since(at))
		err = a.gatewayError()
	}
	if err == nil {
		b.breaker.up()
		use(a)
		return fateAnswered, nil
	}
	b.failed(err)
	if not := (unsent{}); errors.As(err, &not) {
		return fateUnsent, err
	}
	return fateUnknown, err
}

// turn waits until a call may be made, and returns when that is.
func (b *backend) turn(patience time.Duration) (at time.Time, err error) {
	select {
	case b.turns <- struct{}{}:
		return time.Now(), nil
	default:
	}
	var late <-chan time.Time
	if patience > 0 {
		late = time.After(patience)
	}
	select {
	case b.turns <- struct{}{}:
		return time.Now(), nil
	case <-late:
		return at, errBusy
	case <-b.ctx.Done():
		return at, b.ctx.Err()
	}
}

// What is wrong with a backend that has answered, or has not been asked.
var (
	errUnavailable = errors.New("the backend answered 503")
	errGateway     = errors.New("the backend's gateway answered 502 or 504")
	errBusy        = errors.New("all of the backend's workers are busy")
	errDown        = errors.New("the backend is down")
)

// failed counts a failure. So many in a row mean that the backend is down.
func (b *backend) failed(err error) {
	b.counts.add(fault(err))
	if b.ctx.Err() != nil || !b.breaker.fail(time.Now(), err) {
		return
	}
	b.counts.add(trips)
	b.log.Error("the backend is down: handshakes are refused and messages wait", "backend", b.url, "error", err)
	b.mu.Lock()
	b.emptier.Broadcast()
	b.mu.Unlock()
	go b.probe()
}

// probe asks the backend until it answers. A probe is a request with the method OPTIONS,
// which changes nothing.
func (b *backend) probe() {
	for {
		select {
		case <-time.After(b.breaker.wait(time.Now())):
		case <-b.ctx.Done():
			return
		}
		now := time.Now()
		a, give, err := b.transport.do(&call{}, now, b.timeout)
		if err == nil {
			err = a.gatewayError()
			give()
		}
		b.counts.add(probes)
		if b.breaker.probed(time.Now(), err); err == nil {
			b.log.Info("the backend is back", "backend", b.url)
			b.back()
			return
		}
	}
}

// back goes on with everything that has waited for the backend.
func (b *backend) back() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.held {
		b.sendAgain(m)
	}
	b.resume()
	b.send()
}

// close ends everything that is under way.
func (b *backend) close() {
	b.transport.close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle = 0
	b.called.Broadcast()
}

// retryAfter is when it is worth trying again to connect, in seconds.
func (b *backend) retryAfter() string {
	return strconv.Itoa(1 + int(b.breaker.wait(time.Now())/time.Second))
}

// complain logs what went wrong, at most once a second.
func (b *backend) complain(text string, args ...any) {
	now := time.Now().UnixNano()
	if last := b.complained.Load(); now-last >= int64(time.Second) && b.complained.CompareAndSwap(last, now) {
		b.log.Warn(text, append([]any{"backend", b.url}, args...)...)
	}
}
