package record

import "crypto/tls"

// StateSize is the size of a State in bytes.
const StateSize = 108

// State is what must be remembered of a connection: StateSize bytes without a
// pointer, so that it may lie in memory that the garbage collector never sees,
// and go to another process. It belongs to the caller, and its zero value to no
// connection. It is secret: Erase it when the connection ends.
type State struct {
	read  direction
	write direction
	suite uint8 // the suite's low byte; see suites
	flags uint8
	// idle counts the records in a row that brought no data.
	idle uint8
	_    uint8
}

// direction is one half of a connection (RFC 8446 section 7).
type direction struct {
	secret [maxSecret]byte // application_traffic_secret_N
	seq    uint32          // records under this secret
}

// Flags of a State.
const (
	// isClient: the peer is a server, and may send session tickets.
	isClient = 1 << iota
	// hasAsked: the peer owes us a KeyUpdate.
	hasAsked
)

// newState is the State of a connection whose handshake is complete.
func newState(suite uint16, client bool, clientSecret, serverSecret []byte) State {
	s := State{suite: uint8(suite & 0xff)}
	in, out := clientSecret, serverSecret
	if client {
		s.flags = isClient
		in, out = out, in
	}
	copy(s.read.secret[:], in)
	copy(s.write.secret[:], out)
	return s
}

// Suite is the cipher suite's number.
func (s *State) Suite() uint16 { return tls.TLS_AES_128_GCM_SHA256&0xff00 | uint16(s.suite) }

// Erase overwrites the secrets.
func (s *State) Erase() { *s = State{} }
