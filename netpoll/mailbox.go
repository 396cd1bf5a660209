package netpoll

import (
	"errors"
	"math"
	"sync"
)

// ErrFull says that a mailbox is at its limit; nothing was posted.
var ErrFull = errors.New("netpoll: mailbox is full")

// ErrShut says that nobody reads a mailbox any more; nothing was posted.
var ErrShut = errors.New("netpoll: mailbox is shut")

// The largest arrays that a mailbox keeps for reuse.
const (
	lettersKept = 1 << 10
	bytesKept   = 64 << 10
)

// Mailbox carries letters to one reactor, in the order in which each sender
// posted them. A letter may bring bytes along, which are copied: all letters'
// bytes lie back to back in one array, so neighbours can be sent as one.
type Mailbox[L any] struct {
	waker *Waker // constant
	limit Limit  // constant

	mu   sync.Mutex
	in   batch[L] // guarded by mu
	shut bool     // guarded by mu

	out batch[L] // the reader's
}

// Limit bounds a mailbox. A letter whose bytes exceed Bytes still fits an
// empty one.
type Limit struct {
	Letters int // letters that wait
	Bytes   int // bytes that they bring along
}

// Letter is a value that was posted. Its bytes end at End; they begin where
// those of the letter before it end.
type Letter[L any] struct {
	Value L
	End   int
}

type batch[L any] struct {
	letters []Letter[L]
	bytes   []byte
}

// NewMailbox makes a mailbox whose posts wake waker's reactor.
func NewMailbox[L any](waker *Waker, limit Limit) *Mailbox[L] {
	return &Mailbox[L]{waker: waker, limit: limit}
}

// Post adds a letter with the bytes of head and body behind each other. Any
// goroutine may call it. It returns ErrFull rather than exceed the limit, and
// ErrShut after Shut.
func (m *Mailbox[L]) Post(value L, head, body []byte) error {
	return m.post(value, head, body, m.limit)
}

// Force adds a letter with bytes without regard to the limit. It is for
// letters whose number is bounded elsewhere. It returns ErrShut after Shut.
func (m *Mailbox[L]) Force(value L, data []byte) error {
	return m.post(value, data, nil, Limit{Letters: math.MaxInt, Bytes: math.MaxInt})
}

func (m *Mailbox[L]) post(value L, head, body []byte, limit Limit) error {
	m.mu.Lock()
	waiting := len(m.in.bytes)
	switch {
	case m.shut:
		m.mu.Unlock()
		return ErrShut
	case len(m.in.letters) >= limit.Letters || waiting > 0 && waiting+len(head)+len(body) > limit.Bytes:
		m.mu.Unlock()
		return ErrFull
	}
	m.in.bytes = append(append(m.in.bytes, head...), body...)
	m.in.letters = append(m.in.letters, Letter[L]{value, len(m.in.bytes)})
	m.mu.Unlock()
	m.waker.Wake()
	return nil
}

// Called reports, at the cost of one load, that there may be letters.
func (m *Mailbox[L]) Called() bool { return m.waker.Called() }

// Open takes all letters that wait, oldest first, and the bytes that they
// brought. Both are valid until the next Open. Only the reactor may call it.
func (m *Mailbox[L]) Open() ([]Letter[L], []byte) {
	m.out.empty()
	m.waker.Heard()
	m.mu.Lock()
	m.in, m.out = m.out, m.in
	m.mu.Unlock()
	return m.out.letters, m.out.bytes
}

// Shut refuses all later letters; an Open after it returns the last. Only the
// reactor may call it.
func (m *Mailbox[L]) Shut() {
	m.mu.Lock()
	m.shut = true
	m.mu.Unlock()
}

// empty prepares b for new letters, without what the old ones referred to, and
// without the memory of a burst.
func (b *batch[L]) empty() {
	clear(b.letters)
	b.letters, b.bytes = b.letters[:0], b.bytes[:0]
	if cap(b.letters) > lettersKept {
		b.letters = nil
	}
	if cap(b.bytes) > bytesKept {
		b.bytes = nil
	}
}
