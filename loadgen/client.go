package loadgen

import "github.com/seed-134acfd0/lull/netpoll"

// client is a connection's slot. That of a wss:// connection has a record.State
// beside it, of 108 bytes; one that talks has a talk.
//
//	0 FD   4 Gen   8 user   12 since   16 got   20 stream   24 talk   28 state, flags, group
//	└──────────────────────────────── 32 bytes ────────────────────────────────┘
type client struct {
	netpoll.Slot
	user   uint32 // its number among all users
	since  uint32 // when the connection was meant to be opened, in micros
	got    uint32 // the number of the next published message; until it is open, when connect was called, in micros
	stream uint32 // index of its stream, zero for none
	talk   uint32 // index of its talk, zero for none
	state  state
	flags  flags
	group  uint8
}

type flags uint8

const (
	unread    flags = 1 << iota // is not read now: it is deaf, or its group reads slowly
	writing                     // waits for its socket to take more
	deaf                        // is not read during a phase, or reads what came meanwhile
	secured                     // its bytes are TLS records
	missing                     // was away, and has not received a published message since
	returning                   // is opened again
	leaving                     // ends because the generator wants it
	abrupt                      // ends with RST
)

func (c *client) is(f flags) bool { return c.flags&f != 0 }

// state is where a connection is in its life.
//
//	connect ─▶ connecting ──▶ requested ──101──▶ open ──▶ closing ─▶ gone
//	             │    │            ▲
//	             │    └▶ securing ─┘ of wss://
//	             └▶ silent ──────────────────────────────────────────▶ gone
type state uint8

const (
	connecting state = iota // TCP's handshake
	securing                // TLS's
	requested               // WebSocket's
	silent                  // TCP's is complete, and no request is sent
	open
	closing // our Close frame is sent
	gone
)
