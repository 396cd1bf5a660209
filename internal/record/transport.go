package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// transport is the net.Conn that crypto/tls runs a handshake over. It hands over
// one record at a time, so that crypto/tls takes nothing that stands behind the
// handshake.
type transport struct {
	// notify is called while nothing is locked, by the handshake's goroutine.
	notify func()

	// Guarded by mu. change says that there is input, or that the handshake is
	// stopped.
	mu     sync.Mutex
	change sync.Cond
	in     []byte
	out    []byte
	news   bool // there is output, or room for input again, that notify has not told
	full   bool // input was refused
	eof    bool // no more input comes
	ended  bool
	// stopped makes all reading and writing fail.
	stopped bool

	// Of the handshake's goroutine alone.
	left    int  // bytes of the record that is being handed over
	limited bool // no more than so many records may still be handed over
	records int
	sent    []byte // what was written since the secrets are known
	log     keyLog
	// What the client has offered, for the error.
	versions  []uint16
	protocols []string
}

// Read hands over as much as there is of one record. It waits for its header.
func (t *transport) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left == 0 && t.limited && t.records == 0 {
		return 0, noRecord{}
	}
	for !t.stopped && !t.eof && !t.ready() {
		if t.news {
			t.news = false
			t.mu.Unlock()
			t.notify()
			t.mu.Lock()
			continue
		}
		t.change.Wait()
	}
	if t.stopped {
		return 0, net.ErrClosed
	}
	if !t.ready() {
		return 0, io.EOF
	}
	if t.left == 0 {
		t.left = recordSize(t.in)
		t.records--
	}
	n := copy(p, t.in[:min(t.left, len(t.in))])
	t.in, t.left = t.in[n:], t.left-n
	t.news, t.full = t.news || t.full, false
	return n, nil
}

// ready reports whether there is a header, or more of the record behind it.
func (t *transport) ready() bool {
	return len(t.in) >= headerSize || t.left > 0 && len(t.in) > 0
}

// Write keeps p for Output.
func (t *transport) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return 0, net.ErrClosed
	}
	t.out = append(t.out, p...)
	t.news = true
	if t.log.size > 0 {
		t.sent = append(t.sent, p...)
	}
	return len(p), nil
}

// next is the whole record that comes next in the input, or nil.
func (t *transport) next() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	record, _, _ := cut(t.in)
	return bytes.Clone(record)
}

func (t *transport) Close() error                     { return nil }
func (t *transport) LocalAddr() net.Addr              { return inMemory{} }
func (t *transport) RemoteAddr() net.Addr             { return inMemory{} }
func (t *transport) SetDeadline(time.Time) error      { return nil }
func (t *transport) SetReadDeadline(time.Time) error  { return nil }
func (t *transport) SetWriteDeadline(time.Time) error { return nil }

// inMemory is the address of both ends.
type inMemory struct{}

func (inMemory) Network() string { return "memory" }
func (inMemory) String() string  { return "memory" }

// noRecord is the error of a read beyond the records that may be handed over. It
// is temporary, so crypto/tls may read again.
type noRecord struct{}

func (noRecord) Error() string   { return "record: no more records are handed over" }
func (noRecord) Timeout() bool   { return true }
func (noRecord) Temporary() bool { return true }

// keyLog is the tls.Config.KeyLogWriter of one handshake. It keeps the
// application secrets, in memory only.
type keyLog struct {
	client, server [maxSecret]byte
	size           int // of the secrets, zero before they are known
}

// Write takes a line: a label, the client's random bytes, and a secret, the two
// in hexadecimal. It erases the line, which crypto/tls makes for it alone and
// does not use afterwards.
func (k *keyLog) Write(line []byte) (int, error) {
	defer clear(line)
	label, rest, _ := bytes.Cut(line, []byte(" "))
	_, secret, _ := bytes.Cut(bytes.TrimSuffix(rest, []byte("\n")), []byte(" "))
	var to *[maxSecret]byte
	switch string(label) {
	case "CLIENT_TRAFFIC_SECRET_0":
		to = &k.client
	case "SERVER_TRAFFIC_SECRET_0":
		to = &k.server
	default:
		return len(line), nil
	}
	if len(secret) > 2*maxSecret {
		return 0, errKeyLog
	}
	n, err := hex.Decode(to[:], secret)
	if err != nil {
		return 0, errKeyLog
	}
	k.size = n
	return len(line), nil
}

var errKeyLog = errors.New("record: the key log is not as expected")
