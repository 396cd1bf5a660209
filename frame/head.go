package frame

import (
	"bytes"
	"encoding/base64"
	"iter"
)

// MaxHead bounds a request's or response's head, in bytes, all its empty lines
// included.
const MaxHead = 8 << 10

// maxEmptyLines is how many empty lines may stand before a request line. RFC
// 9112 section 2.2 asks for at least one, which old clients send behind a body.
const maxEmptyLines = 4

var (
	crlf    = []byte("\r\n")
	headEnd = []byte("\r\n\r\n")
)

// HeadLen returns the length of the complete head at the front of b, up to and
// with its final empty line; what follows are frames already. A few empty lines
// may stand before the head and count as part of it. Zero means that the head
// is still incomplete. A head that is longer than MaxHead, that begins with too
// many empty lines, or that has a line with a bare line feed, is a *Reject.
func HeadLen(b []byte) (int, error) {
	head := b[:min(len(b), MaxHead)]
	start := emptyLines(head)
	if start > maxEmptyLines*len(crlf) {
		return 0, rejectEmptyLines
	}
	if i := bytes.Index(head[start:], headEnd); i >= 0 {
		return start + i + len(headEnd), nil
	}
	switch {
	case len(head) < MaxHead:
	case !bytes.Contains(head[start:], crlf): // RFC 9112 section 3
		return 0, rejectLineSize
	default:
		return 0, rejectHeadSize
	}
	// RFC 9112 section 2.2 lets a server accept a bare LF; this one does not,
	// because a proxy in front of it may read such a head in another way.
	for i, c := range head {
		if c == '\n' && (i == 0 || head[i-1] != '\r') {
			return 0, rejectLineEnd
		}
	}
	return 0, nil
}

// emptyLines returns the length of the empty lines at the front of b.
func emptyLines(b []byte) (length int) {
	for bytes.HasPrefix(b[length:], crlf) {
		length += len(crlf)
	}
	return length
}

// firstLine splits a complete head into its request or status line and its
// header lines.
func firstLine(head []byte) (line, headers []byte) {
	line, headers, _ = bytes.Cut(head, crlf)
	return line, headers
}

// lines iterates over header lines, without their line ends, up to the empty
// line.
func lines(headers []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for {
			line, rest, found := bytes.Cut(headers, crlf)
			if !found || len(line) == 0 || !yield(line) {
				return
			}
			headers = rest
		}
	}
}

// field splits a header line. It is false where RFC 9112 section 5 demands
// that a server refuse it: a name that is no token (a space before the colon
// is not part of one), a folded line, a control character in the value.
func field(line []byte) (name, value []byte, ok bool) {
	name, value, ok = bytes.Cut(line, []byte{':'})
	if !ok || len(name) == 0 {
		return nil, nil, false
	}
	for _, c := range name {
		if !token[c] {
			return nil, nil, false
		}
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, false
		}
	}
	return name, bytes.Trim(value, " \t"), true
}

// token marks the characters of a token (RFC 9110 section 5.6.2).
var token = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' ||
			bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0
	}
	return t
}()

// KeyLen is the length of a Sec-WebSocket-Key: 16 bytes in base64.
const KeyLen = 24

// Key is the value of a Sec-WebSocket-Key header.
type Key [KeyLen]byte

// SampleKey is the key of the example in RFC 6455 section 1.3.
var SampleKey = Key([]byte("dGhlIHNhbXBsZSBub25jZQ=="))

// NewKey encodes a nonce, which RFC 6455 section 4.1 wants to be chosen at
// random for each connection.
func NewKey(nonce [16]byte) (k Key) {
	base64.StdEncoding.Encode(k[:], nonce[:])
	return k
}

// validKey reports whether value is base64 for 16 bytes, in the one spelling
// that RFC 4648 section 3.5 calls canonical.
func validKey(value []byte) bool {
	var nonce [18]byte // what 24 characters may decode to at most
	if len(value) != KeyLen {
		return false
	}
	n, err := strictBase64.Decode(nonce[:], value)
	return err == nil && n == 16
}

var strictBase64 = base64.StdEncoding.Strict()

// hasToken reports whether a comma-separated list contains a token in any
// case.
func hasToken(list []byte, want string) bool {
	for item := range bytes.SplitSeq(list, []byte{','}) {
		if is(bytes.Trim(item, " \t"), want) {
			return true
		}
	}
	return false
}
