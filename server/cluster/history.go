package cluster

import (
	"encoding/binary"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster/internal/history"
)

// Limits are what is kept of a topic. Whatever is reached first counts; zero is no limit, but
// for Messages.
type Limits struct {
	Messages int           // the last ones; 1 is the last one alone, 0 keeps nothing
	Age      time.Duration // what is not older
	Bytes    int           // of all, each in cells of 28 bytes
}

// Resumed is what a client has missed.
type Resumed struct {
	// Messages are to be sent to it, in this order.
	Messages []Kept
	// Position is where it is then.
	Position string
	// Missing says that there was, or may have been, more, which nobody keeps any more.
	Missing bool
	// Ahead says that the client has had messages that have not come to this node. If they
	// come, it gets them again.
	Ahead bool
	// Err says why the connection could not be subscribed: what Conn.Subscribe has
	// returned. Nothing else is set then.
	Err error
}

// Kept is a message that was kept.
type Kept struct {
	Op   frame.Op
	Data []byte
	Time time.Time // by its publisher's clock, to a millisecond
}

// past is what is kept of topics.
type past struct {
	mu      sync.Mutex // held while something is delivered, too, so that positions are true
	state   *history.History
	results history.Results
	fading  map[string]time.Duration // topics without members, and when they are dropped
	waiting []*resumption
	reads   []history.Read // of the stream, that are to be begun
	losses  []Loss         // to be reported, with the nodes' IDs
	ended   bool           // nobody waits any more
}

// resumption is a client that waits until a node has asked others for what it has missed.
type resumption struct {
	topic, position string
	found           func(Resumed)
	until           time.Duration
}

const (
	resumeFor      = 3 * time.Second // that a client waits at most
	resumptionsMax = 1 << 16         // that wait at once
	keepFor        = time.Minute     // after the last member has left, where Limits.Age says nothing
	keepMax        = 10 * time.Minute
)

func newPast(o *Options, id uint64) (*past, error) {
	p := &past{fading: map[string]time.Duration{}}
	if o.History == nil {
		return p, nil
	}
	var err error
	p.state, err = history.New(history.Options{Self: id, MaxData: o.MaxMessage, Slack: o.pace.slack, Store: o.Stream != nil})
	return p, err
}

// limits are what is kept of a topic; none for most.
func (n *Node) limits(topic string) Limits {
	if n.options.History == nil || topic == "" {
		return Limits{}
	}
	return n.options.History(topic)
}

// today is the clock of the day, in milliseconds.
func today() int64 { return time.Now().UnixMilli() }

// Beginning is a position before everything: who resumes from there gets all that is kept,
// and is told that something may be Missing.
const Beginning = history.Beginning

// ValidPosition reports whether a text can be a position. An empty one is, too: a client's
// that is new.
func ValidPosition(text string) bool { return text == "" || history.Valid(text) }

// Resume subscribes a connection to a topic that has a history (Options.History), and finds
// what it has missed since it was at a position: one that this node or another one has named.
// found is called once, unless Resume returns an error, when other nodes were asked for what
// this one has not, after three seconds at most. What it sends to the connection arrives
// before all that is published from then on. It must not block, nor call the node, but for
// Members and MemberCount.
//
// An empty position is a client's that is new: it has missed nothing, and gets a position.
func (n *Node) Resume(c server.Conn, topic, position string, found func(Resumed)) error {
	return n.resume(c, topic, position, found)
}

func (n *Node) resume(c conn, topic, position string, found func(Resumed)) error {
	return n.Missed(topic, position, func(r Resumed) {
		if err := c.Subscribe(topic); err != nil {
			r = Resumed{Err: err}
		}
		found(r)
	})
}

// Missed is Resume for a program that passes messages on itself (Options.Delivered): it
// subscribes nobody. What is delivered before found is called is in Resumed, and what is
// delivered later is not.
func (n *Node) Missed(topic, position string, found func(Resumed)) error {
	p := n.past
	if !server.ValidTopic(topic) {
		return server.ErrTopicName
	}
	if n.limits(topic).Messages == 0 {
		return ErrNoHistory
	}
	if !ValidPosition(position) {
		return ErrPosition
	}
	n.hold(topic)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == resumptionsMax {
		return server.ErrBackpressure
	}
	r := &resumption{topic, position, found, n.now() + n.options.pace.resume}
	if !n.tryResume(r) {
		p.waiting = append(p.waiting, r)
	}
	return nil
}

// tryResume resumes, unless it is better to wait. n.past.mu is held.
func (n *Node) tryResume(r *resumption) bool {
	p := n.past
	late := p.ended || n.now() >= r.until
	var found Resumed
	if r.position != "" {
		h, err := p.state.Resume(r.topic, r.position, today())
		if !late && (err != nil || h.Wait) {
			return false
		}
		if err == nil {
			found.Missing, found.Ahead = h.Missing, h.Ahead
			for e := range h.Entries {
				found.Messages = append(found.Messages, keptOf(e))
			}
		} else {
			found.Missing = true
		}
	}
	var err error
	if found.Position, err = p.state.Position(r.topic, today()); err != nil && !late {
		return false // it is not kept yet
	}
	r.found(found)
	return true
}

func keptOf(e history.Entry) Kept {
	return Kept{frame.Op(e.Op), append([]byte(nil), e.Data...), time.UnixMilli(e.Time)}
}

// Position calls send with the position of those who subscribe to a topic here: they have had
// all that was published before. What send sends to one of them arrives behind that. It must
// not block, nor call the node. The error is ErrNoHistory if nobody subscribes.
func (n *Node) Position(topic string, send func(position string)) error {
	p := n.past
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return ErrNoHistory
	}
	position, err := p.state.Position(topic, today())
	if err != nil {
		return ErrNoHistory
	}
	send(position)
	return nil
}

// Kept returns what is kept of a topic on this node, the oldest first. It is empty for a topic
// without subscribers here.
func (n *Node) Kept(topic string) (messages []Kept) {
	p := n.past
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != nil {
		for e := range p.state.Entries(topic, today()) {
			messages = append(messages, keptOf(e))
		}
	}
	return messages
}

// publishKept is publish for a topic with a history. Room was looked for already.
func (n *Node) publishKept(to Publisher, at address, topic string, op frame.Op, data []byte, room room) error {
	p := n.past
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := to.Publish(topic, op, data); err != nil {
		return err
	}
	e := p.state.Publish(topic, uint8(op), data, today())
	if n.passOn(to, topic, op, data, n.position) != nil {
		p.undelivered(n, topic, n.id)
	}
	if room == roomKept {
		n.queue.put(at, sealKept(n.id, topic, op, &e), n.now())
	} else {
		n.queue.skip(at.subject, n.now())
		n.store.doubt()
	}
	return nil
}

// remember has a topic's messages kept. Its subject is followed.
func (n *Node) remember(topic string) {
	l := n.limits(topic)
	if l.Messages == 0 {
		return
	}
	p := n.past
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.state.Keep(topic, history.Limits{Entries: l.Messages, Age: l.Age, Bytes: l.Bytes}, today()); err != nil {
		n.counts.unkept.Add(1)
	}
	n.step()
}

// fade has a topic dropped after a while, or not, because somebody has come.
func (n *Node) fade(topic string, live bool) {
	p := n.past
	if n.limits(topic).Messages == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if live {
		delete(p.fading, topic)
	} else {
		p.fading[topic] = n.now() + n.stay(topic)
	}
}

// hold follows a topic for a while, because somebody comes.
func (n *Node) hold(topic string) {
	subject, shard := n.subjects.of(topic)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.left {
		return
	}
	f := n.interest.want(subject, topic, shard, n.now()+n.stay(topic))
	n.wake()
	if n.past.lacks(topic) {
		n.fade(topic, false)
		n.change(f, topic, true)
	}
}

// lacks reports whether a topic is not kept.
func (p *past) lacks(topic string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.state.Position(topic, today())
	return err != nil
}

// stay is how long a topic is followed without members.
func (n *Node) stay(topic string) time.Duration {
	l := n.limits(topic)
	switch {
	case l.Messages == 0:
		return n.options.pace.linger
	case l.Age == 0:
		return max(keepFor, n.options.pace.linger)
	}
	return max(min(l.Age, keepMax), n.options.pace.linger)
}

// received takes a message of another node to a topic with a history, and delivers it unless
// it was there. Nobody waits for a server that has too much to send: the message is lost for
// its members then, and said to be.
func (n *Node) received(node uint64, topic string, op frame.Op, e history.Entry) {
	p := n.past
	p.mu.Lock()
	defer p.mu.Unlock()
	e.Node, e.Op = node, uint8(op)
	if p.state != nil && !p.state.Add(topic, e, today()) {
		n.counts.stale.Add(1)
		return
	}
	n.deliverKept(topic, &e, n.position)
	n.step()
}

// deliverKept delivers a message, and calls position for those who have had it. n.past.mu is
// held.
func (n *Node) deliverKept(topic string, e *history.Entry, position func(topic string) string) {
	n.counts.received.Add(1)
	to := n.local.Load()
	if to == nil {
		return // nobody can be there
	}
	op := frame.Op(e.Op)
	err := (*to).Publish(topic, op, e.Data)
	if passing := n.passOn(*to, topic, op, e.Data, position); err == server.ErrBackpressure || passing != nil {
		n.past.undelivered(n, topic, e.Node)
	}
}

// undelivered notes that a server has too much to send for a message. p.mu is held.
func (p *past) undelivered(n *Node, topic string, node uint64) {
	n.counts.undelivered.Add(1)
	p.losses = append(p.losses, Loss{Node: hex(node), Topic: topic, Shard: -1, Messages: 1})
}

// position is where those are who have had all that was delivered of a topic with a history;
// empty if it is not kept yet. n.past.mu is held.
func (n *Node) position(topic string) string {
	if n.past.state == nil {
		return ""
	}
	at, _ := n.past.state.Position(topic, today())
	return at
}

// nowhere is the position where a message has none.
func nowhere(string) string { return "" }

// flushPast sends and delivers what has come of calls. n.past.mu is held.
func (n *Node) flushPast() {
	p := n.past
	r := &p.results
	for _, m := range r.Messages {
		subject := n.subjects.to + hex(m.Node)
		if m.Node == 0 {
			subject, _ = n.subjects.of(m.Topic)
		}
		// What is not sent is asked for again, or missing.
		n.queue.reply(subject, append(head{kindHistory, n.id, 0}.append(make([]byte, 0, headBytes+len(m.Data))), m.Data...))
	}
	for i := range r.Late {
		topic, position := r.Late[i].Topic, n.position
		if i+1 < len(r.Late) && r.Late[i+1].Topic == topic {
			position = nowhere // the topic's has all of them
		}
		n.deliverKept(topic, &r.Late[i].Entry, position)
	}
	for _, l := range r.Lost {
		p.losses = append(p.losses, Loss{Node: hex(l.Node), Topic: l.Topic, Shard: -1, Messages: 1, Unsure: l.UpTo > l.After+1})
	}
	if len(r.Reads) > 0 {
		p.reads = append(p.reads, r.Reads...)
		nudge(n.reads)
	}
	filled := len(r.Filled) > 0
	r.Reset()
	if filled {
		n.resumeWaiting()
	}
}

// step does what is due of kept messages, while there is room for what comes of it.
func (p *past) step(n *Node) {
	for more := p.state != nil; more && n.queue.roomy(); {
		p.mu.Lock()
		more = p.state.Step(today(), &p.results)
		n.flushPast()
		p.mu.Unlock()
		n.reportPast()
	}
}

// resumeWaiting lets those resume that need not wait any more. n.past.mu is held.
func (n *Node) resumeWaiting() {
	p := n.past
	p.waiting = slices.DeleteFunc(p.waiting, n.tryResume)
}

// endPast lets all resume with what there is, because the node leaves.
func (n *Node) endPast() {
	p := n.past
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	n.resumeWaiting()
}

// forgetPast drops topics that nobody has come to, and lets those resume that have waited for
// long enough.
func (n *Node) forgetPast() {
	p := n.past
	p.mu.Lock()
	defer p.mu.Unlock()
	for topic, at := range p.fading {
		if n.now() >= at {
			p.state.Drop(topic)
			delete(p.fading, topic)
		}
	}
	n.resumeWaiting()
}

// reportPast reports losses.
func (n *Node) reportPast() {
	p := n.past
	p.mu.Lock()
	losses := p.losses
	p.losses = nil
	p.mu.Unlock()
	for i := range losses {
		id, _ := strconv.ParseUint(losses[i].Node, 16, 64)
		losses[i].Node = n.nameOf(id)
	}
	n.report(losses)
}

// doubtPast has other nodes asked for what may have been lost.
func (n *Node) doubtPast() {
	p := n.past
	if p.state == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Lost(today())
	p.reads = nil // they are asked for again
}

// told takes what another node says of its history.
func (n *Node) told(h head, rest []byte) bool {
	p := n.past
	if p.state == nil {
		return true
	}
	p.mu.Lock()
	err := p.state.Receive(h.node, rest, today(), &p.results)
	n.flushPast()
	p.mu.Unlock()
	n.reportPast()
	n.step()
	return err != history.ErrMessage
}

// keptBytes is what the place in the history takes.
const keptBytes = 32

// sealKept is the envelope of a message that is kept. Behind the topic it has its place in
// the history: the number and the time, and those of the one before it.
func sealKept(node uint64, topic string, op frame.Op, e *history.Entry) []byte {
	b := make([]byte, 0, headBytes+2+len(topic)+keptBytes+len(e.Data))
	b = head{kind: kindKept, node: node}.append(b)
	b = append(append(b, byte(op), byte(len(topic))), topic...)
	for _, x := range []uint64{e.Number, e.Previous, uint64(e.Time), uint64(e.PreviousTime)} {
		b = binary.BigEndian.AppendUint64(b, x)
	}
	return append(b, e.Data...)
}

// placed splits what is behind the topic.
func placed(data []byte) (e history.Entry, ok bool) {
	if len(data) < keptBytes {
		return e, false
	}
	u := binary.BigEndian.Uint64
	return history.Entry{Number: u(data), Previous: u(data[8:]), Time: int64(u(data[16:])), PreviousTime: int64(u(data[24:])), Data: data[keptBytes:]}, true
}
