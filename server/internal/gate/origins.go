package gate

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Origins are the web pages that may connect (RFC 6455 section 10.2). Browsers say in
// the Origin header where a page is from, and send the user's cookies whatever page it
// is, so a server that lets any page connect lets any page act for its users. Other
// clients need no Origin, and could send any: it protects users, not the server.
//
// The zero value and nil allow a page of the server's own host. Any goroutine may use
// Origins.
type Origins struct {
	any    bool
	listed []origin
}

// origin is an origin (RFC 6454), or a pattern of origins.
type origin struct {
	scheme []byte // empty in a pattern: http or https
	host   []byte // with brackets for IPv6; ".example.com" in a pattern for subdomains
	port   int    // zero if it is not given
}

// ParseOrigins makes Origins of patterns, which are allowed beside the server's own
// host:
//
//	https://chat.example.com     this origin
//	chat.example.com:8443        over http or https, at this port
//	*.example.com                all subdomains at any depth, not example.com itself
//	app://localhost              of an application that is no web page
//	any                          every page, and "null", which sandboxed pages send
//
// A pattern without a port means its scheme's, 80 or 443. Upper and lower case are
// the same. Hosts with other letters than ASCII's are written as browsers send them,
// xn--….
func ParseOrigins(patterns []string) (*Origins, error) {
	o := new(Origins)
	for _, text := range patterns {
		if text == "any" {
			o.any = true
			continue
		}
		p, err := parsePattern(text)
		if err != nil {
			return nil, fmt.Errorf("gate: origin %q: %w", text, err)
		}
		o.listed = append(o.listed, p)
	}
	return o, nil
}

func parsePattern(text string) (p origin, err error) {
	scheme, authority, found := strings.Cut(text, "://")
	if !found {
		scheme, authority = "", text
	} else if !isScheme([]byte(scheme)) {
		return p, fmt.Errorf("%q is no scheme; https://chat.example.com is an origin", scheme)
	}
	rest, below := strings.CutPrefix(authority, "*.")
	host, port, ok := splitAuthority([]byte(rest))
	switch {
	case text == "*":
		return p, fmt.Errorf(`to allow every page write "any"`)
	case text == "null":
		return p, fmt.Errorf(`sandboxed pages of everybody send it, so it cannot be told who they are; "any" allows them too`)
	case strings.Contains(authority, "*") && (!below || strings.Contains(rest, "*")):
		return p, fmt.Errorf("* stands for whole labels at the beginning, as in *.example.com")
	case strings.ContainsFunc(text, func(r rune) bool { return r > 127 }):
		return p, fmt.Errorf("write the host as browsers send it, as in https://xn--bcher-kva.example")
	case strings.ContainsAny(authority, "/?#"):
		return p, fmt.Errorf("an origin has no path; https://chat.example.com is one")
	case !ok:
		return p, fmt.Errorf("should be a host, as in chat.example.com, *.example.com or https://chat.example.com:8443")
	case below && host[0] == '[':
		return p, fmt.Errorf("an address has no subdomains; *.example.com has")
	case below:
		host = append([]byte{'.'}, host...)
	}
	return origin{scheme: []byte(scheme), host: host, port: port}, nil
}

// Allow decides about a request's Origin headers, given its Host header. A request has
// none or one: more than one is not allowed, nor is an empty one.
//
// The server's own host is that of the Host header, at the same port. Which scheme it
// is reached by does not matter, since a proxy may have ended TLS; a port that is not
// given is that of the origin's scheme. Allow does not allocate.
func (o *Origins) Allow(host []byte, origins ...[]byte) bool {
	switch {
	case len(origins) == 0:
		return true
	case len(origins) > 1:
		return false
	case o != nil && o.any:
		return true
	}
	from, ok := parseOrigin(origins[0])
	if !ok {
		return false
	}
	if from.isWeb() && from.isAt(host) {
		return true
	}
	if o == nil {
		return false
	}
	for i := range o.listed {
		if o.listed[i].matches(from) {
			return true
		}
	}
	return false
}

func (o origin) isWeb() bool { return defaultPort(o.scheme) != 0 }

// isAt reports whether o is the origin of pages at a Host header's host.
func (o origin) isAt(host []byte) bool {
	name, port, ok := splitAuthority(host)
	if port == 0 {
		port = defaultPort(o.scheme)
	}
	return ok && bytes.EqualFold(name, o.host) && port == o.port
}

// matches reports whether a pattern stands for an origin.
func (o *origin) matches(from origin) bool {
	if len(o.scheme) == 0 {
		if !from.isWeb() {
			return false
		}
	} else if !bytes.EqualFold(o.scheme, from.scheme) {
		return false
	}
	port := o.port
	if port == 0 {
		port = defaultPort(from.scheme)
	}
	if port != from.port {
		return false
	}
	name := from.host
	if o.host[0] == '.' {
		if len(name) <= len(o.host) {
			return false
		}
		name = name[len(name)-len(o.host):]
	}
	return bytes.EqualFold(name, o.host)
}

// parseOrigin parses an Origin header (RFC 6454 section 7). It has neither path nor
// user, and browsers write it in ASCII. What it returns lies in b; the port is the
// scheme's own if it is not given.
func parseOrigin(b []byte) (o origin, ok bool) {
	scheme, authority, found := bytes.Cut(b, []byte("://"))
	if !found || !isScheme(scheme) {
		return origin{}, false
	}
	o.scheme = scheme
	o.host, o.port, ok = splitAuthority(authority)
	if o.port == 0 {
		o.port = defaultPort(scheme)
	}
	return o, ok
}

// defaultPort is the port of an http or https origin without one, zero for schemes of
// other kinds.
func defaultPort(scheme []byte) int {
	switch {
	case bytes.EqualFold(scheme, []byte("https")):
		return 443
	case bytes.EqualFold(scheme, []byte("http")):
		return 80
	}
	return 0
}

func isScheme(b []byte) bool {
	for i, c := range b {
		if !isAlnum(c) && (i == 0 || c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return len(b) > 0
}

// splitAuthority splits host[:port], which has to be ASCII. Port is zero if it is not
// given.
func splitAuthority(b []byte) (host []byte, port int, ok bool) {
	end := bytes.IndexByte(b, ':')
	if len(b) > 0 && b[0] == '[' {
		end = bytes.IndexByte(b, ']') + 1
		if end < len("[::]") {
			return nil, 0, false
		}
	} else if end < 0 {
		end = len(b)
	}
	host = b[:end]
	if !isHost(host) {
		return nil, 0, false
	}
	if rest := b[end:]; len(rest) > 0 {
		if rest[0] != ':' {
			return nil, 0, false
		}
		if port, ok = parsePort(rest[1:]); !ok {
			return nil, 0, false
		}
	}
	return host, port, true
}

// isHost reports whether b is a name, an IPv4 address, or something in brackets that
// has an IPv6 address's letters.
func isHost(b []byte) bool {
	if len(b) > 0 && b[0] == '[' {
		for _, c := range b[1 : len(b)-1] {
			if !isHex(c) && c != ':' && c != '.' {
				return false
			}
		}
		return true
	}
	label := 0
	for _, c := range b {
		switch {
		case c == '.' && label == 0:
			return false
		case c == '.':
			label = 0
		case !isAlnum(c) && c != '-' && c != '_':
			return false
		default:
			label++
		}
	}
	return len(b) > 0
}

// parsePort parses 1 to 65535.
func parsePort(b []byte) (port int, ok bool) {
	if len(b) == 0 || len(b) > 5 || b[0] == '0' {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		port = 10*port + int(c-'0')
	}
	return port, port <= 65535
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// String is how the patterns are written, for logs.
func (o *Origins) String() string {
	if o == nil {
		return "own"
	}
	words := []string{"own"}
	for _, p := range o.listed {
		words = append(words, p.String())
	}
	if o.any {
		words = append(words, "any")
	}
	return strings.Join(words, " ")
}

func (o origin) String() string {
	var b strings.Builder
	if len(o.scheme) > 0 {
		b.Write(o.scheme)
		b.WriteString("://")
	}
	if o.host[0] == '.' {
		b.WriteByte('*')
	}
	b.Write(o.host)
	if o.port != 0 {
		b.WriteString(":" + strconv.Itoa(o.port))
	}
	return b.String()
}
