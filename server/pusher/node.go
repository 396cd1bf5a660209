package pusher

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
)

// Topics of the nodes' own. No app's ID has a colon.
const (
	keptTopic   = "pusher:kept"  // events of cache channels, which all nodes keep
	askTopic    = "pusher:ask"   // questions to all nodes
	answerTopic = "pusher:node:" // answers to one, by the number that its sockets' IDs begin with
)

// Cluster returns o as a node needs it that carries p's events to other nodes (Bind).
func (p *Pusher) Cluster(o cluster.Options) cluster.Options {
	o.Present = func(topic string) bool {
		_, channel, ok := strings.Cut(topic, "/")
		return ok && isPresence(channel) && !strings.HasPrefix(topic, "user:")
	}
	o.MemberChanged = p.memberChanged
	return o
}

// Bind says of which server p is the handler, and which node carries its events to other
// servers; nil is none. It is called once, before the server's Run, and calls the node's Bind.
func (p *Pusher) Bind(s *server.Server, node *cluster.Node) {
	p.server.Store(s)
	if node == nil {
		return
	}
	p.nodes.Store(node)
	node.Bind(local{p})
	for _, topic := range []string{keptTopic, askTopic, answerTopic + p.node} {
		node.TopicChanged(topic, true) // nobody subscribes to them
	}
}

// What nodes tell each other begins with its kind. An event is
//
//	kind 1 · length of the topic 1 · topic · length of the socket's ID 1 · socket's ID · event
const (
	kindEvent    = 'e'
	kindKept     = 'k' // an event that is kept
	kindQuestion = 'q' // JSON follows
	kindAnswer   = 'a' // JSON follows
)

// publish gives an event to the subscribers of a topic on all nodes, but to one socket, which may
// be nobody's, and has it kept if its channel is a cache channel.
func (p *Pusher) publish(s *server.Server, topic string, kept bool, socket string, text []byte) error {
	node := p.nodes.Load()
	if node == nil {
		return p.deliver(s, topic, kept, socket, text)
	}
	kind, on := byte(kindEvent), topic
	if kept {
		kind, on = kindKept, keptTopic
	}
	b := append([]byte{kind, byte(len(topic))}, topic...)
	b = append(append(b, byte(len(socket))), socket...)
	err := node.Publish(on, frame.Binary, append(b, text...))
	if errors.Is(err, cluster.ErrAway) {
		return nil // the node counts it, and others notice that it is missing
	}
	return err
}

// local delivers on this node what a node publishes, here or known.
type local struct{ p *Pusher }

// Publish is what a server.Server does, for what publish has made.
func (l local) Publish(_ string, _ frame.Op, data []byte) error {
	s := l.p.server.Load()
	if len(data) == 0 {
		return nil
	}
	kind, rest := data[0], data[1:]
	switch kind {
	case kindQuestion:
		l.p.reply(rest)
	case kindAnswer:
		l.p.answered(rest)
	case kindEvent, kindKept:
		topic, rest, ok := cutText(rest)
		socket, text, also := cutText(rest)
		if ok && also {
			return l.p.deliver(s, topic, kind == kindKept, socket, text)
		}
	}
	return nil
}

// cutText cuts a text off whose length comes first.
func cutText(b []byte) (text string, rest []byte, ok bool) {
	if len(b) == 0 || len(b) <= int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}

// deliver gives an event to the subscribers of a topic on this node, but to one socket, and keeps
// it if its channel is a cache channel.
func (p *Pusher) deliver(s *server.Server, topic string, kept bool, socket string, text []byte) error {
	sh := p.channels.lock(topic)
	defer sh.mu.Unlock()
	is := p.resumes(topic)
	if is != nil {
		text = p.history.add(topic, text, is, time.Now())
	}
	err := s.PublishExcept(p.connID(socket), topic, frame.Text, text)
	switch {
	case err != nil && is != nil:
		p.history.undo(topic)
	case err == nil && kept:
		p.cache.put(topic, text, time.Now())
	}
	return err
}

// How often, and for how long, subscribers are tried to be told of a member of another node, while
// too much is on its way to them.
const (
	memberTries = 100
	memberPause = 50 * time.Millisecond
)

// memberChanged hears of members on all nodes. It may wait.
func (p *Pusher) memberChanged(c cluster.MemberChange) {
	if c.Kind == cluster.MembersMissed {
		p.recount()
		return
	}
	for range memberTries {
		if p.changeMember(c.Topic, c.ID, c.Data, c.Kind != cluster.MemberWent) != server.ErrBackpressure {
			return
		}
		time.Sleep(memberPause)
	}
	p.counts.lost.Add(1)
}

// changeMember notes that a member is there on some node, or on none any more, and tells the
// subscribers of this node if that is new.
func (p *Pusher) changeMember(topic, user string, info []byte, there bool) error {
	s := p.channels.lock(topic)
	defer s.mu.Unlock()
	ch := s.byTopic[topic]
	if ch == nil || ch.members == nil {
		return nil
	}
	record, listed := ch.members[user]
	switch {
	case listed && there:
		s.members.At(record).known = true
	case listed && s.members.At(record).connections > 0:
		s.members.At(record).known = false
	case listed:
		if err := p.server.Load().Publish(topic, frame.Text, removedEvent(ch.name, user)); err != nil {
			return err
		}
		s.remove(ch, user, record)
		ch.app.notify(&hookEvent{Name: hookRemoved, Channel: ch.name, UserID: user})
	case there:
		if err := p.server.Load().Publish(topic, frame.Text, event(eventAdded, ch.name, presence{textID(user), json.RawMessage(info)})); err != nil {
			return err
		}
		if record := s.add(ch, user, info); record != 0 {
			s.members.At(record).known = true
		} else {
			p.counts.lost.Add(1)
		}
	}
	return nil
}

// recount compares the members of all channels with what the node knows of them.
func (p *Pusher) recount() {
	node := p.nodes.Load()
	for i := range p.channels.shards {
		s := &p.channels.shards[i]
		s.mu.Lock()
		members := map[string][]string{}
		for topic, ch := range s.byTopic {
			for user, record := range ch.members {
				if s.members.At(record).known {
					members[topic] = append(members[topic], user)
				} else if members[topic] == nil {
					members[topic] = []string{}
				}
			}
		}
		s.mu.Unlock()
		for topic, before := range members {
			now := map[string]bool{}
			for _, m := range node.Members(topic) {
				now[m.ID] = true
				p.memberChanged(cluster.MemberChange{Topic: topic, Member: m, Kind: cluster.MemberCame})
			}
			for _, user := range before {
				if !now[user] {
					p.memberChanged(cluster.MemberChange{Topic: topic, Member: cluster.Member{ID: user}, Kind: cluster.MemberWent})
				}
			}
		}
	}
}

// enterCluster tells the node of a member. If the channel is new here, it learns from the node who
// else is in it, as far as that is known; others come by memberChanged. s is locked.
func (p *Pusher) enterCluster(c server.Conn, s *channelShard, ch *channel, who *presence) bool {
	node := p.nodes.Load()
	if node == nil {
		return true
	}
	if ch.subscribers == 0 {
		for _, m := range node.Members(ch.topic) {
			record := ch.members[m.ID]
			if record == 0 {
				record = s.add(ch, m.ID, m.Data)
			}
			if record != 0 {
				s.members.At(record).known = true
			}
		}
	}
	return node.Enter(c, ch.topic, string(who.UserID), who.Info) == nil
}

// exit takes a connection out of a member, and the member out of the channel if that was its last
// one, unless the node has still to say so. s is locked.
func (p *Pusher) exit(c server.Conn, s *channelShard, ch *channel, record uint32) (user string, went bool) {
	if node := p.nodes.Load(); node != nil {
		node.Exit(c, ch.topic)
	}
	return s.exit(ch, record)
}
