package pusher

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/internal/slab"
)

// channel is a channel that has subscribers here. It is guarded by its shard's lock.
type channel struct {
	app         *app
	name, topic string
	number      uint32
	subscribers int
	members     map[string]uint32 // of a presence channel: records, by user
	countDue    time.Time         // when they may be told next
	counting    bool              // they will be told
}

// member is who is in a presence channel, with one connection or several.
type member struct {
	text        uint32 // where the ID is, and behind it the user_info
	connections uint32 // of this node
	idLen       uint16
	infoLen     uint16
	known       bool // the cluster knows of it, and says when it has no connections any more
	_           [3]byte
}

// channels are those that have subscribers here, in shards. The number of a channel is
//
//	bits 31…6 its place in the shard · 5…0 shard
type channels struct {
	seed   maphash.Seed
	shards [channelShards]channelShard
}

// channelShard is some of the channels. Its lock is held while something is published to one of
// them, so nobody waits who holds it.
type channelShard struct {
	index   uint32
	mu      sync.Mutex
	byTopic map[string]*channel   // guarded by mu
	places  []*channel            // guarded by mu; nil for those that are free
	free    []uint32              // guarded by mu; free places
	members *slab.Records[member] // guarded by mu
	texts   *slab.Bytes           // guarded by mu
}

const (
	channelShards = 64
	membersMost   = 1 << 22 // of a shard
	textBytes     = 1 << 30 // of a shard
)

func newChannels() (*channels, error) {
	t := &channels{seed: maphash.MakeSeed()}
	for i := range t.shards {
		s := &t.shards[i]
		s.index, s.byTopic = uint32(i), map[string]*channel{}
		var err error
		if s.members, err = slab.NewRecords[member](membersMost); err != nil {
			return nil, err
		}
		if s.texts, err = slab.NewBytes(textBytes); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// lock returns the shard of a topic, locked.
func (t *channels) lock(topic string) *channelShard {
	s := &t.shards[maphash.String(t.seed, topic)%channelShards]
	s.mu.Lock()
	return s
}

// lockNumber returns the shard of a channel that has subscribers, locked, and the channel.
func (t *channels) lockNumber(number uint32) (*channelShard, *channel) {
	s := &t.shards[number%channelShards]
	s.mu.Lock()
	return s, s.places[number/channelShards]
}

// need returns a channel, which it makes if there is none.
func (s *channelShard) need(a *app, name, topic string) *channel {
	if ch := s.byTopic[topic]; ch != nil {
		return ch
	}
	ch := &channel{app: a, name: name, topic: topic}
	if isPresence(name) {
		ch.members = map[string]uint32{}
	}
	place := uint32(len(s.places))
	if n := len(s.free); n > 0 {
		place = s.free[n-1]
		s.free = s.free[:n-1]
		s.places[place] = ch
	} else {
		s.places = append(s.places, ch)
	}
	ch.number = place*channelShards + s.index
	s.byTopic[topic] = ch
	return ch
}

// drop removes a channel that has no subscribers any more.
func (s *channelShard) drop(ch *channel) {
	for user, record := range ch.members { // of other nodes
		s.remove(ch, user, record)
	}
	delete(s.byTopic, ch.topic)
	place := ch.number / channelShards
	s.places[place] = nil
	s.free = append(s.free, place)
}

// enter makes a connection part of a member. came is true if the member was not there. ok is
// false if there is no room.
func (s *channelShard) enter(ch *channel, user string, info []byte) (record uint32, came, ok bool) {
	if record = ch.members[user]; record == 0 {
		if record, came = s.add(ch, user, info), true; record == 0 {
			return 0, false, false
		}
	}
	s.members.At(record).connections++
	return record, came, true
}

// add adds a member that has no connections here yet. It returns 0 if there is no room.
func (s *channelShard) add(ch *channel, user string, info []byte) (record uint32) {
	if s.members.Room() == 0 {
		return 0
	}
	text, ok := s.texts.Put([]byte(user), info)
	if !ok {
		return 0
	}
	record = s.members.Take()
	*s.members.At(record) = member{text: text, idLen: uint16(len(user)), infoLen: uint16(len(info))}
	ch.members[user] = record
	return record
}

// exit ends what enter began. went is true if the member has no connections any more.
func (s *channelShard) exit(ch *channel, record uint32) (user string, went bool) {
	m := s.members.At(record)
	user, _ = s.member(record)
	if m.connections--; m.connections > 0 || m.known {
		return user, false
	}
	s.remove(ch, user, record)
	return user, true
}

// remove removes a member.
func (s *channelShard) remove(ch *channel, user string, record uint32) {
	delete(ch.members, user)
	s.texts.Free(s.members.At(record).text)
	s.members.Put(record)
}

// member is a member's ID and user_info.
func (s *channelShard) member(record uint32) (user string, info []byte) {
	m := s.members.At(record)
	text := s.texts.Append(nil, m.text, 0, int(m.idLen)+int(m.infoLen))
	return string(text[:m.idLen]), text[m.idLen:]
}
