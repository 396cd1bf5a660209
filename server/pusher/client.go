package pusher

import (
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
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
	s := p.channels.lock(topic)
	defer s.mu.Unlock()
	ch := s.byTopic[topic]
	if ch == nil {
		return faultClientNotIn
	}
	as, in := p.connections.subscribed(c.Tag(), ch.number)
	if !in {
		return faultClientNotIn
	}
	if !p.connections.count(c.Tag(), uint32(time.Since(p.began)/time.Second), is.Limits.ClientEvents) {
		return faultClientRate
	}
	out := outgoing{Event: m.Event, Channel: m.Channel, Data: m.Data}
	if ch.members != nil {
		out.UserID, _ = s.member(as.member)
	}
	switch c.PublishToOthers(topic, frame.Text, encode(out)) {
	case nil:
		p.counts.clientEvents.Add(1)
		a.notify(&hookEvent{Name: hookClient, Channel: m.Channel, UserID: out.UserID, Event: m.Event, Data: m.Data, SocketID: p.socketID(c)})
	case server.ErrBackpressure:
		return faultClientFull
	}
	return nil
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
		if !p.connections.signIn(c.Tag(), string(user.ID)) || c.Subscribe(userTopic(a.id, string(user.ID))) != nil {
			return faultCapacity
		}
	}
	p.send(c, event(eventSignedIn, "", struct {
		UserData string `json:"user_data"`
	}{wish.UserData}))
	return nil
}
