package server

import (
	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// Conn names a connection. It is a small comparable value that any goroutine
// may keep and use; once its connection is gone it names nothing, and never
// another one.
type Conn struct {
	server *Server
	id     uint64
	tag    uint64
}

// ID numbers the connection uniquely in its server.
//
//	bits 63…32 generation · 31…22 reactor · 21…0 slot
func (c Conn) ID() uint64 { return c.id }

// Tag is what Upgrade set in Request.Tag.
func (c Conn) Tag() uint64 { return c.tag }

// Server is the server that the connection belongs to.
func (c Conn) Server() *Server { return c.server }

// Send sends a message, frame.Text or frame.Binary; text must be UTF-8. It
// copies data and does not wait. It returns ErrSlow when the reactor has too
// much before it, and nothing is sent then; ErrClosed when the server has
// ended. What one goroutine sends and broadcasts arrives in that order.
//
// A nil error means that the message was queued. If its connection is closed
// before the message's turn comes, the message is counted in Stats as
// Undelivered.
func (c Conn) Send(op frame.Op, data []byte) error {
	var head [maxHeader]byte
	return c.post(frame.AppendHeader(head[:0], op, len(data)), data)
}

// maxHeader is the longest header of a frame that is not masked, in bytes (RFC
// 6455 section 5.2).
const maxHeader = 10

func (c Conn) post(head, data []byte) error {
	r, token := c.address()
	return sendError(r.mail.Post(op{kind: opSend, token: token}, head, data))
}

// Close starts the closing handshake with a code and a reason of at most 123
// bytes. It does not wait: Handler.Close is called when the peer has answered,
// or has not within the timeout. Messages sent before go out before.
func (c Conn) Close(code frame.Code, reason string) error {
	r, token := c.address()
	return sendError(r.mail.Force(op{kind: opClose, token: token, code: code}, []byte(reason)))
}

func (c Conn) address() (*reactor, netpoll.Token) {
	r := c.server.reactors[c.id>>22&(reactorsMax-1)]
	return r, netpoll.Token{Slot: uint32(c.id & (slotsMax - 1)), Gen: uint32(c.id >> 32)}
}

func sendError(err error) error {
	switch err {
	case nil:
		return nil
	case netpoll.ErrFull:
		return ErrSlow
	}
	return ErrClosed
}
