package netpoll

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Token names one use of a slot. It is what epoll hands back with an event:
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

// Slots is a reactor's table of fixed-size slots. It lies in memory of its own
// that the garbage collector never looks at, so T must not hold pointers to
// collected memory. Pages become resident as slots are first used; all are
// given back when the last slot is freed.
//
// Only the reactor may use it. A generation is used once in 2^32 allocations,
// so a stale token never meets a new socket.
type Slots[T any, P Slotted[T]] struct {
	table   []T
	high    uint32   // slots below have been used
	used    int      // slots in use
	gen     uint32   // the last generation given out
	free    int32    // the first of the free slots below high, or noSlot
	retired []uint32 // those that Reclaim will free
}

const noSlot = -1

// NewSlots reserves address space for limit slots, which costs no memory yet.
func NewSlots[T any, P Slotted[T]](limit int) (*Slots[T, P], error) {
	var zero T
	mem, err := unix.Mmap(-1, 0, limit*int(unsafe.Sizeof(zero)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("netpoll: mmap for %d slots: %w", limit, err)
	}
	// One huge page would be resident for the first slot of each reactor.
	// Kernels without huge pages refuse the advice, which is as good.
	_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	return &Slots[T, P]{table: unsafe.Slice((*T)(unsafe.Pointer(&mem[0])), limit), free: noSlot}, nil
}

// Take allocates a zeroed slot for fd. It returns nil when all are in use.
func (s *Slots[T, P]) Take(fd int) P {
	var p P
	switch {
	case s.free != noSlot:
		p = &s.table[s.free]
		s.free = p.slot().FD
	case int(s.high) < len(s.table):
		p = &s.table[s.high]
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
	*p.slot() = Slot{FD: int32(fd), Gen: s.gen}
	return p
}

// Put frees a slot. Its token is stale from here on, but the rest of it stays
// as it is until Reclaim, so that nobody who still has it in hand needs to ask
// whether it is somebody else's already.
func (s *Slots[T, P]) Put(p P) {
	s.retired = append(s.retired, s.Token(p).Slot)
	*p.slot() = Slot{FD: -1}
	s.used--
}

// Reclaim lets Take reuse what was Put. A reactor calls it at the end of a
// turn.
func (s *Slots[T, P]) Reclaim() {
	switch {
	case len(s.retired) == 0:
		return
	case s.used == 0: // everybody has left: begin again with no resident page
		s.high, s.free = 0, noSlot
		_ = unix.Madvise(s.bytes(), unix.MADV_DONTNEED)
	default:
		for _, i := range s.retired {
			P(&s.table[i]).slot().FD = s.free
			s.free = int32(i)
		}
	}
	if s.retired = s.retired[:0]; cap(s.retired) > retiredKept {
		s.retired = nil
	}
}

// retiredKept is the longest list of freed slots that is kept for reuse.
const retiredKept = 1 << 10

// Get returns the slot that t names, nil when t is stale.
func (s *Slots[T, P]) Get(t Token) P {
	if t.Slot >= s.high {
		return nil
	}
	p := P(&s.table[t.Slot])
	if p.slot().Gen != t.Gen {
		return nil
	}
	return p
}

// At returns the slot at index i below High, nil when it is free.
func (s *Slots[T, P]) At(i int) P {
	p := P(&s.table[i])
	if p.slot().Gen == 0 {
		return nil
	}
	return p
}

// Token names the slot in its present use.
func (s *Slots[T, P]) Token(p P) Token {
	var zero T
	i := (uintptr(unsafe.Pointer(p)) - uintptr(unsafe.Pointer(&s.table[0]))) / unsafe.Sizeof(zero)
	return Token{Slot: uint32(i), Gen: p.slot().Gen}
}

// Used returns the number of slots in use, Limit how many there can be.
func (s *Slots[T, P]) Used() int { return s.used }

// Limit returns the number of slots that can be in use at once.
func (s *Slots[T, P]) Limit() int { return len(s.table) }

// Full reports that Take would return nil: slots that were Put are not free
// before Reclaim.
func (s *Slots[T, P]) Full() bool { return s.free == noSlot && int(s.high) == len(s.table) }

// High is the index below which every slot in use lies.
func (s *Slots[T, P]) High() int { return int(s.high) }

// Close gives the memory back. No slot may be touched afterwards.
func (s *Slots[T, P]) Close() error {
	mem := s.bytes()
	s.table, s.high, s.used = nil, 0, 0
	return unix.Munmap(mem)
}

func (s *Slots[T, P]) bytes() []byte {
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(&s.table[0])), len(s.table)*int(unsafe.Sizeof(zero)))
}
