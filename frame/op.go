package frame

import (
	"fmt"

	"github.com/gobwas/ws"
)

// Op is a frame's opcode (RFC 6455 section 5.2).
type Op byte

// The opcodes that RFC 6455 section 11.8 registers.
const (
	Continuation = Op(ws.OpContinuation)
	Text         = Op(ws.OpText)
	Binary       = Op(ws.OpBinary)
	Close        = Op(ws.OpClose)
	Ping         = Op(ws.OpPing)
	Pong         = Op(ws.OpPong)
)

// Control reports whether o is a control opcode (RFC 6455 section 5.5).
func (o Op) Control() bool { return ws.OpCode(o).IsControl() }

// Data reports whether o opens a message: Text or Binary.
func (o Op) Data() bool { return o == Text || o == Binary }

func (o Op) String() string {
	switch o {
	case Continuation:
		return "continuation"
	case Text:
		return "text"
	case Binary:
		return "binary"
	case Close:
		return "close"
	case Ping:
		return "ping"
	case Pong:
		return "pong"
	}
	return fmt.Sprintf("opcode %#x", byte(o))
}

// Code says why a connection was closed (RFC 6455 section 7.4).
type Code uint16

// Close codes: RFC 6455 section 7.4.1, and the registry's later 1012–1014.
const (
	NormalClosure   Code = 1000
	GoingAway       Code = 1001
	ProtocolError   Code = 1002
	UnsupportedData Code = 1003
	NoStatus        Code = 1005 // never sent: the peer's Close frame had no code
	Abnormal        Code = 1006 // never sent: there was no Close frame at all
	InvalidPayload  Code = 1007
	PolicyViolation Code = 1008
	MessageTooBig   Code = 1009
	MissingExt      Code = 1010
	InternalError   Code = 1011
	ServiceRestart  Code = 1012
	TryAgainLater   Code = 1013
	BadGateway      Code = 1014
)

// Sendable reports whether c may stand in a Close frame: 1000–1003, 1007–1014
// and the ranges for libraries and applications, 3000–4999. The rest is
// reserved, or means nothing (RFC 6455 sections 7.4.1 and 7.4.2).
func (c Code) Sendable() bool {
	switch {
	case c >= 1000 && c <= 1003, c >= 1007 && c <= 1014:
		return true
	}
	return c >= 3000 && c <= 4999
}

// Error is a peer's breach of the protocol. Code is what the Close frame that
// answers it should carry.
type Error struct {
	Code Code
	Text string
}

// Error does not name the code: log lines, Close frames and the admin API have a
// place of their own for it.
func (e *Error) Error() string { return "frame: " + e.Text }

// The breaches that a Parser reports beside those of the header itself.
var (
	ErrTooBig       = &Error{MessageTooBig, "message exceeds the size limit"}
	ErrUTF8         = &Error{InvalidPayload, "text is not UTF-8"}
	ErrNotMinimal   = &Error{ProtocolError, "payload length is not minimally encoded"}
	ErrLength       = &Error{ProtocolError, "payload length has its highest bit set"}
	ErrCloseLength  = &Error{ProtocolError, "close frame with a payload of one byte"}
	ErrCloseCode    = &Error{ProtocolError, "close code is reserved or out of range"}
	ErrCloseReason  = &Error{InvalidPayload, "close reason is not UTF-8"}
	errReservedOp   = &Error{ProtocolError, ws.ErrProtocolOpCodeReserved.Error()}
	errControlSize  = &Error{ProtocolError, ws.ErrProtocolControlPayloadOverflow.Error()}
	errControlCut   = &Error{ProtocolError, ws.ErrProtocolControlNotFinal.Error()}
	errReservedBits = &Error{ProtocolError, ws.ErrProtocolNonZeroRsv.Error()}
	errNotMasked    = &Error{ProtocolError, ws.ErrProtocolMaskRequired.Error()}
	errMasked       = &Error{ProtocolError, ws.ErrProtocolMaskUnexpected.Error()}
	errInterrupted  = &Error{ProtocolError, ws.ErrProtocolContinuationExpected.Error()}
	errNothingToGo  = &Error{ProtocolError, ws.ErrProtocolContinuationUnexpected.Error()}
)

// headerError gives one of ws.CheckHeader's findings this package's form.
func headerError(err error) *Error {
	switch err {
	case ws.ErrProtocolOpCodeReserved:
		return errReservedOp
	case ws.ErrProtocolControlPayloadOverflow:
		return errControlSize
	case ws.ErrProtocolControlNotFinal:
		return errControlCut
	case ws.ErrProtocolNonZeroRsv:
		return errReservedBits
	case ws.ErrProtocolMaskRequired:
		return errNotMasked
	case ws.ErrProtocolMaskUnexpected:
		return errMasked
	case ws.ErrProtocolContinuationExpected:
		return errInterrupted
	case ws.ErrProtocolContinuationUnexpected:
		return errNothingToGo
	}
	return &Error{ProtocolError, err.Error()}
}
