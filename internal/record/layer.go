package record

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"math"
	"slices"
)

const (
	// MaxPlain is the most bytes of data in a record (RFC 8446 section 5.1).
	MaxPlain = 1 << 14
	// MaxRecord is the most bytes of a record with its header (section 5.2):
	// Open's rest is shorter.
	MaxRecord = headerSize + MaxPlain + 256

	headerSize = 5
	// recordExtra is what sealing adds to a record: header, content type, tag.
	recordExtra = headerSize + 1 + tagSize
	// keyLimit is how many records a key may seal. AES-GCM's limit is 2^24.5
	// (section 5.5), and ChaCha20-Poly1305 has none.
	keyLimit = 1 << 24
	// maxIdle is how many records in a row may bring no data: empty ones, key
	// updates, session tickets, cancelled alerts.
	maxIdle = 32
)

// Content types (RFC 8446 section 5.1).
const (
	typeAlert       = 21
	typeHandshake   = 22
	typeApplication = 23
)

// Handshake messages that may follow the handshake (RFC 8446 section 4.6).
const (
	newSessionTicket = 4
	keyUpdate        = 24

	messageHead = 4 // type and length
)

// Layer opens and seals the records of any number of connections, each with its
// State. It is for one goroutine. A slot is any number that tells one connection
// from another; its ciphers are kept under it.
type Layer struct {
	pool     pool
	reply    []byte
	nonce    [ivSize]byte
	keyLimit uint32
}

// NewLayer makes a layer that keeps at least so many ciphers set up. A connection
// that reads and writes has two, of about 1,300 bytes each; one that has none at
// hand costs the deriving. Places in the pool take 64 bytes each at once.
func NewLayer(ciphers int) *Layer {
	return &Layer{pool: newPool(ciphers), keyLimit: keyLimit}
}

// Forget drops the slot's ciphers, at the end of its connection. Another
// connection that takes the slot is safe without it.
func (l *Layer) Forget(slot uint32) { l.pool.forget(slot) }

// Open opens all whole records of in, in place. plain is what they carry: data,
// joined to one piece. rest is the incomplete record behind them, shorter than
// MaxRecord, and must be given again with more behind it. Both are parts of in.
//
// reply is what the peer must be sent: an answer to a key update, or the alert
// of an error. It belongs to the layer, is good until the next call of it, and
// goes out behind everything sealed before and before everything sealed after.
// One call makes one answer, however many are asked for.
//
// An error is final. It is ErrClosed once the peer has said that it sends no
// more, and otherwise an *Error. plain may hold data that came before it. No key
// update is answered then.
func (l *Layer) Open(slot uint32, s *State, in []byte) (plain, rest, reply []byte, err error) {
	rest = in
	var asked bool
	for err == nil {
		var record, content []byte
		var kind uint8
		if record, rest, err = cut(rest); err != nil || record == nil {
			break
		}
		if kind, content, err = l.unprotect(slot, s, record); err != nil {
			break
		}
		switch kind {
		case typeApplication:
			plain = join(plain, content)
		case typeHandshake:
			var ask bool
			ask, err = s.messages(content)
			asked = asked || ask
		case typeAlert:
			err = alert(content)
		default:
			err = errContent
		}
		if err == nil {
			err = s.progress(kind == typeApplication && len(content) > 0)
		}
	}
	return slices.Clip(plain), rest, l.answer(slot, s, asked, err), err
}

// cut takes a record from the front of in, or none while it is not whole. Its
// header is checked as soon as it is there.
func cut(in []byte) (record, rest []byte, err error) {
	if len(in) < headerSize {
		return nil, in, nil
	}
	// Section 5: a change_cipher_spec is allowed no longer. Section 5.1: the
	// version MUST be ignored.
	if in[0] != typeApplication {
		return nil, in, errType
	}
	size := recordSize(in)
	if size > MaxRecord {
		return nil, in, errLong
	}
	if size > len(in) {
		return nil, in, nil
	}
	return in[:size], in[size:], nil
}

// recordSize is the size of a record with its header, which is whole.
func recordSize(header []byte) int {
	return headerSize + int(binary.BigEndian.Uint16(header[3:]))
}

// unprotect opens a record in place (RFC 8446 sections 5.2 and 5.4).
func (l *Layer) unprotect(slot uint32, s *State, record []byte) (kind uint8, content []byte, err error) {
	d := &s.read
	if d.seq == math.MaxUint32 {
		return 0, nil, errExhausted
	}
	k := l.pool.get(suites[s.suite], slot, false, d)
	k.nonce(&l.nonce, d.seq)
	body := record[headerSize:]
	inner, err := k.aead.Open(body[:0], l.nonce[:], body, record[:headerSize])
	if err != nil {
		return 0, nil, errMAC
	}
	d.seq++
	return unpad(inner)
}

// unpad takes the content type from behind the content, and the zeros behind
// that.
func unpad(inner []byte) (kind uint8, content []byte, err error) {
	if len(inner) > MaxPlain+1 {
		return 0, nil, errLong
	}
	inner = bytes.TrimRight(inner, "\x00")
	if len(inner) == 0 {
		return 0, nil, errNoType
	}
	last := len(inner) - 1
	kind, content = inner[last], inner[:last]
	if len(content) == 0 && kind != typeApplication {
		return 0, nil, errEmpty
	}
	return kind, content, nil
}

// join appends content to plain. Both lie in the same bytes, content behind
// plain, so that nothing is copied for the first piece, and nothing allocated.
func join(plain, content []byte) []byte {
	if len(plain) == 0 {
		return content
	}
	return append(plain, content...)
}

// messages takes a record of handshake messages, and reports whether the peer
// asks for a key update. No message may span records: the longest that a server
// is sent is five bytes, and a client is sent tickets of a few hundred.
func (s *State) messages(content []byte) (asked bool, err error) {
	for len(content) > 0 {
		kind, body, rest, whole := nextMessage(content)
		switch {
		case kind == newSessionTicket && s.flags&isClient != 0 && whole:
			// Not used: the handshake took those that came with it.
		case kind == newSessionTicket && s.flags&isClient != 0, kind == keyUpdate && !whole:
			return false, errFragment
		case kind != keyUpdate:
			return false, errMessage
		case len(rest) > 0:
			// Section 5.1: a record must not span a change of keys.
			return false, errUpdateTail
		case len(body) != 1:
			return false, errUpdateSize
		case body[0] > 1:
			return false, errUpdate
		default:
			s.read.next(suites[s.suite])
			s.flags &^= hasAsked
			return body[0] == 1, nil
		}
		content = rest
	}
	return false, nil
}

// nextMessage takes a handshake message from the front of content, which is not
// empty (RFC 8446 section 4).
func nextMessage(content []byte) (kind uint8, body, rest []byte, whole bool) {
	kind = content[0]
	if len(content) < messageHead {
		return kind, nil, nil, false
	}
	size := int(content[1])<<16 | int(content[2])<<8 | int(content[3])
	content = content[messageHead:]
	if size > len(content) {
		return kind, nil, nil, false
	}
	return kind, content[:size], content[size:], true
}

// alert is the error that a received alert means (RFC 8446 section 6). Its level
// is ignored, and user_canceled has no meaning of its own.
func alert(content []byte) error {
	if len(content) != 2 {
		return errAlert
	}
	switch a := tls.AlertError(content[1]); a {
	case closeNotify:
		return ErrClosed
	case userCanceled:
		return nil
	default:
		return &Error{Alert: a, Received: true}
	}
}

// progress bounds how many records bring no data.
func (s *State) progress(data bool) error {
	if data {
		s.idle = 0
		return nil
	}
	if s.idle++; s.idle > maxIdle {
		return errIdle
	}
	return nil
}

// answer is Open's reply: the alert of an error, or a key update that the peer
// has asked for, or that asks it for one.
func (l *Layer) answer(slot uint32, s *State, asked bool, err error) []byte {
	if e, ours := err.(*Error); ours && !e.Received {
		l.reply = l.alert(slot, s, l.reply[:0], e.Alert)
		return l.reply
	}
	ask := s.read.seq >= l.keyLimit && s.flags&hasAsked == 0
	if err != nil || !asked && !ask {
		return nil
	}
	if ask {
		s.flags |= hasAsked
	}
	l.reply = l.update(slot, s, l.reply[:0], ask)
	return l.reply
}

// SealedLen is how many bytes Seal appends for n bytes of data, but for a key
// update every 16 million records.
func SealedLen(n int) int {
	return n + (n+MaxPlain-1)/MaxPlain*recordExtra
}

// Seal appends the data, in as many records as it needs, to dst, and returns
// that. It does not write to the data, and joins its pieces. No data makes no
// record. What was sealed must be sent, in order, and never sealed again: a rest
// that a socket did not take is kept as it is.
func (l *Layer) Seal(slot uint32, s *State, dst []byte, data ...[]byte) []byte {
	left := 0
	for _, piece := range data {
		left += len(piece)
	}
	dst = slices.Grow(dst, SealedLen(left))
	at, from := 0, 0 // the piece, and the byte of it, that come next
	for left > 0 {
		if s.write.seq >= l.keyLimit {
			dst = l.update(slot, s, dst, false)
		}
		start := len(dst)
		dst = append(dst, make([]byte, headerSize)...)
		for room := min(left, MaxPlain); room > 0; {
			piece := data[at][from:]
			n := min(room, len(piece))
			dst = append(dst, piece[:n]...)
			room, left, from = room-n, left-n, from+n
			if from == len(data[at]) {
				at, from = at+1, 0
			}
		}
		dst = l.protect(slot, s, dst, start, typeApplication)
	}
	return dst
}

// CloseNotify appends the record that tells the peer that no more will be sent
// (RFC 8446 section 6.1). Seal nothing after it.
func (l *Layer) CloseNotify(slot uint32, s *State, dst []byte) []byte {
	return l.alert(slot, s, dst, closeNotify)
}

func (l *Layer) alert(slot uint32, s *State, dst []byte, a tls.AlertError) []byte {
	const warning, fatal = 1, 2
	level := byte(fatal)
	if a == closeNotify {
		level = warning
	}
	return l.record(slot, s, dst, typeAlert, level, byte(a))
}

// update appends a key update, and goes on with the next key (RFC 8446 section
// 4.6.3).
func (l *Layer) update(slot uint32, s *State, dst []byte, ask bool) []byte {
	request := byte(0)
	if ask {
		request = 1
	}
	dst = l.record(slot, s, dst, typeHandshake, keyUpdate, 0, 0, 1, request)
	s.write.next(suites[s.suite])
	return dst
}

func (l *Layer) record(slot uint32, s *State, dst []byte, kind uint8, content ...byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, headerSize)...)
	return l.protect(slot, s, append(dst, content...), start, kind)
}

// protect seals in place what dst holds from start on: room for a header, and
// the content (RFC 8446 section 5.2).
func (l *Layer) protect(slot uint32, s *State, dst []byte, start int, kind uint8) []byte {
	d := &s.write
	k := l.pool.get(suites[s.suite], slot, true, d)
	k.nonce(&l.nonce, d.seq)
	d.seq++
	dst = append(dst, kind)
	header, inner := dst[start:start+headerSize], dst[start+headerSize:]
	header[0], header[1], header[2] = typeApplication, 3, 3
	binary.BigEndian.PutUint16(header[3:], uint16(len(inner)+tagSize))
	return k.aead.Seal(dst[:start+headerSize], l.nonce[:], inner, header)
}
