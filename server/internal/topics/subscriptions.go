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
//
// A branch has a log only while somebody lacks something, and then the log has the hand:
//
//	rings[branch]:   row under the hand        or   log ─▶ row under the hand
type Subscriptions struct {
	// constant
	directory *Directory
	reactor   int
	most      int32 // of a connection

	reserved atomic.Int64           // subscriptions that are there or on their way
	anchors  *netpoll.Table[anchor] // by slot
	rows     *slab.Records[row]
	rings    *netpoll.Table[uint32] // by branch: row under the hand, 0 without any; or a log, with the bit logged
	logs     *netpoll.Pool[log]
	queue    []uint32 // logs whose subscribers have something to be sent; each turn takes the first
	owing    []Branch // last references that are still to be released
}

// anchor is 8 bytes: a connection's subscriptions.
type anchor struct {
	count atomic.Int32 // those that were reserved
	first slab.Uint24  // row
}

// row is 18 bytes: a subscription.
type row struct {
	branch     slab.Uint24
	slot       slab.Uint24
	next, prev slab.Uint24 // of the ring
	sibling    slab.Uint24 // the connection's next
	heard      slab.Uint24 // position up to which it was sent; without a log the same in all of the ring
}

// log is the publications of a branch that not all have been sent.
type log struct {
	fanout.Log
	branch uint32
	hand   uint32 // row
	dead   bool   // it waits in the queue to be freed
}

// heard is the position up to which a row was sent, of which the row has the low bits.
func (l *log) heard(r *row) uint32 { return l.End() - (l.End()-r.heard.Uint32())&slab.Uint24Max }

const (
	logged = 1 << 31 // in rings

	// firstPosition lets 24 bits wrap around soon, so that what comes of that is seen.
	firstPosition = slab.Uint24Max - 8
)

// NewSubscriptions reserves address space for those of a reactor with so many slots, Most
// at the most. A connection can have most subscriptions, and the reactor Most.
func NewSubscriptions(d *Directory, reactor, slots, most int) (*Subscriptions, error) {
	s := &Subscriptions{directory: d, reactor: reactor, most: int32(most), logs: netpoll.NewPool[log](nil)}
	var errs [3]error
	s.anchors, errs[0] = netpoll.NewTable[anchor](slots)
	s.rows, errs[1] = slab.NewRecords[row](min(slots*most, Most))
	s.rings, errs[2] = netpoll.NewTable[uint32](d.limit + 1)
	return s, errors.Join(errs[:]...)
}

// Reserve counts a subscription that is on its way. It returns false if the connection,
// or the reactor, has as many as it may. Any goroutine may call it.
func (s *Subscriptions) Reserve(slot uint32) bool {
	ofConn, ofAll := s.anchors.At(int(slot)).count.Add(1), s.reserved.Add(1)
	if ofConn > s.most || ofAll > int64(min(s.anchors.Len()*int(s.most), Most)) {
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
	a := s.anchors.At(int(slot))
	hand, l := s.ring(id)
	i := s.rows.Take()
	*s.rows.At(i) = row{branch: slab.ToUint24(id), slot: slab.ToUint24(slot), sibling: a.first, heard: s.position(*hand, l)}
	a.first = slab.ToUint24(i)
	s.insert(hand, i)
	s.directory.topic(s.branch(id)).subs.Add(1)
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
	link := &s.anchors.At(int(slot)).first
	for i := link.Uint32(); i != 0; i = link.Uint32() {
		r := s.rows.At(i)
		if r.branch.Uint32() == id {
			*link = r.sibling
			s.end(i)
			s.Unreserve(slot)
			s.left(id)
			return true
		}
		link = &r.sibling
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
	for i := a.first.Uint32(); i != 0; n++ {
		r := *s.rows.At(i)
		s.end(i)
		s.left(r.branch.Uint32())
		i = r.sibling.Uint32()
	}
	if n > 0 {
		a.first = slab.Uint24{}
		a.count.Add(-n)
		s.reserved.Add(-int64(n))
	}
	return int(n)
}

// left gives up a subscription's reference.
func (s *Subscriptions) left(id uint32) {
	s.directory.topic(s.branch(id)).subs.Add(^uint32(0))
	s.directory.subs.Add(-1)
	s.Release(id)
}

// Release gives up a reference to a branch. The last one of a topic is given up in
// Settle: other goroutines use the Directory, and a reactor does not wait for them.
func (s *Subscriptions) Release(id uint32) {
	if b := s.branch(id); !s.directory.lower(b) {
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
	for _, r := range s.of(slot) {
		branches = append(branches, s.branch(r.branch.Uint32()))
	}
	return branches
}

// Slots iterates over the connections that subscribe to a branch.
func (s *Subscriptions) Slots(id uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		hand, _ := s.ring(id)
		for i := *hand; i != 0; {
			if r := s.rows.At(i); !yield(r.slot.Uint32()) {
				return
			} else if i = r.next.Uint32(); i == *hand {
				return
			}
		}
	}
}

// AtMost is how many connections subscribe to a branch, or a few more.
func (s *Subscriptions) AtMost(id uint32) int {
	return int(s.directory.branch(s.branch(id)).refs.Load())
}

// Used is how many subscriptions there are.
func (s *Subscriptions) Used() int { return s.rows.Used() }

// Add adds a publication to a branch at time now. It has passed if nobody subscribes.
func (s *Subscriptions) Add(id uint32, p *fanout.Publication, now time.Duration) {
	hand, l := s.ring(id)
	if *hand == 0 {
		p.Passed(fanout.Tally{})
		return
	}
	if l == nil {
		i := s.logs.Take()
		l = s.logs.At(i)
		l.branch, l.hand = id, *hand
		l.Begin(s.position(*hand, nil).Uint32())
		*s.rings.At(int(id)) = i | logged
		s.queue = append(s.queue, i)
	}
	l.Add(p, now)
}

// Busy reports whether somebody lacks something.
func (s *Subscriptions) Busy() bool { return len(s.queue) > 0 }

// Lack is what a connection lacks of a topic.
type Lack struct {
	Slot  uint32
	Log   *fanout.Log
	Heard uint32 // to be raised to the log's end before Served
	row   uint32
}

// Next returns what is to be sent next, of the topic that is first in the queue. If
// there is none, ok is false.
func (s *Subscriptions) Next() (lack Lack, ok bool) {
	for len(s.queue) > 0 {
		if l := s.logs.At(s.queue[0]); !l.dead {
			return s.lack(l.hand, l), true
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
		for i, r := range s.of(slot) {
			_, l := s.ring(r.branch.Uint32())
			if l != nil && l.heard(r) != l.End() && !yield(s.lack(i, l)) {
				return
			}
		}
	}
}

// LacksOf returns what a connection lacks of one branch.
func (s *Subscriptions) LacksOf(slot, id uint32) (lack Lack, ok bool) {
	for lack := range s.Lacking(slot) {
		if s.rows.At(lack.row).branch.Uint32() == id {
			return lack, true
		}
	}
	return Lack{}, false
}

func (s *Subscriptions) lack(i uint32, l *log) Lack {
	r := s.rows.At(i)
	return Lack{Slot: r.slot.Uint32(), Log: &l.Log, Heard: l.heard(r), row: i}
}

// Served takes note that a connection lacks nothing of a topic any more. What no
// subscriber lacks is done.
func (s *Subscriptions) Served(lack Lack) {
	r := s.rows.At(lack.row)
	r.heard = slab.ToUint24(lack.Heard)
	id := r.branch.Uint32()
	if hand, _ := s.ring(id); *hand == lack.row {
		*hand = r.next.Uint32()
	} else {
		s.remove(r)
		s.insert(hand, lack.row)
	}
	s.cut(id)
}

// ring returns the hand of a branch's ring, and the branch's log if it has one.
func (s *Subscriptions) ring(id uint32) (hand *uint32, l *log) {
	hand = s.rings.At(int(id))
	if *hand&logged == 0 {
		return hand, nil
	}
	l = s.logs.At(*hand &^ logged)
	return &l.hand, l
}

// insert puts a row at the end of a ring.
func (s *Subscriptions) insert(hand *uint32, i uint32) {
	r, at := s.rows.At(i), slab.ToUint24(i)
	if *hand == 0 {
		*hand, r.next, r.prev = i, at, at
		return
	}
	next := s.rows.At(*hand)
	r.next, r.prev = slab.ToUint24(*hand), next.prev
	s.rows.At(next.prev.Uint32()).next = at
	next.prev = at
}

// remove takes a row out of its ring.
func (s *Subscriptions) remove(r *row) {
	s.rows.At(r.prev.Uint32()).next = r.next
	s.rows.At(r.next.Uint32()).prev = r.prev
}

// end frees a row.
func (s *Subscriptions) end(i uint32) {
	r := s.rows.At(i)
	id := r.branch.Uint32()
	hand, l := s.ring(id)
	if l != nil {
		for _, e := range l.Lacks(l.heard(r)) {
			e.Tally.Closed++
		}
	}
	s.remove(r)
	switch next := r.next.Uint32(); {
	case next == i: // it was the only one
		*hand = 0
	case *hand == i:
		*hand = next
	}
	s.cut(id)
	s.rows.Put(i)
}

// cut ends what all subscribers of a branch have been sent, and the log with the last.
func (s *Subscriptions) cut(id uint32) {
	hand, l := s.ring(id)
	if l == nil {
		return
	}
	upTo := l.End()
	if *hand != 0 {
		upTo = l.heard(s.rows.At(*hand))
	}
	for _, e := range l.Cut(upTo) {
		e.Passed(e.Tally)
	}
	if !l.Busy() {
		l.dead = true
		*s.rings.At(int(id)) = *hand
	}
}

// position is where a subscription that lacks nothing stands.
func (s *Subscriptions) position(hand uint32, l *log) slab.Uint24 {
	switch {
	case l != nil:
		return slab.ToUint24(l.End())
	case hand != 0:
		return s.rows.At(hand).heard
	}
	return slab.ToUint24(firstPosition)
}

func (s *Subscriptions) find(slot, id uint32) uint32 {
	for i, r := range s.of(slot) {
		if r.branch.Uint32() == id {
			return i
		}
	}
	return 0
}

// of iterates over a connection's rows.
func (s *Subscriptions) of(slot uint32) iter.Seq2[uint32, *row] {
	return func(yield func(uint32, *row) bool) {
		for i := s.anchors.At(int(slot)).first.Uint32(); i != 0; {
			r := s.rows.At(i)
			if !yield(i, r) {
				return
			}
			i = r.sibling.Uint32()
		}
	}
}

func (s *Subscriptions) branch(id uint32) Branch { return NewBranch(s.reactor, id) }

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
