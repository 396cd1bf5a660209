package cluster

import (
	"crypto/sha256"
	"errors"
	"sync"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster/internal/presence"
)

// Member is who is in a topic. Somebody with several connections in a topic, on whichever
// nodes, is one member.
type Member struct {
	ID   string // 1 to 255 bytes
	Data []byte // at most 1 KiB
}

// MemberChange says that a member has come to a topic, shows other data, or has gone.
type MemberChange struct {
	Topic string
	Member
	Kind MemberChangeKind
}

// MemberChangeKind is what has happened.
type MemberChangeKind uint8

// Kinds of changes. Those of one member in a topic alternate: MemberCame, any number of
// MemberChanged, MemberWent. MembersMissed stands for changes that were not told, of any
// topic, because too many waited for Options.MemberChanged: Members has the truth.
const (
	MemberCame MemberChangeKind = iota + 1
	MemberChanged
	MemberWent
	MembersMissed
)

// errPresence is returned where Options.Present is not set.
var errPresence = errors.New("cluster: Options.Present is not set")

// crowd is who is in which topics.
type crowd struct {
	mu      sync.Mutex
	state   *presence.Presence // nil without Options.Present
	results presence.Results
	conns   map[uint64][]membership // by the connection's ID
	changes []MemberChange          // to be told
	missed  bool                    // some were not kept
	tell    chan struct{}
}

// membership is that a connection is in a topic.
type membership struct {
	topic string
	id    string
	as    presence.Member
}

// changesMax is how many changes may wait for Options.MemberChanged.
const changesMax = 1 << 16

func newCrowd(o *Options, id uint64) (*crowd, error) {
	c := &crowd{conns: map[uint64][]membership{}, tell: make(chan struct{}, 1)}
	if o.Present == nil {
		return c, nil
	}
	key := sha256.Sum256([]byte("presence\x00" + o.Cluster + "\x00" + o.Secret))
	var err error
	c.state, err = presence.New(presence.Options{Self: id, Key: [16]byte(key[:16])})
	return c, err
}

// Enter makes a connection a member of a topic, with data that all nodes can see. A member's
// data are those that came last. It is for the connection's own handlers, Open and Message,
// and needs Handler, by which the member goes when its connection has ended. Whether the
// connection subscribes to the topic is another matter.
func (n *Node) Enter(c server.Conn, topic, id string, data []byte) error {
	return n.enter(c.ID(), topic, id, data)
}

func (n *Node) enter(conn uint64, topic, id string, data []byte) error {
	cr := n.crowd
	if cr.state == nil {
		return errPresence
	}
	if !server.ValidTopic(topic) {
		return server.ErrTopicName
	}
	cr.mu.Lock()
	as, err := cr.state.Join(topic, id, data, n.now(), &cr.results)
	if err == nil {
		n.exitLocked(conn, func(m membership) bool { return m.topic == topic })
		cr.conns[conn] = append(cr.conns[conn], membership{topic, id, as})
	}
	n.flushCrowd()
	cr.mu.Unlock()
	return err
}

// Exit ends what Enter began. Any goroutine may call it.
func (n *Node) Exit(c server.Conn, topic string) {
	n.exit(c.ID(), func(m membership) bool { return m.topic == topic })
}

// exit ends memberships of a connection.
func (n *Node) exit(conn uint64, which func(membership) bool) {
	cr := n.crowd
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if n.exitLocked(conn, which) {
		n.flushCrowd()
	}
}

// exitLocked ends memberships of a connection. n.crowd.mu is held.
func (n *Node) exitLocked(conn uint64, which func(membership) bool) (any bool) {
	cr := n.crowd
	all := cr.conns[conn]
	if all == nil {
		return false
	}
	kept := all[:0]
	for _, m := range all {
		if which(m) {
			cr.state.Leave(m.as, n.now(), &cr.results)
		} else {
			kept = append(kept, m)
		}
	}
	if len(kept) == 0 {
		delete(cr.conns, conn)
	} else {
		cr.conns[conn] = kept
	}
	return true
}

// Handler is h, whose connections' memberships end with them.
func (n *Node) Handler(h server.Handler) server.Handler {
	end := h.Close
	h.Close = func(c server.Conn, code frame.Code, cause error) {
		n.exit(c.ID(), func(membership) bool { return true })
		if end != nil {
			end(c, code, cause)
		}
	}
	return h
}

// Members are the members of a topic on all nodes, in no order, as far as this node knows:
// if the topic has no subscribers here, those of this node alone.
func (n *Node) Members(topic string) (members []Member) {
	cr := n.crowd
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if cr.state == nil {
		return nil
	}
	for id, data := range cr.state.List(topic) {
		members = append(members, Member{id, append([]byte(nil), data...)})
	}
	return members
}

// MemberCount is how many members Members would return.
func (n *Node) MemberCount(topic string) int {
	cr := n.crowd
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if cr.state == nil {
		return 0
	}
	return cr.state.Count(topic)
}

// watch begins to follow who is in a topic. The topic's subject is followed.
func (n *Node) watch(topic string) {
	if !n.hasMembers(topic) {
		return
	}
	cr := n.crowd
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if err := cr.state.Watch(topic, n.now(), &cr.results); err != nil {
		n.counts.unwatched.Add(1)
	}
	n.step()
}

// hasMembers reports whether a topic can have members.
func (n *Node) hasMembers(topic string) bool {
	return n.options.Present != nil && n.options.Present(topic)
}

// unwatch ends it.
func (n *Node) unwatch(topic string) {
	if !n.hasMembers(topic) {
		return
	}
	cr := n.crowd
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.state.Unwatch(topic)
}

// heard takes what a node's hello says of presence.
func (n *Node) heard(node uint64, beat []byte) bool {
	cr := n.crowd
	if cr.state == nil || len(beat) == 0 {
		return true
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	return cr.state.Heard(node, beat, n.now()) == nil
}

// gone takes away the members of a node that is dead.
func (n *Node) gone(node uint64) {
	cr := n.crowd
	if cr.state == nil {
		return
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.state.Forget(node)
	n.step()
}

// beatOfCrowd is what the node's own hello says of presence.
func (n *Node) beatOfCrowd() []byte {
	cr := n.crowd
	if cr.state == nil {
		return nil
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	return cr.state.Beat(nil)
}

// doubtCrowd has everything checked, because something may have been lost.
func (n *Node) doubtCrowd() {
	cr := n.crowd
	if cr.state == nil {
		return
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.state.Lost()
}

// members takes another node's message about its members.
func (n *Node) members(h head, rest []byte) bool {
	cr := n.crowd
	if cr.state == nil {
		return true
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	err := cr.state.Receive(h.node, rest, n.now(), &cr.results)
	n.flushCrowd()
	n.step()
	return err != presence.ErrMessage
}

// step does what is due of members, while there is room for what comes of it.
func (cr *crowd) step(n *Node) {
	for more := cr.state != nil; more && n.queue.roomy(); {
		cr.mu.Lock()
		more = cr.state.Step(n.now(), &cr.results)
		n.flushCrowd()
		cr.mu.Unlock()
	}
}

// flushCrowd sends and tells what has come of calls. n.crowd.mu is held.
func (n *Node) flushCrowd() {
	cr := n.crowd
	for _, m := range cr.results.Messages {
		subject := n.subjects.to + hex(m.Node)
		if m.Node == 0 {
			subject, _ = n.subjects.of(m.Topic)
		}
		if !n.queue.reply(subject, append(head{kindMembers, n.id, 0}.append(make([]byte, 0, headBytes+len(m.Data))), m.Data...)) {
			cr.state.Lost()
		}
	}
	for _, e := range cr.results.Events {
		cr.note(MemberChange{e.Topic, Member{e.ID, append([]byte(nil), e.Data...)}, MemberChangeKind(e.Kind)})
	}
	cr.results.Reset()
}

// note keeps a change until it is told.
func (cr *crowd) note(c MemberChange) {
	if len(cr.changes) == changesMax {
		cr.missed = true
		return
	}
	cr.changes = append(cr.changes, c)
	select {
	case cr.tell <- struct{}{}:
	default:
	}
}

// tellChanges tells Options.MemberChanged of changes, until done is closed.
func (n *Node) tellChanges(done <-chan struct{}) {
	cr := n.crowd
	for {
		select {
		case <-done:
			return
		case <-cr.tell:
		}
		cr.mu.Lock()
		changes, missed := cr.changes, cr.missed
		cr.changes, cr.missed = nil, false
		cr.mu.Unlock()
		if n.options.MemberChanged == nil {
			continue
		}
		for _, c := range changes {
			n.options.MemberChanged(c)
		}
		if missed {
			n.options.MemberChanged(MemberChange{Kind: MembersMissed})
		}
	}
}
