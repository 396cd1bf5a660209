package pusher

import (
	"strconv"
	"strings"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// The versions of the protocol that are understood. What has changed from 5 to 7 is how
// clients read data, and they read this server's in either way.
const oldestProtocol, newestProtocol = 5, 7

// versionMost is how long the version of a client's library may be, in bytes.
const versionMost = 64

// upgrade decides about a handshake. One that is refused opens nevertheless, because clients
// learn the reason from an event and the code with which they are closed.
func (p *Pusher) upgrade(r *server.Request) error {
	a, f := p.admit(r)
	if f == nil {
		tag, ok := p.connections.add(r.ID()>>22&(1<<10-1), a.index)
		if ok {
			r.Tag = tag
			return nil
		}
		a.connections.Add(-1)
		f = faultCapacity
	}
	r.Tag = refusedTag | uint64(f.index)
	return nil
}

// admit finds the app of a handshake, of which it counts a connection, or the reason to refuse
// it.
func (p *Pusher) admit(r *server.Request) (*app, *fault) {
	parts := strings.Split(r.Path(), "/")
	n := len(parts)
	if n < 3 || parts[n-2] != "app" { // before it may be a proxy's path
		return nil, faultPath
	}
	a := p.apps.ofKey(parts[n-1])
	if a == nil {
		return nil, faultApp
	}
	is := a.config.Load()
	if is == nil {
		return nil, faultApp
	}
	switch {
	case is.Disabled:
		return nil, faultDisabled
	case is.TLSOnly && r.TLS() == nil && r.Header("X-Forwarded-Proto") != "https":
		return nil, faultTLS
	}
	query := r.Query()
	if !query.Has("protocol") {
		return nil, faultNoProtocol
	}
	protocol, err := strconv.ParseUint(query.Get("protocol"), 10, 16)
	switch {
	case err != nil, !isVersion(query.Get("version")):
		return nil, faultVersion
	case protocol < oldestProtocol || protocol > newestProtocol:
		return nil, faultProtocol
	case !allows(is, r):
		return nil, faultOrigin
	}
	if n := a.connections.Add(1); is.Limits.Connections > 0 && n > int64(is.Limits.Connections) {
		a.connections.Add(-1)
		return nil, faultQuota
	}
	return a, nil
}

// isVersion reports whether a text can be the version of a library. It may be missing.
func isVersion(text string) bool {
	return len(text) <= versionMost && !strings.ContainsFunc(text, func(r rune) bool {
		return notInName(r) && r != '.' && r != '+' && r != ' ' // a + of a query is a space
	})
}

// allows reports whether the page may connect from which a request comes, if it comes from one.
func allows(is *config, r *server.Request) bool {
	if !r.HasOrigin() {
		return true
	}
	var origins [][]byte
	for name, value := range r.Headers() {
		if strings.EqualFold(name, "Origin") {
			origins = append(origins, []byte(value))
		}
	}
	return is.origins.Allow([]byte(r.Header("Host")), origins...)
}

// opened greets a connection, or tells it why it is refused.
func (p *Pusher) opened(c server.Conn) {
	if c.Tag()&refusedTag != 0 {
		p.refuse(c, faults[c.Tag()&^refusedTag])
		return
	}
	p.send(c, event(eventEstablished, "", struct {
		SocketID        string `json:"socket_id"`
		ActivityTimeout int    `json:"activity_timeout"`
	}{p.socketID(c), int(p.options.ActivityTimeout.Seconds())}))
}

// closed ends a connection's subscriptions.
func (p *Pusher) closed(c server.Conn, _ frame.Code, _ error) {
	tag := c.Tag()
	if tag&refusedTag != 0 {
		return
	}
	for one, ok := p.connections.next(tag); ok; one, ok = p.connections.next(tag) {
		s, ch := p.channels.lockNumber(one.channel)
		p.leave(c, s, ch)
		s.mu.Unlock()
	}
	p.apps.of(tag).connections.Add(-1)
	p.connections.drop(tag)
}
