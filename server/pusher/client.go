package pusher

import (
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
)

// clientEvent publishes an event of a client to the other subscribers of a channel.
func (p *Pusher) clientEvent(c server.Conn, m *incoming) *fault {
	a, is := p.appOf(c)
	switch {
	case is == nil:
		return faultGone
	case !is.ClientEvents:
		return faultClientOff
	case !isChannel(m.Channel) || !isGuarded(m.Channel) || isEncrypted(m.Channel):
		return faultClientChannel
	case len(m.Event) > eventNameMost || !utf8.ValidString(m.Event):
		return faultClientName
	case len(m.Data) > is.Limits.EventBytes:
		return faultClientData
	}
	topic := topicOf(a.id, m.Channel)
	user, in := p.subscriber(c, topic)
	if !in {
		return faultClientNotIn
	}
	if !p.connections.count(c.Tag(), uint32(time.Since(p.began)/time.Second), is.Limits.ClientEvents) {
		return faultClientRate
	}
	socket := p.socketID(c)
	text := encode(outgoing{Event: m.Event, Channel: m.Channel, Data: m.Data, UserID: user})
	switch p.publish(c.Server(), topic, false, socket, text) {
	case nil:
		p.counts.clientEvents.Add(1)
		a.notify(&hookEvent{Name: hookClient, Channel: m.Channel, UserID: user, Event: m.Event, Data: m.Data, SocketID: socket})
	case server.ErrBackpressure:
		return faultClientFull
	case cluster.ErrTooLarge:
		return faultClientData
	}
	return nil
}

// subscriber reports whether a connection is subscribed to a channel, and who it is if that is a
// presence channel.
func (p *Pusher) subscriber(c server.Conn, topic string) (user string, in bool) {
	s := p.channels.lock(topic)
	defer s.mu.Unlock()
	ch := s.byTopic[topic]
	if ch == nil {
		return "", false
	}
	as, in := p.connections.subscribed(c.Tag(), ch.number)
	if in && ch.members != nil {
		user, _ = s.member(as.member)
	}
	return user, in
}

// signingIn is the data of a wish to sign in.
type signingIn struct {
	Auth     string `json:"auth"`
	UserData string `json:"user_data"`
}

// signIn makes a connection a user's, whom the app's backend has signed.
func (p *Pusher) signIn(c server.Conn, data json.RawMessage) *fault {
	var wish signingIn
	if readData(data, &wish) != nil {
		return faultData
	}
	a, is := p.appOf(c)
	if is == nil {
		return faultGone
	}
	f := p.signInAs(c, a, is, &wish)
	if f != nil {
		p.refuse(c, f)
	}
	return nil
}

func (p *Pusher) signInAs(c server.Conn, a *app, is *config, wish *signingIn) *fault {
	if checkAuth(is, wish.Auth, p.socketID(c), "", "user", "", wish.UserData) != nil {
		return faultSignin
	}
	var user struct {
		ID textID `json:"id"`
	}
	if json.Unmarshal([]byte(wish.UserData), &user) != nil || !isUser(string(user.ID)) {
		return faultSigninData
	}
	switch was := p.connections.user(c.Tag()); {
	case was != "" && was != string(user.ID):
		return faultSigninTwice
	case was == "":
		if !p.connections.signIn(c.Tag(), string(user.ID)) || p.subscribeTo(c, userTopic(a.id, string(user.ID)), func() {}) != nil {
			return faultCapacity
		}
	}
	p.send(c, event(eventSignedIn, "", struct {
		UserData string `json:"user_data"`
	}{wish.UserData}))
	return nil
}
