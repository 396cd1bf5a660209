package pusher

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// subscribing is the data of a wish to subscribe.
type subscribing struct {
	Channel     string `json:"channel"`
	Auth        string `json:"auth"`
	ChannelData string `json:"channel_data"`
}

// presence is who a subscriber of a presence channel is.
type presence struct {
	UserID textID          `json:"user_id"`
	Info   json.RawMessage `json:"user_info"`
}

// askSubscribe subscribes a connection to a channel.
func (p *Pusher) askSubscribe(c server.Conn, data json.RawMessage) *fault {
	var wish subscribing
	if readData(data, &wish) != nil {
		return faultData
	}
	_, is := p.appOf(c)
	if is == nil {
		return faultGone
	}
	var f *fault
	switch user, personal := strings.CutPrefix(wish.Channel, userPrefix); {
	case personal:
		if f = faultOtherUser; user != "" && user == p.connections.user(c.Tag()) { // it has subscribed as it signed in
			p.send(c, subscribedEvent(wish.Channel, position{}, struct{}{}))
			return nil
		}
	default:
		f = p.subscribe(c, is, &wish)
	}
	if f == faultTwice {
		return f
	}
	if f != nil {
		p.told.add(f)
		p.send(c, refusedEvent(wish.Channel, f))
	}
	return nil
}

// subscribedEvent tells a subscriber that it is one, and the position in the channel from which on it
// gets what is published.
func subscribedEvent(channel string, at position, data any) []byte {
	return encode(outgoing{Event: eventSubscribed, Channel: channel, Data: encode(string(encode(data))), position: at})
}

func refusedEvent(channel string, f *fault) []byte {
	return event(eventRefused, channel[:min(len(channel), channelMost)], struct {
		Type   string `json:"type"`
		Error  string `json:"error"`
		Status int    `json:"status"`
	}{f.kind, f.text, f.code})
}

// check looks whether a connection may subscribe, and who it is in a presence channel.
func (w *subscribing) check(is *config, socket string) (who presence, f *fault) {
	if !isChannel(w.Channel) {
		return who, faultChannel
	}
	if !isGuarded(w.Channel) {
		return who, nil
	}
	signed := []string{socket, w.Channel}
	if isPresence(w.Channel) {
		signed = append(signed, w.ChannelData)
	}
	if f := checkAuth(is, w.Auth, signed...); f != nil || !isPresence(w.Channel) {
		return who, f
	}
	switch err := json.Unmarshal([]byte(w.ChannelData), &who); {
	case err != nil || !isUser(string(who.UserID)):
		return who, faultMember
	case len(who.Info) > is.Limits.MemberBytes:
		return who, faultMemberLarge
	}
	return who, nil
}

// subscribe subscribes a connection to a channel that is no user's.
func (p *Pusher) subscribe(c server.Conn, is *config, wish *subscribing) *fault {
	who, f := wish.check(is, p.socketID(c))
	if f != nil {
		return f
	}
	a := p.apps.of(c.Tag())
	topic := topicOf(a.id, wish.Channel)
	s := p.channels.lock(topic)
	defer s.mu.Unlock()
	ch := s.need(a, wish.Channel, topic)
	f = p.join(c, is, s, ch, &who)
	if ch.subscribers == 0 {
		s.drop(ch)
	}
	return f
}

// join makes a connection a subscriber of a channel. s is locked.
func (p *Pusher) join(c server.Conn, is *config, s *channelShard, ch *channel, who *presence) *fault {
	if _, twice := p.connections.subscribed(c.Tag(), ch.number); twice {
		return faultTwice
	}
	user := string(who.UserID)
	var record uint32
	came := false
	if ch.members != nil {
		if len(ch.members) >= is.Limits.Members && ch.members[user] == 0 {
			return faultMembers
		}
		var ok bool
		if record, came, ok = s.enter(ch, user, who.Info); !ok {
			return faultMembers
		}
	}
	undo := func(f *fault) *fault {
		if ch.members != nil {
			p.exit(c, s, ch, record)
		}
		return f
	}
	if ch.members != nil && !p.enterCluster(c, s, ch, who) {
		return undo(faultMembers)
	}
	if !p.connections.subscribe(c.Tag(), ch.number, record) {
		return undo(faultTooMany)
	}
	if came {
		p.announce(c, ch, event(eventAdded, ch.name, who))
	}
	confirmed := func() { p.confirm(c, ch.number) }
	if err := p.subscribeTo(c, ch.topic, confirmed); err != nil {
		p.connections.unsubscribe(c.Tag(), ch.number)
		if came {
			p.announce(c, ch, removedEvent(ch.name, user))
		}
		if err == server.ErrSubscriptions {
			return undo(faultTooMany)
		}
		return undo(faultChannelsFull)
	}
	ch.subscribers++
	p.counts.subscribed.Add(1)
	if ch.subscribers == 1 {
		ch.app.notify(&hookEvent{Name: hookOccupied, Channel: ch.name})
	}
	if came {
		ch.app.notify(&hookEvent{Name: hookAdded, Channel: ch.name, UserID: user})
	}
	if ch.members == nil {
		p.counting.changed(is, ch)
	}
	if p.nodes.Load() == nil {
		p.welcome(c, s, ch)
	}
	return nil
}

// subscribeTo subscribes a connection to a topic. In a cluster confirmed is called, on a goroutine
// of its own, when the connection gets what other nodes publish too.
func (p *Pusher) subscribeTo(c server.Conn, topic string, confirmed func()) error {
	node := p.nodes.Load()
	if node == nil {
		return c.Subscribe(topic)
	}
	return node.Subscribe(c, topic, func(bool) { go confirmed() })
}

// confirm welcomes a connection to a channel, unless it has left it again.
func (p *Pusher) confirm(c server.Conn, number uint32) {
	s, ch := p.channels.lockNumber(number)
	defer s.mu.Unlock()
	if ch == nil {
		return
	}
	if _, in := p.connections.subscribed(c.Tag(), number); in {
		p.welcome(c, s, ch)
	}
}

// welcome tells a connection that it is subscribed to a channel, and what there is in it. s is
// locked.
func (p *Pusher) welcome(c server.Conn, s *channelShard, ch *channel) {
	var at position
	if p.resumes(ch.topic) != nil {
		at = p.history.position(ch.topic)
	}
	var data any = struct{}{}
	if ch.members != nil {
		data = s.membersOf(ch)
	}
	p.send(c, subscribedEvent(ch.name, at, data))
	if !isCached(ch.name) {
		return
	}
	last, _ := p.cache.get(ch.topic, time.Now())
	if last == nil {
		last = encode(outgoing{Event: eventCacheMiss, Channel: ch.name})
		ch.app.notify(&hookEvent{Name: hookMiss, Channel: ch.name})
	}
	p.send(c, last)
}

// membersOf is what a new subscriber is told of who is in a presence channel. s is locked.
func (s *channelShard) membersOf(ch *channel) any {
	ids := make([]string, 0, len(ch.members))
	hash := make(map[string]json.RawMessage, len(ch.members))
	for user, record := range ch.members {
		_, info := s.member(record)
		if len(info) == 0 {
			info = []byte("null")
		}
		ids = append(ids, user)
		hash[user] = info
	}
	type members struct {
		Count int                        `json:"count"`
		IDs   []string                   `json:"ids"`
		Hash  map[string]json.RawMessage `json:"hash"`
	}
	return struct {
		Presence members `json:"presence"`
	}{members{len(ids), ids, hash}}
}

func removedEvent(channel, user string) []byte {
	return event(eventRemoved, channel, struct {
		UserID string `json:"user_id"`
	}{user})
}

// announce tells the subscribers of a channel of something that a connection has brought about.
// They are slowed down rather than refused who do too much of that. The channel's shard is locked.
func (p *Pusher) announce(c server.Conn, ch *channel, event []byte) {
	if err := c.PublishToOthers(ch.topic, frame.Text, event); err == server.ErrBackpressure {
		p.counts.lost.Add(1)
	}
}

// askUnsubscribe ends a subscription.
func (p *Pusher) askUnsubscribe(c server.Conn, data json.RawMessage) *fault {
	var wish subscribing
	if readData(data, &wish) != nil {
		return faultData
	}
	if strings.HasPrefix(wish.Channel, userPrefix) {
		return nil // it gets its user's events as long as it is open
	}
	a, _ := p.appOf(c)
	topic := topicOf(a.id, wish.Channel)
	s := p.channels.lock(topic)
	defer s.mu.Unlock()
	ch := s.byTopic[topic]
	if ch == nil {
		return faultNotIn
	}
	if _, is := p.connections.subscribed(c.Tag(), ch.number); !is {
		return faultNotIn
	}
	_ = c.Unsubscribe(ch.topic) // an error means that it is ending
	p.leave(c, s, ch)
	return nil
}

// leave notes that a connection is no subscriber of a channel any more. s is locked.
func (p *Pusher) leave(c server.Conn, s *channelShard, ch *channel) {
	was, ok := p.connections.unsubscribe(c.Tag(), ch.number)
	if !ok {
		return
	}
	ch.subscribers--
	if ch.members != nil {
		if user, went := p.exit(c, s, ch, was.member); went {
			ch.app.notify(&hookEvent{Name: hookRemoved, Channel: ch.name, UserID: user})
			p.announce(c, ch, removedEvent(ch.name, user))
		}
	} else {
		p.counting.changed(ch.app.config.Load(), ch)
	}
	if ch.subscribers == 0 {
		ch.app.notify(&hookEvent{Name: hookVacated, Channel: ch.name})
		if p.nodes.Load() != nil && !p.counting.leave(ch.app.config.Load(), ch) {
			p.counts.lost.Add(1)
		}
		s.drop(ch)
	}
}
