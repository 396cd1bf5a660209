package conformance

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
)

// Opcodes (RFC 6455 section 5.2).
const (
	opRest   = 0
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

// frame is what a client sends.
type frame struct {
	op       byte
	more     bool // FIN is not set
	rsv      byte // 4 is RSV1, 2 RSV2, 1 RSV3
	payload  []byte
	unmasked bool
	wide     int    // bytes of the extended length, where they are not the fewest
	declared uint64 // the length in the header, where it is not the payload's

	bad  bool   // the server has to fail the connection at this frame
	says []byte // what the payload is inflated, where it is compressed
}

func text(s string) frame { return frame{op: opText, payload: []byte(s)} }
func data(s string) frame { return frame{op: opBinary, payload: []byte(s)} }
func rest(s string) frame { return frame{payload: []byte(s)} }
func ping(s string) frame { return frame{op: opPing, payload: []byte(s)} }
func pong(s string) frame { return frame{op: opPong, payload: []byte(s)} }

// closing is a Close frame with a code and a reason.
func closing(code uint16, reason string) frame {
	return frame{op: opClose, payload: append(binary.BigEndian.AppendUint16(nil, code), reason...)}
}

func (f frame) open() frame           { f.more = true; return f }
func (f frame) reserved(r byte) frame { f.rsv = r; return f }
func (f frame) breach() frame         { f.bad = true; return f }

// opcode is a frame with an opcode that is none.
func opcode(op byte, payload string) frame { return frame{op: op, payload: []byte(payload), bad: true} }

// encode appends the frame's bytes. The masking key is different for each frame.
func (f frame) encode(b []byte) []byte {
	first := f.op | f.rsv<<4
	if !f.more {
		first |= 0x80
	}
	size := f.declared
	if size == 0 {
		size = uint64(len(f.payload))
	}
	var mask byte = 0x80
	if f.unmasked {
		mask = 0
	}
	switch {
	case f.wide == 8 || f.wide == 0 && size > 0xffff:
		b = binary.BigEndian.AppendUint64(append(b, first, mask|127), size)
	case f.wide == 2 || size > 125:
		b = binary.BigEndian.AppendUint16(append(b, first, mask|126), uint16(size))
	default:
		b = append(b, first, mask|byte(size))
	}
	if f.unmasked {
		return append(b, f.payload...)
	}
	key := [4]byte{byte(len(b)) ^ 0xa5, byte(len(b)>>3) ^ 0x5a, byte(size) ^ 0x3c, 0xc3}
	b = append(b, key[:]...)
	from := len(b)
	b = append(b, f.payload...)
	for i := range f.payload {
		b[from+i] ^= key[i%4]
	}
	return b
}

// fragments cuts a message into frames with payloads of so many bytes.
func fragments(message frame, size int) (parts []frame) {
	for p := message.payload; ; p = p[size:] {
		part := message
		if len(parts) > 0 {
			part.op, part.rsv, part.says = opRest, 0, nil
		}
		if len(p) <= size {
			part.payload = p
			return append(parts, part)
		}
		part.payload, part.more = p[:size], true
		parts = append(parts, part)
	}
}

// deflated compresses a message (RFC 7692 section 7.2.1).
func deflated(message frame) frame {
	message.says = message.payload
	message.payload = deflate(message.payload)
	message.rsv |= 4
	return message
}

func deflate(p []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	must(err)
	_, err = w.Write(p)
	must(err)
	must(w.Flush())
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}
