package pusher

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// question is what a node asks all nodes, itself included.
type question struct {
	From      string `json:"from"` // whom to answer; nobody if it is empty
	ID        uint64 `json:"id"`
	App       string `json:"app"`
	Prefix    string `json:"prefix,omitempty"`    // the channels that begin with this
	Channel   string `json:"channel,omitempty"`   // or this one
	Users     bool   `json:"users,omitempty"`     // and who is in it
	Terminate string `json:"terminate,omitempty"` // or the user whose connections are to be closed
}

// answer is what a node says of its channels, in one part or several.
type answer struct {
	ID       uint64           `json:"id"`
	Channels map[string]tally `json:"channels"`
	More     bool             `json:"more,omitempty"` // another part follows
}

// tally is what is known of a channel.
type tally struct {
	Subscribers int      `json:"s"`
	Members     int      `json:"m,omitempty"`
	Users       []string `json:"u,omitempty"`
}

// Bounds of questions and answers.
const (
	answerTime = time.Second // that a publisher waits for other nodes
	partBytes  = 32 << 10    // of an answer, about
	tallyBytes = 64          // of a channel in an answer, beside names
)

// questions are those that wait for answers.
type questions struct {
	mu      sync.Mutex
	last    uint64              // guarded by mu
	waiting map[uint64]*waiting // guarded by mu
}

// waiting is a question that waits for answers.
type waiting struct {
	channels map[string]tally
	left     int // nodes that have not answered to the end
	done     chan struct{}
}

// ask asks all nodes, and returns what those say that answer within a second. If some do not, that
// is counted, and whole is false.
func (p *Pusher) ask(q question) (all map[string]tally, whole bool, err error) {
	node := p.nodes.Load()
	if node == nil {
		all = map[string]tally{}
		p.tally(&q, func(name string, t tally) { all[name] = t })
		return all, true, nil
	}
	w := &waiting{channels: map[string]tally{}, left: len(node.Stats().Nodes) + 1, done: make(chan struct{})}
	qs := &p.questions
	qs.mu.Lock()
	qs.last++
	q.ID, q.From = qs.last, p.node
	qs.waiting[q.ID] = w
	qs.mu.Unlock()
	defer func() {
		qs.mu.Lock()
		defer qs.mu.Unlock()
		delete(qs.waiting, q.ID)
	}()
	if err := p.tellNodes(&q); err == server.ErrBackpressure {
		return nil, false, faultFull
	}
	select {
	case <-w.done:
		whole = true
	case <-time.After(answerTime):
		p.counts.unanswered.Add(1)
	}
	qs.mu.Lock()
	defer qs.mu.Unlock()
	delete(qs.waiting, q.ID) // nobody changes it any more
	return w.channels, whole, nil
}

// tellNodes sends a question to all nodes.
func (p *Pusher) tellNodes(q *question) error {
	return p.nodes.Load().Publish(askTopic, frame.Binary, append([]byte{kindQuestion}, encode(q)...))
}

// reply answers a question of a node.
func (p *Pusher) reply(text []byte) {
	var q question
	if json.Unmarshal(text, &q) != nil {
		return
	}
	if q.Terminate != "" {
		go p.terminateHere(q.App, q.Terminate) // it waits for reactors
		return
	}
	part, size := answer{ID: q.ID, Channels: map[string]tally{}}, 0
	send := func(more bool) {
		part.More = more
		err := p.nodes.Load().Publish(answerTopic+q.From, frame.Binary, append([]byte{kindAnswer}, encode(part)...))
		if err != nil {
			p.counts.unanswered.Add(1)
		}
		part.Channels, size = map[string]tally{}, 0
	}
	go func() { // answers are published, which the caller must not do
		p.tally(&q, func(name string, t tally) {
			part.Channels[name] = t
			if size += len(name) + tallyBytes + len(t.Users)*(userMost+3); size > partBytes {
				send(true)
			}
		})
		send(false)
	}()
}

// tally calls add for each channel of this node that is asked for.
func (p *Pusher) tally(q *question, add func(string, tally)) {
	a := p.apps.ofID(q.App)
	if a == nil {
		return
	}
	of := func(ch *channel) (t tally) {
		t = tally{Subscribers: ch.subscribers, Members: len(ch.members)}
		if q.Users {
			for user := range ch.members {
				t.Users = append(t.Users, user)
			}
		}
		return t
	}
	if q.Channel != "" {
		topic := topicOf(a.id, q.Channel)
		s := p.channels.lock(topic)
		ch := s.byTopic[topic]
		var t tally
		if ch != nil {
			t = of(ch)
		}
		s.mu.Unlock()
		if ch != nil {
			add(q.Channel, t)
		}
		return
	}
	for i := range p.channels.shards {
		s := &p.channels.shards[i]
		found := map[string]tally{}
		s.mu.Lock()
		for _, ch := range s.byTopic {
			if ch.app == a && strings.HasPrefix(ch.name, q.Prefix) {
				found[ch.name] = of(ch)
			}
		}
		s.mu.Unlock()
		for name, t := range found {
			add(name, t)
		}
	}
}

// answered takes a part of an answer. Every node with subscribers knows all members, so the
// largest number of them is right.
func (p *Pusher) answered(text []byte) {
	var a answer
	if json.Unmarshal(text, &a) != nil {
		return
	}
	qs := &p.questions
	qs.mu.Lock()
	defer qs.mu.Unlock()
	w := qs.waiting[a.ID]
	if w == nil {
		return
	}
	for name, t := range a.Channels {
		was := w.channels[name]
		users := append(was.Users, t.Users...)
		slices.Sort(users)
		w.channels[name] = tally{was.Subscribers + t.Subscribers, max(was.Members, t.Members), slices.Compact(users)}
	}
	if a.More {
		return
	}
	if w.left--; w.left == 0 {
		close(w.done)
	}
}

// terminateUser closes the connections of a user on all nodes.
func (p *Pusher) terminateUser(app, user string) error {
	if p.nodes.Load() == nil {
		p.terminateHere(app, user)
		return nil
	}
	if err := p.tellNodes(&question{App: app, Terminate: user}); errors.Is(err, server.ErrBackpressure) {
		return faultFull
	}
	return nil
}

func (p *Pusher) terminateHere(app, user string) {
	for c := range p.server.Load().SubscribersOf(userTopic(app, user)) {
		p.refuse(c, faultTerminated)
	}
}
