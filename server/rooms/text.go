package rooms

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server/cluster"
)

// content is what a message says: text, or binary, which has base64 in JSON.
type content struct {
	Text   *string `json:"text,omitempty"`
	Binary *[]byte `json:"binary,omitempty"`
}

func contentOf(op frame.Op, data []byte) content {
	if op == frame.Binary {
		return content{Binary: &data}
	}
	said := string(data)
	return content{Text: &said}
}

// message is one that is delivered.
type message struct {
	Type string `json:"type"`
	content
	At string `json:"at,omitempty"`
}

// missed is what a client gets that comes, and where it is then.
type missed struct {
	Type     string    `json:"type"`
	Messages []content `json:"messages"`
	Complete bool      `json:"complete"`
	Ahead    bool      `json:"ahead,omitempty"`
	At       string    `json:"at,omitempty"`
}

func missedText(r *cluster.Resumed) missed {
	m := missed{Type: "missed", Messages: make([]content, len(r.Messages)), Complete: !r.Missing, Ahead: r.Ahead, At: r.Position}
	for i, kept := range r.Messages {
		m.Messages[i] = contentOf(kept.Op, kept.Data)
	}
	return m
}

// member is who is in a room.
type member struct {
	Name string `json:"name"`
	Data string `json:"data,omitempty"`
}

func memberOf(m cluster.Member) member { return member{m.ID, string(m.Data)} }

// members are all of a room.
type members struct {
	Type    string   `json:"type"`
	Members []member `json:"members"`
}

func (r *Rooms) membersText(room string) members {
	list := []member{}
	for _, m := range r.node.Members(room) {
		list = append(list, memberOf(m))
	}
	slices.SortFunc(list, func(a, b member) int { return cmp.Compare(a.Name, b.Name) })
	return members{"members", list}
}

// change is what has happened to a member.
type change struct {
	Type string `json:"type"`
	member
}

// changeTypes are the types of changes.
var changeTypes = [...]string{cluster.MemberCame: "enter", cluster.MemberChanged: "change", cluster.MemberWent: "leave"}

// loss says that messages were lost: so many, or nobody knows whether and how many.
type loss struct {
	Type     string `json:"type"`
	Messages uint64 `json:"messages,omitempty"`
}

// text is v as a message.
func text(v any) (frame.Op, []byte) {
	b, _ := json.Marshal(v) // there is nothing in it that has no JSON
	return frame.Text, b
}
