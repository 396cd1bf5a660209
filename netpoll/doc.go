// Package netpoll is what a reactor is made of: readiness, sockets, slots, a
// mailbox, a clock, and descriptor tables. It knows nothing of WebSocket, and
// it runs on Linux only.
//
// A reactor is one goroutine locked to one thread ([Tables.Start]). It owns a
// [Poller], which tells it which of its sockets are ready, and a table of
// [Slots], one slot a socket. A [Token] names a slot together with its
// generation, so that an event or a handle that outlived its socket is told
// apart from the socket that has the slot now. Everybody else reaches the
// reactor through its [Mailbox] alone, whose [Waker] interrupts a reactor that
// sleeps and costs nothing when it does not.
//
// New connections take the accept plane: an [Acceptor] watches the listening
// sockets and hands out turns, and the reactor that gets one calls [Accept] on
// its own thread.
//
// Socket functions are single non-blocking system calls. They bypass the
// scheduler's bookkeeping for calls that might block, because these cannot.
// EAGAIN and EINTR never leave the package.
package netpoll
