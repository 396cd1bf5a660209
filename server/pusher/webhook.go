package pusher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Webhook is where an app's backend is told what happens.
type Webhook struct {
	// URL is http:// or https://. It gets POST requests of JSON, signed with the app's secret.
	URL string `yaml:"url"`
	// Events are the names of those that it is told of: channel_occupied, channel_vacated,
	// member_added, member_removed, client_event, cache_miss, subscription_count.
	Events []string `yaml:"events"`
	// Prefix is what the names of the channels begin with that it is told about; by default all.
	Prefix string `yaml:"filter_by_prefix"`
}

// Events that webhooks are told of.
const (
	hookOccupied = "channel_occupied"
	hookVacated  = "channel_vacated"
	hookAdded    = "member_added"
	hookRemoved  = "member_removed"
	hookClient   = "client_event"
	hookMiss     = "cache_miss"
	hookCount    = "subscription_count"
)

var hookEvents = []string{hookOccupied, hookVacated, hookAdded, hookRemoved, hookClient, hookMiss, hookCount}

// Bounds of webhooks.
const (
	webhooksMost  = 16                     // of an app
	hookQueueMost = 10_000                 // events that wait for one
	hookBytesMost = 8 << 20                // of them
	hookBatchMost = 100                    // events in a request
	hookBatchTime = 100 * time.Millisecond // that an event waits for others
	hookTimeout   = 10 * time.Second
	hookRetryMost = 30 * time.Second // between two tries
	hookAnswer    = 64 << 10         // bytes of an answer that are read, so that its connection can be kept
)

func (w *Webhook) check() error {
	u, err := url.Parse(w.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil:
		return fmt.Errorf("%q must be http:// or https://, a host and a path", w.URL)
	case len(w.Events) == 0:
		return fmt.Errorf("%q has no events", w.URL)
	}
	for _, name := range w.Events {
		if !slices.Contains(hookEvents, name) {
			return fmt.Errorf("%q: there is no event %q; there are %s", w.URL, name, strings.Join(hookEvents, ", "))
		}
	}
	return nil
}

// hookEvent is an event as a webhook is told it.
type hookEvent struct {
	Name     string          `json:"name"`
	Channel  string          `json:"channel"`
	UserID   string          `json:"user_id,omitempty"`
	Event    string          `json:"event,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
	SocketID string          `json:"socket_id,omitempty"`
	Count    *int            `json:"subscription_count,omitempty"`
}

// sender sends the events of an app to one webhook, one request after the other. What comes faster
// than the webhook takes it waits, within bounds.
type sender struct {
	app    *app
	url    string
	spec   atomic.Pointer[Webhook]
	wake   chan struct{} // there is something to send
	end    chan struct{} // closed when the app has it no more
	counts *hookCounts

	mu    sync.Mutex
	queue []json.RawMessage // guarded by mu
	bytes int               // of queue; guarded by mu
	since time.Time         // when a request failed first without one that has not since; guarded by mu
	cause string            // why; guarded by mu
}

// hookCounts count events of webhooks.
type hookCounts struct {
	told, lost, tries, failures atomic.Uint64
}

// webhooks are the senders of all apps.
type webhooks struct {
	client http.Client
	log    *slog.Logger
	retry  time.Duration // until a request is sent again first
	life   time.Duration // for which it is sent again
	counts hookCounts

	ctx     context.Context // of requests
	stop    context.CancelFunc
	last    chan struct{} // closed when each batch is tried once more and no more
	running sync.WaitGroup

	mu      sync.Mutex
	senders map[string]*sender // by app and URL; guarded by mu
}

func newWebhooks(o *Options) *webhooks {
	w := &webhooks{log: o.Log, retry: o.WebhookRetry, life: o.WebhookTime, last: make(chan struct{}), senders: map[string]*sender{}}
	w.client = http.Client{
		Timeout:       hookTimeout,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// set has the apps' webhooks told from now on, and no others.
func (w *webhooks) set(apps []*app) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.senders
	w.senders = map[string]*sender{}
	for _, a := range apps {
		is := a.config.Load()
		if is == nil {
			continue
		}
		var own []*sender
		for i := range is.Webhooks {
			spec := &is.Webhooks[i]
			name := a.id + " " + spec.URL
			s := old[name]
			if s == nil {
				s = &sender{app: a, url: spec.URL, wake: make(chan struct{}, 1), end: make(chan struct{}), counts: &w.counts}
				w.running.Go(func() { w.run(s) })
			}
			s.spec.Store(spec)
			delete(old, name)
			w.senders[name] = s
			own = append(own, s)
		}
		a.senders.Store(&own)
	}
	for _, s := range old {
		close(s.end)
	}
}

// notify tells an app's webhooks of an event. It never waits.
func (a *app) notify(e *hookEvent) {
	own := a.senders.Load()
	if own == nil {
		return
	}
	var text json.RawMessage
	for _, s := range *own {
		spec := s.spec.Load()
		if !slices.Contains(spec.Events, e.Name) || !strings.HasPrefix(e.Channel, spec.Prefix) {
			continue
		}
		if text == nil {
			text = encode(e)
		}
		s.put(text)
	}
}

// put puts an event into the queue, or counts it as lost if that is full.
func (s *sender) put(text json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == hookQueueMost || s.bytes+len(text) > hookBytesMost {
		s.counts.lost.Add(1)
		return
	}
	s.queue = append(s.queue, text)
	s.bytes += len(text)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take takes the first events of the queue.
func (s *sender) take() []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.queue), hookBatchMost)
	batch := s.queue[:n:n]
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil
	}
	for _, e := range batch {
		s.bytes -= len(e)
	}
	return batch
}

// run sends what comes until the sender or all of them end.
func (w *webhooks) run(s *sender) {
	for {
		select {
		case <-s.wake:
			w.pause(s, hookBatchTime)
			for batch := s.take(); len(batch) > 0; batch = s.take() {
				w.send(s, batch)
			}
		case <-s.end:
			for batch := s.take(); len(batch) > 0; batch = s.take() {
				w.counts.lost.Add(uint64(len(batch)))
			}
			return
		case <-w.last:
			for batch := s.take(); len(batch) > 0; batch = s.take() {
				w.send(s, batch)
			}
			return
		}
	}
}

// pause waits, and returns false if there is no time for that.
func (w *webhooks) pause(s *sender, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-s.end:
	case <-w.last:
	}
	return false
}

// send sends a batch, again and again until the webhook has accepted it or it is too old.
func (w *webhooks) send(s *sender, batch []json.RawMessage) {
	body := encode(struct {
		Time   int64             `json:"time_ms"`
		Events []json.RawMessage `json:"events"`
	}{time.Now().UnixMilli(), batch})
	wait := w.retry
	for until := time.Now().Add(w.life); ; wait = min(2*wait, hookRetryMost) {
		err := w.post(s, body)
		if w.note(s, err); err == nil {
			w.counts.told.Add(uint64(len(batch)))
			return
		}
		if !time.Now().Before(until) || !w.pause(s, wait/2+rand.N(wait)) {
			break
		}
	}
	w.counts.lost.Add(uint64(len(batch)))
}

// note notes how a request went, and logs when a webhook fails and when it is back.
func (w *webhooks) note(s *sender, err error) {
	w.counts.tries.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		w.counts.failures.Add(1)
		if s.cause = err.Error(); s.since.IsZero() {
			s.since = time.Now()
			w.log.Warn("a webhook fails, trying again", "app", s.app.id, "url", s.url, "error", err)
		}
	case !s.since.IsZero():
		s.since, s.cause = time.Time{}, ""
		w.log.Info("a webhook is there again", "app", s.app.id, "url", s.url)
	}
}

// post makes a request.
func (w *webhooks) post(s *sender, body []byte) error {
	is := s.app.config.Load()
	if is == nil {
		return errors.New("the app was removed")
	}
	r, err := http.NewRequestWithContext(w.ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "lull")
	r.Header.Set("X-Pusher-Key", is.Key)
	r.Header.Set("X-Pusher-Signature", sign(is.Secret, string(body)))
	answer, err := w.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, hookAnswer) // io.EOF is what should come
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("it has answered %d", answer.StatusCode)
	}
	return nil
}

// close tries to send what waits, once, until ctx ends.
func (w *webhooks) close(ctx context.Context) {
	close(w.last)
	defer context.AfterFunc(ctx, w.stop)()
	w.running.Wait()
	w.stop()
	w.client.CloseIdleConnections()
}
