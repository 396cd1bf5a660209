package proxy

import (
	"bytes"
	"net/netip"
)

// Field is the header in which proxies name clients. It has to be the one that the
// proxies at hand write: a proxy that writes one passes on the other as the client
// sent it.
type Field int

const (
	XForwardedFor Field = iota // addresses, separated by commas
	Forwarded                  // RFC 7239
)

// String is the header's name.
func (f Field) String() string {
	if f == Forwarded {
		return "Forwarded"
	}
	return "X-Forwarded-For"
}

// addressMax is the longest text of an address and a port, in bytes.
const addressMax = len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535")

// Client returns the address of the client that a request comes from. peer is the
// address at the other end of the connection, and lines are the values of all the
// request's headers of that name, in their order.
//
// Each proxy adds, on the right, who connected to it. So the list is read from the
// right for as long as who says so is trusted, and everything further left may be the
// client's invention. Where an element is missing, hidden ("unknown" or "_name") or
// malformed, the client is the last proxy that is known.
func (t Trust) Client(peer netip.Addr, f Field, lines ...[]byte) netip.Addr {
	at := peer.Unmap()
	for i := len(lines) - 1; i >= 0; i-- {
		for rest := lines[i]; len(rest) > 0; {
			if !t.Has(at) {
				return at
			}
			var element []byte
			rest, element = cutLast(rest, ',', f == Forwarded)
			if element = trim(element); len(element) == 0 {
				continue // RFC 9110 section 5.6.1.2: empty elements are ignored
			}
			if f == Forwarded {
				element = forwardedFor(element)
			}
			a, ok := parseAddress(element)
			if !ok {
				return at
			}
			at = a
		}
	}
	return at
}

// forwardedFor is the value of an element's parameter "for" (RFC 7239 section 4), nil
// if it has none or several.
func forwardedFor(element []byte) (value []byte) {
	for len(element) > 0 {
		var pair []byte
		element, pair = cutLast(element, ';', true)
		name, v, _ := bytes.Cut(trim(pair), []byte("="))
		if !bytes.EqualFold(name, []byte("for")) {
			continue
		}
		if value != nil {
			return nil
		}
		if value = v; len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
			value = v[1 : len(v)-1]
		}
	}
	return value
}

// cutLast cuts b at the last separator; before is empty if there is none. With quotes,
// separators in quoted strings do not count (RFC 9110 section 5.6.4).
//
// It goes from right to left, so that a quote that the client left open cannot swallow
// what a proxy has added. Read in this direction, a quote that ends a string begins it;
// the quote that begins the string follows "=", and one within it follows a backslash.
func cutLast(b []byte, separator byte, quotes bool) (before, last []byte) {
	quoted := false
	for i := len(b) - 1; i >= 0; i-- {
		switch {
		case quotes && b[i] == '"' && !(quoted && i > 0 && b[i-1] == '\\'):
			quoted = !quoted
		case b[i] == separator && !quoted:
			return b[:i], b[i+1:]
		}
	}
	return nil, b
}

// parseAddress parses an address with or without a port. IPv6 addresses may be in
// brackets.
func parseAddress(b []byte) (a netip.Addr, ok bool) {
	if len(b) > addressMax {
		return a, false
	}
	text := string(b)
	if n := len(text); n > 2 && text[0] == '[' && text[n-1] == ']' {
		if a, err := netip.ParseAddr(text[1 : n-1]); err == nil && a.Is6() && a.Zone() == "" {
			return a.Unmap(), true
		}
		return a, false
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		p, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		a = p.Addr()
	}
	return a.Unmap(), a.Zone() == ""
}

func trim(b []byte) []byte { return bytes.Trim(b, " \t") }
