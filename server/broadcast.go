package server

import (
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/frame"
)

// A pass goes on for at most this much in a turn, about a quarter of a
// millisecond. Then other threads may run, and the reactor looks at its events
// again: a broadcast to everybody must not make anybody wait.
const (
	passSends  = 32
	passVisits = 4 << 10 // slots, many of which may have nothing to be sent
)

// publication is a broadcast on its way to all reactors. They share its frame,
// which nobody changes.
type publication struct {
	frame   []byte
	size    int64 // as it is counted in Server.published
	kind    Kind
	receipt func(Receipt)

	mu      sync.Mutex
	pending int     // reactors that have not sent it to all of theirs; guarded by mu
	tally   Receipt // of the others; guarded by mu
}

// Receipt says what became of a broadcast, when every connection that was open
// has had its turn. Together its numbers are those connections.
type Receipt struct {
	Sent    int       // connections whose socket took it
	Owed    int       // connections that will be sent it when they are less slow
	Dropped int       // connections for which it was dropped, by their WhenSlow
	Closed  int       // connections that were closed before they got it
	Last    time.Time // when the last connection had its turn
}

func (t *Receipt) add(f fate) {
	switch f {
	case fateSent:
		t.Sent++
	case fateOwed:
		t.Owed++
	case fateDropped:
		t.Dropped++
	case fateClosed:
		t.Closed++
	}
}

// Broadcast sends a message, frame.Text or frame.Binary, to every open
// connection. Text must be UTF-8. It encodes the message once, does not keep
// data and does not wait. It returns ErrSlow when the reactors have too much
// to broadcast already, by Options.MaxPublished, and nothing is sent then;
// ErrClosed when the server has ended. Any goroutine may call it. What one
// goroutine sends and broadcasts arrives in that order.
func (s *Server) Broadcast(opcode frame.Op, data []byte) error {
	return s.BroadcastAs(Kind{}, opcode, data, nil)
}

// BroadcastAs is Broadcast with a say in what slow peers get. receipt, if it is
// not nil, is called once, on a goroutine of its own, unless BroadcastAs
// returned an error.
func (s *Server) BroadcastAs(kind Kind, opcode frame.Op, data []byte, receipt func(Receipt)) error {
	size := publishedSize(data)
	if total := s.published.Add(size); total > int64(s.options.MaxPublished) && total > size {
		s.published.Add(-size)
		return ErrSlow
	}
	return s.publish(kind, opcode, data, receipt)
}

// Broadcast is the Server's on behalf of a connection: it never says ErrSlow.
// When the reactors have too much to broadcast already, it waits on a worker
// until they have got on; on a reactor (Inline) the message is taken, and its
// connection is not read until then. So those who broadcast more than can be
// sent are slowed down, and nobody else.
func (c Conn) Broadcast(opcode frame.Op, data []byte) error {
	s := c.server
	for {
		err := s.Broadcast(opcode, data)
		switch {
		case err != ErrSlow:
			return err
		case s.pool == nil:
			s.brake.hold(c)
			s.published.Add(publishedSize(data))
			return s.publish(Kind{}, opcode, data, nil)
		}
		s.brake.wait(s.crowded)
	}
}

func publishedSize(data []byte) int64 { return int64(maxHeader + len(data)) }

// publish posts a broadcast whose size was added to published.
func (s *Server) publish(kind Kind, opcode frame.Op, data []byte, receipt func(Receipt)) (closed error) {
	size := publishedSize(data)
	encoded := frame.Append(make([]byte, 0, size), opcode, data)
	p := &publication{frame: encoded, size: size, kind: kind, receipt: receipt, pending: len(s.reactors)}
	for _, r := range s.reactors {
		if err := r.mail.Force(op{kind: opBroadcast, pub: p}, nil); err != nil {
			p.receipt = nil
			s.passed(p, Receipt{})
			closed = ErrClosed
		}
	}
	return closed
}

// passed takes note that one reactor has done its part of p.
func (s *Server) passed(p *publication, part Receipt) {
	p.mu.Lock()
	p.pending--
	t := &p.tally
	t.Sent, t.Owed, t.Dropped, t.Closed = t.Sent+part.Sent, t.Owed+part.Owed, t.Dropped+part.Dropped, t.Closed+part.Closed
	t.Last = time.Now()
	done := p.pending == 0
	p.mu.Unlock()
	if !done {
		return
	}
	if p.receipt != nil {
		go p.receipt(p.tally)
	}
	s.published.Add(-p.size)
	if !s.crowded() {
		s.brake.release()
	}
}

// crowded is whether who was slowed down for broadcasting has to wait still.
func (s *Server) crowded() bool { return s.published.Load() > int64(s.options.MaxPublished)/2 }

// brake slows those down who broadcast more than can be sent.
type brake struct {
	mu   sync.Mutex
	free sync.Cond
	held []Conn // not read; guarded by mu
}

// wait waits until it is no longer crowded.
func (b *brake) wait(crowded func() bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for crowded() {
		b.free.Wait()
	}
}

// hold stops reading from c. A broadcast has to follow, for it is one's end
// that releases.
func (b *brake) hold(c Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = append(b.held, c)
	r, token := c.address()
	_ = r.mail.Force(op{kind: opHold, token: token}, nil)
	r.holds.Add(1)
}

// release lets all go on.
func (b *brake) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.held {
		r, token := c.address()
		_ = r.mail.Force(op{kind: opRelease, token: token}, nil)
	}
	b.held = nil
	b.free.Broadcast()
}

// broadcastLog holds the broadcasts that not all of a reactor's connections
// have been sent. Their frames lie back to back, and each connection remembers
// up to which position it was sent (conn.heard), so whatever a connection
// lacks is one piece of memory and leaves in one system call.
//
//	bytes   [ frame ][ frame ][ frame ]
//	        ▲base      ▲heard of some  ▲end: heard of those that lack nothing
//
// A hand walks the slots round and round while there are frames. A frame is
// taken out when the hand is back where it was when the frame came in.
type broadcastLog struct {
	frames []logged
	bytes  []byte
	base   uint32 // position of bytes[0]; positions wrap
	hand   uint32 // the slot that comes next
	lap    uint32
}

type logged struct {
	pub   *publication
	begin uint32        // its position
	due   uint64        // the hand's time at which everybody has been sent it
	since time.Duration // when it came in, in the clock's time
	tally Receipt
}

func (l *broadcastLog) busy() bool { return len(l.frames) > 0 }

// end is the position behind the last frame.
func (l *broadcastLog) end() uint32 { return l.base + uint32(len(l.bytes)) }

// time counts the hand's steps, in laps and slots.
func (l *broadcastLog) time() uint64 { return uint64(l.lap)<<32 | uint64(l.hand) }

func (l *broadcastLog) add(p *publication, now time.Duration) {
	l.frames = append(l.frames, logged{pub: p, begin: l.end(), due: l.time() + 1<<32, since: now})
	l.bytes = append(l.bytes, p.frame...)
}

// since returns what comes after a position, as bytes and as frames.
func (l *broadcastLog) since(position uint32) ([]byte, []logged) {
	first := len(l.frames)
	for first > 0 && int32(l.frames[first-1].begin-position) >= 0 {
		first--
	}
	return l.bytes[position-l.base:], l.frames[first:]
}

// step moves the hand on among slots below high and returns the publications
// that are delivered now.
func (l *broadcastLog) step(high int) (done []logged) {
	if l.hand++; l.hand >= uint32(high) {
		l.hand = 0
		l.lap++
	}
	n := 0
	for n < len(l.frames) && int64(l.time()-l.frames[n].due) >= 0 {
		n++
	}
	if n == 0 {
		return nil
	}
	done, l.frames = l.frames[:n], l.frames[n:]
	if len(l.frames) > 0 {
		cut := l.frames[0].begin - l.base
		l.base += cut
		l.bytes = l.bytes[cut:]
		return done
	}
	l.base = l.end()
	if l.bytes, l.frames = l.bytes[:0], nil; cap(l.bytes) > readSize {
		l.bytes = nil
	}
	return done
}

// fanOut goes on with the running pass.
func (r *reactor) fanOut() {
	sends := 0
	for visits := 0; r.log.busy() && sends < passSends && visits < passVisits; visits++ {
		c := r.slots.At(int(r.log.hand))
		if c != nil && c.state == stateOpen && c.heard != r.log.end() {
			r.catchUp(c)
			sends++
		}
		for _, l := range r.log.step(r.slots.High()) {
			r.public.passTime.add(microseconds(r.began - l.since))
			r.server.passed(l.pub, l.tally)
		}
	}
}

// catchUp sends c all broadcasts that it has not been sent.
func (r *reactor) catchUp(c *conn) {
	owed, frames := r.log.since(c.heard)
	if len(owed) == 0 {
		return
	}
	c.heard = r.log.end()
	r.count[MessagesTaken] += uint64(len(frames))
	r.count[BroadcastMessages] += uint64(len(frames))
	r.count[BroadcastSends]++
	sent := r.offer(c, owed)
	if sent == len(owed) {
		r.count[MessagesOut] += uint64(len(frames))
		for i := range frames {
			frames[i].tally.Sent++
		}
		return
	}
	for i := range frames {
		pub := frames[i].pub
		r.debt(c).add(owing(1, len(pub.frame)))
		p := parcel{data: pub.frame, id: pub.kind.ID, whenSlow: pub.kind.over(c.whenSlow)}
		frames[i].tally.add(r.place(c, p, &sent))
	}
}
