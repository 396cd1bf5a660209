package frame

// Stream is what is kept of one connection's input between two reads: the
// parser's state, the beginning of an incomplete message, and bytes that were
// read and not parsed. Its zero value is a connection that has sent nothing. It
// belongs to the caller and to one goroutine at a time.
//
// A read goes like this:
//
//	n := s.Take(buf)           what the last read left comes first
//	n += read(buf[n:])
//	for each event in buf[:n]  parser.Message(s, …)
//	s.Keep(what is left)       and forget s if it is Idle
type Stream struct {
	state   State
	message []byte // of the open message, what has arrived
	kept    []byte // what Keep stored
	at      int    // where in kept the rest begins: what was read and not parsed
	given   bool   // message is whole, and the caller has it
}

// keptBytes is the largest empty buffer that a Stream keeps.
const keptBytes = 4 << 10

// Message takes what is next from the front of in, and returns how many bytes it
// consumed: a whole message, a control frame, or, with an Op of zero, a piece of
// a message, which s keeps. Zero bytes mean that more are needed: the rest of in
// has to come again, with more bytes behind it (MaxPending bounds how many).
//
// A message's event is its last and has the whole payload. If the message arrived
// in one piece (the event is Whole), the payload is a part of in, unmasked where
// it stood. If not, it is the Stream's own buffer, valid until the next call of
// any method that changes s.
//
// As with Next, in must be writable, and an error is an *Error, consumes nothing
// and is final for the connection. Message allocates only for messages that do
// not arrive in one piece.
func (p *Parser) Message(s *Stream, in []byte) (ev Event, consumed int, err error) {
	s.release()
	ev, consumed, err = p.Next(&s.state, in)
	if err != nil || ev.Op == 0 || ev.Whole {
		return ev, consumed, err
	}
	s.message = append(s.message, ev.Payload...)
	if !ev.Last {
		return Event{Head: ev.Head}, consumed, nil
	}
	s.given = true
	ev.Payload = s.message
	return ev, consumed, nil
}

// Ahead tells which frame is at the front of in, and consumes nothing. It is a
// control frame's opcode, or Text or Binary for any frame of such a message, also
// if its payload goes on in in. It is zero if a frame's header has not arrived
// whole, or breaks the protocol, which Message reports.
func (p *Parser) Ahead(s *Stream, in []byte) Op {
	if len(in) == 0 {
		return 0
	}
	if s.state.left > 0 {
		return s.state.op
	}
	h, head, err := p.header(&s.state, in)
	switch op := Op(h.OpCode); {
	case err != nil || head == 0:
		return 0
	case op == Continuation:
		return s.state.op
	default:
		return op
	}
}

// Idle reports whether nothing has to be kept until the next read.
func (s *Stream) Idle() bool { return !s.Open() && s.Rest() == 0 }

// Open reports whether the beginning of a message has been consumed, and not
// yet its end.
func (s *Stream) Open() bool { return !s.state.Idle() }

// Keep stores a copy of bytes that were read and not parsed, in place of those
// that were kept before.
func (s *Stream) Keep(rest []byte) {
	s.release()
	s.kept, s.at = append(emptied(s.kept), rest...), 0
}

// Take moves what Keep stored to the front of buf and returns its length. What
// buf has no room for stays.
func (s *Stream) Take(buf []byte) int {
	s.release()
	n := copy(buf, s.kept[s.at:])
	s.Skip(n)
	return n
}

// Pending returns what Keep stored, where it lies: the caller may give it to
// Message and then has to Skip what that consumed. It is valid until the next
// Keep, Take or Reset.
func (s *Stream) Pending() []byte { return s.kept[s.at:] }

// Skip forgets the first n bytes of what Keep stored.
func (s *Stream) Skip(n int) {
	if s.at += n; s.at == len(s.kept) {
		s.kept, s.at = emptied(s.kept), 0
	}
}

// Rest returns the length of what Keep stored.
func (s *Stream) Rest() int { return len(s.kept) - s.at }

// Held returns how many bytes of memory s holds beside itself.
func (s *Stream) Held() int { return cap(s.message) + cap(s.kept) }

// Reset makes s ready for another connection. It keeps its buffers unless they
// are large.
func (s *Stream) Reset() {
	*s = Stream{message: emptied(s.message), kept: emptied(s.kept)}
}

// release forgets the message that the caller has had.
func (s *Stream) release() {
	if s.given {
		s.message = emptied(s.message)
		s.given = false
	}
}

// emptied returns b without its content, nil if b is large.
func emptied(b []byte) []byte {
	if cap(b) > keptBytes {
		return nil
	}
	return b[:0]
}
