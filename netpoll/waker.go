//go:build linux

package netpoll

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A waker's state says what the reactor does, and whether Wake was called since
// Heard. Any goroutine may call Wake and Rouse; the rest is the reactor's own.
//
//	            Wake                   Rouse                  the wait ends  Heard
//	awake       → awake+called                                               → awake
//	asleep      → asleep+called, write                        → awake
//	dozing      → dozing+called                               → awake
//	awake+called                                                             → awake
//	asleep+called                                             → awake+called
//	dozing+called                      → asleep+called, write → awake+called
//
// Where nothing is written, nothing happens. A wait begins from awake only: a
// reactor that was called neither sleeps nor dozes. "write" is the one system
// call, which interrupts the wait; in asleep+called it has been made.
const (
	awake  = iota
	asleep // Wake interrupts the wait
	dozing // Rouse interrupts the wait, after a Wake

	called = 1 << 2 // a mark that is added to one of the above
)

// Waker interrupts a reactor's wait.
type Waker struct {
	fd    int // constant
	state atomic.Uint32
}

// NewWaker opens an eventfd. With private descriptor tables it must be called
// before the reactor's thread gets its table, so that the table has the eventfd
// too. The eventfd is closed when nothing refers to the Waker any more, so a
// late Wake never writes to a descriptor that was reused.
func NewWaker() (*Waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("netpoll: eventfd: %w", err)
	}
	w := &Waker{fd: fd}
	runtime.AddCleanup(w, func(fd int) { _ = unix.Close(fd) }, fd)
	return w, nil
}

// Wake calls the reactor: its current or next Wait returns at once. A Doze that
// has begun goes on until Rouse. Any goroutine may call Wake.
func (w *Waker) Wake() {
	if w.state.Load()&called == 0 && w.state.Or(called) == asleep {
		w.interrupt()
	}
}

// Rouse interrupts a Doze if Wake was called. Otherwise it does nothing. A
// goroutine that calls Wake many times in a row calls Rouse once, at the end.
// Any goroutine may call Rouse.
func (w *Waker) Rouse() {
	if w.state.Load() == dozing|called && w.state.CompareAndSwap(dozing|called, asleep|called) {
		w.interrupt()
	}
}

func (w *Waker) interrupt() {
	one := uint64(1)
	// It cannot fail: the counter would overflow only after 2^64 writes.
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(w.fd), uintptr(unsafe.Pointer(&one)), 8)
}

// Called reports whether Wake was called since Heard.
func (w *Waker) Called() bool { return w.state.Load()&called != 0 }

// Heard forgets all calls of Wake so far. The reactor calls it before it looks
// into its mail.
func (w *Waker) Heard() { w.state.Store(awake) }

// begin announces a wait, asleep or dozing. It returns false if Wake was called,
// and then the reactor must not wait.
func (w *Waker) begin(wait uint32) bool { return w.state.CompareAndSwap(awake, wait) }

// end ends a wait.
func (w *Waker) end() { w.state.And(called) }
