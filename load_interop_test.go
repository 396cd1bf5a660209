//go:build interop

package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// What a newcomer types works against somebody else's server, and both sides count the
// same messages.
func TestInteropFlagsForAServerThatSpeaksJSON(t *testing.T) {
	address, stop := roomServer(t)
	out, errs, code := run(t, "load", "ws://"+address+"/socket?room={{random 1 3}}",
		"--header", "Origin: http://127.0.0.1:3000", "--cookie", "session={{hex 6}}", "--subprotocol", "json.v2",
		"--conns", "20", "--active", "10", "--echo", "300ms", "--web", "",
		"--message", `{"type": "message", "id": "{{.Conn}}-{{.Seq}}", "text": "hello, {{.Group}}"}`,
		"--answer", `contains:"ack":"{{.Conn}}-{{.Seq}}"`,
		"--expect", "lost=0,p99(echo)<10s", "--json", "-")
	var result struct {
		Counts struct{ Connected, Asked, Echoes, Foreign int }
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 {
		t.Fatalf("exit %d, %v, %s%s", code, err, out, errs)
	}
	got := stop()
	if c := result.Counts; c.Connected != 20 || c.Foreign != 20 || c.Asked < 10 || c.Echoes != c.Asked || got["message"] != c.Asked || len(got) != 1 {
		t.Errorf("the server got %v, and the result has %+v", got, c)
	}
}

// A server that does not know lull's own messages ends the load at once, and the
// result says why, and what to do.
func TestInteropAServerThatSpeaksJSONEndsALoadWithoutIt(t *testing.T) {
	address, stop := roomServer(t)
	defer stop()
	for does, want := range map[string]string{
		"--active=10":    "ended early: nobody is left: 10 × 1003 bad json",
		"--broadcasts=5": "ended early: the server ends connections that publish: 1 × 1003 bad json",
	} {
		out, errs, code := run(t, "load", "ws://"+address+"/socket", "--conns", "10", "--web", "",
			"--header", "Origin: http://127.0.0.1:3000", "--cookie", "session=abc123", "--echo", "1h", "--patience", "1h", does)
		if code != 1 || !strings.Contains(out, want) || !strings.Contains(out, "--message says what to send") {
			t.Errorf("%s: exit %d, without %q: %s%s", does, code, want, out, errs)
		}
	}
}
