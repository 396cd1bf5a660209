package main

import (
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// roomTable has the rooms that connections are in. A connection's tag is the number of
// its room, so that its room costs it nothing beside the subscription.
type roomTable struct {
	mu      sync.RWMutex
	numbers map[string]uint64 // guarded by mu
	rooms   map[uint64]*room  // guarded by mu
	last    uint64            // guarded by mu; the number given last
}

type room struct {
	name  string
	conns int
}

// roomsHandler has each connection in the room that its path names. A message goes to
// everybody there, by publish.
func roomsHandler(publish func(c server.Conn, topic string, op frame.Op, data []byte) error) server.Handler {
	t := &roomTable{numbers: map[string]uint64{}, rooms: map[uint64]*room{}}
	return server.Handler{
		Upgrade: func(r *server.Request) error {
			name, err := roomOf(r.Path())
			if err == nil {
				r.Topics, r.Tag = []string{name}, t.enter(name)
			}
			return err
		},
		Message: func(c server.Conn, op frame.Op, data []byte) { _ = publish(c, t.name(c.Tag()), op, data) },
		Close:   func(c server.Conn, _ frame.Code, _ error) { t.leave(c.Tag()) },
	}
}

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
	return name, nil
}

// enter lets a connection into a room, and returns the room's number.
func (t *roomTable) enter(name string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	number, known := t.numbers[name]
	if !known {
		t.last++
		number = t.last
		t.numbers[name], t.rooms[number] = number, &room{name: name}
	}
	t.rooms[number].conns++
	return number
}

// name is the name of a room that somebody is in.
func (t *roomTable) name(number uint64) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.rooms[number].name
}

// leave takes a connection out of a room.
func (t *roomTable) leave(number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.rooms[number]; r.conns > 1 {
		r.conns--
	} else {
		delete(t.numbers, r.name)
		delete(t.rooms, number)
	}
}
