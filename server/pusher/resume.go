package pusher

import (
	"container/list"
	"crypto/rand"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/server"
)

// history keeps the last events of the channels of apps that say so (App.Resume), whether or not
// they have subscribers, for clients that come back (pusher:resume). Any goroutine may use it.
type history struct {
	most int // bytes

	mu      sync.Mutex
	byTopic map[string]*list.Element // of order; guarded by mu
	order   list.List                // of *stream, the last published to at the back; guarded by mu
	bytes   int                      // guarded by mu
}

// stream is the last events of a channel. Its events are numbered from 1; an ID tells it from one
// that was there before.
type stream struct {
	topic string
	id    string
	last  uint64      // the number of the last event
	kept  []keptEvent // the last ones, without a gap
	bytes int
}

// keptEvent is an event with its number.
type keptEvent struct {
	text []byte
	at   time.Time
}

// streamEntry and keptEntry are what a stream and an event take beside their texts, in bytes.
const streamEntry, keptEntry = 400, 64

func newHistory(most int) *history { return &history{most: most, byTopic: map[string]*list.Element{}} }

// position is where a client is in a channel.
type position struct {
	Stream string `json:"stream_id,omitempty"`
	Serial uint64 `json:"serial,omitempty"`
}

// of returns the stream of a topic, which it makes if there is none. h.mu is held.
func (h *history) of(topic string) *stream {
	if at := h.byTopic[topic]; at != nil {
		h.order.MoveToBack(at)
		return at.Value.(*stream)
	}
	s := &stream{topic: topic, id: strings.ToLower(rand.Text()), bytes: streamEntry + 2*len(topic)}
	h.byTopic[topic] = h.order.PushBack(s)
	h.bytes += s.bytes
	return s
}

// position is where a new subscriber is.
func (h *history) position(topic string) position {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.of(topic)
	return position{s.id, s.last}
}

// add numbers an event and keeps it, for a time at most. It returns the event with its number.
func (h *history) add(topic string, text []byte, is *Resume, now time.Time) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.of(topic)
	s.last++
	text = append(append([]byte{}, text[:len(text)-1]...), `,"stream_id":"`+s.id+`","serial":`+strconv.FormatUint(s.last, 10)+"}"...)
	s.kept = append(s.kept, keptEvent{text, now})
	h.grow(s, keptEntry+len(text))
	for len(s.kept) > is.Events || now.Sub(s.kept[0].at) > is.time() {
		h.forget(s)
	}
	// The streams that were not used for longest go first.
	for first := h.order.Front(); first != nil && h.bytes > h.most; first = h.order.Front() {
		old := h.order.Remove(first).(*stream)
		delete(h.byTopic, old.topic)
		h.bytes -= old.bytes
	}
	return text
}

// undo forgets the event of a topic that was added last, because it was not published. Nobody has
// added another one meanwhile.
func (h *history) undo(topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.byTopic[topic]
	if at == nil {
		return
	}
	s := at.Value.(*stream)
	n := len(s.kept) - 1
	h.grow(s, -keptEntry-len(s.kept[n].text))
	s.last, s.kept = s.last-1, s.kept[:n]
}

func (h *history) grow(s *stream, bytes int) {
	s.bytes += bytes
	h.bytes += bytes
}

// forget forgets the first event of a stream.
func (h *history) forget(s *stream) {
	h.grow(s, -keptEntry-len(s.kept[0].text))
	s.kept[0] = keptEvent{}
	s.kept = s.kept[1:]
}

// Why a client cannot resume.
const (
	streamReset     = "stream_reset"     // the channel's numbers have begun anew
	positionExpired = "position_expired" // what the client has missed is not kept any more
	notSubscribed   = "not_subscribed"
)

// since returns the events behind a position, or why they are not all there.
func (h *history) since(topic string, from position, is *Resume, now time.Time) (events []keptEvent, newest uint64, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.byTopic[topic]
	if at == nil {
		return nil, 0, streamReset
	}
	s := at.Value.(*stream)
	for len(s.kept) > 0 && now.Sub(s.kept[0].at) > is.time() {
		h.forget(s)
	}
	missed := s.last - from.Serial
	switch {
	case from.Stream != "" && from.Stream != s.id, from.Serial > s.last:
		return nil, s.last, streamReset
	case missed > uint64(len(s.kept)):
		return nil, s.last, positionExpired
	}
	return append([]keptEvent(nil), s.kept[uint64(len(s.kept))-missed:]...), s.last, ""
}

// Resume says what is kept of an app's channels for clients that come back.
type Resume struct {
	// Events is how many are kept of a channel; 0 is none. Seconds is for how long; 120 by default.
	Events  int `yaml:"events"`
	Seconds int `yaml:"seconds"`
}

func (r *Resume) time() time.Duration { return time.Duration(r.Seconds) * time.Second }

// resumes says what is kept of a topic, nil if nothing is: it is no channel, or one of an app that
// keeps nothing.
func (p *Pusher) resumes(topic string) *Resume {
	id, _, ok := strings.Cut(topic, "/")
	if !ok {
		return nil
	}
	a := p.apps.ofID(id)
	if a == nil {
		return nil
	}
	if is := a.config.Load(); is != nil && is.Resume.Events > 0 {
		return &is.Resume
	}
	return nil
}

// resuming is the data of a wish to resume.
type resuming struct {
	Positions map[string]position `json:"channel_positions"`
	Serials   map[string]uint64   `json:"channel_serials"`
}

// recovered is a channel of which a client has got all that it has missed.
type recovered struct {
	Channel  string `json:"channel"`
	Source   string `json:"source"`
	Replayed int    `json:"replayed"`
}

// unrecovered is one of which it has not.
type unrecovered struct {
	Channel string `json:"channel"`
	Code    string `json:"code"`
	Newest  uint64 `json:"newest_available_serial"`
}

// resume sends a client that has come back, and has subscribed again, what it has missed.
func (p *Pusher) resume(c server.Conn, data json.RawMessage) *fault {
	var wish resuming
	if readData(data, &wish) != nil || len(wish.Positions)+len(wish.Serials) > resumeMost {
		return faultData
	}
	a, is := p.appOf(c)
	switch {
	case is == nil:
		return faultGone
	case is.Resume.Events == 0:
		return faultNoResume
	}
	for name, serial := range wish.Serials {
		if _, twice := wish.Positions[name]; !twice {
			if wish.Positions == nil {
				wish.Positions = map[string]position{}
			}
			wish.Positions[name] = position{Serial: serial}
		}
	}
	done, not := []recovered{}, []unrecovered{}
	for name, from := range wish.Positions {
		n, newest, why := p.replay(c, is, topicOf(a.id, name), from)
		if why == "" {
			done = append(done, recovered{name, "memory", n})
			continue
		}
		if !isChannel(name) {
			return faultData
		}
		not = append(not, unrecovered{name, why, newest})
		p.send(c, event(eventResumeFailed, name, struct {
			Code   string `json:"code"`
			Newest uint64 `json:"newest_available_serial"`
		}{why, newest}))
	}
	p.send(c, event(eventResumed, "", struct {
		Recovered []recovered   `json:"recovered"`
		Failed    []unrecovered `json:"failed"`
	}{done, not}))
	return nil
}

// resumeMost is how many channels a client may resume at once.
const resumeMost = 100

// replay sends a subscriber the events of a channel behind a position.
func (p *Pusher) replay(c server.Conn, is *config, topic string, from position) (n int, newest uint64, why string) {
	s := p.channels.lock(topic)
	defer s.mu.Unlock()
	ch := s.byTopic[topic]
	if ch == nil {
		return 0, 0, notSubscribed
	}
	if _, in := p.connections.subscribed(c.Tag(), ch.number); !in {
		return 0, 0, notSubscribed
	}
	events, newest, why := p.history.since(topic, from, &is.Resume, time.Now())
	for _, e := range events {
		p.send(c, e.text)
	}
	return len(events), newest, why
}
