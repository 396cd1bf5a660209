package rooms

import (
	"maps"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
)

// delivered passes a message on to the room's twin.
func (r *Rooms) delivered(by cluster.Publisher, d cluster.Delivery) error {
	if !r.table.spoken(d.Topic) {
		return nil
	}
	op, data := text(message{"message", contentOf(d.Op, d.Data), d.Position()})
	return by.Publish(twinPrefix+d.Topic, op, data)
}

// memberChanged tells a room that somebody has come, shows other data, or has gone.
func (r *Rooms) memberChanged(c cluster.MemberChange) {
	if c.Kind != cluster.MembersMissed {
		r.tell(c.Topic, func() any { return change{changeTypes[c.Kind], memberOf(c.Member)} })
		return
	}
	for _, room := range r.table.names() {
		r.tell(room, func() any { return r.membersText(room) })
	}
}

// tell publishes a text to a room's twin, as it is at the moment when there is room for it.
func (r *Rooms) tell(room string, now func() any) {
	for r.tryToTell(room, now) == server.ErrBackpressure {
		time.Sleep(tellAgain)
	}
}

// tellAgain is after what time the server is asked again that has too much to send.
const tellAgain = 10 * time.Millisecond

func (r *Rooms) tryToTell(room string, now func() any) error {
	s := r.server.Load()
	if s == nil || !r.table.spoken(room) {
		return nil
	}
	r.news.Lock()
	defer r.news.Unlock()
	op, data := text(now())
	return s.Publish(twinPrefix+room, op, data)
}

// losses are messages that are lost, and of which rooms are to be told.
type losses struct {
	mu      sync.Mutex
	rooms   map[string]uint64 // how many; 0 if that is not known
	telling bool              // a goroutine does
}

// lost has a room told that messages to it were lost. Where it is not known in which room, all are
// told for which it may be.
func (r *Rooms) lost(l cluster.Loss) {
	rooms := []string{l.Topic}
	if l.Topic == "" {
		rooms = r.table.names()
	}
	r.losses.mu.Lock()
	defer r.losses.mu.Unlock()
	for _, room := range rooms {
		n, before := r.losses.rooms[room]
		if l.Unsure || l.Topic == "" || before && n == 0 {
			r.losses.rooms[room] = 0
		} else {
			r.losses.rooms[room] = n + l.Messages
		}
	}
	if !r.losses.telling && len(r.losses.rooms) > 0 {
		r.losses.telling = true
		go r.tellLosses()
	}
}

// tellLosses tells the rooms until there is no more to tell.
func (r *Rooms) tellLosses() {
	for {
		r.losses.mu.Lock()
		rooms := maps.Clone(r.losses.rooms)
		clear(r.losses.rooms)
		r.losses.telling = len(rooms) > 0
		r.losses.mu.Unlock()
		if len(rooms) == 0 {
			return
		}
		for room, n := range rooms {
			r.tell(room, func() any { return loss{"lost", n} })
		}
	}
}
