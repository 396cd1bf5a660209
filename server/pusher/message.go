package pusher

import (
	"encoding/json"
	"strings"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

var pong = []byte(`{"event":"` + eventPong + `","data":"{}"}`)

// message does what a client asks for.
func (p *Pusher) message(c server.Conn, op frame.Op, data []byte) {
	if c.Tag()&refusedTag != 0 {
		return // it is on its way out
	}
	if f := p.do(c, op, data); f != nil {
		p.tell(c, f)
	}
}

func (p *Pusher) do(c server.Conn, op frame.Op, data []byte) *fault {
	if op != frame.Text {
		return faultBinary
	}
	var m incoming
	if err := json.Unmarshal(data, &m); err != nil {
		return faultJSON
	}
	switch {
	case m.Event == eventPing:
		p.send(c, pong)
		return nil
	case m.Event == eventPong:
		return nil
	case m.Event == eventSubscribe:
		return p.askSubscribe(c, m.Data)
	case m.Event == eventUnsubscribe:
		return p.askUnsubscribe(c, m.Data)
	case m.Event == eventResume:
		return p.resume(c, m.Data)
	case m.Event == eventSignin:
		return p.signIn(c, m.Data)
	case strings.HasPrefix(m.Event, clientEventPrefix):
		return p.clientEvent(c, &m)
	case m.Event == "":
		return faultNoEvent
	}
	return faultEvent
}

// appOf is the app of a connection as it is now, nil if it was removed.
func (p *Pusher) appOf(c server.Conn) (*app, *config) {
	a := p.apps.of(c.Tag())
	return a, a.config.Load()
}
