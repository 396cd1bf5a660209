// Package wire takes the messages of packages presence and history apart. Numbers are
// varints, words eight bytes, little-endian, and a string has its length before it.
package wire

import "encoding/binary"

// AppendString appends a string and its length to b.
func AppendString[S string | []byte](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Decoder takes a message apart. After something that does not fit, everything that it
// returns is zero.
type Decoder struct {
	Rest []byte // what was not taken yet
	Bad  bool   // something did not fit
}

// Fail says that something does not fit.
func (d *Decoder) Fail() { d.Rest, d.Bad = nil, true }

// End reports whether everything fitted and nothing is left.
func (d *Decoder) End() bool { return !d.Bad && len(d.Rest) == 0 }

// Number takes a number.
func (d *Decoder) Number() uint64 {
	v, n := binary.Uvarint(d.Rest)
	if n <= 0 {
		d.Fail()
		return 0
	}
	d.Rest = d.Rest[n:]
	return v
}

// Count takes a number of things that take at least size bytes each.
func (d *Decoder) Count(size int) int {
	v := d.Number()
	if v > uint64(len(d.Rest)/size) {
		d.Fail()
		return 0
	}
	return int(v)
}

// Byte takes a byte.
func (d *Decoder) Byte() byte {
	if len(d.Rest) == 0 {
		d.Fail()
		return 0
	}
	v := d.Rest[0]
	d.Rest = d.Rest[1:]
	return v
}

// Word takes a word.
func (d *Decoder) Word() uint64 {
	if len(d.Rest) < 8 {
		d.Fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(d.Rest)
	d.Rest = d.Rest[8:]
	return v
}

// Bytes takes a string of least to most bytes. It is a part of the message.
func (d *Decoder) Bytes(least, most int) []byte {
	n := d.Count(1)
	if n < least || n > most {
		d.Fail()
		return nil
	}
	v := d.Rest[:n:n]
	d.Rest = d.Rest[n:]
	return v
}
