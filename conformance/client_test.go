package conformance

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/internal/testkit"
)

// socket holds what is written until it is flushed, or somebody reads in the TLS
// handshake: so what belongs together leaves in one piece.
type socket struct {
	*net.TCPConn
	held        []byte
	handshaking bool
}

func (s *socket) Write(p []byte) (int, error) {
	s.held = append(s.held, p...)
	return len(p), nil
}

// SetWriteDeadline is what crypto/tls calls behind close_notify, to make all writes
// fail. But that is still held.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

func (s *socket) flush() error {
	p := s.held
	s.held = nil
	if len(p) == 0 {
		return nil
	}
	_, err := s.TCPConn.Write(p)
	return err
}

func (s *socket) Read(p []byte) (int, error) {
	if s.handshaking {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	return s.TCPConn.Read(p)
}

// client is a client of a server.
type client struct {
	net.Conn // the socket, or TLS over it
	socket   *socket
	in       *bufio.Reader
	deflate  bool // compressed messages may come
}

// dial connects. Over TLS the handshake is over, and its last message is not sent
// before something else is.
func (s *server) dial() (*client, error) {
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		return nil, err
	}
	must(conn.SetDeadline(time.Now().Add(testkit.Patience)))
	c := &client{socket: &socket{TCPConn: conn.(*net.TCPConn)}}
	c.Conn = c.socket
	if s.tls != nil {
		secure := tls.Client(c.socket, s.tls)
		c.socket.handshaking = true
		if err := secure.Handshake(); err != nil {
			return nil, err
		}
		c.socket.handshaking = false
		c.Conn = secure
	}
	c.in = bufio.NewReader(c.Conn)
	return c, nil
}

// write sends p, together with what is held of the TLS handshake.
func (c *client) write(p []byte) error {
	_, err := c.Write(p)
	return errors.Join(err, c.socket.flush())
}

// sendPieces sends one piece after another, and hangs up if it is told to.
func (c *client) sendPieces(pieces [][]byte, hangUp bool) error {
	for _, p := range pieces {
		if err := c.write(p); err != nil {
			return err
		}
	}
	if hangUp {
		return c.hangUp()
	}
	return nil
}

// hangUp ends the client's side: with close_notify over TLS, and FIN. What was
// written and not flushed goes out with it.
func (c *client) hangUp() error {
	if secure, ok := c.Conn.(*tls.Conn); ok {
		if err := secure.CloseWrite(); err != nil {
			return err
		}
	}
	return errors.Join(c.socket.flush(), c.socket.CloseWrite())
}

// sendAll sends everything at once, and hangs up.
func (c *client) sendAll(request []byte, pieces [][]byte) error {
	if _, err := c.Write(append(request, bytes.Join(pieces, nil)...)); err != nil {
		return err
	}
	return c.hangUp()
}

const key = "dGhlIHNhbXBsZSBub25jZQ=="

// opening is a request that every server accepts.
func opening(offer string) string {
	r := "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Version: 13\r\n"
	if offer != none {
		r += "Sec-WebSocket-Extensions: " + offer + "\r\n"
	}
	return r + "\r\n"
}

// hold holds a talk with a server and returns what it has answered.
func (t *talk) hold(s *server, d *delivery, stream *stream) (got answers, err error) {
	offer, agreed := t.offer, t.agreed
	switch {
	case offer == "" && s.compress:
		offer, agreed = usual, terms
	case offer == "":
		offer = usual
	}
	c, err := s.dial()
	if err != nil {
		return got, err
	}
	defer c.socket.Close()
	c.deflate = agreed != ""
	sent := make(chan error, 1)
	if d.early {
		go func() { sent <- c.sendAll([]byte(opening(offer)), d.pieces(stream)) }()
	} else if err := c.write([]byte(opening(offer))); err != nil {
		return got, err
	}
	if err := c.accepted(agreed); err != nil {
		return got, err
	}
	if !d.early {
		go func() { sent <- c.sendPieces(d.pieces(stream), t.hangs) }()
	}
	for {
		m, err := c.next()
		if err == io.EOF {
			return got, <-sent
		}
		if err == nil {
			err = got.take(m)
		}
		if err != nil {
			return got, fmt.Errorf("%w behind %v", err, got)
		}
	}
}

// accepted reads the response that opens a connection (RFC 6455 section 4.2.2).
func (c *client) accepted(agreed string) error {
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return fmt.Errorf("read the response: %w", err)
	}
	digest := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	switch {
	case r.StatusCode != http.StatusSwitchingProtocols, r.Proto != "HTTP/1.1":
		return errors.New(r.Proto + " " + r.Status)
	case !strings.EqualFold(r.Header.Get("Upgrade"), "websocket"), !strings.EqualFold(r.Header.Get("Connection"), "upgrade"),
		r.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(digest[:]),
		r.Header.Get("Sec-WebSocket-Protocol") != "",
		r.Header.Get("Sec-WebSocket-Extensions") != agreed:
		return fmt.Errorf("response headers %v", r.Header)
	}
	return nil
}

// next reads a message or a control frame. It is io.EOF where the server has ended
// its side between two frames.
func (c *client) next() (m message, err error) {
	deflated := false
	for first := true; ; first = false {
		var head [2]byte
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			return m, err
		}
		fin, rsv, op := head[0]&0x80 != 0, head[0]>>4&7, head[0]&0xf
		size, err := c.size(head[1])
		switch {
		case err != nil:
			return m, err
		case op >= opClose && (!fin || rsv != 0 || size > 125),
			rsv&3 != 0, rsv == 4 && (!c.deflate || op == opRest), first == (op == opRest), !first && op >= opClose:
			return m, fmt.Errorf("a frame that may not be: % x", head)
		}
		if first {
			m.op, deflated = op, rsv == 4
		}
		payload := make([]byte, size)
		if _, err := io.ReadFull(c.in, payload); err != nil {
			return m, fmt.Errorf("in a frame: %w", err)
		}
		m.data += string(payload)
		if fin {
			break
		}
	}
	if deflated {
		r := flate.NewReader(strings.NewReader(m.data + "\x00\x00\xff\xff\x01\x00\x00\xff\xff"))
		plain, err := io.ReadAll(r)
		if err != nil {
			return m, fmt.Errorf("inflate: %w", err)
		}
		m.data = string(plain)
	}
	return m, nil
}

// size reads a payload's length, of which b is the first byte.
func (c *client) size(b byte) (uint64, error) {
	var wide [8]byte
	switch b {
	case 126:
		_, err := io.ReadFull(c.in, wide[6:])
		n := binary.BigEndian.Uint64(wide[:])
		if err == nil && n < 126 {
			err = errors.New("a length in more bytes than it needs")
		}
		return n, err
	case 127:
		_, err := io.ReadFull(c.in, wide[:])
		n := binary.BigEndian.Uint64(wide[:])
		if err == nil && (n < 1<<16 || n > 1<<30) {
			err = fmt.Errorf("a length of %d", n)
		}
		return n, err
	}
	if b > 127 {
		return 0, errors.New("a masked frame")
	}
	return uint64(b), nil
}
