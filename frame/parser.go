package frame

import (
	"bytes"
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// MaxPending is the most bytes that Next leaves unconsumed while it waits for
// more: a masked control frame that lacks its last byte.
const MaxPending = 2 + 4 + ws.MaxControlFramePayloadSize - 1

// State is what must be remembered of one connection while a message is
// incomplete, in 40 bytes without a pointer. Its zero value is a connection
// between two messages. It belongs to the caller.
type State struct {
	left int64     // payload bytes of the open frame that have not arrived
	size int64     // payload bytes that the message's frames have declared
	text textCheck // a rune that the last piece cut
	mask [4]byte   // the open frame's masking key, rotated to the next byte
	op   Op        // Text or Binary while a message is open, else zero
	fin  bool      // the open frame is its message's last
	rsv1 bool      // the open message is compressed
}

// Idle reports whether the connection is between two messages, so that s need
// not be kept.
func (s *State) Idle() bool { return s.op == 0 }

// Event is what Next found.
type Event struct {
	// Op is Text or Binary for a piece of a message, Close, Ping or Pong for a
	// control frame, and zero when more bytes are needed first.
	Op Op
	// Payload is a part of the bytes given to Next, unmasked where it stood.
	Payload []byte
	// Last marks the piece that ends its message.
	Last bool
	// Whole marks a piece that is an entire message.
	Whole bool
	// Head marks what begins with a frame's header: a message or control frame, or
	// a fragment's first piece.
	Head bool
	// Deflated marks a piece of a message that permessage-deflate compressed.
	// Whether it is text in UTF-8 shows when it has been inflated.
	Deflated bool
}

// Parser finds frames in bytes that arrive in whatever pieces. One Parser
// serves any number of connections, each with its State, but only one
// goroutine at a time.
type Parser struct {
	// Deflate allows compressed messages (RFC 7692): it is for connections that
	// agreed to them, and others need another Parser. It is set before the
	// first use. A compressed message may be longer than the limit by what
	// DEFLATE adds to bytes that it cannot compress, a 256th and 64 bytes.
	Deflate bool

	max  int64
	side ws.State
	in   bytes.Reader
	buf  [ws.MaxHeaderSize]byte
}

// NewServerParser makes a parser for frames from clients, which must be masked
// (RFC 6455 section 5.1). Messages of more than maxMessage bytes are refused
// with ErrTooBig as soon as a header declares them.
func NewServerParser(maxMessage int64) *Parser {
	return &Parser{max: maxMessage, side: ws.StateServerSide}
}

// NewClientParser makes a parser for frames from a server, which must not be
// masked.
func NewClientParser(maxMessage int64) *Parser {
	return &Parser{max: maxMessage, side: ws.StateClientSide}
}

// Next takes one event from the front of in and returns how many bytes it
// consumed. Zero bytes mean that the event is not there yet: call again with
// the same bytes and more behind them (MaxPending bounds how many can be left).
// A data frame's payload is handed out as it arrives; a control frame only
// when it is whole.
//
// The payload is unmasked in place, so in must be writable and its consumed
// part must not be given again. An error is always an *Error and final for the
// connection. Next does not allocate, but for an error.
func (p *Parser) Next(s *State, in []byte) (ev Event, consumed int, err error) {
	if len(in) == 0 {
		return Event{}, 0, nil
	}
	if s.left > 0 {
		return p.piece(s, in, 0, false)
	}
	h, head, err := p.header(s, in)
	if err != nil || head == 0 {
		return Event{}, 0, err
	}
	if h.OpCode.IsControl() {
		return control(h, in, head)
	}

	first := h.OpCode != ws.OpContinuation
	if first {
		*s = State{op: Op(h.OpCode), rsv1: h.Rsv != 0}
	}
	// Refused by what the header declares, before a byte of it is stored.
	if h.Length > p.limit(s)-s.size {
		return Event{}, 0, ErrTooBig
	}
	s.size += h.Length
	s.left = h.Length
	s.mask = h.Mask
	s.fin = h.Fin
	return p.piece(s, in, head, first)
}

// limit returns how long the open message may be on the wire.
func (p *Parser) limit(s *State) int64 {
	if !s.rsv1 {
		return p.max
	}
	return p.max + min(p.max>>8+64, math.MaxInt64-p.max)
}

// header decodes and checks the frame header at the front of in. A length of
// zero means that it has not arrived whole.
func (p *Parser) header(s *State, in []byte) (h ws.Header, length int, err error) {
	if h, length = short(in); length == 0 {
		p.in.Reset(in)
		h, err = ws.ReadHeaderBuffer(&p.in, p.buf[:])
		switch {
		case err == ws.ErrHeaderLengthMSB:
			return h, 0, ErrLength
		case err != nil: // the reader's end
			return h, 0, nil
		}
		length = len(in) - p.in.Len()
		// Section 5.2: the minimal number of bytes MUST be used to encode the
		// length.
		if length != ws.HeaderSize(h) {
			return h, 0, ErrNotMinimal
		}
	}
	side := p.side
	if s.op != 0 {
		side = side.Set(ws.StateFragmented)
	}
	// RFC 7692 section 6: of all frames a message's first may have RSV1.
	if h.Rsv == rsv1 && p.Deflate && Op(h.OpCode).Data() {
		side = side.Set(ws.StateExtended)
	}
	// Section 5.2: unknown opcodes and RSV bits fail the connection. 5.1: a
	// client masks, a server does not. 5.4: a fragmented message is continued
	// before another begins. 5.5: control frames are short and whole.
	if err := ws.CheckHeader(h, side); err != nil {
		return h, 0, headerError(err)
	}
	return h, length, nil
}

// short decodes the header of a frame with at most 125 bytes of payload, as most have,
// without the reader that other headers take. A length of zero means that it is one of
// these, or has not arrived whole.
func short(in []byte) (h ws.Header, length int) {
	const most = 125 // a greater number says how long the length is
	if len(in) < 2 || in[1]&0x7f > most {
		return h, 0
	}
	h.Fin, h.Rsv, h.OpCode = in[0]&0x80 != 0, in[0]>>4&7, ws.OpCode(in[0]&0xf)
	h.Masked, h.Length = in[1]&0x80 != 0, int64(in[1]&0x7f)
	if !h.Masked {
		return h, 2
	}
	if len(in) < 6 {
		return h, 0
	}
	copy(h.Mask[:], in[2:])
	return h, 6
}

// control hands out a control frame, which may stand between the fragments of
// a message (section 5.4) and leaves that message's state alone.
func control(h ws.Header, in []byte, head int) (Event, int, error) {
	end := head + int(h.Length)
	if len(in) < end {
		return Event{}, 0, nil
	}
	payload := in[head:end]
	if h.Masked {
		ws.Cipher(payload, h.Mask, 0)
	}
	if h.OpCode == ws.OpClose {
		if err := checkClose(payload); err != nil {
			return Event{}, 0, err
		}
	}
	return Event{Op: Op(h.OpCode), Payload: payload, Last: true, Whole: true, Head: true}, end, nil
}

// piece hands out what has arrived of the open data frame, whose payload
// begins at in[head].
func (p *Parser) piece(s *State, in []byte, head int, first bool) (Event, int, error) {
	payload := in[head:]
	if int64(len(payload)) > s.left {
		payload = payload[:s.left]
	}
	if p.side.ServerSide() {
		ws.Cipher(payload, s.mask, 0)
		s.mask = rotate(s.mask, len(payload))
	}
	s.left -= int64(len(payload))
	last := s.left == 0 && s.fin

	// Section 8.1: text that is not UTF-8 fails the connection. It is looked
	// for across pieces and fragments, and ends with a whole rune.
	if s.op == Text && !s.rsv1 {
		if !s.text.valid(payload) || last && !s.text.complete() {
			return Event{}, 0, ErrUTF8
		}
	}
	ev := Event{Op: s.op, Payload: payload, Last: last, Whole: last && first, Head: head > 0, Deflated: s.rsv1}
	if last {
		*s = State{}
	}
	return ev, head + len(payload), nil
}

// rotate turns the masking key so that it begins at the byte after n.
func rotate(mask [4]byte, n int) (r [4]byte) {
	for i := range r {
		r[i] = mask[(i+n)%4]
	}
	return r
}

// checkClose applies section 5.5.1: a Close frame's payload is empty, or a
// code and a reason in UTF-8.
func checkClose(payload []byte) error {
	switch {
	case len(payload) == 0:
		return nil
	case len(payload) == 1:
		return ErrCloseLength
	case !Code(binary.BigEndian.Uint16(payload)).Sendable():
		return ErrCloseCode
	case !utf8.Valid(payload[2:]):
		return ErrCloseReason
	}
	return nil
}

// ParseClose splits the payload of a Close event. Without a code it returns
// NoStatus (RFC 6455 section 7.1.5). The reason is a part of payload.
func ParseClose(payload []byte) (Code, []byte) {
	if len(payload) < 2 {
		return NoStatus, nil
	}
	return Code(binary.BigEndian.Uint16(payload)), payload[2:]
}
