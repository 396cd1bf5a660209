package slab

import (
	"encoding/binary"
	"unsafe"

	"github.com/seed-134acfd0/lull/netpoll"
)

// Records are values of type T, which must hold no pointers and have at least four
// bytes.
type Records[T any] struct {
	table *netpoll.Table[T]
	high  uint32 // records from here on have never been used
	free  uint32 // the first free one below high; its first four bytes name the next
	used  int
}

// NewRecords reserves address space for limit records.
func NewRecords[T any](limit int) (*Records[T], error) {
	table, err := netpoll.NewTable[T](limit + 1)
	if err != nil {
		return nil, err
	}
	return &Records[T]{table: table, high: 1}, nil
}

// Take returns the index of a zeroed record, 0 if all are in use.
func (r *Records[T]) Take() uint32 {
	i := r.free
	switch {
	case i != 0:
		p := r.table.At(int(i))
		r.free = binary.NativeEndian.Uint32(link(p))
		var zero T
		*p = zero
	case int(r.high) < r.table.Len():
		i = r.high
		r.high++
	default:
		return 0
	}
	r.used++
	return i
}

// Put frees a record. It is zero but for its first four bytes until it is taken
// again.
func (r *Records[T]) Put(i uint32) {
	if r.used--; r.used == 0 && r.high > keptMost {
		r.high, r.free = 1, 0
		r.table.Zero()
		return
	}
	p := r.table.At(int(i))
	var zero T
	*p = zero
	binary.NativeEndian.PutUint32(link(p), r.free)
	r.free = i
}

// keptMost is how many records or buckets stay resident when none is in use.
const keptMost = 1 << 12

// link is where a free record names the next one.
func link[T any](p *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(p)), 4) }

// At returns a record. The pointer is good until the record is freed.
func (r *Records[T]) At(i uint32) *T { return r.table.At(int(i)) }

// Used is how many records are in use.
func (r *Records[T]) Used() int { return r.used }

// Room is how many more can be taken.
func (r *Records[T]) Room() int { return r.table.Len() - 1 - r.used }

// High is above all indexes in use.
func (r *Records[T]) High() uint32 { return r.high }
