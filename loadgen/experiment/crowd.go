package experiment

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
)

// crowd are clients of rooms on two nodes that speak the subprotocol lull.rooms.v1. Each knows
// which number of its room it has to hear next.
type crowd struct {
	stays, ends netip.AddrPort
	spread      time.Duration   // in which clients come back
	members     []int           // of each room, its host included
	numbers     []atomic.Uint64 // that each room's host has said last
	workers     sync.WaitGroup

	talking, over atomic.Bool
	broken        atomic.Pointer[error] // what no client recovers from
	last          atomic.Pointer[error] // why a client failed last to connect

	settled   atomic.Int64 // clients that have come once
	returned  atomic.Int64 // clients that have come to the node that stays
	failed    atomic.Int64 // tries to connect
	heard     atomic.Int64 // numbers that clients have got beyond
	delivered atomic.Int64 // messages
	replayed  atomic.Int64 // of these, in "missed"
	missing   atomic.Int64
	twice     atomic.Int64
	told      atomic.Int64
}

const (
	resumeEvery    = time.Second // between two numbers of a host, give or take a half
	resumeTick     = 5 * time.Millisecond
	resumeProtocol = "lull.rooms.v1"
	resumeRead     = 256 << 10 // bytes at once, and the longest text
	resumeWorkers  = 2
)

// newCrowd lets a host come to each of so many rooms, at the node that stays, and so many
// others to the node that ends.
func newCrowd(stays, ends string, rooms, others int, spread time.Duration) (*crowd, error) {
	c := &crowd{spread: spread, members: make([]int, rooms), numbers: make([]atomic.Uint64, rooms)}
	var err error
	if c.stays, err = netip.ParseAddrPort(stays); err == nil {
		c.ends, err = netip.ParseAddrPort(ends)
	}
	if err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	workers := make([]*resumer, resumeWorkers)
	for i := range workers {
		waker, err := netpoll.NewWaker()
		if err != nil {
			return nil, err
		}
		workers[i] = &resumer{crowd: c, waker: waker, parser: frame.NewClientParser(resumeRead), buf: make([]byte, resumeRead)}
	}
	begun := time.Now()
	for i := range rooms + others {
		room := i % rooms
		c.members[room]++
		w := workers[i/rooms%len(workers)]
		if i < rooms {
			w = workers[i%len(workers)]
		}
		due := begun.Add(time.Duration(i) * time.Second / resumePace)
		w.clients = append(w.clients, resumeClient{number: i, room: room, host: i < rooms, fd: -1, due: due})
	}
	threads, err := netpoll.NewThreads(netpoll.Private, len(workers))
	if err != nil {
		return nil, err
	}
	for _, w := range workers {
		c.workers.Add(1)
		if err := threads.Start(func() {
			defer c.workers.Done()
			if err := w.run(); err != nil {
				c.broken.Store(&err)
			}
		}); err != nil {
			c.workers.Done()
			c.end()
			return nil, err
		}
	}
	return c, nil
}

// end ends all connections.
func (c *crowd) end() {
	c.over.Store(true)
	c.workers.Wait()
}

// said is how many messages hosts have said, and owed how many all clients have to get of them.
func (c *crowd) said() (n uint64) {
	for i := range c.numbers {
		n += c.numbers[i].Load()
	}
	return n
}

func (c *crowd) owed() (n int64) {
	for i := range c.numbers {
		n += int64(c.numbers[i].Load()) * int64(c.members[i])
	}
	return n
}

// resumeClient is one of the crowd.
//
//	away ──due──► dialling ──writable──► asking ──101──► open
//	  ▲               │                     │              │
//	  └───────────────┴─────────────────────┴──────────────┘ whatever goes wrong
type resumeClient struct {
	number, room int
	host         bool
	state        resumeState
	fd           int
	gen          uint32 // of its descriptors
	came         bool   // once
	moved        bool   // came to the node that stays, from the other one
	due          time.Time
	key          frame.Key
	stream       frame.Stream
	last         uint64 // the number that it has heard last
	at           string // its position
}

type resumeState uint8

const (
	away resumeState = iota
	dialling
	asking
	open
)

// resumer is a worker of the crowd. All but run's caller is its own.
type resumer struct {
	*crowd
	waker   *netpoll.Waker
	poller  *netpoll.Poller
	parser  *frame.Parser
	clients []resumeClient
	buf     []byte
}

// run serves the clients until it is over. It is for a thread with a descriptor table of its own.
func (w *resumer) run() (err error) {
	if w.poller, err = netpoll.NewPoller(w.waker); err != nil {
		return err
	}
	defer w.poller.Close()
	defer func() {
		for i := range w.clients {
			if c := &w.clients[i]; c.fd >= 0 {
				netpoll.Close(c.fd)
			}
		}
	}()
	next := time.Now()
	for !w.over.Load() {
		events, err := w.poller.Wait(max(0, time.Until(next)))
		if err != nil {
			return err
		}
		for i := range events {
			if t := events[i].Token(); t.Gen > 0 && w.clients[t.Slot].gen == t.Gen {
				w.ready(&w.clients[t.Slot])
			}
		}
		if now := time.Now(); !now.Before(next) {
			next = now.Add(resumeTick)
			w.tick(now)
		}
	}
	return nil
}

// tick lets clients come whose time it is, and hosts talk.
func (w *resumer) tick(now time.Time) {
	for i := range w.clients {
		c := &w.clients[i]
		switch {
		case now.Before(c.due):
		case c.state == away:
			w.dial(c, uint32(i))
		case c.state == open && c.host && w.talking.Load():
			c.due = now.Add(resumeEvery/2 + rand.N(resumeEvery))
			w.talk(c)
		}
	}
}

// dial begins to connect a client to its node.
func (w *resumer) dial(c *resumeClient, slot uint32) {
	const ports, first = 50_000, 10_000
	to := w.ends
	if c.host || c.came {
		to = w.stays
	}
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 2, 0, byte(1 + c.number/ports)}), uint16(first+c.number%ports))
	fd, err := netpoll.Connect(from, to, 0)
	if err == netpoll.ErrTaken {
		fd, err = netpoll.Connect(netip.AddrPort{}, to, 0)
	}
	if err != nil {
		w.away(c, err)
		return
	}
	c.gen++
	c.fd, c.state = fd, dialling
	if err := w.poller.Add(fd, netpoll.Token{Slot: slot, Gen: c.gen}, netpoll.In|netpoll.Out|netpoll.EdgeTriggered); err != nil {
		w.away(c, err)
	}
}

// away closes a client's connection, which comes again after a random time.
func (w *resumer) away(c *resumeClient, why error) {
	w.leave(c, rand.N(w.spread))
	if why != nil {
		w.failed.Add(1)
		w.last.Store(&why)
	}
}

func (w *resumer) leave(c *resumeClient, back time.Duration) {
	if c.fd >= 0 {
		netpoll.Close(c.fd)
	}
	c.fd, c.state, c.due = -1, away, time.Now().Add(back)
	c.gen++ // events that were found are another's
	c.stream.Reset()
}

// ready goes on with a client whose socket is ready.
func (w *resumer) ready(c *resumeClient) {
	if c.state == dialling {
		if err := netpoll.SocketError(c.fd); err != nil {
			w.away(c, err)
			return
		}
		w.ask(c)
	}
	for c.state != away {
		n := c.stream.Take(w.buf)
		if n == len(w.buf) {
			w.away(c, fmt.Errorf("a text of more than %d bytes", n))
			return
		}
		more, err := netpoll.Read(c.fd, w.buf[n:])
		if err != nil && c.state == open {
			w.away(c, nil) // its node has ended
			return
		}
		if err != nil {
			w.away(c, err)
			return
		}
		rest := w.take(c, w.buf[:n+more])
		if c.state == away {
			return
		}
		c.stream.Keep(rest)
		if more < len(w.buf)-n {
			return
		}
	}
}

// ask sends the handshake's request.
func (w *resumer) ask(c *resumeClient) {
	c.state = asking
	var nonce [16]byte
	for i := range nonce {
		nonce[i] = byte(rand.Uint32())
	}
	c.key = frame.NewKey(nonce)
	target := "/room/" + strconv.Itoa(c.room)
	if c.at != "" {
		target += "?after=" + c.at
	}
	request := frame.Offer{Protocols: resumeProtocol}.AppendRequest(nil, "127.0.0.1", target, c.key)
	if n, err := netpoll.Write(c.fd, request); err != nil || n < len(request) {
		w.away(c, fmt.Errorf("the request is not taken: %v", err))
	}
}

// take takes what has come, and returns what is incomplete.
func (w *resumer) take(c *resumeClient, in []byte) (rest []byte) {
	if c.state == asking {
		n, err := frame.HeadLen(in)
		if err == nil && n == 0 {
			return in
		}
		if err == nil {
			_, err = frame.Offer{Protocols: resumeProtocol}.CheckResponse(in[:n], c.key)
		}
		if err != nil {
			w.away(c, err)
			return nil
		}
		c.state, in = open, in[n:]
	}
	for {
		e, n, err := w.parser.Message(&c.stream, in)
		if err != nil {
			w.fail(err)
			return nil
		}
		in = in[n:]
		switch {
		case e.Op == frame.Text:
			if err := w.hear(c, e.Payload); err != nil {
				w.fail(fmt.Errorf("%.200q: %w", e.Payload, err))
			}
		case e.Op == frame.Close:
			w.leave(c, w.retryOf(e.Payload))
			return nil
		case n == 0:
			return in
		}
	}
}

// fail ends the run: a server that breaks the protocol has broken everything.
func (w *resumer) fail(err error) {
	err = fmt.Errorf("experiment: %w", err)
	w.broken.Store(&err)
	w.over.Store(true)
}

// retryOf is after what time a Close frame asks its client to come back.
func (c *crowd) retryOf(payload []byte) time.Duration {
	_, reason := frame.ParseClose(payload)
	if text, ok := strings.CutPrefix(string(reason), "retry="); ok {
		if d, err := time.ParseDuration(text); err == nil {
			return d
		}
	}
	return rand.N(c.spread)
}

// hear takes a text of the subprotocol.
func (w *resumer) hear(c *resumeClient, data []byte) error {
	var text struct {
		Type, Text, At string
		Messages       []struct{ Text string }
		Complete       bool
	}
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	switch text.Type {
	case "message":
		if err := w.number(c, text.Text); err != nil {
			return err
		}
	case "missed":
		w.arrived(c, text.Complete)
		w.replayed.Add(int64(len(text.Messages)))
		for _, m := range text.Messages {
			if err := w.number(c, m.Text); err != nil {
				return err
			}
		}
	case "lost":
		w.told.Add(1)
	}
	if text.At != "" {
		c.at = text.At
	}
	return nil
}

// arrived notes that a client has come to a node.
func (w *resumer) arrived(c *resumeClient, complete bool) {
	switch {
	case !c.came:
		w.settled.Add(1)
	case !c.host && !c.moved:
		c.moved = true
		w.returned.Add(1)
	}
	if c.came && !complete {
		w.told.Add(1)
	}
	c.came = true
}

// number takes a number: the one behind the last one, or something is wrong.
func (w *resumer) number(c *resumeClient, text string) error {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return err
	}
	w.delivered.Add(1)
	if n <= c.last {
		w.twice.Add(1)
		return nil
	}
	w.missing.Add(int64(n - c.last - 1))
	w.heard.Add(int64(n - c.last))
	c.last = n
	return nil
}

// talk has a host say its next number.
func (w *resumer) talk(c *resumeClient) {
	n := w.numbers[c.room].Add(1)
	message := frame.AppendMasked(nil, frame.Text, [4]byte{}, strconv.AppendUint(nil, n, 10))
	if m, err := netpoll.Write(c.fd, message); err != nil || m < len(message) {
		w.fail(fmt.Errorf("a host cannot talk: %v", err))
	}
}
