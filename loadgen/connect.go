package loadgen

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// inFlight bounds the connections that one worker is opening at a time, unless
// some are wss://.
const inFlight = 512

// ramp is the connections that are still to be opened.
type ramp struct {
	order
	begun       time.Duration // when the order came
	lastConnect time.Duration // since begun, when the last connect was called
	started     int           // connects called
	opening     int           // connects whose connection is neither open nor failed
}

// connectSome starts the connections that are due.
func (w *worker) connectSome() {
	w.reconnectSome()
	r := &w.ramp
	if r.started == r.count {
		return
	}
	due := min(r.count, pacer{r.rate}.due(w.now-r.begun))
	for r.started < due && r.opening < w.inFlight {
		w.connect(r.from+r.started, nil)
		r.started++
		r.lastConnect = w.now - r.begun
	}
	if r.started < due {
		w.tally.counts[Held]++
	}
}

// connect starts one connection. If its source address and port are taken, it
// uses a spare pair. again is the absence of one that was open before, otherwise nil.
func (w *worker) connect(index int, again *absence) {
	fd, err := w.socket(index)
	for err == netpoll.ErrTaken {
		w.tally.counts[Skipped]++
		if index = w.run.spare(); index < 0 {
			break
		}
		fd, err = w.socket(index)
	}
	var c *client
	if err == nil {
		if c = w.slots.Take(fd); c == nil {
			netpoll.Close(fd)
			err = unix.EMFILE
		}
	}
	switch {
	case err != nil && again != nil:
		w.tally.fail(RetryFailed, err)
		again.tries++
		w.returns.add(*again, w.now)
		return
	case err != nil:
		w.tally.fail(Failed, err)
		return
	case again != nil:
		w.returns.bySlot[w.slot(c)] = *again
	}
	c.index = uint32(index)
	c.since = micros(w.now)
	w.ramp.opening++
	if w.target(c).tls == nil {
		w.request(c)
	}
	if c.state == gone {
		return
	}
	want := netpoll.In
	if c.state == connecting {
		want = netpoll.Out
	}
	if err := w.poller.Add(int(c.FD), w.slots.Token(c), want); err != nil {
		w.drop(c, Failed, err)
	}
}

func (w *worker) socket(index int) (fd int, err error) {
	from, target := w.run.sources.Pick(index)
	return netpoll.Connect(from, w.run.targets[target].addr, w.run.config.Segment)
}

// micros is a time in 32 bits, for a slot. It wraps after 71 minutes, and a
// handshake takes less.
func micros(d time.Duration) uint32 { return uint32(d / time.Microsecond) }

// age is how long ago, at now, a connection began.
func (c *client) age(now time.Duration) time.Duration {
	return time.Duration(micros(now)-c.since) * time.Microsecond
}

// request sends the opening handshake if TCP's handshake is complete. Over
// loopback it is complete when connect returns; over a network the socket
// becomes writable later, and TLS always waits for that.
func (w *worker) request(c *client) {
	target := w.target(c)
	appendRequest := frame.AppendRequest
	if w.compression != nil {
		appendRequest = frame.AppendDeflateRequest
	}
	w.out = appendRequest(w.out[:0], target.host, target.path, w.run.key(c.index))
	wire := w.seal(c, w.out)
	n, err := netpoll.Write(int(c.FD), wire)
	switch {
	case err != nil:
		w.drop(c, refusal(err), err)
	case n == len(wire):
		c.state = requested
	case n > 0 || c.is(secured): // a socket that takes part of its first kilobyte is broken
		w.drop(c, Failed, io.ErrShortWrite)
	}
}

// response checks the server's answer and returns the bytes after it. It returns
// in unchanged while the answer is incomplete.
func (w *worker) response(c *client, in []byte) []byte {
	n, err := frame.HeadLen(in)
	switch {
	case err != nil: // HeadLen's own errors speak of a request
		err = errResponse
	case n > 0:
		err = w.shaken(c, in[:n])
	}
	switch {
	case err != nil:
		w.drop(c, Rejected, err)
		return nil
	case n == 0:
		return in
	}
	c.state = open
	w.returned(c)
	w.ramp.opening--
	w.tally.counts[Connected]++
	w.tally.measure(w.tally.handshake, c.age(w.run.elapsed()))
	return in[n:]
}

// refusal is the counter for an error while a connection opens.
func refusal(err error) Counter {
	if errors.Is(err, unix.ECONNREFUSED) {
		return Refused
	}
	return Reset
}

// sweepEvery is how often a worker looks for connections that take too long.
const sweepEvery = 250 * time.Millisecond

// expire ends the connections that did not open within ConnectTimeout.
func (w *worker) expire() {
	if w.ramp.opening == 0 || w.now-w.swept < sweepEvery {
		return
	}
	w.swept = w.now
	for i := range w.slots.High() {
		c := w.slots.At(i)
		if c != nil && c.state < open && c.age(w.now) > w.run.config.ConnectTimeout {
			w.drop(c, TimedOut, errTimeout)
		}
	}
}

var (
	errTimeout  = errors.New("the handshake was not complete in time")
	errResponse = fmt.Errorf("the response's head has more than %d bytes, or a line without CRLF", frame.MaxHead)
)

// keys derives a distinct, unpredictable key for each connection from one
// random seed, so that none has to be stored.
type keys struct{ block cipher.Block }

func newKeys(seed [16]byte) keys {
	block, err := aes.NewCipher(seed[:])
	if err != nil {
		panic(err) // cannot happen: AES takes 16 bytes
	}
	return keys{block}
}

func (k keys) of(index uint32) frame.Key {
	var nonce [16]byte
	binary.BigEndian.PutUint32(nonce[:], index)
	k.block.Encrypt(nonce[:], nonce[:])
	return frame.NewKey(nonce)
}
