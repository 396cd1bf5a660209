package deflate

import (
	"bytes"
	"io"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"
	"github.com/seed-134acfd0/lull/frame"
)

// ErrCorrupt is a message that is no DEFLATE data (RFC 1951). RFC 7692 names no
// close code for it; RFC 6455 section 7.4.1 has 1007 for data that is not
// consistent with the message's type.
var ErrCorrupt = &frame.Error{Code: frame.InvalidPayload, Text: "compressed message is corrupt"}

// maxStreams bounds the streams of a message: a block with BFINAL ends one. Each
// costs a copy of the window, and takes two bytes.
const maxStreams = 256

// suffix is read behind each message: the four bytes that its sender left out
// (RFC 7692 section 7.2.2), and a final block without data, which makes the
// decompressor stop.
const suffix = "\x00\x00\xff\xff" + "\x01\x00\x00\xff\xff"

// maxKept is the largest buffer, in bytes, that an Inflater keeps.
const maxKept = 128 << 10

// Inflater inflates messages of any number of connections. It serves one
// goroutine at a time. Its zero value is ready; from its first message on it
// holds about 40 KiB, and two buffers of up to 128.
type Inflater struct {
	flate   io.ReadCloser // which is a flate.Resetter too
	source  bytes.Reader
	input   []byte // a message's payload with the suffix
	message []byte
}

// Message inflates a message that a Parser found to be Deflated, and checks
// text's UTF-8 (RFC 6455 section 8.1). Its length is at most limit bytes, and
// it is valid until the next call. Errors are those of Inflate, and
// frame.ErrUTF8; each is an *frame.Error and final for the connection.
func (f *Inflater) Message(op frame.Op, compressed []byte, limit int) ([]byte, error) {
	m, err := f.Inflate(kept(f.message), compressed, limit)
	if err != nil {
		return nil, err
	}
	f.message = m
	if op == frame.Text && !utf8.Valid(m) {
		return nil, frame.ErrUTF8
	}
	return m, nil
}

// Inflate appends to dst what a message's payload holds. Where that is more
// than limit bytes it is frame.ErrTooBig, and no more than twice limit is ever
// allocated for it, whatever the payload declares. Other data than DEFLATE's is
// ErrCorrupt. With an error dst is returned as it was. Inflate allocates only
// if dst has no room for the message and a byte more.
func (f *Inflater) Inflate(dst, compressed []byte, limit int) ([]byte, error) {
	f.input = append(append(kept(f.input), compressed...), suffix...)
	f.source.Reset(f.input)
	if f.flate == nil {
		f.flate = flate.NewReader(&f.source)
	} else {
		f.reset(nil)
	}
	out, streams := dst, 1
	for {
		if len(out) == cap(out) {
			out = grow(out, len(dst), len(compressed), limit)
		}
		// A byte more than the limit tells that there is more.
		room := out[len(out):min(cap(out), len(dst)+limit+1)]
		n, err := f.flate.Read(room)
		out = out[:len(out)+n]
		switch rest := f.source.Len(); {
		case len(out)-len(dst) > limit:
			return dst, frame.ErrTooBig
		case err == nil:
			continue
		case err != io.EOF:
			return dst, ErrCorrupt
		// The final block was ours; or it ended the payload, though its sender
		// should have put an empty block behind it (RFC 7692 section 7.2.1).
		case rest == 0, rest == len(suffix):
			return out, nil
		case streams == maxStreams:
			return dst, ErrCorrupt
		}
		// A block may follow one with BFINAL, at the next byte: see the example
		// in section 7.2.3.4.
		streams++
		f.reset(out[len(dst):])
	}
}

// reset begins another stream, which may refer to what precedes it.
func (f *Inflater) reset(window []byte) {
	window = window[max(0, len(window)-frame.MaxWindow.Size()):]
	_ = f.flate.(flate.Resetter).Reset(&f.source, window) // never fails
}

// grow gives out more room: first what a message of that length often needs,
// then twice as much each time, and never more than limit allows and the byte
// that shows it.
func grow(out []byte, start, compressed, limit int) []byte {
	size := max(512, 4*compressed, 2*(len(out)-start))
	larger := make([]byte, len(out), start+min(size, limit+1))
	copy(larger, out)
	return larger
}

// kept returns b without its content, nil if b is too large to be kept.
func kept(b []byte) []byte {
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
}
