package pusher

import (
	"sync"
	"time"
)

// How often the subscribers of a channel are told how many there are: soon, where there are few,
// and not often where there are many.
const (
	countEvery = 100 * time.Millisecond
	countMany  = 100
	countPause = 5 * time.Second
)

// counting are channels whose subscribers have to be told how many there are.
type counting struct {
	mu  sync.Mutex
	due map[uint32]struct{} // by number; guarded by mu
}

// changed notes that a channel's number of subscribers has changed. The channel's shard is locked.
func (c *counting) changed(is *config, ch *channel) {
	if is == nil || !is.SubscriptionCount || ch.counting {
		return
	}
	ch.counting = true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due[ch.number] = struct{}{}
}

// take takes all that is due.
func (c *counting) take() map[uint32]struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.due) == 0 {
		return nil
	}
	due := c.due
	c.due = map[uint32]struct{}{}
	return due
}

// put gives back what has to wait.
func (c *counting) put(number uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due[number] = struct{}{}
}

// tellCounts tells subscribers how many they are, until p ends.
func (p *Pusher) tellCounts() {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.end:
			return
		case now := <-tick.C:
			for number := range p.counting.take() {
				p.tellCount(number, now)
			}
		}
	}
}

// tellCount tells the subscribers of a channel how many they are, on all nodes. What is not taken
// now is told later.
func (p *Pusher) tellCount(number uint32, now time.Time) {
	s := p.server.Load()
	sh, ch := p.channels.lockNumber(number)
	if s == nil || ch == nil || !ch.counting { // it has ended, and may be another one now
		sh.mu.Unlock()
		return
	}
	if now.Before(ch.countDue) {
		sh.mu.Unlock()
		p.counting.put(number)
		return
	}
	app, name, topic, n := ch.app, ch.name, ch.topic, ch.subscribers
	ch.counting = false
	if n > countMany {
		ch.countDue = now.Add(countPause)
	}
	sh.mu.Unlock()
	all, err := p.ask(question{App: app.id, Channel: name})
	if err == nil {
		n = all[name].Subscribers
		err = p.publish(s, topic, false, "", event(eventCount, name, struct {
			Count int `json:"subscription_count"`
		}{n}))
	}
	if err == nil {
		app.notify(&hookEvent{Name: hookCount, Channel: name, Count: &n})
		return
	}
	sh, ch = p.channels.lockNumber(number)
	defer sh.mu.Unlock()
	if ch != nil {
		ch.counting = true
		p.counting.put(number)
	}
}
