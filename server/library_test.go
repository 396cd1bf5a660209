package server_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// talkative has what users of a client library meet: a choice of subprotocols, an
// echo, a server that closes on request, and a path that does not exist.
func talkative() (server.Handler, <-chan ending) {
	onClose, told := endings()
	return server.Handler{
		Upgrade: func(r *server.Request) error {
			if r.Path() != "/chat" {
				return &server.Reject{Status: http.StatusNotFound, Reason: "no such room"}
			}
			r.Protocol = "talk"
			return nil
		},
		Message: func(c server.Conn, op frame.Op, data []byte) {
			if string(data) == "close me" {
				must(c.Close(4001, "as you wish"))
				return
			}
			must(c.Send(op, data))
		},
		Close: onClose,
	}, told
}

var texts = []string{"hello", "", "κόσμε", strings.Repeat("x", 100_000)}

func TestGorilla(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		h, told := talkative()
		s := start(t, h, roomy(o))
		dialer := gorilla.Dialer{Subprotocols: []string{"other", "talk"}, EnableCompression: true}
		_, response, err := dialer.Dial("ws://"+s.address()+"/elsewhere", nil)
		if err == nil || response == nil || response.StatusCode != http.StatusNotFound {
			t.Errorf("elsewhere: %v, %v", response, err)
		}
		open := func() *gorilla.Conn {
			c, _, err := dialer.Dial("ws://"+s.address()+"/chat?room=1", nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			must(c.SetReadDeadline(time.Now().Add(patience)))
			return c
		}

		c := open()
		if p := c.Subprotocol(); p != "talk" {
			t.Errorf("subprotocol %q", p)
		}
		pong := ""
		c.SetPongHandler(func(payload string) error {
			pong = payload
			return nil
		})
		must(c.WriteControl(gorilla.PingMessage, []byte("there?"), time.Time{}))
		for _, kind := range []int{gorilla.TextMessage, gorilla.BinaryMessage} {
			for _, text := range texts {
				must(c.WriteMessage(kind, []byte(text)))
				gotKind, got, err := c.ReadMessage()
				if gotKind != kind || string(got) != text || err != nil {
					t.Fatalf("%d %.50q, %v, want %d %.50q", gotKind, got, err, kind, text)
				}
			}
		}
		if pong != "there?" {
			t.Errorf("pong %q", pong)
		}
		must(c.WriteMessage(gorilla.CloseMessage, gorilla.FormatCloseMessage(gorilla.CloseNormalClosure, "bye")))
		if _, _, err := c.ReadMessage(); !gorilla.IsCloseError(err, gorilla.CloseNormalClosure) {
			t.Error(err)
		}
		expectEnding(t, told, frame.NormalClosure, nil)

		c = open()
		must(c.WriteMessage(gorilla.TextMessage, []byte("close me")))
		var closed *gorilla.CloseError
		if _, _, err := c.ReadMessage(); !errors.As(err, &closed) || closed.Code != 4001 || closed.Text != "as you wish" {
			t.Error(err)
		}
		expectEnding(t, told, 4001, nil)
	})
}

func TestCoder(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		h, told := talkative()
		s := start(t, h, roomy(o))
		options := coder.DialOptions{Subprotocols: []string{"talk"}, CompressionMode: coder.CompressionContextTakeover}
		_, response, err := coder.Dial(ctx, "ws://"+s.address()+"/elsewhere", &options)
		if err == nil || response == nil || response.StatusCode != http.StatusNotFound {
			t.Errorf("elsewhere: %v, %v", response, err)
		}
		open := func() *coder.Conn {
			c, _, err := coder.Dial(ctx, "ws://"+s.address()+"/chat", &options)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.CloseNow() })
			c.SetReadLimit(largest)
			return c
		}

		c := open()
		if p := c.Subprotocol(); p != "talk" {
			t.Errorf("subprotocol %q", p)
		}
		for _, kind := range []coder.MessageType{coder.MessageText, coder.MessageBinary} {
			for _, text := range texts {
				must(c.Write(ctx, kind, []byte(text)))
				gotKind, got, err := c.Read(ctx)
				if gotKind != kind || string(got) != text || err != nil {
					t.Fatalf("%v %.50q, %v, want %v %.50q", gotKind, got, err, kind, text)
				}
			}
		}
		must(c.Close(coder.StatusNormalClosure, "bye"))
		expectEnding(t, told, frame.NormalClosure, nil)

		c = open()
		must(c.Write(ctx, coder.MessageText, []byte("close me")))
		var closed coder.CloseError
		if _, _, err := c.Read(ctx); !errors.As(err, &closed) || closed.Code != 4001 || closed.Reason != "as you wish" {
			t.Error(err)
		}
		expectEnding(t, told, 4001, nil)

		c = open()
		reading := c.CloseRead(ctx) // Pongs are noticed only while something readss
		must(c.Ping(ctx))
		must(c.CloseNow())
		<-reading.Done()
		code := <-told
		if code.code != frame.Abnormal {
			t.Errorf("closed with %d", code.code)
		}
	})
}
