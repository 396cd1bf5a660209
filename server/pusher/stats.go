package pusher

import (
	"cmp"
	"slices"
	"time"
)

// Stats are what was counted, and what there is now.
type Stats struct {
	Apps []AppStats

	Subscriptions uint64 // that were made
	Published     uint64 // events by the API, once for each channel
	ClientEvents  uint64
	Unsent        uint64 // events of the server's own that a connection did not take
	Lost          uint64 // changes of members of which subscribers were not told
	Unanswered    uint64 // questions of publishers that other nodes have not answered, or not to the end

	HookEvents, HookLost    uint64 // events that webhooks were told, or not any more
	HookTries, HookFailures uint64 // requests to them, and those that failed
	Hooks                   []HookStats

	Channels           int // that have subscribers now
	Cached, CacheBytes int // last events that are kept
	CacheEvicted       uint64
	Faults             map[string]uint64 // by Reasons
}

// AppStats is how an app is.
type AppStats struct {
	ID          string
	Connections int64
	Limit       int // of them, 0 for none
}

// HookStats is how a webhook is.
type HookStats struct {
	App, URL string
	Waiting  int       // events
	Since    time.Time // when it began to fail, if it fails
	Cause    string    // why
}

func (w *webhooks) stats() (all []HookStats) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.senders {
		s.mu.Lock()
		all = append(all, HookStats{s.app.id, s.url, len(s.queue), s.since, s.cause})
		s.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b HookStats) int { return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.URL, b.URL)) })
	return all
}

// Reason is why something is refused.
type Reason struct {
	Name string // of its counter in Stats.Faults
	Code int    // for clients of the protocol, or an HTTP status
	Text string // that is told
}

// Reasons returns all of them.
func Reasons() (all []Reason) {
	for _, f := range faults {
		all = append(all, Reason{f.name, f.code, f.text})
	}
	return all
}

// Stats returns them. Any goroutine may call it.
func (p *Pusher) Stats() Stats {
	c := &p.counts
	s := Stats{
		Subscriptions: c.subscribed.Load(), Published: c.published.Load(), ClientEvents: c.clientEvents.Load(), Unsent: c.unsent.Load(), Lost: c.lost.Load(), Unanswered: c.unanswered.Load(),
		Faults: make(map[string]uint64, len(faults)),
	}
	h := &p.webhooks.counts
	s.HookEvents, s.HookLost, s.HookTries, s.HookFailures = h.told.Load(), h.lost.Load(), h.tries.Load(), h.failures.Load()
	s.Hooks = p.webhooks.stats()
	s.Cached, s.CacheBytes, s.CacheEvicted = p.cache.stats()
	for i, f := range faults {
		s.Faults[f.name] = p.told[i].Load()
	}
	for i := range p.channels.shards {
		sh := &p.channels.shards[i]
		sh.mu.Lock()
		s.Channels += len(sh.byTopic)
		sh.mu.Unlock()
	}
	for _, a := range p.apps.list() {
		one := AppStats{ID: a.id, Connections: a.connections.Load()}
		if is := a.config.Load(); is != nil {
			one.Limit = is.Limits.Connections
		}
		s.Apps = append(s.Apps, one)
	}
	return s
}
