package server_test

import (
	"bytes"
	"compress/flate"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// A client library that compresses talks with one that does not, and with itself.
func TestGorillaCompressed(t *testing.T) {
	everywhere(t, func(t *testing.T, o server.Options) {
		for _, secured := range []bool{false, true} {
			d := gorilla.Dialer{EnableCompression: true}
			scheme := "ws://"
			if secured {
				d.TLSClientConfig, scheme = secure(&o), "wss://"
			}
			o.Compress = true
			o.MaxMessage = 1 << 20
			s := start(t, echo, o)
			open := func() *gorilla.Conn {
				c, r, err := d.Dial(scheme+s.address()+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				if got := r.Header.Get("Sec-WebSocket-Extensions"); strings.Contains(got, "permessage-deflate") != d.EnableCompression {
					t.Errorf("extensions %q", got)
				}
				must(c.SetReadDeadline(time.Now().Add(patience)))
				return c
			}
			compressed := open()
			d.EnableCompression = false
			plain := open()
			noise := make([]byte, 70_000) // which compression makes longer
			rng := rand.NewChaCha8([32]byte{})
			_, _ = rng.Read(noise)
			for _, text := range append(texts, string(noise), strings.Repeat("a", 255), strings.Repeat("b", 256), strings.Repeat("c", 300_000)) {
				kind, op := gorilla.BinaryMessage, frame.Binary
				for _, c := range []*gorilla.Conn{compressed, plain} {
					must(c.WriteMessage(kind, []byte(text)))
					if _, got, err := c.ReadMessage(); err != nil || string(got) != text {
						t.Fatalf("%.50q, %v, want %.50q", got, err, text)
					}
				}
				must(s.Broadcast(op, []byte(text)))
				must(s.Broadcast(op, []byte("and another")))
				for _, c := range []*gorilla.Conn{compressed, plain} {
					for _, want := range []string{text, "and another"} {
						if _, got, err := c.ReadMessage(); err != nil || string(got) != want {
							t.Fatalf("%.50q, %v, want %.50q", got, err, want)
						}
					}
				}
			}
			s.counted("compressed", 1)
			compressed.Close()
			plain.Close()
			must(s.stop())
		}
	})
}

// The threshold, what a broadcast takes on the wire, and a server that does not
// compress.
func TestWhatIsCompressed(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		for _, on := range []bool{true, false} {
			o.Compress, o.CompressFrom = on, 512
			s := start(t, server.Handler{}, o)
			c := s.dial()
			c.write(deflateRequest)
			agreed, err := frame.CheckDeflateResponse([]byte(c.head()), frame.SampleKey)
			if err != nil || agreed != on {
				t.Fatalf("agreed: %v, %v", agreed, err)
			}
			for size, deflated := range map[int]bool{511: false, 512: on} {
				must(s.Broadcast(frame.Text, bytes.Repeat([]byte("x"), size)))
				head := make([]byte, 2)
				if _, err := c.in.Read(head[:1]); err != nil {
					t.Fatal(err)
				}
				if (head[0]&0x40 != 0) != deflated {
					t.Errorf("%d bytes came with the first byte %#x", size, head[0])
				}
				if deflated {
					_, err = c.in.Discard(1 + int(must1(c.in.Peek(1))[0]))
				} else {
					_, err = c.in.Discard(3 + size)
				}
				must(err)
			}
			c.Close()
			must(s.stop())
		}
	})
}

func must1[T any](v T, err error) T {
	must(err)
	return v
}

// rawDeflated compresses as any client may, with the last four bytes left out.
func rawDeflated(data []byte) string {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 9)
	must(err)
	_, err = w.Write(data)
	must(err)
	must(w.Flush())
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// Bombs, rubbish and compressed text that is no UTF-8 end their connection, and
// nobody else's.
func TestBadCompression(t *testing.T) {
	inModes(t, func(t *testing.T, o server.Options) {
		o.Compress = true
		s := start(t, echo, o)
		bystander := s.open()
		bomb := rawDeflated(make([]byte, 30<<20))
		for _, row := range []struct {
			name, wire string
			code       frame.Code
		}{
			{"a bomb", message(frame.Binary|frame.Deflated, bomb), frame.MessageTooBig},
			{"rubbish", message(frame.Binary|frame.Deflated, "\xff\xff\xff"), frame.InvalidPayload},
			{"no UTF-8", message(frame.Text|frame.Deflated, rawDeflated([]byte("\xc3\x28"))), frame.InvalidPayload},
			{"a compressed Ping", message(frame.Ping|frame.Deflated, ""), frame.ProtocolError},
		} {
			c := s.dial()
			c.agree()
			c.writing(row.wire)
			if reason := c.expectClose(row.code); reason == "" {
				t.Errorf("%s: no reason", row.name)
			}
			c.Close()
			bystander.echoed("hello")
		}
		c := s.open() // which has not agreed
		c.writing(message(frame.Text|frame.Deflated, rawDeflated([]byte("hello"))))
		c.expectClose(frame.ProtocolError)
	})
}
