package server_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// swap replaces a part of the tests' request.
func swap(old, new string) string {
	if !strings.Contains(request, old) {
		panic(old + " is not in the request")
	}
	return strings.Replace(request, old, new, 1)
}

// with adds header lines before those of the request.
func with(lines ...string) string { return swap("Host:", strings.Join(lines, "\r\n")+"\r\nHost:") }

// nextResponse reads an HTTP response, behind which there may be others.
func (c *client) nextResponse() (r *http.Response, body string) {
	c.t.Helper()
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return r, string(b)
}

// response reads a whole HTTP error, and checks that the stream ends after it.
func (c *client) response() (r *http.Response, body string) {
	c.t.Helper()
	r, body = c.nextResponse()
	c.expectEnd()
	return r, body
}

func TestOddRequestsAreAccepted(t *testing.T) {
	rows := []struct{ name, head string }{
		{"Connection in two lines", with("Connection: keep-alive")},
		{"Connection in three lines", with("Connection: keep-alive", "Connection: x, y")},
		{"Connection as a list", swap("Connection: Upgrade", "Connection: keep-alive, upgrade")},
		{"names in any case", strings.ReplaceAll(swap("Host", "hOsT"), "Sec-WebSocket-", "SEC-WEBSOCKET-")},
		{"no space behind the colons", strings.ReplaceAll(request, ": ", ":")},
		{"an absolute URI", swap("GET /", "GET http://localhost/chat?x=y")},
		{"an empty body", with("Content-Length: 0")},
		{"extensions and subprotocols", with("Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: chat")},
		{"a head of nearly 8 KiB", with("Cookie: " + xs(frame.MaxHead-len(request)-len("Cookie: \r\n")))},
	}
	onBothTables(t, func(t *testing.T, o server.Options) {
		s := start(t, echo, o)
		for _, row := range rows {
			c := s.dial()
			c.write(row.head)
			c.accepted()
			c.echoed(row.name)
			c.leave()
		}
		s.counted("opened", len(rows))
		s.counted("rejected", 0)
	})
}

func TestAHeadMayComeByteByByte(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		c := start(t, echo, o).dial()
		for i := range request {
			c.write(request[i : i+1])
		}
		c.accepted()
		c.echoed("hello")
	})
}

func TestFramesMayComeWithTheHead(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		s := start(t, echo, o)
		c := s.dial()
		c.write(request + message(frame.Text, "first") + fragments(frame.Binary, "second", 2) + message(frame.Text, "cut")[:4])
		c.accepted()
		c.expect(frame.Text, "first")
		c.expect(frame.Binary, "second")

		c = s.dial()
		c.write(request + closing(frame.GoingAway, ""))
		c.accepted()
		c.expectClose(frame.GoingAway)
		c.expectEnd()
	})
}

func TestBadRequestsAreRefused(t *testing.T) {
	rows := []struct {
		name, head string
		status     int
		header     string // one that the response must have
	}{
		{"POST", swap("GET", "POST"), 405, "Allow: GET"},
		{"HTTP/1.0", swap("HTTP/1.1", "HTTP/1.0"), 505, ""},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, ""},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + xs(500) + "\r\n\r\n", 400, ""},
		{"not a WebSocket", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 426, "Upgrade: websocket"},
		{"an unknown version", swap("Version: 13", "Version: 8"), 426, "Sec-WebSocket-Version: 13"},
		{"no version", swap("Sec-WebSocket-Version: 13\r\n", ""), 400, ""},
		{"two versions", with("Sec-WebSocket-Version: 13"), 400, ""},
		{"no key", swap("Sec-WebSocket-Key: "+sampleKey+"\r\n", ""), 400, ""},
		{"a key that is too short", swap(sampleKey, sampleKey[:20]), 400, ""},
		{"a key that is not base64", swap(sampleKey, "~~~~~~~~~~~~~~~~~~~~~~=="), 400, ""},
		{"two keys", with("Sec-WebSocket-Key: " + sampleKey), 400, ""},
		{"no Host", swap("Host: localhost\r\n", ""), 400, ""},
		{"two Hosts", with("Host: elsewhere"), 400, ""},
		{"no Upgrade", swap("Upgrade: websocket\r\n", ""), 426, "Upgrade: websocket"},
		{"another Upgrade", swap("websocket", "h2c"), 400, ""},
		{"no Connection", swap("Connection: Upgrade\r\n", ""), 400, ""},
		{"Connection without Upgrade", swap("Connection: Upgrade", "Connection: close"), 400, ""},
		{"obsolete line folding", with("X-Folded: a", " b"), 400, ""},
		{"a space before a colon", swap("Host:", "Host :"), 400, ""},
		{"a line without a colon", with("Host"), 400, ""},
		{"a bare line feed", swap("\r\n", "\n"), 400, ""},
		{"a NUL", with("X-Nul: \x00"), 400, ""},
		{"a body", with("Content-Length: 5") + "hello", 400, ""},
		{"a chunked body", with("Transfer-Encoding: chunked") + "0\r\n\r\n", 400, ""},
		{"an oversized head", with("Cookie: " + xs(frame.MaxHead)), 431, ""},
		{"an endless head", "GET / HTTP/1.1\r\n" + strings.Repeat("X-More: and more\r\n", 10_000), 431, ""},
		{"an endless line", "GET /" + xs(200_000), 414, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				h := echo
				h.Upgrade = func(r *server.Request) error {
					if r.Path() != "/" {
						t.Error("Upgrade was called")
					}
					return nil
				}
				s := start(t, h, o)
				bystander := s.open()
				c := s.dial()
				c.writing(row.head)
				r, body := c.response()
				name, value, _ := strings.Cut(row.header, ": ")
				if r.StatusCode != row.status || r.Header.Get(name) != value || !r.Close || body == "" {
					t.Errorf("answered %s %v %q, want %d %s", r.Status, r.Header, body, row.status, row.header)
				}
				s.log.one(t, "WARN handshake rejected", fmt.Sprintf("status=%d", row.status), "conn=0x")
				bystander.echoed("hello")
				s.counted("rejected", 1)
				s.counted("opened", 1)
				if n := s.Stats().Open; n != 1 {
					t.Errorf("%d connections are open", n)
				}
			})
		})
	}
}

var sampleKey = string(frame.SampleKey[:])

// Bytes after a refused request are not taken for another request.
func TestNothingIsReadAfterARefusedRequest(t *testing.T) {
	onBothTables(t, func(t *testing.T, o server.Options) {
		s := start(t, server.Handler{Open: func(server.Conn) { t.Error("opened") }}, o)
		c := s.dial()
		c.write(swap("GET", "POST") + request + message(frame.Text, "hello"))
		if r, _ := c.response(); r.StatusCode != http.StatusMethodNotAllowed {
			t.Error(r.Status)
		}
		s.counted("rejected", 1)
	})
}

func TestPeersThatLeaveBeforeTheirRequestIsComplete(t *testing.T) {
	rows := []struct {
		name  string
		leave func(*client)
	}{
		{"without a word", func(c *client) { c.Close() }},
		{"within the head", func(c *client) { c.write(request[:50]); c.Close() }},
		{"within the head, with a reset", func(c *client) { c.write(request[:50]); c.reset() }},
		{"without a word, with a reset", func(c *client) { c.reset() }},
		{"with half a stream", func(c *client) { c.write(request[:50]); must(c.CloseWrite()); c.expectEnd() }},
	}
	everywhere(t, func(t *testing.T, o server.Options) {
		h := echo
		h.Open = func(c server.Conn) {
			if c.Tag() != 1 {
				t.Error("opened")
			}
		}
		h.Upgrade = func(r *server.Request) error { r.Tag = 1; return nil }
		h.Close = func(server.Conn, frame.Code, error) {}
		s := start(t, h, o)
		bystander := s.open()
		for i, row := range rows {
			c := s.dial()
			s.counted("accepted", 2+i)
			row.leave(c)
			s.counted("aborted", 1+i)
			bystander.echoed("hello")
		}
		if lines := s.log.all(); len(lines) > 0 {
			t.Errorf("log: %q", lines)
		}
	})
}

func TestARequestMustArriveInTime(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name string
		says func(*client)
	}{
		{"nothing", func(*client) {}},
		{"half a head", func(c *client) { c.write(request[:50]) }},
		{"a byte now and then", func(c *client) {
			go func() {
				for {
					if _, err := io.WriteString(c.TCPConn, "x"); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond) // the client trickles: that is the attack
				}
			}()
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBothTables(t, func(t *testing.T, o server.Options) {
				t.Parallel()
				o.HandshakeTimeout = 500 * time.Millisecond
				s := start(t, echo, o)
				bystander := s.open()
				c := s.dial()
				row.says(c)
				if r, body := c.response(); r.StatusCode != http.StatusRequestTimeout || body == "" {
					t.Errorf("answered %s %q", r.Status, body)
				}
				s.counted("rejected", 1)
				s.log.one(t, "WARN handshake rejected", "status=408")
				bystander.echoed("hello")
			})
		})
	}
}

// refusal is a Handler.Upgrade that answers by the path.
func refusal(r *server.Request) error {
	switch r.Path() {
	case "/reject":
		return &server.Reject{Status: http.StatusUnauthorized, Reason: "who are you?", Header: http.Header{"Www-Authenticate": {"Basic"}}}
	case "/wrapped":
		return fmt.Errorf("secret: %w", &server.Reject{Status: http.StatusForbidden, Reason: "not you"})
	case "/moved":
		return &server.Reject{Status: http.StatusSeeOther, Reason: "elsewhere", Header: http.Header{"Location": {"/elsewhere"}}}
	case "/error":
		return errors.New("secret")
	case "/nonsense":
		return &server.Reject{Status: http.StatusOK, Reason: "all is well"}
	case "/protocol":
		r.Protocol = "secret"
	case "/panic":
		panic("secret")
	}
	return nil
}

func TestUpgradeRefuses(t *testing.T) {
	rows := []struct {
		path   string
		status int
		header string
		body   string
		logged string // what only the log says
	}{
		{"/reject", 401, "Www-Authenticate: Basic", "who are you?\n", "who are you?"},
		{"/wrapped", 403, "", "not you\n", "not you"},
		{"/moved", 303, "Location: /elsewhere", "elsewhere\n", "elsewhere"},
		{"/error", 500, "", "Internal Server Error\n", "secret"},
		{"/nonsense", 500, "", "all is well\n", "all is well"},
		{"/protocol", 500, "", "the server chose a subprotocol that was not offered\n", "not offered"},
		{"/panic", 500, "", "Internal Server Error\n", "panicked"},
	}
	everywhere(t, func(t *testing.T, o server.Options) {
		h := echo
		h.Upgrade = refusal
		h.Close = func(server.Conn, frame.Code, error) { t.Error("Close is called for a connection that was not opened") }
		s := start(t, h, o)
		for i, row := range rows {
			c := s.dial()
			c.write(swap("GET /", "GET "+row.path) + message(frame.Text, "hello"))
			r, body := c.response()
			name, value, _ := strings.Cut(row.header, ": ")
			if r.StatusCode != row.status || r.Header.Get(name) != value || body != row.body {
				t.Errorf("%s: answered %s %v %q", row.path, r.Status, r.Header, body)
			}
			s.counted("rejected", i+1)
			eventually(t, "the refusal of "+row.path+" is logged", func() bool {
				return strings.Contains(strings.Join(s.log.all(), "\n"), row.logged)
			})
		}
		if n := s.Stats().Open; n != 0 {
			t.Errorf("%d connections are open", n)
		}
	})
}

// Pages of other sites may not connect, unless they are listed. Programs send no
// Origin, and may.
func TestOriginsOfPages(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		for _, row := range []struct {
			allowed []string
			origins []string // header lines
			status  int
		}{
			{nil, nil, 101},
			{nil, []string{"http://localhost"}, 101},
			{nil, []string{"https://localhost"}, 101}, // a proxy in front may end TLS
			{nil, []string{"http://localhost:8080"}, 403},
			{nil, []string{"http://elsewhere"}, 403},
			{nil, []string{"null"}, 403},
			{nil, []string{""}, 403},
			{nil, []string{"http://localhost", "http://localhost"}, 403},
			{[]string{"*.example.com"}, []string{"https://a.example.com"}, 101},
			{[]string{"*.example.com"}, []string{"https://example.com"}, 403},
			{[]string{"*.example.com"}, []string{"http://localhost"}, 101},
			{[]string{"any"}, []string{"https://elsewhere"}, 101},
			{[]string{"any"}, []string{"null"}, 101},
		} {
			o.Origins = row.allowed
			h := echo
			h.Upgrade = func(*server.Request) error {
				if row.status == 403 {
					t.Error("Upgrade was asked")
				}
				return nil
			}
			s := start(t, h, o)
			c := s.dial()
			var lines []string
			for _, origin := range row.origins {
				lines = append(lines, "Origin: "+origin)
			}
			head := request
			if len(lines) > 0 {
				head = with(lines...)
			}
			c.write(head)
			if status, _, _ := strings.Cut(c.head(), "\r\n"); !strings.Contains(status, fmt.Sprint(row.status)) {
				t.Errorf("%q with %q was answered %s, want %d", row.origins, row.allowed, status, row.status)
			}
			c.Close()
			must(s.stop())
		}
		o.Origins = []string{"http://a/path"}
		if _, err := server.Listen([]string{"127.0.0.1:0"}, echo, o); err == nil || !strings.Contains(err.Error(), "a/path") {
			t.Errorf("a pattern that is none: %v", err)
		}
	})
}
