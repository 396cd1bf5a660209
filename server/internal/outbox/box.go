package outbox

import "slices"

// Policy says what happens to a message for which a Box has no room.
type Policy uint8

// The zero Policy marks what is no message: control frames and responses, which
// are never dropped.
const (
	Close   Policy = iota + 1 // its connection is closed
	DropNew                   // it is dropped
	DropOld                   // the oldest messages that are DropOld or Latest are dropped for it
	Latest                    // DropOld; and it replaces the one of the same ID, even where there is room
)

// Frame is an encoded frame that waits, or what is left of one.
type Frame struct {
	Data   []byte // the Box keeps it and does not change it
	ID     uint32 // tells Latest messages apart
	Policy Policy
	Pong   bool // a Pong: only the newest need be sent (RFC 6455 section 5.5.3)
	Begun  bool // some of it was sent: it can not be dropped any more
}

// Size is what a frame counts for: nothing unless it is a message.
func (f *Frame) Size() Size {
	if f.Policy == 0 {
		return 0
	}
	return SizeOf(1, len(f.Data))
}

// Box holds the frames that a peer's socket did not take, oldest first. They are
// kept one by one, so that one can be dropped and none is ever cut. The zero Box
// is empty. Only one goroutine may use it.
type Box struct {
	queue []Frame
	bytes int
	size  Size
}

// Bytes is how many bytes wait, control frames included.
func (b *Box) Bytes() int { return b.bytes }

// Size is how many messages wait, and their bytes.
func (b *Box) Size() Size { return b.size }

// Outcome is what Put did.
type Outcome struct {
	Fate      Fate
	Old       Size // of the messages that were dropped to make room
	Conflated Size // of the message that the new one replaced
}

// Fate is what became of a message.
type Fate uint8

// Fates.
const (
	Sent     Fate = iota // its socket has taken it
	Queued               // it waits in the Box
	Dropped              // there was no room, by its Policy
	Overflow             // there was no room, and its connection has to be closed
)

// Put adds a message if there is room, or makes room, as its Policy says.
// There is room up to bound, and for a message of any size while half of it is
// free, so that a bound need not be as large as the largest message. full says that all Boxes
// together hold too much: then only a message whose Policy is Close is added, and
// the caller has to close somebody.
func (b *Box) Put(f Frame, bound Size, full bool) (o Outcome) {
	if f.Policy == Latest {
		if i := b.find(func(q *Frame) bool { return q.Policy == Latest && q.ID == f.ID }); i >= 0 {
			removed := b.remove(i)
			o.Conflated = removed.Size()
		}
	}
	for !f.Begun && !b.room(&f, bound, full) {
		if f.Policy == Close {
			o.Fate = Overflow
			return o
		}
		i := -1
		if f.Policy != DropNew {
			i = b.find(func(q *Frame) bool { return q.Policy == DropOld || q.Policy == Latest })
		}
		if i < 0 {
			o.Fate = Dropped
			return o
		}
		removed := b.remove(i)
		o.Old += removed.Size()
		full = false // what was dropped has made room for all
	}
	b.add(f)
	o.Fate = Queued
	return o
}

func (b *Box) room(f *Frame, bound Size, full bool) bool {
	if full && f.Policy != Close {
		return false
	}
	return b.size.room(f.Size(), bound)
}

// PutControl adds a control frame, or a response, without regard to a bound. A
// Pong replaces one that waits.
func (b *Box) PutControl(f Frame) {
	if f.Pong {
		if i := b.find(func(q *Frame) bool { return q.Pong }); i >= 0 {
			b.remove(i)
		}
	}
	b.add(f)
}

func (b *Box) add(f Frame) {
	b.bytes += len(f.Data)
	b.size += f.Size()
	b.queue = append(b.queue, f)
}

// find returns the oldest frame that is wanted and not begun, -1 if there is
// none.
func (b *Box) find(wanted func(*Frame) bool) int {
	for i := range b.queue {
		if f := &b.queue[i]; !f.Begun && wanted(f) {
			return i
		}
	}
	return -1
}

func (b *Box) remove(i int) Frame {
	f := b.queue[i]
	b.bytes -= len(f.Data)
	b.size -= f.Size()
	if i == 0 {
		b.queue[0] = Frame{}
		b.queue = b.queue[1:]
	} else {
		b.queue = slices.Delete(b.queue, i, i+1)
	}
	if len(b.queue) == 0 {
		b.queue = nil
	}
	return f
}

// Next returns what to send next: a whole frame, or several small ones, copied
// back to back to scratch. The Box must not be empty.
func (b *Box) Next(scratch []byte) []byte {
	first := b.queue[0].Data
	n := 0
	for i := range b.queue {
		data := b.queue[i].Data
		if n+len(data) > len(scratch) {
			break
		}
		n += copy(scratch[n:], data)
	}
	if n <= len(first) {
		return first
	}
	return scratch[:n]
}

// Sent removes the first n bytes and returns what they count for. A message
// counts as sent when its last byte is.
func (b *Box) Sent(n int) Size {
	before := b.size
	for n > 0 {
		first := &b.queue[0]
		if n >= len(first.Data) {
			n -= len(first.Data)
			b.remove(0)
			continue
		}
		b.bytes -= n
		b.size -= first.Size()
		first.Data, first.Begun = first.Data[n:], true
		b.size += first.Size()
		break
	}
	return before - b.size
}
