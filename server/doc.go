// Package server is a WebSocket server for connections that are mostly silent,
// by the million.
//
// A small, fixed pool of reactors serves all connections. Each reactor is one
// goroutine on a thread of its own, and only it touches its connections: its
// epoll set, its slots, its buffers. An idle connection is a slot of 32 bytes and
// nothing else: no goroutine, no timer, no object that the garbage collector
// looks at. The loop is in reactor.go; a message goes through it like this:
//
//	input.go → calls.go → Handler → Conn.Send → output.go
//
// A broadcast goes from Server.Broadcast to output.go, and connections end in
// close.go. What needs no reactor lies in packages of its own: outbox, inbox,
// fanout and gate, under internal.
//
// Handler's functions run on workers and may block, unless Options.Mode says
// otherwise. What may wait for a connection's handler is bounded: when its inbox
// is full, its peer is not read for a while (Options.InboxPolicy). What may wait
// for a peer is bounded too: when its outbox is full, messages' policies decide
// (OutboxPolicy). Both are told and counted long before: Handler.Backpressure,
// Stats and Census.
package server
