package admin

import (
	"sync"
	"time"

	"github.com/seed-134acfd0/lull/server"
)

const (
	// topicsShown is how many of the largest topics are shown.
	topicsShown = 10
	// topicsEvery is how old what is known of them becomes, at the least.
	topicsEvery = 5 * time.Second
	// topicsShare is how many times as long as it took to find them.
	topicsShare = 50
)

// largestTopics knows the topics with the most subscribers. To find them all topics are
// looked at, so they are found again after a while only, whoever asks how often.
type largestTopics struct {
	of  func(n int) []server.Topic
	now func() time.Time

	finding sync.Mutex // held by whoever finds them

	mu    sync.Mutex
	known []server.Topic // guarded by mu; nil until they were found
	until time.Time      // guarded by mu
}

// recent returns them as they are, or were a while before. The caller must not change them.
func (l *largestTopics) recent() []server.Topic {
	known, old := l.last()
	if !old || !l.finding.TryLock() { // where somebody finds them, others need not wait
		return known
	}
	defer l.finding.Unlock()
	if known, old = l.last(); !old {
		return known
	}
	began := l.now()
	known = l.of(topicsShown)
	ended := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.until = known, ended.Add(max(topicsEvery, topicsShare*ended.Sub(began)))
	return known
}

func (l *largestTopics) last() (known []server.Topic, old bool) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known, l.known == nil || !now.Before(l.until)
}

// topics is how many topics there are, and the largest.
type topics struct {
	Count         int     `json:"count"`
	Limit         int     `json:"limit"`
	Subscriptions int     `json:"subscriptions"`
	Largest       []topic `json:"largest"` // by subscribers; up to a while old
}

// topic is a server.Topic in JSON.
type topic struct {
	Name        string `json:"name"`
	Subscribers int    `json:"subscribers"`
}

func (r *reading) topicsNow() topics {
	t := topics{r.stats.Topics, r.options.MaxTopics, r.stats.Subscriptions, make([]topic, len(r.topics))}
	for i, l := range r.topics {
		t.Largest[i] = topic(l)
	}
	return t
}

// largestTopic is how many subscribers the largest topic has.
func (r *reading) largestTopic() int {
	if len(r.topics) == 0 {
		return 0
	}
	return r.topics[0].Subscribers
}
