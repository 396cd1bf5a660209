package netpoll

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eventsPerWait bounds one turn's events: enough that the wait itself is
// cheap per event, few enough that a turn stays short.
const eventsPerWait = 256

// Interest says what a socket waits for, in epoll's bits. Errors and hang-ups
// are always reported.
type Interest uint32

// The readiness a socket may wait for.
const (
	In  Interest = unix.EPOLLIN
	Out Interest = unix.EPOLLOUT
)

// Event is one socket's readiness. It lies as the kernel wrote it, so that a
// wait copies nothing.
type Event struct{ raw unix.EpollEvent }

// Token names the slot whose socket is ready.
func (e *Event) Token() Token { return Token{Slot: uint32(e.raw.Fd), Gen: uint32(e.raw.Pad)} }

// Writable reports that the socket takes bytes again.
func (e *Event) Writable() bool { return e.raw.Events&unix.EPOLLOUT != 0 }

// Readable reports that a read will not come back empty: there are bytes, the
// stream's end or an error.
func (e *Event) Readable() bool { return e.raw.Events&^unix.EPOLLOUT != 0 }

// Poller is one reactor's epoll set, level-triggered. Only the reactor's
// goroutine may use it.
type Poller struct {
	fd     int
	waker  *Waker
	events [eventsPerWait]Event
}

// wakerToken is never a slot's: generations begin at 1.
var wakerToken = Token{Slot: 1<<32 - 1, Gen: 0}

// NewPoller opens an epoll set in the calling thread's descriptor table.
// waker's Wake will interrupt its Wait.
func NewPoller(waker *Waker) (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("netpoll: epoll_create1: %w", err)
	}
	p := &Poller{fd: fd, waker: waker}
	// Edge-triggered: each write to the eventfd is one event, and nobody has
	// to read the counter back to zero.
	if err := p.ctl(unix.EPOLL_CTL_ADD, waker.fd, wakerToken, unix.EPOLLIN|unix.EPOLLET); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return p, nil
}

// Add registers a socket; its events carry token. It fails with ENOSPC at
// fs.epoll.max_user_watches.
func (p *Poller) Add(fd int, token Token, want Interest) error {
	return p.ctl(unix.EPOLL_CTL_ADD, fd, token, uint32(want))
}

// Modify changes what a registered socket waits for. Closing a socket removes
// it, so there is no Remove.
func (p *Poller) Modify(fd int, token Token, want Interest) error {
	return p.ctl(unix.EPOLL_CTL_MOD, fd, token, uint32(want))
}

func (p *Poller) ctl(op, fd int, token Token, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(token.Slot), Pad: int32(token.Gen)}
	if err := unix.EpollCtl(p.fd, op, fd, &ev); err != nil {
		return fmt.Errorf("netpoll: epoll_ctl: %w", err)
	}
	return nil
}

// Wait returns the sockets that are ready, and waits up to timeout (at least a
// millisecond unless zero; for ever when negative) if none is. It returns
// early, perhaps without events, after a Wake. The slice is valid until the
// next call.
//
// It asks twice without waiting, and lets other threads run in between: a
// sender who shares the processor can then send, which is cheaper than to be
// woken by it. The scheduler hears only of the call that does block.
func (p *Poller) Wait(timeout time.Duration) ([]Event, error) {
	n, errno := p.ask()
	if n == 0 && errno == 0 && timeout != 0 {
		Yield()
		n, errno = p.ask()
	}
	if n == 0 && errno == 0 && timeout != 0 && p.waker.sleep() {
		n, errno = p.block(timeout)
		p.waker.awake()
	}
	switch errno {
	case 0:
	case unix.EINTR:
		return nil, nil
	default:
		return nil, fmt.Errorf("netpoll: epoll_pwait: %w", errno)
	}
	events := p.events[:n]
	for i := range events {
		if events[i].Token() == wakerToken { // it has done its work by ending the wait
			last := n - 1
			events[i] = events[last]
			return events[:last], nil
		}
	}
	return events, nil
}

func (p *Poller) ask() (uintptr, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events)), eventsPerWait, 0, 0, 0)
	return n, errno
}

func (p *Poller) block(timeout time.Duration) (uintptr, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events)), eventsPerWait, milliseconds(timeout), 0, 0)
	return n, errno
}

// milliseconds is a timeout as the kernel wants it: rounded up, so that nobody
// comes back just before the time, and -1 for ever.
func milliseconds(d time.Duration) uintptr {
	if d < 0 {
		return ^uintptr(0)
	}
	return uintptr((d + time.Millisecond - 1) / time.Millisecond)
}

// Close closes the set.
func (p *Poller) Close() error { return unix.Close(p.fd) }
