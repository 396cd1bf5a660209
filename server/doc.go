// Package server is a WebSocket server for connections that are mostly silent,
// by the million.
//
// A small, fixed pool of reactors serves all connections. Each reactor is one
// goroutine on a thread of its own and the only one that ever touches its
// connections: its epoll set, its slots, its buffers. An idle connection is a
// slot of 32 bytes and nothing else: no goroutine, no timer, no object that
// the garbage collector would look at. The loop is in reactor.go; a message's
// way through it is
//
//	accept.go → handshake.go → read.go → Handler → Conn.Send → write.go
//
// and a broadcast's is Server.Broadcast → broadcast.go → write.go. What a
// socket does not take goes on in slow.go, what handlers have yet to hear lies
// in queue.go and pool.go.
//
// Handler's functions run on workers and may block, unless Options.Mode says
// otherwise. What a connection's handler has yet to hear is bounded: when it is
// full, its peer is not read for a while (Options.WhenFull). What a peer has
// yet to be sent is bounded too: when it is full, messages' policies decide
// (WhenSlow). Both are told and counted long before: Handler.Slow, Stats and
// Census.
package server
