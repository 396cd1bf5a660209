package frame

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
)

// AppendRequest appends a client's opening handshake (RFC 6455 section 4.1).
// host is the Host header's value and target the request target; neither may
// contain a space or a line end.
func AppendRequest(dst []byte, host, target string, key Key) []byte {
	return append(appendRequest(dst, host, target, key), headEnd...)
}

// AppendDeflateRequest is AppendRequest with an offer of permessage-deflate in
// which neither side keeps its window between two messages.
func AppendDeflateRequest(dst []byte, host, target string, key Key) []byte {
	return append(appendRequest(dst, host, target, key), "\r\n"+deflateLine+"\r\n\r\n"...)
}

// appendRequest leaves out the last line's end, and the empty line.
func appendRequest(dst []byte, host, target string, key Key) []byte {
	dst = append(dst, "GET "...)
	dst = append(dst, target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	return append(dst, key[:]...)
}

// CheckResponse checks a server's complete response head, as HeadLen delimits
// it, against the key that was sent (RFC 6455 section 4.1). The client offered
// neither extensions nor subprotocols, so it accepts none.
func CheckResponse(head []byte, key Key) error {
	_, err := checkResponse(head, key, false)
	return err
}

// CheckDeflateResponse is CheckResponse for a client that sent
// AppendDeflateRequest. It tells whether the server agreed; the client may
// compress messages and has to inflate the server's then.
func CheckDeflateResponse(head []byte, key Key) (deflate bool, err error) {
	return checkResponse(head, key, true)
}

func checkResponse(head []byte, key Key, offered bool) (deflate bool, err error) {
	status, headers := firstLine(head)
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 101 ")) {
		return false, fmt.Errorf("frame: the server answered %q in place of 101", status)
	}
	var upgrade, connection, accept bool
	accepts := 0
	for line := range lines(headers) {
		name, value, ok := field(line)
		switch {
		case !ok:
			return false, fmt.Errorf("frame: malformed header line %q", line)
		case is(name, "Upgrade"):
			upgrade = is(value, "websocket")
		case is(name, "Connection"):
			connection = connection || hasToken(value, "Upgrade")
		case is(name, "Sec-WebSocket-Accept"):
			if accepts++; accepts > 1 { // section 11.3.3
				return false, fmt.Errorf("frame: more than one Sec-WebSocket-Accept")
			}
			want := acceptKey(key)
			accept = bytes.Equal(value, want[:])
		case is(name, extensionsName) && offered && !deflate:
			if deflate = acceptable(value); !deflate {
				return false, fmt.Errorf("frame: the server answered the offer «%s» with %q", deflateTerms, value)
			}
		case is(name, extensionsName), is(name, "Sec-WebSocket-Protocol"):
			return false, fmt.Errorf("frame: the server chose %q, which was not offered", line)
		}
	}
	switch {
	case !upgrade:
		return false, fmt.Errorf("frame: the response lacks «Upgrade: websocket»")
	case !connection:
		return false, fmt.Errorf("frame: the response lacks «Connection: Upgrade»")
	case !accept:
		return false, fmt.Errorf("frame: Sec-WebSocket-Accept is missing or does not match the key")
	}
	return deflate, nil
}

// acceptable reports whether the value of a response's header accepts what
// AppendDeflateRequest offers. RFC 7692 section 7.1 makes a client fail the
// connection for any other answer: the server's compressor must forget its
// window, as it was asked, and cannot restrict a window of the client that was
// not offered. Its own it may restrict.
func acceptable(value []byte) bool {
	list := extensions(value)
	if list.end() {
		return false
	}
	p, ok := list.next()
	return ok && list.end() && p.valid && p.serverForgets && !p.clientWindow
}

// acceptKey computes the answer to a key (RFC 6455 section 4.2.2, item 5.4).
func acceptKey(key Key) (accept [28]byte) {
	const magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	var b [KeyLen + len(magic)]byte
	copy(b[copy(b[:], key[:]):], magic)
	sum := sha1.Sum(b[:])
	base64.StdEncoding.Encode(accept[:], sum[:])
	return accept
}
