package rooms

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/server"
	"github.com/seed-134acfd0/lull/server/cluster"
)

// visitor is what a client with the subprotocol has said as it came. It is empty once that
// was looked at.
type visitor struct {
	name  string // empty for one that is no member
	data  string
	after string // a position
}

// dataMost is how many bytes a member's data have.
const dataMost = 1024

// first is the position of clients that want all that is kept.
const first = "0"

// upgrade lets a connection into the room that its path names.
func (r *Rooms) upgrade(request *server.Request) error {
	name, err := roomOf(request.Path())
	if err != nil {
		return err
	}
	request.Topics = []string{name}
	speaks := r.node != nil && r.NeedNode() && slices.Contains(request.Protocols(), Protocol)
	if speaks {
		v, err := r.visitorOf(request, name)
		if err != nil {
			return err
		}
		request.Protocol, request.Value = Protocol, v
		request.Policy = server.OutboxClose // it can come back for what it has missed
		request.Topics[0] = twinPrefix + name
		if r.keeps() {
			request.Topics = nil // until it is known what it has missed
		}
	}
	request.Tag = r.table.enter(name, speaks)
	return nil
}

// visitorOf reads what a request's query says.
func (r *Rooms) visitorOf(request *server.Request, room string) (*visitor, error) {
	_, query, _ := strings.Cut(request.Target(), "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, refuse("the query: %v", err)
	}
	v := &visitor{values.Get("name"), values.Get("data"), values.Get("after")}
	switch named := values.Has("name"); {
	case !server.ValidTopic(twinPrefix + room):
		return nil, refuse("with the subprotocol %s a room's name has at most %d bytes", Protocol, server.TopicMax-len(twinPrefix))
	case named && !r.options.Presence:
		return nil, refuse("this server does not know who is in a room, so nobody has a name")
	case named && !server.ValidTopic(v.name):
		return nil, refuse("a member's name is 1 to %d bytes of UTF-8 without control characters", server.TopicMax)
	case !named && values.Has("data"):
		return nil, refuse("data are shown with a member's name, and there is none")
	case len(v.data) > dataMost || !utf8.ValidString(v.data):
		return nil, refuse("a member's data are at most %d bytes of UTF-8", dataMost)
	case v.after != "" && !r.keeps():
		return nil, refuse("this server keeps no messages, so there is none after a position")
	case v.after == first:
		v.after = cluster.Beginning
	case !cluster.ValidPosition(v.after):
		return nil, refuse("after is no position: it is the last \"at\" that this server, or another one of its cluster, has sent")
	}
	if v.name != "" && r.node.MemberCount(room) >= r.options.MaxMembers {
		return nil, &server.Reject{Status: http.StatusServiceUnavailable, Reason: fmt.Sprintf("the room has %d members, and more there may not be", r.options.MaxMembers)}
	}
	return v, nil
}

func refuse(format string, args ...any) error {
	return &server.Reject{Status: http.StatusBadRequest, Reason: fmt.Sprintf(format, args...)}
}

// open has a client enter its room, and lets it know what it has missed and who is there.
func (r *Rooms) open(c server.Conn) {
	v, ok := c.Value().(*visitor)
	if !ok {
		return // it gets messages alone
	}
	said := *v
	*v = visitor{}
	room := r.table.name(c.Tag())
	if said.name != "" {
		if err := r.node.Enter(c, room, said.name, []byte(said.data)); err != nil {
			tryLater(c, err)
			return
		}
	}
	if !r.keeps() {
		r.introduce(c, room)
		return
	}
	err := r.node.Missed(room, said.after, func(missed cluster.Resumed) {
		err := c.Subscribe(twinPrefix + room)
		if err == nil {
			err = c.Send(text(missedText(&missed)))
		}
		if err != nil {
			tryLater(c, err)
			return
		}
		r.introduce(c, room)
	})
	if err != nil {
		tryLater(c, err)
	}
}

// introduce tells a client who is in its room. It subscribes to the room's twin.
func (r *Rooms) introduce(c server.Conn, room string) {
	if !r.options.Presence {
		return
	}
	r.news.Lock()
	defer r.news.Unlock()
	if err := c.Send(text(r.membersText(room))); err != nil {
		tryLater(c, err)
	}
}
