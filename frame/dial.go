package frame

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
)

// Offer is what a client asks for beside a plain connection. The zero value asks for
// nothing.
type Offer struct {
	// Deflate offers permessage-deflate (RFC 7692), in which neither side keeps its
	// window between two messages.
	Deflate bool
	// Protocols are the subprotocols of which the server may choose one, separated by
	// commas (RFC 6455 section 4.1, item 10).
	Protocols string
	// Header has more lines of the head, such as cookies, each with its CRLF. It is
	// sent as it is.
	Header []byte
}

// Agreement is what a server chose of an Offer.
type Agreement struct {
	Deflate  bool   // the client may compress messages, and has to inflate the server's
	Protocol string // empty for none
}

// AppendRequest appends a client's opening handshake (RFC 6455 section 4.1) that offers
// nothing. host is the Host header's value and target the request target; neither may
// contain a space or a line end.
func AppendRequest(dst []byte, host, target string, key Key) []byte {
	return Offer{}.AppendRequest(dst, host, target, key)
}

// AppendRequest appends an opening handshake that makes the offer.
func (o Offer) AppendRequest(dst []byte, host, target string, key Key) []byte {
	dst = append(dst, "GET "...)
	dst = append(dst, target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	dst = append(append(dst, key[:]...), "\r\n"...)
	if o.Deflate {
		dst = append(dst, deflateLine+"\r\n"...)
	}
	if o.Protocols != "" {
		dst = append(append(append(dst, protocolName+": "...), o.Protocols...), "\r\n"...)
	}
	return append(append(dst, o.Header...), "\r\n"...)
}

const protocolName = "Sec-WebSocket-Protocol"

// CheckResponse checks the answer to a request that offered nothing, as the method of
// Offer does.
func CheckResponse(head []byte, key Key) error {
	_, err := Offer{}.CheckResponse(head, key)
	return err
}

// CheckResponse checks a server's complete response head, as HeadLen delimits
// it, against the key and the offer that were sent (RFC 6455 section 4.1). A server
// that chooses what was not offered is an error; one that chooses nothing is not.
func (o Offer) CheckResponse(head []byte, key Key) (chosen Agreement, err error) {
	status, headers := firstLine(head)
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 101 ")) {
		return chosen, fmt.Errorf("frame: the server answered %q in place of 101", status)
	}
	var upgrade, connection, accept bool
	accepts := 0
	for line := range lines(headers) {
		name, value, ok := field(line)
		switch {
		case !ok:
			return chosen, fmt.Errorf("frame: malformed header line %q", line)
		case is(name, "Upgrade"):
			upgrade = is(value, "websocket")
		case is(name, "Connection"):
			connection = connection || hasToken(value, "Upgrade")
		case is(name, "Sec-WebSocket-Accept"):
			if accepts++; accepts > 1 { // section 11.3.3
				return chosen, fmt.Errorf("frame: more than one Sec-WebSocket-Accept")
			}
			want := acceptKey(key)
			accept = bytes.Equal(value, want[:])
		case is(name, extensionsName) && o.Deflate && !chosen.Deflate:
			if chosen.Deflate = acceptable(value); !chosen.Deflate {
				return chosen, fmt.Errorf("frame: the server answered the offer «%s» with %q", deflateTerms, value)
			}
		case is(name, protocolName) && chosen.Protocol == "" && len(value) > 0 && hasToken([]byte(o.Protocols), string(value)):
			chosen.Protocol = string(value)
		case is(name, extensionsName), is(name, protocolName):
			return chosen, fmt.Errorf("frame: the server chose %q, which was not offered", line)
		}
	}
	switch {
	case !upgrade:
		return chosen, fmt.Errorf("frame: the response lacks «Upgrade: websocket»")
	case !connection:
		return chosen, fmt.Errorf("frame: the response lacks «Connection: Upgrade»")
	case !accept:
		return chosen, fmt.Errorf("frame: Sec-WebSocket-Accept is missing or does not match the key")
	}
	return chosen, nil
}

// acceptable reports whether the value of a response's header accepts what
// an Offer's Deflate asks for. RFC 7692 section 7.1 makes a client fail the
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
