// Package wire is what the payloads of generated messages contain. A receiver can tell
// which message of which run it has, when that was meant to be sent, and whether its bytes
// are those that were sent.
package wire

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"time"
)

// SizeMin is the least length of a payload, in bytes: that of its head.
const SizeMin = 16

// Message is what a payload contains. The checksum is of the payload's length and of all
// before it, and the filler's bytes depend on their position, so a receiver notices
// bytes that were changed, moved or left out on the way.
//
//	0      6     8        12       14     15         16
//	│ time │ run │ number │ sender │ kind │ checksum │ filler …
//	└─ µs ─┴─────┴────────┴────────┴──────┴──────────┴──────────
type Message struct {
	Meant  time.Duration // since the run's beginning, when it was meant to be sent, in whole µs
	Number uint32        // of the published message, or of the user's own of this kind, counted from 0
	Run    uint16        // which is random, so that a message of another run is noticed
	Sender uint16        // the end of its user's number
	Kind   Kind
}

// Kind says who should receive a message.
type Kind byte

// The kinds of messages.
const (
	Published Kind = 'p' // everybody
	Asked     Kind = 'a' // its sender, as an answer with the same bytes
	Told      Kind = 't' // nobody, or its sender as an answer that is not told by its number
)

// Encode fills payload, which has at least SizeMin bytes.
func (m Message) Encode(payload []byte) {
	binary.BigEndian.PutUint64(payload, uint64(m.Meant.Microseconds())<<16|uint64(m.Run))
	binary.BigEndian.PutUint32(payload[8:], m.Number)
	binary.BigEndian.PutUint16(payload[12:], m.Sender)
	payload[14] = byte(m.Kind)
	payload[15] = checksum(payload)
	for i := SizeMin; i < len(payload); {
		i += copy(payload[i:], fillerFrom(i))
	}
}

// Decode reads a payload. ok is false if no generator of any run can have sent it.
func Decode(payload []byte) (m Message, ok bool) {
	if len(payload) < SizeMin || payload[15] != checksum(payload) {
		return m, false
	}
	for i := SizeMin; i < len(payload); {
		want := fillerFrom(i)
		want = want[:min(len(want), len(payload)-i)]
		if string(payload[i:i+len(want)]) != want {
			return m, false
		}
		i += len(want)
	}
	first := binary.BigEndian.Uint64(payload)
	m = Message{
		Meant:  time.Duration(first>>16) * time.Microsecond,
		Run:    uint16(first),
		Number: binary.BigEndian.Uint32(payload[8:]),
		Sender: binary.BigEndian.Uint16(payload[12:]),
		Kind:   Kind(payload[14]),
	}
	return m, m.Kind == Published || m.Kind == Asked || m.Kind == Told
}

// checksum changes with each single byte of the head, and with the length.
func checksum(payload []byte) (sum byte) {
	sum = byte(len(payload)) ^ byte(len(payload)>>8)
	for _, b := range payload[:15] {
		sum = bits.RotateLeft8(sum, 3) ^ b
	}
	return sum ^ 0x5a
}

const alphabet = "abcdefghijklmnopqrstuvwxyz"

var alphabets = strings.Repeat(alphabet, 40)

// fillerFrom is the filler from position i on, or the beginning of that.
func fillerFrom(i int) string { return alphabets[i%len(alphabet):] }
