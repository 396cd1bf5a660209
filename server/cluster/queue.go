package cluster

import (
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/server/cluster/internal/sequence"
)

// queue is what waits for the broker. Any goroutine may add to it, and none waits; one
// goroutine takes from it.
//
// Numbers are given under its lock, so that they are in its order, and an answer about
// numbers is behind all messages that have them.
type queue struct {
	id   uint64 // the node's
	max  int    // bytes of messages
	more chan struct{}

	mu       sync.Mutex
	numbers  *sequence.Out
	letters  []letter
	bytes    int // of messages: those that wait, and those for which room is kept
	control  int // bytes of others
	away     bool
	closed   bool
	room     chan struct{} // closed when there is room again; nil if nobody waits
	highest  int           // bytes that have waited
	messages int           // that wait
}

// address is where a message goes: to the nodes that follow its subject, and once more to the
// stream, unless stored is empty.
type address struct{ subject, stored string }

// letter is something to be sent.
type letter struct {
	address
	data    []byte
	control bool
}

// letterBytes is what a letter takes beside its text.
const letterBytes = 64

func (l *letter) size() int { return len(l.subject) + len(l.stored) + len(l.data) + letterBytes }

func newQueue(id uint64, max int) *queue {
	return &queue{id: id, max: max, more: make(chan struct{}, 1), numbers: sequence.NewOut(publishedMax), away: true}
}

// room is what the queue says to a message.
type room byte

const (
	roomKept room = iota // for it
	roomNone             // too much waits: it is to be refused
	roomAway             // too much waits because the broker is away, or for good: it is not to be sent
)

// keep keeps room for a message of so many bytes, until put, skip or release.
func (q *queue) keep(size int) room {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed, q.away && q.bytes+size > q.max:
		return roomAway
	case q.bytes+size > q.max:
		return roomNone
	}
	q.bytes += size
	q.highest = max(q.highest, q.bytes)
	return roomKept
}

// wait waits until something was sent, or the broker has gone or come.
func (q *queue) wait() {
	q.mu.Lock()
	if q.room == nil {
		q.room = make(chan struct{})
	}
	room := q.room
	q.mu.Unlock()
	<-room
}

// changed wakes those that wait. q.mu is held.
func (q *queue) changed() {
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// messageBytes is what a message takes in the queue.
func messageBytes(to address, topic string, data []byte) int {
	return len(to.subject) + len(to.stored) + headBytes + 2 + len(topic) + len(data) + letterBytes
}

// release gives back the room that was kept.
func (q *queue) release(size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= size
	q.changed()
}

// put numbers a message for which room was kept, and adds it. sealed is its envelope, without
// the number.
func (q *queue) put(to address, sealed []byte, now time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	number(sealed, q.next(to.subject, now))
	q.messages++
	q.add(letter{address: to, data: sealed})
}

// skip numbers a message that is not sent, so that others find that it is missing.
func (q *queue) skip(subject string, now time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next(subject, now)
}

// next is the number of a message. q.mu is held, as in the functions below.
func (q *queue) next(subject string, now time.Duration) sequence.Number {
	n, forgotten := q.numbers.Next(subject, now)
	if forgotten != nil {
		q.tell(*forgotten)
	}
	return n
}

func (q *queue) add(l letter) {
	q.letters = append(q.letters, l)
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// tell adds a tail.
func (q *queue) tell(t sequence.Tail) {
	k := kindTail
	if t.End {
		k = kindEnd
	}
	q.say(t.Subject, head{k, q.id, uint64(t.Last)}.append(make([]byte, 0, headBytes)))
}

// say adds what is no message, unless too much of that waits: then it is said again, or
// asked for, later.
func (q *queue) say(subject string, data []byte) bool {
	l := letter{address: address{subject: subject}, data: data, control: true}
	if q.closed || q.control+l.size() > controlBytes {
		return false
	}
	q.control += l.size()
	q.add(l)
	return true
}

// tails tells the tails that are to be told now.
func (q *queue) tails(now, quiet time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.away || q.control > controlBytes/2 {
		return
	}
	for _, t := range q.numbers.Tails(nil, now, quiet, seriesLife, tailsPerTick) {
		q.tell(t)
	}
}

// answer answers a question about subjects, behind all that was said on them.
func (q *queue) answer(to string, number uint64, subjects []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	numbers := make([]sequence.Number, len(subjects))
	for i, s := range subjects {
		numbers[i] = q.numbers.Last(s)
	}
	q.say(to, answer(q.id, number, numbers))
}

// reply adds what is no message. It returns false if too much of that waits.
func (q *queue) reply(subject string, data []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.say(subject, data)
}

// roomy reports whether the broker is there and keeps up, so that there may be more.
func (q *queue) roomy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.away && q.control < controlBytes/4
}

// setAway says whether the broker is away. When it is back, all tails are told again.
func (q *queue) setAway(away bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.away = away
	q.changed()
	if !away {
		q.numbers.Repeat()
	}
}

// first returns the letters that wait longest, at most max. They stay until drop.
func (q *queue) first(max int) []letter {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.letters[:min(max, len(q.letters)):min(max, len(q.letters))]
}

// drop takes away n letters that were sent.
func (q *queue) drop(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.letters[:n] {
		l := &q.letters[i]
		if l.control {
			q.control -= l.size()
		} else {
			q.bytes -= l.size()
			q.messages--
		}
		*l = letter{}
	}
	if q.letters = q.letters[n:]; len(q.letters) == 0 {
		q.letters = nil
	}
	q.changed()
}

// close ends the queue: nothing more is taken.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.letters, q.bytes, q.control, q.messages = true, nil, 0, 0, 0
	q.changed()
}
