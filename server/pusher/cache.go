package pusher

import (
	"container/list"
	"sync"
	"time"
)

// cache keeps the last events of cache channels, whether or not they have subscribers. Any
// goroutine may use it.
type cache struct {
	most int // bytes
	life time.Duration

	mu      sync.Mutex
	byTopic map[string]*list.Element // of order; guarded by mu
	order   list.List                // of cached, the last published to at the back; guarded by mu
	bytes   int                      // guarded by mu
	evicted uint64                   // guarded by mu
}

// cached is the last event of a channel.
type cached struct {
	topic string
	event []byte
	until time.Time
}

// cacheEntry is what an entry takes beside its texts, in bytes.
const cacheEntry = 256

func (e *cached) size() int { return cacheEntry + 2*len(e.topic) + len(e.event) }

func newCache(most int, life time.Duration) *cache {
	return &cache{most: most, life: life, byTopic: map[string]*list.Element{}}
}

// put keeps an event.
func (c *cache) put(topic string, event []byte, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(c.byTopic[topic])
	e := &cached{topic, event, now.Add(c.life)}
	c.byTopic[topic] = c.order.PushBack(e)
	c.bytes += e.size()
	for first := c.order.Front(); first != nil; first = c.order.Front() {
		old := first.Value.(*cached)
		late := !now.Before(old.until)
		if !late && c.bytes <= c.most {
			break
		}
		if !late {
			c.evicted++
		}
		c.remove(first)
	}
}

// get returns a channel's last event and how long it will be kept, nil if there is none.
func (c *cache) get(topic string, now time.Time) (event []byte, left time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.byTopic[topic]
	if at == nil {
		return nil, 0
	}
	e := at.Value.(*cached)
	if left = e.until.Sub(now); left <= 0 {
		c.remove(at)
		return nil, 0
	}
	return e.event, left
}

// remove removes an entry, if it is not nil. c.mu is held.
func (c *cache) remove(at *list.Element) {
	if at == nil {
		return
	}
	e := c.order.Remove(at).(*cached)
	delete(c.byTopic, e.topic)
	c.bytes -= e.size()
}

func (c *cache) stats() (entries, bytes int, evicted uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len(), c.bytes, c.evicted
}
