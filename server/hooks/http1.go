package hooks

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// transport carries calls to a backend. Any goroutine may use it.
type transport interface {
	// do makes a call within a time. The answer is valid until done is called, which has
	// to be called unless there is an error. An error is unsent if the backend cannot have
	// seen the call.
	do(c *call, at time.Time, timeout time.Duration) (a answer, done func(), err error)
	// close ends the calls that are under way, and all that come later.
	close()
}

// http1 speaks HTTP/1.1, one call at a time on a connection, and keeps connections. It
// reads with fasthttp's parser; it does not use fasthttp's client, because that makes a
// call again that the backend may have seen.
type http1 struct {
	to     target
	signer *signer
	most   int // bytes of an answer
	dialer net.Dialer

	mu     sync.Mutex
	idle   []*wire            // the last used last; guarded by mu
	busy   map[*wire]struct{} // guarded by mu
	closed bool               // guarded by mu
}

// idleTime is how long a connection may wait for its next call. What a backend closes
// meanwhile is noticed before it is used.
const idleTime = time.Minute

var errTransportClosed = errors.New("hooks: closed")

func newHTTP1(to target, s *signer, most int) *http1 {
	return &http1{to: to, signer: s, most: most, busy: map[*wire]struct{}{}}
}

// wire is a connection to a backend.
type wire struct {
	conn   net.Conn
	socket syscall.RawConn
	in     *bufio.Reader
	out    []byte
	since  time.Time // when it was used last
}

// headMost is how many bytes the head of an answer may have.
const headMost = 8 << 10

// exchange is one call and its answer.
type exchange struct{ response fasthttp.Response }

// interimMost is how many interim responses, with a status of 1xx, may come before an
// answer (RFC 9110 section 15.2), and the answer.
const interimMost = 8

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// Get is for the answer's header.
func (x *exchange) Get(name string) string { return string(x.response.Header.Peek(name)) }

func (x *exchange) give() {
	x.response.Reset()
	exchanges.Put(x)
}

func (t *http1) do(c *call, at time.Time, timeout time.Duration) (answer, func(), error) {
	w, err := t.take(at, timeout)
	if err != nil {
		return answer{}, nil, unsent{err}
	}
	t.spell(w, c, at)
	if err := w.conn.SetDeadline(at.Add(timeout)); err != nil {
		t.drop(w)
		return answer{}, nil, unsent{err}
	}
	n, err := w.conn.Write(w.out)
	if err != nil {
		t.drop(w)
		if n == 0 {
			err = unsent{err}
		}
		return answer{}, nil, err
	}
	x := exchanges.Get().(*exchange)
	x.response.SkipBody = c.event == ""
	for range interimMost {
		err = x.response.ReadLimitBody(w.in, t.most)
		if err != nil || x.response.StatusCode() >= http.StatusOK {
			break
		}
	}
	if err != nil || x.response.StatusCode() < http.StatusOK {
		t.drop(w)
		x.give()
		return answer{}, nil, readError(err, t.most)
	}
	a := answer{x.response.StatusCode(), x, x.response.Body()}
	if c.event == "" || x.response.ConnectionClose() || w.in.Buffered() > 0 {
		t.drop(w)
	} else {
		t.keep(w, at)
	}
	return a, x.give, nil
}

// spell writes a request to w.out.
func (t *http1) spell(w *wire, c *call, at time.Time) {
	b := w.out[:0]
	b = append(b, c.method()...)
	b = append(append(append(b, ' '), t.to.uri...), " HTTP/1.1\r\n"...)
	field := func(name, value string) {
		b = append(append(b, name...), ": "...)
		b = append(append(b, value...), "\r\n"...)
	}
	field("Host", t.to.host)
	field("User-Agent", agent)
	c.head(at, t.signer, field)
	field("Content-Length", strconv.Itoa(len(c.body)))
	b = append(b, "\r\n"...)
	w.out = append(b, c.body...)
}

// agent is what lull is called in User-Agent.
const agent = "lull"

// take returns a connection that the backend has not closed.
func (t *http1) take(at time.Time, timeout time.Duration) (*wire, error) {
	for {
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return nil, errTransportClosed
		}
		var w *wire
		if n := len(t.idle); n > 0 {
			w = t.idle[n-1]
			t.idle = t.idle[:n-1]
			t.busy[w] = struct{}{}
		}
		t.mu.Unlock()
		switch {
		case w == nil:
			return t.dial(at, timeout)
		case at.Sub(w.since) < idleTime && w.alive():
			return w, nil
		}
		t.drop(w)
	}
}

func (t *http1) dial(at time.Time, timeout time.Duration) (*wire, error) {
	d := t.dialer
	d.Deadline = at.Add(timeout)
	conn, err := d.Dial(t.to.network, t.to.address)
	if err != nil {
		return nil, err
	}
	w := &wire{conn: conn, in: bufio.NewReaderSize(conn, headMost), since: at}
	if s, ok := conn.(syscall.Conn); ok {
		w.socket, _ = s.SyscallConn() // nil if there is none
	}
	if t.to.secure {
		secured := tls.Client(conn, &tls.Config{ServerName: t.to.name, RootCAs: t.to.roots, NextProtos: []string{"http/1.1"}})
		ctx, cancel := context.WithDeadline(context.Background(), d.Deadline)
		defer cancel()
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		w.conn, w.in = secured, bufio.NewReaderSize(secured, headMost)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		conn.Close()
		return nil, errTransportClosed
	}
	t.busy[w] = struct{}{}
	return w, nil
}

// keep keeps a connection for the next call.
func (t *http1) keep(w *wire, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w.since = at
	if cap(w.out) > outKept {
		w.out = nil
	}
	if delete(t.busy, w); t.closed {
		w.conn.Close()
		return
	}
	t.idle = append(t.idle, w)
}

// outKept is the largest buffer that a connection keeps.
const outKept = 16 << 10

func (t *http1) drop(w *wire) {
	t.mu.Lock()
	delete(t.busy, w)
	t.mu.Unlock()
	w.conn.Close()
}

func (t *http1) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, w := range t.idle {
		w.conn.Close()
	}
	for w := range t.busy {
		w.conn.Close()
	}
	t.idle = nil
}

// alive reports whether the backend has neither closed the connection nor said anything
// that nobody asked for.
func (w *wire) alive() bool {
	if w.socket == nil {
		return false
	}
	alive := false
	err := w.socket.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		alive = err == syscall.EAGAIN || err == syscall.EINTR
	})
	return err == nil && alive
}

// Errors of answers.
var (
	errLarge   = errors.New("the answer is too large")
	errTimeout = errors.New("no answer in time")
	errCut     = errors.New("the connection ended before the answer did")
	errGarbage = errors.New("the answer is no HTTP")
)

// readError says what was wrong with an answer.
func readError(err error, most int) error {
	var late interface{ Timeout() bool }
	switch {
	case err == nil:
		return fmt.Errorf("%w: too many interim responses", errGarbage)
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return fmt.Errorf("%w: more than %d bytes", errLarge, most)
	case errors.As(err, &late) && late.Timeout():
		return errTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
		return errCut
	}
	return fmt.Errorf("%w: %.100s", errGarbage, strings.ToValidUTF8(err.Error(), "?"))
}
