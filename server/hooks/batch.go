package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/server"
)

// letter is a message that goes to its backend together with others. Whose turn it is takes
// as many as there are, and the others wait until theirs is done.
type letter struct {
	conn  server.Conn
	call  *call
	tries int

	again bool          // it has to be sent again; valid once done is closed
	done  chan struct{} // is closed when it was sent and its answer performed
}

// tellTogether sends a message with others. It returns true if it has to be sent again.
func (b *backend) tellTogether(own *letter) (again bool) {
	b.mu.Lock()
	b.letters = append(b.letters, own)
	b.mu.Unlock()
	asked := time.Now()
	b.waiting.Add(1)
	defer b.waiting.Add(-1)
	for {
		select {
		case <-own.done:
			return own.again
		case b.turns <- struct{}{}:
		case <-b.ctx.Done():
			if b.withdraw(own) {
				return b.settle(fateUnsent, b.ctx.Err(), own.call, own.tries)
			}
			<-own.done
			return own.again
		}
		at := time.Now()
		b.turnTime.AddTime(at.Sub(asked))
		together := b.takeLetters()
		if len(together) == 0 { // somebody else has the own letter
			<-b.turns
			<-own.done
			return own.again
		}
		b.deliver(together, at)
	}
}

// takeLetters takes the letters of a batch, those that have waited for longest.
func (b *backend) takeLetters() (together []*letter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(b.batch, len(b.letters))
	together = slices.Clone(b.letters[:n])
	b.letters = slices.Delete(b.letters, 0, n)
	return together
}

// withdraw takes back a letter that nobody has taken.
func (b *backend) withdraw(own *letter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.letters, own)
	if i >= 0 {
		b.letters = slices.Delete(b.letters, i, i+1)
	}
	return i >= 0
}

// deliver sends a batch, whose turn it is, and does what is answered.
func (b *backend) deliver(together []*letter, at time.Time) {
	list := make([]batched, len(together))
	for i, l := range together {
		list[i] = batchedOf(l.call)
	}
	body, _ := json.Marshal(list) // there is nothing in it that has no JSON
	c := &call{event: eventMessages, id: together[0].call.id, content: "application/json", body: body}
	f, err := b.make(c, at, b.timeout, func(a answer) { b.answerAll(together, a) })
	for _, l := range together {
		l.again = b.settle(f, err, l.call, l.tries)
		close(l.done)
	}
}

// batched is a message of a batch, as JSON: with a text, or with base64 for a binary one.
type batched struct {
	ID         string  `json:"id"`
	Connection string  `json:"connection"`
	User       string  `json:"user"`
	Text       *string `json:"text,omitempty"`
	Base64     []byte  `json:"base64,omitempty"`
}

func batchedOf(c *call) batched {
	m := batched{ID: c.id, Connection: c.connection, User: unescape(c.user)}
	if text := string(c.body); c.content == contentText {
		m.Text = &text
	} else {
		m.Base64 = append([]byte{}, c.body...)
	}
	return m
}

// batchedReply is the reply to a message of a batch: a text that goes back to the connection,
// or an object, or null for nothing.
type batchedReply struct {
	Text        string   `json:"text"`
	Base64      []byte   `json:"base64"`
	Topic       string   `json:"topic"`
	Subscribe   []string `json:"subscribe"`
	Unsubscribe []string `json:"unsubscribe"`
	Close       string   `json:"close"` // code and reason
}

// UnmarshalJSON accepts a text for an object that has nothing else.
func (r *batchedReply) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		return json.Unmarshal(data, &r.Text)
	}
	type plain batchedReply
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	return d.Decode((*plain)(r))
}

func (r *batchedReply) reply() reply {
	content, body := contentText, []byte(r.Text)
	if len(r.Base64) > 0 {
		content, body = contentBinary, r.Base64
	}
	return reply{r.Subscribe, r.Unsubscribe, r.Topic, content, body, r.Close}
}

// answerAll does what the backend has answered to a batch: an array with a reply to each
// message, or nothing.
func (b *backend) answerAll(together []*letter, a answer) {
	if a.status < 200 || a.status > 299 {
		b.refuse(uint64(len(together)), a.status)
		return
	}
	replies, err := repliesOf(a.body, len(together))
	if err != nil {
		b.counts[messagesAnswered].Add(uint64(len(together)))
		b.counts[answersBad].Add(uint64(len(together)))
		b.complain("what the backend has answered to a batch cannot be", "error", err)
		return
	}
	for i, l := range together {
		b.perform(l.conn, replies[i].reply())
	}
}

func repliesOf(body []byte, n int) ([]batchedReply, error) {
	replies := make([]batchedReply, 0, n)
	if len(body) == 0 {
		return replies[:n], nil
	}
	if err := json.Unmarshal(body, &replies); err != nil {
		return nil, err
	}
	switch {
	case len(replies) != n:
		return nil, fmt.Errorf("there are %d replies to %d messages", len(replies), n)
	case slices.ContainsFunc(replies, func(r batchedReply) bool { return r.Text != "" && len(r.Base64) > 0 }):
		return nil, errBoth
	}
	return replies, nil
}

var errBoth = errors.New("a reply has text and base64")
