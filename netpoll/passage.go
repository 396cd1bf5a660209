//go:build linux

package netpoll

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Passage carries sockets between the program's descriptor table and that of a
// reactor, which may be private (SCM_RIGHTS, unix(7)). A socket that was passed
// is open in both tables until each closes its own descriptor. Sockets that wait
// in the passage arrive in their order.
type Passage struct{ outside, inside int }

// NewPassage opens a passage. With private tables it must be called before the
// reactor's thread starts, which has to keep Inside.
func NewPassage() (*Passage, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("netpoll: socketpair: %w", err)
	}
	return &Passage{outside: pair[0], inside: pair[1]}, nil
}

// Inside is the descriptor that the reactor's table needs.
func (p *Passage) Inside() int { return p.inside }

// PassIn passes a socket to the reactor. It never waits: it returns EAGAIN when
// too many sockets wait in the passage. Any goroutine of the program's table may
// call it.
func (p *Passage) PassIn(fd int) error { return pass(p.outside, fd) }

// TakeIn takes the next socket that was passed in. It is non-blocking if it was
// so before. Only the reactor may call it.
func (p *Passage) TakeIn() (fd int, err error) { return take(p.inside) }

// PassOut passes a socket to the program's table. It never waits. Only the
// reactor may call it.
func (p *Passage) PassOut(fd int) error { return pass(p.inside, fd) }

// TakeOut takes the next socket that was passed out. One goroutine of the
// program's table may call it at a time.
func (p *Passage) TakeOut() (fd int, err error) { return take(p.outside) }

// Close closes both ends in the calling thread's table, and the sockets that
// wait if it is the last table.
func (p *Passage) Close() {
	_ = unix.Close(p.outside)
	_ = unix.Close(p.inside)
}

func pass(end, fd int) error {
	// A message needs a byte to carry the descriptor.
	if err := unix.Sendmsg(end, []byte{0}, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("netpoll: pass a socket: %w", err)
	}
	return nil
}

// errNoSocket says that a message came without its socket: the table is full.
var errNoSocket = errors.New("netpoll: take a socket: the descriptor table is full")

func take(end int) (int, error) {
	var data [1]byte
	rights := make([]byte, unix.CmsgSpace(4))
	for {
		_, n, _, _, err := unix.Recvmsg(end, data[:], rights, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("netpoll: take a socket: %w", err)
		}
		messages, err := unix.ParseSocketControlMessage(rights[:n])
		if err != nil || len(messages) != 1 {
			return -1, errNoSocket
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			return -1, errNoSocket
		}
		return fds[0], nil
	}
}
