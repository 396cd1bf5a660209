package hooks

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// message is one that is held, because its backend has not taken it.
type message struct {
	backend *backend
	conn    server.Conn
	call    call

	// guarded by the backend's mu
	trying bool        // a goroutine is about it
	tries  int         // that have failed
	last   *disconnect // what comes after it, if its connection has ended
}

// ready reports whether the backend of c takes a message now.
func (h *Hooks) ready(c server.Conn) bool { return h.backends[h.names.backend(c.Tag())].ready(c) }

// Types of messages.
const (
	contentText   = "text/plain; charset=utf-8"
	contentBinary = "application/octet-stream"
)

// message passes a message to the backend, and its answer to the client.
func (h *Hooks) message(c server.Conn, op frame.Op, data []byte) {
	n := h.names.get(c.Tag())
	b := h.backends[n.backend]
	defer b.done()
	content := contentText
	if op == frame.Binary {
		content = contentBinary
	}
	m := call{event: eventMessage, id: h.number(), connection: h.externalID(c, &n), user: escape(n.user), content: content, body: data}
	if again := b.tell(c, &m, 0); again {
		m.body = bytes.Clone(data)
		b.hold(&message{backend: b, conn: c, call: m, tries: 1})
	}
}

// tell sends a message to its backend, alone or in a batch. It returns true if it has to be
// sent again.
func (b *backend) tell(c server.Conn, m *call, tries int) (again bool) {
	if b.batch > 1 {
		return b.tellTogether(&letter{conn: c, call: m, tries: tries})
	}
	f, err := b.do(m, 0, b.timeout, func(a answer) { b.answer(c, a) })
	return b.settle(f, err, m, tries)
}

// settle counts what became of a message. It returns true if it has to be sent again.
func (b *backend) settle(f fate, err error, m *call, tries int) (again bool) {
	switch {
	case f == fateUnsent && b.ctx.Err() == nil:
		b.counts.add(messagesHeld)
		return true
	case f == fateUnknown && tries < b.retries && b.ctx.Err() == nil:
		b.counts.add(messagesAgain)
		return true
	case f != fateAnswered:
		b.counts.add(messagesLost)
		b.complain("a message is lost: nobody knows whether the backend has seen it", "connection", m.connection, "error", err)
	}
	return false
}

// answer does what the backend has answered to a message.
func (b *backend) answer(c server.Conn, a answer) {
	if a.status < 200 || a.status > 299 {
		b.refuse(1, a.status)
		return
	}
	b.perform(c, replyOf(a))
}

// refuse counts messages that the backend has answered with an error.
func (b *backend) refuse(n uint64, status int) {
	b.counts[messagesRefused].Add(n)
	b.complain("the backend has refused a message", "status", status)
}

// perform does what a reply says, and counts its message as answered.
func (b *backend) perform(c server.Conn, r reply) {
	b.counts.add(messagesAnswered)
	if err := b.act(c, &r); err != nil {
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

// hold keeps a message that the backend has not taken. Until it has, its connection's next
// messages wait.
func (b *backend) hold(m *message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held[m.conn.ID()] = m
	b.later(m)
}

// later has a held message sent again after a pause, or, if the backend is down, when it is
// back. It needs mu.
func (b *backend) later(m *message) {
	if b.breaker.down() {
		return
	}
	pause := min(pauseFirst<<min(m.tries-1, 16), pauseMost)
	time.AfterFunc(pause/2+time.Duration(rand.Int64N(int64(pause))), m.again)
}

// again sends a held message.
func (m *message) again() {
	b := m.backend
	b.mu.Lock()
	stop := m.trying || b.held[m.conn.ID()] != m || b.ctx.Err() != nil
	m.trying = true
	tries := m.tries
	b.mu.Unlock()
	if stop {
		return
	}
	again := b.tell(m.conn, &m.call, tries)
	b.mu.Lock()
	defer b.mu.Unlock()
	m.trying = false
	if again {
		m.tries++
		b.later(m)
		return
	}
	delete(b.held, m.conn.ID())
	b.emptier.Broadcast()
	if m.last != nil {
		b.enqueue(*m.last)
	}
	b.resume()
}
