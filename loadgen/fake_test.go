package loadgen

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/gobwas/ws"

	"github.com/seed-134acfd0/lull/frame"
)

// The fakes' messages are of run 0.
func init() { newID = func() uint16 { return 0 } }

// peer is the server's end of a connection, which a test writes and reads.
type peer struct {
	*testing.T
	*net.TCPConn
	in  *bufio.Reader
	out io.Writer
}

func newPeer(t *testing.T, conn net.Conn) *peer {
	return &peer{t, conn.(*net.TCPConn), bufio.NewReader(conn), conn}
}

// fake starts a server that runs the script for each connection and closes the
// connection after it. The test waits for all scripts at its end, so it hangs if
// the generator leaves a connection open.
func fake(t *testing.T, script func(*peer)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				script(newPeer(t, conn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return "ws://" + l.Addr().String() + "/"
}

// request reads the opening handshake and checks it (RFC 6455 section 4.1).
func (p *peer) request() *http.Request {
	r, err := http.ReadRequest(p.in)
	if err != nil {
		p.Errorf("request: %v", err)
		return &http.Request{Header: http.Header{}}
	}
	for name, want := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Version": "13"} {
		if got := r.Header.Get(name); got != want {
			p.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if r.Method != "GET" || r.Proto != "HTTP/1.1" || r.Host != p.LocalAddr().String() {
		p.Errorf("%s %s %s, Host %q", r.Method, r.RequestURI, r.Proto, r.Host)
	}
	return r
}

// accept is the 101 response to a request.
func accept(r *http.Request) string { return acceptKey(r.Header.Get("Sec-WebSocket-Key")) }

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"
}

// open answers the handshake and sends frames in the same write, so that the
// generator reads both at once.
func (p *peer) open(frames ...[]byte) {
	wire := []byte(accept(p.request()))
	for _, f := range frames {
		wire = append(wire, f...)
	}
	p.send(wire)
}

// send sends bytes. It ignores errors: the generator may have left.
func (p *peer) send(wire []byte) { _, _ = p.out.Write(wire) }

// next reads one frame, which must be masked and a whole message.
func (p *peer) next() (op frame.Op, payload []byte, ok bool) {
	h, err := ws.ReadHeader(p.in)
	if err != nil {
		return 0, nil, false
	}
	if err := ws.CheckHeader(h, ws.StateServerSide); err != nil || !h.Fin || h.Length > messageMax {
		p.Errorf("frame %+v: %v", h, err)
		return 0, nil, false
	}
	payload = make([]byte, h.Length)
	if _, err := io.ReadFull(p.in, payload); err != nil {
		return 0, nil, false
	}
	ws.Cipher(payload, h.Mask, 0)
	return frame.Op(h.OpCode), payload, true
}

// rest reads until a Close frame, which it answers, or the connection's end. It
// returns the messages before that.
func (p *peer) rest() (messages [][]byte) {
	for {
		op, payload, ok := p.next()
		switch {
		case !ok:
			return messages
		case op == frame.Close:
			p.send(frame.Append(nil, frame.Close, payload))
			return messages
		}
		messages = append(messages, payload)
	}
}

// reset ends the connection with RST.
func (p *peer) reset() {
	if err := p.SetLinger(0); err != nil {
		p.Error(err)
	}
	p.Close()
}

// answer is what a server makes of a connection's message with a number, from 0: what it sends,
// and whether the connection goes on.
type answer = func(n int, op frame.Op, payload []byte) (wire []byte, goesOn bool)

// same answers with the same message.
func same(_ int, op frame.Op, payload []byte) ([]byte, bool) {
	return frame.Append(nil, op, payload), true
}

// answer answers messages until that says to end, or the connection ends, and Pings and the Close
// frame too. It returns how many messages came.
func (p *peer) answer(with answer) (n int) {
	for {
		op, payload, ok := p.next()
		switch {
		case !ok:
			return n
		case op == frame.Close:
			p.send(frame.Append(nil, frame.Close, payload))
			return n
		case op == frame.Ping:
			p.send(frame.Append(nil, frame.Pong, payload))
			continue
		}
		wire, goesOn := with(n, op, payload)
		n++
		if p.send(wire); !goesOn {
			_ = p.CloseWrite()
			_, _ = io.Copy(io.Discard, p.in) // unread bytes would make it a reset, which may overtake the answer
			return n
		}
	}
}

// answers starts a server that answers messages. connection is called for each connection.
func answers(t *testing.T, connection func() answer) (url string) {
	return fake(t, func(p *peer) { p.open(); p.answer(connection()) })
}

// echoes starts a server that answers each message with the same one.
func echoes(t *testing.T) (url string) { return answers(t, func() answer { return same }) }

// hubOf starts a chat server. What relay makes of each message is sent to each connection, to which
// there is no more to be sent if it returns false: to is the connection's number, n the
// message's, both from 0.
func hubOf(t *testing.T, relay func(to, n int, op frame.Op, payload []byte) ([]byte, bool)) (url string) {
	var mu sync.Mutex
	var peers []*peer
	n := 0
	return fake(t, func(p *peer) {
		r := p.request()
		mu.Lock()
		peers = append(peers, p) // before the answer, so that it receives every message
		mu.Unlock()
		p.send([]byte(accept(r)))
		p.answer(func(_ int, op frame.Op, payload []byte) ([]byte, bool) {
			mu.Lock()
			defer mu.Unlock()
			for to, q := range peers {
				frames, goesOn := relay(to, n, op, payload)
				if q.send(frames); !goesOn {
					_ = q.CloseWrite()
				}
			}
			n++
			return nil, true
		})
	})
}

// hub starts a chat server. For each message it sends relay's result to each
// connection: to is the connection's number, n the message's, both from 0.
func hub(t *testing.T, relay func(to, n int, payload []byte) []byte) (url string) {
	return hubOf(t, func(to, n int, op frame.Op, payload []byte) ([]byte, bool) {
		if op != frame.Binary {
			t.Errorf("a message is %s", op)
		}
		return relay(to, n, payload), true
	})
}

// chats starts a chat server, which sends each message to everybody.
func chats(t *testing.T) (url string) {
	return hubOf(t, func(_, n int, op frame.Op, payload []byte) ([]byte, bool) { return same(n, op, payload) })
}

func whole(payload []byte) []byte { return frame.Append(nil, frame.Binary, payload) }

// masked is a frame as only a client may send it.
func masked(op frame.Op, payload []byte) []byte {
	return frame.AppendMasked(nil, op, [4]byte{1, 2, 3, 4}, bytes.Clone(payload))
}
