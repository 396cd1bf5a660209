//go:build linux

package netpoll

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Table is an array in memory that the garbage collector does not know, so T
// must not hold pointers to collected memory. Pages become resident when they
// are first used.
type Table[T any] struct {
	cells []T
}

// NewTable reserves address space for n zeroed cells, which costs no memory yet.
// The cells are unmapped when nothing refers to the Table any more.
func NewTable[T any](n int) (*Table[T], error) {
	var zero T
	mem, err := unix.Mmap(-1, 0, n*int(unsafe.Sizeof(zero)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("netpoll: mmap for %d slots: %w", n, err)
	}
	// Otherwise the first cell would make a huge page resident. Kernels without
	// huge pages refuse the advice, which does no harm.
	_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	t := &Table[T]{cells: unsafe.Slice((*T)(unsafe.Pointer(&mem[0])), n)}
	runtime.AddCleanup(t, func(mem []byte) { _ = unix.Munmap(mem) }, mem)
	return t, nil
}

// Len returns the number of cells.
func (t *Table[T]) Len() int { return len(t.cells) }

// At returns cell i. The pointer does not keep the Table alive.
func (t *Table[T]) At(i int) *T { return &t.cells[i] }

// index returns the i for which At(i) is p.
func (t *Table[T]) index(p *T) int {
	return int((uintptr(unsafe.Pointer(p)) - uintptr(unsafe.Pointer(&t.cells[0]))) / unsafe.Sizeof(*p))
}

// Zero zeroes all cells and gives their memory back.
func (t *Table[T]) Zero() { _ = unix.Madvise(t.bytes(), unix.MADV_DONTNEED) }

func (t *Table[T]) bytes() []byte {
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(&t.cells[0])), len(t.cells)*int(unsafe.Sizeof(zero)))
}
