package frame_test

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
)

// good is the request of the example in section 1.3, without what is optional.
const good = "GET /chat HTTP/1.1\r\n" +
	"Host: server.example.com\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"\r\n"

// sampleAccept answers that example's key.
const sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

// swap replaces a part of the good request.
func swap(old, new string) string {
	if !strings.Contains(good, old) {
		panic(old + " is not in the good request")
	}
	return strings.Replace(good, old, new, 1)
}

// with puts header lines in front of the good request's own.
func with(lines ...string) string {
	return swap("Host:", strings.Join(lines, "\r\n")+"\r\nHost:")
}

// response parses a whole response with the standard library and checks that
// nothing stands behind it.
func response(t *testing.T, wire []byte) (r *http.Response, body string) {
	t.Helper()
	br := bufio.NewReader(bytes.NewReader(wire))
	r, err := http.ReadResponse(br, &http.Request{Method: "GET"})
	if err != nil {
		t.Fatalf("%v in %q", err, wire)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%v in the body of %q", err, wire)
	}
	if _, err := br.ReadByte(); err != io.EOF {
		t.Fatalf("something stands behind the response in %q", wire)
	}
	return r, string(b)
}

// refusal checks that a response refuses the handshake as HTTP wants it.
func refusal(t *testing.T, wire []byte, status int) (r *http.Response, body string) {
	t.Helper()
	r, body = response(t, wire)
	if r.StatusCode != status {
		t.Errorf("status %s, want %d", r.Status, status)
	}
	if !r.Close || r.ContentLength != int64(len(body)) || len(body) == 0 {
		t.Errorf("close %v, Content-Length %d, body %q", r.Close, r.ContentLength, body)
	}
	return r, body
}

// accepted checks that a response completes the handshake.
func accepted(t *testing.T, wire []byte, accept string) *http.Response {
	t.Helper()
	r, _ := response(t, wire)
	want := map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Accept": accept}
	for name, value := range want {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if r.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("status %s", r.Status)
	}
	return r
}

func TestUpgradeFollowsTheRFC(t *testing.T) {
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	rows := []struct {
		name, head string
		status     int
	}{
		{"4.2.1 minimal", good, 101},
		{"4.2.1 names in any case", strings.NewReplacer("Host", "hOST", "Sec-WebSocket-", "SEC-WEBSOCKET-", "Connection:", "connection:").Replace(good), 101},
		{"4.2.1 other headers", with("User-Agent: test", "Origin: http://example.com", "Cookie: a=b; c=d", "Cookie: e", "X-Empty:"), 101},
		{"4.2.1 extensions are not agreed to", with("Sec-WebSocket-Extensions: permessage-deflate"), 101},
		{"4.2.1 protocols are not agreed to", with("Sec-WebSocket-Protocol: chat"), 101},
		{"9112 5 no space or many around a value", swap("Upgrade: websocket", "Upgrade:\t websocket \t"), 101},

		{"4.2.1 item 1: POST", swap("GET", "POST"), 405},
		{"4.2.1 item 1: get", swap("GET", "get"), 405},
		{"4.2.1 item 1: HTTP/1.0", swap("HTTP/1.1", "HTTP/1.0"), 505},
		{"4.2.1 item 1: HTTP/1.2", swap("HTTP/1.1", "HTTP/1.2"), 101},
		{"4.2.1 item 1: HTTP/2.0", swap("HTTP/1.1", "HTTP/2.0"), 505},
		{"4.2.1 item 1: HTTP/0.9", swap("HTTP/1.1", "HTTP/0.9"), 505},
		{"9113 3.4 preface", swap("GET /chat HTTP/1.1", "PRI * HTTP/2.0"), 505},
		{"9112 3.2.4 another method with its own target", swap("GET /chat", "OPTIONS *"), 405},
		{"9110 9.1 a method that is no token", swap("GET", "G@T"), 400},
		{"9112 3.2 fragment", swap("/chat", "/chat#top"), 400},
		{"9110 4.2.1 absolute URI without host", swap("/chat", "http:///chat"), 400},
		{"9110 4.2.4 absolute URI with userinfo", swap("/chat", "http://me@server.example.com/chat"), 400},
		{"4.2.1 item 1: absolute URI", swap("/chat", "https://server.example.com/chat"), 101},
		{"4.2.1 item 1: another scheme", swap("/chat", "ftp://server.example.com/chat"), 400},
		{"4.2.1 item 1: neither path nor URI", swap("/chat", "chat"), 400},
		{"9112 3 lower case version", swap("HTTP/1.1", "http/1.1"), 400},
		{"9112 3 another protocol", swap("HTTP/1.1", "HTTPS/1.1"), 400},
		{"9112 3 no version", swap(" HTTP/1.1", ""), 400},
		{"9112 3 no target and no second space", swap(" /chat", ""), 400},
		{"9112 3 two spaces before the target", swap("GET ", "GET  "), 400},
		{"9112 3 two spaces before the version", swap(" HTTP", "  HTTP"), 400},
		{"9112 3 empty target", swap("/chat ", " "), 400},
		{"9112 3 empty method", swap("GET", ""), 400},
		{"9112 2.3 version with a colon", swap("HTTP/1.1", "HTTP/1.:"), 400},
		{"9112 2.3 version with more digits", swap("HTTP/1.1", "HTTP/1.01"), 400},
		{"9112 2.3 version beyond 64 bits", swap("HTTP/1.1", "HTTP/18446744073709551617.1"), 400},
		{"4.2.1 item 3: Upgrade that folds only in Unicode", swap("websocket", "web\u017foc\u212aet"), 400},
		{"9112 3 a space in the target", swap("/chat", "/chat room"), 400},
		{"9112 3 a space at the end", swap("HTTP/1.1", "HTTP/1.1 "), 400},
		{"9112 3 a tab for a space", swap("GET ", "GET\t"), 400},
		{"9112 3 a tab in the target", swap("/chat", "/ch\tat"), 400},
		{"9112 3 NUL in the target", swap("/chat", "/ch\x00at"), 400},
		{"9112 3 DEL in the target", swap("/chat", "/ch\x7fat"), 400},
		{"9112 3 garbage", swap("GET /chat HTTP/1.1", "\x16\x03\x01\x02\x00"), 400},
		{"9112 2.2 an empty line before the request line", "\r\n" + good, 101},
		{"9112 2.2 a few empty lines before the request line", "\r\n\r\n\r\n" + good, 101},
		{"9112 2.2 half an empty line before the request line", "\r" + good, 400},
		{"9112 2.2 a space before the request line", " " + good, 400},
		{"9112 3 empty head", "\r\n\r\n", 400},

		{"4.2.1 item 2: no Host", swap("Host: server.example.com\r\n", ""), 400},
		{"4.2.1 item 2: two Hosts", with("Host: server.example.com"), 400},
		{"9110 4.2.1 empty Host", swap("server.example.com", ""), 400},
		{"9110 7.2 Host with a space", swap("server.example.com", "server example"), 400},
		{"9110 7.2 Host with userinfo", swap("server.example.com", "me@server.example.com"), 400},
		{"9110 7.2 Host with a path", swap("server.example.com", "server.example.com/"), 400},
		{"9110 7.2 Host with a port", swap("server.example.com", "server.example.com:8080"), 101},
		{"9110 7.2 Host with another port", swap("server.example.com", "server.example.com:http"), 400},
		{"3986 3.2.2 Host of IPv6", swap("server.example.com", "[2001:db8::1]:80"), 101},
		{"3986 3.2.2 Host of IPv6 without brackets", swap("server.example.com", "2001:db8::1"), 400},
		{"3986 3.2.2 Host of IPv6, not closed", swap("server.example.com", "[2001:db8::1"), 400},
		{"3986 3.2.2 Host with an escape", swap("server.example.com", "%73erver"), 101},
		{"3986 3.2.2 Host with a broken escape", swap("server.example.com", "server%7"), 400},
		{"9110 5.6.1 Connection with a tab", swap("Connection: Upgrade", "Connection: keep-alive,\tUpgrade"), 101},
		{"9110 7.6.1 Connection without commas", swap("Connection: Upgrade", "Connection: keep-alive Upgrade"), 400},
		{"9.1 a malformed extension", with("Sec-WebSocket-Extensions: ;"), 400},
		{"4.2.1 item 3: Upgrade in any case", swap("websocket", "WebSocket"), 101},
		{"4.2.1 item 3: no Upgrade", swap("Upgrade: websocket\r\n", ""), 426},
		{"4.2.1 item 3: another Upgrade", swap("websocket", "h2c"), 400},
		{"4.2.1 item 3: empty Upgrade", swap("websocket", ""), 400},
		{"9110 7.8 a list of protocols", swap("websocket", "foo/1, websocket"), 101},
		{"9110 7.8 a list in any case, without spaces", swap("websocket", "h2c,WebSocket,"), 101},
		{"9110 7.8 a list with tabs", swap("websocket", "h2c\t,\twebsocket\t, foo/1"), 101},
		{"9110 7.8 a list in two lines", with("upgrade: h2c, foo/1"), 101},
		{"9110 7.8 a list in two lines, the other way round", swap("websocket", "websocket\r\nUpgrade: h2c"), 101},
		{"9110 7.8 two Upgrade lines that say the same", with("Upgrade: websocket"), 101},
		{"9110 7.8 an empty Upgrade line and another", with("Upgrade:"), 101},
		{"9110 7.8 lists in Upgrade and in Connection", with("Upgrade: h2c", "Connection: HTTP2-Settings"), 101},
		{"9110 7.8 a list without it", swap("websocket", "h2c, foo/1"), 400},
		{"9110 7.8 a list in two lines without it", swap("websocket", "h2c\r\nUpgrade: foo/1"), 400},
		{"9110 7.8 a list and no Connection", strings.Replace(with("Upgrade: h2c"), "Connection: Upgrade\r\n", "", 1), 400},
		{"9110 7.8 no Upgrade and two Connections", strings.Replace(with("Connection: keep-alive"), "Upgrade: websocket\r\n", "", 1), 426},
		{"9110 7.8 a version", swap("websocket", "websocket/1"), 400},
		{"9110 7.8 a version in a list", swap("websocket", "foo, websocket/13"), 400},
		{"9110 7.8 part of a token", swap("websocket", "websockets, xwebsocket"), 400},
		{"9110 7.8 another separator", swap("websocket", "h2c websocket; foo"), 400},
		{"9110 7.8 a token of a list that folds only in Unicode", swap("websocket", "h2c, web\u017focket"), 400},
		{"4.2.1 item 4: Connection in any case", swap("Connection: Upgrade", "Connection: uPGRADE"), 101},
		{"4.2.1 item 4: a list", swap("Connection: Upgrade", "Connection: keep-alive, Upgrade"), 101},
		{"4.2.1 item 4: a list without spaces", swap("Connection: Upgrade", "Connection: keep-alive,upgrade,x"), 101},
		{"9110 5.3 the list in two lines", with("Connection: keep-alive"), 101},
		{"9110 5.3 the list in three lines", with("Connection: keep-alive", "connection: x"), 101},
		{"9110 5.3 the list in two lines, the other way round", swap("Connection: Upgrade", "Connection: Upgrade\r\nConnection: keep-alive"), 101},
		{"4.2.1 item 4: two lines without it", swap("Connection: Upgrade", "Connection: keep-alive\r\nConnection: close"), 400},
		{"4.2.1 item 4: no Connection", swap("Connection: Upgrade\r\n", ""), 400},
		{"4.2.1 item 4: keep-alive", swap("Connection: Upgrade", "Connection: keep-alive"), 400},
		{"4.2.1 item 4: part of a token", swap("Connection: Upgrade", "Connection: Upgrades"), 400},
		{"4.2.1 item 4: a quoted string", swap("Connection: Upgrade", `Connection: "Upgrade"`), 400},

		{"4.2.1 item 5: no key", swap("Sec-WebSocket-Key: "+key+"\r\n", ""), 400},
		{"11.3.1 two keys", with("Sec-WebSocket-Key: " + key), 400},
		{"4.2.1 item 5: empty key", swap(key, ""), 400},
		{"4.2.1 item 5: 15 bytes", swap(key, "dGhlIHNhbXBsZSBub25j"), 400},
		{"4.2.1 item 5: 17 bytes", swap(key, "dGhlIHNhbXBsZSBub25jZSE="), 400},
		{"4.2.1 item 5: 18 bytes", swap(key, "dGhlIHNhbXBsZSBub25jZSEh"), 400},
		{"4.2.1 item 5: no padding", swap(key, "dGhlIHNhbXBsZSBub25jZQ"), 400},
		{"4.2.1 item 5: padding inside", swap(key, "dGhlIHNhbXBsZSBub25j==ZQ"), 400},
		{"4.2.1 item 5: not base64", swap(key, "dGhlIHNhbXBsZSBub25j*Q=="), 400},
		{"4648 5 the alphabet for URLs", swap(key, "dGhlIHNhbXBsZSBub25-_w=="), 400},
		{"4648 3.5 bits behind the last byte", swap(key, "dGhlIHNhbXBsZSBub25jZR=="), 400},

		{"4.2.1 item 6: no version", swap("Sec-WebSocket-Version: 13\r\n", ""), 400},
		{"11.3.5 two versions", with("Sec-WebSocket-Version: 13"), 400},
		{"4.2.2 version 12", swap("13", "12"), 426},
		{"4.2.2 version 8", swap("13", "8"), 426},
		{"4.2.2 version 013", swap("13", "013"), 426},
		{"4.2.2 empty version", swap(": 13", ":"), 426},

		{"9112 6 empty body", with("Content-Length: 0"), 101},
		{"9112 6 body", with("Content-Length: 5"), 400},
		{"9112 6 two lengths", with("Content-Length: 0", "content-length: 5"), 400},
		{"9112 6 negative length", with("Content-Length: -1"), 400},
		{"9112 6 chunks", with("Transfer-Encoding: chunked"), 400},
		{"9112 6 identity", with("Transfer-Encoding: identity"), 400},
		{"9112 6 POST with a body", strings.Replace(with("Content-Length: 5"), "GET", "POST", 1), 400},

		{"9112 5.2 folded line", with("X-Folded: a", " b"), 400},
		{"9112 5.2 folded line, tab", with("X-Folded: a", "\tb"), 400},
		{"9112 2.2 space before the first header", with(" X: a"), 400},
		{"9112 5.1 space before the colon", swap("Host:", "Host :"), 400},
		{"9112 5 empty name", with(": a"), 400},
		{"9112 5 no colon", with("X-Broken"), 400},
		{"9112 5 name is no token", with("X(Y): a"), 400},
		{"9112 5 name is not ASCII", with("X-Größe: a"), 400},
		{"9110 5.5 NUL in a value", with("X: a\x00b"), 400},
		{"9110 5.5 bell in a value", with("X: a\x07b"), 400},
		{"9110 5.5 DEL in a value", with("X: a\x7fb"), 400},
		{"9110 5.5 tab in a value", with("X: a\tb"), 101},
		{"9110 5.5 a value that is not ASCII", with("X: größe \xff"), 101},
		{"9112 2.2 bare carriage return", with("X: a\rb"), 400},
		{"9112 2.2 bare line feed", with("X: a\nHost: b"), 400},
		{"9112 2.2 bare line feed after the request line", swap("HTTP/1.1\r\n", "HTTP/1.1\n"), 400},
	}
	u := frame.NewUpgrader(nil) // one for all, so that nothing may stick to it
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			head := []byte(r.head)
			wire, err := u.Upgrade(head)
			if string(head) != r.head {
				t.Error("the head was changed")
			}
			if r.status == http.StatusSwitchingProtocols {
				if err != nil {
					t.Fatal(err)
				}
				accepted(t, wire, sampleAccept)
				return
			}
			refusal(t, wire, r.status)
			if reject, ok := errors.AsType[*frame.Reject](err); !ok || reject.Status != r.status {
				t.Errorf("error %v, want a *frame.Reject with status %d", err, r.status)
			}
		})
	}
}

// RFC 9110 section 9.3.2: the answer to HEAD has no content.
func TestHEADIsRefusedWithoutContent(t *testing.T) {
	for status, head := range map[int]string{405: swap("GET", "HEAD"), 400: swap("GET /chat HTTP/1.1\r\nHost", "HEAD /chat HTTP/1.1\r\nHosts")} {
		wire, err := frame.NewUpgrader(nil).Upgrade([]byte(head))
		_, content, _ := strings.Cut(string(wire), "\r\n\r\n")
		reject, ok := errors.AsType[*frame.Reject](err)
		if !ok || reject.Status != status || content != "" || !frame.IsHEAD([]byte("\r\n"+head)) {
			t.Errorf("%q, %v, want status %d and no content", wire, err, status)
		}
	}
}

func TestRefusalsNameWhatWouldDo(t *testing.T) {
	rows := []struct{ name, head, header, value string }{
		{"9110 15.5.6 the method", swap("GET", "PUT"), "Allow", "GET"},
		{"4.2.2 the version", swap("13", "12"), "Sec-WebSocket-Version", "13"},
		{"9110 15.5.22 the protocol", swap("13", "12"), "Upgrade", "websocket"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			wire, _ := frame.NewUpgrader(nil).Upgrade([]byte(r.head))
			if resp, _ := response(t, wire); resp.Header.Get(r.header) != r.value {
				t.Errorf("%s: %q, want %q", r.header, resp.Header.Values(r.header), r.value)
			}
		})
	}
}

// ask upgrades with a callback that must have been asked.
func ask(t *testing.T, head string, accept func(*frame.Request) error) (wire []byte, err error) {
	t.Helper()
	asked := 0
	u := frame.NewUpgrader(func(r *frame.Request) error {
		asked++
		return accept(r)
	})
	wire, err = u.Upgrade([]byte(head))
	if asked != 1 {
		t.Fatalf("accept was asked %d times", asked)
	}
	return wire, err
}

func TestMalformedRequestsAreNotAsked(t *testing.T) {
	u := frame.NewUpgrader(func(*frame.Request) error {
		t.Error("accept was asked")
		return nil
	})
	for _, head := range []string{swap("13", "12"), swap("GET", "PUT"), with("Host: b"), swap("websocket", "h2c"), "\r\n\r\n"} {
		if _, err := u.Upgrade([]byte(head)); err == nil {
			t.Errorf("%q was accepted", head)
		}
	}
}

func TestRequestTellsWhatWasSent(t *testing.T) {
	head := strings.Replace(with("X-Two: first ", "x-two:second", "Sec-WebSocket-Protocol: chat.v2 ,chat.v1,,", "sec-websocket-protocol: echo"), "/chat", "/ch%20at?room=1?&x=/", 1)
	_, err := ask(t, head, func(r *frame.Request) error {
		if r.Target() != "/ch%20at?room=1?&x=/" || r.Path() != "/ch%20at" {
			t.Errorf("target %q, path %q", r.Target(), r.Path())
		}
		for name, want := range map[string]string{"X-Two": "first", "x-tWO": "first", "host": "server.example.com", "X-Missing": "", "": ""} {
			if got := r.Header(name); got != want {
				t.Errorf("header %q: %q, want %q", name, got, want)
			}
		}
		if got, want := r.Protocols(), []string{"chat.v2", "chat.v1", "echo"}; !slices.Equal(got, want) {
			t.Errorf("protocols %q, want %q", got, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRequestListsHeadersInOrder(t *testing.T) {
	var got []string
	_, err := ask(t, with("x-one:1", "X-Two:  2\t"), func(r *frame.Request) error {
		for name, value := range r.Headers() {
			if got = append(got, name+"="+value); name == "Upgrade" {
				break
			}
		}
		return nil
	})
	want := []string{"x-one=1", "X-Two=2", "Host=server.example.com", "Upgrade=websocket"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, error %v; want %q", got, err, want)
	}
}

// The library gets another head than the one that was sent; the callback does
// not.
func TestRequestTellsListsAsTheyWereSent(t *testing.T) {
	var got []string
	_, err := ask(t, "\r\n"+with("Upgrade: foo/1, WebSocket", "Connection: keep-alive"), func(r *frame.Request) error {
		for name, value := range r.Headers() {
			if name == "Upgrade" || name == "Connection" {
				got = append(got, name+"="+value)
			}
		}
		if r.Target() != "/chat" {
			t.Errorf("target %q", r.Target())
		}
		return nil
	})
	want := []string{"Upgrade=foo/1, WebSocket", "Connection=keep-alive", "Upgrade=websocket", "Connection=Upgrade"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, error %v; want %q", got, err, want)
	}
}

func TestRequestWithoutProtocols(t *testing.T) {
	_, err := ask(t, good, func(r *frame.Request) error {
		if p := r.Protocols(); len(p) != 0 {
			t.Errorf("protocols %q", p)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestProtocolIsChosenAmongTheOffered(t *testing.T) {
	rows := []struct {
		name, head, choice string
		status             int
	}{
		{"the first", with("Sec-WebSocket-Protocol: chat, echo"), "chat", 101},
		{"the second", with("Sec-WebSocket-Protocol: chat, echo"), "echo", 101},
		{"in another line", with("Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: echo"), "echo", 101},
		{"none of them", with("Sec-WebSocket-Protocol: chat"), "", 101},
		{"another", with("Sec-WebSocket-Protocol: chat"), "echo", 500},
		{"in another case", with("Sec-WebSocket-Protocol: chat"), "Chat", 500},
		{"though none is offered", good, "chat", 500},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			wire, err := ask(t, r.head, func(req *frame.Request) error {
				req.Protocol = r.choice
				return nil
			})
			if r.status != http.StatusSwitchingProtocols {
				refusal(t, wire, r.status)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			resp := accepted(t, wire, sampleAccept)
			if got := strings.Join(resp.Header.Values("Sec-WebSocket-Protocol"), "|"); got != r.choice {
				t.Errorf("chose %q, want %q", got, r.choice)
			}
		})
	}
}

func TestInternalErrorsStayInternal(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.7:5432: refused")
	wire, err := ask(t, good, func(*frame.Request) error { return cause })
	refusal(t, wire, http.StatusInternalServerError)
	if strings.Contains(string(wire), "10.0.0.7") {
		t.Errorf("the client is told %q", wire)
	}
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "10.0.0.7") {
		t.Errorf("the caller is told %v", err)
	}
}

func TestRejectsKeepTheirFraming(t *testing.T) {
	reject := &frame.Reject{Status: 403, Reason: "no", Header: http.Header{
		"Content-Length": {"0"}, "Connection": {"keep-alive"}, "Content-Type": {"text/html"},
		"Transfer-Encoding": {"chunked"}, "X-Kept": {"1"},
	}}
	resp, body := response(t, reject.Response(""))
	if body != "no\n" || resp.Header.Get("X-Kept") != "1" || len(resp.Header.Values("Content-Length")) != 1 {
		t.Errorf("body %q, header %v", body, resp.Header)
	}
}

func TestUpgraderForgetsTheLastRequest(t *testing.T) {
	u := frame.NewUpgrader(func(r *frame.Request) error {
		if r.Protocol != "" || r.ResponseHeader != nil {
			t.Errorf("a request begins with protocol %q, headers %v", r.Protocol, r.ResponseHeader)
		}
		r.ResponseHeader = http.Header{"X-Path": {r.Path()}}
		r.Protocol = r.Header("Sec-WebSocket-Protocol")
		return nil
	})
	for range 2 {
		for _, protocol := range []string{"chat", ""} {
			wire, err := u.Upgrade([]byte(with("Sec-WebSocket-Protocol: " + protocol)))
			if err != nil {
				t.Fatal(err)
			}
			if got := accepted(t, wire, sampleAccept).Header.Get("Sec-WebSocket-Protocol"); got != protocol {
				t.Errorf("protocol %q, want %q", got, protocol)
			}
			wire, _ = u.Upgrade([]byte(swap("13", "12")))
			refusal(t, wire, http.StatusUpgradeRequired)
		}
	}
}

func TestAcceptAddsHeaders(t *testing.T) {
	wire, err := ask(t, with("Sec-WebSocket-Protocol: chat"), func(r *frame.Request) error {
		r.Protocol = "chat"
		r.ResponseHeader = http.Header{"Set-Cookie": {"a=b", "c=d"}, "X-Long": {strings.Repeat("x", 10_000)}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h := accepted(t, wire, sampleAccept).Header
	if got := h.Values("Set-Cookie"); !slices.Equal(got, []string{"a=b", "c=d"}) {
		t.Errorf("Set-Cookie: %q", got)
	}
	if len(h.Get("X-Long")) != 10_000 || h.Get("Sec-WebSocket-Protocol") != "chat" {
		t.Errorf("headers %v", slices.Sorted(maps.Keys(h)))
	}
}

func TestSharedResponseHeaderStaysAsItWas(t *testing.T) {
	shared := http.Header{"Server": {"lull"}}
	wire, err := ask(t, with("Sec-WebSocket-Protocol: chat"), func(r *frame.Request) error {
		r.Protocol, r.ResponseHeader = "chat", shared
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if accepted(t, wire, sampleAccept).Header.Get("Sec-WebSocket-Protocol") != "chat" || len(shared) != 1 {
		t.Errorf("the caller's header became %v", shared)
	}
}

// hostile headers try to end their line, or the head.
var hostile = http.Header{
	"X-Value":              {"a\r\nX-Evil: 1", "b\nX-Evil: 2", "c\rX-Evil: 3", "d\r\n\r\nX-Evil: 4"},
	"X-Name\r\nX-Evil":     {"5"},
	"X-Colon: 6\r\nX-Evil": {"6"},
}

func TestHeadersCannotAddLines(t *testing.T) {
	wire, err := ask(t, good, func(r *frame.Request) error {
		r.ResponseHeader = hostile
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	resp := accepted(t, wire, sampleAccept)
	rejected, _ := refusal(t, (&frame.Reject{Status: 403, Reason: "no", Header: hostile}).Response(""), 403)
	for _, r := range []*http.Response{resp, rejected} {
		if evil := r.Header.Values("X-Evil"); len(evil) != 0 || len(r.Header.Values("X-Value")) != 4 {
			t.Errorf("headers %q", r.Header)
		}
	}
}

func TestAcceptRefuses(t *testing.T) {
	teapot := &frame.Reject{Status: 418, Reason: "short and stout", Header: http.Header{"Retry-After": {"5"}}}
	rows := []struct {
		name   string
		err    error
		status int
	}{
		{"a Reject", teapot, 418},
		{"a wrapped Reject", fmt.Errorf("accept: %w", teapot), 418},
		{"a redirection", &frame.Reject{Status: 307, Header: http.Header{"Location": {"/"}}}, 307},
		{"a status without a name", &frame.Reject{Status: 599}, 599},
		{"a status that accepts", &frame.Reject{Status: 101}, 500},
		{"a status that is success", &frame.Reject{Status: 200}, 500},
		{"no status", &frame.Reject{}, 500},
		{"a status beyond HTTP", &frame.Reject{Status: 600}, 500},
		{"a reason with line ends", &frame.Reject{Status: 403, Reason: "no\r\n\r\nHTTP/1.1 200 OK\r\n"}, 403},
		{"another error", errors.New("the database is down"), 500},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			wire, err := ask(t, good, func(*frame.Request) error { return r.err })
			resp, body := refusal(t, wire, r.status)
			reject, ok := errors.AsType[*frame.Reject](err)
			if !ok {
				t.Fatalf("error %T, want *frame.Reject", err)
			}
			if given, ok := errors.AsType[*frame.Reject](r.err); ok {
				if reject != given || body != given.Reason+"\n" {
					t.Errorf("error %v, body %q", err, body)
				}
				for name := range given.Header {
					if resp.Header.Get(name) != given.Header.Get(name) {
						t.Errorf("%s: %q", name, resp.Header.Values(name))
					}
				}
			}
		})
	}
}

func TestResponseHoldsUntilTheNextUpgrade(t *testing.T) {
	u := frame.NewUpgrader(nil)
	wire, _ := u.Upgrade([]byte(good))
	first := bytes.Clone(wire)
	other, _ := frame.NewUpgrader(nil).Upgrade([]byte(swap("13", "12")))
	if len(other) == 0 || !bytes.Equal(wire, first) {
		t.Errorf("another Upgrader changed the response to %q", wire)
	}
}

// acceptOf computes the answer to a key from the words of section 4.2.2.
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func FuzzUpgrade(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(swap("13", "12")))
	f.Add([]byte(with("X: a\nHost: b")))
	f.Add([]byte(swap("HTTP/1.1\r\n", "HTTP/1.1\n")))
	f.Add([]byte("\r\n\r\n"))
	f.Add([]byte("\r\n" + good))
	f.Add([]byte("Upgrade: foo/1, websocket\r\nupgrade:"))
	f.Add([]byte("X: a\r\n b"))
	f.Add([]byte("Connection: keep-alive\r\nContent-Length: 0\r\nSec-WebSocket-Protocol: chat, echo"))
	f.Fuzz(func(t *testing.T, in []byte) {
		handshake(t, in)
		handshake(t, []byte(with(string(in)))) // as header lines, it gets further
	})
}

// handshake answers what a client sends, and judges the answer.
func handshake(t *testing.T, in []byte) {
	t.Helper()
	n, err := frame.HeadLen(in)
	if reject, ok := errors.AsType[*frame.Reject](err); ok {
		refusal(t, reject.Response(""), reject.Status)
	}
	if n == 0 {
		return
	}
	head := in[:n]
	wire, err := frame.NewUpgrader(func(r *frame.Request) error {
		looksAround(t, r)
		return nil
	}).Upgrade(head)
	if reject, ok := errors.AsType[*frame.Reject](err); ok {
		refusal(t, wire, reject.Status)
		return
	}
	accepted(t, wire, acceptOf(wellFormed(t, head)))
}

// looksAround calls all that a request offers and chooses what the client
// likes least.
func looksAround(t *testing.T, r *frame.Request) {
	seen := map[string]bool{}
	for name, value := range r.Headers() {
		if lower := strings.ToLower(name); !seen[lower] {
			seen[lower] = true
			if got := r.Header(lower); got != value {
				t.Errorf("header %q: %q, want %q", lower, got, value)
			}
		}
	}
	if !strings.HasPrefix(r.Target(), r.Path()) {
		t.Errorf("target %q, path %q", r.Target(), r.Path())
	}
	if offered := r.Protocols(); len(offered) > 0 {
		r.Protocol = offered[len(offered)-1]
	}
}

var (
	requestLine    = regexp.MustCompile(`^GET [^ ]+ HTTP/1\.[1-9]$`)
	hostLine       = regexp.MustCompile(`(?i)\nHost:`)
	upgradeToken   = regexp.MustCompile(`(?i)\bupgrade\b`)
	webSocketToken = regexp.MustCompile(`(^|,)[ \t]*[Ww][Ee][Bb][Ss][Oo][Cc][Kk][Ee][Tt][ \t]*(,|$)`) // (?i) would fold beyond ASCII
)

// wellFormed checks a head that was accepted by the words of section 4.2.1,
// with the standard library's parser, and returns its key. The request line
// has its rows above: here the standard library gets another, for it is more
// particular about a target than a server that only hands it on.
func wellFormed(t *testing.T, head []byte) (key string) {
	t.Helper()
	for bytes.HasPrefix(head, []byte("\r\n")) {
		head = head[2:]
	}
	line, headers, _ := bytes.Cut(head, []byte("\r\n"))
	if !requestLine.Match(line) {
		t.Errorf("request line %q", line)
	}
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader("GET / HTTP/1.1\r\n"), bytes.NewReader(headers))))
	if err != nil {
		t.Fatalf("the standard library refuses it: %v", err)
	}
	// It moves the Host line away, so they are counted in the text.
	if hosts := hostLine.FindAll(head, -1); len(hosts) != 1 {
		t.Errorf("%d Host lines", len(hosts))
	}
	connection := strings.Join(r.Header.Values("Connection"), ",")
	upgrade := strings.Join(r.Header.Values("Upgrade"), ",")
	if !upgradeToken.MatchString(connection) || !webSocketToken.MatchString(upgrade) {
		t.Errorf("Connection: %q, Upgrade: %q", connection, upgrade)
	}
	if v := r.Header.Values("Sec-WebSocket-Version"); len(v) != 1 || v[0] != "13" {
		t.Errorf("versions %q", v)
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		t.Errorf("a body of %d bytes, %q", r.ContentLength, r.TransferEncoding)
	}
	keys := r.Header.Values("Sec-WebSocket-Key")
	if len(keys) != 1 {
		t.Fatalf("keys %q", keys)
	}
	nonce, err := base64.StdEncoding.DecodeString(keys[0])
	if err != nil || len(nonce) != 16 || base64.StdEncoding.EncodeToString(nonce) != keys[0] {
		t.Errorf("key %q", keys[0])
	}
	return keys[0]
}
