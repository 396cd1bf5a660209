package server

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
)

// pool calls a Handler's functions on its workers, so that they may block.
// What a handler has yet to hear of a connection lies in that connection's
// inbox, in order. Inboxes take turns, so nobody can keep the workers busy.
//
//	reactor ──add──▶ inbox ──▶ pool ──▶ worker ──┬──▶ pool, if there is more
//	   ▲                                         │
//	   └────── opDrained, if it waits for it ────┘
type pool struct {
	server *Server // constant
	most   int     // workers; constant

	mu          sync.Mutex
	work        sync.Cond // first has come, or the end
	first, last *inbox    // inboxes that wait for a worker; guarded by mu
	workers     int       // guarded by mu
	resting     int       // workers that wait for an inbox; guarded by mu
	ended       bool      // guarded by mu
	running     sync.WaitGroup

	calls atomic.Int64 // in all inboxes
	bytes atomic.Int64
	busy  atomic.Int64 // workers in a handler

	waiting              atomic.Int64 // inboxes that wait for a worker
	ends                 atomic.Uint64
	waitTime, handleTime histogram
}

// newPool returns nil for a server whose handlers run on its reactors.
func newPool(s *Server) *pool {
	if s.options.Mode == Inline {
		return nil
	}
	p := &pool{server: s, most: s.options.Workers}
	p.work.L = &p.mu
	return p
}

// put lists an inbox for the next worker. Workers are started as they are
// needed, and stay.
func (p *pool) put(b *inbox) {
	b.listedAt = time.Now()
	p.waiting.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.first = b
	} else {
		p.last.next = b
	}
	p.last = b
	switch {
	case p.resting > 0:
		p.work.Signal()
	case p.workers < p.most:
		p.workers++
		p.running.Go(p.run)
	}
}

// take waits for an inbox. It returns nil at the end, when none is left.
func (p *pool) take() *inbox {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.first == nil && !p.ended {
		p.resting++
		p.work.Wait()
		p.resting--
	}
	b := p.first
	if b == nil {
		return nil
	}
	if p.first = b.next; p.first == nil {
		p.last = nil
	}
	b.next = nil
	p.waiting.Add(-1)
	return b
}

// run is a worker.
func (p *pool) run() {
	w := &worker{pool: p}
	w.upgrader = frame.NewUpgrader(w.decide)
	for b := p.take(); b != nil; b = p.take() {
		if w.turn(b) {
			p.put(b)
		}
	}
}

// end lets the workers finish what they have been given, once the reactors
// have ended, and reports whether they did in time.
func (p *pool) end(patience time.Duration) bool {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.work.Broadcast()
	done := make(chan struct{})
	go func() {
		p.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
	}
}

// turnLength is when a worker leaves an inbox for the next. A handler that
// takes longer is called once in a turn.
const turnLength = time.Millisecond

// worker is a goroutine that calls handlers.
type worker struct {
	pool     *pool
	upgrader *frame.Upgrader
	asking   *call // whose request upgrader looks at
	answer   answer
}

// turn makes calls from an inbox. It reports whether the inbox has to be
// listed again.
func (w *worker) turn(b *inbox) (again bool) {
	w.pool.busy.Add(1)
	defer w.pool.busy.Add(-1)
	begin := time.Now()
	w.pool.waitTime.add(microseconds(begin.Sub(b.listedAt)))
	for before := begin; b.refill(); {
		c, data := b.out.take()
		w.call(b, c, data)
		b.returned(len(data))
		now := time.Now()
		w.pool.handleTime.add(microseconds(now.Sub(before)))
		if before = now; now.Sub(begin) >= turnLength {
			return true
		}
	}
	return false
}

// call calls the handler. A panic closes the connection.
func (w *worker) call(b *inbox, c *call, data []byte) {
	h, s := &w.pool.server.handler, w.pool.server
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			b.broke = true
			b.tell(op{kind: opPanicked})
		}
	}()
	if b.broke && c.kind != callClose {
		return // its connection is being closed
	}
	switch c.kind {
	case callUpgrade:
		w.upgrade(b, c, data)
	case callOpen:
		h.Open(b.conn)
	case callMessage:
		h.Message(b.conn, c.op, data)
	case callPressed:
		b.pressed(h)
	case callClose:
		h.Close(b.conn, c.code, c.cause)
	}
}

// answer is what a handler's Upgrade leads to, beside the response.
type answer struct {
	tag      uint64
	whenSlow WhenSlow
	reject   error
}

func (w *worker) upgrade(b *inbox, c *call, head []byte) {
	s := w.pool.server
	w.asking, w.answer = c, answer{whenSlow: s.options.WhenSlow}
	response, err := w.upgrader.Upgrade(head)
	a := w.answer
	a.reject = err
	r, token := b.conn.address()
	_ = r.mail.Force(op{kind: opAnswer, token: token, answer: &a}, response)
}

func (w *worker) decide(fr *frame.Request) error {
	request := &Request{Request: fr, fd: -1, remote: w.asking.remote}
	err := w.pool.server.decide(request)
	w.answer.tag, w.answer.whenSlow = request.Tag, request.whenSlow(w.pool.server)
	return err
}

// inbox holds the calls that a connection's handler has yet to get. Its
// reactor adds them, one worker at a time makes them.
type inbox struct {
	pool *pool // constant
	conn Conn  // constant

	mu     sync.Mutex
	in     batch // guarded by mu
	listed bool  // in the pool's list or with a worker; guarded by mu

	out      batch       // the worker's
	broke    bool        // the handler has panicked; the worker's
	high     atomic.Bool // half full, and not drained since
	told     uint32      // turns that the handler was told; the worker's
	next     *inbox      // in the pool's list
	listedAt time.Time   // in the pool's list

	turns    atomic.Uint32 // how often the peer has become slow, or stopped being so
	pressing atomic.Bool   // a callPressed is in the inbox

	// of calls that have not returned
	calls atomic.Int64
	bytes atomic.Int64
	wish  atomic.Uint32
}

// call is one call of a handler's function.
type call struct {
	kind   callKind
	op     frame.Op       // callMessage
	code   frame.Code     // callClose
	cause  error          // callClose
	remote netip.AddrPort // callUpgrade
	end    int            // of its bytes in the batch; they begin at the end of the call before
}

type callKind uint8

const (
	callUpgrade callKind = iota // the bytes are the request head
	callOpen
	callMessage // the bytes are the message
	callPressed // Slow or Drained
	callClose
)

// batch is some calls with their bytes back to back.
type batch struct {
	calls []call
	bytes []byte
	made  int // calls that were taken
	begin int // of the next call's bytes
}

func (b *batch) take() (*call, []byte) {
	c := &b.calls[b.made]
	data := b.bytes[b.begin:c.end]
	b.made, b.begin = b.made+1, c.end
	return c, data
}

// add adds a call. data is copied.
func (b *inbox) add(c call, data []byte) {
	b.calls.Add(1)
	b.bytes.Add(int64(len(data)))
	b.pool.calls.Add(1)
	b.pool.bytes.Add(int64(len(data)))
	b.mu.Lock()
	b.in.bytes = append(b.in.bytes, data...)
	c.end = len(b.in.bytes)
	b.in.calls = append(b.in.calls, c)
	list := !b.listed
	b.listed = true
	b.mu.Unlock()
	if list {
		b.pool.put(b)
	}
}

// refill makes sure that there is a call in out. If there is none at all the
// inbox is listed no more.
func (b *inbox) refill() bool {
	if b.out.made < len(b.out.calls) {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.in.calls) == 0 {
		b.listed = false
		return false
	}
	clear(b.out.calls)
	b.in, b.out = batch{calls: b.out.calls[:0], bytes: small(b.out.bytes)}, b.in
	return true
}

// returned takes note that a call has.
func (b *inbox) returned(bytes int) {
	b.pool.calls.Add(-1)
	b.pool.bytes.Add(-int64(bytes))
	b.bytes.Add(-int64(bytes))
	b.calls.Add(-1)
	if b.high.Load() && b.below(queueUntil) && b.high.CompareAndSwap(true, false) {
		b.pool.ends.Add(1)
	}
	if b.granted(wish(b.wish.Load())) {
		b.tell(op{kind: opDrained})
	}
}

// press has the handler told that the peer has become slow, or is so no more.
// One call at a time does, however often that changes.
func (b *inbox) press() {
	b.turns.Add(1)
	if b.pressing.CompareAndSwap(false, true) {
		b.add(call{kind: callPressed}, nil)
	}
}

// pressed tells the handler. What has come and gone is told once.
func (b *inbox) pressed(h *Handler) {
	b.pressing.Store(false)
	turns := b.turns.Load()
	for turns-b.told > 2 {
		b.told += 2
	}
	for b.told != turns {
		b.told++
		h.pressure(b.conn, b.told%2 == 1)
	}
}

// tell posts something to the connection's reactor.
func (b *inbox) tell(o op) {
	r, token := b.conn.address()
	o.token = token
	_ = r.mail.Force(o, nil) // a reactor that has ended does not mind
}

// wish is what a reactor waits for before it goes on with a connection.
type wish uint32

const (
	wishNone wish = iota
	wishRoom      // the inbox is at most half full
	wishIdle      // all calls have returned
)

// pressure is what has to happen before more is read, wishNone if nothing.
func (b *inbox) pressure() wish {
	o := &b.pool.server.options
	switch {
	case b.pool.bytes.Load() > int64(o.MaxQueued):
		// Each may still have one message at a time.
		return wishIdle
	case b.calls.Load() >= int64(o.QueueMessages) || b.bytes.Load() >= int64(o.QueueBytes):
		return wishRoom
	}
	return wishNone
}

// An inbox is under pressure, for those who watch, from when it is half full
// until an eighth is left.
const (
	queueFrom  = 2
	queueUntil = 8
)

// below reports whether at most a part of what is allowed is in the inbox.
func (b *inbox) below(part int) bool {
	o := &b.pool.server.options
	return b.calls.Load() <= int64(o.QueueMessages/part) && b.bytes.Load() <= int64(o.QueueBytes/part)
}

// want makes a wish of the reactor's: opDrained will come when it is true. If
// it is true already, want is false and nothing will come.
func (b *inbox) want(w wish) bool {
	b.wish.Store(uint32(w))
	return !b.granted(w)
}

// granted reports, once, that a wish has come true.
func (b *inbox) granted(w wish) bool {
	switch w {
	case wishNone:
		return false
	case wishIdle:
		if b.calls.Load() > 0 {
			return false
		}
	case wishRoom:
		if !b.below(2) {
			return false
		}
	}
	return b.wish.CompareAndSwap(uint32(w), uint32(wishNone))
}
