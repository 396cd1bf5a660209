//go:build reality

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/tuning"
)

// An idle connection that is a member of a presence channel of a hundred, with 100 bytes of
// user_info, takes 450 bytes of user space at most.
func TestRealityPusherPresence(t *testing.T) {
	const first, then, bytesMost = 2000, 16000, 450
	url, process, wait := serving(t, "--mode", "pusher", "--pusher-app", "1:app-key:app-secret", "--max-conns", "20000")
	defer wait()
	defer process.Signal(os.Interrupt)
	members := func(from, to int) {
		for i := from; i < to; i++ {
			enter(t, url, i)
		}
	}
	resident := func() int64 {
		m, err := tuning.MemoryOf(process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return m.Resident
	}
	members(0, first)
	before := resident()
	members(first, then)
	each := (resident() - before) / (then - first)
	if t.Logf("%d bytes each", each); each > bytesMost {
		t.Errorf("a member takes %d bytes, more than %d", each, bytesMost)
	}
}

// enter makes a connection a member, and leaves it open.
func enter(t *testing.T, url string, i int) {
	t.Helper()
	c, _, err := websocket.DefaultDialer.Dial(url+"app/app-key?protocol=7", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	var hello struct{ Data string }
	var socket struct {
		ID string `json:"socket_id"`
	}
	if err := c.ReadJSON(&hello); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(hello.Data), &socket); err != nil {
		t.Fatal(err)
	}
	channel := fmt.Sprint("presence-", i/100)
	who := fmt.Sprintf(`{"user_id":"user-%d","user_info":%q}`, i, strings.Repeat("x", 98))
	mac := hmac.New(sha256.New, []byte("app-secret"))
	fmt.Fprintf(mac, "%s:%s:%s", socket.ID, channel, who)
	wish := map[string]any{"event": "pusher:subscribe", "data": map[string]string{
		"channel": channel, "channel_data": who, "auth": "app-key:" + hex.EncodeToString(mac.Sum(nil)),
	}}
	if err := c.WriteJSON(wish); err != nil {
		t.Fatal(err)
	}
	if err := c.ReadJSON(&hello); err != nil {
		t.Fatal(err)
	}
}
