package inbox

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// Kind says which of a handler's functions is called.
type Kind uint8

// The kinds of calls.
const (
	Upgrade      Kind = iota // Data is the request head
	Open                     //
	Message                  // Data is the message
	Backpressure             // the peer has become slow, or is slow no more
	Close                    // the last call
)

func (k Kind) String() string {
	return [...]string{"Upgrade", "Open", "Message", "Backpressure", "Close"}[k]
}

// Call is one call of a handler.
type Call struct {
	Kind Kind
	Op   byte   // of a Message
	Data []byte // valid until the call returns
}

// A call lies in an Inbox's buffer as its kind, its op and the length of its
// data in four bytes, then its data.
const recordHead = 6

// overhead is what an Inbox that has calls costs beside their records, in bytes.
const overhead = 512

// keptBytes is the largest buffer that an Inbox keeps for reuse.
const keptBytes = 4 << 10

// Limits bounds what waits in Inboxes.
type Limits struct {
	Messages int   // calls in one Inbox
	Bytes    int   // bytes in one Inbox
	Total    int64 // bytes in all Inboxes
}

// share is the part of the bytes that are free in all Inboxes together which one
// Inbox may take. The more is taken, the less may one Inbox have, so something is
// always left for those that have little.
const share = 16

// Inbox holds the calls that wait for one connection's handler. Owner is what
// the Hooks know about the connection.
type Inbox[T any] struct {
	Owner T // constant

	pool *Pool[T] // constant
	gone atomic.Bool

	mu       sync.Mutex
	in       []byte // records of the calls that no worker has taken
	calls    int    // that have not returned
	bytes    int    // of their records
	wish     Wish   // what the reactor waits for
	above    bool   // it was half full, and has been above an eighth since
	listed   bool   // in the pool's queue, being served, or parked
	parked   bool   // not in the queue, because Ready said no
	unparked bool   // Unpark came before it was parked
	high     bool   // the peer is slow now
	risen    bool   // it became slow after the handler was told last
	telling  bool   // a Backpressure call waits

	// of whoever makes its calls
	out    []byte // records that were taken
	at     int    // where in out the next call begins
	over   int    // calls that have returned, or were left out, and are not off the accounts
	size   int    // of their records
	told   bool   // what the handler was told last
	broken bool   // the handler panicked: nothing but Close is called

	// of a Message, where those are over Later
	course atomic.Uint32 // of it, from none to open
	began  time.Time     // when it was called

	next  *Inbox[T] // in the pool's queue; guarded by the pool's mu
	since time.Time // when it was put there; guarded by the pool's mu
}

// NewInbox makes an empty Inbox.
func (p *Pool[T]) NewInbox(owner T) *Inbox[T] { return &Inbox[T]{Owner: owner, pool: p} }

// Add adds a call. data is copied. It returns true if the Inbox has to be given
// to Pool.Hand. Only the reactor may call it.
func (b *Inbox[T]) Add(kind Kind, op byte, data []byte) (hand bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.add(kind, op, data)
}

func (b *Inbox[T]) add(kind Kind, op byte, data []byte) (hand bool) {
	size := recordHead + len(data)
	added := size
	if b.calls == 0 {
		added += overhead
	}
	b.in = append(b.in, byte(kind), op)
	b.in = binary.NativeEndian.AppendUint32(b.in, uint32(len(data)))
	b.in = append(b.in, data...)
	b.calls++
	b.bytes += size
	b.pool.calls.Add(1)
	b.pool.bytes.Add(int64(added))
	if !b.above && !b.within(2) {
		b.above = true
		b.pool.highs.Add(1)
	}
	hand, b.listed = !b.listed, true
	return hand
}

// finish takes calls off the accounts. It needs mu.
func (b *Inbox[T]) finish(calls, bytes int) {
	if calls == 0 {
		return
	}
	b.calls -= calls
	b.bytes -= bytes
	removed := bytes
	if b.calls == 0 {
		removed += overhead
	}
	b.pool.calls.Add(-int64(calls))
	b.pool.bytes.Add(-int64(removed))
	if b.above && b.within(8) {
		b.above = false
		b.pool.lows.Add(1)
	}
}

// within reports whether at most a part of what one Inbox may have is in b. It
// needs mu.
func (b *Inbox[T]) within(part int) bool {
	l := &b.pool.limits
	return b.calls <= l.Messages/part && b.bytes <= l.Bytes/part
}

// Pressure queues one call that tells the handler whether the peer is slow.
// However often that changes before the call is made, the handler hears each of
// the two at most once. It returns true if the Inbox has to be given to
// Pool.Hand. Only the reactor may call it.
func (b *Inbox[T]) Pressure(high bool) (hand bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.high = high
	b.risen = b.risen || high
	if b.telling {
		return false
	}
	b.telling = true
	return b.add(Backpressure, 0, nil)
}

// Pressures iterates over what a Backpressure call has to tell the handler. Only
// the worker that makes the call may use it.
func (b *Inbox[T]) Pressures(yield func(high bool) bool) {
	b.mu.Lock()
	risen, high := b.risen, b.high
	b.risen, b.telling = false, false
	b.mu.Unlock()
	if risen && !b.told {
		b.told = true
		if !yield(true) {
			return
		}
	}
	if !high && b.told {
		b.told = false
		yield(false)
	}
}

// Wish is what a reactor waits for before it goes on with a connection.
//
//	None ──Want──▶ Room or Idle ──it is true──▶ None, and WishGranted is told
type Wish uint8

// The wishes.
const (
	None Wish = iota
	Room      // the Inbox is at most half full
	Idle      // every call has returned
)

// Full reports whether no more messages should be added. An Inbox without calls
// is never full. Only the reactor may call it.
func (b *Inbox[T]) Full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls > 0 && (b.calls >= b.pool.limits.Messages || b.bytes >= b.limit())
}

// limit is how many bytes the Inbox may have now.
func (b *Inbox[T]) limit() int {
	return int(min(int64(b.pool.limits.Bytes), b.pool.free()/share))
}

// Calls returns how many calls have not returned. Any goroutine may call it.
func (b *Inbox[T]) Calls() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// Want makes a wish. It returns false if that is true already; WishGranted is not
// told then. Only the reactor may call it.
func (b *Inbox[T]) Want(w Wish) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wish = w
	return !b.granted()
}

// granted reports, once, that the wish is true. It needs mu.
func (b *Inbox[T]) granted() bool {
	switch b.wish {
	case None:
		return false
	case Room:
		if b.calls > b.pool.limits.Messages/2 || b.calls > 0 && b.bytes > b.limit()/2 {
			return false
		}
	case Idle:
		if b.calls > 0 {
			return false
		}
	}
	b.wish = None
	return true
}

// Discard drops the messages that no worker has taken, because the connection is
// gone. The worker drops those that it has taken and not come to. Other calls are
// still made. It returns how many messages it dropped. Only the reactor may call
// it.
func (b *Inbox[T]) Discard() (messages int) {
	b.mu.Lock()
	b.gone.Store(true)
	var kept []byte
	for rest := b.in; len(rest) > 0; {
		c, n := cut(rest)
		if c.Kind == Message {
			messages++
			b.finish(1, n)
		} else {
			kept = append(kept, rest[:n]...)
		}
		rest = rest[n:]
	}
	b.in = kept
	b.mu.Unlock()
	b.Unpark()
	return messages
}

// cut returns the first call of records, and the length of its record.
func cut(records []byte) (c Call, n int) {
	n = recordHead + int(binary.NativeEndian.Uint32(records[2:]))
	return Call{Kind: Kind(records[0]), Op: records[1], Data: records[recordHead:n]}, n
}

// take returns the next of the calls that were taken, and the length of its
// record; ok is false if there is none.
func (b *Inbox[T]) take() (c Call, n int, ok bool) {
	if b.at == len(b.out) {
		return c, 0, false
	}
	c, n = cut(b.out[b.at:])
	return c, n, true
}

// refill takes those calls off the accounts that are over. When all that were
// taken are, it takes all others. It returns false if there are none: then the
// Inbox is not listed any more.
func (b *Inbox[T]) refill() (more bool) {
	b.mu.Lock()
	b.finish(b.over, b.size)
	b.over, b.size = 0, 0
	changed := b.granted()
	if b.at == len(b.out) {
		spare := b.out[:0]
		if cap(spare) > keptBytes {
			spare = nil
		}
		b.out, b.in, b.at = b.in, spare, 0
	}
	more = b.at < len(b.out)
	b.listed = more
	b.mu.Unlock()
	if changed {
		b.pool.hooks.Tell(WishGranted, b)
	}
	return more
}

// park takes the Inbox out of the queue until Unpark. It returns false if Unpark
// has come already.
func (b *Inbox[T]) park() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unparked || b.gone.Load() {
		b.unparked = false
		return false
	}
	b.parked = true
	return true
}

// Unpark hands an Inbox to the pool again that Hooks.Ready has refused. Any
// goroutine may call it; one call too many does no harm.
func (b *Inbox[T]) Unpark() {
	b.mu.Lock()
	put := b.parked
	b.parked, b.unparked = false, !put
	b.mu.Unlock()
	if put {
		b.pool.Hand(b)
	}
}
