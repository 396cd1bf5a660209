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
// and a broadcast's is Server.Broadcast → broadcast.go → write.go.
//
// Handler's functions run on the reactor, so they must not block: while one
// does, none of the reactor's other connections is served.
package server
