package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"time"

	"github.com/seed-134acfd0/lull/server"
)

// letter is a message that goes to its backend together with others.
type letter struct {
	conn  server.Conn
	call  *call
	tries int
	again bool      // it has to be sent again; valid once it is done
	news  chan news // has room for one
}

// news is what the sender of a letter waits for.
type news uint8

const (
	newsDone  news = iota // the letter was sent, and its answer performed
	newsFirst             // the letter is the first of those that wait: its sender has to send them
)

// tellTogether sends a message with others. It returns true if it has to be sent again. The
// sender of the first letter waits for a turn, takes as many letters as go together, has the
// sender of the next one wait, and sends.
func (b *backend) tellTogether(own *letter) (again bool) {
	own.news = make(chan news, 1)
	b.waiting.Add(1)
	if b.post(own) || <-own.news == newsFirst {
		b.deliver(own)
	}
	return own.again
}

// post adds a letter to those that wait. It returns true if it is the first.
func (b *backend) post(l *letter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.letters = append(b.letters, l)
	first := !b.posting
	b.posting = true
	return first
}

// takeLetters takes the letters of a batch, those that have waited for longest.
func (b *backend) takeLetters() (together []*letter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(b.batch, len(b.letters))
	together = slices.Clone(b.letters[:n])
	b.letters = slices.Delete(b.letters, 0, n)
	if b.posting = len(b.letters) > 0; b.posting {
		b.letters[0].news <- newsFirst
	}
	b.waiting.Add(int64(-n))
	return together
}

// deliver sends a batch when it is its turn, and does what is answered. The own letter is the
// first of it.
func (b *backend) deliver(own *letter) {
	asked := time.Now()
	var f fate
	var err error
	var together []*letter
	select {
	case b.turns <- struct{}{}:
		at := time.Now()
		b.turnTime.AddTime(at.Sub(asked))
		together = b.takeLetters()
		f, err = b.make(callOf(together), at, b.timeout, func(a answer) { b.answerAll(together, a) })
	case <-b.ctx.Done():
		together = b.takeLetters()
		f, err = fateUnsent, b.ctx.Err()
	}
	for _, l := range together {
		if l.again = b.settle(f, err, l.call, l.tries); l != own {
			l.news <- newsDone
		}
	}
}

// callOf is the call of a batch.
func callOf(together []*letter) *call {
	list := make([]batched, len(together))
	for i, l := range together {
		list[i] = batchedOf(l.call)
	}
	body, _ := json.Marshal(list) // there is nothing in it that has no JSON
	return &call{event: eventMessages, id: together[0].call.id, content: "application/json", body: body}
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
	d := json.NewDecoder(bytes.NewReader(data))
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
