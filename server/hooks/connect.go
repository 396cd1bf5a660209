package hooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// handshake is what a backend is told of a connection that wants to open, as JSON.
type handshake struct {
	Path      string            `json:"path"`      // as it was sent, not unescaped
	Query     string            `json:"query"`     // as it was sent
	Remote    string            `json:"remote"`    // address:port, or the address alone behind a proxy
	Protocols []string          `json:"protocols"` // that the client offers, the one it prefers first
	Headers   map[string]string `json:"headers"`   // those of Options.Headers that there are
}

// welcome is what a backend answers, as JSON, if it accepts. Everything is optional.
type welcome struct {
	User      string   `json:"user"`
	Topics    []string `json:"topics"`
	Protocol  string   `json:"protocol"`
	ExpiresIn float64  `json:"expires_in"` // seconds; zero is never
	Messages  []string `json:"messages"`   // texts that the client is sent first
}

// UserTopic is what the topic of a user begins with, to which other nodes of a cluster
// publish. No other topic may.
const UserTopic = "user:"

// userMost is how many bytes the name of a user may have.
const userMost = server.TopicMax - len(UserTopic)

// greetMost is how many messages a connection may be sent first.
const greetMost = 100

// connectTries is how often a handshake is tried.
const connectTries = 3

// connect asks the backend about a handshake.
func (h *Hooks) connect(r *server.Request) error {
	b := h.backendFor(r.Path())
	if b == nil {
		h.noPath.Add(1)
		return &server.Reject{Status: http.StatusNotFound, Reason: "there is nothing at this path"}
	}
	if !b.begin(len(h.backends) > 1) {
		b.counts.add(connectsBusy)
		return b.unavailable(errBusy)
	}
	defer b.end()
	id := r.ID()
	if id == 0 {
		id = h.aliases.new()
	}
	c := &call{event: eventConnect, id: h.number(), connection: h.idOf(id), content: "application/json"}
	c.body, c.header = h.describe(r)
	var verdict error
	var w welcome
	f, err := b.retry(c, func(a answer) { w, verdict = b.verdict(a) })
	switch {
	case f != fateAnswered:
		b.counts.add(connectsFailed)
		return b.unavailable(err)
	case verdict != nil:
		return verdict
	}
	if err := w.check(r.Protocols()); err != nil {
		b.counts.add(answersBad)
		b.complain("what the backend has answered to a handshake cannot be", "error", err)
		return &server.Reject{Status: http.StatusBadGateway, Reason: "the backend's answer cannot be understood"}
	}
	tag, err := h.names.put(name{b.index, id, w.User})
	if err != nil {
		b.counts.add(connectsFailed)
		return b.unavailable(err)
	}
	b.counts.add(connectsAccepted)
	r.Tag = tag
	if w.ExpiresIn > 0 {
		r.Expires = time.Now().Add(time.Duration(min(w.ExpiresIn, expiresMost) * float64(time.Second)))
	}
	r.Protocol, r.Topics = w.Protocol, w.Topics
	if w.User != "" && h.options.Publisher != nil {
		r.Topics = append(slices.Clip(w.Topics), UserTopic+w.User)
	}
	texts := make([]text, len(w.Messages))
	for i, m := range w.Messages {
		texts[i] = text{frame.Text, []byte(m)}
	}
	h.greets.put(id, texts)
	return nil
}

// expiresMost is the longest life of a connection, in seconds: a hundred years.
const expiresMost = 100 * 365 * 24 * 3600

// describe spells a handshake as JSON, and returns the headers of choice, which go as
// headers too.
func (h *Hooks) describe(r *server.Request) (body []byte, header [][2]string) {
	path, query, _ := strings.Cut(r.Target(), "?")
	d := handshake{path, query, addressOf(r.RemoteAddr()), r.Protocols(), map[string]string{}}
	for name, value := range r.Headers() {
		name = http.CanonicalHeaderKey(name)
		if !slices.Contains(h.options.Headers, name) {
			continue
		}
		value = strings.ToValidUTF8(value, "\uFFFD")
		header = append(header, [2]string{name, value})
		if before, twice := d.Headers[name]; twice {
			between := ", "
			if name == "Cookie" {
				between = "; " // RFC 9113 section 8.2.3
			}
			value = before + between + value
		}
		d.Headers[name] = value
	}
	if d.Protocols == nil {
		d.Protocols = []string{}
	}
	body, _ = json.Marshal(d) // there is nothing in it that has no JSON
	return body, header
}

func addressOf(a netip.AddrPort) string {
	switch {
	case !a.IsValid():
		return ""
	case a.Port() == 0: // a proxy has told it
		return a.Addr().String()
	}
	return a.String()
}

// verdict is what an answer to a handshake means.
func (b *backend) verdict(a answer) (w welcome, refused error) {
	if a.status >= 200 && a.status < 300 {
		if len(bytes.TrimSpace(a.body)) == 0 {
			return w, nil
		}
		d := json.NewDecoder(bytes.NewReader(a.body))
		d.DisallowUnknownFields()
		err := d.Decode(&w)
		if err == nil && d.More() {
			err = fmt.Errorf("there is something behind the JSON")
		}
		if err != nil {
			b.counts.add(answersBad)
			b.complain("what the backend has answered to a handshake is not the JSON that it should be", "error", err)
			return w, &server.Reject{Status: http.StatusBadGateway, Reason: "the backend's answer cannot be understood"}
		}
		return w, nil
	}
	b.counts.add(connectsRefused)
	r := &server.Reject{Status: a.status, Reason: http.StatusText(a.status), Header: http.Header{}}
	for _, name := range []string{"Location", "Retry-After", "Www-Authenticate"} {
		if value := a.header.Get(name); value != "" {
			r.Header.Set(name, value)
		}
	}
	if strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") && len(a.body) <= reasonMost && utf8.Valid(a.body) && len(a.body) > 0 {
		r.Reason = strings.TrimSpace(string(a.body))
	}
	return w, r
}

// reasonMost is how many bytes of a refusal's text the client is sent.
const reasonMost = 1 << 10

// validUser reports whether a text can be a user's name.
func validUser(name string) bool { return len(name) <= userMost && server.ValidTopic(name) }

// check checks what can be wrong with a welcome.
func (w *welcome) check(offered []string) error {
	switch {
	case w.User != "" && !validUser(w.User):
		return fmt.Errorf("a user's name has at most %d bytes of UTF-8, without control characters", userMost)
	case w.Protocol != "" && !slices.Contains(offered, w.Protocol):
		return fmt.Errorf("the client does not offer the protocol %.100q", w.Protocol)
	case w.ExpiresIn < 0:
		return fmt.Errorf("expires_in is negative")
	case len(w.Messages) > greetMost:
		return fmt.Errorf("there are more than %d messages", greetMost)
	case len(w.Topics) > topicsMost:
		return fmt.Errorf("there are more than %d topics", topicsMost)
	}
	for _, t := range w.Topics {
		if err := checkTopic(t); err != nil {
			return err
		}
	}
	return nil
}

// topicsMost is how many topics a connection may open with, beside its user's.
const topicsMost = 99

// checkTopic reports what is wrong with the name of a topic that is no user's.
func checkTopic(name string) error {
	switch {
	case !server.ValidTopic(name):
		return server.ErrTopicName
	case strings.HasPrefix(name, UserTopic):
		return fmt.Errorf("a topic's name does not begin with %q: those are the users'", UserTopic)
	}
	return nil
}

// begin takes note of a handshake. It returns false if it has to be refused: where there
// are other backends, handshakes of one must not take all workers.
func (b *backend) begin(others bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if others && b.asking >= max(1, b.limit/2) {
		return false
	}
	b.asking++
	return true
}

func (b *backend) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asking--
}

// retry makes the call of a handshake, and again after a pause if that fails.
func (b *backend) retry(c *call, use func(answer)) (f fate, err error) {
	until := time.Now().Add(b.connectTimeout)
	for try := range connectTries {
		left := time.Until(until)
		if b.breaker.down() {
			return fateUnsent, errDown
		}
		if f, err = b.do(c, left, left, use); f == fateAnswered || err == errBusy {
			return f, err
		}
		pause := 100 * time.Millisecond << try
		pause += time.Duration(rand.Int64N(int64(pause)))
		if try == connectTries-1 || b.breaker.down() || time.Until(until) < 2*pause {
			return f, err
		}
		b.counts.add(connectsAgain)
		select {
		case <-time.After(pause):
		case <-b.ctx.Done():
			return f, err
		}
	}
	return f, err
}

// unavailable refuses a handshake because of its backend.
func (b *backend) unavailable(err error) error {
	reason := "the backend cannot be reached"
	switch err {
	case errBusy, errDown, errNames:
		reason = err.Error()
	}
	return &server.Reject{
		Status: http.StatusServiceUnavailable, Reason: reason, Header: http.Header{"Retry-After": {b.retryAfter()}},
	}
}

// opened sends a connection what its backend has greeted it with.
func (h *Hooks) opened(c server.Conn) {
	id := c.ID()
	if n := h.names.get(c.Tag()); isAlias(n.id) {
		h.aliases.set(n.id, id)
		id = n.id
	}
	for _, m := range h.greets.take(id) {
		if c.Send(m.op, m.data) != nil {
			return
		}
	}
}
