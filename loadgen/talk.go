package loadgen

import (
	"bytes"
	"hash/maphash"
	"slices"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/measure"
	"github.com/seed-134acfd0/lull/loadgen/plan"
	"github.com/seed-134acfd0/lull/loadgen/wire"
)

// talk is what is kept of a connection that sends messages, beside its slot. One that
// only receives has none.
type talk struct {
	stream     *stream          // nil if none has been given to it
	scripted   bool             // its script has not ended
	at         int              // index of its script's next step
	clock      time.Duration    // when that is meant to be done; of a stream, since when it waits for its next answer
	timer      time.Duration    // when it goes on, or waits no longer for an answer; zero if nothing is set
	armed      [2]time.Duration // when timers of it are due that it knows: the next one, and one after it
	rounds     []round          // of its script's repeats
	sent       uint32           // messages
	asked      uint32           // of these, those whose answers carry their numbers
	got        uint32           // the number of the next of them that may be answered
	unanswered int              // messages that should be answered
	pending    []pending        // of these, those whose answers carry no number, the oldest first
	past       past             // of the echoes among these, the latest that came or were passed over
	unsent     []byte           // what its socket has not taken yet
}

// pending is a message that should be answered, and whose answer has no number.
type pending struct {
	*message
	meant time.Duration
	sum   uint64 // of its frame's type and payload, if the answer should be an echo
	text  []byte // that its answer should contain, otherwise
}

// past is the sums of some echoes, each over the oldest.
type past struct {
	sums [8]uint64
	next uint8
}

func (p *past) add(sum uint64) {
	p.sums[p.next] = sum
	p.next = (p.next + 1) % uint8(len(p.sums))
}

func (p *past) has(sum uint64) bool { return slices.Contains(p.sums[:], sum) }

// message is a plan's message, prepared.
type message struct {
	*plan.Message
	op       frame.Op
	numbered bool // the answer is an echo of what the generator made, which has the message's number
}

func (r *run) compileMessage(m *plan.Message) *message {
	c := *m
	if c.Text == nil && c.Size == 0 {
		c.Size = sizeDefault
	}
	compiled := &message{Message: &c, op: frame.Text, numbered: c.Text == nil && c.Answer.Kind == plan.AnswerEcho}
	if c.Text == nil || c.Binary {
		compiled.op = frame.Binary
	}
	return compiled
}

// unsentMost is how many bytes are kept that a connection's socket has not taken.
const unsentMost = 4 << 20

// takeTalk returns c's talk, a new one if it has none.
func (w *worker) takeTalk(c *client) *talk {
	if c.talk == 0 {
		c.talk = w.talks.Take()
	}
	return w.talks.At(c.talk)
}

// forgetTalk counts what a connection that ends leaves unanswered.
func (w *worker) forgetTalk(c *client) {
	t := w.talks.At(c.talk)
	if t == nil {
		return
	}
	w.count(measure.Abandoned, t.unanswered)
	w.owe(t, -t.unanswered)
	if w.talking(c) {
		w.busy[c.group]--
	}
	if t.scripted {
		w.scripts[c.group]--
	}
	w.talks.Put(c.talk)
	c.talk = 0
}

// say sends t's next message, which was meant to be sent at a time.
func (w *worker) say(c *client, t *talk, m *message, meant time.Duration) {
	kind, number := wire.Told, t.sent
	if m.numbered {
		kind, number = wire.Asked, t.asked
		t.asked++
	}
	t.sent++
	w.fill(c, m, kind, number, meant)
	if m.Answer.Kind == plan.AnswerNone {
		w.count(measure.Told, 1)
	} else {
		w.owe(t, 1)
		w.count(asking(t), 1)
		if !m.numbered {
			t.pending = append(t.pending, w.pending(c, m, number, meant))
		}
		w.expectAnswer(c, t)
	}
	w.write(c, m.op)
}

// owe changes how many of t's messages should be answered. Those of streams are counted
// together, because a phase waits for their answers.
func (w *worker) owe(t *talk, n int) {
	t.unanswered += n
	if t.stream != nil {
		w.owed += n
	}
}

// asking is the counter for t's messages, and answering the one for their answers.
func asking(t *talk) measure.Counter {
	if t.floods() {
		return measure.Flooded
	}
	return measure.Asked
}

func answering(t *talk) (measure.Counter, measure.Kind) {
	if t.floods() {
		return measure.Answered, measure.Flood
	}
	return measure.Echoes, measure.Echo
}

// floods reports whether t sends without waiting for answers.
func (t *talk) floods() bool { return t.stream != nil && t.stream.window == 0 }

// fill makes the payload of c's message, in w.payload.
func (w *worker) fill(c *client, m *message, kind wire.Kind, number uint32, meant time.Duration) {
	if m.Text != nil {
		w.payload = m.Text.Append(w.payload[:0], w.values(c, number))
		return
	}
	w.payload = append(w.payload[:0], w.zeros[:m.Size]...)
	sender := uint16(c.user)
	if kind == wire.Published && w.group(c).Rooms > 0 {
		sender = uint16(w.room(c))
	}
	wire.Message{Meant: meant, Number: number, Run: w.run.id, Sender: sender, Kind: kind}.Encode(w.payload)
}

// values are what templates are filled in with, for a message of c.
func (w *worker) values(c *client, number uint32) *plan.Values {
	w.fills.Conn, w.fills.Seq, w.fills.Group, w.fills.Room = int(c.user), int(number), w.group(c).Name, w.room(c)
	return &w.fills
}

var seed = maphash.MakeSeed()

// sum tells messages apart by their type and payload.
func sum(op frame.Op, payload []byte) uint64 { return maphash.Bytes(seed, payload) ^ uint64(op) }

// pending is the message in w.payload.
func (w *worker) pending(c *client, m *message, number uint32, meant time.Duration) pending {
	p := pending{message: m, meant: meant}
	switch m.Answer.Kind {
	case plan.AnswerEcho:
		p.sum = sum(m.op, w.payload)
	case plan.AnswerContains:
		p.text = m.Answer.Contains.Append(nil, w.values(c, number))
	}
	return p
}

// is reports whether a message answers p.
func (p *pending) is(op frame.Op, payload []byte) bool {
	switch p.Answer.Kind {
	case plan.AnswerEcho:
		return p.sum == sum(op, payload)
	case plan.AnswerContains:
		return bytes.Contains(payload, p.text)
	case plan.AnswerMatch:
		return p.Answer.Match.Match(payload)
	}
	return true
}

// hear takes a message without a number. It reports whether that is an answer, or came
// in the place of one.
func (w *worker) hear(c *client, t *talk, op frame.Op, payload []byte, now time.Duration) bool {
	for i := range t.pending {
		if p := &t.pending[i]; p.is(op, payload) {
			w.count(measure.Missed, i)
			w.owe(t, -i)
			meant := p.meant
			for _, p := range t.pending[:i+1] {
				if p.Answer.Kind == plan.AnswerEcho {
					t.past.add(p.sum)
				}
			}
			t.pending = append(t.pending[:0], t.pending[i+1:]...)
			w.answered(c, t, meant, now)
			return true
		}
	}
	if t.past.has(sum(op, payload)) {
		w.count(measure.Repeated, 1)
		return true
	}
	if len(t.pending) == 0 || t.pending[0].Answer.Kind != plan.AnswerEcho {
		return false // a server may send more than answers
	}
	w.count(measure.Mismatched, 1)
	return true
}

// answered counts an answer, and lets c send its next message if it waited for that.
func (w *worker) answered(c *client, t *talk, meant, now time.Duration) {
	counter, kind := answering(t)
	w.count(counter, 1)
	w.measure(kind, now-meant)
	w.owe(t, -1)
	t.clock = w.present(now)
	switch {
	case t.scripted && t.unanswered == 0:
		w.step(c, t)
	case t.stream != nil:
		w.more(c, t)
	}
}

// forgive makes t wait for no answer any more, and counts those that did not come. One that
// comes late counts as repeated, mismatched or foreign.
func (w *worker) forgive(t *talk) {
	w.count(measure.Unanswered, t.unanswered)
	w.owe(t, -t.unanswered)
	t.pending, t.got = t.pending[:0], t.asked
}
