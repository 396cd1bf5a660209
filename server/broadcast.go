package server

import (
	"sync/atomic"

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
	pending atomic.Int32 // reactors that have not sent it to all of theirs
}

// Broadcast sends a message, frame.Text or frame.Binary, to every open
// connection. Text must be UTF-8. It encodes the message once, does not keep
// data and does not wait. It returns ErrSlow when the reactors have too much
// to broadcast already, and nothing is sent then; ErrClosed when the server
// has ended. Any goroutine may call it. What one goroutine sends and
// broadcasts arrives in that order.
func (s *Server) Broadcast(opcode frame.Op, data []byte) (closed error) {
	encoded := frame.Append(make([]byte, 0, maxHeader+len(data)), opcode, data)
	size := int64(len(encoded))
	if total := s.published.Add(size); total > int64(s.options.MaxPublished) && total > size {
		s.published.Add(-size)
		return ErrSlow
	}
	p := &publication{frame: encoded}
	p.pending.Store(int32(len(s.reactors)))
	for _, r := range s.reactors {
		if err := r.mail.Force(op{kind: opBroadcast, pub: p}, nil); err != nil {
			s.delivered(p)
			closed = ErrClosed
		}
	}
	return closed
}

// delivered takes note that one reactor has done its part of p.
func (s *Server) delivered(p *publication) {
	if p.pending.Add(-1) == 0 {
		s.published.Add(-int64(len(p.frame)))
	}
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
	begin uint32 // its position
	due   uint64 // the hand's time at which everybody has been sent it
}

func (l *broadcastLog) busy() bool { return len(l.frames) > 0 }

// end is the position behind the last frame.
func (l *broadcastLog) end() uint32 { return l.base + uint32(len(l.bytes)) }

// time counts the hand's steps, in laps and slots.
func (l *broadcastLog) time() uint64 { return uint64(l.lap)<<32 | uint64(l.hand) }

func (l *broadcastLog) add(p *publication) {
	l.frames = append(l.frames, logged{p, l.end(), l.time() + 1<<32})
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
			r.server.delivered(l.pub)
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
	r.count[MessagesOut] += uint64(len(frames))
	sent, done := r.offer(c, owed)
	if done {
		return
	}
	r.owe(c, func(o *outbox) {
		for _, l := range frames {
			if f := l.pub.frame; sent < len(f) {
				o.share(f[sent:])
				sent = 0
			} else {
				sent -= len(f)
			}
		}
	})
}
