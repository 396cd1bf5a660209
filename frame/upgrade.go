package frame

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/gobwas/ws"
)

// Reject refuses an opening handshake: the HTTP response that Upgrade encodes
// in place of 101.
type Reject struct {
	Status int         // 300–599; anything else is sent as 500
	Reason string      // the response's body, for people
	Header http.Header // more headers, such as Retry-After; may be nil

	cause error // what the client need not know
}

// Unwrap returns the error that led to the refusal, nil if it speaks for
// itself.
func (r *Reject) Unwrap() error { return r.cause }

func (r *Reject) Error() string {
	if r.cause != nil {
		return fmt.Sprintf("handshake rejected with status %d: %v", r.Status, r.cause)
	}
	return fmt.Sprintf("handshake rejected with status %d: %s", r.Status, r.Reason)
}

func badRequest(reason string) *Reject {
	return &Reject{Status: http.StatusBadRequest, Reason: reason}
}

// What Upgrade refuses by itself, one value for each cause so that callers can
// count them.
var (
	rejectLineSize   = &Reject{Status: http.StatusRequestURITooLong, Reason: fmt.Sprintf("request line exceeds %d bytes", MaxHead)}
	rejectHeadSize   = &Reject{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: fmt.Sprintf("request head exceeds %d bytes", MaxHead)}
	rejectLineEnd    = badRequest("a line of the request head does not end in CRLF")
	rejectEmptyLines = badRequest(fmt.Sprintf("more than %d empty lines before the request line", maxEmptyLines))
	rejectLine       = badRequest("request line is not «GET target HTTP/1.1»")
	rejectField      = badRequest("malformed header line")
	rejectHost       = badRequest("exactly one Host header is needed, with a host and perhaps a port")
	rejectUpgrade    = badRequest("the Upgrade header needs the token websocket")
	rejectConnection = badRequest("a Connection header with the token Upgrade is needed")
	rejectKey        = badRequest("exactly one Sec-WebSocket-Key header is needed, 16 bytes in base64")
	rejectVersion    = badRequest("exactly one Sec-WebSocket-Version header is needed")
	rejectBody       = badRequest("a request with a body cannot be upgraded")
	rejectExtensions = badRequest("malformed " + extensionsName + " header")
	rejectProtocol   = &Reject{Status: http.StatusInternalServerError, Reason: "the server chose a subprotocol that was not offered"}
	rejectMethod     = &Reject{
		Status: http.StatusMethodNotAllowed, Reason: "the request method must be GET",
		Header: http.Header{"Allow": {"GET"}},
	}
	rejectHTTP = &Reject{Status: http.StatusHTTPVersionNotSupported, Reason: "HTTP/1.1 is needed"}
	// RFC 9110 section 15.5.22: with 426 goes the protocol that would do.
	rejectNoUpgrade = &Reject{
		Status: http.StatusUpgradeRequired, Reason: "this is a WebSocket server: the request needs an Upgrade header",
		Header: http.Header{"Upgrade": {"websocket"}, "Sec-WebSocket-Version": {"13"}},
	}
	// RFC 6455 section 4.2.2: with 426 goes the version that would do.
	rejectUnknownVersion = &Reject{
		Status: http.StatusUpgradeRequired, Reason: "WebSocket version 13 is needed",
		Header: http.Header{"Sec-WebSocket-Version": {"13"}, "Upgrade": {"websocket"}},
	}
)

// Request is an opening handshake that is well-formed and about to be
// answered. Its methods are valid only until the callback that received it
// returns; the strings they return stay valid.
type Request struct {
	// Protocol is the callback's choice among Protocols, empty for none.
	Protocol string
	// ResponseHeader holds headers to send with the 101 response; nil at first.
	ResponseHeader http.Header
	// Deflate is not zero if the client offers permessage-deflate and the
	// Upgrader accepts it. The callback may set it to zero, to decline.
	Deflate Window

	line, headers []byte
	saw           sight
}

// Target is the request target as it was sent, such as "/chat?room=1".
func (r *Request) Target() string {
	_, rest, _ := bytes.Cut(r.line, []byte{' '})
	target, _, _ := bytes.Cut(rest, []byte{' '})
	return string(target)
}

// Path is Target without its query. It is not unescaped.
func (r *Request) Path() string {
	path, _, _ := strings.Cut(r.Target(), "?")
	return path
}

// Header returns the first value of a header by its name in any case, empty
// where there is none.
func (r *Request) Header(name string) string {
	for n, v := range r.fields() {
		if strings.EqualFold(string(n), name) {
			return string(v)
		}
	}
	return ""
}

// HasOrigin reports whether there is an Origin header. It costs nothing.
func (r *Request) HasOrigin() bool { return r.saw&sawOrigin != 0 }

// Headers iterates over all header lines as they were sent, in their order.
func (r *Request) Headers() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for n, v := range r.fields() {
			if !yield(string(n), string(v)) {
				return
			}
		}
	}
}

// Protocols lists the subprotocols that the client offers, the one it prefers
// first (RFC 6455 section 4.1).
func (r *Request) Protocols() []string {
	var offered []string
	for n, v := range r.fields() {
		if strings.EqualFold(string(n), "Sec-WebSocket-Protocol") {
			for p := range strings.SplitSeq(string(v), ",") {
				if p = strings.Trim(p, " \t"); p != "" {
					offered = append(offered, p)
				}
			}
		}
	}
	return offered
}

func (r *Request) fields() iter.Seq2[[]byte, []byte] {
	return func(yield func([]byte, []byte) bool) {
		for line := range lines(r.headers) {
			if n, v, _ := field(line); !yield(n, v) {
				return
			}
		}
	}
}

// Upgrader answers opening handshakes. It holds buffers and serves one
// goroutine at a time.
type Upgrader struct {
	// Deflate accepts the first offer of permessage-deflate that it can. It is
	// set before the first Upgrade.
	Deflate bool

	request  Request
	exchange exchange
	ws       ws.Upgrader
	accept   func(*Request) error
}

// exchange is the connection that the library believes in: it holds exactly
// the head, so that the library's buffered reader finds no frames to swallow.
type exchange struct {
	head     bytes.Reader
	response []byte
}

func (e *exchange) Read(p []byte) (int, error) { return e.head.Read(p) }

func (e *exchange) Write(p []byte) (int, error) {
	e.response = append(e.response, p...)
	return len(p), nil
}

// NewUpgrader makes an Upgrader that asks accept about each well-formed
// request. When accept returns an error the request is refused: with the
// status of a *Reject, with 500 for any other error. It may be nil.
func NewUpgrader(accept func(*Request) error) *Upgrader {
	u := &Upgrader{accept: accept}
	u.ws.OnBeforeUpgrade = u.decide
	return u
}

// Upgrade answers one complete head, as HeadLen delimits it: the response must
// be sent in either case and is valid until the next call. An error is always
// a *Reject, and the connection is to be closed behind its response.
func (u *Upgrader) Upgrade(head []byte) (response []byte, err error) {
	err = u.upgrade(head)
	u.request = Request{}
	if err != nil {
		reject := asReject(err)
		if IsHEAD(head) {
			return reject.Head(""), reject
		}
		return reject.Response(""), reject
	}
	return u.exchange.response, nil
}

func (u *Upgrader) upgrade(head []byte) error {
	head = head[emptyLines(head):]
	saw, err := checkHead(head)
	if err != nil {
		return err
	}
	u.request.saw = saw
	u.request.line, u.request.headers = firstLine(head)
	if saw&sawLists != 0 {
		head = joinLists(head)
	}
	u.exchange.head.Reset(head)
	u.exchange.response = u.exchange.response[:0]
	_, err = u.ws.Upgrade(&u.exchange)
	return err
}

// decide asks accept, once the library finds nothing wrong, and returns what
// the response gets beside the mandatory headers.
func (u *Upgrader) decide() (ws.HandshakeHeader, error) {
	r := &u.request
	// RFC 6455 section 9.1: a malformed offer fails the handshake, whether or not
	// there is anything to choose.
	var offer deflateOffer
	if r.saw&sawExtensions != 0 {
		var ok bool
		if offer, ok = r.chooseOffer(); !ok {
			return nil, rejectExtensions
		}
	}
	if u.Deflate {
		r.Deflate = offer.window
	}
	if u.accept != nil {
		if err := u.accept(r); err != nil {
			return nil, err
		}
	}
	if r.Protocol != "" {
		if !slices.Contains(r.Protocols(), r.Protocol) {
			return nil, rejectProtocol
		}
		// A copy: accept may give every request the same map.
		if r.ResponseHeader = r.ResponseHeader.Clone(); r.ResponseHeader == nil {
			r.ResponseHeader = http.Header{}
		}
		r.ResponseHeader.Set("Sec-WebSocket-Protocol", r.Protocol)
	}
	switch {
	case offer.window != 0 && r.Deflate != 0:
		return deflateHeader{offer.answer, r.ResponseHeader}, nil
	case r.ResponseHeader == nil:
		return nil, nil // an empty one costs the library a tenth of the whole
	}
	return ws.HandshakeHeaderHTTP(r.ResponseHeader), nil
}

// sight is what checkHead has met in a head.
type sight uint16

const (
	sawHost sight = 1 << iota
	sawKey
	sawVersion
	sawConnection
	sawToken // Upgrade, in a Connection line
	sawUpgrade
	sawWebSocket // the token, in an Upgrade line
	sawOrigin
	sawExtensions
	sawLists // Connection or Upgrade lines that have to go through joinLists
)

// checkHead refuses what the library would let pass, and tells what it has met.
// joinLists is for heads that the library refuses though they are right: with a
// Connection line without the token where another line has it, or with a tab, or
// with an Upgrade line that says more than websocket.
func checkHead(head []byte) (saw sight, err error) {
	once := func(flag sight, reject *Reject) error {
		if saw&flag != 0 {
			return reject
		}
		saw |= flag
		return nil
	}
	line, headers := firstLine(head)
	if !requestLine(line) {
		return 0, rejectLine
	}
	for line := range lines(headers) {
		name, value, ok := field(line)
		if !ok {
			return 0, rejectField
		}
		// RFC 6455 sections 4.2.1 and 11.3.1, RFC 9110 section 7.2: Host, version
		// and key may not appear twice, the key is base64 for 16 bytes.
		switch {
		case is(name, "Host"):
			if err = once(sawHost, rejectHost); err == nil && !validHost(value) {
				err = rejectHost
			}
		case is(name, "Sec-WebSocket-Version"):
			err = once(sawVersion, rejectVersion)
		case is(name, "Sec-WebSocket-Key"):
			if err = once(sawKey, rejectKey); err == nil && !validKey(value) {
				err = rejectKey
			}
		case is(name, "Upgrade") && is(value, "websocket"):
			saw |= sawUpgrade | sawWebSocket
		case is(name, "Upgrade"): // a list to choose from (RFC 9110 section 7.8)
			saw |= sawUpgrade | sawLists
			if hasToken(value, "websocket") {
				saw |= sawWebSocket
			}
		case is(name, "Connection"):
			if saw&sawConnection != 0 || bytes.IndexByte(value, '\t') >= 0 {
				saw |= sawLists
			}
			saw |= sawConnection
			if hasToken(value, "upgrade") {
				saw |= sawToken
			}
		case is(name, "Origin"):
			saw |= sawOrigin
		case is(name, extensionsName):
			saw |= sawExtensions
		case is(name, "Content-Length") && string(value) != "0", is(name, "Transfer-Encoding"):
			err = rejectBody
		}
		if err != nil {
			return 0, err
		}
	}
	switch {
	case saw&sawHost == 0:
		return 0, rejectHost
	case saw&sawUpgrade == 0:
		return 0, rejectNoUpgrade
	case saw&sawWebSocket == 0:
		return 0, rejectUpgrade
	case saw&sawToken == 0:
		return 0, rejectConnection
	}
	return saw, nil
}

// WantsWebSocket reports whether a complete head, as HeadLen delimits it, has an
// Upgrade header with the token websocket. Any other request is an ordinary one
// for HTTP.
func WantsWebSocket(head []byte) bool {
	_, headers := firstLine(head[emptyLines(head):])
	for line := range lines(headers) {
		if name, value, ok := field(line); ok && is(name, "Upgrade") && hasToken(value, "websocket") {
			return true
		}
	}
	return false
}

// requestLine reports whether a line has the three parts of a request line and
// nothing that could be a second line to somebody else.
func requestLine(line []byte) bool {
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	method, rest, _ := bytes.Cut(line, []byte{' '})
	target, version, _ := bytes.Cut(rest, []byte{' '})
	for _, c := range method {
		if !token[c] {
			return false
		}
	}
	// Other methods have other targets. They are refused for the method.
	return len(method) > 0 && (string(method) != http.MethodGet || requestTarget(target)) && httpVersion(version)
}

// requestTarget reports whether t is a path, or an absolute http or https URI
// (RFC 6455 section 4.2.1, item 1). Neither has a fragment (RFC 9112 section 3.2).
func requestTarget(t []byte) bool {
	if bytes.IndexByte(t, '#') >= 0 {
		return false
	}
	if len(t) > 0 && t[0] == '/' {
		return true
	}
	scheme, rest, ok := bytes.Cut(t, []byte("://"))
	if i := bytes.IndexAny(rest, "/?"); i >= 0 {
		rest = rest[:i]
	}
	return ok && (is(scheme, "http") || is(scheme, "https")) && validHost(rest)
}

// validHost reports whether v is a host and perhaps a port, without anything else
// (RFC 9110 section 7.2). A host is a name, an IPv4 address, or an IPv6 address in
// brackets (RFC 3986 section 3.2.2), and not empty (RFC 9110 section 4.2.1).
func validHost(v []byte) bool {
	host, port, _ := bytes.Cut(v, []byte{':'})
	if len(v) > 0 && v[0] == '[' {
		end := bytes.IndexByte(v, ']')
		if end < 0 || end+1 < len(v) && v[end+1] != ':' {
			return false
		}
		address, err := netip.ParseAddr(string(v[1:end]))
		if err != nil || !address.Is6() || address.Zone() != "" {
			return false
		}
		host, port = nil, v[min(end+2, len(v)):]
	} else if len(host) == 0 {
		return false
	}
	for len(host) > 0 {
		switch c := host[0]; {
		case hostChar[c]:
			host = host[1:]
		case c == '%' && len(host) > 2 && hexDigit(host[1]) && hexDigit(host[2]):
			host = host[3:]
		default:
			return false
		}
	}
	for _, c := range port {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// hostChar marks the characters of a name, but for those that are escaped (RFC
// 3986 section 3.2.2: unreserved and sub-delims).
var hostChar = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' ||
			bytes.IndexByte([]byte("-._~!$&'()*+,;="), byte(c)) >= 0
	}
	return t
}()

func hexDigit(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f'
}

// httpVersion reports whether v is "HTTP/", a digit, a dot and a digit (RFC
// 9112 section 2.3). The library takes ":" for ten, and any number of digits.
func httpVersion(v []byte) bool {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	return len(v) == len("HTTP/1.1") && string(v[:5]) == "HTTP/" && digit(v[5]) && v[6] == '.' && digit(v[7])
}

// is compares a header's name or value with a word of ASCII letters, in any
// case. A letter that folds to one of these without being ASCII is longer, so
// the length alone tells it apart.
func is(name []byte, want string) bool {
	return len(name) == len(want) && strings.EqualFold(string(name), want)
}

// joinLists rewrites a head for the library: its Connection and Upgrade lines,
// which have the tokens that are needed, say nothing else.
func joinLists(head []byte) []byte {
	line, headers := firstLine(head)
	joined := append(append(make([]byte, 0, len(head)), line...), crlf...)
	for line := range lines(headers) {
		if name, _, _ := field(line); !is(name, "Connection") && !is(name, "Upgrade") {
			joined = append(append(joined, line...), crlf...)
		}
	}
	return append(joined, "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"...)
}

// asReject gives every refusal this package's form, the library's too.
func asReject(err error) *Reject {
	var reject *Reject
	if errors.As(err, &reject) {
		return reject
	}
	switch err {
	case ws.ErrHandshakeBadMethod:
		return rejectMethod
	case ws.ErrHandshakeBadProtocol:
		return rejectHTTP
	case ws.ErrHandshakeBadHost:
		return rejectHost
	case ws.ErrHandshakeBadUpgrade:
		return rejectUpgrade
	case ws.ErrHandshakeBadConnection:
		return rejectConnection
	case ws.ErrHandshakeBadSecKey:
		return rejectKey
	case ws.ErrHandshakeBadSecVersion:
		return rejectVersion
	case ws.ErrHandshakeUpgradeRequired:
		return rejectUnknownVersion
	case ws.ErrMalformedRequest:
		return rejectLine
	}
	status := http.StatusInternalServerError
	return &Reject{Status: status, Reason: http.StatusText(status), cause: err}
}

// ownHeaders are those that Response writes itself.
var ownHeaders = map[string]bool{"Connection": true, "Content-Type": true, "Content-Length": true, "Transfer-Encoding": true}

// IsHEAD reports whether a request, which may be incomplete, has the method HEAD:
// the response to it has no content (RFC 9110 section 9.3.2).
func IsHEAD(request []byte) bool {
	return bytes.HasPrefix(request[emptyLines(request):], []byte("HEAD "))
}

// Response encodes r as a whole HTTP response. date is the value of its Date header
// (RFC 9110 section 6.6.1), empty for none; r.Header may have another.
func (r *Reject) Response(date string) []byte { return append(r.Head(date), r.content()...) }

func (r *Reject) content() string { return r.Reason + "\n" }

// Head encodes r's response without its content.
func (r *Reject) Head(date string) []byte {
	status := r.Status
	if status < 300 || status > 599 {
		status = http.StatusInternalServerError
	}
	var b bytes.Buffer // takes everything, so no write can fail
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	connection := "close"
	if r.Header.Get("Upgrade") != "" { // RFC 9110 section 7.8
		connection += ", Upgrade"
	}
	fmt.Fprintf(&b, "Connection: %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n", connection, len(r.content()))
	if date != "" && r.Header.Get("Date") == "" {
		fmt.Fprintf(&b, "Date: %s\r\n", date)
	}
	_ = r.Header.WriteSubset(&b, ownHeaders)
	b.WriteString("\r\n")
	return b.Bytes()
}
