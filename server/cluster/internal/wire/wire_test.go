package wire

import (
	"encoding/binary"
	"testing"
)

// A message comes out as it was put together. Cut anywhere, it does not fit, and what is
// returned behind the cut is zero.
func TestAMessageIsTakenApart(t *testing.T) {
	message := binary.AppendUvarint(nil, 1<<40)
	message = append(message, 7)
	message = binary.LittleEndian.AppendUint64(message, 1<<63)
	message = AppendString(message, "text")
	message = AppendString(message, []byte(nil))
	take := func(b []byte) (d Decoder, number uint64, one byte, word uint64, text, none string) {
		d.Rest = b
		number, one, word = d.Number(), d.Byte(), d.Word()
		text, none = string(d.Bytes(1, 4)), string(d.Bytes(0, 0))
		return
	}
	d, number, one, word, text, none := take(message)
	if !d.End() || number != 1<<40 || one != 7 || word != 1<<63 || text != "text" || none != "" {
		t.Errorf("%v: %d %d %d %q %q", d, number, one, word, text, none)
	}
	for n := range message {
		d, number, one, word, text, none := take(message[:n])
		if d.End() || !d.Bad || n < 6 && number != 0 || n < 7 && one != 0 || n < 15 && word != 0 || n < 20 && text != "" || none != "" {
			t.Errorf("%d bytes are %v: %d %d %d %q %q", n, d, number, one, word, text, none)
		}
	}
	if d, _, _, _, _, _ := take(append(message, 0)); d.End() || d.Bad {
		t.Error("one byte is left, and it does not say so")
	}
}

// Lengths that are out of bounds do not fit, and allocate nothing.
func TestLengthsAreBounded(t *testing.T) {
	for _, row := range []struct {
		message     []byte
		least, most int
	}{
		{AppendString(nil, "five5"), 0, 4},
		{AppendString(nil, ""), 1, 4},
		{binary.AppendUvarint(nil, 1<<60), 0, 1 << 62},
	} {
		d := Decoder{Rest: row.message}
		if got := d.Bytes(row.least, row.most); got != nil || !d.Bad || len(d.Rest) > 0 {
			t.Errorf("%x is %q", row.message, got)
		}
	}
	d := Decoder{Rest: append(binary.AppendUvarint(nil, 2), make([]byte, 15)...)}
	if n := d.Count(8); n != 0 || !d.Bad {
		t.Errorf("%d things of 8 bytes are in 15 bytes", n)
	}
}
