// Package netpoll holds the parts of a reactor: readiness, sockets, slots, a
// mailbox, a clock, and descriptor tables. It knows nothing about WebSocket, and
// it runs on Linux only.
//
// A reactor is one goroutine locked to one thread ([Threads.Start]). It owns a
// [Poller], which reports which of its sockets are ready, and a table of
// [Slots], one slot for each socket. What a connection needs only at times comes
// from a [Pool]. A [Token] names a slot together with its
// generation, so that an old event or handle never reaches the socket that has
// the slot now. Other goroutines reach the reactor through its [Mailbox] only.
// The mailbox's [Waker] interrupts a reactor that sleeps, and makes no system
// call if it does not sleep.
//
// An [Acceptor] watches the listening sockets and gives the reactors grants. A
// reactor that has a grant calls [Accept] on its own thread.
//
// In comments, a turn is one iteration of a reactor's loop.
//
// Each socket function is one non-blocking system call. It does not tell Go's
// scheduler about the call, because the call cannot block. EAGAIN and EINTR
// never leave the package.
package netpoll
