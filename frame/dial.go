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
	dst = append(dst, "GET "...)
	dst = append(dst, target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	dst = append(dst, key[:]...)
	return append(dst, headEnd...)
}

// CheckResponse checks a server's complete response head, as HeadLen delimits
// it, against the key that was sent (RFC 6455 section 4.1). The client offered
// neither extensions nor subprotocols, so it accepts none.
func CheckResponse(head []byte, key Key) error {
	status, headers := firstLine(head)
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 101 ")) {
		return fmt.Errorf("frame: the server answered %q in place of 101", status)
	}
	var upgrade, connection, accept bool
	accepts := 0
	for line := range lines(headers) {
		name, value, ok := field(line)
		switch {
		case !ok:
			return fmt.Errorf("frame: malformed header line %q", line)
		case is(name, "Upgrade"):
			upgrade = is(value, "websocket")
		case is(name, "Connection"):
			connection = connection || hasToken(value, "Upgrade")
		case is(name, "Sec-WebSocket-Accept"):
			if accepts++; accepts > 1 { // section 11.3.3
				return fmt.Errorf("frame: more than one Sec-WebSocket-Accept")
			}
			want := acceptKey(key)
			accept = bytes.Equal(value, want[:])
		case is(name, "Sec-WebSocket-Extensions"), is(name, "Sec-WebSocket-Protocol"):
			return fmt.Errorf("frame: the server chose %q, which was not offered", line)
		}
	}
	switch {
	case !upgrade:
		return fmt.Errorf("frame: the response lacks «Upgrade: websocket»")
	case !connection:
		return fmt.Errorf("frame: the response lacks «Connection: Upgrade»")
	case !accept:
		return fmt.Errorf("frame: Sec-WebSocket-Accept is missing or does not match the key")
	}
	return nil
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
