package cluster

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-134acfd0/lull/server/cluster/internal/history"
)

// reader reads topics from the stream. It is of the goroutine that attends to the stream.
type reader struct {
	node    *Node
	link    *link
	answers *nats.Subscription
	inbox   string // the subject of answers, before a question's number
	asked   int    // questions, ever

	// of the topics that are read now
	topics    map[string]*reading
	inquiries map[int]*inquiry // those that are not answered to the end
}

// reading is a topic that is read.
type reading struct {
	history.Read
	count int64     // messages
	first time.Time // when the first of them was stored
	done  bool
}

// inquiry asks for all messages of a subject, one answer after the other.
type inquiry struct {
	subject string
	next    uint64 // everything before this place in the stream has come
	bytes   int    // of an answer
	about   []*reading
}

// Bounds of what is read.
const (
	readsMost  = 1024    // topics at once
	singleMost = 32      // topics that are asked for one by one
	readWorth  = 1000    // messages in the stream for each topic, so that all are read and others left out
	readMost   = 8192    // messages in one answer
	readBytes  = 2 << 20 // in the answers to all questions, and one more message each
	readTries  = 3       // while somebody waits
)

// patience is how long the next message is waited for.
func (r *reader) patience() time.Duration { return r.node.options.pace.resume / readTries }

// toRead are the topics that are to be read next, at most so many.
func (p *past) toRead(most int) []history.Read {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(p.reads), most)
	reads := p.reads[:n:n]
	if p.reads = p.reads[n:]; len(p.reads) == 0 {
		p.reads = nil
	}
	return reads
}

func newReader(n *Node, l *link) (*reader, error) {
	r := &reader{node: n, link: l, inbox: n.inbox + ".read."}
	var err error
	r.answers, err = l.nats.SubscribeSync(r.inbox + "*")
	return r, err
}

// readAll reads all topics that wait for it.
func (r *reader) readAll(ctx context.Context) {
	for ctx.Err() == nil {
		reads := r.node.past.toRead(readsMost)
		if len(reads) == 0 {
			return
		}
		for whole := r.whole(ctx, len(reads)); len(reads) > 0 && ctx.Err() == nil; {
			n := len(reads)
			if !whole {
				n = min(n, singleMost)
			}
			r.read(ctx, reads[:n], whole)
			reads = reads[n:]
		}
	}
}

// whole reports whether it is faster to read the whole stream than so many topics of it: the
// broker looks for the messages of a topic among the others.
func (r *reader) whole(ctx context.Context, topics int) bool {
	if !atLeast(r.link.nats.ConnectedServerVersion(), batchVersion) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, r.patience())
	defer cancel()
	is, err := r.link.streams.Stream(ctx, r.node.subjects.stream)
	return err == nil && is.CachedInfo().State.Msgs <= uint64(topics*readWorth)
}

// read reads topics, and tells the history what was found: as much of it as there was an answer
// about in time.
func (r *reader) read(ctx context.Context, reads []history.Read, whole bool) {
	n := r.node
	r.topics, r.inquiries = make(map[string]*reading, len(reads)), map[int]*inquiry{}
	all := &inquiry{subject: ">", bytes: readBytes}
	for _, read := range reads {
		o := &reading{Read: read}
		r.topics[o.Topic] = o
		if whole {
			all.about = append(all.about, o)
		} else {
			r.inquiries[r.number()] = &inquiry{subject: n.subjects.kept + token(o.Topic), bytes: readBytes / len(reads), about: []*reading{o}}
		}
	}
	if whole {
		r.inquiries[r.number()] = all
	}
	for try := 0; try < readTries && len(r.inquiries) > 0 && ctx.Err() == nil; try++ {
		for number, q := range r.inquiries {
			r.ask(number, q)
		}
		for r.next() {
		}
	}
	if ctx.Err() != nil {
		return // they are read once more when the broker is there again
	}
	now := today()
	since, err := r.since(ctx)
	n.past.mu.Lock()
	for _, o := range r.topics {
		at := int64(history.Never)
		if err == nil && o.done {
			at = since(o)
		} else {
			n.counts.unread.Add(1)
		}
		n.past.state.Restored(o.Seq, at, now, &n.past.results)
	}
	n.flushPast()
	n.past.mu.Unlock()
	n.reportPast()
}

// number is a number for a question.
func (r *reader) number() int {
	r.asked++
	return r.asked
}

// get is a question to the stream: for the messages of a subject from a place on, or for the
// last one.
type get struct {
	Seq   uint64 `json:"seq,omitempty"`
	Next  string `json:"next_by_subj,omitempty"`
	Last  string `json:"last_by_subj,omitempty"`
	Batch int    `json:"batch,omitempty"` // NATS before batchVersion does not know it, and answers with one message
	Bytes int    `json:"max_bytes,omitempty"`
}

const batchVersion = "2.11.0"

func (g get) encode() []byte {
	b, _ := json.Marshal(g) // there is nothing in it that has no JSON
	return b
}

// ask asks for what comes next.
func (r *reader) ask(number int, q *inquiry) {
	g := get{Seq: max(q.next, 1), Next: q.subject, Batch: readMost, Bytes: q.bytes}
	// If it fails, the link ends, and there is no answer.
	_ = r.link.nats.PublishRequest(r.node.subjects.get, r.inbox+strconv.Itoa(number), g.encode())
}

// next takes the next answer to a question: a message, or the end of an answer. It returns false
// when there are no questions, or no answers for long.
func (r *reader) next() bool {
	if len(r.inquiries) == 0 {
		return false
	}
	m, err := r.answers.NextMsg(r.patience())
	if err != nil { // nothing comes, or the link has ended
		return false
	}
	number, _ := strconv.Atoi(strings.TrimPrefix(m.Subject, r.inbox))
	q := r.inquiries[number]
	if q == nil {
		return true // it comes too late
	}
	const pending = "Nats-Num-Pending" // messages behind this one
	switch status := m.Header.Get("Status"); {
	case status == "404", status == "204" && m.Header.Get(pending) == "0": // there is no more
		for _, o := range q.about {
			o.done = true
		}
		delete(r.inquiries, number)
	case status == "204": // this was all for now
		r.ask(number, q)
	case status == "":
		r.came(q, m)
		if m.Header.Get(pending) == "" {
			r.ask(number, q)
		}
	}
	return true
}

// came takes a message that was stored.
func (r *reader) came(q *inquiry, m *nats.Msg) {
	place, err := strconv.ParseUint(m.Header.Get(nats.JSSequence), 10, 64)
	if err != nil || place < q.next {
		return
	}
	q.next = place + 1
	n := r.node
	h, rest, ok := open(m.Data)
	if ok && h.kind == kindGap {
		return
	}
	topic, op, data, whole := message(rest)
	e, placed := placed(data)
	stored, err := time.Parse(time.RFC3339Nano, m.Header.Get(nats.JSTimeStamp))
	if !ok || !whole || !placed || h.kind != kindKept || err != nil {
		n.malformed(false)
		return
	}
	o := r.topics[string(topic)]
	if o == nil {
		return
	}
	if o.count++; o.count == 1 {
		o.first = stored
	}
	e.Node, e.Op = h.node, uint8(op)
	p := n.past
	p.mu.Lock()
	if p.state.Restore(o.Seq, e, &p.results) {
		n.counts.restored.Add(1)
	}
	n.flushPast()
	p.mu.Unlock()
	n.reportPast()
}

// since asks the stream since when it has everything of a topic that was read before: since it was made
// or marked, since the oldest message that it may have, and where it is full, or full of the
// topic, since the oldest one that it has.
func (r *reader) since(ctx context.Context) (func(*reading) int64, error) {
	ctx, cancel := context.WithTimeout(ctx, r.patience())
	defer cancel()
	s := r.node.subjects
	is, err := r.link.streams.Stream(ctx, s.stream)
	if err != nil {
		return nil, err
	}
	marked := int64(0)
	m, err := r.link.nats.RequestWithContext(ctx, s.get, get{Last: s.gaps}.encode())
	if err != nil {
		return nil, err
	}
	if h, _, ok := open(m.Data); ok && h.kind == kindGap {
		marked = int64(min(h.number, math.MaxInt64))
	} else if m.Header.Get("Status") != "404" {
		return nil, ErrStream
	}
	i := is.CachedInfo()
	return func(o *reading) int64 { return vouched(i, marked, o, today()) }, nil
}

// vouched is since when a stream has everything of a topic.
func vouched(i *jetstream.StreamInfo, marked int64, o *reading, now int64) int64 {
	since := max(i.Created.UnixMilli(), marked)
	c := &i.Config
	if c.MaxAge > 0 {
		since = max(since, now-c.MaxAge.Milliseconds())
	}
	if c.MaxBytes > 0 && i.State.Bytes > uint64(c.MaxBytes)/2 { // the oldest of all topics may be gone
		since = max(since, i.State.FirstTime.UnixMilli())
	}
	if c.MaxMsgsPerSubject > 0 && o.count >= c.MaxMsgsPerSubject {
		since = max(since, o.first.UnixMilli())
	}
	return since
}
