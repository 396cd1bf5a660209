package loadgen

import (
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/loadgen/plan"
)

// announced is the texts that were published lately. A text carries no number by which its
// receivers could tell it, as the generator's own messages do.
type announced struct {
	any atomic.Bool // there are some

	mu     sync.RWMutex
	latest []announcement // guarded by mu; in the order of their numbers
}

// announcement is a text that was published.
type announcement struct {
	pending
	number uint32
}

// announcedMost is how many texts are remembered. Who is further behind counts what it
// receives as foreign, or as missed.
const announcedMost = 1024

// add takes note of a text, before it is sent.
func (a *announced) add(m *message, payload []byte, number uint32, meant time.Duration, v *plan.Values) {
	p := pending{message: m, meant: meant}
	if p.Answer.Kind == plan.AnswerContains {
		p.text = m.Answer.Contains.Append(nil, v)
	} else {
		p.sum = sum(m.op, payload)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.any.Store(true)
	if len(a.latest) == announcedMost {
		a.latest = append(a.latest[:0], a.latest[1:]...)
	}
	a.latest = append(a.latest, announcement{p, number})
}

// find returns the text that a message is. Of several that are alike it is the first from
// number got on, which its receiver lacks; or else the last, which it has received
// before. Who has just come, and knows of none, has the last.
func (a *announced) find(op frame.Op, payload []byte, got uint32, come bool) (announcement, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	echo := sum(op, payload)
	is := func(l *announcement) bool {
		if k := l.Answer.Kind; k == plan.AnswerContains || k == plan.AnswerMatch {
			return l.pending.is(op, payload)
		}
		return l.sum == echo
	}
	lacks := len(a.latest)
	if !come {
		lacks = sort.Search(len(a.latest), func(i int) bool { return a.latest[i].number >= got })
	}
	for i := lacks; i < len(a.latest); i++ {
		if is(&a.latest[i]) {
			return a.latest[i], true
		}
	}
	for i := lacks - 1; i >= 0; i-- {
		if is(&a.latest[i]) {
			return a.latest[i], true
		}
	}
	return announcement{}, false
}
