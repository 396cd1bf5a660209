package server_test

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/internal/deflate"
	"github.com/seed-134acfd0/lull/internal/testkit"
)

// client is a connection's client: a plain socket, and a library's reader of frames.
type client struct {
	*net.TCPConn
	t        testing.TB
	in       *bufio.Reader
	inflater *deflate.Inflater // nil if no compression was agreed on
}

// dial connects and says nothing.
func (r *running) dial() *client {
	r.t.Helper()
	return dial(r.t, &net.Dialer{}, r.address())
}

// dialDeaf connects with small buffers, so that they are soon full if the client does
// not read.
func (r *running) dialDeaf() *client {
	r.t.Helper()
	return dial(r.t, testkit.DeafDialer(), r.address())
}

func dialTo(t testing.TB, address string) *client { return dial(t, &net.Dialer{}, address) }

func dial(t testing.TB, d *net.Dialer, address string) *client {
	t.Helper()
	conn, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	must(conn.SetDeadline(time.Now().Add(patience)))
	return &client{TCPConn: conn.(*net.TCPConn), t: t, in: bufio.NewReader(conn)}
}

// guest opens a connection. Unlike open it may run on any goroutine.
func (r *running) guest() (*client, error) {
	conn, err := net.Dial("tcp", r.address())
	if err != nil {
		return nil, err
	}
	c := newClient(r.t, conn)
	if _, err := io.WriteString(conn, request); err != nil {
		return c, err
	}
	head, err := c.tryHead()
	if err != nil {
		return c, err
	}
	return c, frame.CheckResponse([]byte(head), frame.SampleKey)
}

// open connects and completes the opening handshake.
func (r *running) open() *client {
	r.t.Helper()
	return r.dial().handshake()
}

// openMany opens n connections.
func (r *running) openMany(n int) []*client {
	r.t.Helper()
	all := make([]*client, n)
	for i := range all {
		all[i] = r.open()
	}
	return all
}

// request is the opening handshake that the tests send.
var request = string(frame.AppendRequest(nil, "localhost", "/", frame.SampleKey))

func (c *client) handshake() *client {
	c.t.Helper()
	c.write(request)
	c.accepted()
	return c
}

// deflating offers permessage-deflate, as deflateRequest does.
var deflating = frame.Offer{Deflate: true}

var deflateRequest = string(deflating.AppendRequest(nil, "localhost", "/", frame.SampleKey))

// agree completes the opening handshake with permessage-deflate.
func (c *client) agree() *client {
	c.t.Helper()
	c.write(deflateRequest)
	if agreed, err := deflating.CheckResponse([]byte(c.head()), frame.SampleKey); err != nil || !agreed.Deflate {
		c.t.Fatalf("agreed: %v, %v", agreed, err)
	}
	c.inflater = new(deflate.Inflater)
	return c
}

// accepted reads the response that completes the opening handshake.
func (c *client) accepted() {
	c.t.Helper()
	if err := frame.CheckResponse([]byte(c.head()), frame.SampleKey); err != nil {
		c.t.Fatal(err)
	}
}

// head reads a response's head.
func (c *client) head() string {
	c.t.Helper()
	head, err := c.tryHead()
	if err != nil {
		c.t.Fatalf("%v after %q", err, head)
	}
	return head
}

func (c *client) tryHead() (string, error) {
	var head strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

func (c *client) write(wire string) {
	c.t.Helper()
	if _, err := io.WriteString(c.TCPConn, wire); err != nil {
		c.t.Fatal(err)
	}
}

// writing writes in the background, for more than sockets buffer.
func (c *client) writing(wire string) {
	go func() {
		if _, err := io.WriteString(c.TCPConn, wire); err != nil {
			c.t.Error(err)
		}
	}()
}

// message is a client's frame with a whole message.
func message(op frame.Op, payload string) string {
	return string(frame.AppendMasked(nil, op, randomMask(), []byte(payload)))
}

// piece is a client's frame of any kind: b is the header's first byte.
func piece(b byte, payload string) string {
	h := ws.Header{Fin: b&fin != 0, Rsv: b >> 4 & 7, OpCode: ws.OpCode(b & 15), Length: int64(len(payload)), Masked: true, Mask: randomMask()}
	body := []byte(payload)
	ws.Cipher(body, h.Mask, 0)
	var wire strings.Builder
	if err := ws.WriteHeader(&wire, h); err != nil {
		panic(err)
	}
	return wire.String() + string(body)
}

// fin is the bit of a frame that ends its message.
const fin = 0x80

func randomMask() (m [4]byte) {
	for i := range m {
		m[i] = byte(rand.Uint32())
	}
	return m
}

// closing is a client's Close frame.
func closing(code frame.Code, reason string) string {
	return message(frame.Close, string(frame.AppendClosePayload(nil, code, reason)))
}

// send sends a whole message.
func (c *client) send(op frame.Op, payload string) {
	c.t.Helper()
	c.write(message(op, payload))
}

// next reads a frame, and inflates what is compressed. It may run on any goroutine.
func (c *client) next() (frame.Op, string, error) {
	h, err := ws.ReadHeader(c.in)
	side, deflated := ws.StateClientSide, false
	if c.inflater != nil && frame.Op(h.OpCode).Data() {
		side, deflated = side.Set(ws.StateExtended), h.Rsv1()
	}
	if err == nil {
		err = ws.CheckHeader(h, side)
	}
	if err != nil {
		return 0, "", err
	}
	payload := make([]byte, h.Length)
	if _, err = io.ReadFull(c.in, payload); err == nil && deflated {
		payload, err = c.inflater.Message(frame.Op(h.OpCode), payload, 1<<30)
	}
	return frame.Op(h.OpCode), string(payload), err
}

func (c *client) expect(op frame.Op, payload string) {
	c.t.Helper()
	gotOp, got, err := c.next()
	if err != nil || gotOp != op || got != payload {
		c.t.Fatalf("got %v %.100q (%d bytes), %v, want %v %.100q (%d bytes)", gotOp, got, len(got), err, op, payload, len(payload))
	}
}

// expectClose reads a Close frame and returns its reason.
func (c *client) expectClose(code frame.Code) string {
	c.t.Helper()
	op, payload, err := c.next()
	got, reason := frame.ParseClose([]byte(payload))
	if err != nil || op != frame.Close || got != code {
		c.t.Fatalf("got %v %.100q, %v, want a Close frame with %d", op, payload, err, code)
	}
	return string(reason)
}

// expectEnd reads the stream's end.
func (c *client) expectEnd() {
	c.t.Helper()
	if b, err := c.in.ReadByte(); err != io.EOF {
		c.t.Fatalf("got %#x, %v, want the stream's end", b, err)
	}
}

// expectCut reads and discards until the connection ends, with or without a reset.
func (c *client) expectCut() {
	c.t.Helper()
	_, err := io.Copy(io.Discard, c.in)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatal("the server keeps the connection")
	}
}

// echoed sends a message and checks that it is echoed.
func (c *client) echoed(payload string) {
	c.t.Helper()
	c.send(frame.Text, payload)
	c.expect(frame.Text, payload)
}

// leave completes a closing handshake.
func (c *client) leave() {
	c.t.Helper()
	c.write(closing(frame.NormalClosure, ""))
	c.expectClose(frame.NormalClosure)
	c.expectEnd()
	c.Close()
}

// reset ends the connection with RST, which discards what the server has not read.
func (c *client) reset() {
	c.t.Helper()
	if err := c.SetLinger(0); err != nil {
		c.t.Fatal(err)
	}
	c.Close()
}
