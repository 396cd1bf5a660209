package netpoll

import (
	"errors"
	"math"
	"sync"
)

// ErrFull says that a mailbox is at its limit; nothing was posted.
var ErrFull = errors.New("netpoll: mailbox is full")

// ErrShut says that a mailbox is not read any more; nothing was posted.
var ErrShut = errors.New("netpoll: mailbox is shut")

// The sizes of the largest arrays that a mailbox keeps for reuse.
const (
	lettersKept = 1 << 10
	bytesKept   = 64 << 10
)

// Mailbox carries letters to one reactor. The letters of each sender keep their
// order. A letter may have bytes, which are copied. The bytes of all letters are
// in one array without gaps, so those of successive letters can be sent together.
type Mailbox[L any] struct {
	waker *Waker // constant
	limit Limit  // constant

	mu   sync.Mutex
	in   batch[L] // guarded by mu
	shut bool     // guarded by mu

	room    sync.Cond // somebody waits for room
	waiting int       // how many do; guarded by mu

	out batch[L] // owned by the reactor
}

// Limit is the most that a mailbox holds. A letter with more than Bytes still
// fits an empty mailbox.
type Limit struct {
	Letters int // letters that wait
	Bytes   int // their bytes
}

// Letter is a value that was posted. Its bytes begin where the bytes of the
// letter before it end, and end at End.
type Letter[L any] struct {
	Value L
	End   int
}

type batch[L any] struct {
	letters []Letter[L]
	bytes   []byte
}

// NewMailbox makes a mailbox for waker's reactor. Each post calls Wake.
func NewMailbox[L any](waker *Waker, limit Limit) *Mailbox[L] {
	m := &Mailbox[L]{waker: waker, limit: limit}
	m.room.L = &m.mu
	return m
}

// Post adds a letter with the bytes of head followed by those of body. Any
// goroutine may call it. It returns ErrFull if the letter would exceed the limit,
// and ErrShut after Shut.
func (m *Mailbox[L]) Post(value L, head, body []byte) error {
	return m.post(value, head, body, m.limit)
}

// Force adds a letter even if it exceeds the limit. It is for letters whose
// number is limited elsewhere. It returns ErrShut after Shut.
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

// Full reports whether Post would refuse any letter. Any goroutine may call it.
func (m *Mailbox[L]) Full() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.in.letters) >= m.limit.Letters || len(m.in.bytes) >= m.limit.Bytes
}

// Rouse interrupts the reactor's Doze if there may be letters. Any goroutine may
// call it.
func (m *Mailbox[L]) Rouse() { m.waker.Rouse() }

// Called reports whether there may be letters. It costs one load.
func (m *Mailbox[L]) Called() bool { return m.waker.Called() }

// Open takes all letters that wait, oldest first, and their bytes. Both are valid
// until Empty, which comes before the next Open. Only the reactor may call it.
func (m *Mailbox[L]) Open() ([]Letter[L], []byte) {
	m.waker.Heard()
	m.mu.Lock()
	m.in, m.out = m.out, m.in
	waiting := m.waiting > 0
	m.mu.Unlock()
	if waiting {
		m.room.Broadcast()
	}
	return m.out.letters, m.out.bytes
}

// Empty drops what Open returned, so that a reactor that sleeps keeps no more than is
// worth reusing. Only the reactor may call it.
func (m *Mailbox[L]) Empty() { m.out.empty() }

// Shut makes the mailbox refuse all later letters. The next Open returns the last
// ones. Only the reactor may call Shut.
func (m *Mailbox[L]) Shut() {
	m.mu.Lock()
	m.shut = true
	m.mu.Unlock()
	m.room.Broadcast()
}

// empty prepares b for new letters. It drops what the old letters referred to,
// and arrays that have grown large.
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

// WaitRoom waits while the mailbox is more than half full. Any goroutine but the
// reactor's may call it.
func (m *Mailbox[L]) WaitRoom() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.shut && (len(m.in.letters) > m.limit.Letters/2 || len(m.in.bytes) > m.limit.Bytes/2) {
		m.waiting++
		m.room.Wait()
		m.waiting--
	}
}
