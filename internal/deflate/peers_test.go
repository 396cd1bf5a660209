package deflate_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/deflate"
)

const peersMax = 1 << 20 // bytes of a message

// end is our end of a connection to another library.
type end struct {
	t        *testing.T
	conn     net.Conn
	parser   *frame.Parser
	stream   frame.Stream
	inflater deflate.Inflater
	in       []byte
	deflated int // messages that came compressed
}

func (e *end) read() bool {
	var buf [4096]byte
	n, err := e.conn.Read(buf[:])
	e.in = append(e.in, buf[:n]...)
	return err == nil
}

// head reads a request's or a response's head.
func (e *end) head() []byte {
	for {
		n, err := frame.HeadLen(e.in)
		if n > 0 {
			head := e.in[:n]
			e.in = e.in[n:]
			return head
		}
		if err != nil || !e.read() {
			e.t.Errorf("no head in %q, error %v", e.in, err)
			return nil
		}
	}
}

// message reads a message, nil at the connection's end.
func (e *end) message() []byte {
	for {
		ev, n, err := e.parser.Message(&e.stream, e.in)
		if err != nil {
			e.t.Error(err)
			return nil
		}
		e.in = e.in[n:]
		switch {
		case ev.Op == frame.Close, n == 0 && !e.read():
			return nil
		case !ev.Op.Data():
			continue
		case !ev.Deflated:
			return bytes.Clone(ev.Payload)
		}
		e.deflated++
		m, err := e.inflater.Message(ev.Op, ev.Payload, peersMax)
		if err != nil {
			e.t.Error(err)
			return nil
		}
		return bytes.Clone(m)
	}
}

// serve answers a handshake, and each message with itself.
func (e *end) serve() {
	defer e.conn.Close()
	var window frame.Window
	u := frame.NewUpgrader(func(r *frame.Request) error {
		window = r.Deflate
		return nil
	})
	u.Deflate = true
	response, err := u.Upgrade(e.head())
	if err != nil || window == 0 {
		e.t.Errorf("window %d, error %v", window, err)
	}
	_, _ = e.conn.Write(response)
	e.parser = frame.NewServerParser(peersMax)
	e.parser.Deflate = true
	var d deflate.Deflater
	for m := e.message(); m != nil; m = e.message() {
		wire, _ := d.AppendFrame(nil, frame.Binary, m, window)
		_, _ = e.conn.Write(wire)
	}
}

// exchange sends messages of many lengths and wants each back.
func exchange(t *testing.T, send func([]byte) error, receive func() ([]byte, error)) (sent int) {
	t.Helper()
	for _, size := range []int{1, 100, 1000, 40_000, 300_000} {
		for kind, m := range map[string][]byte{"chat": chat(size), "noise": random(size)} {
			sent++
			if err := send(m); err != nil {
				t.Fatalf("%s of %d bytes: %v", kind, size, err)
			}
			if got, err := receive(); err != nil || !bytes.Equal(got, m) {
				t.Fatalf("%s of %d bytes: %d came back, error %v", kind, size, len(got), err)
			}
		}
	}
	return sent
}

// mailbox is a gws handler that hands messages out.
type mailbox struct {
	gws.BuiltinEventHandler
	messages chan []byte
	echo     bool
}

func (m *mailbox) OnMessage(c *gws.Conn, message *gws.Message) {
	defer message.Close()
	if m.echo {
		_ = c.WriteMessage(message.Opcode, message.Bytes())
		return
	}
	m.messages <- bytes.Clone(message.Bytes())
}

func TestClientsOfOtherLibraries(t *testing.T) {
	t.Run("gorilla", func(t *testing.T) {
		ours, theirs := net.Pipe()
		server := &end{t: t, conn: ours}
		served := make(chan struct{})
		go func() { server.serve(); close(served) }()
		dialer := websocket.Dialer{EnableCompression: true, NetDial: func(string, string) (net.Conn, error) { return theirs, nil }}
		c, response, err := dialer.Dial("ws://example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := response.Header.Get("Sec-WebSocket-Extensions"); got == "" {
			t.Error("no extension is agreed to")
		}
		sent := exchange(t,
			func(m []byte) error { return c.WriteMessage(websocket.BinaryMessage, m) },
			func() ([]byte, error) { _, m, err := c.ReadMessage(); return m, err })
		c.Close()
		if <-served; server.deflated != sent {
			t.Errorf("%d of %d messages came compressed", server.deflated, sent)
		}
	})
	for _, bits := range []int{8, 12, 15} {
		t.Run(fmt.Sprint("gws, server window ", bits), func(t *testing.T) {
			ours, theirs := net.Pipe()
			server := &end{t: t, conn: ours}
			served := make(chan struct{})
			go func() { server.serve(); close(served) }()
			box := &mailbox{messages: make(chan []byte)}
			c, _, err := gws.NewClientFromConn(box, &gws.ClientOption{Addr: "ws://example.com/", PermessageDeflate: gws.PermessageDeflate{
				Enabled: true, Threshold: 1, ServerMaxWindowBits: bits,
			}}, theirs)
			if err != nil {
				t.Fatal(err)
			}
			go c.ReadLoop()
			sent := exchange(t,
				func(m []byte) error { return c.WriteMessage(gws.OpcodeBinary, m) },
				func() ([]byte, error) { return <-box.messages, nil })
			theirs.Close()
			if <-served; server.deflated != sent {
				t.Errorf("%d of %d messages came compressed", server.deflated, sent)
			}
		})
	}
}

// hijacked is a connection whose request was read.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
	buf  *bufio.ReadWriter
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.conn, h.buf, nil }

func TestServersOfOtherLibraries(t *testing.T) {
	servers := map[string]func(w http.ResponseWriter, r *http.Request) error{
		"gorilla": func(w http.ResponseWriter, r *http.Request) error {
			c, err := (&websocket.Upgrader{EnableCompression: true}).Upgrade(w, r, nil)
			if err != nil {
				return err
			}
			for {
				op, m, err := c.ReadMessage()
				if err != nil {
					return nil
				}
				_ = c.WriteMessage(op, m)
			}
		},
		"gws": func(w http.ResponseWriter, r *http.Request) error {
			c, err := gws.NewUpgrader(&mailbox{echo: true}, &gws.ServerOption{PermessageDeflate: gws.PermessageDeflate{
				Enabled: true, Threshold: 1, ServerMaxWindowBits: 10,
			}}).Upgrade(w, r)
			if err == nil {
				c.ReadLoop()
			}
			return err
		},
	}
	for name, serve := range servers {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			served := make(chan error, 1)
			go func() {
				br := bufio.NewReader(theirs)
				r, err := http.ReadRequest(br)
				if err == nil {
					err = serve(hijacked{conn: theirs, buf: bufio.NewReadWriter(br, bufio.NewWriter(theirs))}, r)
				}
				theirs.Close()
				served <- err
			}()
			_, _ = ours.Write(frame.Offer{Deflate: true}.AppendRequest(nil, "example.com", "/", frame.SampleKey))
			client := &end{t: t, conn: ours, parser: frame.NewClientParser(peersMax)}
			client.parser.Deflate = true
			if agreed, err := (frame.Offer{Deflate: true}).CheckResponse(client.head(), frame.SampleKey); err != nil || !agreed.Deflate {
				t.Fatalf("agreed %v, error %v", agreed, err)
			}
			var d deflate.Deflater
			sent := exchange(t, func(m []byte) error {
				wire := frame.AppendMasked(nil, frame.Binary|frame.Deflated, [4]byte{1, 2, 3, 4}, d.Deflate(nil, m, frame.MaxWindow))
				_, err := ours.Write(wire)
				return err
			}, func() ([]byte, error) { return client.message(), nil })
			ours.Close()
			if err := <-served; err != nil || client.deflated != sent {
				t.Errorf("%d of %d messages came compressed, error %v", client.deflated, sent, err)
			}
		})
	}
}
