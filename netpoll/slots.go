package netpoll

import "sync/atomic"

// Token names one use of a slot. It is the data that epoll returns with an event:
// 64 bits, no pointer.
type Token struct {
	Slot uint32
	Gen  uint32 // never zero
}

// Slot is the beginning of every slot: embed it first.
type Slot struct {
	FD  int32  // the slot's socket, -1 once freed; in a free slot, the next one
	Gen uint32 // this use's generation; zero while the slot is free
}

func (s *Slot) slot() *Slot { return s }

// Slotted is the pointer to a type that embeds Slot.
type Slotted[T any] interface {
	*T
	slot() *Slot
}

// Slots is a reactor's Table of slots. Pages become resident when slots are first
// used, and all of them are given back when the last slot is freed.
//
// Only the reactor may use it, except for Live. A generation is used once in 2^32
// allocations, so a stale token never reaches a new socket.
type Slots[T any, P Slotted[T]] struct {
	table   *Table[T]
	high    uint32   // slots from here on have never been used
	used    int      // slots in use
	gen     uint32   // the last generation given out
	free    int32    // the first of the free slots below high, or noSlot
	retired []uint32 // the slots that Reclaim will free
}

const noSlot = -1

// NewSlots reserves address space for limit slots, which costs no memory yet.
func NewSlots[T any, P Slotted[T]](limit int) (*Slots[T, P], error) {
	table, err := NewTable[T](limit)
	if err != nil {
		return nil, err
	}
	return &Slots[T, P]{table: table, free: noSlot}, nil
}

// Take allocates a zeroed slot for fd. It returns nil if Full.
func (s *Slots[T, P]) Take(fd int) P {
	var p P
	switch {
	case s.free != noSlot:
		p = s.table.At(int(s.free))
		s.free = p.slot().FD
	case int(s.high) < s.table.Len():
		p = s.table.At(int(s.high))
		s.high++
	default:
		return nil
	}
	s.used++
	s.gen++
	if s.gen == 0 { // zero means free
		s.gen++
	}
	var zero T
	*p = zero
	p.slot().FD = int32(fd)
	atomic.StoreUint32(&p.slot().Gen, s.gen)
	return p
}

// Put frees a slot. Its token is stale from now on. The slot is not reused before
// Reclaim and keeps its contents, apart from FD and Gen, so code that still
// holds the pointer may use them.
func (s *Slots[T, P]) Put(p P) {
	s.retired = append(s.retired, s.Token(p).Slot)
	p.slot().FD = -1
	atomic.StoreUint32(&p.slot().Gen, 0)
	s.used--
}

// Reclaim lets Take reuse the slots that were Put. A reactor calls it at the end
// of a turn.
func (s *Slots[T, P]) Reclaim() {
	switch {
	case len(s.retired) == 0:
		return
	case s.used == 0: // no slot is in use: begin again without resident pages
		s.high, s.free = 0, noSlot
		s.table.Zero()
	default:
		for _, i := range s.retired {
			P(s.table.At(int(i))).slot().FD = s.free
			s.free = int32(i)
		}
	}
	if s.retired = s.retired[:0]; cap(s.retired) > retiredKept {
		s.retired = nil
	}
}

// retiredKept is the longest list of freed slots that is kept for reuse.
const retiredKept = 1 << 10

// Get returns the slot that t names, or nil if t is stale.
func (s *Slots[T, P]) Get(t Token) P {
	if t.Slot >= s.high || t.Gen == 0 {
		return nil
	}
	p := P(s.table.At(int(t.Slot)))
	if p.slot().Gen != t.Gen {
		return nil
	}
	return p
}

// At returns the slot at index i, which is below High, or nil if it is free.
func (s *Slots[T, P]) At(i int) P {
	p := P(s.table.At(i))
	if p.slot().Gen == 0 {
		return nil
	}
	return p
}

// Live reports whether t is not stale. Any goroutine may call it. The answer may
// be outdated when it is used.
func (s *Slots[T, P]) Live(t Token) bool {
	return t.Gen != 0 && int(t.Slot) < s.table.Len() && atomic.LoadUint32(&P(s.table.At(int(t.Slot))).slot().Gen) == t.Gen
}

// Token names the present use of a slot.
func (s *Slots[T, P]) Token(p P) Token {
	return Token{Slot: uint32(s.table.index(p)), Gen: p.slot().Gen}
}

// Used returns the number of slots in use.
func (s *Slots[T, P]) Used() int { return s.used }

// Limit returns the number of slots that can be in use at once.
func (s *Slots[T, P]) Limit() int { return s.table.Len() }

// LastGen returns the generation that Take has given out last. Generations are
// numbered in the order of Take, modulo 2^32, without zero.
func (s *Slots[T, P]) LastGen() uint32 { return s.gen }

// Full reports whether Take would return nil. Slots that were Put count as used
// until Reclaim.
func (s *Slots[T, P]) Full() bool { return s.free == noSlot && int(s.high) == s.table.Len() }

// High returns an index that is above those of all slots in use.
func (s *Slots[T, P]) High() int { return int(s.high) }

// Close gives the memory back. All tokens are stale from now on.
func (s *Slots[T, P]) Close() {
	s.high, s.used, s.free = 0, 0, noSlot
	s.table.Zero()
}
