package pusher

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/internal/gate"
)

// App is an application: channels, users and publishers of its own.
type App struct {
	// ID is what publishers name it by, Key what clients name it by. Secret is what it has in
	// common with its publishers and its backend. ID has 1 to 32 letters, digits, "_" and "-",
	// and so has Key, up to 64.
	ID     string `yaml:"id"`
	Key    string `yaml:"key"`
	Secret string `yaml:"secret"`
	// Disabled closes its connections (4003) and refuses its publishers.
	Disabled bool `yaml:"disabled"`
	// TLSOnly refuses clients that come without TLS (4000). Behind a proxy that ends it, the
	// header X-Forwarded-Proto has to say https.
	TLSOnly bool `yaml:"tls_only"`
	// Origins are the sites whose pages may connect, beside the server's own, as in
	// server.Options; by default any.
	Origins []string `yaml:"origins"`
	// ClientEvents lets clients publish to private and presence channels.
	ClientEvents bool `yaml:"client_events"`
	// SubscriptionCount tells the subscribers of a channel how many there are, but for presence
	// channels.
	SubscriptionCount bool `yaml:"subscription_count"`
	// Webhooks are where its backend is told what happens; at most 16.
	Webhooks []Webhook `yaml:"webhooks"`
	// Resume keeps the last events of each channel for clients that come back and ask for them.
	Resume Resume `yaml:"resume"`
	// Limits bound what its clients and publishers may do.
	Limits Limits `yaml:"limits"`
}

// Limits of an app. The zero value of each is its default.
type Limits struct {
	// Connections is how many there may be at once; by default as many as the server takes.
	Connections int `yaml:"connections"`
	// EventBytes is how large an event's data may be; 10,240 by default.
	EventBytes int `yaml:"event_bytes"`
	// ClientEvents is how many client events a connection may send in a second; 10 by default.
	ClientEvents int `yaml:"client_events"`
	// Members is how many members a presence channel may have, 100 by default, and MemberBytes
	// how large the user_info of one may be; 1,024 by default, and at most.
	Members     int `yaml:"members"`
	MemberBytes int `yaml:"member_bytes"`
	// EventChannels is how many channels an event may be published to at once; 100 by default.
	EventChannels int `yaml:"event_channels"`
	// Batch is how many events a batch may have; 10 by default.
	Batch int `yaml:"batch"`
	// Events is how many events may be published in a second, each once for each channel, by
	// the API; by default there is no limit. As many may come at once after a rest, and at
	// least EventChannels times Batch.
	Events int `yaml:"events"`
}

// Bounds of what an app may be called, and of what it may ask for.
const (
	appIDMost       = 32
	appKeyMost      = 64
	channelMost     = 164
	userMost        = 128
	eventNameMost   = 200
	memberBytesMost = 1 << 10
	appsMost        = 1 << 15
)

// config is an App that was checked, with its defaults.
type config struct {
	App
	origins *gate.Origins
}

// newConfig checks an app.
func newConfig(a App) (*config, error) {
	l := &a.Limits
	l.EventBytes = cmp.Or(l.EventBytes, 10<<10)
	l.ClientEvents = cmp.Or(l.ClientEvents, 10)
	l.Members = cmp.Or(l.Members, 100)
	l.MemberBytes = cmp.Or(l.MemberBytes, memberBytesMost)
	l.EventChannels = cmp.Or(l.EventChannels, 100)
	l.Batch = cmp.Or(l.Batch, 10)
	a.Resume.Seconds = cmp.Or(a.Resume.Seconds, 120)
	if a.Origins == nil {
		a.Origins = []string{"any"}
	}
	c := &config{App: a}
	var err error
	switch {
	case a.ID == "" || len(a.ID) > appIDMost || strings.ContainsFunc(a.ID, notInName):
		return nil, fmt.Errorf("its id must be 1 to %d letters, digits, _ and -", appIDMost)
	case a.Key == "" || len(a.Key) > appKeyMost || strings.ContainsFunc(a.Key, notInName):
		return nil, fmt.Errorf("its key must be 1 to %d letters, digits, _ and -", appKeyMost)
	case a.Secret == "":
		return nil, errors.New("it has no secret")
	case min(l.Connections, l.EventBytes, l.ClientEvents, l.Members, l.MemberBytes, l.EventChannels, l.Batch, l.Events, a.Resume.Events, a.Resume.Seconds) < 0:
		return nil, errors.New("its limits must not be negative")
	case l.MemberBytes > memberBytesMost:
		return nil, fmt.Errorf("its limits: member_bytes is at most %d", memberBytesMost)
	}
	if len(a.Webhooks) > webhooksMost {
		return nil, fmt.Errorf("it has more than %d webhooks", webhooksMost)
	}
	urls := map[string]bool{}
	for i := range a.Webhooks {
		w := &a.Webhooks[i]
		if err := w.check(); err != nil {
			return nil, fmt.Errorf("its webhook %w", err)
		}
		if urls[w.URL] {
			return nil, fmt.Errorf("its webhook %q is there twice", w.URL)
		}
		urls[w.URL] = true
	}
	if c.origins, err = gate.ParseOrigins(a.Origins); err != nil {
		return nil, fmt.Errorf("its origins: %s", strings.TrimPrefix(err.Error(), "gate: "))
	}
	return c, nil
}

func notInName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
}

// Kinds of channels, by what their names begin with.
const (
	privatePrefix   = "private-"
	encryptedPrefix = "private-encrypted-"
	presencePrefix  = "presence-"
	userPrefix      = "#server-to-user-"
)

var cachePrefixes = []string{"cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-"}

func isPresence(channel string) bool  { return strings.HasPrefix(channel, presencePrefix) }
func isEncrypted(channel string) bool { return strings.HasPrefix(channel, encryptedPrefix) }

// isGuarded reports whether subscribers need auth.
func isGuarded(channel string) bool {
	return strings.HasPrefix(channel, privatePrefix) || isPresence(channel)
}

// isCached reports whether a channel's last event is kept.
func isCached(channel string) bool {
	for _, p := range cachePrefixes {
		if strings.HasPrefix(channel, p) {
			return true
		}
	}
	return false
}

// isChannel reports whether a channel can have a name, but for those of users.
func isChannel(name string) bool {
	return name != "" && len(name) <= channelMost && !strings.ContainsFunc(name, func(r rune) bool {
		return notInName(r) && !strings.ContainsRune("=@,.;", r)
	})
}

// isUser reports whether a user can have an ID.
func isUser(id string) bool { return len(id) <= userMost && server.ValidTopic(id) }

// topicOf is the topic of a channel, or of a user by the name of the user's channel.
func topicOf(app, channel string) string {
	if user, ok := strings.CutPrefix(channel, userPrefix); ok {
		return userTopic(app, user)
	}
	return app + "/" + channel
}

func userTopic(app, user string) string { return "user:" + app + "/" + user }
