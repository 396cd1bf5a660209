package hooks_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"github.com/seed-134acfd0/lull/server/hooks"
)

// batched is a message of a batch, as a backend sees it.
type batched struct {
	ID, Connection, User string
	Text                 *string
	Base64               []byte
}

// onBatch has a backend answer batches.
func onBatch(answer func(http.ResponseWriter, []batched)) *app {
	return &app{connect: func(w http.ResponseWriter, c call) {
		welcome(w, map[string]any{"user": "Zoë", "topics": words("room")})
	},
		messages: func(w http.ResponseWriter, c call) {
			var batch []batched
			if err := json.Unmarshal([]byte(c.body), &batch); err != nil {
				panic(err)
			}
			answer(w, batch)
		}}
}

// Messages of many connections go together, each connection's in order.
func TestMessagesGoInBatches(t *testing.T) {
	t.Parallel()
	const clients, clicks, most = 60, 15, 8
	var calls, messages, largest atomic.Int64
	a := startApp(t, onBatch(func(w http.ResponseWriter, batch []batched) {
		calls.Add(1)
		messages.Add(int64(len(batch)))
		for n := largest.Load(); int64(len(batch)) > n && !largest.CompareAndSwap(n, int64(len(batch))); n = largest.Load() {
		}
		var replies []string
		of := map[string]bool{}
		for _, m := range batch {
			if of[m.Connection] || m.User != "Zoë" || m.ID == "" {
				t.Errorf("%+v is there twice, or of somebody else", m)
			}
			of[m.Connection] = true
			replies = append(replies, *m.Text)
		}
		b, _ := json.Marshal(replies)
		_, _ = w.Write(b)
	}))
	r := startFor(t, a, hooks.Options{Concurrency: 2, Batch: most})
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			r.open("/").clicks(clicks)
		})
	}
	all.Wait()
	r.counted("messages_answered", clients*clicks)
	if messages.Load() != clients*clicks || largest.Load() > most || calls.Load() == clients*clicks {
		t.Errorf("%d messages came in %d calls of up to %d", messages.Load(), calls.Load(), largest.Load())
	}
}

func TestRepliesOfABatch(t *testing.T) {
	t.Parallel()
	var reply atomic.Value
	a := startApp(t, onBatch(func(w http.ResponseWriter, batch []batched) {
		text := reply.Load().(string)
		if status, err := strconv.Atoi(text); err == nil {
			w.WriteHeader(status)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	r := startFor(t, a, hooks.Options{Batch: 10, Failures: 1000})
	c := r.open("/")
	say := func(text string) {
		reply.Store(text)
		c.send("x")
	}
	say(`["back"]`)
	c.expect("back")
	say(`[{"text": "published", "topic": "room"}]`)
	c.expect("published")
	say(`[{"text": "to a new one", "topic": "new/é", "subscribe": ["new/é"]}]`)
	c.expect("to a new one")
	say(`[{"base64": "AP8="}]`)
	if kind, got, err := c.Read(t.Context()); kind != websocket.MessageBinary || string(got) != "\x00\xff" {
		t.Errorf("got %v %q, %v", kind, got, err)
	}
	answered := 4
	for _, nothing := range []string{"", "[null]", `[""]`, "[{}]"} {
		say(nothing)
		answered++
		r.counted("messages_answered", answered)
	}
	bad := 0
	for _, wrong := range []string{"[]", `["a", "b"]`, "{", `{"text": "a"}`, "[1]", `[{"texts": "a"}]`, `[{"text": "a", "base64": "AP8="}]`,
		`[{"subscribe": ["user:bob"]}]`, `[{"topic": "a\u0000b", "text": "x"}]`, `[{"close": "soon"}]`} {
		say(wrong)
		bad++
		answered++
		r.counted("messages_answered", answered)
		r.counted("answers_bad", bad)
	}
	say("500")
	r.counted("messages_refused", 1)
	say("502")
	r.counted("messages_lost", 1)
	must(t, c.Write(t.Context(), websocket.MessageBinary, []byte{0, 255}))
	reply.Store(`[{"close": "4001 bye"}]`)
	c.send("last")
	c.ended(4001)
	var binary int
	for _, call := range a.told("messages") {
		var batch []batched
		must(t, json.Unmarshal([]byte(call.body), &batch))
		if call.connection != "" || call.user != "" || call.id != batch[0].ID {
			t.Errorf("the call's own headers are %+v", call)
		}
		for _, m := range batch {
			if m.Text == nil && string(m.Base64) == "\x00\xff" {
				binary++
			}
		}
	}
	if binary != 1 {
		t.Errorf("%d are binary", binary)
	}
}

func TestBatchesWaitForABackendThatIsDown(t *testing.T) {
	t.Parallel()
	a := startApp(t, onBatch(func(w http.ResponseWriter, batch []batched) {
		var replies []string
		for _, m := range batch {
			replies = append(replies, *m.Text)
		}
		b, _ := json.Marshal(replies)
		_, _ = w.Write(b)
	}))
	r := startFor(t, a, hooks.Options{Batch: 3, Concurrency: 2, Failures: 2})
	var clients []*client
	for range 20 {
		clients = append(clients, r.open("/"))
	}
	address := a.Listener.Addr().String()
	a.Close()
	for i, c := range clients {
		for j := range 10 {
			c.send(fmt.Sprint(i, " ", j))
		}
	}
	eventually(t, "all wait", func() bool { b := r.backend(); return b.Down && b.Parked+b.Held >= 20 })
	restart(t, a, address)
	for i, c := range clients {
		for j := range 10 {
			c.expect(fmt.Sprint(i, " ", j))
		}
	}
	r.counted("messages_lost", 0)
}
