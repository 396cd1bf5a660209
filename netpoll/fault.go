//go:build linux

package netpoll

import "golang.org/x/sys/unix"

// Fault makes system calls on sockets fail or do less, for tests. If it is set,
// it is asked before each call, with the size of the buffer to read into or to
// write, and 0 for the other calls.
//
// If err is not zero, the system call is not made, and err is handled as if the
// kernel had returned it. So Fault is asked again after EINTR where the call is
// repeated, and EAGAIN means 0 bytes or no connection. If err is zero, a read or
// write uses the first limit bytes of its buffer. limit must be in 0..size.
//
// Set Fault only while no reactor runs. Programs leave it nil, which costs one
// predictable branch for each call.
var Fault func(c Call, fd, size int) (limit int, err unix.Errno)

// Call is a kind of system call that Fault is asked about.
type Call uint8

// The kinds of system calls.
const (
	CallRead       Call = iota // Read
	CallWrite                  // Write
	CallAccept                 // Accept
	CallPollAdd                // Poller.Add
	CallPollModify             // Poller.Modify
)
