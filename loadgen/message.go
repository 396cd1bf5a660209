package loadgen

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// message is what a payload contains. The checksum is of all before it, and the
// filler's bytes depend on their position, so a receiver notices bytes that were
// changed or moved on the way.
//
//	0      6     8        12       14     15         16
//	│ time │ run │ number │ sender │ kind │ checksum │ filler …
//	└─ µs ─┴─────┴────────┴────────┴──────┴──────────┴──────────
type message struct {
	meant  time.Duration // since the run's beginning, when it was meant to be sent, in whole µs
	number uint32        // of the broadcast, or of the flooder's message, counted from 0
	run    uint16        // which is random, so that a message of another run is noticed
	sender uint16        // the end of its connection's number
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
	binary.BigEndian.PutUint64(payload, uint64(m.meant.Microseconds())<<16|uint64(m.run))
	binary.BigEndian.PutUint32(payload[8:], m.number)
	binary.BigEndian.PutUint16(payload[12:], m.sender)
	payload[14] = byte(m.kind)
	payload[15] = checksum(payload[:15])
	for i := sizeMin; i < len(payload); i++ {
		payload[i] = filler(i)
	}
}

// decode reads a payload. ok is false if no worker of any run can have sent it.
func decode(payload []byte, size int) (m message, ok bool) {
	if len(payload) != size || payload[15] != checksum(payload[:15]) {
		return m, false
	}
	for i := sizeMin; i < len(payload); i++ {
		if payload[i] != filler(i) {
			return m, false
		}
	}
	first := binary.BigEndian.Uint64(payload)
	m = message{
		meant:  time.Duration(first>>16) * time.Microsecond,
		run:    uint16(first),
		number: binary.BigEndian.Uint32(payload[8:]),
		sender: binary.BigEndian.Uint16(payload[12:]),
		kind:   kind(payload[14]),
	}
	return m, m.kind == kindBroadcast || m.kind == kindEcho || m.kind == kindFlood
}

// checksum changes with each single byte.
func checksum(head []byte) (sum byte) {
	for _, b := range head {
		sum = bits.RotateLeft8(sum, 3) ^ b
	}
	return sum ^ 0x5a
}

func filler(i int) byte { return byte('a' + i%26) }
