//go:build linux

package netpoll

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eventsPerWait is the most events of one turn: enough to make the wait cheap for
// each event, few enough to keep the turn short.
const eventsPerWait = 256

// Interest says what a socket waits for, in epoll's bits. Errors and hang-ups
// are always reported.
type Interest uint32

// The kinds of readiness that a socket may wait for.
const (
	In  Interest = unix.EPOLLIN
	Out Interest = unix.EPOLLOUT
)

// EdgeTriggered, added to an Interest, makes a readiness be reported when it begins,
// and not again while it lasts (epoll(7)). The kernel then asks a socket once less for
// each event. A reader has to read until less comes than it asked for, or until the
// stream's end if the event has Ended, or else Modify the socket, which reports a
// readiness that lasts.
const EdgeTriggered Interest = unix.EPOLLET | unix.EPOLLRDHUP

// Event is one socket's readiness. It has the kernel's layout, so that a wait
// copies nothing.
type Event struct{ raw unix.EpollEvent }

// Token names the slot whose socket is ready.
func (e *Event) Token() Token { return Token{Slot: uint32(e.raw.Fd), Gen: uint32(e.raw.Pad)} }

// Writable reports whether the socket takes bytes again.
func (e *Event) Writable() bool { return e.raw.Events&unix.EPOLLOUT != 0 }

// Readable reports whether a read will return something: bytes, the stream's end
// or an error.
func (e *Event) Readable() bool { return e.raw.Events&^unix.EPOLLOUT != 0 }

// Ended reports whether the peer has ended its side, or the socket has failed, so that a
// read will come to an end or an error. It is told of sockets that are EdgeTriggered.
func (e *Event) Ended() bool {
	return e.raw.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
}

// Poller is one reactor's epoll set, level-triggered unless an Interest says otherwise.
// Only the reactor's
// goroutine may use it.
type Poller struct {
	fd     int
	waker  *Waker
	events [eventsPerWait]Event
	slept  bool
}

// wakerToken is never a slot's: generations begin at 1.
var wakerToken = Token{Slot: 1<<32 - 1, Gen: 0}

// NewPoller opens an epoll set in the calling thread's descriptor table. waker
// interrupts the poller's waits.
func NewPoller(waker *Waker) (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("netpoll: epoll_create1: %w", err)
	}
	p := &Poller{fd: fd, waker: waker}
	// Edge-triggered: each write to the eventfd is one event, so the counter
	// need not be read back to zero.
	if err := p.ctl(unix.EPOLL_CTL_ADD, waker.fd, wakerToken, unix.EPOLLIN|unix.EPOLLET); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return p, nil
}

// Add registers a socket, whose events will carry token. It fails with ENOSPC if
// fs.epoll.max_user_watches is reached.
func (p *Poller) Add(fd int, token Token, want Interest) error {
	return p.change(CallPollAdd, unix.EPOLL_CTL_ADD, fd, token, want)
}

// Remove ends what Add began, for a socket that stays open elsewhere. Closing a
// socket's last descriptor removes it too.
func (p *Poller) Remove(fd int) {
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) // it is registered
}

// Modify changes what a registered socket waits for.
func (p *Poller) Modify(fd int, token Token, want Interest) error {
	return p.change(CallPollModify, unix.EPOLL_CTL_MOD, fd, token, want)
}

func (p *Poller) change(c Call, op, fd int, token Token, want Interest) error {
	if Fault != nil {
		if _, errno := Fault(c, fd, 0); errno != 0 {
			return fmt.Errorf("netpoll: epoll_ctl: %w", errno)
		}
	}
	return p.ctl(op, fd, token, uint32(want))
}

func (p *Poller) ctl(op, fd int, token Token, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(token.Slot), Pad: int32(token.Gen)}
	if err := unix.EpollCtl(p.fd, op, fd, &ev); err != nil {
		return fmt.Errorf("netpoll: epoll_ctl: %w", err)
	}
	return nil
}

// Wait returns the sockets that are ready. If none is, it waits for one until
// timeout: not at all if it is zero, at least a millisecond if it is positive,
// and without end if it is negative. After a Wake it returns at once, perhaps
// without events. The slice is valid until the next call.
//
// It asks the kernel twice without waiting, and lets other threads run in
// between. A sender that shares the processor can then send, which is cheaper
// than a sleep and a wake-up. Only the call that may block is announced to Go's
// scheduler.
func (p *Poller) Wait(timeout time.Duration) ([]Event, error) { return p.wait(timeout, asleep) }

// Doze is a Wait that a Wake does not interrupt once it has begun, so that the
// Wake makes no system call. Rouse interrupts it, if there was a Wake. A reactor
// dozes when it expects several calls of Wake in a row. After Doze, the waker's
// Called tells whether there was one.
func (p *Poller) Doze(timeout time.Duration) ([]Event, error) { return p.wait(timeout, dozing) }

// Slept tells whether the last Wait or Doze found nothing ready and slept, so that what it
// returned has become ready since.
func (p *Poller) Slept() bool { return p.slept }

func (p *Poller) wait(timeout time.Duration, how uint32) ([]Event, error) {
	p.slept = false
	n, errno := p.ask()
	if n == 0 && errno == 0 && timeout != 0 {
		Yield()
		n, errno = p.ask()
	}
	if n == 0 && errno == 0 && timeout != 0 && p.waker.begin(how) {
		n, errno = p.block(timeout)
		p.waker.end()
		p.slept = true
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
		if events[i].Token() == wakerToken { // its only purpose was to end the wait
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

// milliseconds is a timeout as epoll_pwait takes it: rounded up, so that a wait
// does not end too early, and -1 for no end.
func milliseconds(d time.Duration) uintptr {
	if d < 0 {
		return ^uintptr(0)
	}
	return uintptr((d + time.Millisecond - 1) / time.Millisecond)
}

// Close closes the set.
func (p *Poller) Close() error { return unix.Close(p.fd) }
