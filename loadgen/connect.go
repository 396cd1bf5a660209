package loadgen

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/netpoll"
)

// inFlight bounds the connections that one worker is opening at a time, unless
// some are wss://.
const inFlight = 512

// ramp is the connections that are still to be opened for the first time.
type ramp struct {
	groups      groupSet
	count       int
	pace        pace
	lastConnect time.Duration // since the ramp began, when the last connect was called
	started     int           // connects called
	opening     int           // connects whose connection is neither open nor failed
}

// span is a worker's users of a group, by their numbers in the group.
type span struct {
	next, end int // those from next on have not connected yet
	size      int
}

// spans are a worker's users of each group.
type spans []span

// next takes the next user of some groups: of the group of which the greatest part
// is left, so that groups take turns according to their sizes. ok is false if none is
// left.
func (all spans) next(groups groupSet) (group, rank int, ok bool) {
	var most float64
	for i := range all {
		s := &all[i]
		if left := float64(s.end-s.next) / float64(max(1, s.size)); groups.has(uint8(i)) && left > most {
			group, most = i, left
		}
	}
	if most == 0 {
		return 0, 0, false
	}
	s := &all[group]
	s.next++
	return group, s.next - 1, true
}

// connectSome starts the connections that are due.
func (w *worker) connectSome() {
	if w.paused {
		return
	}
	w.reconnectSome()
	r := &w.ramp
	if r.started == r.count {
		return
	}
	due := min(r.count-r.started, r.pace.due(w.now))
	for ; due > 0 && w.opening() < w.inFlight; due-- {
		r.started++
		meant := r.pace.next(w.now)
		if i, rank, ok := w.spans.next(r.groups); ok {
			g := w.run.groups[i]
			w.connect(g, uint32(w.run.config.First+g.first+rank), meant, nil)
		}
		r.lastConnect = w.now - r.pace.begun
	}
	if due > 0 {
		w.count(measure.Held, 1)
	}
}

// opening is how many connections are under way.
func (w *worker) opening() int { return w.ramp.opening + w.reopening }

// connect starts one connection, which was meant to be started at a time. If its source
// address and port are taken, it uses a spare pair. back is the absence of one that was open
// before, otherwise nil.
func (w *worker) connect(g *group, user uint32, meant time.Duration, back *absence) {
	fd, err := w.socket(g, user)
	var c *client
	if err == nil {
		if c = w.slots.Take(fd); c == nil {
			netpoll.Close(fd)
			err = unix.EMFILE
		}
	}
	switch {
	case err != nil && back != nil:
		w.fail(measure.RetryFailed, err)
		back.tries++
		w.returns.add(*back, w.now)
		return
	case err == netpoll.ErrTaken:
		w.fail(measure.NoPort, errNoPort)
		return
	case err != nil:
		w.fail(measure.Failed, err)
		return
	}
	c.user, c.group, c.since, c.got = user, g.index, micros(meant), micros(w.now)
	if back != nil {
		c.flags |= returning
		w.returns.bySlot[w.slot(c)] = *back
		w.reopening++
	} else {
		w.ramp.opening++
	}
	want := netpoll.In
	if target := w.target(c); target.tls != nil || g.HalfOpen || !target.addr.Addr().IsLoopback() {
		want = netpoll.Out // TCP's handshake comes first
	} else if w.request(c); c.state == connecting {
		want = netpoll.Out
	}
	if c.state == gone {
		return
	}
	if err := w.poller.Add(int(c.FD), w.slots.Token(c), want|netpoll.EdgeTriggered); err != nil {
		w.drop(c, measure.Failed, err)
	}
}

var errNoPort = errors.New("no source port is left: add source addresses (--sources), or let the server listen on more ports")

// socket begins to connect. It returns netpoll.ErrTaken if no source port is left.
func (w *worker) socket(g *group, user uint32) (fd int, err error) {
	number := g.source(user, w.run.config.First)
	from, target := g.ports.sources.Pick(number)
	for range sparesTried {
		fd, err = netpoll.Connect(from, g.targets[target].addr, w.run.config.Segment)
		if err != netpoll.ErrTaken {
			return fd, err
		}
		w.count(measure.Skipped, 1)
		if number = g.ports.spare(target); number < 0 {
			return -1, netpoll.ErrTaken
		}
		from, _ = g.ports.sources.Pick(number)
	}
	return -1, netpoll.ErrTaken
}

// sparesTried is how many source ports are tried for a connection.
const sparesTried = 1000

// micros is a time in 32 bits, for a slot. It wraps after 71 minutes, and a
// handshake takes less.
func micros(d time.Duration) uint32 { return uint32(d / time.Microsecond) }

// since is how long ago a time in micros was at now.
func since(now time.Duration, then uint32) time.Duration {
	return time.Duration(micros(now)-then) * time.Microsecond
}

// connected goes on when TCP's handshake is complete, or has failed.
func (w *worker) connected(c *client, token netpoll.Token) {
	if err := netpoll.SocketError(int(c.FD)); err != nil {
		w.drop(c, refusal(err), err)
		return
	}
	switch {
	case w.group(c).HalfOpen:
		w.opened(c)
		c.state = silent
		w.returned(c)
		w.count(measure.HalfOpen, 1)
	case w.target(c).tls != nil:
		w.startTLS(c)
	default:
		w.request(c)
	}
	if c.state == gone || c.state == connecting {
		return
	}
	if err := w.poller.Modify(int(c.FD), token, netpoll.In|netpoll.EdgeTriggered); err != nil {
		w.drop(c, measure.Failed, err)
	}
}

// request sends the opening handshake if TCP's handshake is complete. Over
// loopback it is complete when connect returns; over a network the socket
// becomes writable later, and TLS always waits for that.
func (w *worker) request(c *client) {
	target := w.target(c)
	offer, path, err := w.offer(c), target.path.String(), error(nil)
	if !target.path.Constant() {
		path = string(target.path.Append(nil, w.values(c, 0)))
		err = checkPath(path)
	}
	if !w.group(c).fixed && err == nil {
		err = checkHeader(offer)
	}
	if err != nil {
		w.drop(c, measure.Failed, err)
		return
	}
	w.out = offer.AppendRequest(w.out[:0], target.host, path, w.key(c.user))
	wire := w.seal(c, w.out)
	n, err := netpoll.Write(int(c.FD), wire)
	w.count(measure.BytesOut, n)
	switch {
	case err != nil:
		w.drop(c, refusal(err), err)
	case n == len(wire):
		c.state = requested
	case n > 0 || c.is(secured): // a socket that takes part of its first kilobyte is broken
		w.drop(c, measure.Failed, io.ErrShortWrite)
	}
}

// offer is what c's request asks for. Its random parts are the same each time.
func (w *worker) offer(c *client) frame.Offer {
	g := w.group(c)
	if g.fixed {
		return g.offer
	}
	v := *w.values(c, 0)
	v.Random = rand.New(rand.NewPCG(uint64(c.user), w.run.random))
	return g.offerFor(&v)
}

// checkPath refuses a path that would end the request line or is none (RFC 9112 section 3.2).
func checkPath(path string) error {
	for i := range len(path) {
		if b := path[i]; b <= ' ' || b >= 0x7f {
			return fmt.Errorf("the filled-in path %.100q has a character that a URL cannot have", path)
		}
	}
	return nil
}

// checkHeader refuses lines that were filled in with line ends of their own.
func checkHeader(o frame.Offer) error {
	if bytes.Count(o.Header, []byte("\n")) != bytes.Count(o.Header, []byte("\r\n")) {
		return fmt.Errorf("a filled-in header has a line end: %.100q", o.Header)
	}
	for i := range len(o.Protocols) {
		if b := o.Protocols[i]; b < ' ' || b >= 0x7f {
			return fmt.Errorf("the filled-in subprotocols %.100q have a character that they cannot have", o.Protocols)
		}
	}
	return nil
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
		w.drop(c, measure.Rejected, err)
		return nil
	case n == 0:
		return in
	}
	w.opened(c)
	c.state, c.got = open, 0
	c.flags |= missing
	w.opens[c.group]++
	had := w.returned(c)
	w.count(measure.Connected, 1)
	w.measure(measure.Handshake, since(w.run.elapsed(), c.since))
	if w.startScript(c); had != nil && c.state == open && w.present(w.now) < had.end {
		w.join(c, had)
	}
	return in[n:]
}

// shaken checks the head of a response to c.
func (w *worker) shaken(c *client, head []byte) error {
	agreed, err := w.offer(c).CheckResponse(head, w.key(c.user))
	if err == nil && w.group(c).Compress && !agreed.Deflate {
		return errPlain
	}
	return err
}

// opened takes note that c is not under way any more.
func (w *worker) opened(c *client) {
	if c.is(returning) {
		w.reopening--
	} else {
		w.ramp.opening--
	}
}

// refusal is the counter for an error while a connection opens.
func refusal(err error) measure.Counter {
	if errors.Is(err, unix.ECONNREFUSED) {
		return measure.Refused
	}
	return measure.Reset
}

// sweepEvery is how often a worker looks at each connection, as long as some may take too long; less
// often where they have long, because most are not in the processor's cache: an eighth of the time that
// they have. It looks at about sweepMost in a turn, and at no more than one in sweepSlot: a million took
// 15 ms.
const (
	sweepEvery = 250 * time.Millisecond
	sweepPart  = 8
	sweepSlot  = time.Microsecond
	sweepMost  = 4096
)

// sweepTime is how long it takes until a worker has looked at all of its connections.
func (w *worker) sweepTime() time.Duration {
	return max(sweepEvery, w.run.shortestLimit()/sweepPart, time.Duration(w.slots.High())*sweepSlot)
}

// shortestLimit is the least time that any connection has to open or to end.
func (r *run) shortestLimit() time.Duration {
	limit := min(closePatience, r.config.ConnectTimeout)
	for _, g := range r.groups {
		if g.Timeout > 0 {
			limit = min(limit, g.Timeout)
		}
	}
	return limit
}

// expire ends the connections that did not open in time, and those whose server did not end
// them after the Close frame (RFC 6455 section 7.1.1).
func (w *worker) expire() {
	if w.opening()+w.goodbyes == 0 {
		w.sweep = hand{begun: w.now}
		return
	}
	w.sweep.every = w.sweepTime()
	from, to := w.sweep.next(w.slots.High(), w.now)
	for i := from; i < to; i++ {
		c := w.slots.At(i)
		switch {
		case c == nil:
		case c.state < silent && since(w.now, c.got) > w.timeLimit(c): // it may have been meant to begin much earlier
			w.drop(c, measure.TimedOut, errTimeout)
		case c.state == closing && since(w.now, c.since) > closePatience:
			w.release(c)
		}
	}
}

// untilSweep is how long it is until some connections are to be looked at.
func (w *worker) untilSweep() time.Duration {
	if w.opening()+w.goodbyes == 0 {
		return -1
	}
	return w.sweepTime() / time.Duration(1+w.slots.High()/sweepMost)
}

// closePatience is how long a server may take to end a connection after the Close frame.
const closePatience = 10 * time.Second

// timeLimit is how long c's handshakes may take together.
func (w *worker) timeLimit(c *client) time.Duration {
	if limit := w.group(c).Timeout; limit > 0 {
		return limit
	}
	return w.run.config.ConnectTimeout
}

var (
	errTimeout  = errors.New("the handshake was not complete in time")
	errPlain    = errors.New("the server does not compress")
	errResponse = fmt.Errorf("the response's head has more than %d bytes, or a line without CRLF", frame.MaxHead)
)

// keys derives a distinct, unpredictable key for each user from one
// random seed, so that none has to be stored.
type keys struct{ block cipher.Block }

func newKeys(seed [16]byte) keys {
	block, err := aes.NewCipher(seed[:])
	if err != nil {
		panic(err) // cannot happen: AES takes 16 bytes
	}
	return keys{block}
}

// of returns a user's key. nonce is room for it, so that none has to be found.
func (k keys) of(user uint32, nonce *[16]byte) frame.Key {
	*nonce = [16]byte{}
	binary.BigEndian.PutUint32(nonce[:], user)
	k.block.Encrypt(nonce[:], nonce[:])
	return frame.NewKey(*nonce)
}

// key is the handshake's key for a user.
func (w *worker) key(user uint32) frame.Key {
	if w.run.config.Floor {
		return frame.SampleKey
	}
	return w.run.keys.of(user, &w.nonce)
}
