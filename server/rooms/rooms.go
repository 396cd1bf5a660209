package rooms

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
)

// Protocol is the subprotocol of clients that see who is in a room, and what they have missed.
const Protocol = "lull.rooms.v1"

// Options say what clients see of a room beside its messages. With the zero value that is
// nothing.
type Options struct {
	// Presence lets clients be members that others see.
	Presence bool
	// MaxMembers is how many members a room may have, as far as the node knows when one more
	// comes; 1,000 by default. Each is told of each, so it is no number of an audience.
	MaxMembers int
	// History is how much is kept of a room, for clients that come back.
	History cluster.Limits
}

// Rooms are the rooms of one server. Any goroutine may call their methods.
type Rooms struct {
	// constant after Handler
	options Options
	node    *cluster.Node // nil without a cluster
	publish func(c server.Conn, topic string, op frame.Op, data []byte) error

	// for any goroutine
	table  *table
	server atomic.Pointer[server.Server] // nil before Bind
	news   sync.Mutex                    // held while members are told, so that a list fits to the changes behind it
	losses losses

	// owned by the goroutine of TopicChanged
	live map[string]presences // by room
}

// membersMost is Options.MaxMembers' default.
const membersMost = 1000

// New makes rooms that nobody is in.
func New(o Options) *Rooms {
	if o.MaxMembers == 0 {
		o.MaxMembers = membersMost
	}
	return &Rooms{options: o, publish: server.Conn.Publish, table: newTable(), losses: losses{rooms: map[string]uint64{}}, live: map[string]presences{}}
}

// NeedNode reports whether clients see more than messages: then Handler needs a node.
func (r *Rooms) NeedNode() bool { return r.options.Presence || r.keeps() }

// keeps reports whether messages are kept.
func (r *Rooms) keeps() bool { return r.options.History.Messages > 0 }

// Cluster returns the options of a node that these rooms are on: o, and what they need.
func (r *Rooms) Cluster(o cluster.Options) cluster.Options {
	if r.options.Presence {
		o.Present, o.MemberChanged = always, r.memberChanged
	}
	if r.keeps() {
		o.History = func(string) cluster.Limits { return r.options.History }
	}
	if r.NeedNode() {
		o.Delivered, o.Lost = r.delivered, r.lost
	}
	return o
}

func always(string) bool { return true }

// Handler has each connection in the room that its path names. What it says goes to everybody
// there, on all nodes of the cluster; node is nil for this server alone. It is called once.
func (r *Rooms) Handler(node *cluster.Node) server.Handler {
	h := server.Handler{
		Upgrade: r.upgrade,
		Message: func(c server.Conn, op frame.Op, data []byte) { _ = r.publish(c, r.table.name(c.Tag()), op, data) },
		Close:   func(c server.Conn, _ frame.Code, _ error) { r.table.leave(c.Tag()) },
	}
	if r.node = node; node == nil {
		return h
	}
	r.publish = func(c server.Conn, topic string, op frame.Op, data []byte) error {
		return node.PublishFrom(c, topic, op, data)
	}
	if r.NeedNode() {
		h.Open = r.open
	}
	if r.options.Presence {
		h = node.Handler(h)
	}
	return h
}

// Bind says which server they are on. It is called once, before the server runs.
func (r *Rooms) Bind(s *server.Server) { r.server.Store(s) }

// presences say by which of its topics somebody is in a room.
type presences struct{ room, twin bool }

// TopicChanged is for server.Options, in place of the node's: a room is live while it or its
// twin has subscribers.
func (r *Rooms) TopicChanged(topic string, live bool) {
	if r.node == nil {
		return
	}
	room, isTwin := strings.CutPrefix(topic, twinPrefix)
	before := r.live[room]
	now := before
	if isTwin {
		now.twin = live
	} else {
		now.room = live
	}
	nobody := presences{}
	if now == nobody {
		delete(r.live, room)
	} else {
		r.live[room] = now
	}
	if (before == nobody) != (now == nobody) {
		r.node.TopicChanged(room, now != nobody)
	}
}

// twinPrefix is what a room's twin has before the room's name.
const twinPrefix = Protocol + "/"

// tryLater is why a client is closed for whom there is no room: with 1013, so that it comes
// back.
func tryLater(c server.Conn, why error) {
	if !errors.Is(why, server.ErrClosed) {
		_ = c.Close(frame.TryAgainLater, reason(why))
	}
}

// reason is an error as a Close frame has it, in at most 123 bytes.
func reason(why error) string {
	_, text, found := strings.Cut(why.Error(), ": ") // without the package's name
	if !found {
		text = why.Error()
	}
	return text[:min(len(text), 123)]
}
