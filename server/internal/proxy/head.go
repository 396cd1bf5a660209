package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// Head is what a proxy says about the connection that it forwards. The zero value
// says nothing, and means the connection itself: with LOCAL a proxy connects for its
// own purposes, such as a health check; with UNKNOWN, or the path of a Unix socket, it
// cannot tell.
type Head struct {
	Source      netip.AddrPort // the client
	Destination netip.AddrPort // where the client connected to
}

// HeadMax is the largest head that is accepted, in bytes. A client's certificate in a
// TLV takes one or two KiB. Version 1 has heads of 107 bytes at most.
const HeadMax = 4096

// ErrNoHead is returned by ParseHead if something else came than a head.
var ErrNoHead = errors.New("proxy: the connection does not begin with a PROXY protocol head")

const (
	head1Max    = 107 // "PROXY UNKNOWN" with two IPv6 addresses and ports, CRLF included
	head2Fixed  = 16  // signature, command, family, length
	head2Local  = 0x20
	head1Spaces = 5 // PROXY TCP4 source destination port port
)

// ParseHead parses the head of the PROXY protocol, version 1 or 2, from the first bytes
// of a connection (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt). n is
// how many bytes it takes; n is zero and err nil if more is needed, which is so for
// less than HeadMax bytes. What is wrong is an error as soon as it can be seen, and
// the connection is to be closed then. TLVs have to be well-formed, and are ignored.
func ParseHead(b []byte) (h Head, n int, err error) {
	switch {
	case begins(b, proxyproto.SIGV2):
		n, err = head2Len(b)
	case begins(b, proxyproto.SIGV1):
		n, err = head1Len(b)
	default:
		err = ErrNoHead
	}
	if n == 0 || err != nil {
		return Head{}, 0, err
	}
	if b[0] == proxyproto.SIGV2[0] && b[len(proxyproto.SIGV2)] == head2Local {
		return Head{}, n, nil // the rest means nothing, and need not be well-formed
	}
	if h, err = parseWhole(b[:n]); err != nil {
		return Head{}, 0, fmt.Errorf("proxy: PROXY protocol head: %w", err)
	}
	return h, n, nil
}

// begins reports whether b and signature are the same as far as both go.
func begins(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

// head1Len is the length of a line that ends in CRLF, zero if the end has not come.
func head1Len(b []byte) (int, error) {
	end := bytes.IndexByte(b[:min(len(b), head1Max)], '\n')
	switch {
	case end < 0 && len(b) >= head1Max:
		return 0, fmt.Errorf("proxy: PROXY protocol head: the line exceeds %d bytes", head1Max)
	case end < 0:
		return 0, nil
	}
	// The library accepts more words than there should be.
	if line := b[:end]; !bytes.HasPrefix(line, []byte("PROXY UNKNOWN")) && bytes.Count(line, []byte(" ")) != head1Spaces {
		return 0, fmt.Errorf("proxy: PROXY protocol head: %q is not «PROXY TCP4 source destination port port»", line)
	}
	return end + 1, nil
}

// head2Len is the length of a binary head, zero if it has not come whole.
func head2Len(b []byte) (int, error) {
	if len(b) < head2Fixed {
		return 0, nil
	}
	n := head2Fixed + int(binary.BigEndian.Uint16(b[head2Fixed-2:]))
	switch {
	case n > HeadMax:
		return 0, fmt.Errorf("proxy: PROXY protocol head: it has %d bytes, and may have %d", n, HeadMax)
	case len(b) < n:
		return 0, nil
	}
	return n, nil
}

// parseWhole parses a head that is there whole.
func parseWhole(b []byte) (Head, error) {
	header, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b), len(b)))
	if err != nil {
		return Head{}, err
	}
	if _, err := header.TLVs(); err != nil {
		return Head{}, err
	}
	switch header.TransportProtocol {
	case proxyproto.TCPv4, proxyproto.TCPv6:
		return Head{addrPort(header.SourceAddr), addrPort(header.DestinationAddr)}, nil
	case proxyproto.UnixStream, proxyproto.UNSPEC:
		return Head{}, nil
	}
	return Head{}, fmt.Errorf("it is about datagrams")
}

func addrPort(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort() // the library's type for both TCP families
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
