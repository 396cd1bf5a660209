package frame_test

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
)

func TestRequestIsAcceptedByUpgrader(t *testing.T) {
	head := frame.AppendRequest([]byte("held"), "example.com:8080", "/chat?room=1", frame.SampleKey)[4:]
	if n, err := frame.HeadLen(head); n != len(head) || err != nil {
		t.Fatalf("HeadLen is %d of %d, error %v", n, len(head), err)
	}
	wire, err := ask(t, string(head), func(r *frame.Request) error {
		if r.Target() != "/chat?room=1" || r.Header("Host") != "example.com:8080" {
			t.Errorf("target %q, host %q", r.Target(), r.Header("Host"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, wire, sampleAccept)
	if err := frame.CheckResponse(wire, frame.SampleKey); err != nil {
		t.Error(err)
	}
}

func TestRequestIsAcceptedByTheStandardLibrary(t *testing.T) {
	dst := []byte("held")
	head := frame.AppendRequest(dst, "example.com", "/chat?room=1", frame.SampleKey)
	if !bytes.HasPrefix(head, dst) {
		t.Errorf("what dst held became %q", head[:4])
	}
	br := bufio.NewReader(bytes.NewReader(head[4:]))
	r, err := http.ReadRequest(br)
	if err != nil {
		t.Fatal(err)
	}
	if r.Method != "GET" || r.Proto != "HTTP/1.1" || r.RequestURI != "/chat?room=1" || r.Host != "example.com" {
		t.Errorf("%s %s %s, Host %s", r.Method, r.RequestURI, r.Proto, r.Host)
	}
	if br.Buffered() != 0 {
		t.Errorf("%d bytes behind the head", br.Buffered())
	}
}

func TestAppendRequestDoesNotAllocateWhatDstHolds(t *testing.T) {
	dst := make([]byte, 0, 1<<10)
	if n := testing.AllocsPerRun(100, func() { frame.AppendRequest(dst, "example.com", "/", frame.SampleKey) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// goodResponse is the response of the example in section 1.3.
const goodResponse = "HTTP/1.1 101 Switching Protocols\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: " + sampleAccept + "\r\n" +
	"\r\n"

func TestCheckResponseFollowsTheRFC(t *testing.T) {
	rows := []struct{ name, old, new, fails string }{
		{"1.3 example", "", "", ""},
		{"4.1 names and values in any case", "Upgrade: websocket\r\nConnection: Upgrade", "upgrade: WebSocket\r\nCONNECTION: upgrade", ""},
		{"4.1 other headers", "Upgrade:", "Server: test\r\nDate: now\r\nX-Empty:\r\nUpgrade:", ""},
		{"4.1 item 3: a list", "Connection: Upgrade", "Connection: keep-alive, upgrade", ""},
		{"4.1 item 3: the list in two lines", "Connection: Upgrade", "Connection: Upgrade\r\nConnection: keep-alive", ""},
		{"4.1 another phrase", "Switching Protocols", "Welcome", ""},
		{"4.1 no phrase", "Switching Protocols", "", ""},
		{"4.1 item 5: whitespace around the accept value", sampleAccept, "\t " + sampleAccept + " ", ""},

		{"4.1 item 1: 200", "101", "200", "101"},
		{"4.1 item 1: 1011", "101", "1011", "101"},
		{"4.1 item 1: HTTP/1.0", "HTTP/1.1", "HTTP/1.0", "101"},
		{"4.1 item 1: a request", "HTTP/1.1 101 Switching Protocols", "GET / HTTP/1.1", "101"},
		{"4.1 item 1: nothing", goodResponse, "", "101"},
		{"4.1 item 1: an empty head", goodResponse, "\r\n\r\n", "101"},
		{"4.1 item 2: no Upgrade", "Upgrade: websocket\r\n", "", "Upgrade: websocket"},
		{"4.1 item 2: another Upgrade", "websocket", "h2c", "Upgrade: websocket"},
		{"4.1 item 3: no Connection", "Connection: Upgrade\r\n", "", "Connection: Upgrade"},
		{"4.1 item 3: another Connection", "Connection: Upgrade", "Connection: close", "Connection: Upgrade"},
		{"4.1 item 4: no accept value", "Sec-WebSocket-Accept: " + sampleAccept + "\r\n", "", "Accept"},
		{"4.1 item 4: empty accept value", sampleAccept, "", "Accept"},
		{"4.1 item 4: another accept value", sampleAccept, strings.ToLower(sampleAccept), "Accept"},
		{"4.1 item 4: the key itself", sampleAccept, string(frame.SampleKey[:]), "Accept"},
		{"4.1 item 4: more behind it", sampleAccept, sampleAccept + "=", "Accept"},
		{"4.1 item 2: Upgrade that folds only in Unicode", "websocket", "web\u017focket", "Upgrade: websocket"},
		{"11.3.3 two accept values", "Upgrade:", "Sec-WebSocket-Accept: x\r\nUpgrade:", "more than one"},
		{"4.1 item 5: an extension", "Upgrade:", "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade:", "not offered"},
		{"4.1 item 6: a protocol", "Upgrade:", "sec-websocket-protocol: chat\r\nUpgrade:", "not offered"},
		{"9112 5 no colon", "Upgrade:", "broken\r\nUpgrade:", "malformed"},
		{"9112 5.1 space before the colon", "Upgrade:", "Upgrade :", "malformed"},
		{"9112 5.2 folded line", "Upgrade:", "X: a\r\n b\r\nUpgrade:", "malformed"},
		{"9110 5.5 NUL in a value", "Upgrade:", "X: \x00\r\nUpgrade:", "malformed"},
		{"9112 2.2 an empty line before the status line", "HTTP/1.1", "\r\nHTTP/1.1", "101"},
		{"9112 2.2 bare line feed", "websocket\r\n", "websocket\n", "malformed"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if !strings.Contains(goodResponse, r.old) {
				t.Fatalf("%q is not in the good response", r.old)
			}
			head := strings.Replace(goodResponse, r.old, r.new, 1)
			err := frame.CheckResponse([]byte(head), frame.SampleKey)
			switch {
			case (err != nil) != (r.fails != ""):
				t.Errorf("error %v", err)
			case err != nil && !strings.Contains(err.Error(), r.fails):
				t.Errorf("error %v does not speak of %q", err, r.fails)
			}
		})
	}
}

func TestCheckResponseWantsTheAnswerToItsKey(t *testing.T) {
	other := frame.NewKey([16]byte{1, 2, 3})
	if err := frame.CheckResponse([]byte(goodResponse), other); err == nil {
		t.Error("the answer to another key is taken")
	}
	answer := strings.Replace(goodResponse, sampleAccept, acceptOf(string(other[:])), 1)
	if err := frame.CheckResponse([]byte(answer), other); err != nil {
		t.Error(err)
	}
}

// A server may choose one of the subprotocols that were offered, and no other.
func TestTheChosenSubprotocolWasOffered(t *testing.T) {
	offer := frame.Offer{Protocols: "chat.v2, chat.v1", Header: []byte("Cookie: a=b\r\n")}
	head := string(offer.AppendRequest(nil, "example.com", "/", frame.SampleKey))
	if !strings.HasSuffix(head, "\r\nSec-WebSocket-Protocol: chat.v2, chat.v1\r\nCookie: a=b\r\n\r\n") {
		t.Errorf("the request is %q", head)
	}
	for chosen, right := range map[string]bool{"chat.v1": true, "chat.v2": true, "chat": false, "chat.v2, chat.v1": false, "": false} {
		answer := strings.Replace(goodResponse, "Upgrade:", "Sec-WebSocket-Protocol: "+chosen+"\r\nUpgrade:", 1)
		got, err := offer.CheckResponse([]byte(answer), frame.SampleKey)
		if (err == nil) != right || right && got.Protocol != chosen {
			t.Errorf("%q was chosen: %+v, %v", chosen, got, err)
		}
		if frame.CheckResponse([]byte(answer), frame.SampleKey) == nil {
			t.Errorf("%q was taken without an offer", chosen)
		}
		if _, err := offer.CheckResponse([]byte(strings.Replace(answer, "Upgrade:", "Sec-WebSocket-Protocol: chat.v1\r\nUpgrade:", 1)), frame.SampleKey); err == nil {
			t.Error("two subprotocols were taken")
		}
	}
	if got, err := offer.CheckResponse([]byte(goodResponse), frame.SampleKey); err != nil || got.Protocol != "" {
		t.Errorf("no choice: %+v, %v", got, err)
	}
}

func FuzzCheckResponse(f *testing.F) {
	f.Add([]byte(goodResponse))
	f.Add([]byte(strings.Replace(goodResponse, "101", "404", 1)))
	f.Add([]byte("HTTP/1.1 101 \r\n:\r\n\r\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		if frame.CheckResponse(head, frame.SampleKey) != nil {
			return
		}
		for _, words := range []string{"HTTP/1.1 101 ", "\r\nSec-WebSocket-Accept:", sampleAccept} {
			if !bytes.Contains(bytes.ToLower(head), []byte(strings.ToLower(words))) {
				t.Errorf("%q is taken without %q", head, words)
			}
		}
	})
}
