package main

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

// The first signal begins a drain, and the second ends it.
func TestServeDrains(t *testing.T) {
	url, process, wait := serving(t, "--drain", "1h", "--return", "1m")
	c, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	signal := func() {
		if err := process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	testkit.Eventually(t, "nobody is let in", func() bool {
		other, r, err := websocket.DefaultDialer.Dial(url, nil)
		if err == nil {
			other.Close()
		}
		return r != nil && r.StatusCode == 503
	})
	if err := c.WriteMessage(websocket.TextMessage, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := c.ReadMessage(); err != nil || string(text) != "still here" {
		t.Errorf("heard %q, %v", text, err)
	}
	signal()
	var closed *websocket.CloseError
	if _, _, err := c.ReadMessage(); !errors.As(err, &closed) || closed.Code != websocket.CloseServiceRestart || !strings.HasPrefix(closed.Text, "retry=") {
		t.Errorf("ended with %v", err)
	}
	c.Close()
	wait()
}
