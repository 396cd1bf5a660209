package rooms

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/seed-134acfd0/lull/server"
)

// table has the rooms that connections are in. A connection's tag is the number of
// its room, so that its room costs it nothing beside the subscription. The lowest bit says
// that it speaks the subprotocol.
type table struct {
	mu      sync.RWMutex
	numbers map[string]uint64 // guarded by mu
	rooms   map[uint64]*room  // guarded by mu
	last    uint64            // guarded by mu; the number given last
}

type room struct {
	name     string
	conns    int
	speakers int // of conns, those that speak the subprotocol
}

const (
	speaks   = 1
	tagShift = 1
)

func newTable() *table { return &table{numbers: map[string]uint64{}, rooms: map[uint64]*room{}} }

// roomOf is the name of the room at a path, /room/NAME, where NAME is percent-encoded.
func roomOf(path string) (string, error) {
	escaped, ok := strings.CutPrefix(path, "/room/")
	if !ok || strings.Contains(escaped, "/") {
		return "", &server.Reject{Status: http.StatusNotFound, Reason: "there are rooms only, at /room/NAME"}
	}
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return "", &server.Reject{Status: http.StatusBadRequest, Reason: "the room's name: " + err.Error()}
	}
	if !server.ValidTopic(name) {
		return "", &server.Reject{Status: http.StatusBadRequest, Reason: "a room's name is 1 to 200 bytes of UTF-8 without control characters"}
	}
	if strings.HasPrefix(name, twinPrefix) {
		return "", &server.Reject{Status: http.StatusBadRequest, Reason: "a room's name does not begin with " + twinPrefix}
	}
	return name, nil
}

// enter lets a connection into a room, and returns its tag.
func (t *table) enter(name string, speaker bool) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	number, known := t.numbers[name]
	if !known {
		t.last++
		number = t.last
		t.numbers[name], t.rooms[number] = number, &room{name: name}
	}
	t.rooms[number].conns++
	if !speaker {
		return number << tagShift
	}
	t.rooms[number].speakers++
	return number<<tagShift | speaks
}

// name is the name of the room of a tag. Somebody is in it.
func (t *table) name(tag uint64) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.rooms[tag>>tagShift].name
}

// spoken reports whether somebody in a room speaks the subprotocol.
func (t *table) spoken(name string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	number, known := t.numbers[name]
	return known && t.rooms[number].speakers > 0
}

// names are the names of all rooms that somebody is in.
func (t *table) names() []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Keys(t.numbers))
}

// leave takes a connection out of its room.
func (t *table) leave(tag uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[tag>>tagShift]
	if tag&speaks != 0 {
		r.speakers--
	}
	if r.conns--; r.conns == 0 {
		delete(t.numbers, r.name)
		delete(t.rooms, tag>>tagShift)
	}
}
