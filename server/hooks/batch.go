package hooks

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed-134acfd0/lull/frame"
)

// batchOf is the body of a batch: an array of messages, each with a text, or with base64 if it
// is binary.
func batchOf(together []*message) (b []byte) {
	const names = `,{"id":"","connection":"","user":"","base64":""}`
	size := 0
	for _, m := range together {
		size += len(names) + len(m.id) + len(m.conn) + len(m.user) + len(m.body)*4/3
	}
	b = make([]byte, 0, size)
	for i, m := range together {
		b = append(b, "[,"[min(i, 1)])
		b = appendText(append(b, `{"id":`...), m.id)
		b = appendText(append(b, `,"connection":`...), m.conn)
		b = appendText(append(b, `,"user":`...), m.user)
		if m.delivery.Op == frame.Binary {
			b = append(b, `,"base64":"`...)
			b = base64.StdEncoding.AppendEncode(b, m.body)
			b = append(b, `"}`...)
		} else {
			b = append(appendText(append(b, `,"text":`...), m.body), '}')
		}
	}
	return append(b, ']')
}

// appendText appends a text in quotes. What is not UTF-8 in it becomes U+FFFD.
func appendText[T string | []byte](b []byte, text T) []byte {
	b, _ = jsontext.AppendQuote(b, text)
	return b
}

// batchReply is the reply to a message of a batch: a text that goes back to the connection,
// or an object, or null for nothing.
type batchReply struct {
	Text        string   `json:"text"`
	Base64      []byte   `json:"base64"`
	Topic       string   `json:"topic"`
	Subscribe   []string `json:"subscribe"`
	Unsubscribe []string `json:"unsubscribe"`
	Close       string   `json:"close"` // code and reason
}

// UnmarshalJSONFrom accepts a text for an object that has nothing else.
func (r *batchReply) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == jsontext.KindString {
		return json.UnmarshalDecode(d, &r.Text)
	}
	type plain batchReply
	return json.UnmarshalDecode(d, (*plain)(r))
}

func (r *batchReply) reply() reply {
	content, body := contentText, []byte(r.Text)
	if len(r.Base64) > 0 {
		content, body = contentBinary, r.Base64
	}
	return reply{r.Subscribe, r.Unsubscribe, r.Topic, content, body, r.Close}
}

// batchOptions are how answers to batches are read: with no other members than these, and with
// U+FFFD for what is not UTF-8.
var batchOptions = json.JoinOptions(json.RejectUnknownMembers(true), jsontext.AllowInvalidUTF8(true))

var errBoth = errors.New("a reply has text and base64")

// repliesOf reads the answer to a batch: an array with a reply to each of n messages, or
// nothing.
func repliesOf(body []byte, n int) ([]reply, error) {
	all := make([]reply, n)
	if len(body) == 0 {
		return all, nil
	}
	replies := make([]batchReply, 0, n)
	if err := json.Unmarshal(body, &replies, batchOptions); err != nil {
		return nil, err
	}
	if len(replies) != n {
		return nil, fmt.Errorf("there are %d replies to %d messages", len(replies), n)
	}
	for i := range replies {
		if replies[i].Text != "" && len(replies[i].Base64) > 0 {
			return nil, errBoth
		}
		all[i] = replies[i].reply()
	}
	return all, nil
}
