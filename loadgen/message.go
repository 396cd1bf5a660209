package loadgen

import (
	"encoding/binary"
	"time"
)

// message is what a payload contains. The filler's bytes depend on their
// position, so a receiver notices bytes that were changed or moved on the way.
//
//	0       8        12       13
//	│ time  │ number │ kind   │ filler …
//	└─ ns ──┴────────┴────────┴──────────
type message struct {
	meant  time.Duration // since the run's beginning, when it was meant to be sent
	number uint32        // of the broadcast, or of the flooder's message, counted from 0
	kind   kind
}

type kind byte

const (
	kindBroadcast kind = 'b'
	kindEcho      kind = 'e'
	kindFlood     kind = 'f'
)

// encode fills payload, which has at least sizeMin bytes.
func (m message) encode(payload []byte) {
	binary.BigEndian.PutUint64(payload, uint64(m.meant))
	binary.BigEndian.PutUint32(payload[8:], m.number)
	payload[12] = byte(m.kind)
	for i := 13; i < len(payload); i++ {
		payload[i] = filler(i)
	}
}

// decode reads a payload. ok is false if no worker of this run can have sent it.
func decode(payload []byte, size int) (m message, ok bool) {
	if len(payload) != size {
		return m, false
	}
	for i := 13; i < len(payload); i++ {
		if payload[i] != filler(i) {
			return m, false
		}
	}
	m = message{
		meant:  time.Duration(binary.BigEndian.Uint64(payload)),
		number: binary.BigEndian.Uint32(payload[8:]),
		kind:   kind(payload[12]),
	}
	return m, m.kind == kindBroadcast || m.kind == kindEcho || m.kind == kindFlood
}

func filler(i int) byte { return byte('a' + i%26) }
