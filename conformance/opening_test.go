package conformance

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// abuse is a case of the opening handshake: a request that differs from a good one,
// and the status of its answer.
type abuse struct {
	what, rfc string
	status    int
	edits     []edit

	only   bool   // this is for servers with --compress alone
	agreed string // extensions
	code   uint16 // of the Close frame, where the connection is opened and then failed
	hangs  bool   // the request does not end: the server closes, and need not answer

	id string
}

// request is a request that is not encoded yet.
type request struct {
	before string // the request line
	line   string
	fields []string
	end    string
	behind string // the head
}

type edit func(*request)

func good() request {
	return request{line: "GET /chat HTTP/1.1", end: "\r\n", fields: []string{
		"Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Key: " + key, "Sec-WebSocket-Version: 13",
	}}
}

func (r request) encode() []byte {
	return []byte(r.before + r.line + "\r\n" + strings.Join(append(r.fields, ""), "\r\n") + r.end + r.behind)
}

// line has another request line.
func line(s string) edit { return func(r *request) { r.line = s } }

// before has something before the request line.
func before(s string) edit { return func(r *request) { r.before = s } }

// behind has something behind the head.
func behind(s string) edit { return func(r *request) { r.behind = s } }

// add has more header lines.
func add(lines ...string) edit { return func(r *request) { r.fields = append(r.fields, lines...) } }

// first has a header line before all others.
func first(s string) edit { return func(r *request) { r.fields = slices.Insert(r.fields, 0, s) } }

// drop has no such header line.
func drop(name string) edit {
	return func(r *request) {
		r.fields = slices.DeleteFunc(r.fields, func(f string) bool { return strings.HasPrefix(f, name+":") })
	}
}

// set has another value of a header.
func set(name, value string) edit {
	return func(r *request) {
		drop(name)(r)
		add(name + ":" + value)(r)
	}
}

// head has another text in place of one, anywhere in the head.
func head(old, new string) edit {
	return func(r *request) {
		text := strings.Replace(string(r.encode()), old, new, 1)
		*r = request{line: strings.TrimSuffix(text, "\r\n")}
	}
}

// chapter is a section of the page.
type chapter struct {
	title  string
	abuses []abuse
}

// each makes a case for each text. %q in what is the text.
func each(what, rfc string, status int, of func(string) edit, texts ...string) (rows []abuse) {
	for _, s := range texts {
		rows = append(rows, abuse{what: fmt.Sprintf(what, brief(s)), rfc: rfc, status: status, edits: []edit{of(s)}})
	}
	return rows
}

// brief shortens a long text.
func brief(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%s… (%d bytes)", s[:20], len(s))
	}
	return s
}

func rows(lists ...[]abuse) (all []abuse) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func setHost(s string) edit       { return set("Host", s) }
func setUpgrade(s string) edit    { return set("Upgrade", s) }
func setConnection(s string) edit { return set("Connection", s) }
func setKey(s string) edit        { return set("Sec-WebSocket-Key", s) }
func setVersion(s string) edit    { return set("Sec-WebSocket-Version", s) }
func setExtensions(s string) edit { return set("Sec-WebSocket-Extensions", s) }
func setProtocol(s string) edit   { return set("Sec-WebSocket-Protocol", s) }
func setOrigin(s string) edit     { return set("Origin", s) }
func addLine(s string) edit       { return add(s) }
func target(s string) edit        { return line("GET " + s + " HTTP/1.1") }
func method(s string) edit        { return line(s + " /chat HTTP/1.1") }
func version(s string) edit       { return line("GET /chat " + s) }

// room is how many bytes of a good request are missing to the 8 KiB of a head.
var room = 8192 - len(good().encode())

var chapters = []chapter{
	{"H1 The request line", rows(
		each("the target %q", "9112 3.2.1", 101, target, "/", "/chat?room=1", "/%20%41", "//chat", "/chat?", "/a/../b", "/chat;v=1", "/a:b@c", `/x"y`, "/\u00e4"),
		each("the target %q", "9112 3.2.2", 101, target, "http://localhost/chat", "https://localhost/chat", "HTTP://LOCALHOST/chat", "http://localhost", "http://localhost:8080/", "http://[::1]:8080/", "http://localhost?x"),
		each("the target %q", "9112 3.2", 400, target, "*", "chat", "localhost:80", "?x", ".", "\\chat"),
		each("the target %q", "9112 3.2", 400, target, "/#", "/chat#top", "/chat?x#y", "#", "http://localhost/#top"),
		each("the target %q", "9110 4.2.1", 400, target, "http://", "http:///chat", "http://:80/", "http://?x", "https:///"),
		each("the target %q", "9110 4.2.4", 400, target, "http://user@localhost/", "http://user:password@localhost/", "https://@localhost/"),
		each("the target %q", "6455 4.2.1", 400, target, "ftp://localhost/", "ws://localhost/chat", "javascript:alert(1)", "http:/chat", "http:chat", "file:///etc/passwd", "://localhost/"),
		each("the target %q", "3986 3.2", 400, target, "http://local<host/", "http://localhost:port/", "http://[::1/", "http://[::1]x/", "http://::1/", "http://local%zzhost/", "http://a:1:2/"),
		each("a character that may not be in the target: %q", "9112 3", 400, target, "/a\x00b", "/a\x01b", "/a\x08b", "/a\tb", "/a\x1bb", "/a\x7fb", "/a\rb", "/a\x0bb"),
		each("the line %q", "9112 3", 400, line, "GET  /chat HTTP/1.1", "GET /chat  HTTP/1.1", " GET /chat HTTP/1.1", "GET /chat HTTP/1.1 ", "GET\t/chat HTTP/1.1", "GET /chat\tHTTP/1.1", "GET /a b HTTP/1.1", "GET /chat", "GET /chat ", "GET", "/chat HTTP/1.1", "HTTP/1.1 101 Switching Protocols", " ", "GET HTTP/1.1"),
		each("the version %q", "9112 2.3", 400, version, "HTTP/1", "HTTP/11", "HTTP/1.1.1", "HTTP/1.a", "http/1.1", "Http/1.1", "HTTPS/1.1", "HTTP/ 1.1", "HTTP/:.1", "HTTP/-1.1", "HTTP/01.1", "HTTP/1.10", "HTTP/1,1", "WS/1.1", "HTTP1.1", "1.1"),
		each("the version %q", "9110 2.5", 101, version, "HTTP/1.1", "HTTP/1.2", "HTTP/1.9"),
		each("the version %q", "9110 15.6.6", 505, version, "HTTP/1.0", "HTTP/0.9", "HTTP/0.0", "HTTP/2.0", "HTTP/2.1", "HTTP/3.0", "HTTP/9.9"),
		each("the method %s", "9110 15.5.6", 405, method, "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "get", "Get", "GETT", "M-SEARCH", "!#$%&'*+-.^_`|~"),
		each("the line %q", "9110 15.5.6", 405, line, "OPTIONS * HTTP/1.1", "CONNECT localhost:80 HTTP/1.1"),
		each("the method %q", "9110 9.1", 400, method, "G@T", "GE(T", "GET:", `"GET"`, "G\u00c9T", "GE\x00T", "{GET}", "GET,", "G/T", ""),
		[]abuse{
			{what: "one empty line before the request", rfc: "9112 2.2", status: 101, edits: []edit{before("\r\n")}},
			{what: "four empty lines before the request", rfc: "9112 2.2", status: 101, edits: []edit{before("\r\n\r\n\r\n\r\n")}},
			{what: "five empty lines before the request", rfc: "9112 2.2", status: 400, edits: []edit{before(strings.Repeat("\r\n", 5))}},
			{what: "a thousand empty lines before the request", rfc: "9112 2.2", status: 400, edits: []edit{before(strings.Repeat("\r\n", 1000))}},
			{what: "a line feed before the request", rfc: "9112 2.2", status: 400, edits: []edit{before("\n")}},
			{what: "a space before the request", rfc: "9112 2.2", status: 400, edits: []edit{before(" \r\n")}},
			{what: "a target of 9,000 bytes", rfc: "9112 3", status: 414, edits: []edit{target("/" + stars(9000))}},
			{what: "a target of 100,000 bytes", rfc: "9112 3", status: 414, edits: []edit{target("/" + stars(100_000))}},
			{what: "a query of 9,000 bytes", rfc: "9110 15.5.15", status: 414, edits: []edit{target("/?" + stars(9000))}},
			{what: "a method of 9,000 bytes", rfc: "9112 3", status: 414, edits: []edit{method(strings.Repeat("G", 9000))}},
			{what: "a target of 4,000 bytes", rfc: "9112 3", status: 101, edits: []edit{target("/" + stars(4000))}},
			{what: "HTTP/2's first words", rfc: "9113 3.4", status: 505, edits: []edit{line("PRI * HTTP/2.0")}},
			{what: "nothing but the request line", rfc: "9112 3.2", status: 400, edits: []edit{func(r *request) { r.fields = nil }}},
		},
	)},
	{"H2 Header lines", rows(
		[]abuse{
			{what: "a bare line feed behind the request line", rfc: "9112 2.2", status: 400, edits: []edit{head("HTTP/1.1\r\n", "HTTP/1.1\n")}},
			{what: "a bare line feed behind a header line", rfc: "9112 2.2", status: 400, edits: []edit{head("localhost\r\n", "localhost\n")}},
			{what: "a bare line feed at the end", rfc: "9112 2.2", status: 400, edits: []edit{head("13\r\n\r\n", "13\r\n\n"), behind("\r\n\r\n")}},
			{what: "a bare carriage return behind the request line", rfc: "9112 2.2", status: 400, edits: []edit{head("HTTP/1.1\r\n", "HTTP/1.1\r")}},
			{what: "a bare carriage return behind a header line", rfc: "9112 2.2", status: 400, edits: []edit{head("localhost\r\n", "localhost\r")}},
			{what: "a carriage return too many", rfc: "9112 2.2", status: 400, edits: []edit{head("localhost\r\n", "localhost\r\r\n")}},
			{what: "a space before the first header", rfc: "9112 2.2", status: 400, edits: []edit{first(" X: y")}},
			{what: "a line of a space before the first header", rfc: "9112 2.2", status: 400, edits: []edit{first(" ")}},
			{what: "a folded line", rfc: "9112 5.2", status: 400, edits: []edit{add("X: a", " b")}},
			{what: "a line that is folded with a tab", rfc: "9112 5.2", status: 400, edits: []edit{add("X: a", "\tb")}},
			{what: "a Host that is folded", rfc: "9112 5.2", status: 400, edits: []edit{head("Host: localhost", "Host:\r\n localhost")}},
			{what: "a header of 9,000 bytes", rfc: "6585 5", status: 431, edits: []edit{add("X: " + stars(9000))}},
			{what: "a header's name of 9,000 bytes", rfc: "6585 5", status: 431, edits: []edit{add(strings.Repeat("X", 9000) + ": y")}},
			{what: "a thousand headers", rfc: "6585 5", status: 431, edits: []edit{add(slices.Repeat([]string{"X: 12345"}, 1000)...)}},
			{what: "a head of 8 KiB", rfc: "6585 5", status: 101, edits: []edit{add("X: " + stars(room-5))}},
			{what: "a head of 8 KiB and a byte", rfc: "6585 5", status: 431, edits: []edit{add("X: " + stars(room-4))}},
			{what: "200 headers", rfc: "9112 5", status: 101, edits: []edit{add(slices.Repeat([]string{"X-A: 1234"}, 200)...)}},
			{what: "names in upper and lower case", rfc: "9110 5.1", status: 101, edits: []edit{head("Host:", "hOST:"), head("Upgrade:", "UPGRADE:"), head("Sec-WebSocket-Key", "sec-websocket-KEY")}},
			{what: "no space behind the colon", rfc: "9112 5", status: 101, edits: []edit{head("Host: ", "Host:"), head("Upgrade: ", "Upgrade:")}},
			{what: "tabs and spaces around a value", rfc: "9112 5", status: 101, edits: []edit{set("Upgrade", "\t \twebsocket \t")}},
			{what: "a request that breaks off in its line", rfc: "9112 3", hangs: true, edits: []edit{func(r *request) { *r = request{before: "GET /ch"} }}},
			{what: "a request that breaks off in a header", rfc: "9112 8", hangs: true, edits: []edit{func(r *request) { r.end, r.fields = "", []string{"Host: loc"} }}},
			{what: "a request that breaks off before the empty line", rfc: "9112 8", hangs: true, edits: []edit{func(r *request) { r.end = "" }}},
		},
		each("the line %q", "9112 5.1", 400, addLine, "X : y", "X\t: y", "Host : localhost", "Upgrade : websocket", ": y", ":", "X", "no colon", " : y"),
		each("a name that is no token: %q", "9110 5.6.2", 400, addLine, "X(Y): z", "X@Y: z", "X,Y: z", "X/Y: z", "X[Y]: z", `"X": y`, "X Y: z", "X{Y}: z", "\u00e4: y", "X\x00Y: z", "X\\Y: z", "X=Y: z", "X?Y: z", "<X>: y", "X;Y: z"),
		each("a character that may not be in a value: %q", "9110 5.5", 400, addLine, "X: a\x00b", "X: a\x01b", "X: a\x08b", "X: a\x0bb", "X: a\x0cb", "X: a\x1bb", "X: a\x1fb", "X: a\x7fb", "X: a\rb"),
		each("the line %q", "9110 5.5", 101, addLine, "X:", "X: ", "X: a b", "X: a\tb", "X: \u00e4", "X: \xff\x80", "X: (){}[]<>@,;:\\\"/?=", "!#$%&'*+-.^_`|~: y", "X: y:z", "Sec-WebSocket-Accept: x"),
	)},
	{"H3 Host", rows(
		[]abuse{
			{what: "no Host", rfc: "9112 3.2", status: 400, edits: []edit{drop("Host")}},
			{what: "two equal Hosts", rfc: "9112 3.2", status: 400, edits: []edit{add("Host: localhost")}},
			{what: "two different Hosts", rfc: "9112 3.2", status: 400, edits: []edit{add("host: example.com")}},
			{what: "two Hosts, of which one is empty", rfc: "9112 3.2", status: 400, edits: []edit{add("Host:")}},
			{what: "no Host, and a target that has one", rfc: "9112 3.2", status: 400, edits: []edit{drop("Host"), target("http://localhost/chat")}},
		},
		each("Host: %q", "9110 7.2", 400, setHost, "", " ", "\t", "local host", "user@localhost", "user:password@localhost", "localhost/", "localhost/chat", "localhost?x", "localhost#x", "http://localhost", "localhost:port", "localhost:80:80", "localhost:-1", "localhost:8o", ":80", "::1", "[::1", "::1]", "[::1]x", "[::1]:x", "[]", "[localhost]", "[::g]", "[1.2.3.4]", "local<host>", `"localhost"`, "local\\host", "local^host", "local`host", "{localhost}", "local|host", "local%host", "local%zzhost", "local%4", "h\u00f6st", "\xff"),
		each("Host: %q", "9110 7.2", 101, setHost, "localhost", " localhost", "\tlocalhost\t", "LOCALHOST", "localhost:8080", "localhost:", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8080", "[2001:db8::1.2.3.4]", "a.b-c_d~e", "localhost.", "%6cocalhost", "xn--hst-sna.example", "a!$&'()*+,;=b"),
	)},
	{"H4 Content", rows(
		each("%q", "9112 6", 400, addLine, "Content-Length: 5", "Content-Length: 18446744073709551616", "Content-Length: -1", "Content-Length: +0", "Content-Length: 00", "Content-Length: 0, 0", "Content-Length: 0x0", "Content-Length: a", "Content-Length:", "content-length: 1", "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding:", "TRANSFER-ENCODING: chunked"),
		each("%q", "9112 6", 101, addLine, "Content-Length: 0", "content-length:0 ", "Expect: 100-continue", "Content-Type: text/plain"),
		[]abuse{
			{what: "content of 5 bytes", rfc: "9112 6", status: 400, edits: []edit{add("Content-Length: 5"), behind("hello")}},
			{what: "content in chunks", rfc: "9112 7.1", status: 400, edits: []edit{add("Transfer-Encoding: chunked"), behind("5\r\nhello\r\n0\r\n\r\n")}},
			{what: "a length and chunks", rfc: "9112 6.3", status: 400, edits: []edit{add("Content-Length: 0", "Transfer-Encoding: chunked"), behind("0\r\n\r\n")}},
			{what: "lengths of 0 and 5", rfc: "9112 6.3", status: 400, edits: []edit{add("Content-Length: 0", "Content-Length: 5"), behind("hello")}},
			{what: "a refused request with a megabyte of content", rfc: "9112 9.6", status: 400, edits: []edit{add("Content-Length: 1048576"), behind(stars(1 << 20))}},
			{what: "POST with content", rfc: "9112 6", status: 400, edits: []edit{method("POST"), add("Content-Length: 5"), behind("hello")}},
			{what: "another request behind a refused one", rfc: "9112 9.6", status: 426, edits: []edit{drop("Upgrade"), behind(string(good().encode()))}},
			{what: "another request behind an accepted one", rfc: "6455 5.2", status: 101, code: 1002, edits: []edit{behind(string(good().encode()))}},
			{what: "lines behind the head of an accepted request", rfc: "6455 5.2", status: 101, code: 1002, edits: []edit{behind("\r\nhello")}},
		},
	)},
	{"H5 Upgrade and Connection", rows(
		[]abuse{
			{what: "no Upgrade", rfc: "9110 15.5.22", status: 426, edits: []edit{drop("Upgrade")}},
			{what: "no Connection", rfc: "6455 4.2.1", status: 400, edits: []edit{drop("Connection")}},
			{what: "neither of them", rfc: "9110 15.5.22", status: 426, edits: []edit{drop("Upgrade"), drop("Connection")}},
			{what: "two Upgrade lines", rfc: "9110 5.3", status: 101, edits: []edit{add("Upgrade: h2c")}},
			{what: "two Connection lines", rfc: "9110 5.3", status: 101, edits: []edit{add("Connection: keep-alive")}},
			{what: "two Connection lines, the token in the second", rfc: "9110 5.3", status: 101, edits: []edit{set("Connection", "keep-alive"), add("Connection: Upgrade")}},
			{what: "two Connection lines, and a tab", rfc: "9110 5.6.1", status: 101, edits: []edit{set("Connection", "keep-alive"), add("Connection: x,\tUpgrade")}},
			{what: "two Connection lines without the token", rfc: "6455 4.2.1", status: 400, edits: []edit{set("Connection", "keep-alive"), add("Connection: close")}},
			{what: "an upgrade to HTTP/2", rfc: "9110 7.8", status: 400, edits: []edit{set("Upgrade", "h2c"), set("Connection", "Upgrade, HTTP2-Settings"), add("HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")}},
		},
		each("Upgrade: %q", "6455 4.2.1", 400, setUpgrade, "", "h2c", "websocket2", "web socket", "websockets", "websocket/13", `"websocket"`, "websocket;q=1", "h2c websocket", "TLS/1.0", "web-socket", "\u212aebsocket"),
		each("Upgrade: %q", "9110 7.8", 101, setUpgrade, "websocket", "WebSocket", "WEBSOCKET", "h2c, websocket", "websocket, h2c", "h2c,websocket", "h2c,\twebsocket", ",websocket,", " , websocket", "websocket, websocket"),
		each("Connection: %q", "6455 4.2.1", 400, setConnection, "", "close", "keep-alive", "Upgrade;q=1", "UpgradeX", "keep-alive Upgrade", `"Upgrade"`, "Upgrade/1", "up grade", "keep-alive;Upgrade", "keep-alive, close"),
		each("Connection: %q", "9110 7.6.1", 101, setConnection, "Upgrade", "upgrade", "UPGRADE", "keep-alive, Upgrade", "Upgrade, keep-alive", "keep-alive,Upgrade", "keep-alive,\tUpgrade", "\tUpgrade\t", "keep-alive\t,\tUpgrade", ",Upgrade,", " , Upgrade , ", "close, Upgrade", "Upgrade, Upgrade", "x, y, z, Upgrade"),
	)},
	{"H6 Sec-WebSocket-Key and -Version", rows(
		[]abuse{
			{what: "no key", rfc: "6455 4.2.1", status: 400, edits: []edit{drop("Sec-WebSocket-Key")}},
			{what: "the key twice", rfc: "6455 11.3.1", status: 400, edits: []edit{add("Sec-WebSocket-Key: " + key)}},
			{what: "two keys", rfc: "6455 11.3.1", status: 400, edits: []edit{add("Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==")}},
			{what: "no version", rfc: "6455 4.2.1", status: 400, edits: []edit{drop("Sec-WebSocket-Version")}},
			{what: "the version twice", rfc: "6455 11.3.5", status: 400, edits: []edit{add("Sec-WebSocket-Version: 13")}},
			{what: "two versions", rfc: "6455 11.3.5", status: 400, edits: []edit{add("Sec-WebSocket-Version: 8")}},
		},
		each("Sec-WebSocket-Key: %q", "6455 4.2.1", 400, setKey, "", "a", "dGhlIHNhbXBsZSBub25j", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ===", "dGhlIHNhbXBsZSBub25jZWE=", "dGhlIHNhbXBsZSBub25jZQ==, x", "dGhlIHNhbXBs ZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR==", "!!!!!!!!!!!!!!!!!!!!!!==", "====================aa==", "AQIDBAUGBwgJ-_sMDQ4PEA==", `"dGhlIHNhbXBsZSBub25jZQ=="`, "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==", stars(24), stars(1000)),
		each("Sec-WebSocket-Key: %q", "6455 4.2.1", 101, setKey, key, " \t"+key+" \t"),
		each("Sec-WebSocket-Version: %q", "6455 4.4", 426, setVersion, "0", "8", "12", "14", "255", "256", "013", "+13", "13.0", "thirteen", "13, 8", "8, 13", "-1", "", "1 3", "13;", "99999999999999999999"),
		each("Sec-WebSocket-Version: %q", "6455 4.2.1", 101, setVersion, "13", "\t13 "),
	)},
	{"H7 Subprotocols, extensions, origins", rows(
		each("Sec-WebSocket-Protocol: %q", "6455 4.2.2", 101, setProtocol, "chat", "chat, superchat", "chat,superchat", "chat, chat"),
		each("Sec-WebSocket-Extensions: %q", "6455 9.1", 400, setExtensions, ";", "a;", "a;;b", "a b", "a; =1", "a; b=", "a; b=c d", `a; b="`, `a; b="c`, `a; b="c d"`, `a; b=""`, "a@b", "a; b@c", "a, b;", "a=b", `"a"`, "a; b=c=d", "permessage-deflate; server_max_window_bits=", "permessage-deflate server_no_context_takeover"),
		each("Sec-WebSocket-Extensions: %q", "6455 9.1", 101, setExtensions, "foo", "foo; bar", "foo; bar=2", `foo; bar="baz"`, "foo, bar; baz=2", "foo;bar", "foo ; bar ; baz", "\tfoo", ",foo,", `foo; bar="b\az"`),
		each("Origin: %q", "6455 10.2", 403, setOrigin, "http://evil.example", "https://localhost.evil.example", "null", "http://localhost:81", "http://notlocalhost", "file://", "localhost", "chrome-extension://abc", "http://localhost@evil.example"),
		[]abuse{
			{what: "the server's own origin", rfc: "6455 10.2", status: 101, edits: []edit{set("Origin", "http://localhost")}},
			{what: "extensions on two lines", rfc: "6455 9.1", status: 101, edits: []edit{add("Sec-WebSocket-Extensions: foo", "Sec-WebSocket-Extensions: bar")}},
			{what: "extensions on two lines, the second malformed", rfc: "6455 9.1", status: 400, edits: []edit{add("Sec-WebSocket-Extensions: foo", "Sec-WebSocket-Extensions: ;")}},
			{what: "permessage-deflate on the second line", rfc: "7692 5.1", status: 101, only: true, agreed: terms, edits: []edit{add("Sec-WebSocket-Extensions: foo", "Sec-WebSocket-Extensions: permessage-deflate")}},
			{what: "HEAD without anything that opens a WebSocket", rfc: "9110 9.3.2", status: 426, edits: []edit{func(r *request) {
				*r = request{line: "HEAD / HTTP/1.1", fields: []string{"Host: localhost"}, end: "\r\n"}
			}}},
			{what: "HEAD without Host", rfc: "9110 9.3.2", status: 400, edits: []edit{method("HEAD"), drop("Host")}},
			{what: "HEAD with content", rfc: "9110 9.3.2", status: 400, edits: []edit{method("HEAD"), add("Content-Length: 5"), behind("hello")}},
		},
	)},
}

func init() {
	for i, c := range chapters {
		for j := range c.abuses {
			c.abuses[j].id = fmt.Sprintf("H%d.%d", i+1, j+1)
		}
	}
}

// ping of a connection that an accepted request has opened.
var proof = text("hello").encode(nil)

// stream is what the client sends: behind a request that is accepted, a message and
// a Close frame.
func (a *abuse) stream() *stream {
	r := good()
	for _, e := range a.edits {
		e(&r)
	}
	data := r.encode()
	if a.status == http.StatusSwitchingProtocols && a.code == 0 {
		data = closing(1000, "").encode(append(data, proof...))
	}
	return &stream{data: data, ends: []int{len(data)}}
}

func TestOpenings(t *testing.T) {
	for _, chapter := range chapters {
		for i := range chapter.abuses {
			a := &chapter.abuses[i]
			if race && i%raceShare != 0 {
				continue
			}
			t.Run(a.id, func(t *testing.T) {
				t.Parallel()
				stream := a.stream()
				everywhere(t, func(s *server, d *delivery) error {
					if a.only && !s.compress || d == single {
						return nil
					}
					return a.try(s, d, stream)
				})
			})
		}
	}
}

// try sends the request to a server and checks what comes back.
func (a *abuse) try(s *server, d *delivery, stream *stream) error {
	c, err := s.dial()
	if err != nil {
		return err
	}
	defer c.socket.Close()
	sent := make(chan error, 1)
	go func() {
		if d.early {
			sent <- c.sendAll(nil, d.pieces(stream))
		} else {
			sent <- c.sendPieces(d.pieces(stream), a.hangs)
		}
	}()
	switch {
	case a.hangs:
		err = c.over()
	case a.status == http.StatusSwitchingProtocols:
		err = c.opened(a)
	default:
		method, _, _ := strings.Cut(strings.TrimLeft(string(stream.data), "\r\n"), " ")
		err = c.refused(a.status, method)
	}
	if err != nil {
		return err
	}
	return <-sent
}

// over is nil if the server has ended its side.
func (c *client) over() error {
	if b, err := c.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("%q, %v in place of the end", b, err)
	}
	return nil
}

// opened checks that a connection is open, and closes.
func (c *client) opened(a *abuse) error {
	c.deflate = a.agreed != ""
	if err := c.accepted(a.agreed); err != nil {
		return err
	}
	want := answers{messages: []message{{opText, "hello"}}, closed: true, code: 1000}
	if a.code != 0 {
		want = answers{closed: true, code: a.code}
	}
	var got answers
	for {
		m, err := c.next()
		if err == io.EOF {
			return got.differ(want)
		}
		if err != nil {
			return err
		}
		if err := got.take(m); err != nil {
			return err
		}
	}
}

// refused checks that a response is whole, says that the connection ends, and has
// what its status needs, and that the connection ends.
func (c *client) refused(status int, method string) error {
	r, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return fmt.Errorf("read the response: %w", err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("read the response's content: %w", err)
	}
	if r.StatusCode != status {
		return fmt.Errorf("%s: %s", r.Status, strings.TrimSpace(string(body)))
	}
	needs := map[string]string{}
	switch status {
	case http.StatusMethodNotAllowed:
		needs["Allow"] = "GET"
	case http.StatusUpgradeRequired:
		needs["Upgrade"], needs["Sec-WebSocket-Version"] = "websocket", "13"
	}
	for name, value := range needs {
		if r.Header.Get(name) != value {
			return fmt.Errorf("%s: %q, want %q", name, r.Header.Get(name), value)
		}
	}
	switch {
	case !r.Close:
		return errors.New("the response does not say that the connection ends")
	case r.ContentLength <= 0 || method == http.MethodHead && len(body) > 0:
		return fmt.Errorf("content of %d bytes, %q", r.ContentLength, body)
	}
	return c.over()
}
