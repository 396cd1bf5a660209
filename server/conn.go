package server

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/outbox"
)

// Conn names a connection. It is a small comparable value that any goroutine
// may keep and use. Once its connection has ended it names nothing, and never
// another connection; its methods then return ErrClosed or zero. The zero Conn is
// such a one.
type Conn struct {
	server *Server
	id     uint64
	tag    uint64
	terms  terms
}

// ID numbers the connection uniquely in its server.
//
//	bits 63…32 generation · 31…22 reactor · 21…0 slot
func (c Conn) ID() uint64 { return c.id }

// Tag is what Upgrade set in Request.Tag.
func (c Conn) Tag() uint64 { return c.tag }

// Value is what Upgrade set in Request.Value; nil where it set nothing, and once
// Handler.Close has returned. Any goroutine may call it.
func (c Conn) Value() any {
	if c.server == nil {
		return nil
	}
	return c.server.values.get(c.id)
}

// Server is the server that the connection belongs to, nil for a zero Conn.
func (c Conn) Server() *Server { return c.server }

// Send sends a message, frame.Text or frame.Binary; text must be UTF-8. It
// copies data and never waits. Any goroutine may call it. What one goroutine
// sends and broadcasts arrives in that order.
//
// It returns ErrClosed when the connection or the server has ended, and
// ErrBackpressure when too much waits already: for this connection, by
// Options.MaxOutbox and MaxOutboxMessages, or for all of its reactor. The message
// is not sent then, and Handler.Backpressure will tell when it is worth trying
// again.
//
// A nil error means that the message was accepted. What becomes of it is counted
// in Stats: it is sent, dropped as its policy says, or Undelivered if its
// connection ends before.
func (c Conn) Send(op frame.Op, data []byte) error { return c.SendAs(Kind{}, op, data) }

// SendAs is Send for a message of a Kind.
func (c Conn) SendAs(kind Kind, opcode frame.Op, data []byte) error {
	r, token := c.address()
	switch {
	case r == nil:
		return ErrClosed
	case !opcode.Data():
		return errOpcode
	}
	o := op{kind: opSend, token: token, id: kind.ID, policy: kind.over(c.terms.policy())}
	bound := r.server.bound
	if o.policy == OutboxDropOld || o.policy == OutboxLatest {
		bound = unbounded // the reactor makes room
	}
	gauge := r.gauges.At(int(token.Slot))
	var spelled [maxHeader]byte
	head := frame.AppendHeader(spelled[:0], opcode, len(data))
	if w := c.terms.window(); w != 0 && r.server.compresses(len(data)) {
		switch err := gauge.Try(bound); {
		case err == outbox.ErrClosed:
			return ErrClosed
		case err != nil, r.mail.Full():
			return r.refuse(o, gauge) // before the work of compressing it
		}
		wire, _, scratch := r.server.compress.frame(opcode, data, w)
		defer r.server.compress.put(scratch)
		head, data = nil, wire
	}
	size := outbox.SizeOf(1, len(head)+len(data))
	err := gauge.TryAdd(size, bound)
	switch err {
	case nil:
		if err = r.mail.Post(o, head, data); err == nil {
			return nil
		}
		if gauge.Sub(size, r.server.low) {
			_ = r.mail.Force(op{kind: opEased, token: token}, nil)
		}
	case outbox.ErrClosed:
		return ErrClosed
	}
	if err == netpoll.ErrShut {
		return ErrClosed
	}
	return r.refuse(o, gauge)
}

// refuse has the reactor learn that a message was refused. Any goroutine may call it.
func (r *reactor) refuse(o op, gauge *outbox.Gauge) error {
	r.server.refusals.Add(1)
	if o.kind = opRefused; gauge.Refuse() {
		_ = r.mail.Force(o, nil)
	}
	return ErrBackpressure
}

// unbounded is more than a mailbox can hold for one connection.
var unbounded = outbox.SizeOf(outbox.MessagesMax, outbox.BytesMax)

// errOpcode is returned for what is no message.
var errOpcode = errors.New("server: a message is frame.Text or frame.Binary")

// Queued is how much the connection has still to be sent, as messages and their
// bytes: those that wait for its reactor and those that wait for its peer. Any
// goroutine may call it.
func (c Conn) Queued() (messages, bytes int) {
	r, token := c.address()
	if r == nil {
		return 0, 0
	}
	s := r.gauges.At(int(token.Slot)).Load()
	return s.Messages(), s.Bytes()
}

// maxHeader is the longest header of a frame that is not masked, in bytes (RFC
// 6455 section 5.2).
const maxHeader = 10

// Resume has Handler.Ready asked again about a connection for which it has returned
// false. It never waits; one call too many does no harm. Any goroutine may call it.
func (c Conn) Resume() {
	if c.server != nil {
		c.tell(opEased)
	}
}

// Close starts the closing handshake with a code and a reason of at most 123
// bytes. It does not wait: Handler.Close is called when the peer has answered, or
// has not within the timeout. Messages sent before go out before. It returns
// ErrClosed if the connection or the server has ended. Any goroutine may call it.
func (c Conn) Close(code frame.Code, reason string) error {
	r, token := c.address()
	if r == nil || r.mail.Force(op{kind: opClose, token: token, code: code}, []byte(reason)) != nil {
		return ErrClosed
	}
	return nil
}

// address returns the connection's reactor and token, or nil if the connection
// has ended.
func (c Conn) address() (*reactor, netpoll.Token) {
	token := tokenOf(c.id)
	if c.server == nil {
		return nil, token
	}
	r := c.reactor()
	if !r.slots.Live(token) {
		return nil, token
	}
	return r, token
}

// reactor is the connection's, whether or not the connection has ended.
func (c Conn) reactor() *reactor { return c.server.reactors[c.id>>22&(reactorsMax-1)] }

// tokenOf is the slot's part of a connection's number, idOf the number.
func tokenOf(id uint64) netpoll.Token {
	return netpoll.Token{Slot: uint32(id & (slotsMax - 1)), Gen: uint32(id >> 32)}
}

func idOf(reactor int, t netpoll.Token) uint64 {
	return uint64(t.Gen)<<32 | uint64(reactor)<<22 | uint64(t.Slot)
}

// CloseID is Conn.Close for a connection of which only the ID is known. It
// returns ErrClosed if there is none. Any goroutine may call it.
func (s *Server) CloseID(id uint64, code frame.Code, reason string) error {
	if reactor := id >> 22 & (reactorsMax - 1); reactor >= uint64(len(s.reactors)) {
		return ErrClosed
	}
	return Conn{server: s, id: id}.Close(code, reason)
}

// values holds what connections carry beside their tags. Those that carry
// nothing cost nothing.
type values struct {
	n    atomic.Int64
	byID sync.Map // of uint64
}

func (v *values) set(id uint64, value any) {
	v.n.Add(1)
	v.byID.Store(id, value)
}

func (v *values) get(id uint64) any {
	value, _ := v.byID.Load(id)
	return value
}

// move gives one connection's value to another.
func (v *values) move(from, to uint64) {
	if v.n.Load() == 0 {
		return
	}
	if value, was := v.byID.LoadAndDelete(from); was {
		v.byID.Store(to, value)
	}
}

func (v *values) forget(id uint64) {
	if v.n.Load() == 0 {
		return
	}
	if _, was := v.byID.LoadAndDelete(id); was {
		v.n.Add(-1)
	}
}
