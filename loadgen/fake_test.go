package loadgen

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

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
	if err := ws.CheckHeader(h, ws.StateServerSide); err != nil || !h.Fin || h.Length > sizeMax {
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

// hub starts a chat server. For each message it sends relay's result to each
// connection: to is the connection's number, n the message's, both from 0.
func hub(t *testing.T, relay func(to, n int, payload []byte) []byte) (url string) {
	var mu sync.Mutex
	var peers []*peer
	n := 0
	return fake(t, func(p *peer) {
		r := p.request()
		mu.Lock()
		peers = append(peers, p) // before the answer, so that it receives every message
		mu.Unlock()
		p.send([]byte(accept(r)))
		for {
			op, payload, ok := p.next()
			switch {
			case !ok:
				return
			case op == frame.Close:
				p.send(frame.Append(nil, frame.Close, payload))
				return
			case op != frame.Binary:
				p.Errorf("a message is %s", op)
			}
			mu.Lock()
			for to, q := range peers {
				q.send(relay(to, n, payload))
			}
			n++
			mu.Unlock()
		}
	})
}

func whole(payload []byte) []byte { return frame.Append(nil, frame.Binary, payload) }

// short is a context that ends a run that hangs.
func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func mustRun(t *testing.T, ctx context.Context, c Config) *Result {
	t.Helper()
	res, err := Run(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// runUntil interrupts a run when done is true.
func runUntil(t *testing.T, c Config, done func(Progress) bool) *Result {
	t.Helper()
	ctx, cancel := context.WithCancel(short(t))
	defer cancel()
	c.Progress = func(p Progress) {
		if done(p) {
			cancel()
		}
	}
	res := mustRun(t, ctx, c)
	if !res.Interrupted {
		t.Error("the run ended by itself")
	}
	return res
}

// expect compares the counters except for those that depend on timing.
func expect(t *testing.T, res *Result, want map[Counter]int) {
	t.Helper()
	for c := range tallies {
		switch c {
		case BytesIn, Held, Skipped:
			continue
		}
		if got := res.Counts[c.String()]; got != want[c] {
			t.Errorf("%s: %d, want %d", c, got, want[c])
		}
	}
	open := want[Connected]
	for _, c := range stayFailures {
		open -= want[c]
	}
	if res.Open != open {
		t.Errorf("%d open, want %d", res.Open, open)
	}
	received := 0
	for i, b := range res.Broadcasts {
		received += b.Received
		if len(res.Broadcasts) == 1 && b.Expected != b.Received+res.Lost {
			t.Errorf("broadcast %d: %d expected, %d received, %d lost", i, b.Expected, b.Received, res.Lost)
		}
	}
	if received != want[Received] {
		t.Errorf("%d received in broadcasts, want %d", received, want[Received])
	}
}

// expectError checks that errors with these words were counted n times.
func expectError(t *testing.T, res *Result, words string, n int) {
	t.Helper()
	got := 0
	for text, times := range res.Errors {
		if strings.Contains(text, words) {
			got += times
		}
	}
	if got != n {
		t.Errorf("%d errors contain %q, want %d: %v", got, words, n, fmt.Sprint(res.Errors))
	}
}
