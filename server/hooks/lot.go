package hooks

import (
	"container/list"
	"time"

	"github.com/seed-134acfd0/lull/server"
)

// lot is where connections are parked whose messages wait, in the order of coming.
type lot struct {
	order list.List                // of parked
	byID  map[uint64]*list.Element // of order
	since time.Time                // when somebody came into the empty lot
}

// parked is a connection in a lot.
type parked struct {
	conn  server.Conn
	since time.Time
}

func (l *lot) len() int { return len(l.byID) }

// add parks a connection, and reports whether it was not there.
func (l *lot) add(c server.Conn, now time.Time) bool {
	if l.byID[c.ID()] != nil {
		return false
	}
	if l.byID == nil {
		l.byID = map[uint64]*list.Element{}
	}
	if len(l.byID) == 0 {
		l.since = now
	}
	l.byID[c.ID()] = l.order.PushBack(parked{c, now})
	return true
}

// remove removes a connection, if it is there.
func (l *lot) remove(id uint64) {
	if e := l.byID[id]; e != nil {
		l.order.Remove(e)
		if delete(l.byID, id); len(l.byID) == 0 {
			l.byID = nil // a map does not shrink
		}
	}
}

// next removes the first connection that may go.
func (l *lot) next(may func(id uint64) bool) (c server.Conn, ok bool) {
	for e := l.order.Front(); e != nil; e = e.Next() {
		if c := e.Value.(parked).conn; may(c.ID()) {
			l.remove(c.ID())
			return c, true
		}
	}
	return server.Conn{}, false
}

// first returns up to n connections, those first that have been there for longest.
func (l *lot) first(n int) (all []parked) {
	for e := l.order.Front(); e != nil && len(all) < n; e = e.Next() {
		all = append(all, e.Value.(parked))
	}
	return all
}
