package pusher

import (
	"errors"
	"sync"
	"time"
)

// How often the subscribers of a channel are told how many there are: soon, where there are few,
// and not often where there are many.
const (
	countEvery = 100 * time.Millisecond
	countMany  = 100
	countPause = 5 * time.Second
	leftMost   = 1 << 14 // channels without subscribers here of which other nodes are to be told
)

// counting are channels whose subscribers have to be told how many there are.
type counting struct {
	mu   sync.Mutex
	due  map[uint32]struct{} // by number; guarded by mu
	left map[string]*channel // by topic: without subscribers here, but perhaps on other nodes; guarded by mu
}

// changed notes that a channel's number of subscribers has changed. The channel's shard is locked.
func (c *counting) changed(is *config, ch *channel) {
	if is == nil || !is.SubscriptionCount || ch.counting {
		return
	}
	ch.counting = true
	c.put(ch.number)
}

// leave notes that a channel has no subscribers here any more. It returns false if too many are
// noted. The channel's shard is locked.
func (c *counting) leave(is *config, ch *channel) bool {
	if is == nil || !is.SubscriptionCount || ch.members != nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.left) == leftMost {
		return false
	}
	c.left[ch.topic] = ch
	return true
}

// take takes all that is due.
func (c *counting) take() (due map[uint32]struct{}, left map[string]*channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.due)+len(c.left) == 0 {
		return nil, nil
	}
	due, left = c.due, c.left
	c.due, c.left = map[uint32]struct{}{}, map[string]*channel{}
	return due, left
}

// put notes a channel that is to be told, or gives one back that has to wait.
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
			due, left := p.counting.take()
			for number := range due {
				p.tellCount(number, now)
			}
			for topic, ch := range left {
				if p.tellTotal(ch.app, ch.name, topic) != nil && !p.counting.leave(ch.app.config.Load(), ch) {
					p.counts.lost.Add(1)
				}
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
	app, name, topic := ch.app, ch.name, ch.topic
	ch.counting = false
	if ch.subscribers > countMany {
		ch.countDue = now.Add(countPause)
	}
	sh.mu.Unlock()
	if p.tellTotal(app, name, topic) == nil {
		return
	}
	sh, ch = p.channels.lockNumber(number)
	defer sh.mu.Unlock()
	if ch != nil {
		ch.counting = true
		p.counting.put(number)
	}
}

// errPart says that not all nodes have answered.
var errPart = errors.New("pusher: not all nodes have answered")

// tellTotal tells the subscribers of a channel how many they are on all nodes.
func (p *Pusher) tellTotal(app *app, name, topic string) error {
	all, whole, err := p.ask(question{App: app.id, Channel: name})
	switch {
	case err != nil:
		return err
	case !whole:
		return errPart
	}
	n := all[name].Subscribers
	err = p.publish(p.server.Load(), topic, false, "", event(eventCount, name, struct {
		Count int `json:"subscription_count"`
	}{n}))
	if err == nil {
		app.notify(&hookEvent{Name: hookCount, Channel: name, Count: &n})
	}
	return err
}
