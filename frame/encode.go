package frame

import (
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// MaxCloseReason is the most bytes of a Close frame's reason (RFC 6455
// section 5.5: 125 for the frame, two of them for the code).
const MaxCloseReason = ws.MaxControlFramePayloadSize - 2

// Deflated marks a frame's payload as compressed where it is added to Text or
// Binary in a call of Append, AppendHeader or AppendMasked: the bit RSV1 beside
// the opcode (RFC 7692 section 6).
const Deflated = Op(rsv1 << 4)

// rsv1 is the bit among the three reserved ones.
const rsv1 = 4

// Append appends a server's frame to dst: one that is whole and not masked
// (RFC 6455 section 5.1). A control frame's payload must not exceed 125 bytes.
// It does not allocate if dst has room for the payload and 10 bytes more.
func Append(dst []byte, op Op, payload []byte) []byte {
	return append(AppendHeader(dst, op, len(payload)), payload...)
}

// AppendHeader appends the header of a whole, unmasked frame whose payload of
// length bytes the caller sends behind it. The library would move a caller's
// array to the heap, so this one is spelled here.
func AppendHeader(dst []byte, op Op, length int) []byte {
	const fin = 0x80
	switch first := fin | byte(op); {
	case length < 126:
		return append(dst, first, byte(length))
	case length < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, first, 126), uint16(length))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(length))
	}
}

// AppendMasked appends a client's frame to dst: one that is whole and masked
// with mask, which should come from a strong source of randomness (RFC 6455
// section 5.3). The payload itself is not touched.
func AppendMasked(dst []byte, op Op, mask [4]byte, payload []byte) []byte {
	return AppendFragment(dst, op, true, mask, payload)
}

// AppendFragment is AppendMasked for a part of a message (RFC 6455 section 5.4): op is
// that of the message for its first fragment, and Continuation for the others; last is
// true for its last.
func AppendFragment(dst []byte, op Op, last bool, mask [4]byte, payload []byte) []byte {
	dst = appendHeader(dst, ws.Header{
		Fin: last, Rsv: byte(op) >> 4, OpCode: ws.OpCode(op & 0x0f),
		Length: int64(len(payload)), Masked: true, Mask: mask,
	})
	dst = append(dst, payload...)
	ws.Cipher(dst[len(dst)-len(payload):], mask, 0)
	return dst
}

// AppendClose appends a server's Close frame with AppendClosePayload's payload.
func AppendClose(dst []byte, code Code, reason string) []byte {
	var payload [ws.MaxControlFramePayloadSize]byte
	return Append(dst, Close, AppendClosePayload(payload[:0], code, reason))
}

// AppendClosePayload appends what a Close frame says. A code that may not be
// sent leaves it empty; a reason is made valid UTF-8 and cut at a rune's end
// to fit MaxCloseReason.
func AppendClosePayload(dst []byte, code Code, reason string) []byte {
	if !code.Sendable() {
		return dst
	}
	reason = strings.ToValidUTF8(reason, string(utf8.RuneError))
	for len(reason) > MaxCloseReason {
		_, last := utf8.DecodeLastRuneInString(reason)
		reason = reason[:len(reason)-last]
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// appendHeader lets the library write the header where it belongs, into dst's
// spare capacity; the writer it also wants has nothing left to do.
func appendHeader(dst []byte, h ws.Header) []byte {
	dst = slices.Grow(dst, ws.MaxHeaderSize)
	end := len(dst) + ws.HeaderSize(h)
	if err := ws.WriteHeaderBuffer(io.Discard, h, dst[len(dst):len(dst)+ws.MaxHeaderSize]); err != nil {
		panic("frame: header of a payload that no memory can hold: " + err.Error())
	}
	return dst[:end]
}
