package server

import (
	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// Conn names a connection. It is a small comparable value that any goroutine
// may keep and use; once its connection is gone it names nothing, and never
// another one.
type Conn struct {
	server   *Server
	id       uint64
	tag      uint64
	whenSlow WhenSlow
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
// copies data and does not wait. It returns ErrClosed when the connection or
// the server has ended, and ErrSlow when too much is on its way already: to
// this connection, by Options.MaxOutbox and MaxOutboxMessages, or to all of its
// reactor. Nothing is sent then, and Handler.Drained will be called when it is
// worth trying again. What one goroutine sends and broadcasts arrives in that
// order.
//
// A nil error means that the message was queued. What becomes of it is counted
// in Stats: it is sent, dropped as its WhenSlow says, or Undelivered if its
// connection is closed before.
func (c Conn) Send(op frame.Op, data []byte) error { return c.SendAs(Kind{}, op, data) }

// SendAs is Send with a say in what happens if the peer is slow.
func (c Conn) SendAs(kind Kind, opcode frame.Op, data []byte) error {
	r, token := c.address()
	if !r.slots.Live(token) {
		return ErrClosed
	}
	o := op{kind: opSend, token: token, id: kind.ID, whenSlow: kind.over(c.whenSlow)}
	var spelled [maxHeader]byte
	head := frame.AppendHeader(spelled[:0], opcode, len(data))
	size := owing(1, len(head)+len(data))
	bound := r.server.bound
	if o.whenSlow == DropOld || o.whenSlow == Latest {
		bound = unbounded // the reactor makes room
	}
	d := r.debts.At(int(token.Slot))
	err := d.tryAdd(size, bound)
	if err == nil {
		if err = sendError(r.mail.Post(o, head, data)); err == nil {
			return nil
		}
		d.sub(size)
	}
	if err == ErrSlow {
		r.server.refusals.Add(1)
		if o.kind = opRefused; d.refuse() {
			_ = r.mail.Force(o, nil)
		}
	}
	return err
}

// Owed is how much the connection has not been sent yet, as messages and their
// bytes: those that wait for its reactor and for its peer. Any goroutine may
// ask.
func (c Conn) Owed() (messages, bytes int) {
	r, token := c.address()
	if !r.slots.Live(token) {
		return 0, 0
	}
	o, _ := r.debts.At(int(token.Slot)).load()
	return o.messages(), o.bytes()
}

// Slow reports whether the peer has not taken all that it was sent. If it is
// not, a Send that returned ErrSlow was only ahead of the reactor. Any goroutine
// may ask.
func (c Conn) Slow() bool {
	r, token := c.address()
	_, slow := r.debts.At(int(token.Slot)).load()
	return slow && r.slots.Live(token)
}

// maxHeader is the longest header of a frame that is not masked, in bytes (RFC
// 6455 section 5.2).
const maxHeader = 10

// Close starts the closing handshake with a code and a reason of at most 123
// bytes. It does not wait: Handler.Close is called when the peer has answered,
// or has not within the timeout. Messages sent before go out before. It returns
// ErrClosed if the connection or the server has ended.
func (c Conn) Close(code frame.Code, reason string) error {
	r, token := c.address()
	if !r.slots.Live(token) {
		return ErrClosed
	}
	return sendError(r.mail.Force(op{kind: opClose, token: token, code: code}, []byte(reason)))
}

func (c Conn) address() (*reactor, netpoll.Token) {
	r := c.server.reactors[c.id>>22&(reactorsMax-1)]
	return r, tokenOf(c.id)
}

// tokenOf is the slot's part of a connection's number.
func tokenOf(id uint64) netpoll.Token {
	return netpoll.Token{Slot: uint32(id & (slotsMax - 1)), Gen: uint32(id >> 32)}
}

// CloseID is Conn.Close for a connection of which only the ID is known. It
// returns ErrClosed if there is none.
func (s *Server) CloseID(id uint64, code frame.Code, reason string) error {
	if reactor := id >> 22 & (reactorsMax - 1); reactor >= uint64(len(s.reactors)) {
		return ErrClosed
	}
	return Conn{server: s, id: id}.Close(code, reason)
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
