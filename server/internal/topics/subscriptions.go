package topics

import (
	"errors"
	"iter"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/internal/slab"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server/internal/fanout"
)

// Subscriptions are those of a reactor's connections, and what they have still to be
// sent. Only the reactor may use them, but for Reserve and Unreserve.
//
// Each branch has its subscriptions in a ring, in the order in which they were last
// sent something:
//
//	hand ─▶ sent longest ago ⇄ … ⇄ sent last ⇄ (hand)
//
// The one under the hand is sent what it lacks, and the hand goes on. One that comes,
// or that is sent something out of turn, goes to the end. So the positions rise along
// the ring, and what the one under the hand has been sent, all have.
type Subscriptions struct {
	// constant
	directory *Directory
	reactor   uint16
	most      int32 // of a connection

	reserved atomic.Int64           // subscriptions that are there or on their way
	anchors  *netpoll.Table[anchor] // by slot
	rows     *slab.Records[row]
	rings    *netpoll.Table[ring] // by branch
	logs     *netpoll.Pool[log]
	queue    []uint32 // logs whose subscribers have something to be sent; each turn takes the first
	owing    []Branch // last references that are still to be released
}

// anchor is 8 bytes: a connection's subscriptions.
type anchor struct {
	count atomic.Int32 // those that were reserved
	first uint32       // row
}

// row is 24 bytes: a subscription.
type row struct {
	branch     uint32
	slot       uint32
	next, prev uint32 // of the ring
	sibling    uint32 // the connection's next
	heard      uint32 // position in the branch's log up to which it was sent
}

// ring is 8 bytes: a branch's subscriptions. Without any it is zero.
type ring struct {
	hand uint32 // row
	log  uint32 // zero while nobody lacks anything; then all rows have heard the same
}

// log is the publications of a branch that not all have been sent.
type log struct {
	fanout.Log
	branch uint32
	dead   bool // it waits in the queue to be freed
}

// rowsMax is the most subscriptions of a reactor: 400 MB.
const rowsMax = 1 << 24

// NewSubscriptions reserves address space for those of a reactor with so many slots. A
// connection can have most of them.
func NewSubscriptions(d *Directory, reactor, slots, most int) (*Subscriptions, error) {
	s := &Subscriptions{directory: d, reactor: uint16(reactor), most: int32(most), logs: netpoll.NewPool[log](nil)}
	var errs [3]error
	s.anchors, errs[0] = netpoll.NewTable[anchor](slots)
	s.rows, errs[1] = slab.NewRecords[row](min(slots*most, rowsMax))
	s.rings, errs[2] = netpoll.NewTable[ring](d.limit + 1)
	return s, errors.Join(errs[:]...)
}

// Reserve counts a subscription that is on its way. It returns false if the connection,
// or the reactor, has as many as it may. Any goroutine may call it.
func (s *Subscriptions) Reserve(slot uint32) bool {
	ofConn, ofAll := s.anchors.At(int(slot)).count.Add(1), s.reserved.Add(1)
	if ofConn > s.most || ofAll > int64(min(s.anchors.Len()*int(s.most), rowsMax)) {
		s.Unreserve(slot)
		return false
	}
	return true
}

// Unreserve takes back what Reserve has counted. Any goroutine may call it.
func (s *Subscriptions) Unreserve(slot uint32) {
	s.anchors.At(int(slot)).count.Add(-1)
	s.reserved.Add(-1)
}

// Join makes a subscription of a reservation and a reference to a branch. It takes both
// back if the connection subscribes already.
func (s *Subscriptions) Join(slot, id uint32) (joined bool) {
	if s.find(slot, id) != 0 {
		s.Unreserve(slot)
		s.Release(id)
		return false
	}
	a, ring := s.anchors.At(int(slot)), s.rings.At(int(id))
	i := s.rows.Take()
	*s.rows.At(i) = row{branch: id, slot: slot, sibling: a.first, heard: s.position(ring)}
	a.first = i
	s.insert(ring, i)
	s.directory.branch(Branch{s.reactor, id}).subs.Add(1)
	s.directory.subs.Add(1)
	return true
}

// Has reports whether a connection subscribes to a branch.
func (s *Subscriptions) Has(slot, id uint32) bool { return s.find(slot, id) != 0 }

// Leave ends a subscription. What it was not sent yet counts as not delivered.
func (s *Subscriptions) Leave(slot, id uint32) (left bool) {
	if s.rows.Used() == 0 {
		return false
	}
	for link := &s.anchors.At(int(slot)).first; *link != 0; link = &s.rows.At(*link).sibling {
		if i := *link; s.rows.At(i).branch == id {
			*link = s.rows.At(i).sibling
			s.end(i)
			s.Unreserve(slot)
			s.left(id)
			return true
		}
	}
	return false
}

// LeaveAll ends all subscriptions of a connection and returns how many there were.
func (s *Subscriptions) LeaveAll(slot uint32) int {
	if s.rows.Used() == 0 {
		return 0
	}
	a := s.anchors.At(int(slot))
	n := int32(0)
	for i := a.first; i != 0; n++ {
		id, next := s.rows.At(i).branch, s.rows.At(i).sibling
		s.end(i)
		s.left(id)
		i = next
	}
	if n > 0 {
		a.first = 0
		a.count.Add(-n)
		s.reserved.Add(-int64(n))
	}
	return int(n)
}

// left gives up a subscription's reference.
func (s *Subscriptions) left(id uint32) {
	s.directory.branch(Branch{s.reactor, id}).subs.Add(^uint32(0))
	s.directory.subs.Add(-1)
	s.Release(id)
}

// Release gives up a reference to a branch. The last one of a topic is given up in
// Settle: other goroutines use the Directory, and a reactor does not wait for them.
func (s *Subscriptions) Release(id uint32) {
	if b := (Branch{s.reactor, id}); !s.directory.lower(b) {
		s.owing = append(s.owing, b)
	}
}

// owingMax is how many references may wait to be given up.
const owingMax = 1 << 12

// Settle gives up references, if nobody uses the Directory, or too many wait. The reactor
// calls it in each turn.
func (s *Subscriptions) Settle() {
	switch {
	case len(s.owing) == 0:
		return
	case len(s.owing) > owingMax:
		s.directory.Release(s.owing...)
	case !s.directory.tryRelease(s.owing):
		return
	}
	s.owing = s.owing[:0]
}

// Owing reports whether Settle has something left to do.
func (s *Subscriptions) Owing() bool { return len(s.owing) > 0 }

// Topics returns the branches that a connection subscribes to.
func (s *Subscriptions) Topics(slot uint32) (branches []Branch) {
	for i := s.anchors.At(int(slot)).first; i != 0; i = s.rows.At(i).sibling {
		branches = append(branches, Branch{s.reactor, s.rows.At(i).branch})
	}
	return branches
}

// Slots iterates over the connections that subscribe to a branch, and Len is how many
// they are.
func (s *Subscriptions) Slots(id uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		hand := s.rings.At(int(id)).hand
		for i := hand; i != 0; {
			if r := s.rows.At(i); !yield(r.slot) {
				return
			} else if i = r.next; i == hand {
				return
			}
		}
	}
}

// Len is how many connections subscribe to a branch.
func (s *Subscriptions) Len(id uint32) int {
	return int(s.directory.branch(Branch{s.reactor, id}).subs.Load())
}

// Used is how many subscriptions there are.
func (s *Subscriptions) Used() int { return s.rows.Used() }

// Add adds a publication to a branch at time now. It has passed if nobody subscribes.
func (s *Subscriptions) Add(id uint32, p *fanout.Publication, now time.Duration) {
	r := s.rings.At(int(id))
	if r.hand == 0 {
		p.Passed(fanout.Tally{})
		return
	}
	if r.log == 0 {
		position := s.position(r)
		r.log = s.logs.Take()
		l := s.logs.At(r.log)
		l.branch = id
		l.Begin(position)
		s.queue = append(s.queue, r.log)
	}
	s.logs.At(r.log).Add(p, now)
}

// Busy reports whether somebody lacks something.
func (s *Subscriptions) Busy() bool { return len(s.queue) > 0 }

// Lack is what a connection lacks of a topic.
type Lack struct {
	Slot  uint32
	Log   *fanout.Log
	Heard *uint32 // to be raised to the log's end before Served
	row   uint32
}

// Next returns what is to be sent next, of the topic that is first in the queue. If
// there is none, ok is false.
func (s *Subscriptions) Next() (lack Lack, ok bool) {
	for len(s.queue) > 0 {
		if l := s.logs.At(s.queue[0]); !l.dead {
			return s.lack(s.rings.At(int(l.branch)).hand, l), true
		}
		s.logs.Put(s.queue[0])
		s.queue = s.queue[1:]
	}
	s.queue = nil
	return Lack{}, false
}

// Yield lets the next topic of the queue have its turn.
func (s *Subscriptions) Yield() {
	if len(s.queue) > 1 {
		s.queue = append(s.queue[1:], s.queue[0])
	}
}

// Lacking iterates over what a connection lacks. The loop calls Served for each.
func (s *Subscriptions) Lacking(slot uint32) iter.Seq[Lack] {
	return func(yield func(Lack) bool) {
		if !s.Busy() {
			return
		}
		for i := s.anchors.At(int(slot)).first; i != 0; i = s.rows.At(i).sibling {
			r := s.rows.At(i)
			l := s.logs.At(s.rings.At(int(r.branch)).log)
			if l != nil && r.heard != l.End() && !yield(s.lack(i, l)) {
				return
			}
		}
	}
}

// LacksOf returns what a connection lacks of one branch.
func (s *Subscriptions) LacksOf(slot, id uint32) (lack Lack, ok bool) {
	for lack := range s.Lacking(slot) {
		if s.rows.At(lack.row).branch == id {
			return lack, true
		}
	}
	return Lack{}, false
}

func (s *Subscriptions) lack(i uint32, l *log) Lack {
	r := s.rows.At(i)
	return Lack{Slot: r.slot, Log: &l.Log, Heard: &r.heard, row: i}
}

// Served takes note that a connection lacks nothing of a topic any more. What no
// subscriber lacks is done.
func (s *Subscriptions) Served(lack Lack) {
	ring := s.rings.At(int(s.rows.At(lack.row).branch))
	if ring.hand == lack.row {
		ring.hand = s.rows.At(lack.row).next
	} else {
		s.remove(lack.row)
		s.insert(ring, lack.row)
	}
	s.cut(ring)
}

// insert puts a row at the end of a ring.
func (s *Subscriptions) insert(ring *ring, i uint32) {
	r := s.rows.At(i)
	if ring.hand == 0 {
		ring.hand, r.next, r.prev = i, i, i
		return
	}
	next := s.rows.At(ring.hand)
	r.next, r.prev = ring.hand, next.prev
	s.rows.At(next.prev).next = i
	next.prev = i
}

// remove takes a row out of its ring.
func (s *Subscriptions) remove(i uint32) {
	r := s.rows.At(i)
	s.rows.At(r.prev).next = r.next
	s.rows.At(r.next).prev = r.prev
}

// end frees a row.
func (s *Subscriptions) end(i uint32) {
	r := s.rows.At(i)
	ring := s.rings.At(int(r.branch))
	if l := s.logs.At(ring.log); l != nil {
		for _, e := range l.Lacks(r.heard) {
			e.Tally.Closed++
		}
	}
	s.remove(i)
	switch {
	case r.next == i: // it was the only one
		ring.hand = 0
	case ring.hand == i:
		ring.hand = r.next
	}
	s.cut(ring)
	s.rows.Put(i)
}

// cut ends what all subscribers of a ring have been sent, and the log with the last.
func (s *Subscriptions) cut(ring *ring) {
	l := s.logs.At(ring.log)
	if l == nil {
		return
	}
	upTo := l.End()
	if ring.hand != 0 {
		upTo = s.rows.At(ring.hand).heard
	}
	for _, e := range l.Cut(upTo) {
		e.Passed(e.Tally)
	}
	if !l.Busy() {
		l.dead = true
		ring.log = 0
	}
}

// position is where a subscription that lacks nothing stands.
func (s *Subscriptions) position(ring *ring) uint32 {
	if l := s.logs.At(ring.log); l != nil {
		return l.End()
	}
	if ring.hand != 0 {
		return s.rows.At(ring.hand).heard
	}
	return 0
}

func (s *Subscriptions) find(slot, id uint32) uint32 {
	for i := s.anchors.At(int(slot)).first; i != 0; i = s.rows.At(i).sibling {
		if s.rows.At(i).branch == id {
			return i
		}
	}
	return 0
}

// Drop ends all publications, which are not sent to anybody any more, and gives up all
// references.
func (s *Subscriptions) Drop() {
	for _, i := range s.queue {
		l := s.logs.At(i)
		for _, e := range l.Drop() {
			e.Passed(e.Tally)
		}
	}
	s.queue = nil
	s.directory.Release(s.owing...)
	s.owing = nil
}
