package server_test

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// peer is a connection of a client library.
type peer struct {
	write func(text string) error
	read  func() (string, error)
}

// libraries dial with client libraries, all of which but one offer to compress.
var libraries = map[string]func(t *testing.T, url string, config *tls.Config) peer{
	"plain": func(t *testing.T, url string, config *tls.Config) peer { return gorillaPeer(t, url, config, false) },
	"gorilla": func(t *testing.T, url string, config *tls.Config) peer {
		return gorillaPeer(t, url, config, true)
	},
	"coder": func(t *testing.T, url string, config *tls.Config) peer {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		t.Cleanup(cancel)
		c, _, err := coder.Dial(ctx, url, &coder.DialOptions{
			CompressionMode: coder.CompressionContextTakeover, CompressionThreshold: 1,
			HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: config}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.CloseNow() })
		c.SetReadLimit(largest)
		return peer{
			func(text string) error { return c.Write(ctx, coder.MessageBinary, []byte(text)) },
			func() (string, error) { _, m, err := c.Read(ctx); return string(m), err },
		}
	},
	"gws": func(t *testing.T, url string, config *tls.Config) peer {
		box := gwsBox{messages: make(chan string, 64)}
		c, _, err := gws.NewClient(box, &gws.ClientOption{Addr: url, TlsConfig: config, PermessageDeflate: gws.PermessageDeflate{
			Enabled: true, Threshold: 1, ServerMaxWindowBits: 9,
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.NetConn().Close() })
		must(c.SetReadDeadline(time.Now().Add(patience)))
		go func() {
			c.ReadLoop()
			close(box.messages)
		}()
		return peer{
			func(text string) error { return c.WriteMessage(gws.OpcodeBinary, []byte(text)) },
			func() (string, error) {
				if m, ok := <-box.messages; ok {
					return m, nil
				}
				return "", io.EOF
			},
		}
	},
}

func gorillaPeer(t *testing.T, url string, config *tls.Config, compress bool) peer {
	t.Helper()
	c, _, err := (&gorilla.Dialer{EnableCompression: compress, TLSClientConfig: config}).Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	must(c.SetReadDeadline(time.Now().Add(patience)))
	return peer{
		func(text string) error { return c.WriteMessage(gorilla.BinaryMessage, []byte(text)) },
		func() (string, error) { _, m, err := c.ReadMessage(); return string(m), err },
	}
}

// gwsBox is a handler that hands messages out.
type gwsBox struct {
	gws.BuiltinEventHandler
	messages chan string
}

func (b gwsBox) OnMessage(_ *gws.Conn, m *gws.Message) {
	b.messages <- m.Data.String()
	_ = m.Close()
}

func (p peer) expect(t *testing.T, want string) {
	t.Helper()
	if got, err := p.read(); err != nil || got != want {
		t.Fatalf("%.50q (%d bytes), %v, want %.50q (%d bytes)", got, len(got), err, want, len(want))
	}
}

// Client libraries that compress get what they have sent, and what is broadcast to all,
// as one that does not: on the server's own port, over TLS, and by way of net/http.
func TestLibrariesCompressed(t *testing.T) {
	noise := make([]byte, 70_000) // which compression makes longer
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	texts := append(slices.Clone(texts), string(noise), strings.Repeat("a", 255), strings.Repeat("b", 256), strings.Repeat("κόσμε", 50_000))
	everywhere(t, func(t *testing.T, o server.Options) {
		o.Compress, o.MaxMessage, o.MaxOutbox = true, 1<<20, 8<<20
		for _, way := range []string{"ws://", "wss://", "net/http"} {
			t.Run(way, func(t *testing.T) {
				o := o
				var config *tls.Config
				if way == "wss://" {
					config = secure(&o)
				}
				s := start(t, echo, o)
				url := way + s.address()
				if way == "net/http" {
					site := httptest.NewServer(s)
					defer site.Close()
					url = "ws" + strings.TrimPrefix(site.URL, "http")
				}
				peers := map[string]peer{}
				for name, dial := range libraries {
					peers[name] = dial(t, url+"/", config)
				}
				for _, text := range texts {
					for _, p := range peers {
						must(p.write(text))
						p.expect(t, text)
					}
					must(s.Broadcast(frame.Binary, []byte(text)))
					must(s.Broadcast(frame.Binary, []byte("and another")))
					for _, p := range peers {
						p.expect(t, text)
						p.expect(t, "and another")
					}
				}
				s.counted("compressed", len(peers)-1)
				if stats := s.Stats(); stats.BytesDeflated >= stats.BytesToDeflate || stats.BytesToInflate >= stats.BytesInflated {
					t.Errorf("%d bytes became %d, and %d became %d", stats.BytesToDeflate, stats.BytesDeflated, stats.BytesToInflate, stats.BytesInflated)
				}
			})
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
			agreed, err := deflating.CheckResponse([]byte(c.head()), frame.SampleKey)
			if err != nil || agreed.Deflate != on {
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
