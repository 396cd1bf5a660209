package netpoll

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A waker's states. Many goroutines may wake one reactor; only the one that
// finds it asleep pays for a system call.
//
//	awake ──Wake──▶ called ──sleep (refused), Heard──▶ awake
//	awake ──sleep─▶ asleep ──Wake: write──▶ called ──awake──▶ awake
const (
	awake = iota
	called
	asleep
)

// Waker interrupts a reactor's wait. Any goroutine may call Wake; the rest is
// the reactor's own.
type Waker struct {
	fd    int // constant
	state atomic.Uint32
}

// NewWaker opens an eventfd. In private descriptor tables this must happen
// before the reactor's thread gets its own, so that both sides have it. It is
// closed when nobody refers to the Waker any more: a late Wake must not write
// to a descriptor that has become something else.
func NewWaker() (*Waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("netpoll: eventfd: %w", err)
	}
	w := &Waker{fd: fd}
	runtime.AddCleanup(w, func(fd int) { _ = unix.Close(fd) }, fd)
	return w, nil
}

// Wake makes the reactor's current or next wait return at once.
func (w *Waker) Wake() {
	if w.state.Load() != called && w.state.Swap(called) == asleep {
		one := uint64(1)
		// It cannot fail for want of room: the counter overflows after 2^64.
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(w.fd), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// Called reports that somebody has called Wake since Heard.
func (w *Waker) Called() bool { return w.state.Load() == called }

// Heard says that the reactor is about to look at what it was called for.
func (w *Waker) Heard() { w.state.Store(awake) }

// sleep announces a wait. It is false when somebody has called meanwhile.
func (w *Waker) sleep() bool { return w.state.CompareAndSwap(awake, asleep) }

// awake ends a wait. A call that ended it stays called.
func (w *Waker) awake() { w.state.CompareAndSwap(asleep, awake) }
