package hooks

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// answer does what the backend has answered to messages.
func (b *backend) answer(together []*message, a answer) {
	if a.status < 200 || a.status > 299 {
		b.counts[messagesRefused].Add(uint64(len(together)))
		b.complain("the backend has refused a message", "status", a.status)
		return
	}
	replies := []reply{replyOf(a)}
	if b.batch > 1 {
		var err error
		if replies, err = repliesOf(a.body, len(together)); err != nil {
			b.counts[messagesAnswered].Add(uint64(len(together)))
			b.counts[answersBad].Add(uint64(len(together)))
			b.complain("what the backend has answered to a batch cannot be", "error", err)
			return
		}
	}
	for i, m := range together {
		b.perform(m.delivery.Conn, &replies[i])
	}
}

// perform does what a reply says, and counts its message as answered.
func (b *backend) perform(c server.Conn, r *reply) {
	b.counts.add(messagesAnswered)
	if err := b.act(c, r); err != nil {
		b.counts.add(answersBad)
		b.complain("what the backend has answered to a message cannot be", "error", err)
	}
}

// reply is what a backend wants to be done after a message.
type reply struct {
	subscribe, unsubscribe []string
	topic                  string // to which the body is published; empty if it goes back
	content                string
	body                   []byte
	close                  string // code and reason; empty if the connection stays open
}

// replyOf is the reply in an answer.
func replyOf(a answer) reply {
	return reply{
		listed(a.header.Get("Lull-Subscribe")), listed(a.header.Get("Lull-Unsubscribe")), unescape(a.header.Get("Lull-Topic")),
		a.header.Get("Content-Type"), a.body, a.header.Get("Lull-Close"),
	}
}

// act does what a reply says: it subscribes, sends or publishes, and closes.
func (b *backend) act(c server.Conn, r *reply) error {
	for _, topic := range r.subscribe {
		if err := checkTopic(topic); err != nil {
			return err
		}
		if err := c.Subscribe(topic); err != nil && err != server.ErrClosed {
			return err
		}
	}
	for _, topic := range r.unsubscribe {
		_ = c.Unsubscribe(topic) // it ends then, or is slow
	}
	if len(r.body) > 0 {
		if err := b.pass(c, r); err != nil {
			return err
		}
	}
	if r.close != "" {
		code, reason, _ := strings.Cut(r.close, " ")
		n, err := strconv.ParseUint(code, 10, 16)
		if err != nil || len(reason) > reasonLength {
			return errClose
		}
		_ = c.Close(frame.Code(n), reason) // it has ended already
	}
	return nil
}

// reasonLength is how many bytes a reason for closing may have (RFC 6455 section 5.5).
const reasonLength = 123

// What can be wrong with an answer.
var (
	errClose = errors.New("Lull-Close is a code and a reason of up to 123 bytes")
	errText  = errors.New("the text is not UTF-8")
)

// pass sends a reply's body to the client, or publishes it.
func (b *backend) pass(c server.Conn, r *reply) error {
	op, err := opOf(r.content, r.body)
	if err != nil {
		return err
	}
	switch {
	case r.topic == "":
		err = c.Send(op, r.body)
	case b.publisher != nil:
		err = b.publisher.PublishFrom(c, r.topic, op, r.body)
	default:
		err = c.Publish(r.topic, op, r.body)
	}
	if err == nil || err == server.ErrTopicName {
		return err
	}
	b.counts.add(answersUndelivered) // to the connection, or to other nodes
	return nil
}

// listed is a header's list of names, each of which is escaped.
func listed(header string) (names []string) {
	if header == "" {
		return nil
	}
	for part := range strings.SplitSeq(header, ",") {
		names = append(names, unescape(strings.TrimSpace(part)))
	}
	return names
}

// unescape is a name that was percent-encoded. What cannot be becomes the name of no topic.
func unescape(text string) string {
	name, err := url.PathUnescape(text)
	if err != nil {
		return "\x00"
	}
	return name
}

// opOf is how a body of a type is sent: as text, if it says that it is text or JSON, or says
// nothing and is UTF-8.
func opOf(contentType string, body []byte) (frame.Op, error) {
	kind, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	kind = strings.TrimSpace(kind)
	is := strings.HasPrefix(kind, "text/") || kind == "application/json" || strings.HasSuffix(kind, "+json")
	switch valid := utf8.Valid(body); {
	case is && !valid:
		return 0, errText
	case is, kind == "" && valid:
		return frame.Text, nil
	}
	return frame.Binary, nil
}
