package pusher

import (
	"sync"

	"github.com/seed-134acfd0/lull/internal/slab"
)

// connection is what is kept of a connection, off the heap.
type connection struct {
	first   uint32 // its last subscription, which leads to the others
	user    uint32 // where the ID is of the user that it has signed in as
	second  uint32 // in which it has sent its last client event, since the start
	events  uint32 // how many it has sent in that second
	userLen uint32 // bytes of the user's ID; 0 if it has not signed in
}

// subscription is that a connection is subscribed to a channel.
type subscription struct {
	next    uint32 // of the same connection
	channel uint32 // its number
	member  uint32 // its member's record in the channel's shard; 0 without presence
}

// connections are all connections. They are in shards, so that reactors do not wait for each
// other. What names one is its Tag:
//
//	bit 63   it was refused: bits 31…0 are the fault's index
//	bits 55…40 the index of its app · 39…32 shard · 31…0 record
//
// A connection's record belongs to its handler, which is called once at a time.
type connections struct {
	shards [connectionShards]connectionShard
}

type connectionShard struct {
	mu            sync.Mutex
	records       *slab.Records[connection]   // guarded by mu
	subscriptions *slab.Records[subscription] // guarded by mu
	users         *slab.Bytes                 // guarded by mu
}

const (
	connectionShards  = 32
	connectionsMost   = 1 << 22 // of a shard, as of a reactor
	subscriptionsMost = 1 << 24 // of a shard
	usersBytes        = 1 << 28 // of a shard
	refusedTag        = 1 << 63
	tagApp, tagShard  = 40, 32
	tagRecords        = 1<<32 - 1
)

func newConnections() (*connections, error) {
	t := new(connections)
	for i := range t.shards {
		s := &t.shards[i]
		var err error
		if s.records, err = slab.NewRecords[connection](connectionsMost); err != nil {
			return nil, err
		}
		if s.subscriptions, err = slab.NewRecords[subscription](subscriptionsMost); err != nil {
			return nil, err
		}
		if s.users, err = slab.NewBytes(usersBytes); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// shard returns a Tag's shard, locked, and its connection.
func (t *connections) shard(tag uint64) (*connectionShard, *connection) {
	s := &t.shards[tag>>tagShard%connectionShards]
	s.mu.Lock()
	return s, s.records.At(uint32(tag & tagRecords))
}

// add adds a connection of an app to the shard of a reactor. ok is false if there is no room.
func (t *connections) add(reactor uint64, app uint16) (tag uint64, ok bool) {
	s := &t.shards[reactor%connectionShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.records.Take()
	if i == 0 {
		return 0, false
	}
	return uint64(app)<<tagApp | reactor%connectionShards<<tagShard | uint64(i), true
}

// drop removes a connection that has no subscriptions.
func (t *connections) drop(tag uint64) {
	s, c := t.shard(tag)
	defer s.mu.Unlock()
	s.users.Free(c.user)
	s.records.Put(uint32(tag & tagRecords))
}

// user is the ID that a connection has signed in as, or empty.
func (t *connections) user(tag uint64) string {
	s, c := t.shard(tag)
	defer s.mu.Unlock()
	return string(s.users.Append(nil, c.user, 0, int(c.userLen)))
}

// signIn notes a connection's user. It is called once. ok is false if there is no room.
func (t *connections) signIn(tag uint64, user string) (ok bool) {
	s, c := t.shard(tag)
	defer s.mu.Unlock()
	at, ok := s.users.Put([]byte(user))
	if ok {
		c.user, c.userLen = at, uint32(len(user))
	}
	return ok
}

// count counts a client event in a second. It returns false if there were as many as limit
// already.
func (t *connections) count(tag uint64, second uint32, limit int) bool {
	s, c := t.shard(tag)
	defer s.mu.Unlock()
	if c.second != second {
		c.second, c.events = second, 0
	}
	if int(c.events) >= limit {
		return false
	}
	c.events++
	return true
}

// subscribe notes a subscription. ok is false if there is no room.
func (t *connections) subscribe(tag uint64, channel, member uint32) (ok bool) {
	s, c := t.shard(tag)
	defer s.mu.Unlock()
	i := s.subscriptions.Take()
	if i == 0 {
		return false
	}
	*s.subscriptions.At(i) = subscription{c.first, channel, member}
	c.first = i
	return true
}

// subscribed returns a subscription.
func (t *connections) subscribed(tag uint64, channel uint32) (is subscription, ok bool) {
	s, c := t.shard(tag)
	defer s.mu.Unlock()
	for i := c.first; i != 0; i = s.subscriptions.At(i).next {
		if of := s.subscriptions.At(i); of.channel == channel {
			return *of, true
		}
	}
	return is, false
}

// unsubscribe removes a subscription, and returns it.
func (t *connections) unsubscribe(tag uint64, channel uint32) (was subscription, ok bool) {
	s, c := t.shard(tag)
	defer s.mu.Unlock()
	for at := &c.first; *at != 0; at = &s.subscriptions.At(*at).next {
		if i := *at; s.subscriptions.At(i).channel == channel {
			was = *s.subscriptions.At(i)
			*at = was.next
			s.subscriptions.Put(i)
			return was, true
		}
	}
	return was, false
}

// next returns one of a connection's subscriptions.
func (t *connections) next(tag uint64) (one subscription, ok bool) {
	s, c := t.shard(tag)
	defer s.mu.Unlock()
	if c.first == 0 {
		return one, false
	}
	return *s.subscriptions.At(c.first), true
}
