package pusher

// Stats are what was counted, and what there is now.
type Stats struct {
	Apps []AppStats

	Subscriptions uint64 // that were made
	Published     uint64 // events by the API, once for each channel
	ClientEvents  uint64
	Unsent        uint64 // events of the server's own that a connection did not take
	Lost          uint64 // changes of members of which subscribers were not told

	Channels           int // that have subscribers now
	Cached, CacheBytes int // last events that are kept
	CacheEvicted       uint64
	Faults             map[string]uint64 // by FaultNames
}

// AppStats is how an app is.
type AppStats struct {
	ID          string
	Connections int64
}

// FaultNames are the names of all faults, and what clients and publishers are told of them.
func FaultNames() (names map[string]string) {
	names = make(map[string]string, len(faults))
	for _, f := range faults {
		names[f.name] = f.text
	}
	return names
}

// Stats returns them. Any goroutine may call it.
func (p *Pusher) Stats() Stats {
	c := &p.counts
	s := Stats{
		Subscriptions: c.subscribed.Load(), Published: c.published.Load(), ClientEvents: c.clientEvents.Load(), Unsent: c.unsent.Load(), Lost: c.lost.Load(),
		Faults: make(map[string]uint64, len(faults)),
	}
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
		s.Apps = append(s.Apps, AppStats{a.id, a.connections.Load()})
	}
	return s
}
